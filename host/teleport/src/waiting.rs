//! Calls that Teleport does not answer for long: they are shown before they time out.

use lockgate_model::Millis;
use tokio::time::timeout;
use tonic::Status;

use crate::Intake;
use crate::connect::Failure;
use crate::source::Source;
use crate::status::{FailureKind, StatusReporter};

impl<I: Intake> Source<I> {
    /// Runs a call with the time-out of all calls. While it is not answered, that is shown at
    /// `place`. `what`: the missing answer, as in "Teleport has not answered the search".
    pub(crate) async fn timed_log<T>(
        &self,
        place: Option<&str>,
        what: impl FnOnce() -> String,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Failure> {
        self.timed(self.awaited(place, what, call)).await
    }

    /// Waits for an answer, or for the next message of a stream. After a while the wait is a
    /// failure at `place`, until the answer comes. If an error comes, or the wait is given up, the
    /// failure stays until the caller replaces it.
    pub(crate) async fn awaited<T>(
        &self,
        place: Option<&str>,
        what: impl FnOnce() -> String,
        answer: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let Some(place) = place else {
            return answer.await;
        };
        let limits = &self.settings.limits;
        tokio::pin!(answer);
        let doubt = limits.doubt.min(limits.slow);
        if let Ok(answer) = timeout(doubt, &mut answer).await {
            return answer;
        }
        let since = self.now() - doubt.as_millis() as Millis;
        let _unanswered = FailureKind::of(place)
            .stops_the_log()
            .then(|| Unanswered::new(&self.status, since));
        if let Ok(answer) = timeout(limits.slow - doubt, &mut answer).await {
            return answer;
        }
        let message = format!("Teleport has not {}", what());
        self.status.set_failure_since(place, message, since);
        let answer = answer.await;
        if answer.is_ok() {
            self.status.clear_failure(place);
        }
        answer
    }
}

/// The log waits for an answer, so it is not known how far it is behind.
struct Unanswered<'a>(&'a StatusReporter);

impl Unanswered<'_> {
    fn new(status: &StatusReporter, since: Millis) -> Unanswered<'_> {
        status.update(|status| status.unanswered_since = Some(since));
        Unanswered(status)
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.0.update(|status| status.unanswered_since = None);
    }
}
