//! The arguments of every command, and their help.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands::dlq::Dlq;
use crate::commands::explain::Explain;
use crate::commands::store::Store;
use crate::config_file::{ConfigFile, default_file};
use crate::handler_arguments::HandlerArguments;
use crate::place::Place;

/// A WASM plugin host for Teleport audit events.
///
/// Reads a Teleport cluster's audit log and session recordings, keeps them in a durable store, and
/// passes each batch through WebAssembly components: filters, mappers and sinks.
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

    /// Format of the log on standard error.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, env = "LOCKGATE_LOG_FORMAT")]
    pub(crate) log_format: LogFormat,

    /// What to log: a level, or directives such as `info,lockgate_teleport=debug`. The default is
    /// `info`, and `warn` for `check`, `demo`, `doctor`, `explain` and `import`.
    #[arg(long, global = true, env = "LOCKGATE_LOG", value_name = "FILTER")]
    pub(crate) log: Option<String>,
}

impl Arguments {
    /// The log filter. Some commands print their own lines, so they log less by default.
    pub(crate) fn log_filter(&self) -> &str {
        let default = || match &self.command {
            Command::Check(_)
            | Command::Demo(_)
            | Command::Doctor(_)
            | Command::Explain(_)
            | Command::Import(_) => "warn",
            Command::Start(start) if ConfigFile::of(start).wants_debug() => "debug",
            _ => "info",
        };
        self.log.as_deref().unwrap_or_else(default)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Readable lines.
    Text,
    /// One JSON object per line.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the pipelines of a configuration file.
    ///
    /// The file may be one of Teleport's Event Handler, whose options and environment variables are
    /// accepted, too. As with the Event Handler, options come first, then the file, then the
    /// environment. The store is in the Event Handler's state directory; at the first start its
    /// position is taken over from there.
    Start(Start),
    /// Check configuration files and their plugins without starting anything.
    ///
    /// For a file of Teleport's Event Handler, prints the pipelines that it becomes.
    Check(Check),
    /// Turn a configuration of Teleport's Event Handler into one of Lockgate, and take over the
    /// Event Handler's position.
    ///
    /// Stop the Event Handler first. Its files are not changed, and nothing is missed. What it has
    /// sent but not yet noted, less than a second's events, is sent again; with polling, so are
    /// other events of the same millisecond as the last one.
    Import(Import),
    /// Make certificates for mutual TLS with a receiver, and files for Teleport, Lockgate, Fluentd,
    /// Logstash, Helm and systemd, as `configure` of Teleport's Event Handler does.
    ///
    /// Only their owner can read the files. If one of them exists, nothing is written, unless
    /// `--force` is given.
    Configure(Configure),
    /// Run a pipeline from a simulated Teleport to a simulated receiver.
    Demo(Demo),
    /// Run simulated servers to try a configuration against.
    #[command(subcommand)]
    Sim(Sim),
    /// Try everything that a configuration names, and say what is wrong and how to fix it.
    ///
    /// Checks the file and its plugins first; `check` shows where in the file a problem is. Then
    /// tries each way to Teleport, what the role of the credentials permits, where reading goes on,
    /// the store, and each receiver, and compares the clocks. Nothing is changed and no event is
    /// sent: a receiver is asked `HEAD /`. A host may be running. Exits with status 1 if it finds a
    /// problem.
    Doctor(Doctor),
    /// Have the running host read its configuration file again.
    ///
    /// Waits until the file is in force, and prints what changed. If the file has problems, the
    /// host goes on with the configuration it has: the problems are printed as by `check`, and the
    /// exit status is 1. SIGHUP does the same, and the result is in the host's log.
    ///
    /// The host reads the file that it was started with; `--config` only names its store.
    Reload(Reload),
    /// Show what became of every event, per pipeline, whether or not the host is running.
    Status(Status),
    /// Recount the books and verify the store, whether or not the host is running.
    ///
    /// Counts events and outcomes again, prints read = delivered + dropped + dead + waiting for
    /// each pipeline and day, computes every hash of the chains of commits again, and reads every
    /// block. Exits with status 1 if anything does not hold, and names each place.
    ///
    /// A day is counted from its events, or from its outcomes alone if retention has removed
    /// events, or from tallies if commits were folded into them as well.
    Audit(Audit),
    /// Show when an event was read, what each pipeline made of it, and which request carried it.
    ///
    /// Works whether or not the host is running. The stages of each pipeline are shown as they work
    /// now: the event passes through the components of the configuration again, and nothing is
    /// sent. With `--store` they are not shown. The exit status is 0 if the event was found, and 1
    /// if not; then standard output says what the store covers.
    Explain(Explain),
    /// List, show, export, retry and drop dead letters, whether or not the host is running.
    #[command(subcommand)]
    Dlq(Dlq),
    /// Check, copy and repair the store.
    #[command(subcommand)]
    Store(Store),
    /// Work with plugins.
    #[command(subcommand)]
    Plugin(Plugin),
    /// Write files for the systems behind sinks and for monitoring: templates, dashboards, alerts.
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
    /// The configuration file: of Lockgate, or of Teleport's Event Handler. The default is
    /// `lockgate.toml`, or none if options of the Event Handler are given.
    #[arg(short, long, env = "LOCKGATE_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Stop when every event that Teleport has at the start has been delivered, dropped or
    /// dead-lettered. When polling, an event that became visible after later ones is looked for
    /// only now and then: in the last hour every 10 minutes, in the last two days once a day. So a
    /// run may leave one to a later run. Exits with status 1 if a signal stops it before that.
    #[arg(
        long,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        default_value_t = false,
        hide_default_value = true,
        hide_possible_values = true,
        action = clap::ArgAction::Set,
        value_name = "BOOL"
    )]
    pub(crate) exit_on_last_event: bool,

    /// Reload when the configuration file changes, or a file that it names: a secret, a
    /// certificate, a key or a component.
    #[arg(long)]
    pub(crate) watch: bool,

    #[command(flatten)]
    pub(crate) handler: HandlerArguments,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The configuration files.
    #[arg(default_value = default_file(), value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,

    /// The configuration file, as in `start`.
    #[arg(short, long, value_name = "FILE", conflicts_with = "files")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// The configuration file.
    #[arg(
        short,
        long,
        default_value = default_file(),
        env = "LOCKGATE_CONFIG",
        value_name = "FILE"
    )]
    pub(crate) config: PathBuf,

    /// Also ask Teleport for a recording that does not exist, to see whether recordings may be
    /// read. Teleport writes an event `session.recording.access` for that.
    #[arg(long)]
    pub(crate) recordings: bool,

    /// Print one JSON object instead of text: `ok`, the numbers of `problems` and `warnings`, and
    /// `findings`, each with `subject`, `name`, `what`, `state` (`ok`, `note`, `warning` or
    /// `problem`), `message` and `fix`.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The configuration file of the Event Handler. The default is `teleport-event-handler.toml`,
    /// or none if options are given.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// The Event Handler's state directory, if it was moved: what `storage` names, or the directory
    /// of the address in it.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,

    /// The new configuration file.
    #[arg(long, default_value = "lockgate.toml", value_name = "FILE")]
    pub(crate) out: PathBuf,

    #[command(flatten)]
    pub(crate) handler: HandlerArguments,
}

