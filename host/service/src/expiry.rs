//! Dead letters that are older than the operator keeps them.

use std::time::Duration;

use lockgate_config::show_duration;
use lockgate_ledger::{DeadLetters, LedgerError};
use lockgate_model::Millis;
use tokio::time::Instant;

use crate::clock::now;
use crate::limits::EXPIRY_INTERVAL;

/// Removes old letters for as long as it is polled, every minute: the first after a minute, in
/// which whoever started the host by mistake can stop it. `ages`: of each configured pipeline.
/// Letters of other pipelines are kept, since nothing says how long.
pub(crate) async fn expire<L: DeadLetters>(ledger: L, ages: Vec<(String, Duration)>) {
    let mut ticks = tokio::time::interval_at(Instant::now() + EXPIRY_INTERVAL, EXPIRY_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for (pipeline, age) in &ages {
            match expire_pipeline(&ledger, pipeline, *age, now()).await {
                Ok(_) => {}
                // The host ends for that, or opens the store again.
                Err(LedgerError::Closed { .. }) => return,
                Err(error) => tracing::warn!(
                    pipeline,
                    %error,
                    "old dead letters were not removed; trying again in a minute"
                ),
            }
        }
    }
}

/// Removes the old letters of one pipeline, and logs how many. Returns their number.
async fn expire_pipeline<L: DeadLetters>(
    ledger: &L,
    pipeline: &str,
    age: Duration,
    now: Millis,
) -> Result<u64, LedgerError> {
    let age_ms = Millis::try_from(age.as_millis()).unwrap_or(Millis::MAX);
    let mut total = 0;
    loop {
        let before = now.saturating_sub(age_ms);
        match ledger.expire_letters(pipeline, before, now).await {
            Ok(0) => break,
            Ok(expired) => total += expired,
            // It has never run on this store.
            Err(LedgerError::Unknown(_)) => break,
            Err(error) => return Err(error),
        }
    }
    if total > 0 {
        tracing::warn!(
            pipeline,
            expired = total,
            "dead letters older than {} were removed with their events; they still count as dead",
            show_duration(age)
        );
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use lockgate_ledger::memory::MemoryLedger;
    use lockgate_ledger::{KeptLetter, LetterCounts, LetterQuery};
    use lockgate_model::Seq;

    use super::*;

    type Answer<T> = Result<T, LedgerError>;

    /// Refuses the first call and is closed at the third.
    #[derive(Default)]
    struct FailingLedger(Arc<AtomicU32>);

    impl DeadLetters for FailingLedger {
        async fn expire_letters(&self, _: &str, _: Millis, _: Millis) -> Answer<u64> {
            match self.0.fetch_add(1, Ordering::Relaxed) {
                0 => Err(LedgerError::Read("busy".to_owned())),
                1 => Ok(0),
                _ => Err(LedgerError::Closed {
                    cause: "the end".to_owned(),
                    full: false,
                }),
            }
        }

        async fn dead_letters(&self, _: &LetterQuery) -> Answer<Vec<KeptLetter>> {
            unreachable!()
        }

        async fn dead_letter(&self, _: &str, _: &str, _: Seq) -> Answer<Option<KeptLetter>> {
            unreachable!()
        }

        async fn retry(&self, _: &str, _: &str, _: &[Seq], _: Millis) -> Answer<()> {
            unreachable!()
        }

        async fn drop_letters(&self, _: &str, _: &str, _: &[Seq], _: Millis) -> Answer<()> {
            unreachable!()
        }

        async fn letter_counts(&self, _: &str) -> Answer<LetterCounts> {
            unreachable!()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn expiry_goes_on_after_a_failure_that_leaves_the_ledger_open() {
        let ledger = FailingLedger::default();
        let calls = ledger.0.clone();
        let ages = vec![("siem".to_owned(), Duration::from_secs(3600))];
        expire(ledger, ages).await;
        assert_eq!(calls.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn a_pipeline_that_never_ran_has_nothing_to_expire() {
        let ledger = MemoryLedger::default();
        let expired = expire_pipeline(&ledger, "siem", Duration::from_secs(3600), 0).await;
        assert_eq!(expired, Ok(0));
    }

    #[tokio::test(start_paused = true)]
    async fn expiry_ends_when_the_ledger_is_closed() {
        let ledger = MemoryLedger::default();
        ledger.crash();
        let ages = vec![("siem".to_owned(), Duration::from_secs(3600))];
        let ended = tokio::time::timeout(Duration::from_secs(600), expire(ledger, ages)).await;
        assert!(ended.is_ok(), "it goes on");
    }
}
