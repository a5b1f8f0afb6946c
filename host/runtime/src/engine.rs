//! The engine that exists once in a process: compiler settings, scheduler, memory.

use std::fmt;
use std::sync::Arc;
use std::thread;

use lockgate_model::contract::{Holder, Shortage};
use thiserror::Error;
use wasmtime::{Config, InstanceAllocationStrategy};

use crate::address_space::{self, ADVICE, OF_INSTANCE};
use crate::budget::{InstanceMemory, Room};
use crate::compiled::KeptCode;
use crate::compiler::Compiler;
use crate::limits::MEMORY_TOTAL;
use crate::scheduler::Scheduler;
use crate::slots;
use crate::ticker::Ticker;

/// Settings of an [`Engine`].
#[derive(Clone)]
pub struct EngineOptions {
    /// Calls of components that run at the same time. By default one per CPU, and at least two.
    pub threads: usize,
    /// Where compiled code is kept between starts. `None`: every component is compiled at every
    /// start.
    pub kept_code: Option<KeptCode>,
    pub compiler: Compiler,
    /// Counts instructions, see [`Stage::fuel_used`](crate::Stage::fuel_used). The count is the
    /// same on every machine and in every run. Slows components down by a fifth or more.
    pub fuel: bool,
    /// Bytes of memory over all instances, 512 MiB by default.
    pub memory_total: usize,
}

impl Default for EngineOptions {
    fn default() -> EngineOptions {
        let threads = thread::available_parallelism().map_or(2, |count| count.get().max(2));
        EngineOptions {
            threads,
            kept_code: None,
            compiler: Compiler::default(),
            fuel: false,
            memory_total: MEMORY_TOTAL,
        }
    }
}

/// The resources that all components of a host share. Clones are the same engine.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: wasmtime::Engine,
    pub(crate) kept_code: Option<KeptCode>,
    pub(crate) compiler: Compiler,
    /// Held while a component compiles.
    pub(crate) compiling: Arc<tokio::sync::Mutex<()>>,
    pub(crate) budget: Arc<InstanceMemory>,
    pub(crate) ticker: Ticker,
    pub(crate) fuel: bool,
    scheduler: Scheduler,
}

/// Why an engine could not be created.
#[derive(Debug, Error)]
pub enum EngineError {
    /// This processor or this build of wasmtime does not support the settings.
    #[error("the component engine cannot be created: {0}")]
    Engine(wasmtime::Error),
    /// Not one instance fits into the address space of this process.
    #[error(
        "the address space of this process is limited to {} MiB, and an instance of a component \
         takes {} MiB of it; {ADVICE}", .limit >> 20, OF_INSTANCE >> 20
    )]
    AddressSpace { limit: u64 },
    /// The operating system does not allow more threads.
    #[error("the threads that run components cannot be started: {0}")]
    Threads(#[from] std::io::Error),
}

impl Engine {
    /// Starts the scheduler, and the ticker, whose thread ends once the engine is dropped.
    pub fn new(options: EngineOptions) -> Result<Engine, EngineError> {
        let mut config = code_settings(options.fuel);
        config.allocation_strategy(slots::pooling(options.threads));
        if let (Some(0), Some(limit)) = (address_space::instances(), address_space::limit()) {
            return Err(EngineError::AddressSpace { limit });
        }
        let inner = wasmtime::Engine::new(&config).or_else(|error| {
            let remark = address_space::remark(address_space::limit());
            let room = match address_space::instances() {
                Some(count) => format!(", and no more than {count} fit at the same time"),
                None => String::new(),
            };
            tracing::warn!("address space for instances cannot be reserved; batches will be a little slower{room}: {error:#}{remark}");
            config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
            wasmtime::Engine::new(&config).map_err(EngineError::Engine)
        })?;
        let ticker = Ticker::start(&inner)?;
        Ok(Engine {
            inner,
            kept_code: options.kept_code,
            compiler: options.compiler,
            compiling: Arc::default(),
            budget: InstanceMemory::new(options.memory_total),
            ticker,
            fuel: options.fuel,
            scheduler: Scheduler::new(options.threads)?,
        })
    }

    /// The threads that run components.
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// Whether half of the possible instances exist. Then no instance is kept for reuse.
    pub(crate) fn is_crowded(&self) -> bool {
        let half = u64::from(slots::instances(self.scheduler.threads())) / 2;
        self.inner
            .pooling_allocator_metrics()
            .is_some_and(|metrics| metrics.component_instances() > half)
    }

    /// Waits until there is memory for what a call could not have, so that it can be made again.
    /// Drop the [`Room`] after that. A call that needs little may find that others were faster.
    pub async fn room_for(&self, shortage: Shortage) -> Room {
        self.budget.room_for(shortage).await
    }

    /// The stages that have memory in use, those with the most first. Idle instances do not count.
    pub fn memory_holders(&self) -> Vec<Holder> {
        self.budget.holders()
    }

    /// Current memory use of all instances, in bytes.
    pub fn memory_used(&self) -> usize {
        self.budget.used()
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("scheduler", &self.scheduler)
            .field("budget", &self.budget)
            .field("fuel", &self.fuel)
            .finish_non_exhaustive()
    }
}

/// The settings that machine code depends on. They must be the same here and in a compiling
/// process.
pub(crate) fn code_settings(fuel: bool) -> Config {
    let mut config = Config::new();
    config.wasm_component_model(true);
    config.epoch_interruption(true);
    config.consume_fuel(fuel);
    // The same batch must give the same requests on every processor.
    config.cranelift_nan_canonicalization(true);
    config.wasm_relaxed_simd(false);
    config
}
