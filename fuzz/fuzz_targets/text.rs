//! Text of guests and receivers on its way to a log: no secret, no control character, never too
//! long.
#![no_main]

use lockgate_model::{Masks, escape};

libfuzzer_sys::fuzz_target!(|input: (&str, &str, &str, u8)| {
    let (secret, other, text, max) = input;
    let max = usize::from(max) + 32;
    let escaped = escape(text, max);
    assert!(escaped.len() <= max && !escaped.contains(char::is_control));

    let masks = Masks::new();
    let known: Vec<&str> = [secret, other]
        .into_iter()
        .filter(|secret| masks.add(secret))
        .map(str::trim)
        .collect();
    let masked = masks.mask(text);
    // A secret of asterisks, or one that a mask and its neighbours make up, is no leak.
    assert!(
        known
            .iter()
            .all(|secret| secret.contains('*') || !masked.contains(secret))
    );
    let end = text.len() / 2;
    assert!(masks.mask_prefix(text.as_bytes(), end).len() <= end + 3);
});
