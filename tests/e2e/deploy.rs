//! The files of examples/deploy: what they name exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use lockgate_tests::receiver::LocalReceiver;
use lockgate_tests::{Auth, Running, configuration, lockgate, root, started, until};

fn read(path: &str) -> String {
    let path = root().join("examples/deploy").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The dotted keys of YAML in which maps are indented by two, leaves alone.
fn keys(yaml: &str) -> BTreeSet<String> {
    let mut path: Vec<&str> = Vec::new();
    let mut keys = BTreeSet::new();
    for line in yaml.lines() {
        let text = line.trim_start();
        let Some((key, _)) = text.split_once(':') else {
            continue;
        };
        if text.starts_with(['#', '-']) {
            continue;
        }
        path.truncate((line.len() - text.len()) / 2);
        path.push(key);
        keys.remove(&path[..path.len() - 1].join("."));
        keys.insert(path.join("."));
    }
    keys
}

fn templates() -> Vec<(String, String)> {
    let directory = root().join("examples/deploy/helm/templates");
    let files = fs::read_dir(directory)
        .unwrap()
        .map(|file| file.unwrap().path());
    let named = |path: PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, fs::read_to_string(path).unwrap())
    };
    files.map(named).collect()
}

/// What follows each occurrence of `start`, as long as it consists of these characters.
fn words<'a>(text: &'a str, start: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(start).map(move |(at, _)| {
        let rest = &text[at + start.len()..];
        let is_part = |c: char| c.is_ascii_alphanumeric() || ".-_/".contains(c);
        &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())]
    })
}

#[test]
fn the_templates_use_every_value_and_no_other() {
    let values = keys(&read("helm/values.yaml"));
    assert!(values.len() > 25, "{values:?}");
    let mut used = BTreeSet::new();
    for (name, text) in templates() {
        let blocks = |end: &str| text.matches(end).count();
        let opened = ["{{- if ", "{{- with ", "{{- range ", "{{- define "].map(blocks);
        assert_eq!(opened.iter().sum::<usize>(), blocks("{{- end }}"), "{name}");
        assert_eq!(blocks("{{"), blocks("}}"), "{name}");
        for value in words(&text, ".Values.") {
            let is_there = |key: &&String| **key == value || key.starts_with(&format!("{value}."));
            let of_value: Vec<&String> = values.iter().filter(is_there).collect();
            assert!(
                !of_value.is_empty(),
                "{name} uses `{value}`, which is not in values.yaml"
            );
            used.extend(of_value.into_iter().cloned());
        }
        for helper in words(&text, "include \"") {
            let defined = format!("define \"{helper}\"");
            assert!(
                templates().iter().any(|(_, text)| text.contains(&defined)),
                "{name}: {helper}"
            );
        }
    }
    let unused: Vec<_> = values.difference(&used).collect();
    assert!(unused.is_empty(), "no template uses {unused:?}");
    // What `configure` writes for the chart.
    let written = fs::read_to_string(root().join("host/cli/src/commands/configure/values.yaml"));
    for key in keys(&written.unwrap()) {
        assert!(values.contains(&key), "`configure` writes `{key}`");
    }
}

/// The configuration in the chart, with its blocks filled in by hand.
#[test]
fn the_configuration_of_the_chart_is_correct() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "10"]);
    let receiver = LocalReceiver::start(dir.path());
    let text = read("helm/templates/configmap.yaml");
    let (_, text) = text.split_once("{{- else }}\n").unwrap();
    let mut toml = String::new();
    for line in text.lines() {
        let line = line.strip_prefix("    ").unwrap_or(line);
        if line.starts_with("{{-") {
            assert!(line.ends_with("}}"), "a line of its own: {line}");
            continue;
        }
        let mut rest = line;
        while let Some((before, after)) = rest.split_once("{{ ") {
            let (expression, after) = after.split_once(" }}").unwrap();
            toml += before;
            toml += &value(expression, &auth, &receiver);
            rest = after;
        }
        toml += rest;
        toml += "\n";
    }
    let here = dir.path().display();
    let toml = toml
        .replace("/etc/lockgate/teleport", &format!("{here}/auth"))
        .replace("/etc/lockgate/tls", &format!("{here}/receiver"))
        .replace("/var/lib/lockgate", &format!("{here}"));
    let file = dir.path().join("lockgate.toml");
    fs::write(&file, &toml).unwrap();
    let mut check = lockgate();
    let ended = Running::start("check", check.arg("check").arg(&file)).ended();
    let ended = ended.exits_with(0);
    assert!(
        ended.stdout.contains("no problems, 2 pipelines"),
        "{toml}\n{}",
        ended.stdout
    );
}

fn value(expression: &str, auth: &Auth, receiver: &LocalReceiver) -> String {
    let url = |path: &str| {
        format!(
            "\"https://{}/{path}\"",
            receiver.address().replace("127.0.0.1", "localhost")
        )
    };
    let named = |key: &str| expression.contains(key);
    let printed = |path: &str, file: &str| format!("\"{path}/{file}\"");
    match expression {
        "toJson ." => "[\"session.upload\"]".to_owned(),
        "quote ." => "\"2026-01-01T00:00:00Z\"".to_owned(),
        _ if named(".Values.teleport.addr") => format!("\"{}\"", auth.addr),
        _ if named(".identitySecretPath") => printed("/etc/lockgate/teleport", "identity"),
        _ if named(".retainBytes") => "\"8 GiB\"".to_owned(),
        _ if named(".fluentd.url") => url("events.log"),
        _ if named(".fluentd.sessionUrl") => url("session"),
        _ if named(".caPath") => printed("/etc/lockgate/tls", "ca.crt"),
        _ if named(".certPath") => printed("/etc/lockgate/tls", "client.crt"),
        _ if named(".keyPath") => printed("/etc/lockgate/tls", "client.key"),
        _ => panic!("`{expression}` is not known here"),
    }
}

