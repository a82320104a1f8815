//! From physical values to integer samples: which gain, and what rounding costs.
//!
//! The choice, column by column:
//!
//! 1. A gain that was asked for is used, and the largest rounding error told.
//! 2. Whole numbers without a unit are ADC units and stay as they are (WFDB: uncalibrated).
//! 3. Else the smallest power of ten, 1 to 10^9, that makes whole numbers of all values. It is exact: dividing gives the
//!    same value again, in the precision of the file. This is the usual case, since recorders and `rdsamp` write few
//!    decimals.
//! 4. Else (values that were filtered or resampled) the largest gain of the row 1, 2, 5, 10, 20, ... for which every value
//!    fits in as many bits as asked for, 16 by default; the rounding error is at most half a step, and told.

use ecgpipe_wfdb::{DEFAULT_GAIN_ADU_PER_UNIT, Format, INVALID_I32};

/// The largest power of ten that is tried for an exact gain.
const MAX_DECIMAL_N: u32 = 9;
/// Bits of a sample where values must be rounded and nothing else was asked for.
const DEFAULT_BIT_N: u32 = 16;

/// How exact the numbers of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precision {
    /// 32-bit floats.
    Single,
    /// 64-bit floats and decimal text.
    Double,
}

/// What the values of one column have in common, gathered one by one.
#[derive(Clone, Debug)]
pub(crate) struct Spread {
    precision: Precision,
    /// Fewest decimals that hold all values so far; `None` if [`MAX_DECIMAL_N`] are not enough.
    decimal_n: Option<u32>,
    /// The gain that was asked for, and the largest error of rounding to it.
    gain_adu_per_unit: Option<f64>,
    gain_error_units: f64,
    min: f64,
    max: f64,
    valid_n: u64,
}

impl Spread {
    pub(crate) fn new(precision: Precision, wanted: &Wanted) -> Self {
        Self {
            precision,
            decimal_n: Some(0),
            gain_adu_per_unit: wanted.gain_adu_per_unit,
            gain_error_units: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            valid_n: 0,
        }
    }

    /// Takes in a value: finite, or NaN for an invalid sample.
    pub(crate) fn add(&mut self, value: f64) {
        if value.is_nan() {
            return;
        }
        self.valid_n += 1;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        while let Some(decimal_n) = self.decimal_n {
            if self.is_kept(value, 10_f64.powi(decimal_n as i32)) {
                break;
            }
            self.decimal_n = (decimal_n < MAX_DECIMAL_N).then_some(decimal_n + 1);
        }
        if let Some(gain) = self.gain_adu_per_unit
            && !self.is_kept(value, gain)
        {
            let error_units = ((value * gain).round() / gain - value).abs();
            self.gain_error_units = self.gain_error_units.max(error_units);
        }
    }

    /// Whether rounding to a gain and dividing by it gives the same value again, in the precision of the file.
    fn is_kept(&self, value: f64, gain: f64) -> bool {
        let back = (value * gain).round() / gain;
        match self.precision {
            Precision::Single => back as f32 == value as f32,
            Precision::Double => back == value,
        }
    }

    /// Whether all values are whole numbers.
    pub(crate) fn is_whole(&self) -> bool {
        self.decimal_n == Some(0)
    }

    /// The smallest value; NaN if none is valid.
    pub(crate) fn min(&self) -> f64 {
        if self.valid_n == 0 { f64::NAN } else { self.min }
    }

    /// The largest value; NaN if none is valid.
    pub(crate) fn max(&self) -> f64 {
        if self.valid_n == 0 { f64::NAN } else { self.max }
    }

    fn most(&self) -> f64 {
        if self.valid_n == 0 { 0.0 } else { self.min.abs().max(self.max.abs()) }
    }
}

/// What the user says about a column.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) gain_adu_per_unit: Option<f64>,
    pub(crate) baseline_adu: Option<i32>,
    pub(crate) bit_n: Option<u32>,
    /// Whether the numbers are ADC units rather than values of a physical unit.
    pub(crate) is_adc: bool,
}

/// How values become samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scale {
    pub(crate) gain_adu_per_unit: f64,
    pub(crate) baseline_adu: i32,
    /// Whether the gain is known; else the numbers are taken as ADC units.
    pub(crate) is_calibrated: bool,
    /// The narrowest format that holds the samples.
    pub(crate) format: Format,
    /// No value is rounded by more than this, in physical units; 0 if all are kept.
    pub(crate) error_units: f64,
    /// Whether samples are the values themselves.
    is_adc: bool,
}

