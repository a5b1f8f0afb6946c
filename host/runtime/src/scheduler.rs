//! Threads for components, shared between pipelines.
//!
//! Calls are synchronous, so they must not run on the threads that drive sockets; and no pipeline
//! may keep the others from running. [`policy`] chooses the next call; this module has the threads.
//! Each call that has begun keeps a thread until it returns. Only so many of them run at a time:
//! the others have paused at the end of a slice, and their threads wait.

mod policy;

use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{getpriority_process, setpriority_process};
use thiserror::Error;
use tokio::sync::oneshot;

use crate::clock;
use crate::limits::{COMPONENT_NICE, WORK};
pub(crate) use policy::StageId;
use policy::{BegunCall, CallId, Finished, JobKind, Next, Policy, Purpose, QueueId, SliceEnd};

/// Threads that run the calls of all queues. They end when the last clone and the last queue are
/// dropped.
#[derive(Clone)]
pub struct Scheduler {
    handle: Arc<Handle>,
}

/// The calls of one pipeline, which begin in order. Clones share one queue, which ends with the
/// last of them.
#[derive(Clone)]
pub struct Queue {
    inner: Arc<QueueHandle>,
}

/// The result of a job, and its cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran<T> {
    pub result: T,
    /// CPU time that its thread spent on it.
    pub cpu: Duration,
}

/// Why a job gave no result.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SchedulerError {
    /// A bug in the host: components cannot make a job panic.
    #[error("a job of the component threads panicked: {0}")]
    Panicked(String),
    /// No thread is left.
    #[error("the component threads have ended")]
    Ended,
}

/// The place of a job among those of its queue. The host's work goes first: what is left to do of a
/// batch comes before the next one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct JobOrder {
    is_call: bool,
    number: u64,
}

struct Job {
    purpose: Purpose,
    run: Box<dyn FnOnce() -> Answer + Send>,
}

/// Delivers the result, after the policy has been updated: the receiver may queue its next call at
/// once, when this one must no longer count as running.
type Answer = Box<dyn FnOnce(Duration)>;

struct Handle {
    shared: Arc<Shared>,
}

struct QueueHandle {
    id: QueueId,
    name: Arc<str>,
    scheduler: Arc<Handle>,
}

struct Shared {
    /// Calls that may run at the same time.
    threads: usize,
    /// Nice value of the threads.
    nice: i32,
    state: Mutex<State>,
    /// Notified when a call is to begin, or the threads must end.
    work: Condvar,
}

struct State {
    policy: Policy,
    jobs: BTreeMap<QueueId, BTreeMap<JobOrder, Job>>,
    next_job: u64,
    /// Calls that the policy has begun, and that no thread has taken yet.
    beginning: VecDeque<(BegunCall, Job)>,
    /// The threads of paused calls.
    paused: BTreeMap<CallId, Arc<Condvar>>,
    /// All threads, those of paused calls included. There are always at least as many others as
    /// calls may run at the same time.
    workers: usize,
    ended: bool,
}

thread_local! {
    /// The call that this thread runs.
    static RUNNING: RefCell<Option<Running>> = const { RefCell::new(None) };

    /// Notified when the paused call of this thread goes on.
    static RESUMED: Arc<Condvar> = Arc::default();
}

struct Running {
    shared: Arc<Shared>,
    call: BegunCall,
    kind: JobKind,
    /// CPU time of the thread when the slice began.
    slice_began: Duration,
    timed_out: bool,
    refused: bool,
}

/// Notes which stage the call on this thread is for.
pub(crate) fn note_stage(stage: StageId) {
    RUNNING.with_borrow_mut(|running| {
        if let Some(running) = running {
            running.kind.stage = stage;
        }
    });
}

/// Notes that a call on this thread timed out. Its queue counts as slow, even if its limit was
/// short.
pub(crate) fn note_time_out() {
    RUNNING.with_borrow_mut(|running| {
        if let Some(running) = running {
            running.timed_out = true;
        }
    });
}

/// Notes that a call on this thread was refused memory. How long it took is then ignored.
pub(crate) fn note_refused() {
    RUNNING.with_borrow_mut(|running| {
        if let Some(running) = running {
            running.refused = true;
        }
    });
}

/// Whether the call on this thread has turned out to be slow, or is one of a slow pipeline.
pub(crate) fn runs_slow_call() -> bool {
    RUNNING.with_borrow(|running| running.as_ref().is_some_and(|running| running.call.is_slow))
}

/// What the call on this thread does after a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterSlice {
    GoesOn,
    /// It has turned out to be slow while too many slow calls have begun: it must end, and be made
    /// again.
    IsPostponed,
    /// Its queue has been dropped, so nobody waits for its result: it must end.
    IsAbandoned,
}

/// The call on this thread has run for a slice. If it is the turn of others, this waits until the
/// call goes on.
pub(crate) fn end_slice() -> AfterSlice {
    RUNNING.with_borrow_mut(|running| match running {
        Some(running) => running.shared.clone().end_slice(running),
        None => AfterSlice::GoesOn,
    })
}

