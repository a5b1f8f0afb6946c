//! Tests of the crate as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::env::VarError;
use std::io;
use std::path::Path;
use std::time::Duration;

use expect_test::{Expect, expect};
use proptest::prelude::*;
use toml::de::{DeTable, DeValue};

use crate::mask::PLAIN_KEYS;
use crate::*;

/// An environment that a test defines.
#[derive(Default)]
struct Fixed {
    variables: BTreeMap<&'static str, &'static str>,
    files: BTreeMap<&'static str, &'static [u8]>,
}

impl Environment for Fixed {
    fn variable(&self, name: &str) -> Result<String, VarError> {
        self.variables
            .get(name)
            .map(|value| (*value).to_owned())
            .ok_or(VarError::NotPresent)
    }

    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let found = path.to_str().and_then(|path| self.files.get(path));
        found
            .map(|bytes| bytes.to_vec())
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

const SMALLEST: &str = r#"
[teleport]
addr = "teleport.example.com:443"
identity = "identity"

[store]
path = "state"

[pipelines.siem.sink]
plugin = "builtin:fluentd"
url = "https://logs.example.com/"
"#;

fn good(text: &str, environment: &Fixed) -> Config {
    parse(
        "lockgate.toml",
        text,
        Path::new("/etc/lockgate"),
        environment,
    )
    .unwrap()
}

/// The dotted keys of a table, with `*` for the names that operators choose. Keys inside `with`
/// belong to the plugin.
fn keys(table: &DeTable<'_>, prefix: &str, found: &mut BTreeSet<String>) {
    for (key, value) in table {
        let chosen =
            ["sources", "plugins", "pipelines"].contains(&prefix) || prefix.ends_with(".headers");
        let name = if chosen { "*" } else { key.get_ref().as_ref() };
        let path = if prefix.is_empty() {
            name.to_owned()
        } else {
            format!("{prefix}.{name}")
        };
        if name != "with" {
            match value.get_ref() {
                DeValue::Table(table) => keys(table, &path, found),
                DeValue::Array(array) => {
                    for table in array.iter().filter_map(|item| item.get_ref().as_table()) {
                        keys(table, &path, found);
                    }
                }
                _ => {}
            }
        }
        found.insert(path);
    }
}

#[test]
fn the_reference_documents_every_key() {
    let environment = Fixed {
        variables: [
            ("LOGS_PASSWORD", "p"),
            ("LOGS_TOKEN", "t"),
            ("LOGS_KEY", "k"),
        ]
        .into(),
        ..Fixed::default()
    };
    let (result, known) = read(
        "reference.toml",
        REFERENCE,
        Path::new(""),
        &HandlerOptions::default(),
        &environment,
    );
    result.unwrap();
    let mut documented = BTreeSet::new();
    keys(
        DeTable::parse(REFERENCE).unwrap().get_ref(),
        "",
        &mut documented,
    );
    // The short form of `[sources.teleport]` cannot be used together with it.
    documented.insert("teleport".into());
    assert_eq!(documented, known.into_iter().collect());
}

#[test]
fn a_sink_takes_its_own_proxy_or_that_of_the_environment() {
    let environment = Fixed {
        variables: [
            ("HTTPS_PROXY", "http://me:s3cret@proxy.example.com:3128"),
            ("NO_PROXY", "internal.example.com"),
            ("OWN_PROXY", "socks5://own.example.com"),
        ]
        .into(),
        ..Fixed::default()
    };
    let url = "url = \"https://logs.example.com/\"\n";
    for (more, expected) in [
        ("", Some(("http://proxy.example.com:3128", "HTTPS_PROXY"))),
        ("proxy = \"none\"", None),
        (
            "proxy = \"${env:OWN_PROXY}\"",
            Some(("socks5://own.example.com:1080", "proxy")),
        ),
    ] {
        let text = SMALLEST.replace(url, &format!("{url}{more}\n"));
        let config = good(&text, &environment);
        let proxy = config.pipelines[0].sink.proxy.as_ref();
        let found = proxy.map(|proxy| (proxy.to_string(), proxy.variable));
        let expected = expected.map(|(proxy, variable)| (proxy.to_owned(), variable));
        assert_eq!(found, expected, "{more}");
        if more.is_empty() {
            let serves = |host| proxy.is_some_and(|proxy| proxy.serves(host));
            assert!(serves("logs.example.com:443") && !serves("internal.example.com:443"));
            let is_masked = |secret: &Secret| secret.expose() == "s3cret";
            assert!(config.secrets().iter().any(is_masked));
        }
    }
}

/// Their values may be secrets, so they are hidden in a text that was not understood. Where the
/// path of a private key belongs, the key itself may stand, and next to the names of headers their
/// values.
const HIDDEN: [&str; 8] = [
    "sources.*.key",
    "pipelines.*.sink.url",
    "pipelines.*.sink.session-url",
    "pipelines.*.sink.tls.key",
    "pipelines.*.sink.headers",
    "pipelines.*.sink.allow-headers",
    "pipelines.*.sink.auth",
    "pipelines.*.sink.proxy",
];

/// A new key is on one of two lists: else a typo next to it would hide what the operator wrote.
#[test]
fn a_key_holds_a_secret_or_is_shown_in_a_text_that_was_not_understood() {
    let mut all = BTreeSet::new();
    keys(DeTable::parse(REFERENCE).unwrap().get_ref(), "", &mut all);
    for path in all {
        let key = path.rsplit('.').next().unwrap();
        let is_header_of_a_section = !path.contains('.') || ["*", "sink"].contains(&key);
        let is_hidden = HIDDEN.iter().any(|hidden| path.starts_with(hidden));
        let is_shown = PLAIN_KEYS.contains(&key);
        assert!(is_header_of_a_section || is_shown != is_hidden, "{path}");
    }
}

/// It was compared with the largest of the streams alone.
#[test]
fn a_lag_limit_is_compared_with_what_each_stream_keeps() {
    let text = r#"
[teleport]
addr = "127.0.0.1:3025"
identity = "identity"
[store]
path = "store"
retain = { audit = { bytes = "4 GiB" }, sessions = { bytes = "1 GiB" } }
[pipelines.siem]
from = ["audit", "sessions"]
lag-limit = { bytes = "LIMIT" }
sink = { plugin = "builtin:fluentd", url = "https://127.0.0.1:8888" }
"#;
    let warnings = |limit: &str| {
        let config = good(&text.replace("LIMIT", limit), &Fixed::default());
        config.warnings().render(false)
    };
    let audit = "`teleport/audit`, which keeps at most 4 GiB";
    let sessions = "`teleport/sessions`, which keeps at most 1 GiB";
    for (limit, streams) in [
        ("1023 MiB", String::new()),
        ("1 GiB", sessions.to_owned()),
        ("2 GiB", sessions.to_owned()),
        ("4 GiB", format!("{audit}, and in {sessions}")),
    ] {
        let said = format!("This limit is never reached in {streams}.");
        let warnings = warnings(limit);
        match streams.is_empty() {
            true => assert!(!warnings.contains("never reached"), "{limit}: {warnings}"),
            false => assert!(warnings.contains(&said), "{limit}: {warnings}"),
        }
    }
}

/// What was to be dropped was sent.
#[test]
fn a_misspelt_event_type_in_the_table_of_a_plugin_is_warned_of_in_its_place() {
    let text = format!(
        "{SMALLEST}[[pipelines.siem.stage]]\nplugin = \"builtin:filter\"\n\
         with = {{ skip = [\"print\", \"sesion.start\"] }}\n"
    );
    let config = good(&text, &Fixed::default());
    let with = &config.pipelines[0].stages[0].with;
    // The last one is the component's own.
    let types = ["print", "sesion.start", "its.own"].map(str::to_owned);
    let warnings: Vec<Issue> = with.check_event_types(types.iter()).collect();
    let [warning] = warnings.as_slice() else {
        panic!("{warnings:?}");
    };
    assert_eq!(&text[warning.span.clone()], "\"sesion.start\"");
    assert!(warning.hint.contains("`session.start`"), "{warning:?}");
}

/// Both were sent as they are, and nothing said so.
#[test]
fn a_token_that_is_probably_not_meant_so_is_warned_of() {
    for (auth, said) in [
        ("bearer = \"$TOK\"", "looks like a variable of a shell"),
        ("bearer = \"Bearer abc\"", "begins with `Bearer `"),
        ("bearer = \"$5abc\"", ""),
        (
            "basic = { user = \"u\", password = \"$TOK\" }",
            "looks like a variable of a shell",
        ),
        (
            "header = { name = \"X-Key\", value = \"$TOK\" }",
            "looks like a variable of a shell",
        ),
        ("bearer = \"abcdefgh\"", ""),
    ] {
        let text = format!("{SMALLEST}auth = {{ {auth} }}\n");
        let warnings = good(&text, &Fixed::default()).warnings().render(false);
        match said {
            "" => assert!(!warnings.contains("auth"), "{auth}: {warnings}"),
            said => assert!(warnings.contains(said), "{auth}: {warnings}"),
        }
        assert!(!warnings.contains("abc"), "{warnings}");
    }
}

#[test]
fn the_reference_shows_the_defaults() {
    let environment = Fixed {
        variables: [
            ("LOGS_PASSWORD", "p"),
            ("LOGS_TOKEN", "t"),
            ("LOGS_KEY", "k"),
        ]
        .into(),
        ..Fixed::default()
    };
    let reference = good(REFERENCE, &environment);
    let smallest = good(SMALLEST, &environment);
    let source = |config: &Config| {
        let source = &config.sources[0];
        (
            source.window,
            source.overlap,
            source.sweep,
            source.gap_after,
            source.keep_own_access,
            source.locks,
            source.concurrency,
        )
    };
    assert_eq!(source(&reference), source(&smallest));
    assert_eq!(
        (reference.store.audit, reference.store.sessions),
        (smallest.store.audit, smallest.store.sessions)
    );
    assert_eq!(reference.limits, smallest.limits);
    assert_eq!(reference.admin, smallest.admin);
    assert_eq!(reference.lookup.user_agents, smallest.lookup.user_agents);
    let plugin = |plugin: &Plugin| (plugin.limits, plugin.reuse, plugin.wasi);
    assert_eq!(
        plugin(&reference.plugins[0]),
        plugin(&smallest.pipelines[0].sink.plugin)
    );
    let (a, b) = (&reference.pipelines[0], &smallest.pipelines[0]);
    assert_eq!(
        (
            a.batch,
            a.in_flight,
            a.dead_letters,
            &a.from,
            a.sink.timeout,
            a.sink.rate.in_flight
        ),
        (
            b.batch,
            b.in_flight,
            b.dead_letters,
            &b.from,
            b.sink.timeout,
            b.sink.rate.in_flight
        )
    );
    assert_eq!(reference.pipelines[3].from[0].order, Order::Session);
}

#[test]
fn secrets_are_resolved_and_known_for_masking() {
    let environment = Fixed {
        variables: [("TOKEN", "t0ken"), ("USER_NAME", "me")].into(),
        files: [
            ("/etc/lockgate/password", b"s3cret\r\n".as_slice()),
            ("/run/key", b"k3y\n\n".as_slice()),
        ]
        .into(),
    };
    let text = SMALLEST.replace(
        "https://logs.example.com/",
        "https://logs.example.com/${env:TOKEN}",
    ) + "auth = { basic = { user = \"${env:USER_NAME}\", password = \"${file:password}!\" } }\n";
    let config = good(&text, &environment);
    let sink = &config.pipelines[0].sink;
    assert_eq!(sink.url.expose(), "https://logs.example.com/t0ken");
    assert_eq!(
        sink.auth,
        Some(Auth::Basic {
            user: "me".into(),
            password: Secret::new("s3cret!")
        })
    );
    let secrets: Vec<&str> = config.secrets().iter().map(Secret::expose).collect();
    assert_eq!(secrets, ["s3cret", "t0ken"]);
    let shown = format!("{config:?} {config:#?}");
    assert!(
        !shown.contains("t0ken") && !shown.contains("s3cret"),
        "{shown}"
    );
    // The last newline belongs to the file. The one before belongs to the value, which then cannot
    // be sent.
    let report = parse(
        "x",
        &(SMALLEST.to_owned() + "headers = { X-Key = \"${file:/run/key}\" }"),
        Path::new(""),
        &environment,
    )
    .unwrap_err();
    assert!(
        report.issues()[0]
            .message
            .contains("cannot be sent in a header"),
        "{report}"
    );
}

#[test]
fn limits_of_the_host_may_be_given_in_part() {
    let limits = |text: &str| good(&format!("{SMALLEST}\n{text}"), &Fixed::default()).limits;
    let default = HostLimits::default();
    assert_eq!(
        limits("[limits]\nmemory = \"1 GiB\""),
        HostLimits {
            memory: 1 << 30,
            ..default
        }
    );
    let compile = CompileLimits {
        time: Duration::from_secs(600),
        ..default.compile
    };
    assert_eq!(
        limits("[limits]\ncompile = { time = \"10m\" }"),
        HostLimits { compile, ..default }
    );
}

#[test]
fn the_directory_of_the_store_is_read_without_resolving_secrets() {
    let text: &'static str = SMALLEST
        .replace(
            "https://logs.example.com/",
            "https://logs.example.com/${env:NOT_SET_HERE}",
        )
        .leak();
    let file = Path::new("/etc/lockgate/lockgate.toml");
    let at_file = |text: &'static str| Fixed {
        files: [("/etc/lockgate/lockgate.toml", text.as_bytes())].into(),
        ..Fixed::default()
    };
    assert!(load(file, &at_file(text)).is_err());
    assert_eq!(
        store_path(file, &at_file(text)).unwrap(),
        load(file, &at_file(SMALLEST)).unwrap().store.path
    );
}

