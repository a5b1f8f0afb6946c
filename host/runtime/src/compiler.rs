//! Compiling, which a component can make take very long and very much memory: in a child process,
//! with limits on both, so that it hurts nobody else and can be ended at any time.

mod child;

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};

use crate::compiled;
use crate::component::LoadError;
use crate::engine::Engine;
pub use child::{ChildError, compile_in_child};

/// What compiling one component may use.
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
    /// In the calling thread, without limits. For components that are trusted, such as a test's.
    #[default]
    InProcess,
    Child(ChildCompiler),
}

/// A process for each component, which runs [`compile_in_child`] and is killed when nobody waits
/// for it any more.
#[derive(Clone, Debug)]
pub struct ChildCompiler {
    /// The `lockgate` binary. It is called with `compile --memory BYTES --time SECONDS`, and
    /// `--fuel` where the engine counts; see [`compile_in_child`] for its input and output.
    pub program: PathBuf,
    pub limits: CompileLimits,
}

/// Bytes of what the child says that are read.
const SAID_MAX: u64 = 4096;

impl Compiler {
    /// Serialized code.
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
        let failed = |error: io::Error| LoadError::Compiler(error.to_string());
        let mut child = self.start(fuel).map_err(failed)?;
        let (Some(input), Some(output), Some(said)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(LoadError::Compiler("it has no pipes".into()));
        };
        let (mut code, mut text) = (Vec::new(), Vec::new());
        // More than the limit could not have been in the child's memory.
        let mut output = output.take(self.limits.memory);
        let mut said = said.take(SAID_MAX);
        let (input, read, _) = tokio::join!(
            pass(input, bytes),
            output.read_to_end(&mut code),
            said.read_to_end(&mut text),
        );
        let status = child.wait().await.map_err(failed)?;
        drop(input);
        if status.success() {
            return read.map_err(failed).map(|_| code);
        }
        Err(self.explain(status, &String::from_utf8_lossy(&text)))
    }

    fn start(&self, fuel: bool) -> io::Result<Child> {
        let mut command = Command::new(&self.program);
        command
            .arg("compile")
            .args(["--memory", &self.limits.memory.to_string()])
            .args(["--time", &seconds(self.limits.time).to_string()])
            .args(fuel.then_some("--fuel"))
            // No secret of the host is anywhere near foreign bytes.
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A terminal's Ctrl-C is for the host alone, which then decides.
            .process_group(0)
            .kill_on_drop(true);
        command.spawn()
    }

    fn explain(&self, status: ExitStatus, said: &str) -> LoadError {
        let CompileLimits { memory, time } = self.limits;
        let is = |signal: Signal| status.signal() == Some(signal.as_raw());
        if is(Signal::XCPU) {
            return LoadError::CompileTime { limit: time };
        }
        // So Rust's allocator ends a process, and so does a failed `mmap` of wasmtime's.
        if said.contains("memory allocation of") || said.contains("Cannot allocate memory") {
            return LoadError::CompileMemory { limit: memory };
        }
        match status.code() {
            Some(ChildError::REFUSED) => LoadError::Compile(crate::log::line(said.trim())),
            _ => LoadError::Compiler(crate::log::line(&format!("{status}: {}", said.trim()))),
        }
    }
}

/// Passes the component in, and gives the pipe back: the child ends when it is closed.
async fn pass(mut input: ChildStdin, bytes: &[u8]) -> ChildStdin {
    let length = (bytes.len() as u64).to_le_bytes();
    // A child that does not read has ended, and its status says why.
    if input.write_all(&length).await.is_ok() {
        let _ = input.write_all(bytes).await;
        let _ = input.flush().await;
    }
    input
}

fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
