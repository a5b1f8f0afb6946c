//! Machine code of components, kept so that each is compiled once and not at each start.

mod precompiled;

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};
use wasmtime::component::Component;

use crate::component::LoadError;
use crate::engine::Engine;

/// Where compiled code is kept.
///
/// `load` is called when the digest of the code is known, `save` after a component had to be
/// compiled. Both may fail silently: the component is then compiled. The place need not be trusted:
/// nothing that comes out of it is run unless its digest is the one in [`CodeDigests`].
pub trait CodeCache: Send + Sync {
    /// The value last saved under this key, which is fit for a file name.
    fn load(&self, key: &str) -> Option<Vec<u8>>;
    fn save(&self, key: &str, code: &[u8]);
}

/// SHA-256 of the code under each key. What stands here decides which machine code this process
/// runs: **it must be kept apart from the code**, in a place that only the host writes. Code
/// without a digest is compiled again.
///
/// `get` is called before each [`CodeCache::load`], `put` before each [`CodeCache::save`].
pub trait CodeDigests: Send + Sync {
    fn get(&self, key: &str) -> Option<[u8; 32]>;
    fn put(&self, key: &str, digest: [u8; 32]);
}

/// Where an engine keeps compiled code, and what it knows it by.
#[derive(Clone)]
pub struct KeptCode {
    pub files: Arc<dyn CodeCache>,
    pub digests: Arc<dyn CodeDigests>,
}

/// Digests for as long as the process runs: each start compiles again.
#[derive(Debug, Default)]
pub struct DigestsInMemory {
    digests: Mutex<HashMap<String, [u8; 32]>>,
}

/// Machine code of one component, for one [`Engine`]. Nothing of it has run yet.
#[derive(Clone)]
pub struct Code {
    pub(crate) inner: Component,
    pub(crate) digest: String,
}

impl Code {
    /// The code of these bytes, where it was kept. Reads a file and takes its digest: some tenths
    /// of a second for the largest components.
    pub fn kept(engine: &Engine, bytes: &[u8]) -> Option<Code> {
        let digest = hex_digest(bytes);
        let inner = load(engine, &key(engine, &digest))?;
        Some(Code { inner, digest })
    }

    /// Compiles a component, unless its code was kept. One at a time for each engine; the others
    /// wait. Does not block the thread where the engine compiles in a child process, and dropping
    /// the future ends that process. `name` is for the log.
    pub async fn compile(engine: &Engine, name: &str, bytes: &[u8]) -> Result<Code, LoadError> {
        check_header(bytes)?;
        let _turn = engine.compiling.lock().await;
        if let Some(code) = Code::kept(engine, bytes) {
            return Ok(code);
        }
        let digest = hex_digest(bytes);
        tracing::info!(plugin = name, bytes = bytes.len(), "compiling");
        let code = engine.compiler.compile(engine, bytes).await?;
        let inner =
            precompiled::load(&engine.inner, &code).map_err(|e| LoadError::Compile(text(&e)))?;
        tracing::info!(plugin = name, bytes = code.len(), "compiled");
        if let Some(kept) = &engine.kept_code {
            let key = key(engine, &digest);
            kept.digests.put(&key, Sha256::digest(&code).into());
            kept.files.save(&key, &code);
        }
        Ok(Code { inner, digest })
    }

    /// Compiles in this thread, without limits, and keeps nothing.
    pub(crate) fn compile_here(engine: &Engine, bytes: &[u8]) -> Result<Code, LoadError> {
        check_header(bytes)?;
        let inner =
            Component::new(&engine.inner, bytes).map_err(|e| LoadError::Compile(text(&e)))?;
        let digest = hex_digest(bytes);
        Ok(Code { inner, digest })
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Code")
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

impl CodeDigests for DigestsInMemory {
    fn get(&self, key: &str) -> Option<[u8; 32]> {
        let digests = self.digests.lock();
        let digests = digests.unwrap_or_else(PoisonError::into_inner);
        digests.get(key).copied()
    }

    fn put(&self, key: &str, digest: [u8; 32]) {
        let digests = self.digests.lock();
        let mut digests = digests.unwrap_or_else(PoisonError::into_inner);
        digests.insert(key.to_owned(), digest);
    }
}

/// Kept code, if it is what was kept.
fn load(engine: &Engine, key: &str) -> Option<Component> {
    let kept = engine.kept_code.as_ref()?;
    let digest = kept.digests.get(key)?;
    let code = kept.files.load(key)?;
    if Sha256::digest(&code).as_slice() != digest {
        tracing::warn!(
            key,
            "compiled code in the cache is not what this host wrote there, the component is compiled again"
        );
        return None;
    }
    precompiled::load(&engine.inner, &code)
        .inspect_err(|error| {
            tracing::warn!(
                key,
                "compiled code in the cache does not load, the component is compiled again: {error}"
            );
        })
        .ok()
}

/// Names the code by what it was made of and by the compiler, its settings and the processor it was
/// made for.
fn key(engine: &Engine, digest: &str) -> String {
    let mut hasher = DefaultHasher::new();
    engine
        .inner
        .precompile_compatibility_hash()
        .hash(&mut hasher);
    format!("{digest}-{:016x}", hasher.finish())
}

fn hex_digest(bytes: &[u8]) -> String {
    let hex = |byte| format!("{byte:02x}");
    Sha256::digest(bytes).iter().map(hex).collect()
}

fn check_header(bytes: &[u8]) -> Result<(), LoadError> {
    match bytes {
        [0, b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => Ok(()),
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => Err(LoadError::CoreModule),
        _ => Err(LoadError::NotWasm),
    }
}

/// An error with its causes, on one line.
pub(crate) fn text(error: &wasmtime::Error) -> String {
    crate::log::line(&format!("{error:#}"))
}
