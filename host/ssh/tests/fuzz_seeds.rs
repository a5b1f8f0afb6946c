//! The seeds of the fuzz target `ssh`, as they are and changed a little. The target itself needs a
//! compiler of its own.

use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;

#[path = "../../../fuzz/fuzz_targets/ssh/input.rs"]
mod input;

fn seeds() -> Vec<Vec<u8>> {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/ssh");
    let files = std::fs::read_dir(seeds).expect("seeds");
    let seeds: Vec<_> = files
        .map(|file| std::fs::read(file.expect("a file").path()).expect("a seed"))
        .collect();
    assert!(seeds.len() >= 4);
    seeds
}

#[test]
fn seeds_are_read() {
    for seed in seeds() {
        input::read(&seed);
    }
}

proptest! {
    #[test]
    fn changed_seeds_are_read(
        seed in prop::sample::select(seeds()),
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..4),
        end in any::<Index>(),
    ) {
        let mut seed = seed;
        for (at, byte) in changes {
            let at = at.index(seed.len());
            seed[at] = byte;
        }
        input::read(&seed);
        input::read(&seed[..end.index(seed.len())]);
    }
}
