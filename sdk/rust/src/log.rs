//! Structured lines in the host's log, which adds pipeline, stage, plugin and batch. At most 200 a
//! batch are kept. Off wasm they go nowhere.

/// How much a line matters.
pub use crate::bindings::lockgate::plugin::log::Level;

/// Whether a line of this level would be kept: ask before building an expensive one. Off wasm none
/// is.
pub fn enabled(level: Level) -> bool {
    #[cfg(target_family = "wasm")]
    return crate::bindings::lockgate::plugin::log::enabled(level);
    #[cfg(not(target_family = "wasm"))]
    {
        let _ = level;
        false
    }
}

/// For the author, in great numbers.
pub fn trace(message: &str, fields: &[(&str, &str)]) {
    emit(Level::Trace, message, fields);
}

/// For the author.
pub fn debug(message: &str, fields: &[(&str, &str)]) {
    emit(Level::Debug, message, fields);
}

/// For the operator, who may ignore it.
pub fn info(message: &str, fields: &[(&str, &str)]) {
    emit(Level::Info, message, fields);
}

/// Something the operator should look at.
pub fn warn(message: &str, fields: &[(&str, &str)]) {
    emit(Level::Warn, message, fields);
}

/// Something is broken.
pub fn error(message: &str, fields: &[(&str, &str)]) {
    emit(Level::Error, message, fields);
}

/// A line of any level. The host escapes control characters and cuts what is longer than 1 KiB.
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
