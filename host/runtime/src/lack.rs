//! What the operating system, or the address space set aside for instances, did not give the host.
//! A component has its own limits; this is no fault of it.

use std::error::Error as StdError;
use std::io;

use lockgate_model::contract::CallError;
use rustix::io::Errno;
use wasmtime::{OutOfMemory, PoolConcurrencyLimitError};

use crate::address_space;

/// What an error of wasmtime says if the host is the cause: memory that could not be mapped or made
/// accessible, file descriptors, slots for instances. Components cannot cause any of these errors:
/// their own growth is counted before it is asked for.
pub(crate) fn of_host(error: &wasmtime::Error) -> Option<CallError> {
    if error.is::<PoolConcurrencyLimitError>() {
        let message = "the maximum number of instances has been reached";
        return Some(CallError::Host(message.into()));
    }
    let is_of_system =
        error.is::<Errno>() || error.is::<OutOfMemory>() || error.chain().any(is_of_system);
    is_of_system.then(|| {
        // Without the backtrace of the component, which does not help an operator.
        let causes = error.chain().map(ToString::to_string);
        let causes: Vec<_> = causes
            .filter(|text| !text.starts_with("error while executing"))
            .collect();
        let remark = match is_memory(error) {
            true => address_space::remark(address_space::limit()),
            false => String::new(),
        };
        let text = format!(
            "the system did not give it what it needs: {}{remark}",
            causes.join(": ")
        );
        CallError::Host(crate::log::line(&text))
    })
}

/// It may be the limit on the address space that is too low.
fn is_memory(error: &wasmtime::Error) -> bool {
    let refused = |cause: &(dyn StdError + 'static)| {
        let errno = cause.downcast_ref::<Errno>().copied();
        let io = cause.downcast_ref::<io::Error>();
        let errno = errno.or_else(|| io.and_then(Errno::from_io_error));
        errno == Some(Errno::NOMEM) || cause.is::<OutOfMemory>()
    };
    let itself = error.downcast_ref::<Errno>() == Some(&Errno::NOMEM);
    itself || error.is::<OutOfMemory>() || error.chain().any(refused)
}

fn is_of_system(error: &(dyn StdError + 'static)) -> bool {
    error.is::<Errno>() || error.is::<io::Error>() || error.is::<OutOfMemory>()
}

#[cfg(test)]
mod tests {
    use wasmtime::error::Context;

    use super::*;

    #[test]
    fn errors_of_the_system_are_told_from_those_of_a_component() {
        let refused = || Err::<(), _>(Errno::NOMEM);
        let of_file = || Err::<(), _>(io::Error::from(Errno::MFILE));
        for (error, expected) in [
            (wasmtime::Trap::MemoryOutOfBounds.into(), None),
            (wasmtime::Error::msg("it does not fit"), None),
            (
                wasmtime::Error::from(wasmtime::Trap::StackOverflow).context("in its start"),
                None,
            ),
            (
                wasmtime::Error::from(Errno::NOMEM),
                Some("Cannot allocate memory (os error 12)"),
            ),
            (
                refused()
                    .context("mmap failed")
                    .context("memory 0")
                    .unwrap_err(),
                Some("memory 0: mmap failed: Cannot allocate memory (os error 12)"),
            ),
            (
                of_file().context("an image").unwrap_err(),
                Some("an image: Too many open files (os error 24)"),
            ),
        ] {
            let expected = expected.map(|what| {
                let before = "the host could not run it: the system did not give it what it needs";
                format!("{before}: {what}")
            });
            assert_eq!(of_host(&error).map(|error| error.to_string()), expected);
        }
    }
}
