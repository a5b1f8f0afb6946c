use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// A WASM plugin host for Teleport audit events.
///
/// Reads a Teleport cluster's audit log and session recordings, keeps them in a small durable
/// store, and passes each batch through WebAssembly components: filters, mappers and sinks.
#[derive(Debug, Parser)]
#[command(
    name = "lockgate",
    version,
    max_term_width = 100,
    propagate_version = false
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// How log lines are written to standard error.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, env = "LOCKGATE_LOG_FORMAT")]
    pub(crate) log_format: LogFormat,

    /// Which log lines are written: a level, or directives such as `info,lockgate_teleport=debug`.
    /// By default `info`; `warn` for `demo`.
    #[arg(long, global = true, env = "LOCKGATE_LOG", value_name = "FILTER")]
    pub(crate) log: Option<String>,
}

impl Arguments {
    /// The demo has its own lines to show.
    pub(crate) fn log_filter(&self) -> &str {
        let default = if matches!(self.command, Command::Demo(_)) {
            "warn"
        } else {
            "info"
        };
        self.log.as_deref().unwrap_or(default)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// One readable line each.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the pipelines of a configuration file.
    Start(Start),
    /// Check a configuration file and its plugins, and start nothing.
    Check(Check),
    /// Run the whole main job against simulated servers: no Teleport needed.
    Demo(Demo),
    /// Simulated servers, to try a configuration against.
    #[command(subcommand)]
    Sim(Sim),
    /// Show what became of every event, per pipeline; works beside a running host.
    Status(Status),
    /// Work with plugins.
    #[command(subcommand)]
    Plugin(Plugin),
    /// Write files for the system behind a sink: templates, dashboards, pipelines.
    #[command(subcommand)]
    Assets(Assets),
    /// Print the version and the built-in plugins.
    Version,
    /// Print a completion script for a shell.
    Completions {
        /// The shell to complete for.
        shell: clap_complete::Shell,
    },
    /// Compile the component on standard input; for the host, which starts it itself.
    #[command(hide = true)]
    Compile(Compile),
}

#[derive(Debug, Args)]
pub(crate) struct Compile {
    /// Bytes of memory.
    #[arg(long)]
    pub(crate) memory: u64,

    /// Seconds of CPU time.
    #[arg(long)]
    pub(crate) time: u64,

    /// For an engine that counts instructions.
    #[arg(long)]
    pub(crate) fuel: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Start {
    /// The configuration file.
    #[arg(
        short,
        long,
        default_value = "lockgate.toml",
        env = "LOCKGATE_CONFIG",
        value_name = "FILE"
    )]
    pub(crate) config: PathBuf,

    /// Stop once everything that Teleport has now is read and delivered.
    #[arg(long)]
    pub(crate) exit_on_last_event: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The configuration files.
    #[arg(default_value = "lockgate.toml", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,

    /// Also taken as in `start`.
    #[arg(short, long, value_name = "FILE", conflicts_with = "files")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// How many events the simulated cluster has.
    #[arg(long, default_value_t = 20_000, value_name = "N")]
    pub(crate) events: u64,

    /// Equal seeds give equal events.
    #[arg(long, default_value_t = 42, value_name = "S")]
    pub(crate) seed: u64,

    /// Print one JSON object instead of text.
    #[arg(long)]
    pub(crate) json: bool,

    /// Map the events that the filter keeps to Elastic Common Schema, with `builtin:ecs`.
    #[arg(long)]
    pub(crate) ecs: bool,

    /// Leave the configuration, the certificates and the store in this new folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,

    /// The simulated receiver waits this long before each answer.
    #[arg(long, default_value = "0ms", value_parser = lockgate_config::duration_argument, value_name = "DURATION")]
    pub(crate) latency: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Sim {
    /// A simulated Teleport Auth server: gRPC over mutual TLS, with credentials in the form that
    /// Teleport writes.
    Auth(SimAuth),
    /// A simulated receiver: HTTPS that demands a client certificate, takes JSON objects and
    /// arrays, counts distinct ids.
    Receiver(SimReceiver),
}

#[derive(Debug, Args)]
pub(crate) struct SimAuth {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:3025", value_name = "ADDR")]
    pub(crate) listen: SocketAddr,

    /// Folder for the CA, an identity file and the cert, key and CA trio. Created when missing.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,

    /// How many events there are.
    #[arg(long, default_value_t = 20_000, value_name = "N")]
    pub(crate) events: u64,

    /// Equal seeds give equal events.
    #[arg(long, default_value_t = 42, value_name = "S")]
    pub(crate) seed: u64,

