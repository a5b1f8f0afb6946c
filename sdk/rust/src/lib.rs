//! Write plugins for Lockgate, the WASM plugin host for Teleport audit events, in Rust.
//!
//! A plugin is one type that implements [`Filter`], [`Mapper`] or [`HttpSink`], and one macro that
//! makes a component of it:
//!
//! ```
//! use lockgate_plugin::{Access, Batch, ConfigIssue, Event, Filter, StageSetup, Verdict, json};
//!
//! #[derive(serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! pub struct Config {
//!     /// Events of these users are left out.
//!     users: Vec<String>,
//! }
//!
//! pub struct NotTheseUsers {
//!     users: Vec<String>,
//! }
//!
//! impl Filter for NotTheseUsers {
//!     type Config = Config;
//!
//!     fn configure(config: Config) -> Result<(Self, StageSetup), Vec<ConfigIssue>> {
//!         if config.users.is_empty() {
//!             return Err(vec![ConfigIssue::new("users", "`users` is empty.").help(r#"users = ["bot-ci"]"#)]);
//!         }
//!         let setup = StageSetup::new(Access::Payload).reasons(["user"]);
//!         Ok((NotTheseUsers { users: config.users }, setup))
//!     }
//!
//!     fn verdict(&self, _: &Batch, event: &Event) -> Verdict {
//!         let user = json::find(&event.payload, "user").ok().flatten().and_then(json::text);
//!         if user.is_some_and(|user| self.users.iter().any(|name| *name == user)) {
//!             Verdict::Drop(0) // the first of `reasons`
//!         } else {
//!             Verdict::Keep
//!         }
//!     }
//! }
//!
//! lockgate_plugin::filter!(NotTheseUsers);
//!
//! // On other targets the macro exports nothing, and logs go nowhere: its tests are ordinary ones.
//! let (plugin, setup) = lockgate_plugin::test::configure::<NotTheseUsers>(r#"{"users":["bot-ci"]}"#).unwrap();
//! let event = lockgate_plugin::test::event(r#"{"event":"exec","user":"bot-ci"}"#);
//! assert_eq!(plugin.verdict(&lockgate_plugin::test::batch(), &event), Verdict::Drop(0));
//! ```
//!
//! The crate is built as a component with `crate-type = ["cdylib"]` for `wasm32-unknown-unknown`,
//! `wasm-component-ld` being the linker. A component has no clock, no randomness, no files and no
//! network: [`Batch::read_at`] is the time. A panic is a trap: its message goes to the host's
//! log, and the host finds the one event that caused it.

// Generated code is not linted.
#[allow(clippy::all, clippy::pedantic, dead_code, missing_docs)]
#[doc(hidden)]
#[rustfmt::skip]
pub mod bindings;
pub mod config;
#[doc(hidden)]
pub mod export;
mod http;
pub mod json;
pub mod log;
pub mod lookup;
pub mod metrics;
pub mod path;
mod setup;
pub mod state;
pub mod template;
pub mod test;
pub mod time;

use serde::de::DeserializeOwned;

pub use bindings::exports::lockgate::plugin::filtering::Verdict;
pub use bindings::exports::lockgate::plugin::http_encoding::{
    Delivery, Disposition, Document, Encoded, Inspect, Joined, Part, Rejection, Request,
    RequestBody, Response, ResponseBody, Sent, Setup as SinkSetup,
};
pub use bindings::exports::lockgate::plugin::mapping::{Mapped, Outcome};
pub use bindings::lockgate::plugin::events::Event;
pub use bindings::lockgate::plugin::types::{
    Access, Batch, ConfigIssue, Failure, Pair, Retry, Subscription, Timestamp,
};
pub use http::group;
pub use setup::StageSetup;

/// What all three kinds have in common.
///
/// Implemented for every [`Filter`], [`Mapper`] and [`HttpSink`] by its macro.
pub trait Plugin: Sized + 'static {
    /// See [`Filter::Config`].
    type Config: DeserializeOwned;
    /// [`StageSetup`] or [`SinkSetup`].
    type Setup;
    /// See [`Filter::configure`].
    fn configure(config: Self::Config) -> Result<(Self, Self::Setup), Vec<ConfigIssue>>;
}

/// Chooses events. It cannot change them. Exported by [`filter!`].
pub trait Filter: Sized + 'static {
    /// The operator's `with` table. `deny_unknown_fields` is what makes a misspelt key an error;
    /// use it.
    type Config: DeserializeOwned;

    /// Called once per instance, before anything else; by default an instance lives for one batch,
    /// so be quick. Return every problem there is, each with the path of its key.
    fn configure(config: Self::Config) -> Result<(Self, StageSetup), Vec<ConfigIssue>>;

    /// Called for every event that the type lists of the [`StageSetup`] let through, unless its
    /// access is [`Access::Types`].
    fn verdict(&self, batch: &Batch, event: &Event) -> Verdict;

    /// One verdict per event, in order. Override it to look at the batch as a whole, or to fail.
    fn filter(&self, batch: &Batch, events: &[Event]) -> Result<Vec<Verdict>, Failure> {
        Ok(events
            .iter()
            .map(|event| self.verdict(batch, event))
            .collect())
    }
}

