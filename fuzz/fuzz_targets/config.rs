//! Configurations, whatever was typed: either one is made of it, or a report that can be shown.
#![no_main]

use std::env::VarError;
use std::io;
use std::path::Path;

use lockgate_config::Environment;

struct Nothing;

impl Environment for Nothing {
    fn variable(&self, _: &str) -> Result<String, VarError> {
        Ok("from-the-environment".into())
    }

    fn read_file(&self, _: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Err(report) = lockgate_config::parse("lockgate.toml", text, Path::new("/"), &Nothing) {
        assert!(!report.to_string().is_empty());
    }
});
