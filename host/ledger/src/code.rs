//! The digests of compiled code, which a ledger keeps.

use lockgate_model::Millis;

use crate::LedgerError;

/// SHA-256 digests of compiled components, kept apart from the compiled code itself, so that
/// overwriting a file of compiled code does not make it trusted.
///
/// Call [`code_digest`](Self::code_digest) before compiled code is loaded, and load it only when
/// the digest is that of the file. Call [`keep_code_digest`](Self::keep_code_digest) after
/// compiling. A file whose digest is not durable yet is not trusted, and is compiled again.
pub trait CodeDigests: Send + Sync {
    /// The digest kept for a key; `None` if nothing was compiled under it.
    ///
    /// `key`: all that decides the code: the component's digest, the compiler, its settings.
    fn code_digest(
        &self,
        key: &str,
    ) -> impl Future<Output = Result<Option<[u8; 32]>, LedgerError>> + Send;

    /// Keeps a digest; it replaces the one before. Durable when it returns.
    fn keep_code_digest(
        &self,
        key: &str,
        digest: [u8; 32],
        at: Millis,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;
}
