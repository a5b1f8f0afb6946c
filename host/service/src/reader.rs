//! Reads one source into the store, and shows its state on the status board.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use lockgate_config::{Connect, Credentials as CredentialsConfig, Issue, Issues, Source};
use lockgate_model::{Append, Gap, KnownEvents, Millis, Validity, sentence, utc};
use lockgate_store::{Ledger, LedgerError, Store};
use lockgate_teleport::connect::{Route, authorities};
use lockgate_teleport::{
    Closed, Credentials, Ended, Intake, LoadError, LockSettings, ReaderStatus, Resume,
    SourceSettings, Sweep,
};
use tokio::sync::{mpsc, watch};

use crate::blocking::blocking;
use crate::clock::now;
use crate::host::HostError;
use crate::limits::{CREDENTIALS_INTERVAL, RECENT_BLOCKS};
use crate::shutdown::Shutdown;
use crate::source;
use crate::status::Board;

/// Reads one source into the store.
pub struct Reader {
    name: String,
    settings: SourceSettings,
}

impl Reader {
    /// `sessions`: some pipeline wants this source's recordings.
    pub fn new(source: &Source, sessions: bool) -> Reader {
        let credentials = match &source.credentials {
            CredentialsConfig::Identity(path) => Credentials::identity_file(path),
            CredentialsConfig::Trio { cert, key, ca } => Credentials::key_trio(cert, key, ca),
        };
        let mut settings = SourceSettings::new(&source.name, &source.addr, credentials);
        settings.route = match source.connect {
            Connect::Auto => None,
            Connect::Auth => Some(Route::Auth),
            Connect::Proxy => Some(Route::Proxy),
            Connect::ProxyUpgrade => Some(Route::ProxyUpgrade),
            Connect::SshTunnel => Some(Route::SshTunnel),
        };
        settings.upgrade = source.upgrade;
        settings.tunnel = source.tunnel.clone();
        settings.outbound = source.outbound.clone();
        settings.proxy_ca = source.proxy_ca.clone();
        settings.types = source.types.clone();
        settings.start_time = source.start_time;
        settings.sessions = sessions;
        settings.limits.window = source.window;
        settings.limits.sweeps = Sweep::stretches(source.overlap, source.sweep);
        settings.limits.gap_after = source.gap_after;
        settings.keep_own_access = source.keep_own_access;
        settings.limits.recordings = source.concurrency;
        let locks = source.locks;
        settings.locks = locks.enabled.then_some(LockSettings {
            failed_logins: locks.failed_attempts,
            period: locks.period,
            duration: locks.duration,
        });
        Reader {
            name: source.name.clone(),
            settings,
        }
    }

    pub(crate) fn into_settings(self) -> SourceSettings {
        self.settings
    }

    /// Checks its credentials as `start` does: the time in which they are valid, or the fault.
    /// Connects to nothing.
    fn check(&self) -> Result<Validity, LoadError> {
        let identity = self.settings.credentials.load();
        identity.map(|identity| identity.validity)
    }

    /// Checks that it can go on from these cursors.
    pub(crate) fn check_resume(&self, cursors: BTreeMap<String, String>) -> Result<(), String> {
        let resume = Resume {
            cursors,
            ..Resume::default()
        };
        lockgate_teleport::check(&self.settings, &resume).map_err(|error| error.to_string())
    }
}

/// Reports the problems of a source that its text does not show, but for its credentials. Connects
/// to nothing.
pub fn check_source(source: &Source, issues: &mut Issues) {
    if source.start_time.is_some_and(|start| start > now()) {
        issues.push(Issue::new(
            source.start_time_span.clone(),
            "This time is in the future: no event would be read until then.",
            "the time of the first event",
            "leave out `start-time` to begin with the first start, or choose a time in the past",
        ));
    }
    if let Some(path) = &source.proxy_ca
        && let Err(reason) = authorities(path)
    {
        issues.push(Issue::new(
            source.proxy_ca_span.clone(),
            format!("The file `{}` cannot be used: {reason}.", path.display()),
            "the authorities of the proxy's certificate",
            "name a file with certificates in PEM, or leave out `proxy-ca` if this machine trusts the certificate",
        ));
    }
}

