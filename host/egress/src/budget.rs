//! File descriptors: how many connections the endpoints of a host may have together, and each of
//! them at once. A receiver that hangs keeps its connections until its time-out, and must not take
//! them from others.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use tokio::sync::{Semaphore, SemaphorePermit};

/// How many files this process may have open. `None`: as many as it likes.
pub fn descriptor_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Whether this process can open no file now.
pub(crate) fn is_exhausted() -> bool {
    let opened = File::open("/dev/null");
    opened.is_err_and(|error| Errno::from_io_error(&error) == Some(Errno::MFILE))
}

/// What an endpoint may want: so many connections to each of its hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub connections: usize,
    pub hosts: usize,
}

impl Wanted {
    /// The most descriptors that it may take.
    pub fn descriptors(self) -> usize {
        self.connections.saturating_mul(self.hosts)
    }
}

/// The connections that the endpoints of a host share. Clones are one budget. Without
/// [`divide`](ConnectionBudget::divide) it has no limit.
#[derive(Clone, Debug)]
pub struct ConnectionBudget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// One turn for each connection of the budget.
    turns: Turns,
    division: Mutex<Division>,
    /// There are more endpoints than connections.
    is_crowded: AtomicBool,
}

#[derive(Debug)]
struct Division {
    /// The most connections of an endpoint to one host.
    each: usize,
    endpoints: Vec<Weak<Turns>>,
}

impl Default for ConnectionBudget {
    fn default() -> ConnectionBudget {
        ConnectionBudget {
            shared: Arc::new(Shared {
                turns: Turns::new(Semaphore::MAX_PERMITS),
                division: Mutex::new(Division {
                    each: usize::MAX,
                    endpoints: Vec::new(),
                }),
                is_crowded: AtomicBool::new(false),
            }),
        }
    }
}

impl ConnectionBudget {
    /// Divides so many connections among the endpoints: those that want few get them, and the
    /// others get the same number each. So none takes what another has. If there are more endpoints
    /// than connections, they take turns. Returns the most that an endpoint gets for one host.
    pub fn divide(&self, connections: usize, wanted: &[Wanted]) -> usize {
        let connections = connections.max(1);
        let each = level(connections, wanted);
        let mut division = self.division();
        let least: usize = wanted.iter().map(|wanted| wanted.hosts).sum();
        self.shared.is_crowded.store(least > connections, Relaxed);
        self.shared.turns.resize(connections);
        division.each = each;
        division.endpoints.retain(|turns| match turns.upgrade() {
            Some(turns) => {
                turns.resize(turns.wanted.min(each));
                true
            }
            None => false,
        });
        each
    }

    /// The connections of an endpoint that wants so many at once.
    pub(crate) fn join(&self, wanted: usize) -> Connections {
        let mut division = self.division();
        let own = Arc::new(Turns::new(wanted));
        own.resize(wanted.min(division.each));
        division.endpoints.retain(|turns| turns.strong_count() > 0);
        division.endpoints.push(Arc::downgrade(&own));
        Connections {
            own,
            shared: self.shared.clone(),
        }
    }

    fn division(&self) -> MutexGuard<'_, Division> {
        let division = self.shared.division.lock();
        division.unwrap_or_else(PoisonError::into_inner)
    }
}

/// The highest number of connections to one host with which all of them fit.
fn level(connections: usize, wanted: &[Wanted]) -> usize {
    let at = |each: usize| {
        let taken = wanted
            .iter()
            .map(|wanted| wanted.connections.min(each).saturating_mul(wanted.hosts));
        taken.fold(0_usize, usize::saturating_add)
    };
    if at(usize::MAX) <= connections {
        return usize::MAX;
    }
    let (mut fits, mut too_many) = (0, connections.saturating_add(1));
    while fits + 1 < too_many {
        let middle = fits + (too_many - fits) / 2;
        match at(middle) <= connections {
            true => fits = middle,
            false => too_many = middle,
        }
    }
    fits.max(1)
}

/// The connections of one endpoint.
#[derive(Debug)]
pub(crate) struct Connections {
    own: Arc<Turns>,
    shared: Arc<Shared>,
}

/// Leave to have a connection, until it is dropped.
#[derive(Debug)]
pub struct Connection<'a> {
    _own: Turn<'a>,
    _shared: Turn<'a>,
    /// The connection may stay open for the next request.
    pub(crate) may_stay: bool,
}

impl Connections {
    /// The most at once.
    pub(crate) fn most(&self) -> usize {
        self.own.most()
    }

    /// It may have fewer than it wants, for lack of descriptors.
    pub(crate) fn are_short(&self) -> bool {
        self.is_crowded() || self.own.is_short()
    }

    fn is_crowded(&self) -> bool {
        self.shared.is_crowded.load(Relaxed)
    }

    /// Waits for its turn: first that of this request at its endpoint, so that each endpoint waits
    /// for the others with few requests, then that of the endpoint.
    pub(crate) async fn next(&self) -> Connection<'_> {
        let own = self.own.take().await;
        let shared = self.shared.turns.take().await;
        Connection {
            _own: own,
            _shared: shared,
            may_stay: !self.is_crowded(),
        }
    }
}

