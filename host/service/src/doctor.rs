//! What is wrong around a configuration: each way to Teleport, the store, each receiver. Nothing is
//! changed, and a host may run.

mod source;

use std::io::ErrorKind;
use std::path::Path;

use lockgate_admin::control::{self, ControlError, Request, Response};
use lockgate_config::{Config, Pipeline, Store};
use lockgate_egress::{ConnectionBudget, Destination, SendError};
use lockgate_files::FileWriter;
use lockgate_model::{Masks, Validity, utc};
use lockgate_store::OpenError;

use crate::blocking::blocking;
use crate::build::endpoint;
use crate::client::Client;
use crate::clock::now;
use crate::operator::running_host;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub subject: Subject,
    /// What of the subject: `connection`, `url`.
    pub what: String,
    pub state: FindingState,
    /// A clause.
    pub message: String,
    /// The way out, as sentences.
    pub fix: Option<String>,
}

/// The part of a configuration that a finding is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The file, its plugins and databases.
    Configuration,
    Source(String),
    Store,
    Pipeline(String),
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingState {
    Ok,
    /// Nothing to do about it.
    Note,
    /// It will be wrong, or may be.
    Warning,
    Problem,
}

impl FindingState {
    pub fn name(self) -> &'static str {
        match self {
            FindingState::Ok => "ok",
            FindingState::Note => "note",
            FindingState::Warning => "warning",
            FindingState::Problem => "problem",
        }
    }
}

/// Looks at everything that a configuration names. `ask_for_recording`: also whether recordings may
/// be read, for which Teleport writes an event.
pub async fn diagnose(config: &Config, masks: &Masks, ask_for_recording: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &config.sources {
        findings.extend(source::examine(source, config, ask_for_recording).await);
    }
    findings.extend(store(&config.store).await);
    for pipeline in &config.pipelines {
        findings.extend(receivers(pipeline, masks).await);
    }
    findings
}

impl Subject {
    fn finding(
        &self,
        what: &str,
        state: FindingState,
        message: impl Into<String>,
        fix: Option<String>,
    ) -> Finding {
        Finding {
            subject: self.clone(),
            what: what.to_owned(),
            state,
            message: message.into(),
            fix,
        }
    }

    fn ok(&self, what: &str, message: impl Into<String>) -> Finding {
        self.finding(what, FindingState::Ok, message, None)
    }

    fn note(&self, what: &str, message: impl Into<String>) -> Finding {
        self.finding(what, FindingState::Note, message, None)
    }

    /// `text`: the clause, and after it the way out.
    fn problem(&self, what: &str, text: &str) -> Finding {
        let (message, fix) = divided(text);
        self.finding(what, FindingState::Problem, message, fix)
    }

    /// `whose`: the noun that the message begins with. `are`: its verb.
    fn validity(
        &self,
        what: &str,
        (whose, are): (&str, &str),
        validity: Validity,
        renew: &str,
    ) -> Finding {
        let now = now();
        let Validity {
            not_before,
            not_after,
        } = validity;
        let until = utc(not_after);
        let (state, message, fix) = if not_after <= now {
            let message = format!("{whose} expired at {until}");
            (FindingState::Problem, message, Some(renew))
        } else if now < not_before {
            let message = format!("{whose} {are} not valid before {}", utc(not_before));
            (
                FindingState::Problem,
                message,
                Some("Check this machine's clock"),
            )
        } else if validity.expires_soon_from() <= now {
            let message = format!("{whose} {are} valid only until {until}");
            (FindingState::Warning, message, Some(renew))
        } else {
            (
                FindingState::Ok,
                format!("{whose} {are} valid until {until}"),
                None,
            )
        };
        self.finding(what, state, message, fix.map(str::to_owned))
    }
}

/// A message of another crate: the clause, and the sentences after it, which are the way out.
fn divided(text: &str) -> (&str, Option<String>) {
    let text = text.trim_end_matches('.');
    match text.split_once(". ") {
        Some((message, fix)) => (message, Some(fix.to_owned())),
        None => (text, None),
    }
}

