//! The rules of a ledger as tests. Whatever implements the traits of this crate runs all of them:
//! `lockgate_ledger::conformance!(MySubject);` in a test file makes one test of each.

mod commits;
mod letters;
mod retention;
mod streams;
mod support;

pub use commits::*;
pub use letters::*;
pub use retention::*;
pub use streams::*;

use lockgate_model::Books;

use crate::{CodeDigests, DeadLetters, Ledger};

/// A ledger under test and the place where it keeps things.
pub trait Subject {
    type Ledger: Ledger + DeadLetters + CodeDigests;

    /// An empty place. `retention`: bytes of each stream, whatever the ledger counts as such.
    fn new(retention: Option<u64>) -> Self;

    /// Opens what is there, or makes a new ledger.
    fn open(&mut self) -> Self::Ledger;

    /// Ends a ledger as abruptly as it can; the next [`open`](Self::open) finds what was durable.
    fn end(&mut self, ledger: Self::Ledger) -> impl Future<Output = ()>;

    /// The four figures of a pipeline's stream, counted again. It may check more of what is kept.
    fn books(&self, ledger: &Self::Ledger, pipeline: &str, stream: &str) -> Books;
}

/// One `#[tokio::test]` for each rule, over a [`Subject`].
#[macro_export]
macro_rules! conformance {
    ($subject:ty) => {
        $crate::conformance!(
            $subject;
            appends_number_their_events_and_move_cursors,
            cursors_move_without_events,
            a_closed_ledger_accepts_nothing,
            code_digests_are_kept_and_replaced,
            an_entry_gets_its_outcome_once,
            a_refused_commit_changes_nothing,
            progress_state_and_brake_survive,
            state_belongs_to_a_plugin_and_can_be_removed,
            state_stays_when_the_configuration_changes,
            the_brake_is_that_of_the_latest_commit,
            equal_descriptions_are_one_generation,
            a_pipeline_registers_on_named_streams,
            dead_letters_are_listed_newest_first_and_filtered,
            a_retried_letter_waits_until_its_redrive_is_committed,
            a_redrive_takes_some_entries_at_a_time,
            every_retry_is_announced_and_nothing_else,
            a_dropped_letter_stays_on_the_books,
            only_dead_letters_are_taken_back_and_all_or_none,
            letters_of_a_stream_that_is_not_read_any_more_are_not_retried,
            bytes_of_dead_letters_are_counted,
            old_letters_expire_and_their_entries_stay_dead,
            retention_waits_for_configured_pipelines,
            what_retention_takes_from_an_old_pipeline_is_dropped,
            a_pipeline_that_never_ran_holds_every_event,
            a_pipeline_that_never_ran_holds_nothing_of_streams_that_it_does_not_read,
            a_stream_that_a_pipeline_is_about_to_read_is_held,
        );
    };
    ($subject:ty; $($rule:ident,)*) => {
        $(
            #[tokio::test]
            async fn $rule() {
                $crate::conformance::$rule::<$subject>().await
            }
        )*
    };
}
