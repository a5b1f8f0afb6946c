//! The child process.

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
    /// The component does not compile. The process exits with [`ChildError::REFUSED`].
    #[error("{0}")]
    Refused(String),
    /// The pipes or the limits failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ChildError {
    /// Exit status of a child whose component does not compile.
    pub const REFUSED: i32 = 2;
}

/// Applies the limits to the calling process, compiles one component, and writes its code to
/// `output`. `input`: the component's length as 8 bytes, little-endian, then the component. It
/// stays open; when it is closed, the result is no longer needed and the process ends.
///
/// Compiles on one thread: each further thread would need more memory, and take CPU time from the
/// running pipelines.
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
    // Address space (`RLIMIT_AS`) would include memory that is reserved but never used.
    set(Resource::Data, memory, memory)?;
    let time = seconds(time.max(Duration::from_secs(1)));
    // The signal of the soft limit ends the process and shows the host the cause.
    set(Resource::Cpu, time, time + 1)?;
    set(Resource::Core, 0, 0)?;
    nice(COMPILE_NICE)?;
    Ok(())
}

/// Sets a limit, unless the process already has a stricter one.
fn set(resource: Resource, current: u64, maximum: u64) -> io::Result<()> {
    let most = rustix::process::getrlimit(resource).maximum;
    let within = |limit: u64| Some(most.map_or(limit, |most| limit.min(most)));
    let limit = Rlimit {
        current: within(current),
        maximum: within(maximum),
    };
    Ok(setrlimit(resource, limit)?)
}
