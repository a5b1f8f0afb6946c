//! A source against a Teleport that is simulated here: gRPC over mutual TLS on a loopback socket,
//! with the habits and the faults of real servers. Each test starts a server of its own.

mod connect;
mod export;
mod fake;
mod keep;
mod poll;
mod recordings;
mod world;
