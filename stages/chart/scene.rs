//! Owns [`Scene`]: what is on a figure, before it is a file. Coordinates are in pixels, x to the right and y down.

/// A figure as marks, later ones above earlier ones.
///
/// Invariant: no mark holds a coordinate that is not finite; lines are split there (guarded by
/// `super::tests::the_svg_is_escaped_and_breaks_lines_at_gaps`).
#[derive(Clone, Debug)]
pub struct Scene {
    title: String,
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) pixels_per_mm: Option<f64>,
    pub(super) marks: Vec<Mark>,
}

#[derive(Clone, Debug)]
pub(super) enum Mark {
    Rect { frame: Frame, fill: Color },
    Lines { lines: Vec<Vec<(f64, f64)>>, stroke: Stroke },
    Disc { center: (f64, f64), radius: f64, fill: Color },
    Text { at: (f64, f64), text: String, style: TextStyle },
}

/// A colour with an opacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Color {
    pub(super) rgb: [u8; 3],
    pub(super) opacity_percent: u8,
}

/// A box by its top left corner and size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Frame {
    /// Left edge.
    pub x: f64,
    /// Top edge.
    pub y: f64,
    /// To the right.
    pub width: f64,
    /// Down.
    pub height: f64,
}

/// How a line looks. Ends and corners are round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stroke {
    pub(super) color: Color,
    pub(super) width: f64,
    pub(super) dash: Option<(f64, f64)>,
}

/// How a text looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TextStyle {
    pub(super) size: f64,
    pub(super) color: Color,
    pub(super) bold: bool,
    pub(super) anchor: Anchor,
    pub(super) turned: bool,
}

/// Which end of a text is at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// The text begins there.
    Start,
    /// Its middle is there.
    Middle,
    /// It ends there.
    End,
}

impl Color {
    /// An opaque colour out of `0xRRGGBB`.
    #[must_use]
    pub const fn hex(rgb: u32) -> Self {
        let [_, red, green, blue] = rgb.to_be_bytes();
        Self { rgb: [red, green, blue], opacity_percent: 100 }
    }

    /// The same colour, translucent.
    #[must_use]
    pub const fn faded(self, opacity_percent: u8) -> Self {
        Self { opacity_percent, ..self }
    }

    /// The colour at `share` (0 to 1) of the way to another, in sRGB.
    #[must_use]
    pub fn towards(self, other: Self, share: f64) -> Self {
        let mix = |idx: usize| {
            let (from, to) = (f64::from(self.rgb[idx]), f64::from(other.rgb[idx]));
            (from + (to - from) * share.clamp(0.0, 1.0) + 0.5) as u8
        };
        Self { rgb: [mix(0), mix(1), mix(2)], opacity_percent: self.opacity_percent }
    }

    /// Red, green and blue.
    #[must_use]
    pub const fn rgb(self) -> [u8; 3] {
        self.rgb
    }
}

impl Frame {
    /// Right edge.
    #[must_use]
    pub fn right(self) -> f64 {
        self.x + self.width
    }

    /// Bottom edge.
    #[must_use]
    pub fn bottom(self) -> f64 {
        self.y + self.height
    }
}

impl Stroke {
    /// A solid line.
    #[must_use]
    pub const fn new(color: Color, width: f64) -> Self {
        Self { color, width, dash: None }
    }

    /// A dashed line: `on` pixels drawn, `off` pixels not.
    #[must_use]
    pub const fn dashed(self, on: f64, off: f64) -> Self {
        Self { dash: Some((on, off)), ..self }
    }
}

impl TextStyle {
    /// Text that begins at its place.
    #[must_use]
    pub const fn new(size: f64, color: Color) -> Self {
        Self { size, color, bold: false, anchor: Anchor::Start, turned: false }
    }

    /// In bold.
    #[must_use]
    pub const fn bold(self) -> Self {
        Self { bold: true, ..self }
    }

    /// In another colour.
    #[must_use]
    pub const fn color(self, color: Color) -> Self {
        Self { color, ..self }
    }

    /// In another size.
    #[must_use]
    pub const fn size(self, size: f64) -> Self {
        Self { size, ..self }
    }

    /// Centred at its place.
    #[must_use]
    pub const fn middle(self) -> Self {
        Self { anchor: Anchor::Middle, ..self }
    }

    /// Ending at its place.
    #[must_use]
    pub const fn end(self) -> Self {
        Self { anchor: Anchor::End, ..self }
    }

    /// Read from below.
    #[must_use]
    pub const fn turned(self) -> Self {
        Self { turned: true, ..self }
    }
}

