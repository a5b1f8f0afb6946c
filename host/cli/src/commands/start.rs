//! `lockgate start`: opens the store and runs the host, again after a full disk.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lockgate_config::{Config, EventHandler};
use lockgate_model::Millis;
use lockgate_observe::{Format, Masks};
use lockgate_service::{
    Host, HostError, Listeners, Shutdown, ShutdownTrigger, StoreStatus, TakeoverError,
    describe_position, handler_position, sends_recordings, take_over,
};
use lockgate_store::{DirectoryLock, Ledger, OpenError, Store};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::args::Start;
use crate::config_file::ConfigFile;
use crate::failure::Failure;
use crate::notify::Notifier;
use crate::place::not_opened;
use crate::setup;
use crate::signals::{EarlyHangups, Signals};
use crate::watch::WatchedFiles;

/// Waits between attempts to continue after the disk was full. Short, so that reading goes on soon
/// once there is room.
const FULL_WAIT: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];

/// How long to wait for a `lockgate dlq` that has the store.
const DLQ_WAIT: Duration = Duration::from_secs(30);

/// How long to wait for another holder. One that was killed with its memory still mapped keeps the
/// lock for a moment after its end.
const KILLED_WAIT: Duration = Duration::from_secs(5);

/// How long to wait, once the host has ended, for work in threads that cannot be ended: reading a
/// file from a file system that does not answer.
const LAST_WORK: Duration = Duration::from_millis(500);

/// A host that ran for so long before the disk was full again had recovered.
const RECOVERED: Millis = 60_000;

/// The soft limit of open files is often 1,024, for programs that use `select`: far fewer than
/// hundreds of pipelines need whose receivers hang.
fn raise_file_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        tracing::debug!(
            error = &error as &(dyn std::error::Error + 'static),
            "the limit of open files stays as it is"
        );
    }
}

pub(crate) fn run(
    command: &Start,
    hangups: Option<EarlyHangups>,
    masks: &Masks,
    format: Format,
) -> Result<(), Failure> {
    raise_file_limit();
    let EarlyHangups {
        runtime,
        mut hangups,
    } = hangups.map_or_else(EarlyHangups::new, Ok)?;
    let ended = runtime.block_on(async {
        // First: a signal that comes while the file is read must not end the process.
        let mut signals = Signals::new()?;
        let files = WatchedFiles::default();
        let file = ConfigFile::of(command);
        let config = files.load(&file, masks).map_err(Failure::issues)?;
        if let Some(handler) = &config.event_handler {
            tell(&file, handler);
        }
        let notifier = Notifier::from_environment();
        let (trigger, stop) = ShutdownTrigger::new();
        let host = Host::new(setup::now());
        let attempts = Attempts {
            command,
            file,
            config: &config,
            masks,
            format,
            host: host.clone(),
            files: files.clone(),
            notifier: notifier.clone(),
        };
        let running = run_host(attempts, stop);
        tokio::pin!(running);
        // It ends with this function.
        let mut watching = JoinSet::new();
        if command.watch {
            watching.spawn(files.watch(host.clone()));
        }
        loop {
            tokio::select! {
                result = &mut running => return result,
                () = hangups.next() => hang_up(&host, &notifier),
                signal = signals.next() => {
                    host.board().stopping(setup::now());
                    notifier.stopping();
                    tracing::info!("{signal}: stopping; waiting up to 10 s for batches in flight, \
                                    the rest is delivered after the next start");
                    trigger.drain();
                    break;
                }
            }
        }
        loop {
            tokio::select! {
                result = &mut running => return result,
                () = hangups.next() => tracing::info!("SIGHUP: the host is stopping and does not load the configuration"),
                signal = signals.next() => {
                    tracing::info!("{signal} again: stopping at once");
                    trigger.abandon();
                }
            }
        }
    });
    runtime.shutdown_timeout(LAST_WORK);
    ended
}

fn hang_up(host: &Host, notifier: &Notifier) {
    let status = host.board().snapshot(setup::now());
    if let Some(store) = &status.store {
        tracing::info!(
            "SIGHUP: the configuration is loaded once the store is open: {}",
            store.message
        );
        notifier.put_off(&status);
    } else {
        tracing::info!("SIGHUP: loading the configuration");
    }
    // The host logs what becomes of it.
    drop(host.reload());
}

/// Opens the store and runs the host. Repeats that if the disk was full; acknowledged data
/// survives.
async fn run_host(attempts: Attempts<'_>, stop: Shutdown) -> Result<(), Failure> {
    let config = attempts.config;
    attempts.host.board().configured(
        config.sources.iter().map(|source| source.name.as_str()),
        config
            .pipelines
            .iter()
            .map(|pipeline| pipeline.name.as_str()),
    );
    // Both from the first time that the directory can be locked until the end: also while the store
    // is closed.
    let mut lock = None;
    let mut listeners = None;
    let ended = attempts.run(stop, &mut lock, &mut listeners).await;
    if let Some(listeners) = listeners {
        listeners.close().await;
    }
    ended
}