#[derive(Debug, Args)]
pub(crate) struct Configure {
    /// The directory for the files. Created if missing.
    pub(crate) out: PathBuf,

    /// Host and port of Teleport's proxy or Auth Service.
    #[arg(default_value = "localhost:3025")]
    pub(crate) addr: String,

    /// Name of the files of the authority.
    #[arg(default_value = "ca")]
    pub(crate) ca_name: String,

    /// Name of the files of the receiver.
    #[arg(default_value = "server")]
    pub(crate) server_name: String,

    /// Name of the files of the host.
    #[arg(default_value = "client")]
    pub(crate) client_name: String,

    /// How long the certificates are valid, such as `87600h`.
    #[arg(long, default_value = "87600h", value_parser = lockgate_config::go_duration_argument, value_name = "DURATION")]
    pub(crate) ttl: Duration,

    /// DNS names of server and client, separated by commas. The first one is in the URLs.
    #[arg(
        long,
        default_value = "localhost",
        value_delimiter = ',',
        value_name = "NAMES"
    )]
    pub(crate) dns_names: Vec<String>,

    /// Addresses of server and client, separated by commas. Default: those of the DNS names.
    #[arg(long, value_delimiter = ',', value_name = "ADDRESSES")]
    pub(crate) ip: Vec<std::net::IpAddr>,

    /// Common name of the server's certificate. Clients look at its DNS names instead.
    #[arg(long, default_value = "Server", value_name = "NAME")]
    pub(crate) cn: String,

    /// Accepted without effect: keys are ECDSA P-256, not RSA.
    #[arg(long, value_name = "BITS", value_parser = ["1024", "2048", "4096"])]
    pub(crate) length: Option<String>,

    /// Accepted without effect.
    #[arg(long, value_name = "NAME")]
    pub(crate) output: Option<String>,

    /// Overwrite existing files.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Number of events in the simulated cluster.
    #[arg(long, default_value_t = 20_000, value_name = "N")]
    pub(crate) events: u64,

    /// Seed of the events: the same seed generates the same events.
    #[arg(long, default_value_t = 42, value_name = "S")]
    pub(crate) seed: u64,

    /// Print one JSON object instead of text.
    #[arg(long)]
    pub(crate) json: bool,

    /// Map events to the Elastic Common Schema with `builtin:ecs`.
    #[arg(long)]
    pub(crate) ecs: bool,

    /// Keep the configuration, the certificates and the store in this new directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,

    /// How long the simulated receiver waits before each answer.
    #[arg(long, default_value = "0ms", value_parser = lockgate_config::duration_argument, value_name = "DURATION")]
    pub(crate) latency: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Sim {
    /// Simulate a Teleport Auth Service: gRPC over mutual TLS, with credentials in Teleport's
    /// formats.
    Auth(SimAuth),
    /// Simulate a receiver: HTTPS that requires a client certificate, accepts JSON objects and
    /// arrays, and counts distinct ids.
    Receiver(SimReceiver),
}

