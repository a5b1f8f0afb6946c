//! The credentials of a pipeline's receiver while it runs: certificates, keys and secrets whose
//! files change are read again, and the client certificate is shown before it expires.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lockgate_config::{ProcessEnvironment, Sink};
use lockgate_egress::{Endpoint, EndpointClient, SendError};
use lockgate_model::request::Response;
use lockgate_model::{Masks, Millis, Secret, Validity, utc};
use lockgate_registry::Digest;
use lockgate_stamps::{Look, Stamps, Watched};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::blocking::blocking;
use crate::build::endpoint;
use crate::client::NotSent;
use crate::clock::now;
use crate::limits::{CREDENTIALS_CHECK_INTERVAL, CREDENTIALS_PATIENCE, CREDENTIALS_SECOND_LOOK};
use crate::status::{Board, ConditionStatus, ConditionStatusKind};

/// The clock of this machine may be set meanwhile.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(60);

/// The subject of the condition of files that cannot be used.
const FILES: &str = "files";
/// The subject of the condition of a certificate that expires.
const CERTIFICATE: &str = "tls.cert";

/// The credentials that a pipeline's requests carry.
pub(crate) struct Credentials {
    pipeline: Arc<str>,
    client: Arc<EndpointClient>,
    masks: Masks,
    files: Mutex<Files>,
}

/// The files, and what was taken of them.
struct Files {
    watched: Watched,
    sink: Sink,
    certificates: Vec<Digest>,
    /// Since when what is in them cannot be used.
    unusable: Option<Unusable>,
}

struct Unusable {
    since: Instant,
    since_ms: Millis,
    reason: String,
}

/// What the files hold now.
struct Content {
    endpoint: Endpoint,
    sink: Sink,
    secrets: Vec<Secret>,
    certificates: Vec<Digest>,
}

/// What became of a look at the files.
#[derive(Clone, Copy, PartialEq)]
enum LookResult {
    Unchanged,
    /// They are being written, or cannot be used.
    Unsettled,
    Renewed,
}

impl Credentials {
    /// `sink` and `certificates`: what the client was made of.
    pub(crate) fn new(
        pipeline: Arc<str>,
        client: Arc<EndpointClient>,
        masks: Masks,
        sink: &Sink,
        certificates: Vec<Digest>,
    ) -> Credentials {
        // The files may have changed since they were read: their content decides.
        let unknown = Stamps::unknown(watched_files(sink.credential_files()));
        Credentials {
            pipeline,
            client,
            masks,
            files: Mutex::new(Files {
                watched: Watched::new(unknown),
                sink: sink.clone(),
                certificates,
                unusable: None,
            }),
        }
    }

    /// Shows what the operator should know of them, and looks at the files, for as long as it is
    /// polled.
    pub(crate) async fn watch(self: Arc<Self>, board: Board) {
        let files = self.files.lock().await;
        let has_files = files.watched.taken().paths().next().is_some();
        drop(files);
        let mut told = Told::default();
        let mut expiry_checked: Option<Instant> = None;
        loop {
            let looked = match has_files {
                true => self.look().await,
                false => LookResult::Unchanged,
            };
            let is_due = expiry_checked.is_none_or(|at| at.elapsed() >= EXPIRY_INTERVAL);
            if is_due || looked == LookResult::Renewed {
                expiry_checked = Some(Instant::now());
                let certificate = self.client.client_certificate();
                let condition =
                    certificate.and_then(|(file, validity)| expiry(&file, validity, now()));
                self.show(&board, CERTIFICATE, condition, &mut told.expiry);
            }
            let condition = self.unusable().await;
            self.show(&board, FILES, condition, &mut told.files);
            let certificate = self.client.client_certificate();
            let until = certificate.map(|(_, validity)| validity.not_after);
            board.pipeline(&self.pipeline, |status| status.certificate_until = until);
            tokio::time::sleep(match has_files {
                true => CREDENTIALS_CHECK_INTERVAL,
                false => EXPIRY_INTERVAL,
            })
            .await;
        }
    }

