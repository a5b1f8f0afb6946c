//! Functions that the macros call. Not part of the public interface.

use std::cell::OnceCell;

use crate::{ConfigIssue, Failure, Plugin, config};

/// Implements `configure` for every component.
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

/// Logs panics. For the host a panic is a trap without a message.
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
