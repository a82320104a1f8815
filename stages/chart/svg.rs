//! Owns how a [`Scene`] becomes SVG: one element a mark, coordinates to 1/100 pixel.

use std::fmt::Write as _;

use super::scene::{Anchor, Color, Mark, Scene, Stroke, TextStyle};

/// The whole file.
pub(super) fn svg(scene: &Scene) -> String {
    let mut out = String::new();
    let (width, height) = (Fixed::new(scene.width), Fixed::new(scene.height));
    let size = match scene.pixels_per_mm {
        Some(per_mm) => {
            format!(
                r#"width="{}mm" height="{}mm""#,
                Fixed::new(scene.width / per_mm),
                Fixed::new(scene.height / per_mm)
            )
        }
        None => format!(r#"width="{width}" height="{height}""#),
    };
    put(
        &mut out,
        format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" {size} viewBox=\"0 0 {width} {height}\" role=\"img\" \
             font-family=\"DejaVu Sans, Verdana, sans-serif\" fill=\"none\" stroke-linecap=\"round\" \
             stroke-linejoin=\"round\">\n<title>{}</title>\n<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n",
            Escaped(scene.title())
        ),
    );
    for mark in &scene.marks {
        draw(&mut out, mark);
    }
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, mark: &Mark) {
    match mark {
        Mark::Rect { frame, fill } => {
            let [x, y, width, height] = [frame.x, frame.y, frame.width, frame.height].map(Fixed::new);
            put(out, format_args!("<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\""));
            paint(out, "fill", *fill);
        }
        Mark::Lines { lines, stroke } => {
            out.push_str("<path d=\"");
            lines.iter().for_each(|line| path(out, line));
            out.push('"');
            style_line(out, *stroke);
        }
        Mark::Disc { center, radius, fill } => {
            let [x, y, radius] = [center.0, center.1, *radius].map(Fixed::new);
            put(out, format_args!("<circle cx=\"{x}\" cy=\"{y}\" r=\"{radius}\""));
            paint(out, "fill", *fill);
        }
        Mark::Text { at, text, style } => {
            write_text(out, *at, text, *style);
            return;
        }
    }
    out.push_str("/>\n");
}

/// Steps are between rounded places, so that rounding never adds up.
fn path(out: &mut String, line: &[(f64, f64)]) {
    let mut before = None;
    for &(x, y) in line {
        let (x, y) = (Fixed::new(x), Fixed::new(y));
        match before {
            None => put(out, format_args!("M{x} {y}")),
            Some((x_before, y_before)) => {
                let (Fixed(dx), Fixed(dy)) = (Fixed(x.0 - x_before), Fixed(y.0 - y_before));
                match (dx, dy) {
                    (0, 0) if line.len() > 2 => {}
                    (_, 0) => put(out, format_args!("h{}", Fixed(dx))),
                    (0, _) => put(out, format_args!("v{}", Fixed(dy))),
                    _ => put(out, format_args!("l{} {}", Fixed(dx), Fixed(dy))),
                }
            }
        }
        before = Some((x.0, y.0));
    }
    if line.len() == 1 {
        out.push_str("h0");
    }
}

fn style_line(out: &mut String, stroke: Stroke) {
    paint(out, "stroke", stroke.color);
    if stroke.width != 1.0 {
        put(out, format_args!(" stroke-width=\"{}\"", Fixed::new(stroke.width)));
    }
    if let Some((on, off)) = stroke.dash {
        put(out, format_args!(" stroke-dasharray=\"{} {}\"", Fixed::new(on), Fixed::new(off)));
    }
}

fn write_text(out: &mut String, at: (f64, f64), text: &str, style: TextStyle) {
    let (x, y) = (Fixed::new(at.0), Fixed::new(at.1));
    if style.turned {
        put(
            out,
            format_args!("<text transform=\"translate({x} {y})rotate(-90)\" font-size=\"{}\"", Fixed::new(style.size)),
        );
    } else {
        put(out, format_args!("<text x=\"{x}\" y=\"{y}\" font-size=\"{}\"", Fixed::new(style.size)));
    }
    match style.anchor {
        Anchor::Start => {}
        Anchor::Middle => out.push_str(" text-anchor=\"middle\""),
        Anchor::End => out.push_str(" text-anchor=\"end\""),
    }
    if style.bold {
        out.push_str(" font-weight=\"bold\"");
    }
    paint(out, "fill", style.color);
    put(out, format_args!(">{}</text>\n", Escaped(text)));
}

fn paint(out: &mut String, attribute: &str, color: Color) {
    let [red, green, blue] = color.rgb;
    put(out, format_args!(" {attribute}=\"#{red:02x}{green:02x}{blue:02x}\""));
    if color.opacity_percent != 100 {
        put(out, format_args!(" {attribute}-opacity=\"{}\"", Fixed(i64::from(color.opacity_percent))));
    }
}

fn put(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    out.write_fmt(arguments).expect("writing to a String cannot fail");
}

/// Hundredths, written without zeros at the end.
struct Fixed(i64);

impl Fixed {
    fn new(value: f64) -> Self {
        Self((value * 100.0).round() as i64)
    }
}

impl std::fmt::Display for Fixed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, part) = (self.0.unsigned_abs() / 100, self.0.unsigned_abs() % 100);
        match (whole, part) {
            (_, 0) => write!(formatter, "{sign}{whole}"),
            (0, part) if part % 10 == 0 => write!(formatter, "{sign}.{}", part / 10),
            (0, part) => write!(formatter, "{sign}.{part:02}"),
            (whole, part) if part % 10 == 0 => write!(formatter, "{sign}{whole}.{}", part / 10),
            (whole, part) => write!(formatter, "{sign}{whole}.{part:02}"),
        }
    }
}

struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '<' => formatter.write_str("&lt;")?,
                '>' => formatter.write_str("&gt;")?,
                '&' => formatter.write_str("&amp;")?,
                '"' => formatter.write_str("&quot;")?,
                // XML 1.0 has no place for other control characters, not even escaped.
                letter if letter.is_control() => formatter.write_str(" ")?,
                letter => write!(formatter, "{letter}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let texts = [0.0, 1.0, -0.5, 12.345, -3.999, 0.05, 100.2].map(|value| Fixed::new(value).to_string());
        assert_eq!(texts, ["0", "1", "-.5", "12.35", "-4", ".05", "100.2"]);
    }
}
