//! `locks` of a source: users with too many failed logins are locked.

use std::ops::Range;
use std::time::Duration;

use toml::de::DeValue;

use crate::defaults::{LOCK_ATTEMPTS, LOCK_FOR, LOCK_PERIOD};
use crate::issues::Issue;
use crate::reading::Reading;
use crate::table::Table;

/// The type of the events of logins.
pub(crate) const LOGIN: &str = "user.login";

/// When users are locked, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locks {
    /// `enabled`. Default, without the table: false.
    pub enabled: bool,
    /// `failed-attempts`: so many failed logins lock a user. Default 3.
    pub failed_attempts: u32,
    /// `period`: within this time. Default 1 min.
    pub period: Duration,
    /// `for`: how long. `None`, the default: until somebody removes the lock.
    pub duration: Option<Duration>,
}

impl Default for Locks {
    fn default() -> Locks {
        Locks {
            enabled: false,
            failed_attempts: LOCK_ATTEMPTS.default.0 as u32,
            period: LOCK_PERIOD.default,
            duration: None,
        }
    }
}

/// `types`: the event types that the source reads, and where they stand.
pub(crate) fn read(
    r: &mut Reading<'_>,
    source: &mut Table<'_>,
    types: (&[String], Range<usize>),
) -> Locks {
    let Some(value) = source.optional("locks") else {
        return Locks::default();
    };
    let Some(mut table) = value.table(r) else {
        return Locks::default();
    };
    let enabled = table.required("enabled", "enabled = true");
    let enabled = enabled.and_then(|value| value.flag(r)).unwrap_or(false);
    let failed_attempts = table.quantity(r, "failed-attempts", LOCK_ATTEMPTS).0 as u32;
    let period = table.quantity(r, "period", LOCK_PERIOD);
    let duration = duration(r, &mut table);
    table.finish_with(r, |key| match key {
        "failed-attempts-count" | "failed-logins" | "attempts" => {
            Some("the key is called `failed-attempts`".into())
        }
        "duration" | "expires" => Some("the key is called `for`".into()),
        _ => None,
    });
    let (types, span) = types;
    if enabled && !types.is_empty() && !types.iter().any(|name| name == LOGIN) {
        let message = format!(
            "`types` lacks `{LOGIN}`, the event of a login: no failed login would be read, and \
             `locks` would lock nobody."
        );
        let hint = format!("add \"{LOGIN}\", or set `enabled = false` in `locks`");
        r.issue(
            Issue::new(span, message, "lacks it", hint).also(value.key_span.clone(), "needs it"),
        );
    }
    Locks {
        enabled,
        failed_attempts,
        period,
        duration,
    }
}

/// A duration, or `never`.
fn duration(r: &mut Reading<'_>, table: &mut Table<'_>) -> Option<Duration> {
    let value = table.optional("for")?;
    if let DeValue::String(text) = value.node()
        && text.as_ref() == "never"
    {
        return None;
    }
    let (least, most) = LOCK_FOR;
    value.quantity(r, least, most, None)
}
