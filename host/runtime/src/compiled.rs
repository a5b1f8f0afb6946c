//! Machine code of components, kept so that a component is compiled only once.

mod precompiled;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use lockgate_model::contract::CallError;
use sha2::{Digest, Sha256};
use wasmtime::component::Component;

use crate::component::LoadError;
use crate::engine::Engine;
use crate::lack;

/// Storage for compiled code.
///
/// `load` is called if the digest of the code is known, `save` after a component has been compiled.
/// Both may fail silently; the component is then compiled. The storage need not be trusted: code is
/// run only if its digest is the one in [`TrustedDigests`].
pub trait CodeCache: Send + Sync {
    /// The code last saved under this key. The key is a valid file name.
    fn load(&self, key: &str) -> Option<Vec<u8>>;
    fn save(&self, key: &str, code: &[u8]);
}

/// SHA-256 of the code under each key. The digests decide which machine code this process runs, so
/// **they must be kept apart from the code**, where only the host can write. Code without a digest
/// is compiled again.
///
/// `get` is called before each [`CodeCache::load`], `put` before each [`CodeCache::save`].
pub trait TrustedDigests: Send + Sync {
    fn get(&self, key: &str) -> Option<[u8; 32]>;
    fn put(&self, key: &str, digest: [u8; 32]);
}

/// The compiled code that an engine keeps, and its digests.
#[derive(Clone)]
pub struct KeptCode {
    pub files: Arc<dyn CodeCache>,
    pub digests: Arc<dyn TrustedDigests>,
}

/// Digests in memory. Components are compiled again at each start.
#[derive(Debug, Default)]
pub struct DigestsInMemory {
    digests: Mutex<HashMap<String, [u8; 32]>>,
}

/// Machine code of one component, for one [`Engine`]. It has not run yet.
#[derive(Clone)]
pub struct Code {
    pub(crate) inner: Component,
    pub(crate) digest: String,
}

impl Code {
    /// The kept code of a component, if there is any. Blocks while it reads and hashes a file: a
    /// few tenths of a second for the largest components.
    pub fn kept(engine: &Engine, bytes: &[u8]) -> Option<Code> {
        let digest = hex_digest(bytes);
        let key = key(engine, &digest);
        let inner = load(engine, &key).unwrap_or_else(|unusable| {
            // What the system lacks is told when the code is wanted.
            if let Unusable::Damaged(why) = unusable {
                tracing::warn!(
                    key,
                    "compiled code in the cache {why}; the component is compiled again"
                );
            }
            None
        })?;
        Some(Code { inner, digest })
    }

    /// Compiles a component, unless its code has been kept. An engine compiles one component at a
    /// time; others wait. If the engine compiles in a child process, this does not block the
    /// thread, and dropping the future ends the process. `name` is for the log.
    pub async fn compile(
        engine: &Engine,
        name: &str,
        bytes: Cow<'static, [u8]>,
    ) -> Result<Code, LoadError> {
        check_header(&bytes)?;
        let _turn = engine.compiling.lock().await;
        let of_kept = engine.clone();
        let (bytes, digest, kept) = blocking(move || {
            let digest = hex_digest(&bytes);
            let kept = load(&of_kept, &key(&of_kept, &digest));
            (bytes, digest, kept)
        })
        .await;
        // It may have been compiled meanwhile.
        match kept {
            Ok(Some(inner)) => return Ok(Code { inner, digest }),
            // To compile it would not help.
            Err(Unusable::Lack(lack)) => return Err(LoadError::NoRoom(lack)),
            Ok(None) | Err(Unusable::Damaged(_)) => {}
        }
        tracing::info!(plugin = name, bytes = bytes.len(), "compiling");
        let code = engine.compiler.compile(engine, &bytes).await?;
        let (compiled, size) = (engine.clone(), code.len());
        let code = blocking(move || Code::compiled(&compiled, digest, &code)).await?;
        tracing::info!(plugin = name, bytes = size, "compiled");
        Ok(code)
    }

    /// Loads what the compiler has made, and keeps it. Blocks while it writes.
    fn compiled(engine: &Engine, digest: String, code: &[u8]) -> Result<Code, LoadError> {
        let loaded = precompiled::load(&engine.inner, code);
        let inner = loaded.map_err(|error| match lack::of_host(&error) {
            Some(lack) => LoadError::NoRoom(lack),
            None => LoadError::Compile(text(&error)),
        })?;
        if let Some(kept) = &engine.kept_code {
            let key = key(engine, &digest);
            kept.digests.put(&key, Sha256::digest(code).into());
            kept.files.save(&key, code);
        }
        Ok(Code { inner, digest })
    }

    /// Compiles in this thread, without limits, and does not keep the code.
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

impl TrustedDigests for DigestsInMemory {
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

/// Does work on a thread that may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down, and drops the caller, too.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Why kept code is not used.
enum Unusable {
    /// A clause about it.
    Damaged(String),
    /// The system does not give what it needs.
    Lack(CallError),
}

/// Loads kept code, if its digest is right.
fn load(engine: &Engine, key: &str) -> Result<Option<Component>, Unusable> {
    let Some(kept) = engine.kept_code.as_ref() else {
        return Ok(None);
    };
    let Some(digest) = kept.digests.get(key) else {
        return Ok(None);
    };
    let Some(code) = kept.files.load(key) else {
        return Ok(None);
    };
    if Sha256::digest(&code).as_slice() != digest {
        let why = "is not what this host wrote there".to_owned();
        return Err(Unusable::Damaged(why));
    }
    let loaded = precompiled::load(&engine.inner, &code);
    loaded
        .map(Some)
        .map_err(|error| match lack::of_host(&error) {
            Some(lack) => Unusable::Lack(lack),
            None => Unusable::Damaged(format!("cannot be loaded: {error}")),
        })
}

/// The key of compiled code: the component's digest, and a hash of the compiler, its settings and
/// the processor.
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
