//! `lockgate reload`, which asks the running host to read its configuration file again.

use std::io;

use lockgate_admin::control::{self, ControlError, Request, Response};

use crate::args::Reload;
use crate::failure::{Failure, FailureKind};
use crate::print;

/// Waits until the file is in force, and prints what changed. Fails with the file's problems if
/// the host goes on with the configuration it has.
pub(crate) fn run(command: &Reload) -> Result<(), Failure> {
    let directory = command.place.directory().map_err(|mut failure| {
        failure.kind = FailureKind::Failed;
        failure.hint(
            "the host was not asked, because this file does not say where its store is; the host \
             keeps its configuration",
        )
    })?;
    match control::call(&directory, &Request::Reload) {
        Ok(Some(Response::Done { message })) => print::data(&format!("{message}\n")),
        Ok(Some(Response::Problems { report })) => {
            let mut failure = Failure::report(report);
            failure.kind = FailureKind::Failed;
            Err(failure.hint("the host goes on with the configuration it has"))
        }
        Ok(Some(Response::Refused { message })) => Err(Failure::failed(message)),
        Ok(Some(Response::Status { .. })) => {
            Err(Failure::failed("The host answered another request."))
        }
        Ok(None) => Err(command.place.no_host(&directory)),
        Err(error) => {
            let hint = match &error {
                ControlError::Connect { source, .. }
                    if source.kind() == io::ErrorKind::PermissionDenied =>
                {
                    "run this command as the user that the host runs as"
                }
                ControlError::Connect { .. } => "send SIGHUP to the host instead",
                ControlError::Lost { .. } | ControlError::Answer { .. } => {
                    "`lockgate status` shows whether the file was loaded"
                }
            };
            Err(Failure::failed(format!("{error}.")).hint(hint))
        }
    }
}
