//! The randomness of a schedule.

/// A schedule is a function of its seed.
#[derive(Clone, Debug)]
pub struct Random(lockgate_backoff::Random);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(lockgate_backoff::Random::seeded(seed))
    }

    pub fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub fn chance(&mut self, share: f64) -> bool {
        self.0.fraction() < share
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}
