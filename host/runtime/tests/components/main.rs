//! Real components, compiled from `tests/components` and `plugins`, as a pipeline sees them. The
//! hostile ones must stay contained.

mod cache;
mod cases;
mod configure;
mod filter;
mod limits;
mod load;
mod lookup;
mod mapper;
mod sink;
mod state;
mod support;
