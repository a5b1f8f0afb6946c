//! What the macros' code calls. No part of the interface.

use std::cell::OnceCell;

use crate::{ConfigIssue, Failure, Plugin, config};

/// The `configure` of every component.
pub fn configure<P: Plugin>(slot: &OnceCell<P>, with: &str) -> Result<P::Setup, Vec<ConfigIssue>> {
    report_panics();
    let (plugin, setup) = P::configure(config::parse(with)?)?;
    match slot.set(plugin) {
        Ok(()) => Ok(setup),
        Err(_) => Err(vec![ConfigIssue::new("", "`configure` was called twice.")]),
    }
}

pub fn configured<P>(slot: &OnceCell<P>) -> Result<&P, Failure> {
    slot.get()
        .ok_or_else(|| Failure::hold("`configure` was not called."))
}

/// A panic is a trap to the host, which sees no message of it unless the guest logs one.
fn report_panics() {
    #[cfg(target_family = "wasm")]
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("panicked");
        let place = panic
            .location()
            .map(|place| place.to_string())
            .unwrap_or_default();
        crate::log::error(message, &[("panic", &place)]);
    }));
}
