//! Fuzzes `ecgpipe_wfdb_fuzz::annotations`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ecgpipe_wfdb_fuzz::annotations(data));