#[test]
fn paths_are_relative_to_the_directory_of_the_configuration() {
    let config = good(SMALLEST, &Fixed::default());
    assert_eq!(config.store.path, Path::new("/etc/lockgate/state"));
    assert_eq!(
        config.sources[0].credentials,
        Credentials::Identity("/etc/lockgate/identity".into())
    );
    // The registry joins a source with its base directory. Joined here as well, it would be joined
    // twice.
    let config = good(
        &SMALLEST.replace("builtin:fluentd", "plugins/own.wasm"),
        &Fixed::default(),
    );
    assert_eq!(
        config.pipelines[0].sink.plugin.source.to_string(),
        "file:plugins/own.wasm"
    );
    let environment = Fixed {
        files: [("conf/lockgate.toml", SMALLEST.as_bytes())].into(),
        ..Fixed::default()
    };
    let config = load(Path::new("conf/lockgate.toml"), &environment).unwrap();
    assert_eq!(config.store.path, Path::new("conf/state"));
    assert_eq!(config.sources[0].window, Duration::from_secs(86_400));
}

#[test]
fn an_unreadable_file_is_reported() {
    let check = |bytes: Option<&'static [u8]>, expected: Expect| {
        let files = bytes
            .map(|bytes| ("lockgate.toml", bytes))
            .into_iter()
            .collect();
        let report = load(
            Path::new("lockgate.toml"),
            &Fixed {
                files,
                ..Fixed::default()
            },
        )
        .unwrap_err();
        expected.assert_eq(&report.render(false));
    };
    check(
        None,
        expect![[r#"
            error: The configuration cannot be read: there is no such file.
             ─▸ lockgate.toml:1:1
             ╰╴
            hint: create the file, or name another one

            1 problem in lockgate.toml
        "#]],
    );
    check(
        Some(b"[store]\npath = \"caf\xe9\"\n"),
        expect![[r#"
            error: Line 2 is not UTF-8.
              ╭▸ lockgate.toml:2:12
              │
            2 │ ***
              │ ━━━ here
              ╰╴
            hint: save the file as UTF-8

            1 problem in lockgate.toml
        "#]],
    );
}

#[test]
fn problems_reported_by_plugins_point_at_the_operators_line() {
    let text = format!(
        "{SMALLEST}
[[pipelines.siem.stage]]
plugin = \"builtin:filter\"
with   = {{ skip = \"print\", where = {{ \"server_labels.env\" = [\"prod\", 5] }} }}

[[pipelines.siem.stage]]
plugin = \"builtin:redact\"

[pipelines.siem.stage.with]
fields.user = 'hash'
"
    );
    let config = good(&text, &Fixed::default());
    let stages = &config.pipelines[0].stages;
    for (stage, path, expected) in [
        (0, "skip", "skip = \"print\""),
        (
            0,
            "where.server_labels.env",
            "\"server_labels.env\" = [\"prod\", 5]",
        ),
        (0, "where.server_labels.env[1]", "5"),
        (0, "where.\"server_labels.env\".1", "5"),
        (
            0,
            "where.other",
            "where = { \"server_labels.env\" = [\"prod\", 5] }",
        ),
        (
            0,
            "only",
            "with   = { skip = \"print\", where = { \"server_labels.env\" = [\"prod\", 5] } }",
        ),
        (1, "fields.user", "user = 'hash'"),
        (1, "", "[pipelines.siem.stage.with]"),
    ] {
        assert_eq!(&text[stages[stage].locate(path)], expected, "{path}");
    }
    assert_eq!(
        &text[config.pipelines[0].sink.locate("path")],
        "[pipelines.siem.sink]"
    );
    let mut issues = config.no_issues();
    assert!(issues.is_empty());
    issues.plugin_issue(
        stages[1].locate("fields.user"),
        "builtin:redact 0.1.0",
        "There is no action `hash`.",
        None,
    );
    issues.plugin_issue(
        stages[0].locate("skip"),
        "builtin:filter 0.1.0",
        "`skip` must be a list of strings.",
        Some("skip = [\"print\"]"),
    );
    expect![[r#"
        error: `skip` must be a list of strings.
           ╭▸ lockgate.toml:15:12
           │
        15 │ with   = { skip = "print", where = { "server_labels.env" = ["prod", 5] } }
           │            ━━━━━━━━━━━━━━ reported by builtin:filter 0.1.0
           ╰╴
        hint: skip = ["print"]

        error: There is no action `hash`.
           ╭▸ lockgate.toml:21:8
           │
        21 │ fields.user = 'hash'
           │        ━━━━━━━━━━━━━ reported by builtin:redact 0.1.0
           ╰╴
        hint: `lockgate plugin help redact` shows its options

        2 problems in lockgate.toml
    "#]]
    .assert_eq(&issues.render(false));
}

#[test]
fn positions_are_right_after_a_byte_order_mark_and_with_crlf() {
    let text = format!("\u{feff}{}colour = 1\n", SMALLEST.trim_start()).replace('\n', "\r\n");
    let report = parse("lockgate.toml", &text, Path::new(""), &Fixed::default()).unwrap_err();
    let issue = &report.issues()[0];
    assert_eq!(&text[issue.span.clone()], "colour");
    assert_eq!(report.position(issue), (11, 1));
    expect![[r#"
        error: Unknown key `colour` in `pipelines.siem.sink`.
           ╭▸ lockgate.toml:11:1
           │
        11 │ colour = ***
           │ ━━━━━━ unknown
           ╰╴
        hint: choose from `plugin`, `url`, `session-url`, `tls`, `headers`, `allow-headers`, `allow-plaintext`, `auth`, `proxy`, `allow-link-local`, `compression`, `rotate`, `rate`, `timeout` and `with`

        1 problem in lockgate.toml
    "#]]
    .assert_eq(&report.render(false));
}

fn toml_like() -> impl Strategy<Value = String> {
    let pieces = [
        "[teleport]\n",
        "[sources.b]\n",
        "[store]\n",
        "[pipelines.a.sink]\n",
        "[[pipelines.a.stage]]\n",
        "[pipelines.a]\n",
        "[plugins.x]\n",
        "addr = ",
        "identity = ",
        "path = ",
        "url = ",
        "plugin = ",
        "with = ",
        "auth = ",
        "from = ",
        "headers = ",
        "retain.age = ",
        "types = ",
        "\"a:1\"\n",
        "\"https://u:p@h/#x\"\n",
        "'''x\ny'''\n",
        "[\"audit\", 1]\n",
        "{ a = 1 }\n",
        "{ bearer = \"x\" }\n",
        "{ x = \"${env:A}\",",
        "}\n",
        "\"${file:é}\"\n",
        "5\n",
        "-1\n",
        "1979-05-27\n",
        "inf\n",
        "\"\n",
        "[",
        "]",
        "{",
        "é",
        "\u{feff}",
        "\r\n",
        "\t",
        " ",
        "# 漢字\n",
        ".",
        "=",
        "\0",
    ];
    prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..40)
        .prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_text_is_accepted_or_reported_with_spans_inside_it(text in prop_oneof![toml_like(), ".{0,200}", any::<String>()]) {
        let environment = Fixed { variables: [("A", "from-the-environment")].into(), ..Fixed::default() };
        if let Err(report) = parse("lockgate.toml", &text, Path::new(""), &environment) {
            prop_assert!(!report.is_empty());
            for issue in report.issues() {
                prop_assert!(text.get(issue.span.clone()).is_some(), "{:?} of {} bytes", issue.span, text.len());
                prop_assert!(!issue.hint.is_empty());
            }
            let (plain, styled) = (report.render(false), report.render(true));
            prop_assert!(!plain.contains("from-the-environment"));
            prop_assert!(plain.ends_with(" in lockgate.toml\n") && styled.len() > plain.len());
        }
    }
}

/// A configuration with a secret in each key that may hold one.
const SECRETIVE: &str = r#"
[teleport]
addr = "teleport.example.com:443"
identity = "identity"

[store]
path = "state"

[pipelines.siem.sink]
plugin = "builtin:fluentd"
url = "https://logs.example.com/hunter2?key=hunter2"
session-url = 'https://logs.example.com/hunter2'
headers = { X-A = "hunter2", X-B = "hunter2" }
tls = { ca = "ca.crt" }
auth = { basic = { user = "me", password = "hunter2" } }
timeout = "30s"

[pipelines.two.sink]
plugin = "builtin:fluentd"
url = """https://logs.example.com/\
hunter2"""

[pipelines.two.sink.headers]
X-A = "hunter2"
X-B = 'hunter2'

[pipelines.two.sink.auth.header]
name = "X-C"
value = "hunter2"

[pipelines.three.sink]
plugin = "builtin:fluentd"
url = "https://logs.example.com/"
auth = {
  basic = {
    user = "me",
    password = "hunter2",
  },
}
"#;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_typing_error_shows_a_secret(
        index in any::<prop::sample::Index>(),
        deleted in 0usize..3,
        inserted in prop::option::of(prop::sample::select(vec!['"', '\'', '[', ']', '{', '}', '=', ',', '#', '.', '\\', 'x', '5', ' ', '\n'])),
    ) {
        let mut text: Vec<char> = SECRETIVE.chars().collect();
        let at = index.index(text.len());
        text.splice(at..(at + deleted).min(text.len()), inserted);
        let text: String = text.into_iter().collect();
        if let Err(report) = parse("lockgate.toml", &text, Path::new(""), &Fixed::default()) {
            prop_assert!(!report.render(false).contains("hunter2"), "{report}");
        }
    }
}
