//! One instance of a component, and the calls of it.

use std::fmt;

use lockgate_model::contract::CallError;
use wasmtime::{Store, UpdateDeadline};

use crate::contract::draft::{Exports, Pre};
use crate::engine::Engine;
use crate::host::{InstanceHost, refused};
use crate::setup::{ConfigIssue, Setup};
use crate::ticker::Ticker;

/// An instance of a component. After a call that did not return, it must be dropped.
pub(crate) struct Instance {
    store: Store<InstanceHost>,
    exports: Exports,
    ticker: Ticker,
    fuel: bool,
}

impl Instance {
    /// Starts an instance, under the limits of a call. It is not configured yet.
    pub(crate) fn start(
        engine: &Engine,
        pre: &Pre,
        host: InstanceHost,
    ) -> Result<Instance, CallError> {
        let output = host.limits().output(0);
        let mut store = Store::new(&engine.inner, host);
        store.limiter(|host| &mut host.meter);
        store.epoch_deadline_callback(|mut store| match store.data_mut().tick() {
            true => Ok(UpdateDeadline::Continue(1)),
            false => Ok(UpdateDeadline::Interrupt),
        });
        let _running = engine.ticker.run();
        begin(&mut store, engine.fuel, output)?;
        match pre.instantiate(&mut store) {
            Ok(exports) => Ok(Instance {
                store,
                exports,
                ticker: engine.ticker.clone(),
                fuel: engine.fuel,
            }),
            Err(error) => {
                let host = store.data_mut();
                let cause = host.explain(&error, output);
                host.end();
                let is_trap = error.downcast_ref::<wasmtime::Trap>().is_some();
                Err(match cause {
                    // Neither a trap nor a limit: the types do not fit.
                    CallError::Trap { message } if !is_trap => CallError::Contract(message),
                    cause => cause,
                })
            }
        }
    }

    pub(crate) fn configure(
        &mut self,
        config: &str,
        output: usize,
    ) -> Result<Result<Setup, Vec<ConfigIssue>>, CallError> {
        self.call(output, |exports, store| exports.configure(store, config))
    }

    /// One call, with full limits. `output`: bytes that it may return.
    pub(crate) fn call<R>(
        &mut self,
        output: usize,
        run: impl FnOnce(&Exports, &mut Store<InstanceHost>) -> wasmtime::Result<R>,
    ) -> Result<R, CallError> {
        let _running = self.ticker.run();
        begin(&mut self.store, self.fuel, output)?;
        match run(&self.exports, &mut self.store) {
            Ok(result) => self.store.data_mut().check().map(|()| result),
            Err(error) => Err(self.store.data_mut().explain(&error, output)),
        }
    }

    pub(crate) fn host(&mut self) -> &mut InstanceHost {
        self.store.data_mut()
    }

    /// Units of fuel that the last call used. 0 if fuel is not counted.
    pub(crate) fn fuel_used(&self) -> u64 {
        self.store.get_fuel().map_or(0, |left| u64::MAX - left)
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance")
            .field("host", self.store.data())
            .finish_non_exhaustive()
    }
}

fn begin(store: &mut Store<InstanceHost>, fuel: bool, output: usize) -> Result<(), CallError> {
    store.data_mut().begin().map_err(refused)?;
    store.set_epoch_deadline(1);
    store.set_hostcall_fuel(output);
    if fuel {
        // Fuel is counted, not limited. This fails only if fuel is off.
        let _ = store.set_fuel(u64::MAX);
    }
    Ok(())
}
