//! A source against a Teleport that is simulated here: gRPC over mutual TLS on a loopback socket,
//! with the behaviour and the faults of real servers. Each test starts its own server.

mod clocks;
mod connect;
mod ending;
mod export;
mod fake;
mod fixture;
mod fuzz_seeds;
mod intake;
mod locks;
mod poll;
mod recordings;
mod relay;
mod simulation;
mod standstill;
mod waiting;
