//! `lockgate configure`, judged by OpenSSL and nginx.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use lockgate_tests::{Auth, Ended, Running, lockgate, until};

const KEYS: [&str; 7] = [
    "ca.crt",
    "ca.key",
    "server.crt",
    "server.key",
    "server.pkcs8.key",
    "client.crt",
    "client.key",
];
const OTHERS: [&str; 7] = [
    "teleport-event-handler-role.yaml",
    "fluent.conf",
    "logstash.conf",
    "lockgate.toml",
    "teleport-event-handler.toml",
    "lockgate-values.yaml",
    "lockgate.service",
];

fn configure(dir: &Path, arguments: &[&str]) -> Ended {
    let mut command = lockgate();
    command.arg("configure").args(arguments).current_dir(dir);
    Running::start("configure", &mut command).ended()
}

/// A program, if this machine has it. Says so if not.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    let found = places
        .map(|place| place.join(name))
        .find(|path| path.is_file());
    if found.is_none() {
        eprintln!("skipped: this machine has no `{name}`");
    }
    found
}

fn openssl(dir: &Path, line: &str) -> Option<Output> {
    let mut command = Command::new(program("openssl")?);
    command
        .args(line.split(' '))
        .current_dir(dir)
        .stdin(Stdio::null());
    Some(command.output().unwrap())
}

/// Its output, if it succeeds.
#[track_caller]
fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn passphrase(dir: &Path) -> String {
    let text = fs::read_to_string(dir.join("fluent.conf")).unwrap();
    let (_, rest) = text.split_once("private_key_passphrase \"").unwrap();
    rest.split('"').next().unwrap().to_owned()
}

/// The answer to a request that OpenSSL sends once it has verified the server.
fn asked(dir: &Path, port: u16, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program("openssl")?);
    let server = format!("localhost:{port}");
    command.args([
        "s_client",
        "-quiet",
        "-verify_return_error",
        "-CAfile",
        "ca.crt",
    ]);
    command
        .args(["-verify_hostname", "localhost", "-connect", &server])
        .args(arguments);
    command
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut client = command.spawn().unwrap();
    let request = b"POST /x HTTP/1.0\r\nContent-Length: 0\r\n\r\n";
    client.stdin.as_mut().unwrap().write_all(request).unwrap();
    let output = client.wait_with_output().unwrap();
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn every_file_is_its_owners_alone_and_none_is_overwritten_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let ended = configure(dir.path(), &["out", "127.0.0.1:3025"]).exits_with(0);
    let out = dir.path().join("out");
    let passphrase = passphrase(&out);
    assert!(!(ended.stdout + &ended.stderr).contains(&passphrase));
    let mut files: Vec<_> = fs::read_dir(&out).unwrap().map(|it| it.unwrap()).collect();
    files.sort_by_key(fs::DirEntry::file_name);
    let names: Vec<String> = files
        .iter()
        .map(|it| it.file_name().into_string().unwrap())
        .collect();
    let mut expected = [KEYS, OTHERS].concat();
    expected.sort_unstable();
    assert_eq!(names, expected);
    for file in &files {
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", file.file_name());
        let text = fs::read_to_string(file.path()).unwrap();
        let placeholder = [
            "{ca}",
            "{cert}",
            "{key}",
            "{url}",
            "{addr}",
            "{server}",
            "{passphrase}",
        ];
        let left = placeholder.iter().find(|name| text.contains(**name));
        assert_eq!(left, None, "{:?}", file.file_name());
    }

    let read = || fs::read_to_string(out.join("server.key")).unwrap();
    let before = read();
    // One that is missing is not added to those of another authority.
    fs::remove_file(out.join("client.key")).unwrap();
    let ended = configure(dir.path(), &["out"]).exits_with(2);
    assert!(ended.stderr.contains("server.key` ") || ended.stderr.contains("server.key`,"));
    assert!(
        ended.stderr.contains("Nothing was written"),
        "{}",
        ended.stderr
    );
    assert_eq!(read(), before);
    assert!(!out.join("client.key").exists());
    configure(dir.path(), &["out", "--force"]).exits_with(0);
    assert_ne!(read(), before);
    // A client in the place of the authority that was made before.
    let authority = || fs::read_to_string(out.join("ca.key")).unwrap();
    let before = authority();
    let names = ["out", "localhost:3025", "other", "server", "ca", "--force"];
    let ended = configure(dir.path(), &names).exits_with(2);
    assert!(
        ended.stderr.contains("certificate of an authority"),
        "{}",
        ended.stderr
    );
    assert_eq!(authority(), before);
}

