//! As much of SSH 2 as it takes to reach the Auth Service through Teleport's proxy (RFC 4251 to
//! 4254): certificates of hosts and users, and one channel that passes bytes on.
//!
//! Both sides are here; the simulator is the server. Cryptography is that of `ring`. What protects
//! events is TLS with the Auth Service, inside the channel; SSH opens the proxy's door.

mod certificate;
mod channel;
mod cipher;
mod client;
mod connection;
mod draft;
mod error;
mod exchange;
mod key;
mod message;
mod server;
mod stream;
mod transport;
pub mod wire;

pub use certificate::{Certificate, CertificateKind, HostRefused, authority_of_line};
pub use client::{Client, HostCheck, Login};
pub use draft::Draft;
pub use error::Error;
pub use key::{PublicKey, SecretKey};
pub use server::{AskedChannel, AskedDial, HostKey, Server};
pub use stream::Stream;
pub use transport::{Limits, VERSION};
