use lockgate_egress::{random_seed, split_mix};

/// Waits between attempts, with jitter of their own.
pub(crate) type Backoff = lockgate_egress::Backoff<Random>;

pub(crate) type Random = Box<dyn FnMut() -> u64 + Send>;

pub(crate) fn backoff() -> Backoff {
    lockgate_egress::Backoff::new(Box::new(split_mix(random_seed())))
}
