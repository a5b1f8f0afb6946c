//! Test fixtures: a clock, credentials, settings with short intervals, and a running source.

#![allow(
    clippy::disallowed_methods,
    reason = "the test clock moves with the real one"
)]

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use lockgate_model::Millis;
use lockgate_teleport::{
    Clock, Credentials, Ended, ReaderStatus, Resume, SourceError, SourceLimits, SourceSettings,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::intake::MemoryIntake;

/// 2026-01-08T12:00:00Z, the time at which a test's clock starts.
pub const NOW: Millis = 1_767_873_600_000;
pub const DAY: Millis = 86_400_000;
/// Longer than anything here takes, even on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// Runs as fast as the real clock, from a time of its own.
pub struct TestClock {
    base: AtomicI64,
    begun: Instant,
}

impl TestClock {
    pub fn at(now: Millis) -> Arc<TestClock> {
        Arc::new(TestClock {
            base: AtomicI64::new(now),
            begun: Instant::now(),
        })
    }

    pub fn advance(&self, by: Millis) {
        self.base.fetch_add(by, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Millis {
        self.base.load(Ordering::SeqCst) + self.begun.elapsed().as_millis() as Millis
    }
}

/// Advances only when a source sleeps and when the server answers, so that hours pass at once.
pub struct SimulatedClock {
    elapsed: watch::Sender<Millis>,
    wrong_by: AtomicI64,
}

impl SimulatedClock {
    pub fn new() -> Arc<SimulatedClock> {
        Arc::new(SimulatedClock {
            elapsed: watch::Sender::default(),
            wrong_by: AtomicI64::new(0),
        })
    }

    /// The right time, whatever the clock shows.
    pub fn time(&self) -> Millis {
        NOW + *self.elapsed.borrow()
    }

    /// Sets the clock to a time that is wrong by this much.
    pub fn set_wrong_by(&self, by: Millis) {
        self.wrong_by.store(by, Ordering::SeqCst);
    }

    pub fn pass(&self, millis: Millis) {
        self.elapsed.send_modify(|elapsed| *elapsed += millis);
    }

    /// Waits until the right time is at least this.
    pub async fn reaches(&self, time: Millis) {
        in_time(
            self.elapsed
                .subscribe()
                .wait_for(|elapsed| NOW + elapsed >= time),
        )
        .await
        .expect("the clock is there");
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Millis {
        self.time() + self.wrong_by.load(Ordering::SeqCst)
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(*self.elapsed.borrow() as u64)
    }

    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.pass(time.as_millis().max(1) as Millis);
        Box::pin(tokio::task::yield_now())
    }

    fn chance(&self) -> f64 {
        0.5
    }
}

/// A cluster's certificate authority.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority {
            issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"))
                .expect("an authority"),
        }
    }

    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate valid until the end of a year, and its key: (PEM, PEM).
    pub fn sign(&self, name: &str, until: i32) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 12, 31);
        (
            params
                .signed_by(&key, &self.issuer)
                .expect("a certificate")
                .pem(),
            key.serialize_pem(),
        )
    }

    /// An identity file.
    pub fn identity(&self, user: &str, until: i32) -> String {
        let (certificate, key) = self.sign(user, until);
        format!("{key}{certificate}{}", self.pem())
    }
}

/// A directory with credentials, and settings that use them.
pub struct Fixture {
    pub dir: tempfile::TempDir,
    pub authority: Authority,
    pub clock: Arc<TestClock>,
    pub settings: SourceSettings,
}

impl Fixture {
    pub fn new() -> Fixture {
        let dir = tempfile::tempdir().expect("a directory");
        let authority = Authority::new();
        let clock = TestClock::at(NOW);
        let path = dir.path().join("identity");
        std::fs::write(&path, authority.identity("bot", 2090)).expect("a file");
        let mut settings =
            SourceSettings::new("teleport", "127.0.0.1:1", Credentials::identity_file(&path));
        settings.clock = clock.clone();
        settings.start_time = Some(NOW - 7 * DAY);
        settings.exit_on_last_event = true;
        let ms = Duration::from_millis;
        settings.limits = SourceLimits {
            backoff: (ms(1), ms(20)),
            flush: ms(20),
            export_poll: ms(20),
            poll: ms(10),
            lag: ms(50),
            reread: ms(1000),
            standstill: ms(40),
            gap_after: Some(ms(100)),
            gap_wait: (ms(50), ms(200)),
            recording_wait: (ms(10), ms(60)),
            ..SourceLimits::default()
        };
        Fixture {
            dir,
            authority,
            clock,
            settings,
        }
    }

    pub fn identity_path(&self) -> PathBuf {
        self.dir.path().join("identity")
    }

    /// Starts a source.
    pub fn start(&self, resume: Resume, intake: &Arc<MemoryIntake>) -> Running {
        let (reporter, status) = watch::channel(ReaderStatus::default());
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async {
            let _ = stopped.await;
        };
        let source = lockgate_teleport::run(
            self.settings.clone(),
            resume,
            intake.clone(),
            reporter,
            shutdown,
        );
        Running {
            task: tokio::spawn(source),
            status,
            stop,
        }
    }

    /// Runs a source until it has caught up.
    pub async fn read(&self, intake: &Arc<MemoryIntake>) -> ReaderStatus {
        let running = self.start(intake.resume(), intake);
        let status = running.status.clone();
        assert_eq!(running.ended().await, Ended::CaughtUp);
        status.borrow().clone()
    }
}

/// A source that runs.
pub struct Running {
    task: JoinHandle<Result<Ended, SourceError>>,
    pub status: watch::Receiver<ReaderStatus>,
    stop: oneshot::Sender<()>,
}

impl Running {
    pub async fn stop(self) {
        let _ = self.stop.send(());
        assert_eq!(
            in_time(self.task)
                .await
                .expect("no panic")
                .expect("no error"),
            Ended::Stopped
        );
    }

    pub async fn ended(self) -> Ended {
        let ended = in_time(self.task)
            .await
            .expect("no panic")
            .expect("no error");
        drop(self.stop);
        ended
    }

    /// Waits for a matching status and returns it.
    pub async fn shows(&mut self, what: impl FnMut(&ReaderStatus) -> bool) -> ReaderStatus {
        in_time(self.status.wait_for(what))
            .await
            .expect("the source runs")
            .clone()
    }

    /// Waits for a failure that contains `text`, and returns its message.
    pub async fn fails_with(&mut self, text: &str) -> String {
        let found = |status: &ReaderStatus| {
            let mut messages = status.failures.values().map(|failure| &failure.message);
            messages.find(|message| message.contains(text)).cloned()
        };
        let status = self.shows(|status| found(status).is_some()).await;
        found(&status).expect("it was there")
    }
}

pub async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it takes too long")
}
