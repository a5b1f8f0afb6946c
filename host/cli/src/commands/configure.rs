//! `lockgate configure`: certificates, and files for Teleport, Lockgate and the receiver.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{IpAddr, ToSocketAddrs};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use lockgate_certificates::{CertificateError, Certificates, Request, is_authority, issue};
use lockgate_config::{ProcessEnvironment, parse, toml_string};

use crate::args::Configure;
use crate::failure::Failure;
use crate::print;
use crate::setup;

const ROLE: &str = include_str!("configure/role.yaml");
const FLUENT: &str = include_str!("configure/fluent.conf");
const LOCKGATE: &str = include_str!("configure/lockgate.toml");
const HANDLER: &str = include_str!("configure/teleport-event-handler.toml");
const VALUES: &str = include_str!("configure/values.yaml");
const LOGSTASH: &str = include_str!("../../../../assets/elasticsearch/logstash.conf");
const UNIT: &str = include_str!("../../../../examples/deploy/systemd/lockgate.service");
/// Where the asset for Logstash has its certificates.
const LOGSTASH_KEYS: &str = "/etc/logstash/lockgate";

/// All of them may be read by their owner alone.
const MODE: u32 = 0o600;
const PORT: u16 = 8888;
const LOGSTASH_PORT: u16 = 8443;
/// The tag that Fluentd makes of the URL's path.
const EVENTS: &str = "events.log";

/// A file to write, and the step that it belongs to.
struct NewFile {
    step: &'static str,
    path: PathBuf,
    text: String,
}

pub(crate) fn run(command: &Configure) -> Result<(), Failure> {
    let out = std::path::absolute(&command.out).map_err(Failure::failed)?;
    for name in [&command.ca_name, &command.server_name, &command.client_name] {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(is_name) {
            let message = format!("`{name}` cannot be the name of a file here.");
            return Err(Failure::usage(message).hint("use letters, digits, `-`, `_` and `.`"));
        }
    }
    let names = [&command.ca_name, &command.server_name, &command.client_name];
    if names[0] == names[1] || names[0] == names[2] || names[1] == names[2] {
        return Err(Failure::usage("Two certificates would have the same name.")
            .hint("give CA, server and client names of their own"));
    }
    if command.ttl.as_secs() == 0 {
        return Err(Failure::usage("The certificates would expire at once.")
            .hint("choose a longer `--ttl`, such as the default, `87600h`"));
    }
    let certificates = issue(&request(command)?).map_err(refused)?;
    let files = files(command, &out, &certificates)?;
    refuse_to_share(&files)?;
    refuse_to_replace_an_authority(command, &out)?;
    if !command.force {
        refuse_to_overwrite(&files)?;
    }
    fs::create_dir_all(&out).map_err(|error| {
        Failure::usage(format!("`{}` cannot be created: {error}.", out.display()))
    })?;
    for file in &files {
        write(file, command.force).map_err(|error| {
            Failure::failed(format!(
                "`{}` cannot be written: {error}",
                file.path.display()
            ))
        })?;
    }
    print::data(&report(command, &files))
}