/// The mounts that the configuration and the probes of the chart name.
#[test]
fn the_pod_mounts_what_its_files_name() {
    let pod = read("helm/templates/statefulset.yaml");
    let mounts: Vec<&str> = words(&pod, "mountPath: ").collect();
    for named in words(&read("helm/templates/configmap.yaml"), "\"/").chain(words(&pod, "=/")) {
        let path = format!("/{named}");
        if path == "/metrics" {
            continue;
        }
        assert!(
            mounts.iter().any(|mount| path.starts_with(mount)),
            "{path}: {mounts:?}"
        );
    }
    for volume in words(&pod, "- name: ").filter(|name| !["lockgate", "metrics"].contains(name)) {
        let claims = pod.matches(&format!("name: {volume}\n")).count();
        assert_eq!(claims, 2, "`{volume}` is a volume and a mount");
    }
    // `metrics` is the container and its port, and the name of the port in the service.
    assert!(read("helm/templates/service.yaml").contains("targetPort: metrics"));
    assert!(read("helm/templates/servicemonitor.yaml").contains("port: metrics"));
}

#[test]
fn the_image_is_built_of_what_is_there() {
    let docker = read("docker/Dockerfile");
    let toolchain = fs::read_to_string(root().join("rust-toolchain.toml")).unwrap();
    let version = words(&toolchain, "channel = \"").next().unwrap();
    assert!(
        docker.contains(&format!("rust:{version}-")),
        "{version}: {docker}"
    );
    let package = words(&docker, "--package ").next().unwrap();
    let manifest = fs::read_to_string(root().join("host/cli/Cargo.toml")).unwrap();
    assert!(
        manifest.contains(&format!("name = \"{package}\"")),
        "{package}"
    );
    // Both images are of the same release of Debian: else the binary needs another glibc.
    assert!(
        docker.contains("-bookworm ") && docker.contains("-debian12:"),
        "{docker}"
    );
    let chart = read("helm/Chart.yaml");
    let version = format!("appVersion: \"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(chart.contains(&version), "{chart}");
    // The binary and the store are where the chart expects them.
    let pod = read("helm/templates/statefulset.yaml");
    for path in ["/usr/local/bin/lockgate", "/var/lib/lockgate"] {
        assert!(docker.contains(path) && pod.contains(path), "{path}");
    }
}

/// The arguments of image, unit and probes, by the binary itself: help is printed only if it
/// understands what is before it.
#[test]
fn every_command_in_the_files_is_accepted() {
    let pod = read("helm/templates/statefulset.yaml");
    let list = |line: &str| -> Vec<String> {
        let (_, list) = line.split_once('[').unwrap();
        let items = list.trim_end_matches(']').split(", ");
        items
            .map(|item| item.trim_matches('"').to_owned())
            .collect()
    };
    let mut commands: Vec<Vec<String>> = Vec::new();
    commands.extend(
        pod.lines()
            .filter(|line| line.contains("command: ["))
            .map(list),
    );
    let mut args = vec!["lockgate".to_owned(), "start".to_owned()];
    let of_pod = pod
        .lines()
        .map(str::trim)
        .skip_while(|line| *line != "- start")
        .skip(1);
    args.extend(of_pod.map_while(|line| Some(line.strip_prefix("- ")?.to_owned())));
    assert!(args.len() > 3, "{args:?}");
    commands.push(args);
    let docker = read("docker/Dockerfile");
    let cmd = docker.lines().find(|line| line.starts_with("CMD")).unwrap();
    commands.push([vec!["lockgate".to_owned()], list(cmd)].concat());
    assert_eq!(commands.len(), 5);
    for command in commands {
        let mut lockgate = lockgate();
        lockgate.args(&command[1..]).arg("--help");
        Running::start(&command.join(" "), &mut lockgate)
            .ended()
            .exits_with(0);
    }
}

#[test]
fn probes_say_whether_a_host_is_alive_and_ready() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = LocalReceiver::start(dir.path());
    let sink = format!(
        "[pipelines.main.sink]\nplugin = \"builtin:fluentd\"\n{}\n",
        receiver.endpoint("events")
    );
    let config = configuration(dir.path(), &auth, &sink);
    let probe = |kind: &str, store: &Path| {
        let mut command = lockgate();
        command
            .arg("status")
            .arg(format!("--probe={kind}"))
            .arg("--store")
            .arg(store);
        Running::start("probe", &mut command).ended()
    };
    let store = dir.path().join("store");
    assert!(
        probe("live", &store)
            .exits_with(1)
            .stderr
            .contains("No host answers")
    );
    let host = started(&config);
    assert_eq!(probe("live", &store).exits_with(0).stdout, "live\n");
    let ready = || probe("ready", &store).status.success();
    until("it is ready", || host.stderr(), ready);
    receiver.stop();
    drop(auth);
    let says = || probe("ready", &store).stderr;
    let is_told = || says().contains("`teleport` is not ready: ");
    until("it is not ready", says, is_told);
    assert_eq!(probe("live", &store).exits_with(0).stdout, "live\n");
    host.stop();
    assert!(!probe("live", &store).status.success());
}
