//! Threads for components, shared between pipelines.
//!
//! Synchronous calls must not block the threads that drive sockets, and no pipeline may keep the
//! others from running. [`policy`] chooses the next call; this module has the threads.

mod policy;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::nice;
use thiserror::Error;
use tokio::sync::oneshot;

use crate::clock;
use crate::limits::SLOW_NICE;
use policy::{Class, Policy, Purpose, QueueId, Turn};

/// The threads that serve all queues, and more for calls that turned out to be slow. They end when
/// the last clone and the last queue are dropped.
#[derive(Clone)]
pub struct Scheduler {
    handle: Arc<Handle>,
}

/// The calls of one pipeline, in order. Clones are the same queue; it ends with the last one.
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

struct Job {
    purpose: Purpose,
    run: Box<dyn FnOnce() -> Finished + Send>,
}

/// Delivers the result, after the policy has been updated: the receiver may queue its next call at
/// once, when this one must no longer count as running.
type Finished = Box<dyn FnOnce(Duration)>;

struct Handle {
    shared: Arc<Shared>,
}

struct QueueHandle {
    id: QueueId,
    name: Arc<str>,
    scheduler: Arc<Handle>,
}

struct Shared {
    threads: usize,
    state: Mutex<State>,
    quick: Condvar,
    slow: Condvar,
    for_new: Condvar,
}

struct State {
    policy: Policy,
    jobs: BTreeMap<QueueId, BTreeMap<u64, Job>>,
    next_job: u64,
    ended: bool,
}

thread_local! {
    /// A call of this thread's job has timed out.
    static TIMED_OUT: Cell<bool> = const { Cell::new(false) };

    /// The call that this thread runs.
    static RUNNING: RefCell<Option<Running>> = const { RefCell::new(None) };
}

struct Running {
    shared: Arc<Shared>,
    turn: Turn,
    purpose: Purpose,
}

/// Notes that a call on this thread timed out. Its queue counts as slow, even if its limit was
/// short.
pub(crate) fn note_time_out() {
    TIMED_OUT.set(true);
}

/// Hands the place of this thread's call, which turned out to be slow, over to another thread. This
/// one goes on at a lower priority and ends with the job. Some calls keep their place: those on a
/// thread for slow calls, and those that would be too many.
pub(crate) fn hand_over_slow_call() {
    RUNNING.with_borrow_mut(|running| {
        if let Some(running) = running {
            running.shared.hand_over(&mut running.turn, running.purpose);
        }
    });
}

/// Whether this thread's job is one of a slow pipeline, or has handed over its place.
pub(crate) fn runs_slow_call() -> bool {
    RUNNING.with_borrow(|running| {
        let turn = running.as_ref().map(|running| &running.turn);
        turn.is_some_and(|turn| turn.class == Class::Slow || turn.handed_over)
    })
}

impl Scheduler {
    /// Starts the threads. `threads`: quick calls that may run at the same time, at least one. Half
    /// as many threads, at a lower priority, are for slow calls. One more is for new queues: those
    /// of which no call with a batch has returned. A call that turns out to be slow goes on at that
    /// lower priority, and a new thread takes the place of its own.
    pub fn new(threads: usize) -> io::Result<Scheduler> {
        let policy = Policy::new(threads);
        let shared = Arc::new(Shared {
            threads: threads.max(1),
            state: Mutex::new(State {
                jobs: BTreeMap::new(),
                next_job: 0,
                ended: false,
                policy,
            }),
            quick: Condvar::new(),
            slow: Condvar::new(),
            for_new: Condvar::new(),
        });
        // Also ends the threads if not all of them can be started.
        let handle = Arc::new(Handle { shared });
        let shared = &handle.shared;
        let slow_threads = shared.lock().policy.slow_threads();
        let quick = (0..shared.threads).map(|number| (Class::Quick, number));
        let slow = (0..slow_threads).map(|number| (Class::Slow, number));
        for (class, number) in quick.chain(slow).chain([(Class::New, 0)]) {
            let name = match class {
                Class::Quick => format!("component-{number}"),
                Class::Slow => format!("component-slow-{number}"),
                Class::New => "component-new".to_owned(),
            };
            let shared = shared.clone();
            thread::Builder::new()
                .name(name)
                .spawn(move || shared.work(class))?;
        }
        Ok(Scheduler { handle })
    }

    /// Quick calls that may run at the same time.
    pub fn threads(&self) -> usize {
        self.handle.shared.threads
    }