#[derive(Debug, Args)]
pub(crate) struct SimAuth {
    /// Address to listen on; port 0 chooses a free port.
    #[arg(long, default_value = "127.0.0.1:3025", value_name = "ADDR")]
    pub(crate) listen: SocketAddr,

    /// Directory for the CA, an identity file, and certificate and key. Created if missing.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,

    /// Number of events.
    #[arg(long, default_value_t = 20_000, value_name = "N")]
    pub(crate) events: u64,

    /// Seed of the events: the same seed generates the same events.
    #[arg(long, default_value_t = 42, value_name = "S")]
    pub(crate) seed: u64,

    /// Give every 16th event a time or a number at the edge of what receivers read: zones such as
    /// `+99:99`, years before 1000, the largest doubles.
    #[arg(long)]
    pub(crate) odd: bool,

    /// The kind of audit backend to simulate.
    #[arg(long, value_enum, default_value_t = Backend::Export)]
    pub(crate) backend: Backend,

    /// Add events at this rate per second, instead of having all of them at the start.
    #[arg(long, value_name = "N")]
    pub(crate) rate: Option<u32>,

    /// Also simulate Teleport's proxy, at this address. The CA of its certificate is `proxy-ca.crt`
    /// in the directory.
    #[arg(long, value_name = "ADDR")]
    pub(crate) proxy: Option<SocketAddr>,

    /// Also simulate a load balancer in front of the proxy that terminates TLS, at this address.
    #[arg(long, value_name = "ADDR", requires = "proxy")]
    pub(crate) balancer: Option<SocketAddr>,

    /// Also simulate the proxy's SSH tunnel, at this address. The proxy is one with separate
    /// listeners then: it has no TLS routing.
    #[arg(long, value_name = "ADDR", requires = "proxy")]
    pub(crate) tunnel: Option<SocketAddr>,

    /// The connection upgrade that the proxy knows.
    #[arg(long, value_enum, default_value_t = Upgrade::Websocket, requires = "proxy")]
    pub(crate) upgrade: Upgrade,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Upgrade {
    /// WebSocket, like current versions of Teleport.
    Websocket,
    /// Raw bytes, like Teleport 13.
    Alpn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// Bulk export, like Athena (all of Teleport Cloud).
    Export,
    /// Search by pages only, like the file, DynamoDB, Firestore and Postgres backends.
    Search,
}

#[derive(Debug, Args)]
pub(crate) struct SimReceiver {
    /// Address to listen on; port 0 chooses a free port.
    #[arg(long, default_value = "127.0.0.1:8888", value_name = "ADDR")]
    pub(crate) listen: SocketAddr,

    /// Directory for the CA and the client's certificate and key. Created if missing.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,

    /// How long to wait before each answer.
    #[arg(long, default_value = "0ms", value_parser = lockgate_config::duration_argument, value_name = "DURATION")]
    pub(crate) latency: Duration,

    /// Status to answer with, such as `503`, or a script such as `500x3,200`.
    #[arg(long, default_value = "200", value_name = "STATUS")]
    pub(crate) status: String,

    /// Append each document to this file, one per line.
    #[arg(long, value_name = "FILE")]
    pub(crate) capture: Option<PathBuf>,

    /// Stop capturing after this many documents.
    #[arg(long, value_name = "N", requires = "capture")]
    pub(crate) capture_max: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Reload {
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) place: Place,

    /// Print one JSON object instead of a table.
    #[arg(long, conflicts_with = "watch")]
    pub(crate) json: bool,

    /// Show the status on the whole terminal and update it every second, until Ctrl-C.
    #[arg(short, long)]
    pub(crate) watch: bool,

    /// Only tell by the exit status whether the host is alive or ready. This is for probes of
    /// Kubernetes, which cannot reach `/livez` and `/readyz` on loopback.
    #[arg(long, value_enum, conflicts_with_all = ["json", "watch"])]
    pub(crate) probe: Option<Probe>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Probe {
    /// A host runs and answers.
    Live,
    /// Every source and pipeline works. If not, the reasons are printed.
    Ready,
}

#[derive(Debug, Args)]
pub(crate) struct Audit {
    #[command(flatten)]
    pub(crate) place: Place,

