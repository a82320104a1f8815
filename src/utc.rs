//! Owns calendar time: a moment as a civil date and time of day in UTC. It reads no clock.

/// A moment in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Utc {
    /// Year.
    pub year: i64,
    /// Month, from 1.
    pub month: i64,
    /// Day of the month, from 1.
    pub day: i64,
    /// Hour.
    pub hour: i64,
    /// Minute.
    pub minute: i64,
    /// Second.
    pub second: i64,
    /// Millisecond.
    pub millisecond: i64,
}

impl Utc {
    /// The moment `time_ms` milliseconds after 1970 began, or before it for a negative number.
    #[must_use]
    pub fn from_ms(time_ms: i64) -> Self {
        let (year, month, day) = civil(time_ms.div_euclid(86_400_000));
        let ms = time_ms.rem_euclid(86_400_000);
        let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
        Self { year, month, day, hour, minute, second, millisecond: ms % 1000 }
    }
}

/// Days since 1970-01-01 as year, month and day (H. Hinnant, "chrono-compatible low-level date algorithms", 2013).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}
