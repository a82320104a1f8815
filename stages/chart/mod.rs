//! Owns how every figure is drawn: [`Scene`] (lines, boxes, discs and texts at places in pixels), the two files that
//! [`figure`] makes of one scene (SVG, and PNG at twice the size), [`Axis`] (ticks at round numbers) and [`palette`] (the
//! colour of each class).
//!
//! Invariant: one scene gives the same bytes on every machine. The fonts are embedded (a subset of DejaVu Sans, whose
//! licence lies beside it), no time is written, and pixels are computed with additions, products, quotients and square
//! roots only, which IEEE 754 fixes to the last bit (guarded by `tests::one_scene_gives_the_same_bytes`).
//!
//! It must not know stages, kinds or ECGs; classes are known to [`palette`] alone.

mod axis;
mod font;
pub mod palette;
mod raster;
mod scene;
mod svg;

use ecgpipe_sdk::{NamedFile, StageError};

pub use axis::Axis;
pub use font::width as text_width;
pub use scene::{Anchor, Color, Frame, Scene, Stroke, TextStyle, simplified};

/// Ink of titles and of what matters most.
pub const INK: Color = Color::hex(0x1f_29_33);
/// Ink of axis labels and remarks; its contrast to white is 6 to 1.
pub const MUTED: Color = Color::hex(0x55_60_6b);
/// Lines of axes and frames.
pub const RULE: Color = Color::hex(0xb4_bc_c4);
/// Lines behind data.
pub const GRID: Color = Color::hex(0xe6_e9_ed);
/// Paper.
pub const WHITE: Color = Color::hex(0xff_ff_ff);
/// Distance of everything from the edge of a figure, in pixels.
pub const MARGIN: f64 = 24.0;

/// The title at the top left of a figure.
pub const TITLE: TextStyle = TextStyle::new(17.0, INK).bold();
/// The line under the title.
pub const SUBTITLE: TextStyle = TextStyle::new(12.0, MUTED);
/// Labels of axes and panels.
pub const LABEL: TextStyle = TextStyle::new(12.0, INK);
/// Small print: ticks and remarks.
pub const SMALL: TextStyle = TextStyle::new(11.0, MUTED);

/// A scene as two files, `<stem>.svg` and `<stem>.png`.
///
/// # Errors
/// If the picture is too large for a PNG file.
pub fn figure(stem: &str, scene: &Scene) -> Result<[NamedFile; 2], StageError> {
    let png = raster::png(scene).map_err(|error| {
        StageError::new(format!("figure `{stem}` cannot be written as PNG: {error}")).help("ask for a smaller figure")
    })?;
    Ok([
        NamedFile { name: format!("{stem}.svg"), bytes: svg::svg(scene).into_bytes() },
        NamedFile { name: format!("{stem}.png"), bytes: png },
    ])
}

/// Draws title and subtitle at the top left; what follows may start at y = 76.
pub fn heading(scene: &mut Scene, subtitle: &str) {
    let title = scene.title().to_owned();
    scene.text((MARGIN, 38.0), &title, TITLE);
    scene.text((MARGIN, 58.0), subtitle, SUBTITLE);
}

/// A figure that says why there is nothing to see.
#[must_use]
pub fn empty(title: &str, reason: &str) -> Scene {
    let mut scene = Scene::new(title, 640.0, 200.0);
    scene.text((MARGIN, 38.0), title, TITLE);
    let frame = Frame { x: MARGIN, y: 60.0, width: 640.0 - 2.0 * MARGIN, height: 200.0 - 60.0 - MARGIN };
    scene.frame(frame, GRID);
    scene.text((frame.x + frame.width / 2.0, frame.y + frame.height / 2.0 + 4.0), reason, SUBTITLE.middle());
    scene
}

/// A count with a comma between thousands, for example `44,238`.
#[must_use]
pub fn grouped(count: i64) -> String {
    let digits = count.unsigned_abs().to_string();
    let mut text = if count < 0 { "\u{2212}".to_owned() } else { String::new() };
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn scene() -> Scene {
        let mut scene = Scene::new("A < B & \"C\"", 80.0, 40.0);
        heading(&mut scene, "±5 µV");
        scene.rect(Frame { x: 4.0, y: 4.0, width: 20.0, height: 8.5 }, palette::of("V").fill);
        let line = vec![(2.0, 30.0), (40.0, 5.0), (f64::NAN, 0.0), (41.0, 5.0), (78.0, 30.0)];
        scene.line(line, Stroke::new(INK, 1.5));
        scene.line(vec![(2.0, 35.0), (78.0, 35.0)], Stroke::new(MUTED, 1.0).dashed(4.0, 3.0));
        scene.disc((60.0, 20.0), 5.0, palette::of("Q").fill.faded(50));
        scene.text((70.0, 30.0), "up", LABEL.turned());
        scene
    }

    #[test]
    fn one_scene_gives_the_same_bytes() {
        let once = figure("a", &scene()).unwrap();
        assert_eq!(once, figure("a", &scene()).unwrap());
        assert_eq!(once.map(|file| file.name), ["a.svg", "a.png"]);
    }

    #[test]
    fn the_svg_is_escaped_and_breaks_lines_at_gaps() {
        let [svg, _] = figure("a", &scene()).unwrap();
        let svg = String::from_utf8(svg.bytes).unwrap();
        assert!(svg.contains("<title>A &lt; B &amp; &quot;C&quot;</title>"), "{svg}");
        assert!(svg.contains(r#"font-family="DejaVu Sans, Verdana, sans-serif""#), "{svg}");
        assert!(svg.contains("±5 µV"), "{svg}");
        assert!(svg.contains(r#"d="M2 30l38 -25M41 5l37 25""#), "{svg}");
        assert!(!svg.contains("NaN"), "{svg}");
    }

    #[test]
    fn an_empty_figure_says_why() {
        let [svg, png] = figure("a", &empty("Curves", "no epochs")).unwrap();
        assert!(String::from_utf8(svg.bytes).unwrap().contains("no epochs"));
        assert!(png.bytes.starts_with(b"\x89PNG\r\n\x1a\n"));
    }

    #[test]
    fn thousands_are_set_apart() {
        let texts = [0, 999, 1000, 44_238, 1_234_567, -1000].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "44,238", "1,234,567", "\u{2212}1,000"]);
    }
}
