//! End-to-end tests: the real binary against real servers on loopback. A test starts what it names
//! and ends what it started.

#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

mod alerts;
mod architecture;
mod assets;
mod audit;
mod check;
mod compile;
mod configure;
mod crash;
mod credentials;
mod delivery;
mod demo;
mod dependencies;
mod deploy;
mod descriptors;
mod dlq;
mod doctor;
mod ecs;
mod event_handler;
mod explain;
mod fair_shares;
mod fencing;
mod files;
mod first_steps;
mod gaps;
mod guests;
mod help;
mod hostile;
mod locks;
mod log_json;
mod lookup;
mod memory;
mod metrics;
mod outages;
mod outbound;
mod plugin_run;
mod proxy;
mod quickstart;
mod redrive;
mod regression_table;
mod reload;
mod reload_hints;
mod reload_load;
mod reload_watch;
mod repair_recordings;
mod rotation;
mod silence;
mod sinks;
mod state;
mod store;
mod store_log;
mod systemd;
mod truth;
mod watch;