/// Reports credentials that cannot be used, or expire soon.
pub fn check_credentials(source: &Source, issues: &mut Issues) {
    let label = "the credentials of this source";
    let sign = match &source.credentials {
        CredentialsConfig::Identity(_) => {
            "`tctl auth sign --user=NAME --out=identity` writes an identity file, and so does Machine \
             ID (`tbot`)"
        }
        CredentialsConfig::Trio { .. } => {
            "`tctl auth sign --user=NAME --format=tls --out=PATH` writes the three files: `cert` is \
             `PATH.crt`, `key` is `PATH.key`, `ca` is `PATH.cas`"
        }
    };
    let span = |file: Option<&Path>| match &source.credentials {
        CredentialsConfig::Trio { key, .. } if file == Some(key) => source.key_span.clone(),
        CredentialsConfig::Trio { ca, .. } if file == Some(ca) => source.ca_span.clone(),
        _ => source.credentials_span.clone(),
    };
    match Reader::new(source, false).check() {
        Err(error) => {
            let message = sentence(&error.to_string());
            issues.push(Issue::new(span(Some(error.path())), message, label, sign));
        }
        Ok(validity) => {
            let what = "The certificate for Teleport";
            report_validity(what, validity, span(None), label, sign, issues);
        }
    }
}

/// Reports a certificate that has expired, or will soon. `renew`: how to get another.
pub(crate) fn report_validity(
    what: &str,
    validity: Validity,
    span: Range<usize>,
    label: &str,
    renew: &str,
    issues: &mut Issues,
) {
    let now = now();
    let Validity {
        not_before,
        not_after,
    } = validity;
    if not_after <= now {
        let message = format!("{what} expired at {}.", utc(not_after));
        issues.push(Issue::new(span, message, label, renew));
    } else if now < not_before {
        let message = format!("{what} is not valid before {}.", utc(not_before));
        let hint = "check this machine's clock";
        issues.push(Issue::warning(span, message, label, hint));
    } else if validity.expires_soon_from() <= now {
        let message = format!("{what} expires at {}.", utc(not_after));
        issues.push(Issue::warning(span, message, label, renew));
    }
}

/// Runs until stopped, or until the source is caught up if that was asked for. `caught_up` is
/// then set.
pub(crate) async fn run(
    reader: Reader,
    store: Store,
    board: Board,
    exit_on_last_event: bool,
    caught_up: watch::Sender<bool>,
    mut stop: Shutdown,
) -> Result<(), HostError> {
    let Reader { name, mut settings } = reader;
    settings.exit_on_last_event = exit_on_last_event;
    let (reads, source) = (store.clone(), name.clone());
    let resume = blocking(move || -> Result<Resume, LedgerError> {
        let stream = format!("{source}/audit");
        Ok(Resume {
            cursors: reads.reads().cursors(&source)?,
            recent_times: reads.reads().recent_times(&stream, RECENT_BLOCKS)?,
            gaps: gaps_of(&reads, &source)?,
        })
    })
    .await?;
    if !wait_for_credentials(&name, &settings.credentials, &board, &mut stop).await {
        return Ok(());
    }
    let (status, watched) = watch::channel(ReaderStatus::default());
    let last = watched.clone();
    let watching = source::watch(name.clone(), store.clone(), board.clone(), watched);
    let mut stopped = stop.clone();
    let mut host_stop = stop.of_host();
    let shutdown = async move { stop.draining().await };
    let (appending, mut appended) = mpsc::channel(1);
    let reading = lockgate_teleport::run(
        settings,
        resume,
        StoreIntake {
            stream: format!("{name}/audit"),
            store: store.clone(),
            appending,
        },
        status,
        shutdown,
    );
    let ended = tokio::select! {
        ended = reading => ended,
        never = watching => match never {},
    };
    if matches!(ended, Ok(Ended::Stopped)) {
        // The next reader of the source goes on from its cursors: what is being appended must be in
        // them, also if it waits for room in the stream.
        tokio::select! {
            _ = appended.recv() => {}
            () = host_stop.draining() => {}
        }
    }
    match ended {
        Ok(Ended::CaughtUp) => {
            let finished = source::finished(&last.borrow());
            match finished.unread() {
                None => tracing::info!(source = name, "caught up with Teleport"),
                Some(unread) => tracing::warn!(source = name, "not everything was read: {unread}"),
            }
            board.source(&name, |shown| *shown = finished);
            caught_up.send_replace(true);
            Ok(())
        }
        Ok(Ended::Stopped) => Ok(()),
        Ok(Ended::Closed) => {
            // The reason is the store's; it was logged there, and each pipeline ends with it too.
            let failed = store.failed().borrow().clone();
            Err(failed.map_or_else(
                || HostError::Source {
                    name,
                    message: "the store refused a block".into(),
                },
                HostError::from,
            ))
        }
        // The run ends here, so the error must be its result.
        Err(error) if exit_on_last_event => Err(HostError::Source {
            name,
            message: error.to_string(),
        }),
        Err(error) => {
            let message = format!("this source cannot be read: {error}");
            tracing::error!(
                source = name,
                "{message}. The other sources and all pipelines go on. Correct the file and run \
                 `lockgate reload`; if the cause is elsewhere, restart the host once it is fixed"
            );
            board.source(&name, |shown| *shown = source::failed(message));
            stopped.draining().await;
            Ok(())
        }
    }
}

