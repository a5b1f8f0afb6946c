//! `lockgate status`: figures from the store, and the state of the running host.

mod report;
mod table;
mod watch;

use std::collections::BTreeSet;
use std::path::PathBuf;

use lockgate_service::{readiness, running_host};

use crate::args::{Probe, Status};
use crate::failure::{Failure, FailureKind};
use crate::{print, setup};
use report::StatusView;
pub(super) use report::gap_rows;

pub(crate) fn run(command: &Status) -> Result<(), Failure> {
    let target = Target::of(command)?;
    if let Some(probe) = command.probe {
        return probed(probe, &target);
    }
    if command.watch {
        return watch::run(&target);
    }
    let now = setup::now();
    let report = StatusView::of(&target, now)?;
    if command.json {
        let text = serde_json::to_string(&report).map_err(Failure::failed)?;
        return print::data(&format!("{text}\n"));
    }
    print::data(&table::table(&report, now))
}

fn probed(probe: Probe, target: &Target) -> Result<(), Failure> {
    let now = setup::now();
    let Some(host) = running_host(&target.store, now).filter(|host| !host.is_silent) else {
        let message = format!("No host answers on the store `{}`.", target.store.display());
        return Err(Failure::failed(message));
    };
    if probe == Probe::Live {
        return print::data("live\n");
    }
    let readiness = readiness(&host.status, now);
    if readiness.ready {
        return print::data("ready\n");
    }
    let reasons = readiness.reasons.iter().map(|reason| {
        let subject = reason.pipeline.as_ref().or(reason.source.as_ref());
        let subject = subject.unwrap_or(&reason.subject);
        format!("`{subject}` is not ready: {}", reason.message)
    });
    Err(Failure::several(
        FailureKind::Failed,
        &reasons.collect::<Vec<_>>(),
    ))
}

/// Where a status is read.
struct Target {
    store: PathBuf,
    /// The configuration file has these pipelines. `None` if there is no file, or it cannot be
    /// read: `start` says why.
    configured: Option<BTreeSet<String>>,
}

impl Target {
    fn of(command: &Status) -> Result<Target, Failure> {
        Ok(match &command.place.store {
            Some(directory) => Target {
                store: directory.clone(),
                configured: None,
            },
            None => Target {
                store: setup::store_path(&command.place.config)?,
                configured: setup::pipeline_names(&command.place.config).unwrap_or_default(),
            },
        })
    }
}
