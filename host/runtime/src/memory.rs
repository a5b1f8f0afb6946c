//! One budget of memory for the batches of all pipelines.
//!
//! Half of it is divided equally: each pipeline always gets its part, whatever the others hold. The
//! other half goes to whichever asks first. So a pipeline whose receiver hangs, and which never
//! releases its memory, does not stop the others.

mod shares;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use shares::{ShareId, Shares};

/// Memory for batches in flight. Clones are the same budget.
#[derive(Clone)]
pub struct BatchMemoryBudget {
    state: Arc<Mutex<State>>,
}

/// One pipeline's access to a [`BatchMemoryBudget`]. Clones are the same share.
#[derive(Clone)]
pub struct MemoryShare {
    inner: Arc<Inner>,
}

/// Memory that was granted. Released when it is dropped.
#[must_use]
pub struct Reserved {
    share: MemoryShare,
    bytes: usize,
}

struct Inner {
    id: ShareId,
    budget: BatchMemoryBudget,
}

struct State {
    shares: Shares,
    /// Requests of each share, in order.
    waiting: BTreeMap<ShareId, VecDeque<Request>>,
}

struct Request {
    bytes: usize,
    granted: oneshot::Sender<Reserved>,
    share: MemoryShare,
}

impl BatchMemoryBudget {
    /// `total`: bytes.
    pub fn new(total: usize) -> BatchMemoryBudget {
        BatchMemoryBudget {
            state: Arc::new(Mutex::new(State {
                shares: Shares::new(total),
                waiting: BTreeMap::new(),
            })),
        }
    }

    /// A share of its own for one pipeline. It ends when its last clone and the last memory that
    /// was granted through it are dropped.
    pub fn share(&self) -> MemoryShare {
        let id = self.lock().shares.add();
        MemoryShare {
            inner: Arc::new(Inner {
                id,
                budget: self.clone(),
            }),
        }
    }

    /// Bytes that all pipelines hold.
    pub fn used(&self) -> usize {
        self.lock().shares.used()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(&self, id: ShareId, request: Request) {
        let mut state = self.lock();
        state.waiting.entry(id).or_default().push_back(request);
        drop(state);
        self.grant();
    }

    /// Grants what can be granted now.
    fn grant(&self) {
        loop {
            let mut abandoned = Vec::new();
            let granted = self.lock().grant(&mut abandoned);
            // Both without the lock: what is dropped here takes it.
            drop(abandoned);
            let Some(Request {
                bytes,
                granted,
                share,
            }) = granted
            else {
                return;
            };
            // Where the request was given up, the memory is released at once.
            let _ = granted.send(Reserved { share, bytes });
        }
    }
}

impl MemoryShare {
    /// Waits until the budget has room for `bytes`. Requests of one share are granted in order. A
    /// share that holds nothing gets what it asks for at once, however much it is, and so can
    /// exceed the budget by one request.
    pub async fn acquire(&self, bytes: usize) -> Reserved {
        let budget = &self.inner.budget;
        let _cancelled = GrantOnDrop(budget);
        let (granted, reserved) = oneshot::channel();
        let request = Request {
            bytes,
            granted,
            share: self.clone(),
        };
        budget.submit(self.inner.id, request);
        match reserved.await {
            Ok(reserved) => reserved,
            // The state drops no request that somebody waits for.
            Err(_) => self.take(bytes),
        }
    }

    /// Takes `bytes` without waiting, although the budget may have no room: for what a batch turns
    /// out to need while it is under way, and cannot wait for.
    pub fn take(&self, bytes: usize) -> Reserved {
        self.inner.budget.lock().shares.hold(self.inner.id, bytes);
        Reserved {
            share: self.clone(),
            bytes,
        }
    }

    /// Bytes that this share holds.
    pub fn used(&self) -> usize {
        self.inner.budget.lock().shares.held(self.inner.id)
    }
}

impl Reserved {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The batch needs more or less than was asked for. Does not wait.
    pub fn resize(&mut self, bytes: usize) {
        let budget = &self.share.inner.budget;
        let id = self.share.inner.id;
        let mut state = budget.lock();
        state.shares.release(id, self.bytes);
        state.shares.hold(id, bytes);
        drop(state);
        self.bytes = bytes;
        budget.grant();
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let Inner { id, budget } = &*self.share.inner;
        budget.lock().shares.release(*id, self.bytes);
        budget.grant();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let mut state = self.budget.lock();
        // No request of it waits: that would keep the share.
        state.shares.remove(self.id);
        state.waiting.remove(&self.id);
        drop(state);
        self.budget.grant();
    }
}

/// A request that was given up may have stood before one that fits.
struct GrantOnDrop<'a>(&'a BatchMemoryBudget);

impl Drop for GrantOnDrop<'_> {
    fn drop(&mut self) {
        self.0.grant();
    }
}

impl State {
    /// The next request that can be granted: among several, that of the share that holds least.
    /// Moves requests that were given up to `abandoned`.
    fn grant(&mut self, abandoned: &mut Vec<Request>) -> Option<Request> {
        for requests in self.waiting.values_mut() {
            while let Some(request) = requests.pop_front_if(|request| request.granted.is_closed()) {
                abandoned.push(request);
            }
        }
        let fits = |(id, requests): (&ShareId, &VecDeque<Request>)| {
            let request = requests.front()?;
            let fits = self.shares.has_room(*id, request.bytes);
            fits.then(|| (self.shares.held(*id), *id))
        };
        let (_, id) = self.waiting.iter().filter_map(fits).min()?;
        let request = self.waiting.get_mut(&id)?.pop_front()?;
        self.shares.hold(id, request.bytes);
        Some(request)
    }
}

impl fmt::Debug for BatchMemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchMemoryBudget")
            .field("shares", &self.lock().shares)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for MemoryShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryShare")
            .field("id", &self.inner.id)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Reserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reserved")
            .field("share", &self.share)
            .field("bytes", &self.bytes)
            .finish()
    }
}

#[cfg(test)]
mod tests;
