//! Compiled code: files in the store's directory, and their digests in the store itself.

use std::sync::Arc;

use lockgate_ledger::CodeDigests;
use lockgate_registry::CodeDir;
use lockgate_runtime::{CodeCache, TrustedDigests};
use lockgate_store::{Inspector, Store};

use crate::clock::now;

/// The registry's files as the runtime's cache.
pub(crate) struct CodeFiles(pub(crate) CodeDir);

impl CodeCache for CodeFiles {
    fn load(&self, key: &str) -> Option<Vec<u8>> {
        self.0.load(key)
    }

    fn save(&self, key: &str, code: &[u8]) {
        if let Err(error) = self.0.save(key, code) {
            tracing::warn!(
                "compiled code is not kept, so the next start compiles it again: {error}"
            );
        }
    }
}

/// Digests in the store: who can overwrite a file of compiled code cannot make it trusted.
pub(crate) struct StoredDigests(pub(crate) Store);

impl TrustedDigests for StoredDigests {
    fn get(&self, key: &str) -> Option<[u8; 32]> {
        // The read does not wait: it is a look at one row.
        self.0.reads().code_digest(key).ok().flatten()
    }

    fn put(&self, key: &str, digest: [u8; 32]) {
        let (store, key) = (self.0.clone(), key.to_owned());
        // Until it is written, the file counts as unknown and is compiled again.
        tokio::spawn(async move {
            if let Err(error) = store.keep_code_digest(&key, digest, now()).await {
                tracing::warn!("the digest of compiled code is not kept: {error}");
            }
        });
    }
}

/// The same files, for a process that is not the host.
pub(crate) struct ReadOnlyFiles(pub(crate) CodeDir);

impl CodeCache for ReadOnlyFiles {
    fn load(&self, key: &str) -> Option<Vec<u8>> {
        self.0.load(key)
    }

    fn save(&self, _: &str, _: &[u8]) {}
}

/// The same digests, for a process that is not the host.
pub(crate) struct ReadOnlyDigests(pub(crate) Arc<Inspector>);

impl TrustedDigests for ReadOnlyDigests {
    fn get(&self, key: &str) -> Option<[u8; 32]> {
        self.0.code_digest(key).ok().flatten()
    }

    fn put(&self, _: &str, _: [u8; 32]) {}
}
