//! Gaps that polling found before the log was exported. Only a search can close them, so a poller
//! tries them again beside the export.

use std::convert::Infallible;
use std::sync::Arc;

use super::sweep::Sweeps;
use super::{GAP, Poller};
use crate::source::Source;
use crate::{Closed, Intake, Resume};

/// Tries the gaps again whenever they are due, for as long as the export lasts.
pub(crate) async fn retry_beside<I: Intake>(source: Arc<Source<I>>) -> Result<Infallible, Closed> {
    let longest = source.settings.limits.gap_wait.1;
    if has_gaps(&source) {
        let mut poller = Poller::aside(&source);
        while has_gaps(&source) {
            poller.rest(longest).await?;
        }
    }
    // An export adds none.
    std::future::pending().await
}

/// Tries each gap once, at the end of an export.
pub(crate) async fn retry_once<I: Intake>(source: &Arc<Source<I>>) -> Result<(), Closed> {
    if !has_gaps(source) {
        return Ok(());
    }
    let mut poller = Poller::aside(source);
    poller.sweeps.try_once();
    poller.retry_each().await
}

fn has_gaps<I>(source: &Source<I>) -> bool {
    !source.gaps.beginning(GAP).is_empty()
}

impl<I: Intake> Poller<I> {
    fn aside(source: &Arc<Source<I>>) -> Poller<I> {
        Poller {
            sweeps: Sweeps::none(),
            is_aside: true,
            // It has no position: the export has.
            ..Poller::new(source.clone(), &Resume::default())
        }
    }
}
