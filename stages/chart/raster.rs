//! Owns how a [`Scene`] becomes pixels: exact area coverage for letters and boxes, distance to the middle line for lines
//! and discs. Each mark is first a mask, then painted once, so that a translucent line does not darken where it crosses
//! itself.

use super::{
    font::{self, Contour},
    scene::{Color, Frame, Mark, Scene, Stroke, TextStyle},
};

/// Pixels of the picture for one of the scene: sharp on dense screens, and still readable when shown at half the size.
const SCALE: f64 = 2.0;
/// What a CSS pixel measures, for viewers that honour a PNG's resolution.
const PIXELS_PER_METRE: f64 = 96.0 / 0.0254;

/// The scene as a PNG file without a time stamp.
pub(super) fn png(scene: &Scene) -> Result<Vec<u8>, png::EncodingError> {
    let mut canvas = Canvas::new((scene.width * SCALE).ceil() as usize, (scene.height * SCALE).ceil() as usize);
    for mark in &scene.marks {
        canvas.draw(mark);
    }
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, canvas.width as u32, canvas.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Default);
    encoder.set_filter(png::FilterType::NoFilter);
    let per_metre = (SCALE * scene.pixels_per_mm.map_or(PIXELS_PER_METRE, |per_mm| per_mm * 1000.0)).round() as u32;
    let size = png::PixelDimensions { xppu: per_metre, yppu: per_metre, unit: png::Unit::Meter };
    encoder.set_pixel_dims(Some(size));
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&canvas.pixels)?;
    writer.finish()?;
    Ok(bytes)
}

struct Canvas {
    width: usize,
    height: usize,
    /// Red, green and blue of every pixel, row by row.
    pixels: Vec<u8>,
    /// Coverage of the mark at hand; zero between marks.
    mask: Vec<f32>,
}

/// Pixels `from..to` in both directions.
#[derive(Clone, Copy)]
struct Area {
    x_from: usize,
    x_to: usize,
    y_from: usize,
    y_to: usize,
}

impl Canvas {
    fn new(width: usize, height: usize) -> Self {
        Self { width, height, pixels: vec![255; width * height * 3], mask: vec![0.0; width * height] }
    }

    fn draw(&mut self, mark: &Mark) {
        match mark {
            Mark::Rect { frame, fill } => self.rect(*frame, *fill),
            Mark::Lines { lines, stroke } => self.lines(lines, *stroke),
            Mark::Disc { center, radius, fill } => {
                let center = (center.0 * SCALE, center.1 * SCALE);
                let area = self.capsule(center, center, radius * SCALE);
                self.paint(area, *fill);
            }
            Mark::Text { at, text, style } => self.text(*at, text, *style),
        }
    }

    fn rect(&mut self, frame: Frame, fill: Color) {
        let (left, right) = (frame.x * SCALE, frame.right() * SCALE);
        let (top, bottom) = (frame.y * SCALE, frame.bottom() * SCALE);
        let area = self.area((left, top), (right, bottom));
        for y in area.y_from..area.y_to {
            let row = share(y, top, bottom);
            for x in area.x_from..area.x_to {
                self.mask[y * self.width + x] = (row * share(x, left, right)) as f32;
            }
        }
        self.paint(area, fill);
    }

    fn lines(&mut self, lines: &[Vec<(f64, f64)>], stroke: Stroke) {
        let half = stroke.width * SCALE / 2.0;
        let mut painted: Option<Area> = None;
        for line in lines {
            let scaled: Vec<(f64, f64)> = line.iter().map(|&(x, y)| (x * SCALE, y * SCALE)).collect();
            let pieces = match stroke.dash {
                Some((on, off)) => dashes(&scaled, on * SCALE, off * SCALE),
                None => vec![scaled],
            };
            for piece in pieces {
                let ends = piece.iter().zip(piece.iter().skip(1).chain(piece.last().filter(|_| piece.len() == 1)));
                for (&from, &to) in ends {
                    let area = self.capsule(from, to, half);
                    painted = Some(painted.map_or(area, |before| before.with(area)));
                }
            }
        }
        if let Some(area) = painted {
            self.paint(area, stroke.color);
        }
    }

