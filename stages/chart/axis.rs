//! Owns [`Axis`]: round numbers along an axis, and their labels.

/// An axis from one round number to another.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    low: f64,
    high: f64,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// The shortest axis between round numbers that holds `low..=high`, with about `tick_n` ticks.
    ///
    /// Values that are not finite are taken as 0 and 1; an empty range is widened.
    #[must_use]
    pub fn round(low: f64, high: f64, tick_n: usize) -> Self {
        let (low, high) = if low.is_finite() && high.is_finite() && low <= high { (low, high) } else { (0.0, 1.0) };
        let (low, high) = if high - low > 1e-9 * high.abs().max(1e-9) {
            (low, high)
        } else {
            let pad = if low == 0.0 { 0.5 } else { low.abs() * 0.1 };
            (low - pad, high + pad)
        };
        let step = Step::at_least((high - low) / tick_n.max(1) as f64);
        let (first, last) = ((low / step.value + 1e-6).floor(), (high / step.value - 1e-6).ceil());
        Self::over(step, first as i64, last as i64)
    }

    /// Whole numbers `first..=last`, ticks at about `tick_n` of them; the ends are not widened.
    #[must_use]
    pub fn whole(first: i64, last: i64, tick_n: usize) -> Self {
        let step = Step::at_least(((last - first) as f64 / tick_n.max(1) as f64).max(1.0));
        let (low, high) =
            if first == last { (first as f64 - 0.5, last as f64 + 0.5) } else { (first as f64, last as f64) };
        let stride = step.value.round() as i64;
        let mut ticks: Vec<i64> = (first..=last).filter(|value| value.rem_euclid(stride) == 0).collect();
        // The first epoch is 1: it is labelled too where that does not crowd the next label.
        if ticks.first().is_none_or(|&tick| tick - first >= (stride + 1) / 2) {
            ticks.insert(0, first);
        }
        Self { low, high, ticks: ticks.into_iter().map(|value| (value as f64, value.to_string())).collect() }
    }

    /// Ticks and labels, from low to high.
    #[must_use]
    pub fn ticks(&self) -> &[(f64, String)] {
        &self.ticks
    }

    /// Where a value lies: 0 at the low end, 1 at the high end.
    #[must_use]
    pub fn share(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    fn over(step: Step, first: i64, last: i64) -> Self {
        let label = |idx: i64| {
            let text = format!("{:.*}", step.decimals, (idx as f64 * step.value).abs());
            if idx < 0 { format!("\u{2212}{text}") } else { text }
        };
        let ticks = (first..=last).map(|idx| (idx as f64 * step.value, label(idx))).collect();
        Self { low: first as f64 * step.value, high: last as f64 * step.value, ticks }
    }
}

/// 1, 2 or 5 times a power of ten.
#[derive(Clone, Copy)]
struct Step {
    value: f64,
    decimals: usize,
}

impl Step {
    /// The smallest step that is not below `least` (which is above 0).
    fn at_least(least: f64) -> Self {
        let (mut power, mut decimals) = (1.0, 0);
        while power > least && decimals < 12 {
            power /= 10.0;
            decimals += 1;
        }
        loop {
            for factor in [1.0, 2.0, 5.0] {
                if power * factor >= least * (1.0 - 1e-9) {
                    return Self { value: power * factor, decimals };
                }
            }
            power *= 10.0;
            decimals = decimals.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> String {
        axis.ticks().iter().map(|(_, label)| label.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn ticks_are_round_and_hold_the_range() {
        for (low, high, expected) in [
            (0.0, 1.0, "0.0 0.2 0.4 0.6 0.8 1.0"),
            (0.912, 0.987, "0.90 0.92 0.94 0.96 0.98 1.00"),
            (0.0, 83.0, "0 20 40 60 80 100"),
            (-1.2, 3.0, "\u{2212}2 \u{2212}1 0 1 2 3"),
            (0.0003, 0.0011, "0.0002 0.0004 0.0006 0.0008 0.0010 0.0012"),
            (5.0, 5.0, "4.4 4.6 4.8 5.0 5.2 5.4 5.6"),
            (f64::NAN, 2.0, "0.0 0.2 0.4 0.6 0.8 1.0"),
        ] {
            let axis = Axis::round(low, high, 5);
            assert_eq!(labels(&axis), expected);
            assert!(!low.is_finite() || (axis.share(low) >= 0.0 && axis.share(high) <= 1.0));
        }
    }

    #[test]
    fn epochs_are_whole_numbers() {
        for (last, expected) in
            [(1, "1"), (4, "1 2 3 4"), (10, "1 2 4 6 8 10"), (60, "1 20 40 60"), (23, "1 5 10 15 20")]
        {
            assert_eq!(labels(&Axis::whole(1, last, 5)), expected);
        }
        assert_eq!(Axis::whole(1, 1, 5).share(1.0), 0.5);
    }
}
