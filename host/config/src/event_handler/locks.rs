//! The Event Handler's locks after failed logins, as `locks` of a source.

use std::ops::Range;
use std::time::Duration;

use super::given::{Given, Lookup};
use super::{note_limit, within};
use crate::defaults::{LOCK_ATTEMPTS, LOCK_FOR, LOCK_PERIOD};
use crate::issues::Issue;
use crate::locks::LOGIN;
use crate::reading::Reading;
use crate::units::show_duration;

/// The options that have an effect only with `lock-enabled`.
const DETAILS: [&str; 3] = ["lock-failed-attempts-count", "lock-period", "lock-for"];

/// The line of our configuration, and where it comes from. `types`: those that are read; empty for
/// all. `skipped`: those that are not sent. `unused` takes what is given and has no effect.
pub(super) fn line(
    r: &mut Reading<'_>,
    lookup: &Lookup<'_>,
    [types, skipped]: [&[String]; 2],
    dry_run: bool,
    unused: &mut Vec<String>,
) -> Option<(Range<usize>, String)> {
    let enabled = lookup.find(r, "lock-enabled");
    let is_enabled = enabled.as_ref().and_then(|given| given.flag(r));
    // They are checked also if they have no effect.
    let attempts = attempts(r, lookup);
    let period = period(r, lookup);
    let duration = duration(r, lookup);
    let enabled = enabled.filter(|_| is_enabled == Some(true));
    let is_read = types.is_empty() || types.iter().any(|name| name == LOGIN);
    let Some(enabled) = enabled.filter(|_| !dry_run && is_read) else {
        let (why, is_wanted) = match is_enabled {
            Some(true) if dry_run => ("a dry run locks nobody", true),
            Some(true) => ("`types` lacks `user.login`, so no login is read", true),
            _ => ("`lock-enabled` is not `true`, so nobody is locked", false),
        };
        let names = [&["lock-enabled"][..], &DETAILS].concat();
        for name in names.into_iter().skip(usize::from(!is_wanted)) {
            if let Some(given) = lookup.find(r, name) {
                note_unused(r, given, why, is_wanted && !dry_run, unused);
            }
        }
        return None;
    };
    if skipped.iter().any(|name| name == LOGIN) {
        let message = format!(
            "`{}` locks users although `{LOGIN}` is skipped: events of this type are read and not \
             sent. The Event Handler would lock nobody.",
            enabled.place
        );
        let hint = "set it to `false` if nobody is to be locked";
        r.notes
            .push(Issue::note(enabled.span.clone(), message, "", hint));
    }
    let duration = duration.map_or("never".to_owned(), show_duration);
    let line = format!(
        "locks = {{ enabled = true, failed-attempts = {attempts}, period = \"{}\", for = \
         \"{duration}\" }}",
        show_duration(period)
    );
    Some((enabled.span, line))
}

fn note_unused(
    r: &mut Reading<'_>,
    given: Given,
    why: &str,
    is_warning: bool,
    unused: &mut Vec<String>,
) {
    let message = format!("`{}` has no effect: {why}.", given.place);
    let span = given.span.clone();
    if is_warning {
        let hint = "add `user.login` to `types`";
        r.warnings
            .push(Issue::warning(span, message, "not used", hint));
    } else {
        let hint = "nothing needs to be done";
        r.notes.push(Issue::note(span, message, "not used", hint));
    }
    unused.push(given.place);
}

fn attempts(r: &mut Reading<'_>, lookup: &Lookup<'_>) -> i64 {
    let (least, most) = (LOCK_ATTEMPTS.least.0 as i64, LOCK_ATTEMPTS.most.0 as i64);
    let given = lookup.find(r, "lock-failed-attempts-count");
    let number = given.as_ref().and_then(|given| given.number(r));
    let number = number.unwrap_or(LOCK_ATTEMPTS.default.0 as i64);
    let value = number.clamp(least, most);
    if let Some(given) = given.filter(|_| value != number) {
        note_limit(r, &given, &value.to_string());
    }
    value
}

fn period(r: &mut Reading<'_>, lookup: &Lookup<'_>) -> Duration {
    let given = lookup.find(r, "lock-period");
    let duration = given.as_ref().and_then(|given| given.duration(r));
    let duration = duration.unwrap_or(LOCK_PERIOD.default);
    given.map_or(duration, |given| {
        within(r, &given, duration, (LOCK_PERIOD.least, LOCK_PERIOD.most))
    })
}

/// Zero is for ever, as with the Event Handler.
fn duration(r: &mut Reading<'_>, lookup: &Lookup<'_>) -> Option<Duration> {
    let given = lookup.find(r, "lock-for")?;
    let duration = given.duration(r).filter(|duration| !duration.is_zero())?;
    Some(within(r, &given, duration, LOCK_FOR))
}
