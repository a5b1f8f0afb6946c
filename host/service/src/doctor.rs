//! What is wrong around a configuration: each way to Teleport, the store, each receiver. Nothing is
//! changed, and a host may run.

mod source;

use std::path::Path;

use lockgate_config::{Config, Pipeline, Store};
use lockgate_egress::{ConnectionBudget, Destination, EndpointClient, SendError};
use lockgate_model::{Masks, Validity, utc};
use lockgate_store::OpenError;

use crate::blocking::blocking;
use crate::build::endpoint;
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
        match running_host(&path, now()) {
            None => findings.push(subject.note("host", "no host runs on it")),
            Some(host) if host.is_silent => {
                let text =
                    "a host runs on it, and does not answer. Look at its log, and restart it";
                findings.push(subject.problem("host", text));
            }
            Some(host) => {
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
    if let Some((file, validity)) = client.client_certificate() {
        let renew = "Have it renewed by the authority that the receiver trusts; `lockgate reload` \
                     reads the new one";
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

async fn receiver(subject: &Subject, client: &EndpointClient, at: Destination) -> Finding {
    match client.reach(at).await {
        Ok(status) => {
            let message = format!(
                "the receiver answers (status {status} to `HEAD /`); whether it takes events, the \
                 first request shows"
            );
            subject.ok(at.name(), message)
        }
        Err(error) => {
            let fix = SendError::hint(&error).map(lockgate_model::sentence);
            let fix = fix.map(|fix| fix.trim_end_matches('.').to_owned());
            subject.finding(at.name(), FindingState::Problem, error.to_string(), fix)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