    /// A new queue, even if another one has the same name. `name`: the pipeline's name, for
    /// messages.
    pub fn queue(&self, name: impl Into<Arc<str>>) -> Queue {
        let id = {
            let mut state = self.handle.shared.lock();
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

    /// Whether a call was slow or timed out and the pipeline has not recovered since. It then runs
    /// one call at a time.
    pub fn is_slow(&self) -> bool {
        self.inner.shared().lock().policy.is_slow(self.inner.id)
    }

    /// Queues a job for a batch at once; the future returns its result. A job should be one call of
    /// a component, so that other pipelines wait no longer than that. If the future is dropped
    /// before a thread takes the job, the job is not run.
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
    /// does not show how long batches take.
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
        let run = Box::new(move || -> Finished {
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
        let number = self.inner.shared().submit(self.inner.id, job);
        let waiting = Waiting {
            queue: self.inner.clone(),
            job: number,
        };
        async move {
            let outcome = result.await;
            drop(waiting);
            outcome.unwrap_or(Err(SchedulerError::Ended))
        }
    }
}

/// Withdraws a job that no thread has taken, when it is dropped. Keeps the queue alive until then.
struct Waiting {
    queue: Arc<QueueHandle>,
    job: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let QueueHandle { id, .. } = *self.queue;
        let mut state = self.queue.shared().lock();
        let jobs = state.jobs.get_mut(&id);
        let job = jobs.and_then(|jobs| jobs.remove(&self.job));
        if job.is_some() {
            state.policy.withdraw(id);
        }
        // Dropping the job may use the scheduler.
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
        let mut state = self.shared().lock();
        state.policy.remove(self.id);
        let jobs = state.jobs.remove(&self.id);
        drop(state);
        drop(jobs);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.quick.notify_all();
        self.shared.slow.notify_all();
        self.shared.for_new.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(&self, id: QueueId, job: Job) -> u64 {
        let mut state = self.lock();
        let number = state.next_job;
        state.next_job += 1;
        state.jobs.entry(id).or_default().insert(number, job);
        state.policy.submit(id);
        self.wake(&state);
        number
    }

    /// Wakes a thread for each class that has a call to run. That thread wakes the next one.
    fn wake(&self, state: &State) {
        for class in state.policy.next_classes() {
            self.condition(class).notify_one();
        }
    }

    fn condition(&self, class: Class) -> &Condvar {
        match class {
            Class::Quick => &self.quick,
            Class::Slow => &self.slow,
            Class::New => &self.for_new,
        }
    }

    /// The main loop of a thread.
    fn work(self: Arc<Shared>, class: Class) {
        if class == Class::Slow {
            lower_priority();
        }
        let mut state = self.lock();
        while !state.ended {
            let Some(turn) = state.policy.take(class) else {
                // The next call may need a thread of another class.
                self.wake(&state);
                let condition = self.condition(class);
                state = condition
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let jobs = state.jobs.get_mut(&turn.queue);
            let job = jobs.and_then(BTreeMap::pop_first);
            let (_, Job { purpose, run }) = job.expect("a turn is for a job that waits");
            self.wake(&state);
            drop(state);
            TIMED_OUT.set(false);
            RUNNING.set(Some(Running {
                shared: self.clone(),
                turn,
                purpose,
            }));
            let began = clock::thread_time();
            let finished = run();
            let cpu = clock::thread_time().saturating_sub(began);
            let running = RUNNING.take().expect("it was set before the job");
            let handed_over = running.turn.handed_over;
            state = self.lock();
            state
                .policy
                .finish(running.turn, purpose, cpu, TIMED_OUT.get());
            if handed_over {
                // Its queue may go on, and this thread does not look for the next call.
                self.wake(&state);
            }
            drop(state);
            finished(cpu);
            if handed_over {
                return;
            }
            state = self.lock();
        }
    }

    /// Starts a thread in the place of this one, whose call is slow. Where none can be started, the
    /// call keeps its place.
    fn hand_over(self: &Arc<Shared>, turn: &mut Turn, purpose: Purpose) {
        let mut state = self.lock();
        if state.ended || !state.policy.may_hand_over(turn) {
            return;
        }
        let (shared, class) = (self.clone(), turn.class);
        let name = thread::current().name().unwrap_or("component").to_owned();
        // It waits for the lock.
        let started = thread::Builder::new()
            .name(name)
            .spawn(move || shared.work(class));
        if let Err(error) = started {
            tracing::debug!("a slow call keeps its thread: {error}");
            return;
        }
        state.policy.hand_over(turn, purpose);
        self.wake(&state);
        drop(state);
        lower_priority();
    }
}

/// Of this thread.
fn lower_priority() {
    if let Err(error) = nice(SLOW_NICE) {
        tracing::debug!("slow components run at the usual priority: {error}");
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
