//! Every limit that a ledger enforces, on one page. Beyond one of them an operation is refused with
//! [`LedgerError::Invalid`](crate::LedgerError::Invalid).

/// Distinct reasons of one commit. [`lockgate_model::Reasons`] stays far below.
pub const REASONS: usize = 256;
/// Bytes of one reason, of a dead letter's reason and of its cause.
pub const REASON_BYTES: usize = 1024;
/// Bytes of a key of a stage's state.
pub const STATE_KEY_BYTES: usize = 1024;
/// Bytes of a value of a stage's state.
pub const STATE_VALUE_BYTES: usize = 64 << 10;
/// Bytes of the engine's brake text.
pub const BRAKE_BYTES: usize = 64 << 10;
/// Dead letters of a stream that one operation sends back, drops or removes, and entries of one
/// redrive's commit.
pub const LETTERS_PER_OPERATION: usize = 4096;
