//! Fuzzes `ecgpipe_wfdb_fuzz::signals`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ecgpipe_wfdb_fuzz::signals(data));
