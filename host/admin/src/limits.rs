//! Every limit and time-out of the two listeners, on one page.

use std::time::Duration;

/// Bytes of one request on the control socket …
pub const MESSAGE_BYTES: usize = 1 << 20;
/// … and of its answer.
pub const ANSWER_BYTES: usize = 16 << 20;
/// Connections that the control socket serves at the same time. Others wait to be accepted.
pub const CONTROL_CONNECTIONS: usize = 16;
/// A client of the control socket has so long to send its request, and again to take the answer.
pub const CONTROL_IO: Duration = Duration::from_secs(10);
/// How long a client waits for the status, which the host answers at once.
pub const CONTROL_STATUS: Duration = Duration::from_secs(3);
/// How long a client waits for a reload: components may have to be compiled first.
pub const CONTROL_RELOAD: Duration = Duration::from_secs(1800);
/// How often the control socket checks that its file is still there.
pub const CONTROL_CHECK: Duration = Duration::from_secs(1);
/// How long a client waits for the answer. A command waits for the store, so this is generous.
pub const CONTROL_ANSWER: Duration = Duration::from_secs(120);

/// Connections that the HTTP listener serves at the same time.
pub const HTTP_CONNECTIONS: usize = 64;
/// From accepting an HTTP connection to its last byte. Each connection serves one request.
pub const HTTP_CONNECTION: Duration = Duration::from_secs(30);

/// How long a listener waits after it failed to accept a connection, such as when the process has
/// too many open files.
pub const ACCEPT_WAIT: Duration = Duration::from_millis(200);
