//! Identity files come from whoever ran `tctl auth sign`, or changed the file since.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Err(error) = lockgate_teleport::identity::parse(text) {
        assert!(!error.to_string().is_empty());
    }
});
