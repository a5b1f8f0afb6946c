//! A source: credentials, each way to Teleport, permissions, clocks.

use std::collections::BTreeMap;

use lockgate_config::{Config, Source};
use lockgate_model::Millis;
use lockgate_store::Inspector;
use lockgate_teleport::ReaderKind;
use lockgate_teleport::connect::{Examination, Failure, FoundTeleport, Route, examine as try_all};

use super::{Finding, FindingState, Subject, divided};
use crate::blocking::blocking;
use crate::identity::SourceIdentity;
use crate::reader::Reader;

/// As a polling reader tolerates, in milliseconds: what is measured here is a second or two off.
const SKEW: Millis = 15_000;
const RENEW: &str = "Renew them with `tctl auth sign` or with `tbot`; a host takes the new ones \
                     without a restart";
const ROLE: &str = "Give the user of the credentials a role with `allow: { rules: [{ resources: \
                    [event, session], verbs: [list, read] }] }`";

/// The clusters whose events the store has, by source.
pub(super) async fn stored_clusters(config: &Config) -> BTreeMap<String, String> {
    let path = config.store.path.clone();
    let names: Vec<String> = config
        .sources
        .iter()
        .map(|source| source.name.clone())
        .collect();
    blocking(move || {
        // What is wrong with the store is a finding of its own.
        let Ok(inspector) = Inspector::open(&path) else {
            return BTreeMap::new();
        };
        let cluster = |name: String| {
            let mut cursors = inspector.cursors(&name).ok()?;
            Some((name, cursors.remove(lockgate_teleport::CLUSTER)?))
        };
        names.into_iter().filter_map(cluster).collect()
    })
    .await
}

pub(super) async fn examine(
    source: &Source,
    config: &Config,
    cluster: Option<&str>,
    ask_for_recording: bool,
) -> Vec<Finding> {
    let subject = Subject::Source(source.name.clone());
    let sessions = SourceIdentity::of(source, config).sessions;
    let settings = Reader::new(source, sessions).into_settings();
    let mut findings = Vec::new();
    if let Some(outbound) = &source.outbound {
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
        clock_ahead,
    } = examination;
    match credentials {
        Ok(credentials) => {
            let whose = match credentials.user {
                Some(user) => format!("those of `{user}`"),
                None => "they".to_owned(),
            };
            let whose = (&*whose, "are");
            findings.push(subject.validity("credentials", whose, credentials.validity, RENEW));
        }
        Err(error) => {
            let text = format!("{error}. Write them with `tctl auth sign` or `tbot`");
            findings.push(subject.problem("credentials", &text));
            let message = "not tried: there are no credentials";
            findings.push(subject.note("connection", message));
        }
    }
    match connected {
        Some(Ok(teleport)) => findings.extend(found(&subject, teleport, cluster)),
        // The line before says that.
        Some(Err(Failure::Expired { .. })) => {
            let message = "not tried: the credentials have expired";
            findings.push(subject.note("connection", message));
        }
        Some(Err(failure)) => findings.push(subject.problem("connection", &failure.to_string())),
        None => {}
    }
    for (route, tried) in other_routes {
        findings.push(other_route(&subject, route, tried));
    }
    let is_connected = audit_log.is_some();
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
    findings.extend(clock_ahead.map(|ahead| clock(&subject, ahead)));
    findings
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

fn other_route(subject: &Subject, route: Route, tried: Result<(), Failure>) -> Finding {
    let what = format!("by `{}`", route.name());
    match tried {
        Ok(()) => subject.note(&what, "reached, too"),
        Err(failure) => {
            let text = failure.to_string();
            subject.note(&what, format!("not reached: {}", divided(&text).0))
        }
    }
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

fn clock(subject: &Subject, ahead: Result<Millis, String>) -> Finding {
    match ahead {
        Err(reason) => {
            let message = format!("Teleport's is not known: {}", divided(&reason).0);
            subject.note("clock", message)
        }
        Ok(ahead) if ahead.abs() > SKEW => {
            // What is measured is no more exact.
            let seconds = (ahead.abs() + 5000) / 10_000 * 10;
            let side = if ahead > 0 { "ahead of" } else { "behind" };
            let message = format!("Teleport's is about {seconds} s {side} that of this machine");
            let fix = "Set the one that is wrong, and keep both by NTP".to_owned();
            subject.finding("clock", FindingState::Warning, message, Some(fix))
        }
        Ok(_) => subject.ok("clock", "Teleport's and that of this machine agree"),
    }
}
