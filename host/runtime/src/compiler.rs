//! Compiling in a child process. A component can make it very slow and use very much memory, so the
//! child has limits on both, and can be ended at any time.

mod child;

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};

use crate::address_space;
use crate::compiled;
use crate::component::LoadError;
use crate::engine::Engine;
pub use child::{ChildError, compile_in_child};

/// Limits for compiling one component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompileLimits {
    /// Bytes of memory.
    pub memory: u64,
    /// CPU time, in whole seconds.
    pub time: Duration,
}

impl Default for CompileLimits {
    fn default() -> CompileLimits {
        CompileLimits {
            memory: 2 << 30,
            time: Duration::from_secs(180),
        }
    }
}

/// How an engine compiles.
#[derive(Clone, Debug, Default)]
pub enum Compiler {
    /// In the calling thread, without limits, for trusted components such as those of tests.
    #[default]
    InProcess,
    Child(ChildCompiler),
}

/// Starts a process for each component. It runs [`compile_in_child`], and is killed when its result
/// is no longer needed.
#[derive(Clone, Debug)]
pub struct ChildCompiler {
    /// The `lockgate` binary. It is called with `compile --memory BYTES --time SECONDS`, and
    /// `--fuel` if the engine counts fuel. See [`compile_in_child`] for its input and output.
    pub program: PathBuf,
    pub limits: CompileLimits,
}

/// Bytes of the child's standard error that are read.
const STDERR_MAX: u64 = 4096;

impl Compiler {
    /// Returns serialized code.
    pub(crate) async fn compile(
        &self,
        engine: &Engine,
        bytes: &[u8],
    ) -> Result<Vec<u8>, LoadError> {
        match self {
            Compiler::InProcess => engine
                .inner
                .precompile_component(bytes)
                .map_err(|e| LoadError::Compile(compiled::text(&e))),
            Compiler::Child(child) => child.compile(engine.fuel, bytes).await,
        }
    }
}

impl ChildCompiler {
    async fn compile(&self, fuel: bool, bytes: &[u8]) -> Result<Vec<u8>, LoadError> {
        let space = address_space::limit();
        let failed = |error: io::Error| match (error.raw_os_error(), space) {
            (Some(code), Some(limit)) if code == Errno::NOMEM.raw_os_error() => {
                LoadError::CompileSpace { limit }
            }
            _ => LoadError::Compiler(error.to_string()),
        };
        let mut child = self.start(fuel).map_err(failed)?;
        let (Some(input), Some(output), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(LoadError::Compiler("it has no pipes".into()));
        };
        let (mut code, mut text) = (Vec::new(), Vec::new());
        // The child's memory limit also limits its output.
        let mut output = output.take(self.limits.memory);
        let mut stderr = stderr.take(STDERR_MAX);
        let (input, read, _) = tokio::join!(
            send(input, bytes),
            output.read_to_end(&mut code),
            stderr.read_to_end(&mut text),
        );
        let status = child.wait().await.map_err(failed)?;
        drop(input);
        if status.success() {
            return read.map_err(failed).map(|_| code);
        }
        Err(self.explain(status, &String::from_utf8_lossy(&text), space))
    }

    fn start(&self, fuel: bool) -> io::Result<Child> {
        let mut command = Command::new(&self.program);
        command
            .arg("compile")
            .args(["--memory", &self.limits.memory.to_string()])
            .args(["--time", &seconds(self.limits.time).to_string()])
            .args(fuel.then_some("--fuel"))
            // Keep the host's secrets away from foreign bytes.
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Only the host gets a terminal's Ctrl-C, and then ends its children.
            .process_group(0)
            .kill_on_drop(true);
        command.spawn()
    }

    /// `space`: the limit on the address space of this process and the child.
    fn explain(&self, status: ExitStatus, stderr: &str, space: Option<u64>) -> LoadError {
        let CompileLimits { memory, time } = self.limits;
        let is = |signal: Signal| status.signal() == Some(signal.as_raw());
        if is(Signal::XCPU) {
            return LoadError::CompileTime { limit: time };
        }
        // The messages of Rust's allocator and of a failed `mmap` in wasmtime.
        let lacks_memory =
            stderr.contains("memory allocation of") || stderr.contains("Cannot allocate memory");
        // It may have too little even to start, for its stack, or for a thread.
        let has_crashed = is(Signal::SEGV)
            || is(Signal::ABORT)
            || is(Signal::BUS)
            || stderr.contains("failed to spawn thread")
            || stderr.contains("error while loading shared libraries");
        if let Some(limit) = space.filter(|&limit| limit < memory)
            && (lacks_memory || has_crashed)
        {
            return LoadError::CompileSpace { limit };
        }
        if lacks_memory {
            return LoadError::CompileMemory { limit: memory };
        }
        match status.code() {
            Some(ChildError::REFUSED) => LoadError::Compile(crate::log::line(stderr.trim())),
            _ => LoadError::Compiler(crate::log::line(&format!("{status}: {}", stderr.trim()))),
        }
    }
}

/// Writes the component to the child and returns the pipe. The child ends when the pipe is closed.
async fn send(mut input: ChildStdin, bytes: &[u8]) -> ChildStdin {
    let length = (bytes.len() as u64).to_le_bytes();
    // A child that does not read has ended. Its status shows why.
    if input.write_all(&length).await.is_ok() {
        let _ = input.write_all(bytes).await;
        let _ = input.flush().await;
    }
    input
}

fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_on_the_address_space_is_not_taken_for_the_components_fault() {
        let child = ChildCompiler {
            program: PathBuf::new(),
            limits: CompileLimits::default(),
        };
        let aborted = ExitStatus::from_raw(Signal::ABORT.as_raw());
        let crashed = ExitStatus::from_raw(Signal::SEGV.as_raw());
        let no_thread = ExitStatus::from_raw(101 << 8);
        let allocation = "memory allocation of 4096 bytes failed";
        for (status, stderr) in [
            (aborted, allocation),
            (crashed, ""),
            (
                no_thread,
                "it panicked: failed to spawn thread: Os { code: 11 }",
            ),
        ] {
            let error = child.explain(status, stderr, Some(70 << 20)).to_string();
            for part in ["limited to 70 MiB", "LimitAS=", "ulimit -v"] {
                assert!(error.contains(part), "{error}");
            }
        }
        // More than the limit on the memory of the child: it is not to blame.
        for space in [None, Some(60 << 30)] {
            let error = child.explain(aborted, allocation, space);
            assert!(matches!(error, LoadError::CompileMemory { .. }), "{error}");
        }
    }
}