impl Scene {
    /// A white figure of `width` by `height` pixels.
    #[must_use]
    pub fn new(title: &str, width: f64, height: f64) -> Self {
        Self { title: title.to_owned(), width, height, pixels_per_mm: None, marks: Vec::new() }
    }

    /// Says how large a pixel is, so that the figure prints at true size.
    #[must_use]
    pub fn at_true_size(self, pixels_per_mm: f64) -> Self {
        Self { pixels_per_mm: Some(pixels_per_mm), ..self }
    }

    /// What the figure shows; also for readers that cannot see it.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Fills a box.
    pub fn rect(&mut self, frame: Frame, fill: Color) {
        if [frame.x, frame.y, frame.width, frame.height].iter().all(|value| value.is_finite()) {
            self.marks.push(Mark::Rect { frame, fill });
        }
    }

    /// Draws the edges of a box, one pixel wide.
    pub fn frame(&mut self, frame: Frame, color: Color) {
        let (left, top, right, bottom) = (frame.x, frame.y, frame.right(), frame.bottom());
        let edges = vec![(left, top), (right, top), (right, bottom), (left, bottom), (left, top)];
        self.line(edges, Stroke::new(color, 1.0));
    }

    /// Draws one line through points; it is broken where a point is not finite.
    pub fn line(&mut self, points: Vec<(f64, f64)>, stroke: Stroke) {
        self.lines(vec![points], stroke);
    }

    /// Draws several lines as one mark: where they cross, a translucent colour does not get darker.
    pub fn lines(&mut self, lines: Vec<Vec<(f64, f64)>>, stroke: Stroke) {
        let finite = |point: &(f64, f64)| point.0.is_finite() && point.1.is_finite();
        let pieces = lines.iter().flat_map(|points| points.split(|point| !finite(point)));
        let lines: Vec<Vec<(f64, f64)>> = pieces.filter(|piece| !piece.is_empty()).map(<[_]>::to_vec).collect();
        if !lines.is_empty() {
            self.marks.push(Mark::Lines { lines, stroke });
        }
    }

    /// Fills a disc.
    pub fn disc(&mut self, center: (f64, f64), radius: f64, fill: Color) {
        if center.0.is_finite() && center.1.is_finite() {
            self.marks.push(Mark::Disc { center, radius, fill });
        }
    }

    /// Writes a text with its base line at a place.
    pub fn text(&mut self, at: (f64, f64), text: &str, style: TextStyle) {
        if at.0.is_finite() && at.1.is_finite() && !text.is_empty() {
            self.marks.push(Mark::Text { at, text: text.to_owned(), style });
        }
    }
}

/// A line through some of the points that is nowhere further than `tolerance` from the others: the method of Ramer (1972)
/// and of Douglas and Peucker (1973). Every point must be finite.
#[must_use]
pub fn simplified(points: &[(f64, f64)], tolerance: f64) -> Vec<(f64, f64)> {
    let mut kept = vec![false; points.len()];
    if let (Some(first), Some(_)) = (kept.first_mut(), points.last()) {
        *first = true;
    }
    if let Some(last) = kept.last_mut() {
        *last = true;
    }
    let mut stack = vec![(0, points.len().saturating_sub(1))];
    while let Some((from, to)) = stack.pop() {
        let ((x0, y0), (x1, y1)) = match (points.get(from), points.get(to)) {
            (Some(&a), Some(&b)) if to > from + 1 => (a, b),
            _ => continue,
        };
        let (dx, dy) = (x1 - x0, y1 - y0);
        let length = (dx * dx + dy * dy).sqrt().max(1e-12);
        let distance = |idx: usize| ((points[idx].0 - x0) * dy - (points[idx].1 - y0) * dx).abs() / length;
        let (mut furthest, mut most) = (from, tolerance);
        for idx in from + 1..to {
            let distance = distance(idx);
            if distance > most {
                (furthest, most) = (idx, distance);
            }
        }
        if furthest > from {
            kept[furthest] = true;
            stack.extend([(from, furthest), (furthest, to)]);
        }
    }
    points.iter().zip(kept).filter(|(_, kept)| *kept).map(|(&point, _)| point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simplifying_keeps_peaks_and_drops_what_cannot_be_seen() {
        let line = [(0.0, 0.0), (1.0, 0.01), (2.0, 5.0), (3.0, 0.0), (4.0, 0.0), (5.0, 0.0)];
        assert_eq!(simplified(&line, 0.1), [(0.0, 0.0), (1.0, 0.01), (2.0, 5.0), (3.0, 0.0), (5.0, 0.0)]);
        assert_eq!(simplified(&line[..1], 0.1), &line[..1]);
        assert_eq!(simplified(&[], 0.1), []);
    }
}
