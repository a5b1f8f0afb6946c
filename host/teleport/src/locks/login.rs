//! Failed logins, as their events show them.

use std::borrow::Cow;

use lockgate_model::{Millis, payload_hash};
use serde::Deserialize;

/// The type of the events of logins. Each says whether it was one.
pub(crate) const LOGIN: &str = "user.login";
/// Longest name of a user, in bytes. Teleport's are shorter; anybody may try a longer one.
const NAME_MAX: usize = 255;

/// A failed login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FailedLogin {
    /// `None`: the event names no user that can be locked.
    pub(crate) user: Option<String>,
    pub(crate) time: Millis,
    /// Tells events apart.
    pub(crate) id: u64,
}

#[derive(Deserialize)]
struct Login<'a> {
    #[serde(borrow, default)]
    user: Cow<'a, str>,
    success: Option<bool>,
}

impl FailedLogin {
    /// `None`: it is not the event of a failed login.
    pub(crate) fn of(
        event_type: &str,
        key: &str,
        json: &[u8],
        time: Millis,
    ) -> Option<FailedLogin> {
        if event_type != LOGIN {
            return None;
        }
        let login: Login<'_> = serde_json::from_slice(json).ok()?;
        if login.success != Some(false) {
            return None;
        }
        let user = login.user;
        let is_name =
            !user.trim().is_empty() && user.len() <= NAME_MAX && !user.contains(char::is_control);
        Some(FailedLogin {
            user: is_name.then(|| user.into_owned()),
            time,
            id: payload_hash(key, &[]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failed_login_of_a_user_with_a_name_can_lock() {
        let user = |name: &str| Some(Some(name.to_owned()));
        let long = "x".repeat(NAME_MAX + 1);
        for (event_type, json, expected) in [
            (LOGIN, r#"{"success":false,"user":"ann"}"#, user("ann")),
            (LOGIN, r#"{"success":false,"user":"é\"x"}"#, user("é\"x")),
            (LOGIN, r#"{"success":true,"user":"ann"}"#, None),
            (LOGIN, r#"{"user":"ann"}"#, None),
            ("auth", r#"{"success":false,"user":"ann"}"#, None),
            (LOGIN, r#"{"success":false}"#, Some(None)),
            (LOGIN, r#"{"success":false,"user":" "}"#, Some(None)),
            (LOGIN, r#"{"success":false,"user":"a\u0000"}"#, Some(None)),
            (
                LOGIN,
                &format!(r#"{{"success":false,"user":"{long}"}}"#),
                Some(None),
            ),
        ] {
            let found = FailedLogin::of(event_type, "key", json.as_bytes(), 7);
            assert_eq!(found.map(|login| login.user), expected, "{json}");
        }
    }
}