    /// How often they were renewed.
    pub(crate) fn renewals(&self) -> u64 {
        self.client.renewals()
    }

    /// After a request that got this result: whether there are newer credentials than it had, by
    /// number of `renewals` before it. Looks at the files at once if the receiver may have refused
    /// the credentials.
    pub(crate) async fn are_newer(
        &self,
        renewals: u64,
        result: &Result<Response, NotSent>,
    ) -> bool {
        let may_be_refused = match result {
            // nginx answers 400 to a client certificate that it does not accept.
            Ok(response) => matches!(response.status, 400 | 401 | 403),
            Err(NotSent::Server(error)) => {
                matches!(error, SendError::Tls { .. } | SendError::Closed)
            }
            Err(NotSent::File(_) | NotSent::NotText) => false,
        };
        if !may_be_refused {
            return false;
        }
        let is_newer = || self.client.renewals() != renewals;
        if !is_newer() && self.look().await == LookResult::Unsettled {
            tokio::time::sleep(CREDENTIALS_SECOND_LOOK).await;
            self.look().await;
        }
        is_newer()
    }

    async fn look(&self) -> LookResult {
        let mut files = self.files.lock().await;
        let mut watched = files.watched.clone();
        let (watched, look) = blocking(move || {
            let look = watched.look();
            (watched, look)
        })
        .await;
        files.watched = watched;
        let stamps = match look {
            Look::Unchanged => {
                files.unusable = None;
                return LookResult::Unchanged;
            }
            Look::Changing => return LookResult::Unsettled,
            Look::Changed(stamps) => stamps,
        };
        let (name, sink, masks) = (
            self.pipeline.clone(),
            files.sink.clone(),
            self.masks.clone(),
        );
        let read = blocking(move || {
            let content = Content::read(&name, &sink, &masks);
            // Otherwise the parts may be of different versions.
            let is_whole = stamps.again() == stamps;
            (content, stamps, is_whole)
        });
        let (content, stamps, is_whole) = read.await;
        if !is_whole {
            files.watched.begin_again();
            return LookResult::Unsettled;
        }
        match content.and_then(|content| self.take(&mut files, content)) {
            Ok(result) => {
                files.watched.take(stamps);
                files.unusable = None;
                result
            }
            // Another file may be missing yet, such as the key of a new certificate.
            Err(reason) => {
                let before = files.unusable.take();
                files.unusable = Some(Unusable {
                    since: before.as_ref().map_or_else(Instant::now, |it| it.since),
                    since_ms: before.map_or_else(now, |it| it.since_ms),
                    reason,
                });
                LookResult::Unsettled
            }
        }
    }

    fn take(&self, files: &mut Files, content: Content) -> Result<LookResult, String> {
        let is_same = files.certificates == content.certificates
            && files.sink.has_credentials_of(&content.sink);
        if is_same {
            return Ok(LookResult::Unchanged);
        }
        let renewed = self.client.renew(&content.endpoint, &content.secrets);
        renewed.map_err(|error| error.to_string())?;
        (files.sink, files.certificates) = (content.sink, content.certificates);
        tracing::info!(
            pipeline = %self.pipeline,
            "the files of this sink's credentials have changed; requests use the new ones"
        );
        Ok(LookResult::Renewed)
    }

    async fn unusable(&self) -> Option<ConditionStatus> {
        let files = self.files.lock().await;
        let unusable = files.unusable.as_ref();
        let unusable = unusable.filter(|it| it.since.elapsed() >= CREDENTIALS_PATIENCE)?;
        let message = format!(
            "the changed files of this sink's credentials cannot be used: {}; those before stay in \
             use, and the files are read again until they can be",
            unusable.reason
        );
        Some(condition(FILES, message, unusable.since_ms))
    }