/// Turns each event into zero or more documents. Exported by [`mapper!`].
pub trait Mapper: Sized + 'static {
    /// See [`Filter::Config`].
    type Config: DeserializeOwned;

    /// See [`Filter::configure`].
    fn configure(config: Self::Config) -> Result<(Self, StageSetup), Vec<ConfigIssue>>;

    /// Called for every event that the type lists of the [`StageSetup`] let through; the host drops
    /// the others. Each emitted payload must be one JSON object: the host dead-letters the event
    /// otherwise.
    fn map(&self, batch: &Batch, event: Event) -> Outcome;

    /// One outcome per event, in order. Override it to look at the batch as a whole, or to fail.
    fn transform(&self, batch: &Batch, events: Vec<Event>) -> Result<Vec<Outcome>, Failure> {
        Ok(events
            .into_iter()
            .map(|event| self.map(batch, event))
            .collect())
    }
}

/// A sink as two pure functions. The host owns sockets, TLS, credentials, retries and compression.
/// Exported by [`http_sink!`].
pub trait HttpSink: Sized + 'static {
    /// See [`Filter::Config`].
    type Config: DeserializeOwned;

    /// See [`Filter::configure`].
    fn configure(config: Self::Config) -> Result<(Self, SinkSetup), Vec<ConfigIssue>>;

    /// Makes requests of documents. Every index of the batch is in one request or one rejection.
    fn encode(&self, batch: &Batch, documents: Vec<Document>) -> Result<Encoded, Failure>;

    /// Says what a response means; called for those that [`SinkSetup::inspect`] names. May be
    /// called on another instance than `encode` was.
    fn classify(&self, batch: &Batch, sent: &Sent, response: &Response) -> Delivery {
        let _ = (batch, sent, response);
        Delivery::ByStatus
    }
}

/// Exports a [`Filter`] as a component of the world `filter`. On other targets it exports nothing.
#[macro_export]
macro_rules! filter {
    ($plugin:ty) => {
        $crate::__plugin!(Filter, StageSetup, $plugin);
        #[cfg(target_family = "wasm")]
        const _: () = {
            use $crate::bindings::exports::lockgate::plugin::filtering::{Guest, Setup};
            $crate::__exported!($plugin);
            impl Guest for Exported {
                $crate::__configure!();
                fn filter(
                    batch: $crate::Batch,
                    events: ::std::vec::Vec<$crate::Event>,
                ) -> ::std::result::Result<::std::vec::Vec<$crate::Verdict>, $crate::Failure>
                {
                    PLUGIN.with(|plugin| {
                        $crate::Filter::filter($crate::export::configured(plugin)?, &batch, &events)
                    })
                }
            }
            $crate::__export_world_filter!(Exported);
        };
    };
}

/// Exports a [`Mapper`] as a component of the world `mapper`. On other targets it exports nothing.
#[macro_export]
macro_rules! mapper {
    ($plugin:ty) => {
        $crate::__plugin!(Mapper, StageSetup, $plugin);
        #[cfg(target_family = "wasm")]
        const _: () = {
            use $crate::bindings::exports::lockgate::plugin::mapping::{Guest, Setup};
            $crate::__exported!($plugin);
            impl Guest for Exported {
                $crate::__configure!();
                fn transform(
                    batch: $crate::Batch,
                    events: ::std::vec::Vec<$crate::Event>,
                ) -> ::std::result::Result<::std::vec::Vec<$crate::Outcome>, $crate::Failure>
                {
                    PLUGIN.with(|plugin| {
                        $crate::Mapper::transform(
                            $crate::export::configured(plugin)?,
                            &batch,
                            events,
                        )
                    })
                }
            }
            $crate::__export_world_mapper!(Exported);
        };
    };
}

/// Exports an [`HttpSink`] as a component of the world `http-sink`. On other targets it exports
/// nothing.
#[macro_export]
macro_rules! http_sink {
    ($plugin:ty) => {
        $crate::__plugin!(HttpSink, SinkSetup, $plugin);
        #[cfg(target_family = "wasm")]
        const _: () = {
            use $crate::bindings::exports::lockgate::plugin::http_encoding::{Guest, Setup};
            $crate::__exported!($plugin);
            impl Guest for Exported {
                $crate::__configure!();
                fn encode(
                    batch: $crate::Batch,
                    documents: ::std::vec::Vec<$crate::Document>,
                ) -> ::std::result::Result<$crate::Encoded, $crate::Failure> {
                    PLUGIN.with(|plugin| {
                        $crate::HttpSink::encode(
                            $crate::export::configured(plugin)?,
                            &batch,
                            documents,
                        )
                    })
                }
                fn classify(
                    batch: $crate::Batch,
                    sent: $crate::Sent,
                    response: $crate::Response,
                ) -> $crate::Delivery {
                    PLUGIN.with(|plugin| {
                        let plugin =
                            $crate::export::configured(plugin).expect("`configure` comes first");
                        $crate::HttpSink::classify(plugin, &batch, &sent, &response)
                    })
                }
            }
            $crate::__export_world_http_sink!(Exported);
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __plugin {
    ($kind:ident, $setup:ident, $plugin:ty) => {
        impl $crate::Plugin for $plugin {
            type Config = <$plugin as $crate::$kind>::Config;
            type Setup = $crate::$setup;
            fn configure(
                config: Self::Config,
            ) -> ::std::result::Result<(Self, Self::Setup), ::std::vec::Vec<$crate::ConfigIssue>>
            {
                <$plugin as $crate::$kind>::configure(config)
            }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __exported {
    ($plugin:ty) => {
        struct Exported;
        ::std::thread_local! {
            static PLUGIN: ::std::cell::OnceCell<$plugin> = const { ::std::cell::OnceCell::new() };
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __configure {
    () => {
        fn configure(
            config: ::std::string::String,
        ) -> ::std::result::Result<Setup, ::std::vec::Vec<$crate::ConfigIssue>> {
            PLUGIN.with(|plugin| {
                $crate::export::configure(plugin, &config).map(::std::convert::Into::into)
            })
        }
    };
}
