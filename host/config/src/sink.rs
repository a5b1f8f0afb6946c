//! `[pipelines.NAME.sink]`: the component that encodes, and the endpoints that the host sends to.
//! The only table that may hold secrets.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use lockgate_model::request::{is_header_name, is_refused_header};
use lockgate_model::{FileTarget, OutboundProxy, Secret};

use crate::auth::{self, Auth};
use crate::defaults::{RATE_IN_FLIGHT, TIMEOUT};
use crate::files::{self, Files};
use crate::issues::Issue;
use crate::outbound;
use crate::plaintext;
use crate::plugin::{Declared, Plugin, key_hint, refer};
use crate::quantity::Count;
use crate::reading::Reading;
use crate::rotation::CredentialOrigin;
use crate::table::Table;
use crate::units::EventRate;
use crate::url;
use crate::value::Value;
use crate::with::With;

#[derive(Clone, Debug, PartialEq)]
pub struct Sink {
    pub plugin: Plugin,
    /// `url`: `http` or `https`, without user and fragment; or a file, as `files` says.
    pub url: Secret,
    /// `session-url`: where session recordings go, if not to `url`.
    pub session_url: Option<Secret>,
    /// `allow-link-local`: such an address may be written in a URL. Default: false.
    pub allow_link_local: bool,
    /// `proxy`, or what `HTTPS_PROXY` and `NO_PROXY` say.
    pub proxy: Option<OutboundProxy>,
    /// If the URLs name files.
    pub files: Option<Files>,
    pub tls: Tls,
    /// `headers`: set by the host on every request.
    pub headers: Vec<(String, Secret)>,
    /// `allow-headers`: what the plugin may set beyond the headers that every sink may. In lower
    /// case.
    pub allow_headers: Vec<String>,
    pub auth: Option<Auth>,
    /// `compression`: of the bodies of requests, or of closed files. Default: none.
    pub compression: Option<Compression>,
    pub rate: Rate,
    /// `timeout`: one request, from connecting to the last byte of the response. Default 30 s.
    pub timeout: Duration,
    pub with: With,
    pub(crate) origin: CredentialOrigin,
    /// The span of `url` in the TOML text.
    pub url_span: Range<usize>,
    /// The span of `tls`, or of `url` if there is no `tls`.
    pub tls_span: Range<usize>,
}

/// `tls`: paths of PEM files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tls {
    /// `ca`: the roots that the receiver's certificate is checked against. Default: those of the
    /// system.
    pub ca: Option<PathBuf>,
    /// `cert` and `key`: the certificate that the host presents to the receiver.
    pub client: Option<ClientCertificate>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ClientCertificate {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// `compression`: the `Content-Encoding` of requests, or the format of closed files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    Gzip,
    Zstd,
}

/// `rate`: limits on what the receiver gets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// `events`. Default: no limit.
    pub events: Option<EventRate>,
    /// `in-flight`: requests at the same time. Default: the `in-flight` of the pipeline.
    pub in_flight: usize,
}

/// Keys that are recognised as a sink's when they are found elsewhere.
pub(crate) const KEYS: [&str; 14] = [
    "plugin",
    "url",
    "session-url",
    "tls",
    "headers",
    "allow-headers",
    "auth",
    "compression",
    "rotate",
    "rate",
    "timeout",
    "allow-plaintext",
    "allow-link-local",
    "proxy",
];

const COMPRESSIONS: [(&str, Option<Compression>); 3] = [
    ("none", None),
    ("gzip", Some(Compression::Gzip)),
    ("zstd", Some(Compression::Zstd)),
];

/// The hint for an empty secret.
pub(crate) const SECRET_HINT: &str = "write it as `\"${env:NAME}\"` or `\"${file:PATH}\"`";
const URL_HINT: &str = "for example `https://logs.example.com:8443/audit`";

impl Sink {
    /// The span in the TOML text of a dotted path inside `with`, as plugins report it.
    pub fn locate(&self, path: &str) -> Range<usize> {
        self.with.locate(path)
    }
}

