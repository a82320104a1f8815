//! Owns the colour of each class, the same on every figure.
//!
//! The five differ in lightness and in the blue-yellow direction, which the common kinds of colour blindness keep
//! (guarded by `tests::classes_differ_for_colour_blind_readers`); figures still write the class's letter beside a colour.
//! Orange, vermillion and teal are close to those of Okabe and Ito's palette.

use super::{MUTED, WHITE, scene::Color};

/// The colours of one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassColors {
    /// Of areas and thick lines.
    pub fill: Color,
    /// Of text and thin lines on white; contrast at least 4.5 to 1.
    pub ink: Color,
}

const N: ClassColors = both(0x5b_7a_9c, 0x4f_6d_8f);
const S: ClassColors = both(0xf0_a2_02, 0x9a_62_00);
const V: ClassColors = both(0xd5_4a_00, 0xc8_40_00);
const F: ClassColors = both(0x7a_2f_8f, 0x7a_2f_8f);
const Q: ClassColors = both(0x00_a0_8a, 0x00_7a_69);

const fn both(fill: u32, ink: u32) -> ClassColors {
    ClassColors { fill: Color::hex(fill), ink: Color::hex(ink) }
}

/// The colours of a class by its letter; grey for what is not an AAMI class.
#[must_use]
pub fn of(class: &str) -> ClassColors {
    match class {
        "N" => N,
        "S" => S,
        "V" => V,
        "F" => F,
        "Q" => Q,
        _ => ClassColors { fill: MUTED, ink: MUTED },
    }
}

/// A single hue from white to dark blue whose lightness falls evenly with `share` (0 to 1): the stops are those of
/// ColorBrewer's sequential scale Blues.
#[must_use]
pub fn blues(share: f64) -> Color {
    const STOPS: [u32; 9] = [0xf7fbff, 0xdeebf7, 0xc6dbef, 0x9ecae1, 0x6baed6, 0x4292c6, 0x2171b5, 0x08519c, 0x08306b];
    let place = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 } * (STOPS.len() - 1) as f64;
    let idx = (place as usize).min(STOPS.len() - 2);
    Color::hex(STOPS[idx]).towards(Color::hex(STOPS[idx + 1]), place - idx as f64)
}

/// White or near black, whichever is easier to read on a colour.
#[must_use]
pub fn ink_on(background: Color) -> Color {
    // Relative luminance with a gamma of 2; black and white are equally easy to read at about 0.19 of white's.
    let [red, green, blue] = background.rgb().map(|value| (f64::from(value) / 255.0) * (f64::from(value) / 255.0));
    if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.22 { WHITE } else { Color::hex(0x0b_10_18) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linear(color: Color) -> [f64; 3] {
        color.rgb().map(|value| {
            let value = f64::from(value) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        })
    }

    fn luminance(color: Color) -> f64 {
        let [red, green, blue] = linear(color);
        0.2126 * red + 0.7152 * green + 0.0722 * blue
    }

    fn contrast_to_white(color: Color) -> f64 {
        1.05 / (luminance(color) + 0.05)
    }

    /// CIE L*a*b* under D65 of linear sRGB.
    fn lab([red, green, blue]: [f64; 3]) -> [f64; 3] {
        let curve = |value: f64| if value > 0.008_856 { value.cbrt() } else { 7.787 * value + 16.0 / 116.0 };
        let x = curve((0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505);
        let y = curve(0.2126 * red + 0.7152 * green + 0.0722 * blue);
        let z = curve((0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.089);
        [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
    }

    #[test]
    fn classes_differ_for_colour_blind_readers() {
        // Machado, Oliveira and Fernandes 2009, severity 1: normal sight, protanopia, deuteranopia.
        let sights: [[[f64; 3]; 3]; 3] = [
            [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
            [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
            [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        ];
        let letters = ["N", "S", "V", "F", "Q"];
        for sight in sights {
            let seen = letters.map(|class| {
                let [red, green, blue] = linear(of(class).fill);
                lab(sight.map(|row| (row[0] * red + row[1] * green + row[2] * blue).clamp(0.0, 1.0)))
            });
            for (one, other) in (0..5).flat_map(|one| (one + 1..5).map(move |other| (one, other))) {
                let difference: f64 = seen[one].iter().zip(seen[other]).map(|(a, b)| (a - b) * (a - b)).sum();
                assert!(difference.sqrt() > 15.0, "{} {}: {}", letters[one], letters[other], difference.sqrt());
            }
        }
    }

    #[test]
    fn inks_can_be_read() {
        for class in ["N", "S", "V", "F", "Q", "other"] {
            assert!(contrast_to_white(of(class).ink) >= 4.5, "{class}: {}", contrast_to_white(of(class).ink));
        }
    }

    #[test]
    fn text_on_every_blue_can_be_read_and_blues_darken() {
        for step in 0..100 {
            let (blue, darker) = (blues(f64::from(step) / 100.0), blues(f64::from(step + 1) / 100.0));
            assert!(luminance(darker) < luminance(blue));
            let (light, dark) =
                (luminance(blue).max(luminance(ink_on(blue))), luminance(blue).min(luminance(ink_on(blue))));
            let contrast = (light + 0.05) / (dark + 0.05);
            assert!(contrast >= 4.0, "{step}: {contrast}");
        }
        assert_eq!(blues(f64::NAN), blues(0.0));
    }
}