    /// Covers what lies within `half` of a straight line; keeps the larger of this and earlier coverage.
    fn capsule(&mut self, from: (f64, f64), to: (f64, f64), half: f64) -> Area {
        let reach = half + 0.75;
        let (left, right) = (from.0.min(to.0) - reach, from.0.max(to.0) + reach);
        let (top, bottom) = (from.1.min(to.1) - reach, from.1.max(to.1) + reach);
        let area = self.area((left, top), (right, bottom));
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        if half <= 1.5 && (dx == 0.0) != (dy == 0.0) {
            // Thin lines along the axes, as all grids are: a box, whose square ends nobody sees.
            let (low, high) = ((from.0.min(to.0), from.1.min(to.1)), (from.0.max(to.0), from.1.max(to.1)));
            for y in area.y_from..area.y_to {
                let row = share(y, low.1 - half, high.1 + half);
                for x in area.x_from..area.x_to {
                    let cover = &mut self.mask[y * self.width + x];
                    *cover = cover.max((row * share(x, low.0 - half, high.0 + half)) as f32);
                }
            }
            return area;
        }
        let square = dx * dx + dy * dy;
        for y in area.y_from..area.y_to {
            let center_y = y as f64 + 0.5;
            // Only the part of the line that is near this row can matter in it.
            let (near, far) = if dy.abs() > reach {
                let at = |y: f64| ((y - from.1) / dy).clamp(0.0, 1.0) * dx + from.0;
                let (one, other) = (at(center_y - reach), at(center_y + reach));
                (one.min(other) - reach, one.max(other) + reach)
            } else {
                (left, right)
            };
            let x_from = area.x_from.max(near.max(0.0) as usize);
            let x_to = area.x_to.min(far.max(0.0).ceil() as usize);
            let row = &mut self.mask[y * self.width..(y + 1) * self.width];
            for (x, cover) in row.iter_mut().enumerate().take(x_to).skip(x_from) {
                let (px, py) = (x as f64 + 0.5 - from.0, center_y - from.1);
                let along = if square > 0.0 { ((px * dx + py * dy) / square).clamp(0.0, 1.0) } else { 0.0 };
                let (ax, ay) = (px - along * dx, py - along * dy);
                let distance = (ax * ax + ay * ay).sqrt();
                let covered = (distance + 0.5).min(half) - (distance - 0.5).max(-half);
                *cover = cover.max(covered.clamp(0.0, 1.0) as f32);
            }
        }
        area
    }

    fn text(&mut self, at: (f64, f64), text: &str, style: TextStyle) {
        let place = |(x, y): (f64, f64)| {
            let (x, y) = if style.turned { (y, -x) } else { (x, y) };
            ((at.0 + x) * SCALE, (at.1 + y) * SCALE)
        };
        let contours: Vec<Contour> =
            font::outlines(text, style).into_iter().map(|contour| contour.into_iter().map(place).collect()).collect();
        let points = || contours.iter().flatten();
        let lowest = points().fold((f64::MAX, f64::MAX), |low, point| (low.0.min(point.0), low.1.min(point.1)));
        let highest = points().fold((f64::MIN, f64::MIN), |high, point| (high.0.max(point.0), high.1.max(point.1)));
        if lowest.0 > highest.0 {
            return;
        }
        let area = self.area(lowest, highest);
        self.fill(area, &contours);
        self.paint(area, style.color);
    }

    /// Covers the inside of contours: every edge adds the signed area to its right, summed up along each row.
    fn fill(&mut self, area: Area, contours: &[Contour]) {
        let width = area.x_to - area.x_from;
        let height = area.y_to - area.y_from;
        let mut sums = vec![0.0f64; (width + 2) * height];
        for contour in contours {
            let ends = contour.iter().zip(contour.iter().skip(1).chain(contour.first()));
            for (&from, &to) in ends {
                let local = |(x, y): (f64, f64)| (x - area.x_from as f64, y - area.y_from as f64);
                add_edge(&mut sums, width, local(from), local(to));
            }
        }
        for (row, y) in sums.chunks_exact(width + 2).zip(area.y_from..) {
            let mut sum = 0.0;
            for (share, x) in row.iter().zip(area.x_from..area.x_to) {
                sum += share;
                self.mask[y * self.width + x] = sum.abs().min(1.0) as f32;
            }
        }
    }

