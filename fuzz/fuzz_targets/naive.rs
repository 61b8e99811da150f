#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| spop_fuzz::differ::run(data));
