//! Owns the record lists of published splits of the MIT-BIH Arrhythmia Database.

/// DS1, the training records of de Chazal, O'Dwyer and Reilly 2004 (IEEE Trans Biomed Eng 51(7):1196-1206).
pub(super) const DS1: [&str; 22] = [
    "101", "106", "108", "109", "112", "114", "115", "116", "118", "119", "122", "124", "201", "203", "205", "207",
    "208", "209", "215", "220", "223", "230",
];

/// DS2, the test records of the same split. Record 202 is of the same patient as record 201 of DS1.
pub(super) const DS2: [&str; 22] = [
    "100", "103", "105", "111", "113", "117", "121", "123", "200", "202", "210", "212", "213", "214", "219", "221",
    "222", "228", "231", "232", "233", "234",
];

/// Paced records that train with DS1 where they are included: half of the four, so that class Q is on both sides.
pub(super) const PACED_TRAINING: [&str; 2] = ["102", "104"];

/// Paced records that test with DS2 where they are included.
pub(super) const PACED_TEST: [&str; 2] = ["107", "217"];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::aami::PACED_RECORDS;

    #[test]
    fn the_lists_are_the_48_records_once_each() {
        let all: BTreeSet<&str> = DS1.iter().chain(&DS2).chain(&PACED_TRAINING).chain(&PACED_TEST).copied().collect();
        assert_eq!(all.len(), 48);
        let paced: BTreeSet<&str> = PACED_TRAINING.iter().chain(&PACED_TEST).copied().collect();
        assert_eq!(paced, BTreeSet::from(PACED_RECORDS));
    }
}
