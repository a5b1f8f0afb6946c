//! `[teleport]` and `[sources.NAME]`: the clusters to read.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use lockgate_model::{FeedKind, Millis, OutboundProxy};
use toml::de::DeValue;

use crate::connect;
use crate::defaults;
use crate::event_types;
use crate::issues::Issue;
use crate::locks::{self, Locks};
use crate::name;
use crate::outbound;
use crate::pipeline::Pipeline;
use crate::quantity::Bounds;
use crate::reading::Reading;
use crate::table::{Table, list};
use crate::url::{is_host, is_port, split_port};
use crate::value::{Item, Value};

/// One Teleport cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// First half of the names of its streams. `[teleport]` is named `teleport`.
    pub name: String,
    /// `addr`: host and port of the Auth Service, or of the proxy.
    pub addr: String,
    /// `connect`: how the Auth Service is reached. Default: by what answers at `addr`.
    pub connect: Connect,
    /// Whether a proxy needs a connection upgrade, as `TELEPORT_TLS_ROUTING_CONN_UPGRADE` says;
    /// `None`: it does not say.
    pub upgrade: Option<bool>,
    /// Where the proxy's SSH tunnel is, as `TELEPORT_TUNNEL_PUBLIC_ADDR` says; `None`: it does not
    /// say.
    pub tunnel: Option<String>,
    /// The outbound proxy, as `HTTPS_PROXY` and `NO_PROXY` say.
    pub outbound: Option<OutboundProxy>,
    /// `proxy-ca`: the only authorities that may sign the proxy's certificate. Default: those that
    /// this machine trusts.
    pub proxy_ca: Option<PathBuf>,
    /// The span of its key in the TOML text.
    pub proxy_ca_span: Range<usize>,
    pub credentials: Credentials,
    /// `types`: the event types to read. Empty: all.
    pub types: Vec<String>,
    /// The span of its key in the TOML text.
    pub types_span: Range<usize>,
    /// `start-time`: older events are not read. Default: the time of Teleport's newest event at the
    /// first start, or of that start if it was earlier.
    pub start_time: Option<Millis>,
    /// The span of its value in the TOML text.
    pub start_time_span: Range<usize>,
    /// `window`: the time range of one query of the polling reader. Default 24 h, and more counts
    /// as that.
    pub window: Duration,
    /// `overlap`: what is read again every 30 s, for events that arrive late. Default 5 min.
    pub overlap: Duration,
    /// `sweep`: also read the last hour and the last two days again. Default true.
    pub sweep: bool,
    /// `gap-after`: how long reading waits at a part of the log that Teleport does not return,
    /// before it goes on after it. `None`: for ever. Default 10 min.
    pub gap_after: Option<Duration>,
    /// `keep-own-access`: keep the events that Teleport writes about our own downloads. Default
    /// false.
    pub keep_own_access: bool,
    /// `locks`: users with too many failed logins are locked. Default: they are not.
    pub locks: Locks,
    /// `concurrency`: session recordings downloaded at the same time. Default 5.
    pub concurrency: usize,
    /// The span of the name in the TOML text.
    pub span: Range<usize>,
    /// The span of `identity`, or of `cert`.
    pub credentials_span: Range<usize>,
    /// The spans of `key` and of `ca`; empty without them.
    pub key_span: Range<usize>,
    pub ca_span: Range<usize>,
}

/// How Teleport's Auth Service is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connect {
    Auto,
    /// At its own address.
    Auth,
    /// Through the proxy, by TLS routing.
    Proxy,
    /// The same in a connection upgrade.
    ProxyUpgrade,
    /// Through the proxy, by its SSH tunnel.
    SshTunnel,
}

/// How the host authenticates to Teleport.
#[derive(Clone, Debug, PartialEq)]
pub enum Credentials {
    /// `identity`: a file written by `tctl auth sign` or `tbot`.
    Identity(PathBuf),
    /// `cert`, `key` and `ca`.
    Trio {
        cert: PathBuf,
        key: PathBuf,
        ca: PathBuf,
    },
}

/// The type of the events that announce recordings.
const UPLOAD: &str = "session.upload";
const IDENTITY_EXAMPLE: &str = "identity = \"/var/lib/lockgate/identity\"";