/// Waits until the credentials can be used; false if the reader is to stop first. One source's
/// missing credentials stop neither the other sources nor the pipelines, which have events to
/// deliver.
async fn wait_for_credentials(
    name: &str,
    credentials: &Credentials,
    board: &Board,
    stop: &mut Shutdown,
) -> bool {
    let mut waiting_since = None;
    let loaded = async || {
        let credentials = credentials.clone();
        blocking(move || credentials.load()).await
    };
    while let Err(error) = loaded().await {
        let message = format!("the credentials cannot be used: {error}");
        let since = *waiting_since.get_or_insert_with(|| {
            tracing::error!(source = name, "{message}; waiting for other credentials");
            now()
        });
        let next = now() + CREDENTIALS_INTERVAL.as_millis() as Millis;
        let waiting = source::without_credentials(message, since, next);
        board.source(name, |shown| *shown = waiting);
        if !stop.sleep(CREDENTIALS_INTERVAL).await {
            return false;
        }
    }
    if let Some(since) = waiting_since {
        let lasted_s = (now() - since) / 1000;
        tracing::info!(source = name, lasted_s, "the credentials can be used");
    }
    true
}

/// The gaps of a source on the books.
fn gaps_of(store: &Store, source: &str) -> Result<Vec<Gap>, LedgerError> {
    let gaps = store.reads().gaps()?.into_iter();
    let gaps = gaps.filter(|(of, _)| of == source);
    Ok(gaps.map(|(_, gap)| gap).collect())
}

struct StoreIntake {
    store: Store,
    /// The source's audit log.
    stream: String,
    /// Closed once nothing is being appended.
    appending: mpsc::Sender<()>,
}

impl Intake for StoreIntake {
    async fn append(&self, append: Append) -> Result<(), Closed> {
        let (store, appending) = (self.store.clone(), self.appending.clone());
        // It goes on if the reader is stopped meanwhile.
        let appended = tokio::spawn(async move {
            let appended = store.append(append).await;
            drop(appending);
            appended
        });
        match appended.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                if error.is_full() {
                    // Logged by whoever opens the store again.
                    tracing::debug!("an append failed: {error}");
                } else {
                    tracing::error!("an append failed: {error}");
                }
                Err(Closed)
            }
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The program is ending.
                Err(_) => Err(Closed),
            },
        }
    }

    async fn known(&self, from: Millis, to: Millis, max: usize) -> Result<KnownEvents, Closed> {
        let known = self.store.known_events(&self.stream, from, to, max).await;
        known.map_err(|error| {
            tracing::error!("the events read before cannot be listed: {error}");
            Closed
        })
    }
}