async fn store(store: &Store) -> Vec<Finding> {
    let path = store.path.clone();
    blocking(move || {
        let subject = Subject::Store;
        let mut findings = vec![directory(&path)];
        if findings[0].state == FindingState::Ok {
            findings.extend(lockgate_store::too_few_free_bytes(&path).map(full));
        }
        match running_host(&path, now()) {
            None => {
                let asked = control::call(&path, &Request::Ping);
                findings.push(subject.note("host", no_host(&asked)));
            }
            Some(host) if host.is_silent => {
                let text =
                    "a host runs on it, and does not answer. Look at its log, and restart it";
                findings.push(subject.problem("host", text));
            }
            Some(host) => {
                if let Some(listener) = &host.status.admin_listener {
                    let (message, fix) = listener
                        .message
                        .split_once("; ")
                        .map_or((&*listener.message, None), |(message, fix)| {
                            (message, Some(lockgate_model::sentence(fix)))
                        });
                    let fix = fix.map(|fix| fix.trim_end_matches('.').to_owned());
                    let state = FindingState::Warning;
                    findings.push(subject.finding("admin listener", state, message, fix));
                }
                let readiness = crate::operator::readiness(&host.status, now());
                findings.push(match readiness.ready {
                    true => subject.ok("host", "a host runs on it, and is ready"),
                    false => subject.finding(
                        "host",
                        FindingState::Problem,
                        "a host runs on it, and is not ready",
                        Some("`lockgate status` says why".to_owned()),
                    ),
                });
            }
        }
        findings
    })
    .await
}

/// Of a store on which no running host was found. `asked`: the answer on its control socket.
fn no_host(asked: &Result<Option<Response>, ControlError>) -> &'static str {
    match asked {
        Err(ControlError::Connect { source, .. })
            if source.kind() == ErrorKind::PermissionDenied =>
        {
            "not known: this user may not ask whether a host runs on it"
        }
        _ => "no host runs on it",
    }
}

/// The disk has room for so few bytes more.
fn full(free: u64) -> Finding {
    let message = format!(
        "the disk is full: {} MiB of the 32 MiB that a store needs are free",
        free >> 20
    );
    let fix = "Free some disk space, or name a directory on another disk in `path` of `[store]`; a \
               host that is held by a full disk goes on once there is room";
    Subject::Store.finding("disk", FindingState::Problem, message, Some(fix.to_owned()))
}

fn directory(path: &Path) -> Finding {
    let subject = Subject::Store;
    let shown = path.display();
    let refused = |error: &dyn std::fmt::Display| {
        let fix = "Name a directory that this user may write to in `path` of `[store]`; or run this \
                   command as the user that the host runs as";
        subject.problem(
            "directory",
            &format!("`{shown}` cannot be used: {error}. {fix}"),
        )
    };
    if let Err(error) = lockgate_store::check_directory(path) {
        return refused(&error);
    }
    match lockgate_store::check_store(path) {
        Err(error @ OpenError::Io { .. }) => refused(&error),
        Err(error) => subject.problem("directory", &error.to_string()),
        // As a start would open it.
        Ok(()) => match lockgate_store::cursors_of(path, "") {
            Ok(_) => subject.ok("directory", format!("`{shown}` has a store")),
            Err(OpenError::Missing { .. }) => subject.ok(
                "directory",
                format!("`{shown}` has no store yet, and may be written to"),
            ),
            Err(error @ OpenError::Io { .. }) => refused(&error),
            Err(error) => subject.problem("directory", &error.to_string()),
        },
    }
}