impl Scheduler {
    /// Starts the threads. `threads`: calls that may run at the same time, at least one. They run
    /// at a lower priority than the threads that read, store and send, which all pipelines need.
    pub fn new(threads: usize) -> io::Result<Scheduler> {
        let threads = threads.max(1);
        // A thread starts with the nice value of the one that starts it, which may be one of these.
        let own_nice = getpriority_process(None).unwrap_or(0);
        let shared = Arc::new(Shared {
            threads,
            nice: own_nice + COMPONENT_NICE,
            state: Mutex::new(State {
                policy: Policy::new(threads),
                jobs: BTreeMap::new(),
                next_job: 0,
                beginning: VecDeque::new(),
                paused: BTreeMap::new(),
                workers: 0,
                ended: false,
            }),
            work: Condvar::new(),
        });
        // Also ends the threads if not all of them can be started.
        let handle = Arc::new(Handle { shared });
        for _ in 0..threads {
            handle.shared.start_worker(&mut handle.shared.state())?;
        }
        Ok(Scheduler { handle })
    }

    /// Calls that may run at the same time.
    pub fn threads(&self) -> usize {
        self.handle.shared.threads
    }

    /// A new queue, even if another one has the same name. `name`: the pipeline's name, for
    /// messages.
    pub fn queue(&self, name: impl Into<Arc<str>>) -> Queue {
        let id = {
            let mut state = self.handle.shared.state();
            let id = state.policy.add();
            state.jobs.insert(id, BTreeMap::new());
            id
        };
        Queue {
            inner: Arc::new(QueueHandle {
                id,
                name: name.into(),
                scheduler: self.handle.clone(),
            }),
        }
    }
}

impl Queue {
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Whether a call was slow or timed out, and not enough quick ones have followed. The pipeline
    /// then runs one call at a time.
    pub fn is_slow(&self) -> bool {
        self.inner.shared().state().policy.is_slow(self.inner.id)
    }

    /// Queues a job for a batch at once; the future returns its result. A job should be one call of
    /// a component: loading and linking cannot pause, so other pipelines wait for them. If the
    /// future is dropped before a thread takes the job, the job is not run.
    pub fn run<T, F>(
        &self,
        job: F,
    ) -> impl Future<Output = Result<Ran<T>, SchedulerError>> + Send + 'static + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.submit(Purpose::Batch, job)
    }

    /// Like [`run`](Queue::run), for a job that loads or configures a component. How long it takes
    /// does not show how long batches take. Like a call with a batch, it may be postponed.
    pub fn prepare<T, F>(
        &self,
        job: F,
    ) -> impl Future<Output = Result<Ran<T>, SchedulerError>> + Send + 'static + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.submit(Purpose::Preparation, job)
    }

    /// Does work of the host for this pipeline, such as compressing what it sends, as if one of its
    /// components did it: on the same threads, and at the cost of its CPU time. `step` is called
    /// until it returns false, and should take about a millisecond: others have their turns between
    /// its calls. A slow pipeline does one thing at a time: this waits for a call that has begun.
    pub async fn work<F>(&self, mut step: F) -> Result<(), SchedulerError>
    where
        F: FnMut() -> bool + Send + 'static,
    {
        loop {
            let job = move || {
                let began = clock::thread_time();
                while step() {
                    if end_slice() == AfterSlice::IsAbandoned {
                        break;
                    }
                    if clock::thread_time().saturating_sub(began) >= WORK {
                        return Some(step);
                    }
                }
                None
            };
            match self.submit(Purpose::Work, job).await?.result {
                Some(rest) => step = rest,
                None => return Ok(()),
            }
        }
    }

    fn submit<T, F>(
        &self,
        purpose: Purpose,
        job: F,
    ) -> impl Future<Output = Result<Ran<T>, SchedulerError>> + Send + 'static + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (sender, result) = oneshot::channel();
        let run = Box::new(move || -> Answer {
            let outcome = catch_unwind(AssertUnwindSafe(job));
            Box::new(move |cpu| {
                let outcome = outcome
                    .map(|result| Ran { result, cpu })
                    .map_err(|panic| SchedulerError::Panicked(panic_text(&*panic)));
                // Fails if the result is no longer needed.
                let _ = sender.send(outcome);
            })
        });
        let job = Job { purpose, run };
        let order = self.inner.shared().submit(self.inner.id, job);
        let waiting = WaitingJob {
            queue: self.inner.clone(),
            job: order,
        };
        async move {
            let outcome = result.await;
            drop(waiting);
            outcome.unwrap_or(Err(SchedulerError::Ended))
        }
    }
}

/// Withdraws the job when dropped, unless a thread has taken it. Keeps the queue until then.
struct WaitingJob {
    queue: Arc<QueueHandle>,
    job: JobOrder,
}