impl Scale {
    pub(crate) fn choose(spread: &Spread, wanted: &Wanted) -> Scale {
        let given_limit = wanted.bit_n.map(largest);
        let baseline_adu = wanted.baseline_adu.unwrap_or(0);
        let rounded_limit = given_limit.unwrap_or_else(|| largest(DEFAULT_BIT_N));
        let most = spread.most();
        let exact_gain = spread.decimal_n.map(|decimal_n| 10_f64.powi(decimal_n as i32));
        let fits = |gain: f64, limit: f64| most * gain + f64::from(baseline_adu).abs() <= limit;

        if wanted.is_adc {
            let gain_adu_per_unit = wanted.gain_adu_per_unit.unwrap_or(DEFAULT_GAIN_ADU_PER_UNIT);
            return Scale {
                gain_adu_per_unit,
                baseline_adu,
                is_calibrated: wanted.gain_adu_per_unit.is_some(),
                format: narrowest(most),
                error_units: if spread.is_whole() { 0.0 } else { 0.5 / gain_adu_per_unit.abs() },
                is_adc: true,
            };
        }
        let exact = exact_gain.filter(|gain| fits(*gain, given_limit.unwrap_or_else(|| largest(32))));
        let gain_adu_per_unit = match (wanted.gain_adu_per_unit, exact) {
            (Some(gain), _) | (None, Some(gain)) => gain,
            (None, None) => largest_step(most, rounded_limit - f64::from(baseline_adu).abs()),
        };
        let error_units = match (wanted.gain_adu_per_unit, exact) {
            (Some(_), _) => spread.gain_error_units,
            (None, Some(_)) => 0.0,
            (None, None) => 0.5 / gain_adu_per_unit,
        };
        Scale {
            gain_adu_per_unit,
            baseline_adu,
            is_calibrated: true,
            format: narrowest(most * gain_adu_per_unit.abs() + f64::from(baseline_adu).abs()),
            error_units,
            is_adc: false,
        }
    }

    /// Bits of the narrowest format.
    pub(crate) fn bit_n(&self) -> u8 {
        match self.format {
            Format::Fixed16 => 16,
            Format::Fixed24 => 24,
            _ => 32,
        }
    }

    /// The sample of a value; `None` if 32 bits do not hold it.
    pub(crate) fn sample(&self, value: f64) -> Option<i32> {
        if value.is_nan() {
            return Some(INVALID_I32);
        }
        let adu = if self.is_adc { value } else { value * self.gain_adu_per_unit + f64::from(self.baseline_adu) };
        let rounded = adu.round();
        // The lowest number stands for an invalid sample.
        (rounded > f64::from(i32::MIN) && rounded <= f64::from(i32::MAX)).then_some(rounded as i32)
    }
}

/// The largest sample of that many bits.
fn largest(bit_n: u32) -> f64 {
    ((1_i64 << (bit_n.clamp(2, 32) - 1)) - 1) as f64
}

fn narrowest(most_adu: f64) -> Format {
    match most_adu {
        most if most <= largest(16) => Format::Fixed16,
        most if most <= largest(24) => Format::Fixed24,
        _ => Format::Fixed32,
    }
}

/// The largest gain of the row 1, 2, 5, 10, ... (and 0.5, 0.2, ...) that keeps `most` below the limit.
fn largest_step(most: f64, limit: f64) -> f64 {
    if most == 0.0 {
        return 1.0;
    }
    // Beyond these powers of ten nothing is an ECG; they keep the gain finite.
    let power = (limit.max(1.0) / most).log10().floor().clamp(-300.0, 12.0) as i32;
    let steps = [10.0, 5.0, 2.0, 1.0, 0.5].map(|step| decimal(step, power));
    steps.into_iter().find(|gain| most * gain <= limit).unwrap_or_else(|| decimal(0.2, power))
}

