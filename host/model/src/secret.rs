//! Texts that are never shown.

use std::fmt;

/// A text that must not appear in logs, messages or dumps. `Debug` and `Display` print `***`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself. It could leak wherever this is used.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Whether the name of a header or a query parameter suggests that its value is a secret. Masking
/// every value, such as `application/json`, would hide too much.
pub fn names_a_secret(name: &str) -> bool {
    const PARTS: [&str; 9] = [
        "auth",
        "token",
        "key",
        "secret",
        "password",
        "passwd",
        "credential",
        "signature",
        "cookie",
    ];
    let name = name.to_ascii_lowercase();
    name == "sig" || PARTS.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_as_stars() {
        let secret = Secret::new("hunter2");
        assert_eq!(
            format!("{secret} {secret:?} {:?}", Some(&secret)),
            "*** *** Some(***)"
        );
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn names_of_secrets_are_recognised() {
        for name in ["X-Api-Key", "Cookie", "sig", "access_token", "X-Auth"] {
            assert!(names_a_secret(name), "{name}");
        }
        for name in ["Content-Type", "X-Source", "design", "q"] {
            assert!(!names_a_secret(name), "{name}");
        }
    }
}