    /// Paints what the mask covers and clears the mask.
    fn paint(&mut self, area: Area, color: Color) {
        let opacity = f32::from(color.opacity_percent) / 100.0;
        for y in area.y_from..area.y_to {
            let places = y * self.width + area.x_from..y * self.width + area.x_to;
            let pixels = self.pixels[places.start * 3..places.end * 3].chunks_exact_mut(3);
            for (cover, pixel) in self.mask[places].iter_mut().zip(pixels) {
                if *cover > 0.0 {
                    let share = *cover * opacity;
                    for (old, new) in pixel.iter_mut().zip(color.rgb) {
                        let old_value = f32::from(*old);
                        *old = (old_value + (f32::from(new) - old_value) * share + 0.5) as u8;
                    }
                    *cover = 0.0;
                }
            }
        }
    }

    /// The pixels that a box touches, inside of the picture.
    fn area(&self, lowest: (f64, f64), highest: (f64, f64)) -> Area {
        let from = |value: f64, end: usize| (value.floor().max(0.0) as usize).min(end);
        let to = |value: f64, end: usize| (value.ceil().max(0.0) as usize).min(end);
        let (x_from, y_from) = (from(lowest.0, self.width), from(lowest.1, self.height));
        let (x_to, y_to) = (to(highest.0, self.width), to(highest.1, self.height));
        Area { x_from, x_to: x_to.max(x_from), y_from, y_to: y_to.max(y_from) }
    }
}

impl Area {
    fn with(self, other: Self) -> Self {
        Self {
            x_from: self.x_from.min(other.x_from),
            x_to: self.x_to.max(other.x_to),
            y_from: self.y_from.min(other.y_from),
            y_to: self.y_to.max(other.y_to),
        }
    }
}

/// How much of pixel `idx` lies in `from..to`.
fn share(idx: usize, from: f64, to: f64) -> f64 {
    (to.min(idx as f64 + 1.0) - from.max(idx as f64)).max(0.0)
}

/// Adds one edge to rows of `width + 2` sums; what lies outside of the rows is cut off.
fn add_edge(sums: &mut [f64], width: usize, from: (f64, f64), to: (f64, f64)) {
    let (sign, top, bottom) = if from.1 < to.1 { (1.0, from, to) } else { (-1.0, to, from) };
    let height = sums.len() / (width + 2);
    let (y_from, y_to) = (top.1.max(0.0), bottom.1.min(height as f64));
    if y_from >= y_to {
        return;
    }
    let slope = (bottom.0 - top.0) / (bottom.1 - top.1);
    let x_at = |y: f64| (top.0 + (y - top.1) * slope).clamp(0.0, width as f64);
    for y in y_from as usize..y_to.ceil() as usize {
        let row = &mut sums[y * (width + 2)..(y + 1) * (width + 2)];
        let (low, high) = (y_from.max(y as f64), y_to.min(y as f64 + 1.0));
        let rise = (high - low) * sign;
        let (one, other) = (x_at(low), x_at(high));
        let (left, right) = (one.min(other), one.max(other));
        for x in left as usize..=right as usize {
            let (begin, end) = (left.max(x as f64), right.min(x as f64 + 1.0));
            let part = if right > left { rise * (end - begin) / (right - left) } else { rise };
            let to_the_right = (begin + end) / 2.0 - x as f64;
            row[x] += part * (1.0 - to_the_right);
            row[x + 1] += part * to_the_right;
        }
    }
}