    /// Only this pipeline.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["export", "verify"])]
    pub(crate) pipeline: Option<String>,

    /// Print only this day (UTC, by the time of the events), such as 2026-01-31, and read only the
    /// blocks with events of it. The chains are still verified as a whole.
    #[arg(long, value_name = "DAY", value_parser = crate::commands::audit::day, conflicts_with_all = ["export", "verify"])]
    pub(crate) day: Option<lockgate_model::Day>,

    /// Print one JSON object instead of text.
    #[arg(long)]
    pub(crate) json: bool,

    /// Also write a report with counts and chain heads to this new file, if the audit holds.
    ///
    /// The report is JSON with a SHA-256 digest over itself. Keep it, or at least its digest, where
    /// nobody who can write to the store can change it: then `--verify` proves later that nothing
    /// the report counts was changed. The digest is not a signature: it does not prove who made the
    /// report.
    #[arg(long, value_name = "FILE", conflicts_with = "verify")]
    pub(crate) export: Option<PathBuf>,

    /// Also compare the store with a report of an earlier `--export`.
    #[arg(long, value_name = "FILE")]
    pub(crate) verify: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub(crate) enum Plugin {
    /// Run one component over events from standard input, one JSON object per line. Results go to
    /// standard output, problems to standard error.
    Run(PluginRun),
    /// Print the documentation of a built-in plugin: what it does, and its `with` table.
    Help(PluginHelp),
}

#[derive(Debug, Args)]
pub(crate) struct PluginHelp {
    /// The name after `builtin:`, such as `filter`.
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct PluginRun {
    /// `builtin:NAME`, or the path of a component.
    pub(crate) component: String,

    /// The plugin's `with` table, as JSON.
    #[arg(long = "with", default_value = "{}", value_name = "JSON")]
    pub(crate) with: String,

    /// Treat the events as part of the recording of this session, not of the audit log.
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<String>,

    /// MaxMind database for looking up places, such as GeoLite2-City.mmdb.
    #[arg(long, value_name = "FILE")]
    pub(crate) lookup_city: Option<PathBuf>,

    /// MaxMind database for looking up networks, such as GeoLite2-ASN.mmdb.
    #[arg(long, value_name = "FILE")]
    pub(crate) lookup_asn: Option<PathBuf>,

    /// CPU time of one call, as `limits.time` in a configuration.
    #[arg(long, default_value = "1s", value_parser = lockgate_config::duration_argument, value_name = "DURATION")]
    pub(crate) limit_time: Duration,

    /// Memory of one instance, as `limits.memory` in a configuration.
    #[arg(long, default_value = "128 MiB", value_parser = lockgate_config::size_argument, value_name = "SIZE")]
    pub(crate) limit_memory: u64,

    /// Events per batch. As by default in a configuration (`limits.batch-time`), all calls for a
    /// batch may take 30 s of CPU time.
    #[arg(long, default_value_t = 500, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) batch: u32,

    /// Print how completely a mapper maps the events to ECS, instead of its documents.
    ///
    /// A table shows, per event type, the share of mapped events that have `event.category`,
    /// `event.type`, `event.outcome`, `user.name` and `related.*`. Below it are listed the source
    /// fields that remain unmapped, events that ended as `pipeline_error`, and events that failed.
    ///
    /// A field is unmapped if it remains under `teleport.audit`, at its own path and with its own
    /// value, and the index template of `lockgate assets elasticsearch` does not declare it. A list
    /// counts as one field, and so does a map with keys that users choose, such as labels; empty
    /// fields do not count. Unmapped fields are not reported if no document has `teleport.audit`,
    /// as with mappers that put unknown fields elsewhere. The exit status does not depend on the
    /// shares.
    #[arg(long)]
    pub(crate) coverage: bool,

    /// Print the coverage as one JSON object, with counts instead of shares.
    #[arg(long, requires = "coverage")]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Assets {
    /// Write index template, lifecycle policy, Kibana dashboard and Logstash pipeline for
    /// `builtin:ecs`, with instructions.
    Elasticsearch(AssetsTarget),
    /// Write alert rules for the metrics of a host and tests of them, with instructions.
    Prometheus(AssetsTarget),
    /// Write a dashboard of the metrics of a host, with instructions.
    Grafana(AssetsTarget),
    /// Print the reference of the configuration: every key with its default.
    Reference,
}

#[derive(Debug, Args)]
pub(crate) struct AssetsTarget {
    /// Directory for the files. Created if missing.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,

    /// Overwrite files with different content.
    #[arg(long)]
    pub(crate) force: bool,
}
