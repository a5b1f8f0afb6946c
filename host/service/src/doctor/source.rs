//! A source: credentials, each way to Teleport, permissions, clocks.

use lockgate_config::{Config, Source};
use lockgate_model::{Millis, utc};
use lockgate_teleport::connect::{
    Examination, Failure, FoundLocks, FoundTeleport, Route, examine as try_all,
};
use lockgate_teleport::{ReaderKind, polling_begins_at};

use super::{Finding, FindingState, Subject, divided};
use crate::blocking::blocking;
use crate::identity::SourceIdentity;
use crate::position::Position;
use crate::reader::Reader;
use crate::takeover::{TakeoverError, describe, sends_recordings};

/// As a polling reader tolerates, in milliseconds: what is measured here is a second or two off.
const SKEW: Millis = 15_000;
const RENEW: &str = "Renew them with `tctl auth sign --user=NAME` or with `tbot`; a host \
                     takes the new ones without a restart";
const ROLE: &str = "Give the user of the credentials a role with `allow: { rules: [{ resources: \
                    [event, session], verbs: [list, read] }] }`";
const LOCK_ROLE: &str = "Add `{ resources: [lock], verbs: [create, update, read] }` to the rules of \
                         that role";

pub(super) async fn examine(
    source: &Source,
    config: &Config,
    ask_for_recording: bool,
) -> Vec<Finding> {
    let subject = Subject::Source(source.name.clone());
    let (of, with) = (source.clone(), config.clone());
    let position = blocking(move || Position::of(&of, &with)).await;
    let cursors = position.as_ref().map(Position::cursors);
    let cursors = cursors.unwrap_or_default();
    let cluster = cursors.get(lockgate_teleport::CLUSTER).map(String::as_str);
    let sessions = SourceIdentity::of(source, config).sessions;
    let settings = Reader::new(source, sessions).into_settings();
    let mut findings = Vec::new();
    let outbound = source.outbound.as_ref().filter(|outbound| {
        let mut addresses = std::iter::once(&source.addr).chain(&source.tunnel);
        addresses.any(|address| outbound.serves(address))
    });
    if let Some(outbound) = outbound {
        let variable = outbound.variable;
        let message = format!("`{outbound}`, as `{variable}` says");
        findings.push(subject.note("outbound proxy", message));
    }
    let examination = match try_all(&settings, sessions && ask_for_recording).await {
        Ok(examination) => examination,
        Err(error) => {
            findings.push(subject.problem("address", &error.to_string()));
            return findings;
        }
    };
    let Examination {
        credentials,
        connected,
        other_routes,
        audit_log,
        recordings,
        locks,
        clock_ahead,
    } = examination;
    match credentials {
        Ok(credentials) => {
            let whose = match credentials.user {
                Some(user) => format!("the credentials of `{user}`"),
                None => "the credentials".to_owned(),
            };
            let whose = (&*whose, "are");
            findings.push(subject.validity("credentials", whose, credentials.validity, RENEW));
        }
        Err(error) => {
            let text = format!("{error}. Write them with `tctl auth sign --user=NAME` or `tbot`");
            findings.push(subject.problem("credentials", &text));
            let message = "not tried: there are no credentials";
            findings.push(subject.note("connection", message));
        }
    }
    let mut said = None;
    match connected {
        Some(Ok(teleport)) => findings.extend(found(&subject, teleport, cluster)),
        // The line before says that.
        Some(Err(Failure::Expired { .. })) => {
            let message = "not tried: the credentials have expired";
            findings.push(subject.note("connection", message));
        }
        Some(Err(failure)) => {
            let problem = subject.problem("connection", &failure.to_string());
            said = Some(problem.message.clone());
            findings.push(problem);
        }
        None => {}
    }
    findings.extend(routes(&subject, other_routes, said.as_deref()));
    let is_connected = audit_log.is_some();
    let is_polled = matches!(audit_log, Some(Ok(ReaderKind::Poll)));
    match audit_log {
        Some(Ok(kind)) => findings.push(subject.ok(
            "audit log",
            match kind {
                ReaderKind::Export => "may be read; Teleport has bulk export",
                ReaderKind::Poll => "may be read; Teleport has no bulk export, so it is polled",
            },
        )),
        Some(Err(failure)) => findings.push(refused(&subject, "audit log", &failure)),
        None => {}
    }
    match recordings {
        Some(Ok(())) => findings.push(subject.ok("recordings", "may be read")),
        Some(Err(failure)) => findings.push(refused(&subject, "recordings", &failure)),
        None if sessions && is_connected => findings.push(subject.note(
            "recordings",
            "not asked: Teleport writes an event for each request; `--recordings` asks for one that \
             does not exist",
        )),
        None => {}
    }
    findings.extend(locks.map(|locks| permission_to_lock(&subject, locks)));
    findings.extend(clock_ahead.map(|ahead| clock(&subject, ahead)));
    findings.push(self::position(
        &subject, source, config, position, is_polled,
    ));
    findings
}

