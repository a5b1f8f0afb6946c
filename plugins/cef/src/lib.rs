//! `builtin:cef`: makes a line in ArcSight's Common Event Format of each event. See its README.

mod line;
mod severity;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use lockgate_plugin::{
    Access, Batch, ConfigIssue, Event, Mapper, Outcome, StageSetup, config, json,
};
use serde::Deserialize;

use line::Line;

/// The custom texts of CEF: `cs1` to `cs6`.
const CUSTOM_MAX: usize = 6;

/// The operator's `with` table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    pub device_version: Option<String>,
    /// Paths by their labels.
    pub custom: Option<BTreeMap<String, String>>,
}

/// The configured mapper.
#[derive(Debug)]
pub struct Cef {
    device_version: String,
    /// Labels and paths, in the order of their keys `cs1` to `cs6`.
    custom: Vec<(String, String)>,
}

/// Keys of the extension whose values are texts or numbers of the event, and their paths.
const PLAIN: [(&str, &str); 14] = [
    ("suser", "user"),
    ("duser", "login"),
    ("dhost", "server_hostname"),
    ("dvchost", "cluster_name"),
    ("app", "proto"),
    ("destinationServiceName", "app_name"),
    ("requestClientApplication", "user_agent"),
    ("requestMethod", "verb"),
    ("request", "request_path"),
    ("filePath", "path"),
    ("in", "rx"),
    ("out", "tx"),
    ("reason", "error"),
    ("msg", "message"),
];

const CUSTOM: [(&str, &str); 6] = [
    ("Session", "sid"),
    ("Method", "method"),
    ("Command", "command"),
    ("Database", "db_service"),
    ("Kubernetes cluster", "kubernetes_cluster"),
    ("Name", "name"),
];

impl Mapper for Cef {
    type Config = Config;

    fn configure(config: Config) -> Result<(Cef, StageSetup), Vec<ConfigIssue>> {
        let issues = problems(&config);
        if !issues.is_empty() {
            return Err(issues);
        }
        let custom = match config.custom {
            Some(custom) => custom.into_iter().collect(),
            None => CUSTOM
                .map(|(label, path)| (label.into(), path.into()))
                .into(),
        };
        let cef = Cef {
            device_version: config.device_version.unwrap_or_else(|| "unknown".into()),
            custom,
        };
        Ok((cef, StageSetup::new(Access::Payload)))
    }

    fn map(&self, _: &Batch, event: Event) -> Outcome {
        match self.line(&event) {
            Ok(line) => {
                let mut document = String::from("{\"cef\":");
                json::write_text(&mut document, &line);
                document.push('}');
                Outcome::document(document)
            }
            Err(malformed) => Outcome::Reject(malformed.to_string()),
        }
    }
}

impl Cef {
    fn line(&self, event: &Event) -> Result<String, json::Malformed> {
        let payload = &event.payload;
        let find = |path: &str| Ok(json::find(payload, path)?.map(shown).unwrap_or_default());
        let success = json::find(payload, "success")?;
        // What has no code has no other name either.
        let id = match event.code.as_str() {
            "" => &event.event_type,
            code => code,
        };
        let header = [
            "Teleport",
            "Teleport",
            &self.device_version,
            id,
            &event.event_type,
        ];
        let severity = severity::of(&event.code, success);
        let mut line = Line::new(header, severity);
        line.add("rt", &event.time.to_string());
        line.add("externalId", &event.key);
        line.add("cat", &event.feed);
        line.add(
            "outcome",
            match success {
                Some("true") => "success",
                Some("false") => "failure",
                _ => "",
            },
        );
        SOURCE.add(&mut line, &find("addr.remote")?);
        DESTINATION.add(&mut line, &find("addr.local")?);
        for (key, path) in PLAIN {
            line.add(key, &find(path)?);
        }
        for (number, (label, path)) in (1..).zip(&self.custom) {
            line.add_labelled(&format!("cs{number}"), label, &find(path)?);
        }
        line.add_labelled("cn1", "Event index", &event.index.to_string());
        Ok(line.finish())
    }
}

/// The keys of one side of a connection.
struct Side {
    address: &'static str,
    /// Of CEF's custom addresses, for IPv6.
    ipv6: &'static str,
    ipv6_label: &'static str,
    port: &'static str,
    /// For what is not an IP address.
    host: Option<&'static str>,
}

const SOURCE: Side = Side {
    address: "src",
    ipv6: "c6a2",
    ipv6_label: "Source IPv6 Address",
    port: "spt",
    host: Some("shost"),
};

const DESTINATION: Side = Side {
    address: "dst",
    ipv6: "c6a3",
    ipv6_label: "Destination IPv6 Address",
    port: "dpt",
    // It has the name of the server.
    host: None,
};

impl Side {
    /// `IP:port`, or whatever else Teleport knows of an address.
    fn add(&self, line: &mut Line, address: &str) {
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() => (host, port),
            _ => (address, ""),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        match (host.parse(), self.host) {
            (Ok(IpAddr::V4(_)), _) => line.add(self.address, host),
            (Ok(IpAddr::V6(_)), _) => line.add_labelled(self.ipv6, self.ipv6_label, host),
            (Err(_), Some(key)) => line.add(key, host),
            (Err(_), None) => {}
        }
        line.add(self.port, port);
    }
}