/// `pipeline`: its name. `in_flight`: the pipeline's.
pub(crate) fn read(
    r: &mut Reading<'_>,
    value: &Value<'_>,
    pipeline: &str,
    declared: &Declared,
    in_flight: usize,
) -> Option<Sink> {
    r.origins.clear();
    let mut table = value.table(r)?;
    let plugin_value = table.required("plugin", "plugin = \"builtin:fluentd\"");
    let component = plugin_value.as_ref().map(|value| value.shown().to_owned());
    let plugin = plugin_value.and_then(|value| refer(r, declared, &value));
    let url_value = table.required("url", "url = \"https://logs.example.com:8443/audit\"");
    let url = url_value.as_ref().and_then(|value| endpoint(r, value));
    let session_value = table.optional("session-url");
    let session_url = session_value.as_ref().and_then(|value| endpoint(r, value));
    let tls_value = table.optional("tls");
    let tls = tls_value
        .as_ref()
        .map(|value| tls(r, value, url.as_ref(), session_url.as_ref()))
        .unwrap_or_default();
    let headers_table = table.optional("headers").and_then(|value| value.table(r));
    let headers = headers_table
        .as_ref()
        .map(|table| headers(r, table))
        .unwrap_or_default();
    let allow_headers = table
        .optional("allow-headers")
        .map(|value| allow_headers(r, &value, &headers))
        .unwrap_or_default();
    let allow_plaintext = table
        .optional("allow-plaintext")
        .and_then(|value| value.flag(r))
        .unwrap_or(false);
    let auth_value = table.optional("auth");
    let auth = auth_value
        .as_ref()
        .and_then(|value| auth::read(r, value, &headers, allow_plaintext));
    if !allow_plaintext {
        let auth = auth_value.map(|value| (value.path.clone(), value.key_span.clone()));
        let headers = headers_table.into_iter().flat_map(|table| table.named());
        let headers = headers.filter_map(|value| plaintext::header(&value));
        let credentials: Vec<_> = auth.into_iter().chain(headers).collect();
        for (value, url) in [(&url_value, &url), (&session_value, &session_url)] {
            if let (Some(value), Some(url)) = (value, url) {
                plaintext::check(r, value, url, &credentials);
            }
        }
    }
    let proxy = match (table.optional("proxy"), &url_value, &url) {
        (Some(value), ..) => outbound::written(r, &value),
        (None, Some(value), Some(url)) => {
            let span = value.key_span.clone();
            outbound::proxy(r, url::authority(url.expose()), span)
        }
        _ => None,
    };
    let allow_link_local = table
        .optional("allow-link-local")
        .and_then(|value| value.flag(r))
        .unwrap_or(false);
    let compression = table
        .optional("compression")
        .and_then(|value| value.choice(r, &COMPRESSIONS))
        .flatten();
    let mut named = |value: &Option<Value<'_>>, url: &Option<Secret>| {
        let (value, url) = (value.as_ref()?, url.as_ref()?);
        Some(files::named(r, value, url.expose()))
    };
    let of_url = named(&url_value, &url);
    let of_session_url = session_value
        .as_ref()
        .zip(named(&session_value, &session_url));
    let files = files::read(r, &mut table, of_url, of_session_url, compression.is_some());
    let mut rate = Rate {
        events: None,
        in_flight,
    };
    if let Some(mut table) = table.optional("rate").and_then(|value| value.table(r)) {
        rate.events = table.optional("events").and_then(|value| value.rate(r));
        let (least, most) = RATE_IN_FLIGHT;
        let own = table
            .optional("in-flight")
            .and_then(|value| value.quantity(r, least, most, Some(Count(in_flight as u64))));
        rate.in_flight = own.map_or(in_flight, |count| count.0 as usize);
        table.finish(r);
    }
    let timeout = table.quantity(r, "timeout", TIMEOUT);
    let with = match table.optional("with") {
        Some(with) => With::read(r, &with),
        None => With::empty(table.span.clone()),
    };
    table.finish_with(r, |key| match key {
        "cert" | "key" | "ca" => Some(format!("write `tls = {{ {key} = \"…\" }}`")),
        "bearer" | "token" | "password" | "user" => Some(
            "write `auth = { bearer = \"${env:NAME}\" }` or `auth = { basic = { user = \"…\", \
             password = \"${env:NAME}\" } }`"
                .into(),
        ),
        "state" => Some("a sink keeps no state".into()),
        key => key_hint(key, component.as_deref()),
    });
    let values = std::mem::take(&mut r.origins);
    let origin = CredentialOrigin::new(r, pipeline, values);
    let url_span = url_value?.whole_span();
    let tls_span = tls_value.map_or_else(|| url_span.clone(), |value| value.whole_span());
    Some(Sink {
        plugin: plugin?,
        url: url?,
        session_url,
        allow_link_local,
        proxy,
        files,
        tls,
        headers,
        allow_headers,
        auth,
        compression,
        rate,
        timeout,
        with,
        origin,
        url_span,
        tls_span,
    })
}

fn endpoint(r: &mut Reading<'_>, value: &Value<'_>) -> Option<Secret> {
    let url = value.secret(r, URL_HINT)?;
    if FileTarget::parse(url.expose()).is_some() {
        return Some(url);
    }
    let Some((problem, hint)) = url::problem(url.expose()) else {
        return Some(url);
    };
    r.issue(Issue::new(
        value.key_span.clone(),
        format!("`{}` {problem}.", value.path),
        "",
        hint,
    ));
    None
}

