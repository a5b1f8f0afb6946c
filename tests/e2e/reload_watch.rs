//! `lockgate start --watch`.

use std::fs;
use std::os::unix::fs::symlink;

use lockgate_tests::components::component;
use lockgate_tests::receiver::LocalReceiver;
use lockgate_tests::{Auth, books, configuration, start, status, until};

/// The file, a secret behind links as Kubernetes mounts them, and a component are replaced in turn.
/// The pipeline picks up the secret by itself.
#[test]
fn a_changed_file_is_loaded_without_being_asked() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let auth = Auth::start(dir.path(), &["--events", "1000"]);
    let receiver = LocalReceiver::start(dir.path());
    for version in ["v1", "v2"] {
        fs::create_dir(path(version)).unwrap();
        fs::write(path(version).join("token"), format!("secret-{version}\n")).unwrap();
    }
    symlink("v1", path("..data")).unwrap();
    symlink("..data/token", path("token")).unwrap();
    fs::copy(component("hostile_filter"), path("plugin.wasm")).unwrap();
    let pipelines = |more: &str| {
        format!(
            "[pipelines.main]\n{more}\nstage = [{{ plugin = \"file:plugin.wasm\" }}]\n\
             [pipelines.main.sink]\nplugin = \"builtin:fluentd\"\n\
             auth = {{ bearer = \"${{file:token}}\" }}\n{}\n",
            receiver.endpoint("main")
        )
    };
    let config = configuration(dir.path(), &auth, &pipelines(""));
    let host = start(&config, &["--watch"]);
    host.line_with("started");
    let reloads = || {
        host.stderr()
            .matches("reloaded: pipelines: 1 changed")
            .count()
    };
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    let delivered = |events| {
        until("all is delivered", shown, || {
            books(&status(&config), "main").delivered == events
        });
    };
    delivered(1000);
    assert_eq!(reloads(), 0, "{}", host.stderr());

    configuration(dir.path(), &auth, &pipelines("in-flight = 2"));
    until("the file is loaded", shown, || reloads() == 1);

    symlink("v2", path("..new")).unwrap();
    fs::rename(path("..new"), path("..data")).unwrap();
    host.line_with("requests use the new ones");

    // Not a component at first, as if it was still being written.
    fs::write(path("plugin.wasm"), "half").unwrap();
    host.line_with("has problems and is not loaded");
    fs::copy(component("counter"), path("plugin.new")).unwrap();
    let with_state = pipelines("").replace("\"file:plugin.wasm\"", "\"keeper\"")
        + "[plugins.keeper]\nsource = \"file:plugin.wasm\"\nstate = \"1 MiB\"\n";
    configuration(dir.path(), &auth, &with_state);
    fs::rename(path("plugin.new"), path("plugin.wasm")).unwrap();
    until("the component is loaded", shown, || reloads() == 2);
    let description = status(&config)["pipelines"]["main"]["description"].to_string();
    assert!(description.contains("keeper"), "{description}");
    host.stop().exits_with(0);
    assert_eq!(receiver.stop().documents, 1000);
}