/// Reads both spellings, in the order of the text.
pub(crate) fn read(r: &mut Reading<'_>, root: &mut Table<'_>) -> Vec<Source> {
    let short = root.optional("teleport");
    let mut values: Vec<_> = Vec::new();
    if let Some(table) = root.optional("sources").and_then(|value| value.table(r)) {
        r.known.insert("sources.*".into());
        values = table.named();
    }
    if let (Some(short), Some(long)) =
        (&short, values.iter().find(|value| value.name == "teleport"))
    {
        let message = "`[teleport]` and `[sources.teleport]` name the same source.";
        let hint = "keep one of them, or give the second cluster another name: `[sources.NAME]`";
        let (first, second) = if short.key_span.start < long.key_span.start {
            (short, long)
        } else {
            (long, short)
        };
        r.issue(
            Issue::new(second.whole_span(), message, "second", hint)
                .also(first.whole_span(), "first"),
        );
    }
    if short.is_none() && values.is_empty() {
        let hint =
            "add `[teleport]` with `addr = \"teleport.example.com:443\"` and `identity = \"…\"`";
        r.issue(Issue::new(0..0, "No source is configured.", "", hint));
    }
    for value in &values {
        name::check(r, "source", value);
    }
    values.extend(short);
    values.sort_by_key(|value| value.key_span.start);
    values.iter().filter_map(|value| source(r, value)).collect()
}

/// The names of all sources, including those with problems: referring to one of these is not a
/// second mistake.
pub(crate) fn names(root: &Table<'_>) -> Vec<String> {
    let mut values: Vec<_> = root.named();
    values.retain(|value| value.name == "teleport" || value.name == "sources");
    let inner = |value: &Value<'_>| match value.node() {
        DeValue::Table(table) if value.name == "sources" => {
            table.keys().map(|key| key.get_ref().to_string()).collect()
        }
        _ => vec![value.name.clone()],
    };
    let mut names: Vec<String> = values.iter().flat_map(inner).collect();
    names.sort();
    names.dedup();
    names
}

/// Recordings are announced by events: without those, a pipeline that reads recordings gets none.
pub(crate) fn check_types(r: &mut Reading<'_>, sources: &[Source], pipelines: &[Pipeline]) {
    for source in sources {
        let wants = |pipeline: &&Pipeline| {
            let mut inputs = pipeline.from.iter();
            inputs.any(|input| input.source == source.name && input.feed == FeedKind::Sessions)
        };
        let is_limited =
            !source.types.is_empty() && !source.types.iter().any(|name| name == UPLOAD);
        if let Some(pipeline) = pipelines.iter().find(wants).filter(|_| is_limited) {
            let message = format!(
                "`types` lacks `{UPLOAD}`, the event that announces a session recording: the \
                 pipeline `{}` would get no recordings.",
                pipeline.name
            );
            let hint =
                format!("add \"{UPLOAD}\", or remove `sessions` from `from` of the pipeline");
            r.issue(
                Issue::new(source.types_span.clone(), message, "lacks it", hint)
                    .also(pipeline.span.clone(), "reads recordings"),
            );
        }
    }
}

