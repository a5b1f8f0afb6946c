//! Messages to systemd, if it has started the host with `Type=notify`: sd_notify(3).

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lockgate_service::{HostEvent, HostStatus, Observer};
use rustix::time::{ClockId, clock_gettime};

/// The longest time between two looks at the status.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// How much longer the start may take, said every [`STATUS_INTERVAL`].
const START_EXTENSION: Duration = Duration::from_secs(60);

/// A manager that cannot take a message must not hold up the host.
const SEND_TIMEOUT: Duration = Duration::from_millis(200);

/// Tells the service manager how the host is. Does nothing if there is none. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Notifier(Option<Arc<Manager>>);

struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
    /// It ends the service if it hears nothing for so long.
    watchdog: Option<Duration>,
    said: Mutex<Said>,
}

#[derive(Default)]
struct Said {
    is_ready: bool,
    status: String,
    has_failed: bool,
}

impl Notifier {
    /// From `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    #[allow(
        clippy::disallowed_methods,
        reason = "the protocol of the service manager, not a setting"
    )]
    pub(crate) fn from_environment() -> Notifier {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Notifier::default();
        };
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        let is_for_us =
            number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|&micros| micros > 0 && is_for_us);
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            [b'/', ..] => SocketAddr::from_pathname(Path::new(&name)),
            _ => Err(std::io::ErrorKind::Unsupported.into()),
        };
        let socket = UnixDatagram::unbound().and_then(|socket| {
            socket.set_write_timeout(Some(SEND_TIMEOUT))?;
            Ok((socket, address?))
        });
        match socket {
            Ok((socket, address)) => Notifier(Some(Arc::new(Manager {
                socket,
                address,
                watchdog: watchdog.map(Duration::from_micros),
                said: Mutex::default(),
            }))),
            Err(error) => {
                tracing::warn!(
                    "cannot notify the service manager at {}, named by `NOTIFY_SOCKET`: {error}",
                    name.display()
                );
                Notifier::default()
            }
        }
    }

    /// The host runs: its store is open, and it answers on the control socket.
    pub(crate) fn ready(&self, host: &HostStatus) {
        let Some(manager) = &self.0 else { return };
        let status = line(host);
        manager.send(&format!("READY=1\nSTATUS={status}"));
        let mut said = manager.said();
        said.is_ready = true;
        said.status = status;
    }

    /// A reload was asked for and has to wait for the store. Whoever asked must not.
    pub(crate) fn put_off(&self, host: &HostStatus) {
        let is_ready = |manager: &Arc<Manager>| manager.said().is_ready;
        if self.0.as_ref().is_some_and(is_ready) {
            self.reloading();
            self.ready(host);
        }
    }

    pub(crate) fn reloading(&self) {
        let Some(manager) = &self.0 else { return };
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        manager.send(&format!(
            "RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=Loading the configuration."
        ));
    }

    pub(crate) fn stopping(&self) {
        if let Some(manager) = &self.0 {
            manager.send("STOPPING=1\nSTATUS=Stopping: waiting for batches in flight.");
        }
    }

    /// The host is at work. Call it from where that shows, every [`interval`](Self::interval).
    pub(crate) fn beat(&self, host: &HostStatus) {
        let Some(manager) = &self.0 else { return };
        let mut message = Vec::new();
        let status = line(host);
        {
            let mut said = manager.said();
            if !said.is_ready {
                message.push(format!(
                    "EXTEND_TIMEOUT_USEC={}",
                    START_EXTENSION.as_micros()
                ));
            } else if manager.watchdog.is_some() {
                message.push("WATCHDOG=1".to_owned());
            }
            if said.status != status {
                message.push(format!("STATUS={status}"));
                said.status = status;
            }
        }
        if !message.is_empty() {
            manager.send(&message.join("\n"));
        }
    }

    /// Half the time of the watchdog, so that one message that comes late does no harm.
    pub(crate) fn interval(&self) -> Duration {
        let watchdog = self.0.as_ref().and_then(|manager| manager.watchdog);
        watchdog.map_or(STATUS_INTERVAL, |time| (time / 2).min(STATUS_INTERVAL))
    }

    /// Passes on notices of a host. `None`: no service manager listens.
    pub(crate) fn observer(
        &self,
        status: impl Fn() -> HostStatus + Send + Sync + 'static,
    ) -> Option<Observer> {
        self.0.as_ref()?;
        let notifier = self.clone();
        Some(Observer {
            interval: self.interval(),
            notify: Arc::new(move |event| match event {
                HostEvent::Beat => notifier.beat(&status()),
                HostEvent::Reloading => notifier.reloading(),
                HostEvent::Running | HostEvent::Reloaded => notifier.ready(&status()),
            }),
        })
    }
}

impl Manager {
    fn send(&self, message: &str) {
        let sent = self.socket.send_to_addr(message.as_bytes(), &self.address);
        if let Err(error) = sent
            && !std::mem::replace(&mut self.said().has_failed, true)
        {
            tracing::warn!("cannot send a message to the service manager: {error}");
        }
    }

    fn said(&self) -> std::sync::MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The text that `systemctl status` shows.
fn line(host: &HostStatus) -> String {
    let mut line = if host.stopping_since.is_some() {
        "Stopping: waiting for batches in flight.".to_owned()
    } else if let Some(store) = &host.store {
        format!("Waiting for the store: {}.", store.message)
    } else {
        let ready = host.pipelines.values().filter(|pipeline| pipeline.ready);
        let (ready, all) = (ready.count(), host.pipelines.len());
        let plural = if all == 1 { "" } else { "s" };
        format!("Running: {ready} of {all} pipeline{plural} ready.")
    };
    let configuration = host.configuration.as_ref();
    if configuration.is_some_and(|configuration| configuration.refused.is_some()) {
        line += " The configuration file had problems and is not in force.";
    }
    line.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use lockgate_service::{
        ConfigurationStatus, PipelineStatus, RefusedConfiguration, StoreStatus,
    };

    use super::*;

    #[test]
    fn the_status_is_one_line() {
        let mut host = HostStatus::default();
        let pipeline = |ready| PipelineStatus {
            ready,
            ..PipelineStatus::default()
        };
        host.pipelines.insert("siem".to_owned(), pipeline(true));
        assert_eq!(line(&host), "Running: 1 of 1 pipeline ready.");
        host.pipelines.insert("archive".to_owned(), pipeline(false));
        host.configuration = Some(ConfigurationStatus {
            refused: Some(RefusedConfiguration::default()),
            ..ConfigurationStatus::default()
        });
        assert_eq!(
            line(&host),
            "Running: 1 of 2 pipelines ready. The configuration file had problems and is not in force."
        );
        host.configuration = None;
        host.store = Some(StoreStatus {
            message: "the disk\nis full".to_owned(),
            ..StoreStatus::default()
        });
        assert_eq!(line(&host), "Waiting for the store: the disk is full.");
    }
}
