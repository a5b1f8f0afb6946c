//! Threads for components: synchronous calls must not block the threads that drive sockets.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use thiserror::Error;
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// A fixed number of threads that take jobs in order. They end when the last clone is dropped and
/// the jobs are done.
#[derive(Clone)]
pub struct Pool {
    jobs: Sender<Job>,
    threads: usize,
}

/// Why a job gave no result.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PoolError {
    /// A bug in the host: components cannot make a job panic.
    #[error("a job of the component threads panicked: {0}")]
    Panicked(String),
    /// No thread is left.
    #[error("the component threads have ended")]
    Ended,
}

impl Pool {
    /// Starts the threads. `threads`: at least one.
    pub fn new(threads: usize) -> std::io::Result<Pool> {
        let threads = threads.max(1);
        let (jobs, queue) = channel();
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..threads {
            let queue = queue.clone();
            thread::Builder::new()
                .name(format!("component-{number}"))
                .spawn(move || work(&queue))?;
        }
        Ok(Pool { jobs, threads })
    }

    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Queues a job at once; the future gives its result. If the future is dropped before a thread
    /// takes the job, the job is not run.
    pub fn run<T, F>(
        &self,
        job: F,
    ) -> impl Future<Output = Result<T, PoolError>> + Send + 'static + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (result, waiting) = oneshot::channel();
        let queued = self.jobs.send(Box::new(move || {
            if result.is_closed() {
                return;
            }
            let outcome = catch_unwind(AssertUnwindSafe(job))
                .map_err(|panic| PoolError::Panicked(panic_text(&*panic)));
            // Nobody waits any more: the result is of no use.
            let _ = result.send(outcome);
        }));
        async move {
            match queued {
                Ok(()) => waiting.await.unwrap_or(Err(PoolError::Ended)),
                Err(_) => Err(PoolError::Ended),
            }
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

fn work(queue: &Mutex<Receiver<Job>>) {
    loop {
        // A statement of its own: the lock is not held while the job runs.
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(job) => job(),
            Err(_) => return,
        }
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
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_and_the_thread_goes_on() {
        let pool = Pool::new(1).unwrap();
        let panicked = pool.run(|| -> u32 { panic!("as {}", "intended") }).await;
        assert_eq!(panicked, Err(PoolError::Panicked("as intended".into())));
        assert_eq!(pool.run(|| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn jobs_run_beside_each_other() {
        let pool = Pool::new(2).unwrap();
        let (here, there) = sync_channel(0);
        let sends = pool.run(move || here.send(5));
        let receives = pool.run(move || there.recv());
        assert_eq!((sends.await, receives.await), (Ok(Ok(())), Ok(Ok(5))));
    }

    #[tokio::test]
    async fn a_job_nobody_waits_for_is_not_run() {
        static RAN: AtomicBool = AtomicBool::new(false);
        let pool = Pool::new(1).unwrap();
        let (release, held) = sync_channel::<()>(0);
        let first = pool.run(move || held.recv());
        drop(pool.run(|| RAN.store(true, Ordering::SeqCst)));
        drop(release);
        first.await.unwrap().unwrap_err();
        pool.run(|| ()).await.unwrap();
        assert!(!RAN.load(Ordering::SeqCst));
    }
}
