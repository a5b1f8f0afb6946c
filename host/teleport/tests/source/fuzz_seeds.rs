//! The seeds of the fuzz targets of this crate, as they are and changed a little, with what the
//! targets assert. The targets themselves need a compiler of their own.

use std::path::Path;

use lockgate_teleport::connect::websocket::{Decoder, FrameError, Item, Role};
use lockgate_teleport::identity::parse;
use lockgate_teleport::json::Converter;
use proptest::prelude::*;
use proptest::sample::Index;

/// Each seed of a target.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
    let files = std::fs::read_dir(seeds.join(target)).expect("seeds");
    let seeds: Vec<_> = files
        .map(|file| std::fs::read(file.expect("a file").path()).expect("a seed"))
        .collect();
    assert!(!seeds.is_empty(), "{target}");
    seeds
}

/// The stream, the pings, and how it ended.
type Read = (Vec<u8>, Vec<Vec<u8>>, Result<bool, FrameError>);

fn read(role: Role, bytes: &[u8], cut: usize) -> Read {
    let mut decoder = Decoder::new(role);
    let (mut stream, mut pings) = (Vec::new(), Vec::new());
    for piece in bytes.chunks(cut) {
        decoder.push(piece);
        loop {
            match decoder.next() {
                Ok(Some(Item::Data(data))) => stream.extend_from_slice(&data),
                Ok(Some(Item::Ping(payload))) => pings.push(payload.to_vec()),
                Ok(Some(Item::Close)) => {}
                Ok(None) => break,
                Err(error) => return (stream, pings, Err(error)),
            }
        }
    }
    (stream, pings, Ok(decoder.is_between_frames()))
}

/// As the target `websocket` has it: the first byte says how the frames are cut.
fn websocket(input: &[u8]) {
    let Some((&cut, bytes)) = input.split_first() else {
        return;
    };
    for role in [Role::Client, Role::Server] {
        let whole = read(role, bytes, bytes.len().max(1));
        assert!(whole.0.len() <= bytes.len());
        assert_eq!(read(role, bytes, usize::from(cut).max(1)), whole);
    }
}

/// As the target `identity` has it.
fn identity(input: &[u8]) {
    if let Err(error) = parse(&String::from_utf8_lossy(input)) {
        assert!(!error.to_string().is_empty());
    }
}

/// As the target `struct_json` has it, but that the runtime's own reader judges the text there.
fn struct_json(input: &[u8]) {
    let mut text = String::from("before");
    match Converter::new().append(input, &mut text) {
        Ok(_) => {
            let json: serde_json::Value = serde_json::from_str(&text["before".len()..])
                .unwrap_or_else(|error| panic!("{error}: {text}"));
            assert!(json.is_object(), "{text}");
        }
        Err(_) => assert_eq!(text, "before"),
    }
}

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 3] = [
    ("websocket", websocket),
    ("identity", identity),
    ("struct_json", struct_json),
];

#[test]
fn the_seeds_of_the_fuzz_targets_are_read() {
    for (name, target) in TARGETS {
        seeds(name).iter().for_each(|seed| target(seed));
    }
    // Those of `websocket` are whole streams, one for each side.
    for (role, bytes) in [(Role::Client, "server"), (Role::Server, "client")] {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/websocket");
        let seed = std::fs::read(seeds.join(bytes)).expect("a seed");
        let (stream, pings, ended) = read(role, &seed[1..], 1);
        assert!(
            !stream.is_empty() && ended == Ok(true),
            "{bytes}: {pings:?}"
        );
    }
}

/// One change to an input.
#[derive(Clone, Debug)]
enum Change {
    Set(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    Cut(Index),
    /// A part is there once more, at the end.
    Repeat(Index, Index),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Insert(at, byte)),
        any::<Index>().prop_map(Change::Remove),
        any::<Index>().prop_map(Change::Cut),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Change::Repeat(from, to)),
    ];
    prop::collection::vec(change, 1..8)
}

fn changed(seed: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut input = seed.to_vec();
    for change in changes {
        if input.is_empty() {
            input.push(0);
        }
        let length = input.len();
        match change {
            Change::Set(at, byte) => input[at.index(length)] = *byte,
            Change::Insert(at, byte) => input.insert(at.index(length), *byte),
            Change::Remove(at) => _ = input.remove(at.index(length)),
            Change::Cut(at) => input.truncate(at.index(length)),
            Change::Repeat(from, to) => {
                let (from, to) = (from.index(length), to.index(length));
                input.extend_from_within(from.min(to)..from.max(to));
            }
        }
    }
    input
}

proptest! {
    #[test]
    fn changed_seeds_of_the_fuzz_targets_are_read(
        seed: Index,
        changes in changes(),
    ) {
        for (name, target) in TARGETS {
            let seeds = seeds(name);
            target(&changed(&seeds[seed.index(seeds.len())], &changes));
        }
    }
}