#[test]
fn wrong_arguments_write_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, said) in [
        (&["out", "teleport.example.com"][..], "has no port"),
        (
            &["out", "localhost:3025", "../ca"],
            "cannot be the name of a file",
        ),
        (&["out", "localhost:3025", "a", "a"], "the same name"),
        // The server's plain key would replace that of the authority.
        (
            &["out", "localhost:3025", "a.pkcs8", "a", "--force"],
            "Two files would be",
        ),
        (
            &["out", "localhost:3025", "ca", "a", "a.pkcs8", "--force"],
            "a.pkcs8.key",
        ),
        (&["out", "--ttl", "0s"], "would expire at once"),
        (
            &["out", "--dns-names", "a*.b", "--ip", "127.0.0.1"],
            "not a DNS name",
        ),
        (
            &["out", "--dns-names", "a b", "--ip", "127.0.0.1"],
            "is not a DNS name",
        ),
        (&["out", "--ttl", "90d"], "a duration is"),
        (&["out", "--ip", "localhost"], "invalid value"),
        (&["out", "--length", "100"], "invalid value"),
    ] {
        let ended = configure(dir.path(), arguments).exits_with(2);
        assert!(
            ended.stderr.contains(said),
            "{arguments:?}: {}",
            ended.stderr
        );
        assert!(!dir.path().join("out").exists(), "{arguments:?}");
    }
}

#[test]
fn a_wildcard_and_a_quote_in_the_path_give_files_that_can_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["--dns-names", "*.logs.example.com,localhost"];
    configure(dir.path(), &[&["a \"quoted\" one"][..], &names].concat()).exits_with(0);
    let out = dir.path().join("a \"quoted\" one");
    let text = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    assert!(text("lockgate.toml").contains("https://localhost:8888/"));
    let path = format!("=> '{}/server.crt'", out.display());
    assert!(text("logstash.conf").contains(&path), "{path}");
    if let Some(shown) = openssl(&out, "x509 -in server.crt -noout -ext subjectAltName") {
        let shown = said(&shown);
        assert!(
            shown.contains("DNS:*.logs.example.com, DNS:localhost"),
            "{shown}"
        );
    }

    configure(dir.path(), &["alone", "--dns-names", "*.example.com"]).exits_with(0);
    let written = fs::read_to_string(dir.path().join("alone/lockgate.toml")).unwrap();
    assert!(
        written.contains("https://receiver.example.com:8888/"),
        "{written}"
    );
    let ended = configure(dir.path(), &["both \"'"]).exits_with(2);
    assert!(ended.stderr.contains("Logstash"), "{}", ended.stderr);
}

/// As the Event Handler's own tests expect it.
#[test]
fn openssl_verifies_the_certificates_and_reads_the_keys() {
    let dir = tempfile::tempdir().unwrap();
    let names = [
        "--dns-names",
        "localhost,logs.example.com",
        "--ip",
        "127.0.0.1,::1",
    ];
    configure(
        dir.path(),
        &[&["."][..], &names, &["--ttl", "48h"]].concat(),
    )
    .exits_with(0);
    let run = |line: &str| openssl(dir.path(), line);
    let Some(verified) = run("verify -CAfile ca.crt -purpose sslserver server.crt") else {
        return;
    };
    said(&verified);
    said(&run("verify -CAfile ca.crt -purpose sslclient client.crt").unwrap());
    assert!(
        !run("verify -CAfile ca.crt -purpose sslserver client.crt")
            .unwrap()
            .status
            .success()
    );
    let show = |name: &str| {
        said(
            &run(&format!(
                "x509 -in {name}.crt -noout -text -checkend 172000"
            ))
            .unwrap(),
        )
    };
    let (ca, server, client) = (show("ca"), show("server"), show("client"));
    for (text, subject) in [(&ca, "CA"), (&server, "Server"), (&client, "Client")] {
        assert!(text.contains(&format!("Subject: CN = {subject}")), "{text}");
        assert!(text.contains("Issuer: CN = CA"), "{text}");
    }
    assert!(ca.contains("CA:TRUE, pathlen:0"), "{ca}");
    let alternative =
        "DNS:localhost, DNS:logs.example.com, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1";
    assert!(
        server.contains(alternative) && client.contains(alternative),
        "{server}"
    );

    let passphrase = passphrase(dir.path());
    let key = |name: &str, passphrase: &str| {
        run(&format!("pkey -in {name} -passin pass:{passphrase}")).unwrap()
    };
    let encrypted = said(&key("server.key", &passphrase));
    assert_eq!(encrypted, said(&key("server.pkcs8.key", "none")));
    assert!(!key("server.key", "another").status.success());
    for name in ["ca", "server", "client"] {
        let of_certificate = said(&run(&format!("x509 -in {name}.crt -noout -pubkey")).unwrap());
        let file = if name == "server" {
            "server.pkcs8.key"
        } else {
            &format!("{name}.key")
        };
        let of_key = said(&run(&format!("pkey -in {file} -pubout")).unwrap());
        assert_eq!(of_certificate, of_key, "{name}");
    }
}

