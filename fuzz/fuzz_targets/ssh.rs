//! Certificates, authorities, and what comes before SSH is encrypted.
#![no_main]

#[path = "ssh/input.rs"]
mod input;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| input::read(bytes));
