//! Frames come from a proxy, or from a load balancer in front of it.
#![no_main]

use lockgate_teleport::connect::websocket::{Decoder, FrameError, Item, Role};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&cut, bytes)) = bytes.split_first() else {
        return;
    };
    for role in [Role::Client, Role::Server] {
        let whole = read(role, bytes, bytes.len().max(1));
        assert!(whole.0.len() <= bytes.len());
        assert_eq!(read(role, bytes, usize::from(cut).max(1)), whole);
    }
});

/// The stream, the pings, and how it ended.
fn read(role: Role, bytes: &[u8], cut: usize) -> (Vec<u8>, Vec<Vec<u8>>, Result<bool, FrameError>) {
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