fn tls(
    r: &mut Reading<'_>,
    value: &Value<'_>,
    url: Option<&Secret>,
    session_url: Option<&Secret>,
) -> Tls {
    let Some(mut table) = value.table(r) else {
        return Tls::default();
    };
    let ca = table.optional("ca").and_then(|value| value.path(r));
    let (cert, key) = (table.optional("cert"), table.optional("key"));
    if let (Some(one), None) | (None, Some(one)) = (&cert, &key) {
        let other = if one.name == "cert" { "key" } else { "cert" };
        let message = format!("`{}` has `{}`, but no `{other}`.", value.path, one.name);
        r.issue(Issue::new(
            one.whole_span(),
            message,
            format!("needs `{other}` too"),
            "a client certificate needs both `cert` and `key`",
        ));
    }
    let paths = (
        cert.and_then(|value| value.path(r)),
        key.and_then(|value| value.path(r)),
    );
    table.finish(r);
    let plain = |url: Option<&Secret>| {
        url.is_none_or(|url| url.expose().to_ascii_lowercase().starts_with("http://"))
    };
    if url.is_some() && plain(url) && plain(session_url) {
        let message = format!("`{}` has no effect: the URL is not `https`.", value.path);
        r.issue(Issue::new(
            value.key_span.clone(),
            message,
            "no effect",
            "write `https://` in `url`, or remove `tls`",
        ));
    }
    let client = if let (Some(cert), Some(key)) = paths {
        Some(ClientCertificate { cert, key })
    } else {
        None
    };
    Tls { ca, client }
}

fn headers(r: &mut Reading<'_>, table: &Table<'_>) -> Vec<(String, Secret)> {
    r.known.insert(format!("{}.*", table.pattern));
    let mut headers: Vec<(String, Secret)> = Vec::new();
    for value in table.named() {
        let again = headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case(&value.name));
        if header_name(r, &value.name, &value.name, &value.key_span) && again {
            let message = format!("The header `{}` is set twice.", value.name);
            let hint = "keep one of them; header names are case-insensitive";
            r.issue(Issue::new(
                value.key_span.clone(),
                message,
                "duplicate",
                hint,
            ));
        }
        let secret = header_value(r, &value);
        headers.push((value.name.clone(), secret.unwrap_or_default()));
    }
    headers
}

/// Names that a sink may set: none of the host's, and none that the operator sets.
fn allow_headers(
    r: &mut Reading<'_>,
    value: &Value<'_>,
    headers: &[(String, Secret)],
) -> Vec<String> {
    let mut allowed: Vec<String> = Vec::new();
    let example = "allow-headers = [\"x-request-id\"]";
    for item in value.texts(r, example).unwrap_or_default() {
        if !header_name(r, &item.text, &item.shown, &item.span) {
            continue;
        }
        let is_set = |(name, _): &(String, Secret)| name.eq_ignore_ascii_case(&item.text);
        if headers.iter().any(is_set) {
            r.issue(Issue::new(
                item.span,
                format!(
                    "The header `{}` is set by `headers`, so the plugin cannot set it.",
                    item.shown
                ),
                "no effect",
                "name it in `headers` or in `allow-headers`, not in both",
            ));
            continue;
        }
        let name = item.text.to_ascii_lowercase();
        if !allowed.contains(&name) {
            allowed.push(name);
        }
    }
    allowed
}

/// Whether `name` is a token and not a header that the host sets itself. `shown`: the name in
/// messages. `span`: the text to underline.
pub(crate) fn header_name(
    r: &mut Reading<'_>,
    name: &str,
    shown: &str,
    span: &Range<usize>,
) -> bool {
    let (message, label, hint) = if !is_header_name(name) {
        (
            format!("`{shown}` is not a valid header name."),
            "not a token",
            "use letters, digits and `-`, without spaces or colons".to_owned(),
        )
    } else if name.eq_ignore_ascii_case("authorization") {
        (
            "`Authorization` is set by `auth`.".to_owned(),
            "not here",
            "set it in `auth`: `bearer`, `basic`, or `header` for any other scheme".to_owned(),
        )
    } else if is_refused_header(name) || name.eq_ignore_ascii_case("content-encoding") {
        (
            format!("Lockgate sets the header `{shown}` itself."),
            "not here",
            "remove it".to_owned(),
        )
    } else {
        return true;
    };
    r.issue(Issue::new(span.clone(), message, label, hint));
    false
}

/// Visible ASCII and spaces, which every HTTP server accepts.
pub(crate) fn header_value(r: &mut Reading<'_>, value: &Value<'_>) -> Option<Secret> {
    let secret = value.secret(r, SECRET_HINT)?;
    let text = secret.expose();
    if text
        .bytes()
        .all(|byte| byte == b' ' || byte.is_ascii_graphic())
        && text.trim() == text
    {
        return Some(secret);
    }
    let message = format!("The value of `{}` cannot be sent in a header.", value.path);
    let hint = "use visible ASCII, without line breaks and without leading or trailing spaces";
    r.issue(Issue::new(
        value.key_span.clone(),
        message,
        "not a header value",
        hint,
    ));
    None
}
