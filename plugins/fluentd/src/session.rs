//! The suffix of a recording's path.

/// Longest name, because many receivers and file systems allow 255 bytes per segment.
const NAME_MAX: usize = 200;

/// The suffix after the operator's `session-url`: `.<session id>.log`, as in Teleport's Event
/// Handler.
///
/// Session ids are UUIDs. In other texts, all characters except letters, digits, `-` and `_` are
/// written as `~` and their bytes in hexadecimal, so that two ids never share a path, and no id can
/// leave the operator's path.
pub fn path_suffix(id: &str) -> Result<String, String> {
    const HEX: [u8; 16] = *b"0123456789abcdef";
    let mut suffix = String::with_capacity(id.len() + 5);
    suffix.push('.');
    if id.is_empty() {
        suffix.push('~');
    }
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            suffix.push(byte.into());
        } else {
            suffix.push('~');
            suffix.push(HEX[usize::from(byte >> 4)].into());
            suffix.push(HEX[usize::from(byte & 15)].into());
        }
        if suffix.len() > NAME_MAX {
            return Err(format!(
                "the session id is too long for a path segment of {NAME_MAX} bytes"
            ));
        }
    }
    suffix.push_str(".log");
    Ok(suffix)
}

#[cfg(test)]
mod tests {
    use super::path_suffix;

    #[test]
    fn session_ids_name_a_path_below_the_operators_url() {
        for (id, suffix) in [
            (
                "28711733-8bed-4b12-ad77-e82f49a23a89",
                ".28711733-8bed-4b12-ad77-e82f49a23a89.log",
            ),
            ("a_B9", ".a_B9.log"),
            ("", ".~.log"),
            ("../../etc", ".~2e~2e~2f~2e~2e~2fetc.log"),
            ("a~2eb", ".a~7e2eb.log"),
            ("é x", ".~c3~a9~20x.log"),
            ("?x=${env:A}", ".~3fx~3d~24~7benv~3aA~7d.log"),
        ] {
            assert_eq!(path_suffix(id).unwrap(), suffix);
        }
        assert!(path_suffix(&"x".repeat(201)).is_err());
        assert!(path_suffix(&"x".repeat(190)).is_ok());
    }
}