fn source(r: &mut Reading<'_>, value: &Value<'_>) -> Option<Source> {
    let mut table = value.table(r)?;
    // `[teleport]` is short for `[sources.teleport]`: one set of keys.
    table.pattern = "sources.*".into();
    let addr = table
        .required("addr", "addr = \"teleport.example.com:443\"")
        .and_then(|value| addr(r, &value))
        .unwrap_or_default();
    let connect = table.optional("connect");
    let connect = connect.map_or(Some(Connect::Auto), |value| connect::read(r, &value));
    let proxy_ca_span = table.span_of("proxy-ca").unwrap_or_default();
    let proxy_ca = table.optional("proxy-ca").and_then(|value| value.path(r));
    if connect == Some(Connect::Auth) && proxy_ca.is_some() {
        r.warnings.push(Issue::warning(
            proxy_ca_span.clone(),
            "`proxy-ca` has no effect with `connect = \"auth\"`.",
            "not used",
            "remove one of the two",
        ));
    }
    let upgrade = match connect {
        Some(Connect::Auto) => connect::upgrade(r, &addr, value.key_span.clone()),
        _ => None,
    };
    let tunnel = match connect {
        Some(Connect::Auto | Connect::SshTunnel) => connect::tunnel(r, value.key_span.clone()),
        _ => None,
    };
    let outbound = outbound::proxy(r, &addr, value.key_span.clone());
    let credentials_span = ["identity", "cert"]
        .iter()
        .find_map(|key| table.span_of(key))
        .unwrap_or_else(|| value.key_span.clone());
    let [key_span, ca_span] = ["key", "ca"].map(|key| table.span_of(key).unwrap_or_default());
    let credentials = credentials(r, &mut table);
    if connect == Some(Connect::SshTunnel) && matches!(credentials, Some(Credentials::Trio { .. }))
    {
        r.issue(Issue::new(
            credentials_span.clone(),
            "`connect = \"ssh-tunnel\"` needs an identity file.",
            "has no SSH certificate",
            "write `identity = \"PATH\"` instead of `cert`, `key` and `ca`",
        ));
    }
    let types_span = table.span_of("types").unwrap_or_default();
    let types = table
        .optional("types")
        .map(|value| types(r, &value))
        .unwrap_or_default();
    let start_time_span = table.span_of("start-time").unwrap_or_default();
    let start_time = table
        .optional("start-time")
        .and_then(|value| time(r, &value));
    let window = table.quantity(r, "window", defaults::WINDOW);
    let overlap = table.quantity(r, "overlap", defaults::OVERLAP);
    let sweep = table.optional("sweep");
    let sweep = sweep.and_then(|value| value.flag(r)).unwrap_or(true);
    let gap_after = gap_after(r, &mut table);
    let keep_own_access = table.optional("keep-own-access");
    let keep_own_access = keep_own_access
        .and_then(|value| value.flag(r))
        .unwrap_or(false);
    let concurrency = table.quantity(r, "concurrency", defaults::CONCURRENCY).0 as usize;
    let locks = locks::read(r, &mut table, (&types, types_span.clone()));
    table.finish_with(r, |key| match key {
        "window-size" => Some("the key is called `window`".into()),
        "skip-event-types" | "skip-session-types" => Some(
            "drop event types in a `builtin:filter` stage instead, with `skip` in its `with` table"
                .into(),
        ),
        _ => None,
    });
    Some(Source {
        name: value.name.clone(),
        addr,
        connect: connect?,
        upgrade,
        tunnel,
        outbound,
        proxy_ca,
        proxy_ca_span,
        credentials: credentials?,
        types,
        types_span,
        start_time,
        start_time_span,
        window,
        overlap,
        sweep,
        gap_after,
        keep_own_access,
        locks,
        concurrency,
        span: value.key_span.clone(),
        credentials_span,
        key_span,
        ca_span,
    })
}

/// A duration, or `never`.
fn gap_after(r: &mut Reading<'_>, table: &mut Table<'_>) -> Option<Duration> {
    let Bounds {
        default,
        least,
        most,
    } = defaults::GAP_AFTER;
    let Some(value) = table.optional("gap-after") else {
        return Some(default);
    };
    if let DeValue::String(text) = value.node()
        && text.as_ref() == "never"
    {
        return None;
    }
    value.quantity(r, least, most, Some(default))
}

fn addr(r: &mut Reading<'_>, value: &Value<'_>) -> Option<String> {
    let addr = value.text(r)?;
    let (host, port) = split_port(&addr);
    let hint = "write host and port of Teleport's proxy or of its Auth Service, for example \
                `addr = \"teleport.example.com:443\"`";
    let (problem, label) = if addr.contains("://") {
        ("is a URL", "only host and port")
    } else if port.is_none() {
        ("has no port", "no port")
    } else if !is_host(host) {
        ("has no valid host", "no valid host")
    } else if !port.is_some_and(is_port) {
        ("has no valid port", "ports are 1 to 65535")
    } else {
        return Some(addr);
    };
    r.issue(Issue::new(
        r.place(value),
        format!("`{}` {problem}.", value.path),
        label,
        hint,
    ));
    None
}