struct Attempts<'a> {
    command: &'a Start,
    file: ConfigFile,
    config: &'a Config,
    masks: &'a Masks,
    format: Format,
    host: Host,
    files: WatchedFiles,
    notifier: Notifier,
}

impl Attempts<'_> {
    async fn run(
        &self,
        mut stop: Shutdown,
        lock: &mut Option<DirectoryLock>,
        listeners: &mut Option<Listeners>,
    ) -> Result<(), Failure> {
        let mut outage: Option<Outage> = None;
        // Waits since the host last ran for long enough.
        let mut waits = 0;
        loop {
            let began = setup::now();
            let attempt = self.attempt(&mut outage, &stop, lock, listeners);
            let Some(message) = attempt.await? else {
                return Ok(());
            };
            let now = setup::now();
            if now - began >= RECOVERED {
                waits = 0;
            }
            let wait = FULL_WAIT[waits.min(FULL_WAIT.len() - 1)];
            waits += 1;
            if let Some(outage) = &mut outage {
                outage.attempts += 1;
                tracing::debug!(
                    retry_in_s = wait.as_secs(),
                    "the disk is still too full for the store: {message}"
                );
            } else {
                tracing::error!(
                    retry_in_s = wait.as_secs(),
                    "the disk is too full for the store: {message}. Free some disk space, or raise \
                     the limit on the size of files if one is set; nothing is lost, because \
                     Teleport keeps the events that have not been read. The store is opened again \
                     once there is room"
                );
            }
            let since = outage.get_or_insert_with(|| Outage::new(now)).since;
            self.host.board().store_closed(StoreStatus {
                message: format!("the disk is too full for the store: {message}"),
                since,
                next_attempt: Some(now + wait.as_millis() as Millis),
            });
            tokio::select! {
                () = self.beating(tokio::time::sleep(wait)) => {}
                () = stop.draining() => return Ok(()),
            }
        }
    }

    /// Tells the service manager while this takes time.
    async fn beating<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        let mut beats = tokio::time::interval(self.notifier.interval());
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = beats.tick() => self.notifier.beat(&self.host.board().snapshot(setup::now())),
            }
        }
    }

    /// Runs the host until it ends. What keeps the store from being open, if the disk is full.
    /// Ends the outage once the store is open.
    async fn attempt(
        &self,
        outage: &mut Option<Outage>,
        stop: &Shutdown,
        lock: &mut Option<DirectoryLock>,
        listeners: &mut Option<Listeners>,
    ) -> Result<Option<String>, Failure> {
        // A reload may have changed it before the store closed.
        let config = self.host.config().unwrap_or_else(|| self.config.clone());
        let options = setup::store_options(&config);
        let directory = &config.store.path;
        let lock = match lock {
            Some(lock) => lock,
            None => match self.beating(take_lock(directory, stop.clone())).await {
                Ok(Some(taken)) => lock.insert(taken),
                Ok(None) => return Ok(None),
                Err(error) if error.is_full() => return Ok(Some(error.to_string())),
                Err(error) => return Err(not_started(error)),
            },
        };
        if listeners.is_none() {
            let admin = config.admin.listen;
            *listeners = Some(self.host.listen(directory, admin).await);
        }
        let (lock, needs_room) = (lock.clone(), outage.is_some());
        let directory = directory.clone();
        let opening = tokio::task::spawn_blocking(move || {
            if needs_room {
                lockgate_store::check_room(&directory)?;
            }
            Store::open_locked(options, lock)
        });
        let opened = match self.beating(opening).await {
            Ok(opened) => opened,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let store = match opened {
            Ok(store) => store,
            Err(error) if error.is_full() => return Ok(Some(error.to_string())),
            Err(error) => return Err(not_started(error)),
        };
        if let Some(Outage { since, attempts }) = outage.take() {
            let (attempts, for_s) = (attempts + 1, (setup::now() - since) / 1000);
            tracing::info!(attempts, for_s, "the store is open again");
        }
        let handler = config.event_handler.as_ref();
        let exit = self.command.exit_on_last_event
            || handler.is_some_and(|handler| handler.exit_on_last_event);
        if let Some(handler) = handler.filter(|handler| !handler.dry_run) {
            match take_over_position(handler, &config, &store).await {
                Ok(()) => {}
                Err(TakeoverError::Ledger(error)) if error.is_full() => {
                    return Ok(Some(error.to_string()));
                }
                Err(error) => return Err(not_taken_over(error)),
            }
        }
        let (file, masks) = (self.file.clone(), self.masks.clone());
        let files = self.files.clone();
        let load = Arc::new(move || files.load(&file, &masks));
        let file = self.file.path();
        let format = self.format;
        let mut plan = setup::plan(file, &config, self.masks, &store, load, exit, format)?;
        let board = self.host.board().clone();
        let status = move || board.snapshot(setup::now());
        plan.observer = self.notifier.observer(status);
        let pipelines = config.pipelines.len();
        tracing::info!(version = env!("CARGO_PKG_VERSION"), pipelines, "started");
        let result = self.host.run(plan, &store, stop.clone()).await;
        let closed = store.close().await;
        match result {
            Ok(()) => closed.map(|()| None).map_err(Failure::failed),
            Err(HostError::Ledger(error)) if error.is_full() => Ok(Some(error.to_string())),
            Err(HostError::NoPipeline) => {
                Err(Failure::usage("No pipeline could start.").hint("`lockgate check` shows why"))
            }
            Err(error) => Err(Failure::failed(error)),
        }
    }
}