/// The drawn parts of a dashed line.
fn dashes(line: &[(f64, f64)], on: f64, off: f64) -> Vec<Vec<(f64, f64)>> {
    let mut pieces = Vec::new();
    let mut piece = line.first().map(|&start| vec![start]).unwrap_or_default();
    let (mut drawing, mut left) = (true, on);
    for pair in line.windows(2) {
        let (dx, dy) = (pair[1].0 - pair[0].0, pair[1].1 - pair[0].1);
        let length = (dx * dx + dy * dy).sqrt();
        let mut done = 0.0;
        while length - done > left {
            done += left;
            let point = (pair[0].0 + dx * done / length, pair[0].1 + dy * done / length);
            if drawing {
                piece.push(point);
                pieces.push(std::mem::take(&mut piece));
            } else {
                piece = vec![point];
            }
            drawing = !drawing;
            left = if drawing { on } else { off };
        }
        left -= length - done;
        if drawing {
            piece.push(pair[1]);
        }
    }
    if !piece.is_empty() {
        pieces.push(piece);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chart::{INK, LABEL};

    const BLACK: Color = Color::hex(0);

    fn darkness(canvas: &Canvas) -> f64 {
        canvas.pixels.chunks_exact(3).map(|pixel| f64::from(255 - pixel[0]) / 255.0).sum()
    }

    fn drawn(draw: impl FnOnce(&mut Scene)) -> Canvas {
        let mut scene = Scene::new("", 50.0, 30.0);
        draw(&mut scene);
        let mut canvas = Canvas::new(100, 60);
        scene.marks.iter().for_each(|mark| canvas.draw(mark));
        canvas
    }

    #[test]
    fn what_is_drawn_covers_its_area() {
        let check = |canvas: Canvas, expected: f64| {
            let measured = darkness(&canvas);
            assert!((measured - expected).abs() < 0.02 * expected, "{measured}, not {expected}");
        };
        check(drawn(|scene| scene.rect(Frame { x: 3.3, y: 2.1, width: 10.4, height: 5.2 }, BLACK)), 4.0 * 10.4 * 5.2);
        check(drawn(|scene| scene.disc((25.0, 15.0), 10.0, BLACK)), 4.0 * std::f64::consts::PI * 100.0);
        let line = vec![(5.0, 5.0), (45.0, 25.0)];
        check(drawn(|scene| scene.line(line.clone(), Stroke::new(BLACK, 0.5))), 4.0 * 0.5 * 2000f64.sqrt());
        // Six dashes of 4; their round ends add a pixel of the picture to each.
        let dashed = Stroke::new(BLACK, 0.5).dashed(4.0, 4.0);
        check(drawn(|scene| scene.line(vec![(1.0, 9.25), (49.0, 9.25)], dashed)), 4.0 * 0.5 * 24.0 + 6.0);
        // A full stop of DejaVu Sans Bold is a box of 360 by 387 of 2048 units.
        let unit = 40.0 * SCALE / 2048.0;
        check(
            drawn(|scene| scene.text((10.0, 20.0), ".", LABEL.size(40.0).color(BLACK).bold())),
            360.0 * unit * 387.0 * unit,
        );
    }

    #[test]
    fn a_translucent_line_does_not_darken_where_it_crosses_itself() {
        let cross = vec![vec![(5.0, 5.0), (45.0, 25.0)], vec![(45.0, 5.0), (5.0, 25.0)]];
        let canvas = drawn(|scene| scene.lines(cross, Stroke::new(BLACK.faded(40), 4.0)));
        assert_eq!(canvas.pixels.iter().min(), Some(&153));
    }

    #[test]
    fn marks_outside_of_the_picture_are_cut_off() {
        let canvas = drawn(|scene| {
            scene.rect(Frame { x: -10.0, y: -10.0, width: 500.0, height: 12.0 }, BLACK);
            scene.line(vec![(-900.0, 10.0), (900.0, 10.25)], Stroke::new(INK, 1.0));
            scene.disc((60.0, 40.0), 5.0, INK);
            scene.text((45.0, 31.0), "outside", LABEL);
            scene.text((-300.0, 15.0), "outside", LABEL.turned());
        });
        assert!(canvas.mask.iter().all(|&cover| cover == 0.0));
    }
}