/// `step * 10^power`, as the decimal number that it is.
fn decimal(step: f64, power: i32) -> f64 {
    format!("{step}e{power}").parse().expect("a decimal number")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(values: &[f64], precision: Precision, wanted: Wanted) -> Scale {
        let mut spread = Spread::new(precision, &wanted);
        values.iter().for_each(|value| spread.add(*value));
        Scale::choose(&spread, &wanted)
    }

    fn check(values: &[f64], gain: f64, format: Format, error_units: f64) {
        let scale = chosen(values, Precision::Double, Wanted::default());
        assert_eq!(
            (scale.gain_adu_per_unit, scale.format, scale.error_units),
            (gain, format, error_units),
            "{values:?}"
        );
        for value in values.iter().filter(|value| !value.is_nan()) {
            let back = f64::from(scale.sample(*value).expect("fits")) / gain;
            assert!(if error_units == 0.0 { back == *value } else { (back - value).abs() <= error_units * 1.0001 });
        }
    }

    #[test]
    fn few_decimals_are_kept_exactly() {
        check(&[-0.145, 0.5, f64::NAN, 1.2], 1000.0, Format::Fixed16, 0.0);
        check(&[0.0], 1.0, Format::Fixed16, 0.0);
        check(&[], 1.0, Format::Fixed16, 0.0);
        check(&[f64::NAN], 1.0, Format::Fixed16, 0.0);
        check(&[1234.5678], 10_000.0, Format::Fixed32, 0.0);
        check(&[100.001], 1000.0, Format::Fixed24, 0.0);
    }

    #[test]
    fn many_decimals_are_rounded_to_16_bits() {
        check(&[std::f64::consts::PI, -1.0], 10_000.0, Format::Fixed16, 0.5 / 10_000.0);
        check(&[std::f64::consts::PI / 2.0], 20_000.0, Format::Fixed16, 0.5 / 20_000.0);
        check(&[1.0 / 3e9, 1e6 + 1.0 / 3.0], 0.02, Format::Fixed16, 25.0);
        check(&[1e300 / 3.0], 5e-296, Format::Fixed16, 1e295);
    }

    #[test]
    fn bits_gain_and_baseline_are_as_asked_for() {
        let third = [1.0 / 3.0];
        let with = |wanted| chosen(&third, Precision::Double, wanted);
        let scale = with(Wanted { bit_n: Some(24), ..Wanted::default() });
        assert_eq!((scale.gain_adu_per_unit, scale.format), (2e7, Format::Fixed24));
        let scale = with(Wanted { bit_n: Some(12), ..Wanted::default() });
        assert_eq!(scale.gain_adu_per_unit, 5000.0);
        let scale = with(Wanted { gain_adu_per_unit: Some(200.0), baseline_adu: Some(1024), ..Wanted::default() });
        assert_eq!(scale.sample(1.0 / 3.0), Some(1024 + 67));
        assert!((scale.error_units - (67.0 / 200.0 - 1.0 / 3.0)).abs() < 1e-12, "{scale:?}");
        let scale = chosen(&[0.5], Precision::Double, Wanted { gain_adu_per_unit: Some(200.0), ..Wanted::default() });
        assert_eq!((scale.sample(0.5), scale.error_units), (Some(100), 0.0));
    }

    #[test]
    fn single_precision_is_exact_in_single_precision() {
        let values = [-0.145_f32, 1.2, 0.003].map(f64::from);
        let scale = chosen(&values, Precision::Single, Wanted::default());
        assert_eq!((scale.gain_adu_per_unit, scale.error_units), (1000.0, 0.0));
        assert_eq!(chosen(&values, Precision::Double, Wanted::default()).gain_adu_per_unit, 20_000.0);
    }

    #[test]
    fn adc_units_stay_as_they_are() {
        let scale = chosen(&[995.0, 1011.0], Precision::Double, Wanted { is_adc: true, ..Wanted::default() });
        assert_eq!((scale.sample(995.0), scale.is_calibrated, scale.gain_adu_per_unit), (Some(995), false, 200.0));
        let wanted = Wanted { is_adc: true, gain_adu_per_unit: Some(100.0), baseline_adu: Some(1024), bit_n: None };
        let scale = chosen(&[995.0], Precision::Double, wanted);
        assert_eq!((scale.sample(995.0), scale.is_calibrated, scale.baseline_adu), (Some(995), true, 1024));
        assert_eq!(scale.sample(3e9), None);
        assert_eq!(scale.sample(f64::from(i32::MIN)), None);
    }
}