/// Mutual TLS works both ways, with the files as they were written: Lockgate with its own file and
/// with the Event Handler's, nginx with the encrypted key.
#[test]
fn nginx_accepts_the_client_and_the_client_accepts_nginx() {
    let Some(nginx) = program("nginx") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "500"]);
    let out = dir.path().join("out");
    configure(dir.path(), &["out", &auth.addr]).exits_with(0);
    fs::copy(auth.dir.join("identity"), out.join("identity")).unwrap();
    fs::write(out.join("passphrase"), passphrase(&out)).unwrap();
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let text = format!(
        r#"
daemon off;
pid {out}/nginx.pid;
error_log stderr info;
events {{}}
http {{
  log_format tried '$request_uri $status $ssl_client_verify $ssl_client_s_dn';
  access_log {out}/access.log tried;
  client_body_temp_path {out}/body; proxy_temp_path {out}/proxy; fastcgi_temp_path {out}/fastcgi;
  uwsgi_temp_path {out}/uwsgi; scgi_temp_path {out}/scgi;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {out}/server.crt;
    ssl_certificate_key {out}/server.key;
    ssl_password_file {out}/passphrase;
    ssl_client_certificate {out}/ca.crt;
    ssl_verify_client on;
    location / {{ return 200; }}
  }}
}}
"#,
        out = out.display()
    );
    fs::write(out.join("nginx.conf"), text).unwrap();
    let mut command = Command::new(nginx);
    command
        .arg("-p")
        .arg(&out)
        .arg("-c")
        .arg(out.join("nginx.conf"));
    let nginx = Running::start("nginx", &mut command);
    let listens = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    until("nginx listens", || nginx.stderr(), listens);

    for (file, store) in [
        ("lockgate.toml", "\"/var/lib/lockgate\""),
        ("teleport-event-handler.toml", "\"./storage\""),
    ] {
        let path = out.join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.contains(store) && text.contains("localhost:8888"),
            "{text}"
        );
        let own = format!(
            "\"{}\"",
            dir.path().join(file).with_extension("store").display()
        );
        let text = text
            .replace(store, &own)
            .replace("localhost:8888", &format!("localhost:{port}"));
        let text = match file {
            "lockgate.toml" => {
                text.replace("[store]", "start-time = \"2026-01-01T00:00:00Z\"\n[store]")
            }
            _ => format!("start-time = \"2026-01-01T00:00:00Z\"\n{text}"),
        };
        fs::write(&path, text).unwrap();
        let mut check = lockgate();
        check.args(["check", file]).current_dir(&out);
        Running::start("check", &mut check).ended().exits_with(0);
        let mut start = lockgate();
        start
            .args(["start", "--exit-on-last-event", "--config", file])
            .current_dir(&out);
        Running::start("start", &mut start).ended().exits_with(0);
        let log = fs::read_to_string(out.join("access.log")).unwrap();
        let expected = "/events.log 200 SUCCESS CN=Client";
        assert!(log.lines().any(|line| line == expected), "{file}: {log}");
        assert!(
            log.lines()
                .all(|line| line.ends_with(" 200 SUCCESS CN=Client")),
            "{file}: {log}"
        );
        fs::write(out.join("access.log"), "").unwrap();
    }
    // OpenSSL's own client: with the certificate it is served, without it is not.
    let with = ["-cert", "client.crt", "-key", "client.key"];
    for (arguments, status) in [(&with[..], "200 OK"), (&[], "400 Bad Request")] {
        if let Some(answer) = asked(&out, port, arguments) {
            assert!(answer.contains(status), "{arguments:?}: {answer}");
        }
    }
    nginx.stop();
}
