//! Real components, compiled from `tests/components` and `plugins`: what a pipeline sees of them,
//! and that the worst of them stay contained.

mod cache;
mod configure;
mod filter;
mod limits;
mod load;
mod lookup;
mod mapper;
mod sink;
mod state;
mod support;