impl Drop for WaitingJob {
    fn drop(&mut self) {
        let id = self.queue.id;
        let mut state = self.queue.shared().state();
        let jobs = state.jobs.get_mut(&id);
        let job = jobs.and_then(|jobs| jobs.remove(&self.job));
        if job.is_some() {
            state.policy.withdraw(id);
        }
        // Dropping the job may drop a queue or the scheduler, which lock the state.
        drop(state);
        drop(job);
    }
}

impl QueueHandle {
    fn shared(&self) -> &Shared {
        &self.scheduler.shared
    }
}

impl Drop for QueueHandle {
    fn drop(&mut self) {
        let mut state = self.shared().state();
        state.policy.remove(self.id);
        let jobs = state.jobs.remove(&self.id);
        drop(state);
        drop(jobs);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.state().ended = true;
        self.shared.work.notify_all();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(&self, id: QueueId, job: Job) -> JobOrder {
        let mut state = self.state();
        let order = JobOrder {
            is_call: job.purpose != Purpose::Work,
            number: state.next_job,
        };
        state.next_job += 1;
        state.jobs.entry(id).or_default().insert(order, job);
        state.policy.submit(id);
        self.dispatch(&mut state, 0);
        order
    }

    /// Begins and resumes calls while the policy has some. `own`: how many of those that begin the
    /// caller's thread takes itself, so that no other is woken for them.
    fn dispatch(&self, state: &mut State, own: usize) {
        while let Some(next) = state.policy.take() {
            match next {
                Next::Begins(call) => {
                    let jobs = state.jobs.get_mut(&call.queue);
                    let job = jobs.and_then(BTreeMap::pop_first);
                    let (_, job) = job.expect("a call is begun for a job that waits");
                    state.beginning.push_back((call, job));
                    if state.beginning.len() > own {
                        self.work.notify_one();
                    }
                }
                Next::Resumes(call) => {
                    let thread = state.paused.remove(&call);
                    thread.expect("it paused").notify_one();
                }
            }
        }
    }

    fn start_worker(self: &Arc<Shared>, state: &mut State) -> io::Result<()> {
        let shared = self.clone();
        thread::Builder::new()
            .name("component".into())
            .spawn(move || shared.work())?;
        state.workers += 1;
        Ok(())
    }

    /// The main loop of a thread.
    fn work(self: Arc<Shared>) {
        if let Err(error) = setpriority_process(None, self.nice) {
            tracing::debug!("components run at the usual priority: {error}");
        }
        let mut state = self.state();
        loop {
            if let Some((call, job)) = state.beginning.pop_front() {
                drop(state);
                self.run(call, job);
                state = self.state();
            // Threads that were started in place of paused ones end once too many are left.
            } else if state.ended || state.active() > 2 * self.threads {
                state.workers -= 1;
                return;
            } else {
                let waited = self.work.wait(state);
                state = waited.unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn run(self: &Arc<Shared>, call: BegunCall, job: Job) {
        let Job { purpose, run } = job;
        let began = clock::thread_time();
        RUNNING.set(Some(Running {
            shared: self.clone(),
            call,
            kind: JobKind {
                purpose,
                stage: StageId::default(),
            },
            slice_began: began,
            timed_out: false,
            refused: false,
        }));
        let answer = run();
        let running = RUNNING.take().expect("it was set before the job");
        let now = clock::thread_time();
        let cpu = now.saturating_sub(began);
        let finished = Finished {
            cpu,
            last_slice: now.saturating_sub(running.slice_began),
            timed_out: running.timed_out,
            refused: running.refused,
        };
        let mut state = self.state();
        state.policy.finish(running.call, running.kind, &finished);
        self.dispatch(&mut state, 1);
        drop(state);
        answer(cpu);
    }

    fn end_slice(self: &Arc<Shared>, running: &mut Running) -> AfterSlice {
        let now = clock::thread_time();
        let cpu = now.saturating_sub(running.slice_began);
        running.slice_began = now;
        let mut state = self.state();
        let end = state.policy.end_slice(&mut running.call, running.kind, cpu);
        match end {
            SliceEnd::Pause => {}
            SliceEnd::GoOn => return AfterSlice::GoesOn,
            SliceEnd::Postpone => return AfterSlice::IsPostponed,
            SliceEnd::Abandon => return AfterSlice::IsAbandoned,
        }
        // The call that runs instead may need a thread.
        if state.active() <= self.threads
            && let Err(error) = self.start_worker(&mut state)
        {
            tracing::debug!("a call does not pause: {error}");
            return AfterSlice::GoesOn;
        }
        let id = running.call.id;
        let resumed = RESUMED.with(Arc::clone);
        state.policy.pause(&running.call);
        state.paused.insert(id, resumed.clone());
        self.dispatch(&mut state, 0);
        while state.paused.contains_key(&id) {
            state = resumed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        AfterSlice::GoesOn
    }
}

impl State {
    /// Threads whose calls are not paused.
    fn active(&self) -> usize {
        self.workers - self.paused.len()
    }
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler")
            .field("threads", &self.threads())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("name", &self.inner.name)
            .finish_non_exhaustive()
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("without a message").to_owned()
}

#[cfg(test)]
mod tests;
