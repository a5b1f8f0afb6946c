//! A compiled component, and the checks that it passes when it is loaded.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lockgate_model::contract::CallError;
use thiserror::Error;

use crate::address_space::ADVICE;
use crate::compiled::{Code, text};
use crate::contract::draft::{Pre, linker};
use crate::engine::Engine;
use crate::host::{InstanceHost, StageIdentity};
use crate::instance::Instance;
use crate::interface::{self, CONTRACT_VERSION, Kind};
use crate::limits::Limits;

/// A compiled plugin, ready to be configured. Clones share the code.
#[derive(Clone)]
pub struct Component {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    digest: String,
    kind: Kind,
    looks_up: bool,
    keeps_state: bool,
    pre: Pre,
}

/// Why bytes are not a component that this host can run.
#[derive(Debug, Error)]
pub enum LoadError {
    /// Not WebAssembly.
    #[error("it is not a WebAssembly component: it does not begin with `\\0asm`")]
    NotWasm,
    /// A core module.
    #[error(
        "it is a core module, not a component; build it with `wasm-component-ld` as the linker, \
         or make a component of it with `wasm-tools component new`"
    )]
    CoreModule,
    /// Damaged, or uses features that are disabled.
    #[error("it does not compile: {0}")]
    Compile(String),
    /// Too large or too complex for the operator's limit.
    #[error(
        "compiling took more than {} s of CPU time; raise `compile` in `[limits]`, or make the component smaller", .limit.as_secs()
    )]
    CompileTime { limit: Duration },
    /// Too large or too complex for the operator's limit.
    #[error(
        "compiling took more than {} MiB of memory; raise `compile` in `[limits]`, or make the component smaller", .limit >> 20
    )]
    CompileMemory { limit: u64 },
    /// The limit on the address space of the host, which the compiling process inherits, is too
    /// low. Not the component's fault.
    #[error(
        "it cannot be compiled, because the address space of this process is limited to {} MiB; {ADVICE}", .limit >> 20
    )]
    CompileSpace { limit: u64 },
    /// Not the component's fault.
    #[error("the compiling process failed: {0}")]
    Compiler(String),
    /// Built for another version of the contract.
    #[error(
        "it was built for version {theirs} of `lockgate:plugin`, this host supports {CONTRACT_VERSION}; build it against the host's \
         `wit/plugin.wit`"
    )]
    Version { theirs: String },
    /// Not a Lockgate plugin.
    #[error(
        "it exports none of the worlds `filter`, `mapper` and `http-sink` of `lockgate:plugin`; its exports: {exports}"
    )]
    NoWorld { exports: String },
    /// More than one world.
    #[error(
        "it exports several worlds of `lockgate:plugin` ({kinds}); a component may implement only one"
    )]
    SeveralWorlds { kinds: String },
    /// Imports an unknown interface.
    #[error("it imports interfaces that the world `{kind}` does not have: {imports}")]
    Imports { kind: Kind, imports: String },
    /// Imports WASI.
    #[error(
        "it imports {imports}, but components have no access to WASI; build it without: for Rust with the target `wasm32-unknown-unknown`, for \
         JavaScript and Python with the option `--stub-wasi`"
    )]
    Wasi { imports: String },
    /// Its functions or records differ from the contract, because it was built against another file
    /// of the same version.
    #[error(
        "it does not match `lockgate:plugin` {CONTRACT_VERSION}; build it against the host's `wit/plugin.wit`: {0}"
    )]
    Mismatch(String),
    /// The host has no room for another instance now: [`CallError::NoRoom`] or [`CallError::Host`].
    /// Or it takes long to start, and is to be loaded again: [`CallError::Postponed`]. Not the
    /// component's fault.
    #[error("{0}")]
    NoRoom(CallError),
    /// An instance needs more than its limit from the start.
    #[error("it cannot be started: it wanted more than {limit} bytes of memory")]
    Memory { limit: usize },
    /// It failed before its first function was called.
    #[error("it cannot be started: {0}")]
    Start(String),
}

impl Component {
    /// Links a component and starts an instance once, because some mismatches with the contract
    /// show only then. This runs the component's code, within `limits`, so it should be a job of a
    /// [`Queue`](crate::Queue). `name` is for messages.
    ///
    /// `identity` should be that of the stage that the component is configured for next. What it is
    /// promised when it finds too little memory is then one promise. Otherwise there would be two,
    /// each of which could keep the other from being used.
    pub fn new(
        engine: &Engine,
        name: &str,
        code: Code,
        limits: &Limits,
        identity: StageIdentity,
    ) -> Result<Component, LoadError> {
        let Code {
            inner: compiled,
            digest,
        } = code;
        let ty = compiled.component_type();
        let imports: Vec<String> = ty
            .imports(&engine.inner)
            .map(|(name, _)| name.to_owned())
            .collect();
        let exports: Vec<String> = ty
            .exports(&engine.inner)
            .map(|(name, _)| name.to_owned())
            .collect();
        let found = interface::detect(&imports, &exports)?;

        if !found.wasi.is_empty() {
            return Err(LoadError::Wasi {
                imports: interface::list(&found.wasi),
            });
        }

        let linker =
            linker(&engine.inner, found.kind).map_err(|e| LoadError::Mismatch(text(&e)))?;
        let linked = linker
            .instantiate_pre(&compiled)
            .map_err(|e| LoadError::Mismatch(text(&e)))?;
        let pre = Pre::new(found.kind, linked).map_err(|e| LoadError::Mismatch(text(&e)))?;
        Instance::start(
            engine,
            &pre,
            InstanceHost::new(engine, identity, limits, Arc::default()),
        )
        .map(|mut instance| instance.host().end())
        .map_err(|error| match error {
            CallError::Contract(text) => LoadError::Mismatch(text),
            CallError::NoRoom(_) | CallError::Host(_) | CallError::Postponed => {
                LoadError::NoRoom(error)
            }
            CallError::Memory { limit } => LoadError::Memory { limit },
            error => LoadError::Start(error.to_string()),
        })?;
        Ok(Component {
            inner: Arc::new(Inner {
                name: name.to_owned(),
                digest,
                kind: found.kind,
                looks_up: found.looks_up,
                keeps_state: found.keeps_state,
                pre,
            }),
        })
    }

    /// Compiles in this thread, without limits, and loads: for trusted components such as those of
    /// tests. Hosts call [`Code::compile`] and [`Component::new`].
    pub fn load(
        engine: &Engine,
        name: &str,
        bytes: &[u8],
        limits: &Limits,
    ) -> Result<Component, LoadError> {
        let code = Code::compile_here(engine, bytes)?;
        let identity = StageIdentity {
            pipeline: "-".into(),
            stage: "load".into(),
            plugin: name.into(),
        };
        Component::new(engine, name, code, limits, identity)
    }

    pub fn name(&self) -> &str {
        &self.inner.name
    }

    pub fn kind(&self) -> Kind {
        self.inner.kind
    }

    /// SHA-256 of the component, in hexadecimal.
    pub fn digest(&self) -> &str {
        &self.inner.digest
    }

    /// Whether it looks up places, networks or user agents, so that its results depend on the
    /// operator's databases.
    pub fn looks_up(&self) -> bool {
        self.inner.looks_up
    }

    /// Whether it imports `state`. If the operator grants it, batches depend on each other.
    pub fn keeps_state(&self) -> bool {
        self.inner.keeps_state
    }

    pub(crate) fn pre(&self) -> &Pre {
        &self.inner.pre
    }
}

impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Component")
            .field("name", &self.name())
            .field("kind", &self.kind())
            .field("digest", &self.digest())
            .finish()
    }
}
