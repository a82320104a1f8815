//! Owns the embedded fonts: widths for layouts, outlines for pictures.
//!
//! The files are subsets of DejaVu Sans 2.37, made by `pyftsubset DejaVuSans.ttf --no-hinting --legacy-kern
//! --layout-features='' --unicodes=U+0020-007E,U+00B1,U+00B5,U+00B7,U+00D7,U+2013,U+2014,U+2026,U+2192,U+2265,U+2264,U+2212,U+03BC`
//! (and `DejaVuSans-Bold.ttf`); another character is drawn as a box.

use ab_glyph::{Font as _, FontRef, OutlineCurve, Point};

use super::scene::{Anchor, TextStyle};

const REGULAR: &[u8] = include_bytes!("DejaVuSans.subset.ttf");
const BOLD: &[u8] = include_bytes!("DejaVuSans-Bold.subset.ttf");

/// Straight pieces that one curve of a letter is drawn with; letters are at most some 40 pixels high.
const CURVE_STEP_N: u32 = 6;

/// A closed contour.
pub(super) type Contour = Vec<(f64, f64)>;

/// How wide a text is, in pixels.
#[must_use]
pub fn width(text: &str, style: TextStyle) -> f64 {
    let font = face(style.bold);
    let (_, advance) = places(&font, text);
    advance * scale(&font, style.size)
}

/// The contours of a text whose place is (0, 0), in pixels with y down, before it is turned.
pub(super) fn outlines(text: &str, style: TextStyle) -> Vec<Contour> {
    let font = face(style.bold);
    let scale = scale(&font, style.size);
    let (places, advance) = places(&font, text);
    let start = match style.anchor {
        Anchor::Start => 0.0,
        Anchor::Middle => -advance / 2.0,
        Anchor::End => -advance,
    };
    let mut contours = Vec::new();
    for (glyph, x) in places {
        let Some(outline) = font.outline(glyph) else { continue };
        let place = |point: Point| ((start + x + f64::from(point.x)) * scale, -f64::from(point.y) * scale);
        let mut contour: Contour = Vec::new();
        for curve in outline.curves {
            let from = match curve {
                OutlineCurve::Line(from, _) | OutlineCurve::Quad(from, ..) | OutlineCurve::Cubic(from, ..) => {
                    place(from)
                }
            };
            if contour.last() != Some(&from) {
                contours.push(std::mem::replace(&mut contour, vec![from]));
            }
            match curve {
                OutlineCurve::Line(_, to) => contour.push(place(to)),
                OutlineCurve::Quad(_, control, to) => bend(&mut contour, &[place(control), place(to)]),
                OutlineCurve::Cubic(_, first, second, to) => {
                    bend(&mut contour, &[place(first), place(second), place(to)]);
                }
            }
        }
        contours.push(contour);
    }
    contours.retain(|contour| contour.len() > 2);
    contours
}

fn face(bold: bool) -> FontRef<'static> {
    FontRef::try_from_slice(if bold { BOLD } else { REGULAR }).expect("the embedded fonts are whole")
}

fn scale(font: &FontRef<'_>, size: f64) -> f64 {
    size / f64::from(font.units_per_em().expect("the embedded fonts state their units"))
}

/// Where each glyph starts and where the text ends, in font units.
fn places(font: &FontRef<'_>, text: &str) -> (Vec<(ab_glyph::GlyphId, f64)>, f64) {
    let mut x = 0.0;
    let mut places: Vec<(ab_glyph::GlyphId, f64)> = Vec::with_capacity(text.len());
    for letter in text.chars() {
        let glyph = font.glyph_id(letter);
        if let Some((before, _)) = places.last() {
            x += f64::from(font.kern_unscaled(*before, glyph));
        }
        places.push((glyph, x));
        x += f64::from(font.h_advance_unscaled(glyph));
    }
    (places, x)
}

/// Adds a Bézier curve from the contour's end, by de Casteljau's construction.
fn bend(contour: &mut Contour, controls: &[(f64, f64)]) {
    let from = *contour.last().expect("a curve starts where its contour is");
    for step in 1..=CURVE_STEP_N {
        let share = f64::from(step) / f64::from(CURVE_STEP_N);
        let mut points: Contour = std::iter::once(from).chain(controls.iter().copied()).collect();
        while points.len() > 1 {
            let between = |pair: &[(f64, f64)]| {
                (pair[0].0 + (pair[1].0 - pair[0].0) * share, pair[0].1 + (pair[1].1 - pair[0].1) * share)
            };
            points = points.windows(2).map(between).collect();
        }
        contour.push(points[0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chart::{LABEL, MUTED};

    #[test]
    fn widths_grow_with_text_size_and_weight() {
        let style = TextStyle::new(10.0, MUTED);
        assert!(width("WW", style) > width("W", style) * 1.9);
        assert!((width("Wm", style) * 2.0 - width("Wm", style.size(20.0))).abs() < 1e-9);
        assert!(width("Wm", style.bold()) > width("Wm", style));
        // DejaVu Sans gives a digit 1303 of 2048 units.
        assert!((width("0", style) - 10.0 * 1303.0 / 2048.0).abs() < 1e-9);
    }

    #[test]
    fn every_sign_that_figures_use_is_in_the_fonts() {
        let signs: String = (' '..='~').chain("±µ·×–—…→≥≤−μ".chars()).collect();
        for bold in [false, true] {
            let font = face(bold);
            let missing: String = signs.chars().filter(|&letter| font.glyph_id(letter).0 == 0).collect();
            assert_eq!(missing, "");
        }
        assert!(!outlines("→", LABEL).is_empty());
    }
}
