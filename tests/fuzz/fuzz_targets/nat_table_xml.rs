#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| branchline_fuzz::feed("nat_table_xml", bytes));
