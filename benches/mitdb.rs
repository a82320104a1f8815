//! Owns where the benches find the MIT-BIH Arrhythmia Database, and which records it has.

use std::path::PathBuf;

/// All records.
pub(crate) const RECORDS: [&str; 48] = [
    "100", "101", "102", "103", "104", "105", "106", "107", "108", "109", "111", "112", "113", "114", "115", "116",
    "117", "118", "119", "121", "122", "123", "124", "200", "201", "202", "203", "205", "207", "208", "209", "210",
    "212", "213", "214", "215", "217", "219", "220", "221", "222", "223", "228", "230", "231", "232", "233", "234",
];

/// The folder `mitdb` in `ECGPIPE_DATA`; without that, what to do is said on stderr.
pub(crate) fn folder() -> Option<PathBuf> {
    let data = std::env::var_os("ECGPIPE_DATA").filter(|data| !data.is_empty());
    if data.is_none() {
        eprintln!("set ECGPIPE_DATA to a folder with `mitdb` in it");
    }
    data.map(|data| PathBuf::from(data).join("mitdb"))
}
