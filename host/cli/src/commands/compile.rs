//! `lockgate compile`, which only the host calls.

use std::time::Duration;

use lockgate_runtime::{ChildError, CompileLimits, compile_in_child};

use crate::args::Compile;
use crate::failure::Failure;

/// The process that a host starts to compile a component. The runtime documents its input, output
/// and exit status.
pub(crate) fn run(command: &Compile) -> Result<(), Failure> {
    let limits = CompileLimits {
        memory: command.memory,
        time: Duration::from_secs(command.time),
    };
    let (input, output) = (std::io::stdin(), std::io::stdout().lock());
    compile_in_child(limits, command.fuel, input, output).map_err(|error| match error {
        // Status 2, and a message that the host shows as its own.
        ChildError::Refused(message) => Failure::report(message),
        ChildError::Io(error) => Failure::failed(error),
    })
}