    fn show(
        &self,
        board: &Board,
        subject: &str,
        condition: Option<ConditionStatus>,
        told: &mut Option<String>,
    ) {
        let message = condition
            .as_ref()
            .map(|condition| condition.message.clone());
        if *told == message {
            return;
        }
        let pipeline = &*self.pipeline;
        match &message {
            Some(message) => tracing::warn!(pipeline, "{message}"),
            None => tracing::info!(pipeline, subject, "the credentials are in order again"),
        }
        *told = message;
        let is_old = |other: &ConditionStatus| {
            other.kind == ConditionStatusKind::Credentials && other.subject == subject
        };
        board.pipeline(pipeline, |status| {
            status.conditions.retain(|other| !is_old(other));
            status.conditions.extend(condition);
        });
    }
}

/// All of them, or none: a pipe, such as a shell makes for a secret, can be read only once.
fn watched_files<'a>(files: impl Iterator<Item = &'a Path>) -> Vec<&'a Path> {
    let is_regular = |file: &&Path| std::fs::metadata(file).map_or(true, |found| found.is_file());
    let files: Vec<&Path> = files.collect();
    match files.iter().all(is_regular) {
        true => files,
        false => Vec::new(),
    }
}

/// The messages of the conditions that there are.
#[derive(Default)]
struct Told {
    expiry: Option<String>,
    files: Option<String>,
}

impl Content {
    /// Blocks while the files are read.
    fn read(pipeline: &str, sink: &Sink, masks: &Masks) -> Result<Content, String> {
        let renewed = sink.read_again(&ProcessEnvironment)?;
        let endpoint = endpoint::endpoint(pipeline, &renewed.sink, masks).map_err(|errors| {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            errors.join("; ")
        })?;
        Ok(Content {
            certificates: endpoint::certificates(&endpoint),
            endpoint,
            sink: renewed.sink,
            secrets: renewed.secrets,
        })
    }
}

/// It makes nothing unready: that its receiver refuses it does.
fn expiry(file: &Path, validity: Validity, now: Millis) -> Option<ConditionStatus> {
    let soon_from = validity.expires_soon_from();
    let until = validity.not_after;
    let (verb, since) = match until <= now {
        true => ("expired", until),
        false => ("expires", soon_from),
    };
    let message = format!(
        "the client certificate `{}` {verb} at {}; renew it: the new one is used once its file is \
         there",
        file.display(),
        utc(until)
    );
    (soon_from <= now).then(|| condition(CERTIFICATE, message, since))
}

fn condition(subject: &str, message: String, since: Millis) -> ConditionStatus {
    ConditionStatus {
        kind: ConditionStatusKind::Credentials,
        subject: subject.to_owned(),
        message,
        since,
        next_attempt: None,
        asked_by: None,
        not_ready_from: None,
        stops: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_can_be_read_only_once_are_not_watched() {
        let dir = tempfile::tempdir().unwrap();
        let (file, missing) = (dir.path().join("token"), dir.path().join("missing"));
        std::fs::write(&file, "secret").unwrap();
        let device = Path::new("/dev/null");
        let files = [&*file, &*missing];
        assert_eq!(watched_files(files.into_iter()), files);
        assert!(watched_files([&*file, device].into_iter()).is_empty());
    }

    #[test]
    fn a_certificate_is_shown_before_it_expires_and_afterwards() {
        const DAY: Millis = 86_400_000;
        let validity = Validity {
            not_before: 0,
            not_after: 365 * DAY,
        };
        for (day, text) in [
            (357, None),
            (359, Some("`client.crt` expires at 1971-01-01T00:00:00Z")),
            (366, Some("`client.crt` expired at 1971-01-01T00:00:00Z")),
        ] {
            let found = expiry(Path::new("client.crt"), validity, day * DAY);
            assert_eq!(found.is_some(), text.is_some(), "{day}");
            if let (Some(found), Some(text)) = (found, text) {
                assert!(found.message.contains(text), "{}", found.message);
            }
        }
    }
}