fn request(command: &Configure) -> Result<Request, Failure> {
    let mut addresses: Vec<IpAddr> = command.ip.clone();
    if addresses.is_empty() {
        // As with the Event Handler: whoever connects to an address of the name is served, too.
        // A wildcard has no address of its own.
        let names = command.dns_names.iter();
        for name in names.filter(|name| !name.starts_with("*.")) {
            let found = (name.as_str(), 0).to_socket_addrs().map_err(|error| {
                Failure::failed(format!("The name `{name}` has no address: {error}.")).hint(
                    "name the addresses of the receiver with `--ip`, or correct `--dns-names`",
                )
            })?;
            for address in found.map(|found| found.ip()) {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
    }
    Ok(Request {
        now: setup::now(),
        valid: command.ttl,
        server: command.cn.clone(),
        names: command.dns_names.clone(),
        addresses,
    })
}

fn refused(error: CertificateError) -> Failure {
    let hint = match &error {
        CertificateError::Name(_) => "name the receiver with `--dns-names`, such as `localhost`",
        CertificateError::Validity => "choose a shorter `--ttl`",
        CertificateError::Made(_) | CertificateError::Random => return Failure::failed(error),
    };
    Failure::usage(error).hint(hint)
}

fn files(
    command: &Configure,
    out: &Path,
    certificates: &Certificates,
) -> Result<Vec<NewFile>, Failure> {
    let (ca, server, client) = (&command.ca_name, &command.server_name, &command.client_name);
    let mut files = Vec::new();
    let mut add = |step: &'static str, name: String, text: String| {
        let path = out.join(name);
        files.push(NewFile { step, path, text });
    };
    let tls = "mTLS certificates";
    add(
        tls,
        format!("{ca}.crt"),
        certificates.authority.certificate.clone(),
    );
    add(
        tls,
        format!("{ca}.key"),
        certificates.authority.key.expose().into(),
    );
    add(
        tls,
        format!("{server}.crt"),
        certificates.server.certificate.clone(),
    );
    add(
        tls,
        format!("{server}.key"),
        certificates.encrypted_key.expose().into(),
    );
    add(
        tls,
        format!("{server}.pkcs8.key"),
        certificates.server.key.expose().into(),
    );
    add(
        tls,
        format!("{client}.crt"),
        certificates.client.certificate.clone(),
    );
    add(
        tls,
        format!("{client}.key"),
        certificates.client.key.expose().into(),
    );

    let host = receiver(&command.dns_names);
    let url = |port: u16, path: &str| toml_string(&format!("https://{host}:{port}/{path}"));
    let text = |name: &str| toml_string(name);
    let here = |name: String| toml_string(&out.join(name).to_string_lossy());
    let common = [
        ("{addr}", text(&command.addr)),
        ("{url}", url(PORT, EVENTS)),
        ("{session-url}", url(PORT, "session")),
        ("{logstash-url}", url(LOGSTASH_PORT, "")),
    ];
    let fill = |template: &str, values: &[(&str, String)]| {
        values
            .iter()
            .fold(template.to_owned(), |text, (name, value)| {
                text.replace(name, value)
            })
    };
    let own = [
        ("{ca}", text(&format!("{ca}.crt"))),
        ("{cert}", text(&format!("{client}.crt"))),
        ("{key}", text(&format!("{client}.key"))),
    ];
    let lockgate = fill(&fill(LOCKGATE, &common), &own);
    // The address is the only thing in it that can be wrong.
    if let Err(issues) = parse("lockgate.toml", &lockgate, out, &ProcessEnvironment) {
        let first = issues.issues().first();
        let message = first.map_or_else(|| issues.to_string(), |issue| issue.message.clone());
        let message = message.replace("teleport.addr", &command.addr);
        return Err(Failure::usage(message)
            .hint("write host and port of Teleport's proxy or Auth Service, such as `teleport.example.com:443`"));
    }
    add(
        "role, user and bot of Teleport",
        "teleport-event-handler-role.yaml".into(),
        ROLE.into(),
    );
    let fluent = [
        ("{ca}", ca.clone()),
        ("{server}", server.clone()),
        ("{passphrase}", certificates.passphrase.expose().to_owned()),
        ("{events}", EVENTS.to_owned()),
    ];
    add(
        "configuration of Fluentd",
        "fluent.conf".into(),
        fill(FLUENT, &fluent),
    );
    let keys = |name: &str| format!("\"{LOGSTASH_KEYS}/{name}\"");
    let here_in_logstash = |name: String| logstash_string(&out.join(name));
    let logstash = [
        (
            &*keys("server.crt"),
            here_in_logstash(format!("{server}.crt"))?,
        ),
        (
            &*keys("server.pk8.key"),
            here_in_logstash(format!("{server}.pkcs8.key"))?,
        ),
        (&*keys("ca.crt"), here_in_logstash(format!("{ca}.crt"))?),
    ];
    add(
        "pipeline of Logstash",
        "logstash.conf".into(),
        fill(LOGSTASH, &logstash),
    );
    add(
        "configuration of Lockgate",
        "lockgate.toml".into(),
        lockgate,
    );
    let absolute = [
        ("{ca}", here(format!("{ca}.crt"))),
        ("{cert}", here(format!("{client}.crt"))),
        ("{key}", here(format!("{client}.key"))),
    ];
    add(
        "configuration of the Event Handler",
        "teleport-event-handler.toml".into(),
        fill(&fill(HANDLER, &common), &absolute),
    );
    let values = [
        ("{addr}", text(&command.addr)),
        ("{ca}", ca.clone()),
        ("{client}", client.clone()),
    ];
    add(
        "values of the Helm chart",
        "lockgate-values.yaml".into(),
        fill(VALUES, &values),
    );
    add("unit of systemd", "lockgate.service".into(), UNIT.into());
    Ok(files)
}

/// The receiver's name in URLs. A wildcard stands for names, and is none.
fn receiver(names: &[String]) -> String {
    let whole = names.iter().find(|name| !name.starts_with("*."));
    match (whole, names.first()) {
        (Some(name), _) => name.clone(),
        (None, Some(wildcard)) => wildcard.replacen('*', "receiver", 1),
        (None, None) => "localhost".to_owned(),
    }
}

/// Logstash knows no escapes in strings, and replaces `${NAME}`.
fn logstash_string(path: &Path) -> Result<String, Failure> {
    let text = path.display().to_string();
    let cannot = text.contains("${") || text.contains(char::is_control);
    match (cannot, text.contains('"'), text.contains('\'')) {
        (false, false, _) => Ok(format!("\"{text}\"")),
        (false, true, false) => Ok(format!("'{text}'")),
        _ => {
            let message = format!("`{text}` cannot be written in a configuration of Logstash.");
            Err(Failure::usage(message)
                .hint("choose a directory without quotes, `${` and control characters"))
        }
    }
}

/// One would replace the other: a certificate, or the key of the authority.
fn refuse_to_share(files: &[NewFile]) -> Result<(), Failure> {
    let mut paths = BTreeSet::new();
    match files.iter().find(|file| !paths.insert(&file.path)) {
        None => Ok(()),
        Some(shared) => {
            let message = format!("Two files would be `{}`.", shared.path.display());
            Err(Failure::usage(message).hint("give CA, server and client other names"))
        }
    }
}

/// Also with `--force`: whoever replaces an authority means to make another.
fn refuse_to_replace_an_authority(command: &Configure, out: &Path) -> Result<(), Failure> {
    for name in [&command.server_name, &command.client_name] {
        let path = out.join(format!("{name}.crt"));
        if fs::read_to_string(&path).is_ok_and(|text| is_authority(&text)) {
            let message = format!(
                "`{}` is the certificate of an authority. Another certificate, and its key, would \
                 replace it.",
                path.display()
            );
            return Err(Failure::usage(message)
                .hint("give server and client other names, or choose another directory"));
        }
    }
    Ok(())
}

/// Keys that are in use would be lost.
fn refuse_to_overwrite(files: &[NewFile]) -> Result<(), Failure> {
    let existing = files
        .iter()
        .filter(|file| file.path.symlink_metadata().is_ok());
    let existing: Vec<String> = existing
        .map(|file| format!("`{}`", file.path.display()))
        .collect();
    let exist = match existing.len() {
        0 => return Ok(()),
        1 => "exists",
        _ => "exist",
    };
    let message = format!(
        "{} {exist} already. Nothing was written.",
        existing.join(", ")
    );
    Err(Failure::usage(message)
        .hint("choose another directory, or use `--force` to overwrite them: keys in use are lost"))
}

/// Through a new file: the content is never readable by others, nor half written, and a link is
/// replaced instead of followed.
fn write(file: &NewFile, force: bool) -> std::io::Result<()> {
    let mut name = file.path.clone().into_os_string();
    name.push(".new");
    let new = PathBuf::from(name);
    // It may be left over from an earlier run.
    let _ = fs::remove_file(&new);
    let mut options = OpenOptions::new();
    let mut opened = options.write(true).create_new(true).mode(MODE).open(&new)?;
    opened.write_all(file.text.as_bytes())?;
    opened.sync_all()?;
    if force {
        return fs::rename(&new, &file.path);
    }
    // Unlike a renaming, this fails if the file has appeared meanwhile.
    let linked = fs::hard_link(&new, &file.path);
    fs::remove_file(&new)?;
    linked
}

fn report(command: &Configure, files: &[NewFile]) -> String {
    let mut text = format!("lockgate {}\n\n", env!("CARGO_PKG_VERSION"));
    let mut steps: Vec<(&str, Vec<String>)> = Vec::new();
    for file in files {
        let name = file.path.file_name().unwrap_or_default();
        let shown = command.out.join(name).display().to_string();
        match steps.last_mut() {
            Some((step, names)) if *step == file.step => names.push(shown),
            _ => steps.push((file.step, vec![shown])),
        }
    }
    for (number, (step, names)) in steps.iter().enumerate() {
        text += &format!("[{}] Generated {step}: {}\n", number + 1, names.join(", "));
    }
    if command.length.is_some() {
        text += "\n`--length` has no effect: keys are ECDSA P-256.\n";
    }
    let out = command.out.display();
    text + &format!(
        "\nNext: `tctl create {out}/teleport-event-handler-role.yaml`, put an identity file at \
         `{out}/identity`, and run `lockgate check {out}/lockgate.toml`.\nFor Elasticsearch, \
         `lockgate assets elasticsearch` writes the index template that logstash.conf needs.\n"
    )
}
