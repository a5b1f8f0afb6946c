//! The other end: what the child process does.

use std::io::{self, Read, Write};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, nice, setrlimit};
use thiserror::Error;

use super::{CompileLimits, seconds};
use crate::compiled;
use crate::engine::code_settings;
use crate::limits::{COMPILE_NICE, COMPONENT_MAX};

/// Why a child ends without code.
#[derive(Debug, Error)]
pub enum ChildError {
    /// The component is at fault. The process exits with [`ChildError::REFUSED`].
    #[error("{0}")]
    Refused(String),
    /// The pipes or the limits are.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ChildError {
    /// Exit status of a child that read a component which does not compile.
    pub const REFUSED: i32 = 2;
}

/// Puts the calling process under the limits, compiles one component, and writes its code to
/// `output`. `input`: the component's length as 8 bytes, little-endian, and the component. It
/// stays open after that: when it is closed, nobody waits any more, and the process ends.
///
/// Compiles on one thread: each more holds another function's memory, and the machine is for the
/// pipelines that run.
pub fn compile_in_child(
    limits: CompileLimits,
    fuel: bool,
    mut input: impl Read + Send + 'static,
    mut output: impl Write,
) -> Result<(), ChildError> {
    restrict(limits)?;
    let bytes = read(&mut input)?;
    std::thread::spawn(move || {
        let _ = io::copy(&mut input, &mut io::sink());
        std::process::exit(1);
    });
    let refused = |error: wasmtime::Error| ChildError::Refused(compiled::text(&error));
    let mut settings = code_settings(fuel);
    settings.parallel_compilation(false);
    let engine = wasmtime::Engine::new(&settings).map_err(refused)?;
    let code = engine.precompile_component(&bytes).map_err(refused)?;
    output.write_all(&code)?;
    Ok(output.flush()?)
}

fn read(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 8];
    input.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    let mut bytes = Vec::new();
    let read = input
        .take(length.min(COMPONENT_MAX))
        .read_to_end(&mut bytes)?;
    if read as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

fn restrict(limits: CompileLimits) -> io::Result<()> {
    let CompileLimits { memory, time } = limits;
    // Address space (`RLIMIT_AS`) would count what is set aside and never used.
    set(Resource::Data, memory, memory)?;
    let time = seconds(time.max(Duration::from_secs(1)));
    // The signal of the lower limit ends the process; it is what tells the host why.
    set(Resource::Cpu, time, time + 1)?;
    set(Resource::Core, 0, 0)?;
    nice(COMPILE_NICE)?;
    Ok(())
}

/// Where the process is under a stricter limit already, that one stays.
fn set(resource: Resource, current: u64, maximum: u64) -> io::Result<()> {
    let most = rustix::process::getrlimit(resource).maximum;
    let within = |limit: u64| Some(most.map_or(limit, |most| limit.min(most)));
    let limit = Rlimit {
        current: within(current),
        maximum: within(maximum),
    };
    Ok(setrlimit(resource, limit)?)
}
