//! A damaged block of the store holds the pipelines that need it, and nobody else.

use std::sync::Arc;

use lockgate_ledger::LedgerError;
use lockgate_model::Millis;

use crate::clock::now;
use crate::limits::DAMAGE_INTERVAL;
use crate::status::{Board, ConditionStatus, ConditionStatusKind};

/// The condition of a pipeline that waits for events which cannot be read. It ends with this value.
pub(crate) struct Damage {
    board: Board,
    pipeline: Arc<str>,
    /// The events that cannot be read: those of a stream, or its dead letters.
    subject: String,
    /// The way out.
    advice: &'static str,
    since: Millis,
    /// The damage that is logged already.
    logged: Option<String>,
}

/// Repeats a read until what it needs is not damaged, and shows the damage meanwhile.
pub(crate) async fn until_readable<T, R: Future<Output = Result<T, LedgerError>>>(
    damage: impl FnOnce() -> Damage,
    mut read: impl FnMut() -> R,
) -> Result<T, LedgerError> {
    let what = match read().await {
        Err(LedgerError::Damaged(what)) => what,
        result => return result,
    };
    let mut damage = damage();
    damage.found(&what);
    loop {
        tokio::time::sleep(DAMAGE_INTERVAL).await;
        match read().await {
            Err(LedgerError::Damaged(what)) => damage.found(&what),
            result => return result,
        }
    }
}

impl Damage {
    /// Blocks of the stream cannot be read.
    pub(crate) fn of_blocks(board: Board, pipeline: Arc<str>, stream: &str) -> Damage {
        let advice = "This pipeline holds there, and delivers nothing that is newer in this \
                      stream. Stop the host, then run `lockgate store repair`, which reads the \
                      events from Teleport again, or restore a backup; `lockgate store verify` \
                      shows what else is damaged";
        Damage::new(board, pipeline, stream.to_owned(), advice)
    }

    /// Dead letters that wait again cannot be read.
    pub(crate) fn of_letters(board: Board, pipeline: Arc<str>, stream: &str) -> Damage {
        let advice = "No dead letter of this stream is sent again; new events are delivered. Stop \
                      the host, then restore a backup; `lockgate store verify` shows what else is \
                      damaged";
        let subject = format!("{stream}, dead letters");
        Damage::new(board, pipeline, subject, advice)
    }

    fn new(board: Board, pipeline: Arc<str>, subject: String, advice: &'static str) -> Damage {
        Damage {
            board,
            pipeline,
            subject,
            advice,
            since: now(),
            logged: None,
        }
    }

    /// `what` is wrong, and where.
    pub(crate) fn found(&mut self, what: &str) {
        let message = format!("the store is damaged: {what}. {}", self.advice);
        if self.logged.as_ref() != Some(&message) {
            tracing::error!(pipeline = %self.pipeline, "{message}");
            self.logged = Some(message.clone());
        }
        let status = ConditionStatus {
            kind: ConditionStatusKind::Store,
            subject: self.subject.clone(),
            message,
            since: self.since,
            next_attempt: Some(now() + DAMAGE_INTERVAL.as_millis() as Millis),
            asked_by: None,
            not_ready_from: Some(self.since),
            stops: false,
        };
        self.clear();
        self.board
            .pipeline(&self.pipeline, |pipeline| pipeline.conditions.push(status));
    }

    fn clear(&self) {
        self.board.pipeline(&self.pipeline, |pipeline| {
            pipeline.conditions.retain(|condition| {
                condition.kind != ConditionStatusKind::Store || condition.subject != self.subject
            });
        });
    }
}

impl Drop for Damage {
    fn drop(&mut self) {
        self.clear();
    }
}
