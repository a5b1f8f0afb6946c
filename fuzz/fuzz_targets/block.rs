//! Blocks as they lie in the store's file. What can be read can be written again, and reads the
//! same.
#![no_main]

use lockgate_store::codec::{decode, encode};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // Two bytes: how much of the rest are heads.
    let Some((length, rest)) = bytes.split_first_chunk() else {
        return;
    };
    let (heads, payload) = rest.split_at(rest.len().min(u16::from_le_bytes(*length).into()));
    if let Ok(parts) = decode(heads, payload) {
        let (heads, payload) = encode(&parts).expect("what was read is a block");
        assert_eq!(decode(&heads, &payload).as_ref(), Ok(&parts));
    }
});