async fn receivers(pipeline: &Pipeline, masks: &Masks) -> Vec<Finding> {
    let subject = Subject::Pipeline(pipeline.name.clone());
    let (of, with) = (pipeline.clone(), masks.clone());
    let client = match blocking(move || {
        endpoint::open(&of, &with, &ConnectionBudget::default(), None)
    })
    .await
    {
        Ok(endpoint) => endpoint.client,
        Err(errors) => {
            let fix = "`ca`, `cert` and `key` in `tls` name PEM files that this user may read";
            let problem = |text: String| subject.problem("url", &format!("{text}. {fix}"));
            return errors
                .iter()
                .map(|error| problem(error.to_string()))
                .collect();
        }
    };
    let mut findings = Vec::new();
    let certificate = (client.server()).and_then(|client| client.client_certificate());
    if let Some((file, validity)) = certificate {
        let renew = "Have it renewed by the authority that the receiver trusts; a running host \
                     uses the new one once its file is there";
        let whose = format!("`{}`", file.display());
        let whose = (&*whose, "is");
        findings.push(subject.validity("client certificate", whose, validity, renew));
    }
    let mut destinations = vec![Destination::Url];
    destinations.extend(
        pipeline
            .sink
            .session_url
            .as_ref()
            .map(|_| Destination::SessionUrl),
    );
    for destination in destinations {
        findings.push(receiver(&subject, &client, destination).await);
    }
    findings
}

async fn receiver(subject: &Subject, client: &Client, at: Destination) -> Finding {
    let client = match client {
        Client::Server(client) => client,
        Client::Files(files) => return file(subject, files.writer(at), at).await,
    };
    match client.reach(at).await {
        Ok(status) => {
            let message = format!(
                "the receiver answers (status {status} to `HEAD /`, without credentials); whether it \
                 takes events, the first request shows"
            );
            match status {
                // It may take them with credentials, and with wrong ones not.
                401 | 403 => subject.note(at.name(), message),
                _ => subject.ok(at.name(), message),
            }
        }
        Err(error) => {
            let fix = SendError::hint(&error).map(lockgate_model::sentence);
            let fix = fix.map(|fix| fix.trim_end_matches('.').to_owned());
            subject.finding(at.name(), FindingState::Problem, error.to_string(), fix)
        }
    }
}

async fn file(subject: &Subject, writer: &FileWriter, at: Destination) -> Finding {
    let (target, rotation) = (writer.target(), writer.rotation());
    let asked = target.clone();
    match blocking(move || lockgate_files::examine(&asked, rotation, now())).await {
        Ok(()) => subject.ok(at.name(), format!("{target} can be written to")),
        Err(error) => {
            let fix = error.hint().map(lockgate_model::sentence);
            let fix = fix.map(|fix| fix.trim_end_matches('.').to_owned());
            subject.finding(at.name(), FindingState::Problem, error.to_string(), fix)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It was said that no host runs, while that of another user did.
    #[test]
    fn a_host_that_may_not_be_asked_is_not_called_absent() {
        let refused = |kind: ErrorKind| ControlError::Connect {
            path: "control".into(),
            source: kind.into(),
        };
        assert_eq!(no_host(&Ok(None)), "no host runs on it");
        let other = refused(ErrorKind::AddrNotAvailable);
        assert_eq!(no_host(&Err(other)), "no host runs on it");
        let denied = no_host(&Err(refused(ErrorKind::PermissionDenied)));
        assert!(denied.starts_with("not known"), "{denied}");
    }

    #[test]
    fn a_full_disk_is_a_problem_with_its_way_out() {
        let found = full(3 << 20);
        assert_eq!(found.state, FindingState::Problem);
        assert!(found.message.contains("3 MiB of the 32 MiB"), "{found:?}");
    }

    #[test]
    fn a_message_is_divided_from_its_way_out() {
        for (text, message, fix) in [
            (
                "`a:1` is away: refused. Check it",
                "`a:1` is away: refused",
                Some("Check it"),
            ),
            ("10.0.0.1 is away.", "10.0.0.1 is away", None),
            (
                "It is so. Do this. Or that.",
                "It is so",
                Some("Do this. Or that"),
            ),
        ] {
            assert_eq!(divided(text), (message, fix.map(str::to_owned)), "{text}");
        }
    }
}
