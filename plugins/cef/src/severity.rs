//! How severe an event is, from 0 to 10.

const INFORMATION: u8 = 3;
const WARNING: u8 = 6;
const ERROR: u8 = 8;

/// By the last letter of Teleport's code, which is `I` for information, `W` for a warning and `E`
/// for an error, and by `success`, the value in the event: what failed is at least a warning.
pub fn of(code: &str, success: Option<&str>) -> u8 {
    let by_code = match code.as_bytes().last() {
        Some(b'E') => ERROR,
        Some(b'W') => WARNING,
        _ => INFORMATION,
    };
    match success {
        Some("false") => by_code.max(WARNING),
        _ => by_code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_success_decide() {
        for (code, success, severity) in [
            ("T1000I", Some("true"), 3),
            ("T1000W", Some("false"), 6),
            ("T1000I", Some("false"), 6),
            ("T3006E", None, 8),
            ("T3006E", Some("false"), 8),
            ("", None, 3),
            ("", Some("false"), 6),
        ] {
            assert_eq!(of(code, success), severity, "{code} {success:?}");
        }
    }
}
