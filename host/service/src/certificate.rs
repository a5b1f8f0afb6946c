//! Shows that the client certificate of a pipeline expires, before its receiver refuses it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lockgate_model::{Millis, Validity, utc};

use crate::clock::now;
use crate::status::{Board, ConditionStatus, ConditionStatusKind};
use crate::worker::Worker;

/// The clock of this machine may be set meanwhile.
const INTERVAL: Duration = Duration::from_secs(60);

/// Runs as long as the pipeline; a renewed certificate makes another pipeline of it.
pub(crate) async fn watch<L>(worker: Arc<Worker<L>>, board: Board) {
    let Some((file, validity)) = worker.client.client_certificate() else {
        return;
    };
    let pipeline = &*worker.pipeline;
    let mut logged = None;
    loop {
        if let Some(condition) = expiry(file, validity, now()) {
            if logged.as_ref() != Some(&condition.message) {
                tracing::warn!(pipeline, "{}", condition.message);
                logged = Some(condition.message.clone());
            }
            board.pipeline(pipeline, |status| {
                status
                    .conditions
                    .retain(|other| other.kind != ConditionStatusKind::Credentials);
                status.conditions.push(condition);
            });
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// It makes nothing unready: that its receiver refuses it does.
fn expiry(file: &Path, validity: Validity, now: Millis) -> Option<ConditionStatus> {
    let soon_from = validity.expires_soon_from();
    let until = validity.not_after;
    let (verb, since) = match until <= now {
        true => ("expired", until),
        false => ("expires", soon_from),
    };
    (soon_from <= now).then(|| ConditionStatus {
        kind: ConditionStatusKind::Credentials,
        subject: "tls.cert".to_owned(),
        message: format!(
            "the client certificate `{}` {verb} at {}; renew it, and have `lockgate reload` read \
             it",
            file.display(),
            utc(until)
        ),
        since,
        next_attempt: None,
        asked_by: None,
        not_ready_from: None,
        stops: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_shown_before_it_expires_and_afterwards() {
        const DAY: Millis = 86_400_000;
        let validity = Validity {
            not_before: 0,
            not_after: 365 * DAY,
        };
        for (day, text) in [
            (357, None),
            (359, Some("`client.crt` expires at 1971-01-01T00:00:00Z")),
            (366, Some("`client.crt` expired at 1971-01-01T00:00:00Z")),
        ] {
            let found = expiry(Path::new("client.crt"), validity, day * DAY);
            assert_eq!(found.is_some(), text.is_some(), "{day}");
            if let (Some(found), Some(text)) = (found, text) {
                assert!(found.message.contains(text), "{}", found.message);
                assert_eq!(found.since, if day == 366 { 365 * DAY } else { 358 * DAY });
            }
        }
    }
}
