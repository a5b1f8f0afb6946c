//! Packs inputs of the fuzz target `ecs` into lines for `tests/corpus.rs`, the shortest first, up
//! to 600 kB: `cargo run --example pack DIR > tests/corpus/payloads.ndjson`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::{env, fs, io};

const BYTES_MAX: usize = 600_000;

fn main() -> io::Result<()> {
    let dir = env::args_os()
        .nth(1)
        .map(PathBuf::from)
        .ok_or_else(|| io::Error::other("name a directory of inputs"))?;
    let mut payloads = BTreeSet::new();
    for file in fs::read_dir(dir)? {
        let input = fs::read(file?.path())?;
        // The first byte chooses the configuration. The test runs all of them.
        if let Some(payload) = input
            .split_first()
            .and_then(|(_, payload)| std::str::from_utf8(payload).ok())
        {
            payloads.insert((payload.len(), payload.to_owned()));
        }
    }
    let mut written = 0;
    for (_, payload) in payloads {
        let line = serde_json::Value::from(payload).to_string();
        written += line.len() + 1;
        if written > BYTES_MAX {
            break;
        }
        println!("{line}");
    }
    Ok(())
}
