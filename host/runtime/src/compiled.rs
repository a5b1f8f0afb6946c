//! Compiled code, kept so that a component is compiled once and not at each start.

mod precompiled;

use std::hash::{DefaultHasher, Hash, Hasher};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

/// Where compiled code is kept.
///
/// `load` is called once for each component that is loaded, `save` after it had to be compiled.
/// Both may fail silently: the component is then compiled. What is kept is machine code that this
/// process will run: **whoever can write to the place can run code as the host**. So it must be a
/// place that nobody but the host can write to, and never be filled from elsewhere.
pub trait CodeCache: Send + Sync {
    /// The value last saved under this key, which is fit for a file name.
    fn load(&self, key: &str) -> Option<Vec<u8>>;
    fn save(&self, key: &str, value: &[u8]);
}

/// Compiles a component, or takes it from the cache. `digest`: SHA-256 of `bytes`, in hexadecimal.
pub(crate) fn component(
    engine: &Engine,
    cache: Option<&dyn CodeCache>,
    digest: &str,
    bytes: &[u8],
) -> wasmtime::Result<Component> {
    let Some(cache) = cache else {
        return Component::new(engine, bytes);
    };
    let key = key(engine, digest);
    if let Some(kept) = cache.load(&key) {
        match opened(&kept).map(|code| precompiled::load(engine, code)) {
            Some(Ok(component)) => return Ok(component),
            Some(Err(error)) => tracing::warn!(
                key,
                "compiled code in the cache does not load, the component is compiled again: {error}"
            ),
            None => tracing::warn!(
                key,
                "compiled code in the cache is damaged, the component is compiled again"
            ),
        }
    }
    let component = Component::new(engine, bytes)?;
    match component.serialize() {
        Ok(code) => cache.save(&key, &sealed(&code)),
        Err(error) => tracing::warn!(key, "compiled code cannot be cached: {error}"),
    }
    Ok(component)
}

/// Names the code by what it was made of and by the compiler, its settings and the processor it was
/// made for.
fn key(engine: &Engine, digest: &str) -> String {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{digest}-{:016x}", hasher.finish())
}

/// Code with its own digest in front: a torn write or a flipped bit on a disk must not become
/// machine code.
fn sealed(code: &[u8]) -> Vec<u8> {
    let mut value = Sha256::digest(code).to_vec();
    value.extend_from_slice(code);
    value
}

fn opened(value: &[u8]) -> Option<&[u8]> {
    let (digest, code) = value.split_at_checked(32)?;
    (Sha256::digest(code).as_slice() == digest).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_value_is_noticed() {
        let value = sealed(b"machine code");
        assert_eq!(opened(&value), Some(&b"machine code"[..]));
        for at in 0..value.len() {
            let mut damaged = value.clone();
            damaged[at] ^= 1;
            assert_eq!(opened(&damaged), None, "byte {at}");
            assert_eq!(opened(&value[..at]), None, "cut at {at}");
        }
    }
}
