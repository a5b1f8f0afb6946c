//! The store as its users see it: on real files, with real processes that are killed or run out of
//! disk. One binary, because every one of them links SQLite.

mod audit;
mod behaviour;
mod common;
mod conformance;
mod damage;
mod find;
mod full;
mod kill;
mod lag_limit;
mod locking;
mod migration;
mod model;
mod reasons;
mod repair;
mod report;
mod retention;
mod worker;
mod year;
