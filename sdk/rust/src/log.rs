//! Structured lines in the host's log, which adds pipeline, stage, plugin and batch. A stage may
//! write 200 lines at once, and 20 per second. Outside wasm they are discarded.
//!
//! The lines of a call appear when it ends, also if it traps; those of a call that the host makes
//! again for lack of time or memory never do. So a line cannot show how far a call has come that
//! does not end by itself: the host ends it at its time limit, and then its lines appear.

/// The level of a line.
pub use crate::bindings::lockgate::plugin::log::Level;

/// Whether a line of this level would be logged. Check before building an expensive one. Always
/// false outside wasm.
pub fn enabled(level: Level) -> bool {
    #[cfg(target_family = "wasm")]
    return crate::bindings::lockgate::plugin::log::enabled(level);
    #[cfg(not(target_family = "wasm"))]
    {
        let _ = level;
        false
    }
}

/// Detailed information for the author.
pub fn trace(message: &str, fields: &[(&str, &str)]) {
    emit(Level::Trace, message, fields);
}

/// Information for the author.
pub fn debug(message: &str, fields: &[(&str, &str)]) {
    emit(Level::Debug, message, fields);
}

/// Information for the operator.
pub fn info(message: &str, fields: &[(&str, &str)]) {
    emit(Level::Info, message, fields);
}

/// A problem that the operator should look at.
pub fn warn(message: &str, fields: &[(&str, &str)]) {
    emit(Level::Warn, message, fields);
}

/// A failure.
pub fn error(message: &str, fields: &[(&str, &str)]) {
    emit(Level::Error, message, fields);
}

/// A line of any level. The host escapes control characters and truncates lines to 1 KiB.
pub fn emit(level: Level, message: &str, fields: &[(&str, &str)]) {
    #[cfg(target_family = "wasm")]
    {
        let pair = |(name, value): &(&str, &str)| crate::Pair {
            name: (*name).into(),
            value: (*value).into(),
        };
        crate::bindings::lockgate::plugin::log::emit(
            level,
            message,
            &fields.iter().map(pair).collect::<Vec<_>>(),
        );
    }
    #[cfg(not(target_family = "wasm"))]
    let _ = (level, message, fields);
}
