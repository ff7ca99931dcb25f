#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| branchline_fuzz::feed("journal_events", bytes));