/// Where reading goes on at the next start. `is_polled`: Teleport offers no bulk export.
fn position(
    subject: &Subject,
    source: &Source,
    config: &Config,
    position: Result<Position, TakeoverError>,
    is_polled: bool,
) -> Finding {
    const WHAT: &str = "position";
    let position = match position {
        Ok(position) => position,
        Err(error) => {
            let hint = error.hint().map(lockgate_model::sentence);
            let fix = hint.map(|hint| hint.trim_end_matches('.').to_owned());
            return subject.finding(WHAT, FindingState::Problem, error.to_string(), fix);
        }
    };
    if let Some(refused) = position.refused(source, config) {
        return subject.problem(WHAT, &refused);
    }
    let begins = polling_begins_at(&position.cursors());
    if let Some(from) = begins.filter(|_| is_polled) {
        let message = format!(
            "it is that of a bulk export, which Teleport does not offer: the next start polls from \
             {} on; no event is missed",
            utc(from)
        );
        let fix =
            "Expect events after that time which were sent before to be sent twice".to_owned();
        return subject.finding(WHAT, FindingState::Warning, message, Some(fix));
    }
    match position {
        Position::New => {
            let begins = match source.start_time {
                Some(start) => utc(start),
                None => "Teleport's newest event".to_owned(),
            };
            subject.note(
                WHAT,
                format!("nothing was read yet: reading begins at {begins}"),
            )
        }
        Position::Stored(_) => subject.ok(WHAT, "reading goes on from the store"),
        Position::Handler(position) => subject.ok(
            WHAT,
            format!(
                "the next start goes on where Teleport's Event Handler stopped: {}",
                describe(&position, sends_recordings(config))
            ),
        ),
    }
}

fn found(subject: &Subject, teleport: FoundTeleport, stored: Option<&str>) -> Vec<Finding> {
    let FoundTeleport {
        route,
        why,
        cluster,
        version,
    } = teleport;
    let message = format!("connected to Teleport {route}: {why}");
    let cluster = match stored {
        Some(stored) if stored != cluster => subject.problem(
            "cluster",
            &format!(
                "it is `{cluster}`, and the store has the events of `{stored}`. Change `addr` and \
                 the credentials back; or give the other cluster a source of its own \
                 (`[sources.NAME]`), or a new store"
            ),
        ),
        _ => subject.ok("cluster", format!("`{cluster}`, Teleport {version}")),
    };
    vec![subject.ok("connection", message), cluster]
}