/// Turns whose number may change while some are taken. First come, first served.
#[derive(Debug)]
struct Turns {
    free: Semaphore,
    wanted: usize,
    count: Mutex<Count>,
}

#[derive(Debug)]
struct Count {
    most: usize,
    /// Taken beyond that, and not given back yet.
    surplus: usize,
}

#[derive(Debug)]
struct Turn<'a> {
    turns: &'a Turns,
    permit: Option<SemaphorePermit<'a>>,
}

impl Turns {
    fn new(wanted: usize) -> Turns {
        let most = wanted.min(Semaphore::MAX_PERMITS);
        Turns {
            free: Semaphore::new(most),
            wanted,
            count: Mutex::new(Count { most, surplus: 0 }),
        }
    }

    fn most(&self) -> usize {
        self.count().most
    }

    fn is_short(&self) -> bool {
        let count = self.count();
        count.most < self.wanted || count.surplus > 0
    }

    fn resize(&self, most: usize) {
        let most = most.min(Semaphore::MAX_PERMITS);
        let mut count = self.count();
        let existing = count.most + count.surplus;
        count.most = most;
        match existing.checked_sub(most) {
            Some(excess) => count.surplus = excess - self.free.forget_permits(excess),
            None => {
                count.surplus = 0;
                self.free.add_permits(most - existing);
            }
        }
    }

    async fn take(&self) -> Turn<'_> {
        Turn {
            turns: self,
            // The semaphore is never closed.
            permit: self.free.acquire().await.ok(),
        }
    }

    fn count(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut count = self.turns.count();
        if count.surplus > 0
            && let Some(permit) = self.permit.take()
        {
            count.surplus -= 1;
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn wanted(connections: usize) -> Wanted {
        Wanted {
            connections,
            hosts: 1,
        }
    }

    fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        let mut context = Context::from_waker(Waker::noop());
        match pin!(future).poll(&mut context) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[test]
    fn connections_are_divided_equally_among_those_that_want_more() {
        let two_hosts = Wanted {
            connections: 8,
            hosts: 2,
        };
        for (connections, of, each) in [
            (100, vec![wanted(8), wanted(8)], usize::MAX),
            (16, vec![wanted(8), wanted(8)], usize::MAX),
            (15, vec![wanted(8), wanted(8)], 7),
            (20, vec![wanted(2), wanted(100), wanted(100)], 9),
            (12, vec![two_hosts, wanted(8)], 4),
            (3, vec![wanted(8); 10], 1),
            (1, vec![], usize::MAX),
        ] {
            assert_eq!(level(connections, &of), each, "{connections} {of:?}");
        }
    }

    #[test]
    fn an_endpoint_keeps_its_connections_whatever_another_takes() {
        let budget = ConnectionBudget::default();
        assert_eq!(budget.divide(10, &[wanted(100), wanted(100)]), 5);
        let (hung, healthy) = (budget.join(100), budget.join(100));
        let taken: Vec<_> = std::iter::from_fn(|| now(hung.next())).collect();
        assert_eq!((taken.len(), hung.most()), (5, 5));
        assert!(hung.are_short());
        assert!(now(healthy.next()).is_some_and(|connection| connection.may_stay));
    }

    #[test]
    fn endpoints_take_turns_if_there_are_more_of_them_than_connections() {
        let budget = ConnectionBudget::default();
        assert_eq!(budget.divide(2, &[wanted(8); 3]), 1);
        let [a, b, c] = [(); 3].map(|()| budget.join(8));
        let first = now(a.next()).expect("it is free");
        assert!(!first.may_stay, "another needs it");
        let second = now(b.next()).expect("it is free");
        let mut third = pin!(c.next());
        let mut again = pin!(a.next());
        let mut context = Context::from_waker(Waker::noop());
        assert!(third.as_mut().poll(&mut context).is_pending());
        assert!(again.as_mut().poll(&mut context).is_pending());
        drop(first);
        assert!(again.as_mut().poll(&mut context).is_pending());
        assert!(third.as_mut().poll(&mut context).is_ready());
        drop(second);
        assert!(again.as_mut().poll(&mut context).is_ready());
    }

    #[test]
    fn what_an_endpoint_has_too_many_of_after_a_new_division_is_given_back() {
        let budget = ConnectionBudget::default();
        let endpoint = budget.join(4);
        let mut taken: Vec<_> = (0..4).filter_map(|_| now(endpoint.next())).collect();
        assert_eq!(taken.len(), 4);
        assert!(!endpoint.are_short());
        budget.divide(2, &[wanted(4)]);
        for _ in 0..2 {
            assert!(now(endpoint.next()).is_none() && endpoint.are_short());
            taken.pop();
        }
        assert!(now(endpoint.next()).is_none());
        taken.pop();
        taken.extend(now(endpoint.next()));
        assert_eq!(taken.len(), 2);
        budget.divide(100, &[wanted(4)]);
        taken.extend(std::iter::from_fn(|| now(endpoint.next())));
        assert_eq!(taken.len(), 4);
        assert!(!endpoint.are_short());
    }
}