/// A text without its quotes, or any other value as it is; `null` is empty.
fn shown(value: &str) -> Cow<'_, str> {
    match value {
        "null" => Cow::Borrowed(""),
        value => json::text(value).unwrap_or(Cow::Borrowed(value)),
    }
}

fn problems(config: &Config) -> Vec<ConfigIssue> {
    let mut issues = vec![];
    if config.device_version.as_deref().is_some_and(str::is_empty) {
        let message = "`device-version` is empty.";
        issues.push(ConfigIssue::new("device-version", message).help("leave it out"));
    }
    let custom = config.custom.iter().flatten();
    for (label, path) in custom.clone() {
        let place = config::join("custom", label);
        if label.is_empty() {
            issues.push(ConfigIssue::new(&place, "A label is empty."));
        }
        if path.is_empty() {
            let message = format!("The path of `{label}` is empty.");
            issues.push(ConfigIssue::new(&place, message).help("such as `sid`"));
        }
    }
    if custom.count() > CUSTOM_MAX {
        let message = format!("CEF has {CUSTOM_MAX} custom texts.");
        issues.push(ConfigIssue::new("custom", message).help("leave out the least important"));
    }
    issues
}

lockgate_plugin::mapper!(Cef);

#[cfg(test)]
mod tests {
    use lockgate_plugin::test;

    use super::*;

    fn line(with: &str, payload: &str) -> String {
        let (cef, setup) = test::configure::<Cef>(with).unwrap();
        assert_eq!(setup.subscription.access, Access::Payload);
        let Outcome::Emit(documents) = cef.map(&test::batch(), test::event(payload)) else {
            panic!("{payload}");
        };
        let text = json::find(&documents[0].payload, "cef").unwrap();
        text.and_then(json::text).unwrap().into_owned()
    }

    #[test]
    fn an_event_is_a_line() {
        for (payload, expected) in [
            (
                r#"{"uid":"u-1","event":"user.login","code":"T1000W","user":"zo\u00eb","success":false,"error":"a=b\nc","addr.remote":"192.0.2.7:5022","method":"local","user_agent":"x|y"}"#,
                r"CEF:0|Teleport|Teleport|unknown|T1000W|user.login|6|rt=1767600000000 externalId=u-1 cat=audit outcome=failure src=192.0.2.7 spt=5022 suser=zoë requestClientApplication=x|y reason=a\=b\nc cs2=local cs2Label=Method cn1=0 cn1Label=Event index",
            ),
            (
                r#"{"uid":"u-2","event":"session.start","code":"T2000I","addr.remote":"[2001:db8::7]:1","addr.local":"10.0.0.1:3022","login":"root","server_hostname":"db|1","sid":"s-1"}"#,
                r"CEF:0|Teleport|Teleport|unknown|T2000I|session.start|3|rt=1767600000000 externalId=u-2 cat=audit c6a2=2001:db8::7 c6a2Label=Source IPv6 Address spt=1 dst=10.0.0.1 dpt=3022 duser=root dhost=db|1 cs1=s-1 cs1Label=Session cn1=0 cn1Label=Event index",
            ),
            (
                r#"{"uid":"u-3","event":"x","addr.remote":"proxy.local","user":null,"command":"a\\b"}"#,
                r"CEF:0|Teleport|Teleport|unknown|x|x|3|rt=1767600000000 externalId=u-3 cat=audit shost=proxy.local cs3=a\\b cs3Label=Command cn1=0 cn1Label=Event index",
            ),
        ] {
            assert_eq!(line("{}", payload), expected);
        }
        let with =
            r#"{"device-version":"17.4","custom":{"Roles":"roles","Env":"server_labels.env"}}"#;
        let payload =
            r#"{"uid":"u-4","event":"x","roles":["a","b"],"server_labels":{"env":"prod"}}"#;
        assert_eq!(
            line(with, payload),
            r#"CEF:0|Teleport|Teleport|17.4|x|x|3|rt=1767600000000 externalId=u-4 cat=audit cs1=prod cs1Label=Env cs2=["a","b"] cs2Label=Roles cn1=0 cn1Label=Event index"#
        );
    }

    #[test]
    fn mistakes_are_explained() {
        for (with, expected) in [
            (
                r#"{"device-version":""}"#,
                "device-version: `device-version` is empty. (leave it out)",
            ),
            (
                r#"{"custom":{"A":""}}"#,
                "custom.A: The path of `A` is empty. (such as `sid`)",
            ),
            (
                r#"{"custom":{"A":"a","B":"a","C":"a","D":"a","E":"a","F":"a","G":"a"}}"#,
                "custom: CEF has 6 custom texts. (leave out the least important)",
            ),
        ] {
            assert_eq!(test::issues::<Cef>(with), [expected]);
        }
    }
}