    /// Which of Teleport's audit backends to act as.
    #[arg(long, value_enum, default_value_t = Backend::Export)]
    pub(crate) backend: Backend,

    /// Let events appear at this many a second of wall time, instead of having all of them at
    /// once.
    #[arg(long, value_name = "N")]
    pub(crate) rate: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// Bulk export, as Athena has it (all of Teleport Cloud).
    Export,
    /// Search by pages only, as the file, DynamoDB, Firestore and Postgres backends.
    Search,
}

#[derive(Debug, Args)]
pub(crate) struct SimReceiver {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8888", value_name = "ADDR")]
    pub(crate) listen: SocketAddr,

    /// Folder for the CA and the client's certificate and key. Created when missing.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,

    /// Wait this long before each answer.
    #[arg(long, default_value = "0ms", value_parser = lockgate_config::duration_argument, value_name = "DURATION")]
    pub(crate) latency: Duration,

    /// What to answer: a status such as `503`, or a script such as `500x3,200`.
    #[arg(long, default_value = "200", value_name = "STATUS")]
    pub(crate) status: String,

    /// Append each document to this file, one a line.
    #[arg(long, value_name = "FILE")]
    pub(crate) capture: Option<PathBuf>,

    /// Stop capturing after this many documents.
    #[arg(long, value_name = "N", requires = "capture")]
    pub(crate) capture_max: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// The configuration file; only its `[store]` is used.
    #[arg(
        short,
        long,
        default_value = "lockgate.toml",
        env = "LOCKGATE_CONFIG",
        value_name = "FILE"
    )]
    pub(crate) config: PathBuf,

    /// The store's folder, instead of a configuration file.
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,

    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Plugin {
    /// Run one component over events on standard input, one JSON object a line; results go to
    /// standard output, problems to standard error.
    Run(PluginRun),
}

#[derive(Debug, Args)]
pub(crate) struct PluginRun {
    /// `builtin:NAME`, or the path of a component.
    pub(crate) component: String,

    /// The plugin's `with` table as JSON.
    #[arg(long = "with", default_value = "{}", value_name = "JSON")]
    pub(crate) with: String,

    /// Treat the events as coming from the recording of this session, not from the audit log.
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<String>,

    /// A MaxMind database in which the plugin may look up places, such as GeoLite2-City.mmdb.
    #[arg(long, value_name = "FILE")]
    pub(crate) lookup_city: Option<PathBuf>,

    /// A MaxMind database in which the plugin may look up networks, such as GeoLite2-ASN.mmdb.
    #[arg(long, value_name = "FILE")]
    pub(crate) lookup_asn: Option<PathBuf>,

    /// CPU time of one call, as `limits.time` in a configuration.
    #[arg(long, default_value = "1s", value_parser = lockgate_config::duration_argument, value_name = "DURATION")]
    pub(crate) limit_time: Duration,

    /// Memory of one instance, as `limits.memory` in a configuration.
    #[arg(long, default_value = "128 MiB", value_parser = lockgate_config::size_argument, value_name = "SIZE")]
    pub(crate) limit_memory: u64,

    /// Events in one call.
    #[arg(long, default_value_t = 500, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) batch: u32,

    /// Print how much of the events a mapper carries over to ECS, instead of its documents.
    ///
    /// A table shows, per event type, the share of mapped events that have `event.category`,
    /// `event.type`, `event.outcome`, `user.name` and `related.*`. Below it stand the source
    /// fields that stayed unmapped, events that ended as `pipeline_error`, and events without
    /// a result.
    ///
    /// A field is unmapped if it still stands under `teleport.audit`, at its own path with its own
    /// value, and the index template of `lockgate assets elasticsearch` declares no such
    /// field. A list counts as one field, and so does a map of users' own keys, such as
    /// labels; empty fields do not count. Nothing is said of unmapped fields where no document
    /// has `teleport.audit`, as with mappers that put what they do not know elsewhere. The exit
    /// status does not depend on the shares.
    #[arg(long)]
    pub(crate) coverage: bool,

    /// Print the coverage as one JSON object, with counts of events instead of shares.
    #[arg(long, requires = "coverage")]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Assets {
    /// For the documents of `builtin:ecs`: index template, lifecycle policy, Kibana dashboard,
    /// Logstash pipeline, and how to install them.
    Elasticsearch(AssetsElasticsearch),
}

#[derive(Debug, Args)]
pub(crate) struct AssetsElasticsearch {
    /// Folder for the files. Created when missing.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,

    /// Overwrite files that have been changed since, or that are of another version.
    #[arg(long)]
    pub(crate) force: bool,
}