/// The routes that are not used. Those that fail for the same reason are one finding, and what was
/// `said` of the connection is not repeated.
fn routes(
    subject: &Subject,
    tried: Vec<(Route, Result<(), Failure>)>,
    said: Option<&str>,
) -> Vec<Finding> {
    let mut found: Vec<(Vec<&str>, Option<String>)> = Vec::new();
    for (route, tried) in tried {
        let why = tried
            .err()
            .map(|failure| divided(&failure.to_string()).0.to_owned());
        let same = found
            .iter_mut()
            .find(|(_, known)| why.is_some() && *known == why);
        match same {
            Some((routes, _)) => routes.push(route.name()),
            None => found.push((vec![route.name()], why)),
        }
    }
    let finding = |(routes, why): (Vec<&str>, Option<String>)| {
        let why = why.map(|why| match Some(why.as_str()) == said {
            true => ", for the same reason".to_owned(),
            false => format!(": {why}"),
        });
        match (&routes[..], why) {
            ([route], None) => subject.note(&format!("by `{route}`"), "reached, too"),
            ([route], Some(why)) => {
                subject.note(&format!("by `{route}`"), format!("not reached{why}"))
            }
            (routes, why) => {
                let names: Vec<_> = routes.iter().map(|route| format!("`{route}`")).collect();
                let (names, why) = (names.join(", "), why.unwrap_or_default());
                subject.note("other routes", format!("not reached by {names}{why}"))
            }
        }
    };
    found.into_iter().map(finding).collect()
}

/// A call that Teleport does not answer.
fn refused(subject: &Subject, what: &str, failure: &Failure) -> Finding {
    let (message, fix) = match failure {
        Failure::AccessDenied { message } => {
            let fix = format!("{ROLE}; and see that the user exists and is not locked");
            (format!("Teleport denies access: `{message}`"), Some(fix))
        }
        Failure::Unimplemented { message } => (
            format!("Teleport does not know the call: `{message}`"),
            Some("Upgrade Teleport".to_owned()),
        ),
        failure => {
            let text = failure.to_string();
            let (message, fix) = divided(&text);
            (message.to_owned(), fix)
        }
    };
    subject.finding(what, FindingState::Problem, message, fix)
}

fn permission_to_lock(subject: &Subject, found: Result<FoundLocks, Failure>) -> Finding {
    const WHAT: &str = "locks";
    match found {
        Ok(FoundLocks { may_read: true }) => subject.ok(WHAT, "users may be locked"),
        Ok(FoundLocks { may_read: false }) => {
            let message = "users may be locked, and locks may not be read: one that somebody has \
                           changed may be replaced";
            let fix = Some(LOCK_ROLE.to_owned());
            subject.finding(WHAT, FindingState::Warning, message, fix)
        }
        Err(Failure::AccessDenied { message }) => {
            let message = format!("Teleport denies to lock users: `{message}`");
            let fix = Some(LOCK_ROLE.to_owned());
            subject.finding(WHAT, FindingState::Problem, message, fix)
        }
        Err(failure) => refused(subject, WHAT, &failure),
    }
}

fn clock(subject: &Subject, ahead: Result<Millis, String>) -> Finding {
    match ahead {
        Err(reason) => {
            let message = format!("Teleport's clock is not known: {}", divided(&reason).0);
            subject.note("clock", message)
        }
        Ok(ahead) if ahead.abs() > SKEW => {
            let side = if ahead > 0 { "ahead of" } else { "behind" };
            let message = format!(
                "Teleport's clock is about {} {side} this machine's",
                about(ahead.abs())
            );
            let fix = "Correct the clock that is wrong, and synchronize both by NTP".to_owned();
            subject.finding("clock", FindingState::Warning, message, Some(fix))
        }
        Ok(_) => subject.ok("clock", "Teleport's clock and this machine's agree"),
    }
}

/// A time as people say it. What is measured is no more exact than ten seconds.
fn about(millis: Millis) -> String {
    let seconds = (millis + 5000) / 10_000 * 10;
    let rounded = |unit: i64| (seconds + unit / 2) / unit;
    match seconds {
        ..300 => format!("{seconds} s"),
        300..7_200 => format!("{} min", rounded(60)),
        7_200..172_800 => format!("{} h", rounded(3600)),
        _ => format!("{} days", rounded(86_400)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_far_off_is_not_wrong_by_864000_s() {
        for (millis, text) in [
            (18_000, "20 s"),
            (900_000, "15 min"),
            (7_199_000, "2 h"),
            (864_001_000, "10 days"),
        ] {
            assert_eq!(about(millis), text);
        }
    }
}