/// Either the identity file or the whole trio, as in Teleport's Event Handler.
fn credentials(r: &mut Reading<'_>, table: &mut Table<'_>) -> Option<Credentials> {
    let identity = table.optional("identity");
    let trio = ["cert", "key", "ca"].map(|key| (key, table.optional(key)));
    let given: Vec<_> = trio
        .iter()
        .filter_map(|(key, value)| value.as_ref().map(|value| (*key, value.clone())))
        .collect();
    let paths = trio
        .clone()
        .map(|(_, value)| value.and_then(|value| value.path(r)));
    match (identity, given.first()) {
        (Some(identity), None) => return identity.path(r).map(Credentials::Identity),
        (Some(identity), Some((_, first))) => {
            let keys: Vec<&str> = given.iter().map(|(key, _)| *key).collect();
            let message = format!(
                "`identity` cannot be combined with {} in `{}`.",
                list(&keys),
                table.path
            );
            let (a, b) = if identity.key_span.start < first.key_span.start {
                (&identity, first)
            } else {
                (first, &identity)
            };
            let hint = "keep `identity`, or all of `cert`, `key` and `ca`";
            r.issue(
                Issue::new(b.key_span.clone(), message, "second", hint)
                    .also(a.key_span.clone(), "first"),
            );
        }
        (None, None) => {
            let message = format!("{} has no credentials.", table.title());
            let hint = format!("add `{IDENTITY_EXAMPLE}`, or `cert`, `key` and `ca`");
            table.miss(
                "identity",
                Issue::new(table.span.clone(), message, "no `identity`", hint),
            );
        }
        (None, Some((_, first))) if given.len() < 3 => {
            let missing: Vec<&str> = trio
                .iter()
                .filter(|(_, value)| value.is_none())
                .map(|(key, _)| *key)
                .collect();
            let keys: Vec<&str> = given.iter().map(|(key, _)| *key).collect();
            let message = format!(
                "`{}` has {}, but not {}.",
                table.path,
                list(&keys),
                list(&missing)
            );
            r.issue(Issue::new(
                first.key_span.clone(),
                message,
                format!("needs {} too", list(&missing)),
                "`cert`, `key` and `ca` belong together",
            ));
        }
        (None, Some(_)) => {
            if let [Some(cert), Some(key), Some(ca)] = paths {
                return Some(Credentials::Trio { cert, key, ca });
            }
        }
    }
    None
}

/// A list, or one string with commas, as the Event Handler accepts it.
fn types(r: &mut Reading<'_>, value: &Value<'_>) -> Vec<String> {
    let example = "types = [\"session.start\", \"user.login\"]";
    let listed = match value.node() {
        DeValue::String(_) => {
            let text = value.text(r).unwrap_or_default();
            let names = text.split(',').map(str::trim);
            let names: Vec<String> = names
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect();
            for name in &names {
                let span = r.reference_span(value, name);
                r.warnings.extend(event_types::check(name, name, span));
            }
            return names;
        }
        DeValue::Array(_) => value.texts(r, example).unwrap_or_default(),
        _ => {
            value.wrong_type(r, "a list of strings", format!("write `{example}`"));
            vec![]
        }
    };
    let mut types: Vec<String> = Vec::new();
    for Item {
        text: name,
        shown,
        span,
    } in listed
    {
        let (problem, label, hint) = if name.is_empty() || name.contains([',', ' ', '\t', '\n']) {
            (
                format!("`{shown}` is not a single event type."),
                "not a single event type",
                format!("write one event type in each string, for example `{example}`"),
            )
        } else if types.contains(&name) {
            (
                format!("The event type `{shown}` is listed twice."),
                "duplicate",
                "name each type once".to_owned(),
            )
        } else {
            r.warnings.extend(event_types::check(&name, &shown, span));
            types.push(name);
            continue;
        };
        r.issue(Issue::new(span, problem, label, hint));
    }
    types
}

/// RFC 3339, as a string or as TOML's own date-time.
fn time(r: &mut Reading<'_>, value: &Value<'_>) -> Option<Millis> {
    let (text, shown) = match value.node() {
        DeValue::Datetime(date) => (date.to_string(), date.to_string()),
        DeValue::String(shown) => (value.text(r)?, shown.to_string()),
        _ => {
            value.wrong_type(r, "a time", "write `start-time = \"2026-01-01T00:00:00Z\"`");
            return None;
        }
    };
    match text.parse::<jiff::Timestamp>() {
        Ok(time) => Some(time.as_millisecond()),
        Err(_) => {
            let message = format!("`{}`: `{shown}` is not an RFC 3339 date-time.", value.path);
            r.issue(Issue::new(
                value.span(),
                message,
                "needs a date, a time and a zone",
                "write `start-time = \"2026-01-01T00:00:00Z\"`",
            ));
            None
        }
    }
}