/// Says what a configuration of Teleport's Event Handler becomes.
fn tell(file: &ConfigFile, handler: &EventHandler) {
    let source = match file.path().as_os_str().is_empty() {
        true => "options and variables".to_owned(),
        false => format!("`{}`", file.path().display()),
    };
    tracing::info!(
        "running the configuration of Teleport's Event Handler in {source}; its state and the \
         store are in `{}`",
        handler.state.display()
    );
    if !handler.without_effect.is_empty() {
        let names = handler.without_effect.join(", ");
        tracing::info!("accepted without effect: {names}. `lockgate check` says why");
    }
    if handler.dry_run {
        tracing::warn!("dry run: events are read and counted as dropped; nothing is sent or kept");
    }
}

/// Goes on where the Event Handler stopped, at the first start on its state directory.
async fn take_over_position(
    handler: &EventHandler,
    config: &Config,
    store: &Store,
) -> Result<(), TakeoverError> {
    // Once a source has begun, the files do not count, whatever has become of them.
    let mut have_begun = true;
    for source in &config.sources {
        have_begun &= !store.cursors(&source.name).await?.is_empty();
    }
    if have_begun {
        return Ok(());
    }
    let Some(position) = handler_position(&handler.state)? else {
        return Ok(());
    };
    for source in &config.sources {
        if take_over(&source.name, &position, store, setup::now()).await? {
            tracing::info!(
                source = source.name,
                "going on where Teleport's Event Handler stopped: {}",
                describe_position(&position, sends_recordings(config))
            );
        }
    }
    Ok(())
}

pub(crate) fn not_taken_over(error: TakeoverError) -> Failure {
    let hint = error.hint();
    let failure = Failure::failed(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// The failure of a start that cannot open the store.
fn not_started(error: OpenError) -> Failure {
    let is_io = matches!(error, OpenError::Io { .. });
    let failure = not_opened(error);
    if is_io && failure.hints.is_empty() {
        return failure.hint("`path` in `[store]` names the directory of the store");
    }
    failure
}

/// Waits for a `dlq` command that has the store, and for a host that was killed. `None`: the host
/// is to stop.
async fn take_lock(
    directory: &Path,
    mut stop: Shutdown,
) -> Result<Option<DirectoryLock>, OpenError> {
    let began = Instant::now();
    let mut logged = false;
    loop {
        match DirectoryLock::take(directory, setup::now()) {
            Err(OpenError::Held { holder, .. }) if began.elapsed() < patience(&holder) => {
                if !logged {
                    let seconds = patience(&holder).as_secs();
                    tracing::info!(
                        "the store is in use by {holder}: waiting up to {seconds} s for it"
                    );
                    logged = true;
                }
            }
            taken => return taken.map(Some),
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
            () = stop.draining() => return Ok(None),
        }
    }
}

fn patience(holder: &str) -> Duration {
    match is_dlq(holder) {
        true => DLQ_WAIT,
        false => KILLED_WAIT,
    }
}

/// Whether the text of the lock names a `lockgate dlq`. Options may stand before the command.
fn is_dlq(holder: &str) -> bool {
    let mut commands = holder
        .split_whitespace()
        .filter(|word| matches!(*word, "start" | "demo" | "dlq"));
    commands.next() == Some("dlq")
}

/// A time in which the disk is full, and the store is closed.
struct Outage {
    since: Millis,
    /// Failed attempts to open the store since then.
    attempts: u64,
}

impl Outage {
    fn new(since: Millis) -> Outage {
        Outage { since, attempts: 0 }
    }
}
