//! The board on which the status of a running host is kept.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lockgate_model::Millis;

use super::{
    ConfigurationStatus, HostStatus, ListenerStatus, PipelineState, PipelineStatus, SourceStatus,
    StoreLogStatus, StoreStatus, WAITING_FOR_STORE,
};

/// Where readers and pipelines report. Clones are one board.
#[derive(Clone, Debug, Default)]
pub struct Board {
    status: Arc<Mutex<HostStatus>>,
}

impl Board {
    pub fn new(started_at: Millis) -> Board {
        let status = HostStatus {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            started_at,
            updated_at: started_at,
            store: Some(StoreStatus {
                message: "it is being opened".to_owned(),
                since: started_at,
                next_attempt: None,
            }),
            ..HostStatus::default()
        };
        Board {
            status: Arc::new(Mutex::new(status)),
        }
    }

    pub fn snapshot(&self, now: Millis) -> HostStatus {
        let mut status = self.lock();
        status.updated_at = now;
        let started_at = status.started_at;
        for source in status.sources.values_mut() {
            source.refresh(started_at, now);
        }
        for pipeline in status.pipelines.values_mut() {
            let conditions = &pipeline.conditions;
            pipeline.ready = pipeline.state.has_started()
                && !conditions
                    .iter()
                    .any(|condition| condition.makes_unready(now));
        }
        let mut status = status.clone();
        status.leave_out_past_attempts(now);
        status
    }

    /// What is configured, before the store is opened for the first time.
    pub fn configured<'n>(
        &self,
        sources: impl Iterator<Item = &'n str>,
        pipelines: impl Iterator<Item = &'n str>,
    ) {
        for name in sources {
            self.source(name, |source| source.state = WAITING_FOR_STORE.to_owned());
        }
        for name in pipelines {
            self.pipeline(name, |pipeline| {
                pipeline.state = PipelineState::WaitingForStore;
            });
        }
    }

    /// The store has closed, and with it everything else.
    pub fn store_closed(&self, store: StoreStatus) {
        let mut status = self.lock();
        status.store = Some(store);
        status.store_log = None;
        let state = PipelineState::WaitingForStore;
        for source in status.sources.values_mut() {
            source.state = state.to_string();
            source.conditions.clear();
        }
        for pipeline in status.pipelines.values_mut() {
            *pipeline = PipelineStatus {
                state,
                ..PipelineStatus::default()
            };
        }
    }

    /// The store is open, and these pipelines are about to start.
    pub(crate) fn store_opened<'p>(&self, now: Millis, pipelines: impl Iterator<Item = &'p str>) {
        let mut status = self.lock();
        status.store = None;
        status.store_opened_at = Some(now);
        // Others were removed by a reload that the store's failure interrupted.
        let mut before = std::mem::take(&mut status.pipelines);
        for name in pipelines {
            let mut pipeline = before.remove(name).unwrap_or_default();
            pipeline.state = PipelineState::Starting;
            status.pipelines.insert(name.to_owned(), pipeline);
        }
    }

    pub(crate) fn store_log(&self, log: Option<StoreLogStatus>) {
        self.lock().store_log = log;
    }

    pub(crate) fn admin_listener(&self, missing: Option<ListenerStatus>) {
        self.lock().admin_listener = missing;
    }

    /// The host was asked to stop.
    pub fn stopping(&self, now: Millis) {
        self.lock().stopping_since.get_or_insert(now);
    }

    pub(crate) fn control_socket(&self, is_bound: bool) {
        self.lock().control_socket = is_bound;
    }

    /// The parts that the sources have not read, in words.
    pub(crate) fn unread(&self) -> Vec<(String, String)> {
        let status = self.lock();
        let sources = status.sources.iter();
        let unread = sources.filter_map(|(name, source)| Some((name.clone(), source.unread()?)));
        unread.collect()
    }

    pub(crate) fn configuration<T>(&self, change: impl FnOnce(&mut ConfigurationStatus) -> T) -> T {
        change(
            self.lock()
                .configuration
                .get_or_insert_with(ConfigurationStatus::default),
        )
    }

    /// A reload has removed the source.
    pub(crate) fn forget_source(&self, name: &str) {
        self.lock().sources.remove(name);
    }

    /// A reload has removed the pipeline.
    pub(crate) fn forget_pipeline(&self, name: &str) {
        self.lock().pipelines.remove(name);
    }

    pub fn source(&self, name: &str, change: impl FnOnce(&mut SourceStatus)) {
        change(self.lock().sources.entry(name.to_owned()).or_default());
    }

    pub fn pipeline<T>(&self, name: &str, change: impl FnOnce(&mut PipelineStatus) -> T) -> T {
        change(self.lock().pipelines.entry(name.to_owned()).or_default())
    }

    fn lock(&self) -> MutexGuard<'_, HostStatus> {
        // A panic while it is held leaves plain data behind.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
