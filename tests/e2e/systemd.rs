//! What a host tells the service manager, read from a real socket.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lockgate_tests::receiver::LocalReceiver;
use lockgate_tests::{
    Auth, Running, Signal, configuration, empty_disk, lockgate, on_a_full_disk, reload, root,
};

struct Manager {
    socket: UnixDatagram,
    /// Messages that were read.
    seen: Vec<String>,
}

impl Manager {
    fn on(socket: UnixDatagram) -> Manager {
        let patience = Some(Duration::from_secs(300));
        socket.set_read_timeout(patience).unwrap();
        let seen = Vec::new();
        Manager { socket, seen }
    }

    /// Waits for a message with a line that begins so, and returns the rest of the line.
    #[track_caller]
    fn line(&mut self, start: &str) -> String {
        let mut buffer = [0; 4096];
        loop {
            let received = self.socket.recv(&mut buffer);
            let bytes = received.unwrap_or_else(|_| panic!("no `{start}` in {:?}", self.seen));
            let message = String::from_utf8(buffer[..bytes].to_vec()).unwrap();
            self.seen.push(message.clone());
            if let Some(rest) = message.lines().find_map(|line| line.strip_prefix(start)) {
                return rest.to_owned();
            }
        }
    }
}

fn pipeline(receiver: &LocalReceiver, name: &str) -> String {
    let endpoint = receiver.endpoint(name);
    format!("[pipelines.{name}.sink]\nplugin = \"builtin:fluentd\"\n{endpoint}\n")
}

fn start(config: &Path, socket: &str) -> Running {
    let mut command = lockgate();
    command.args(["start", "--config"]).arg(config);
    command.env("NOTIFY_SOCKET", socket);
    command.env("WATCHDOG_USEC", "2000000");
    Running::start("start", &mut command)
}

#[test]
fn the_service_manager_hears_of_start_reload_and_stop() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = LocalReceiver::start(dir.path());
    let config = configuration(dir.path(), &auth, &pipeline(&receiver, "main"));
    let path = dir.path().join("notify");
    let mut manager = Manager::on(UnixDatagram::bind(&path).unwrap());
    let host = start(&config, &path.display().to_string());
    assert_eq!(manager.line("READY="), "1");
    // `lockgate status` and `lockgate reload` work from now on.
    assert!(dir.path().join("store/control.sock").exists());
    assert_eq!(manager.line("WATCHDOG="), "1");
    while manager.line("STATUS=") != "Running: 1 of 1 pipeline ready." {}

    let before: u64 = monotonic_micros();
    host.signal(Signal::HUP);
    assert_eq!(manager.line("RELOADING="), "1");
    let message = manager.seen.last().unwrap();
    let at = message
        .lines()
        .find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
    let at: u64 = at.unwrap().parse().unwrap();
    assert!((before..=monotonic_micros()).contains(&at), "{at}");
    assert_eq!(manager.line("READY="), "1");

    // A refused file ends the reload, too.
    let good = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, good.clone() + "\nwrong = 1\n").unwrap();
    reload(&config).exits_with(1);
    manager.line("RELOADING=");
    assert_eq!(manager.line("READY="), "1");
    let status = manager.seen.last().unwrap().clone();
    assert!(
        status.contains("had problems and is not in force"),
        "{status}"
    );
    std::fs::write(&config, good).unwrap();

    host.signal(Signal::TERM);
    assert_eq!(manager.line("STOPPING="), "1");
    host.ended().exits_with(0);
}

#[test]
fn an_abstract_socket_is_used_too() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = LocalReceiver::start(dir.path());
    let config = configuration(dir.path(), &auth, &pipeline(&receiver, "main"));
    let name = format!("lockgate-test-{}", dir.path().display());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let mut manager = Manager::on(UnixDatagram::bind_addr(&address).unwrap());
    let host = start(&config, &format!("@{name}"));
    assert_eq!(manager.line("READY="), "1");
    host.stop().exits_with(0);
}

#[test]
fn a_start_that_waits_for_the_disk_is_given_more_time() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = LocalReceiver::start(dir.path());
    let config = configuration(dir.path(), &auth, &pipeline(&receiver, "main"));
    let path = dir.path().join("notify");
    let mut manager = Manager::on(UnixDatagram::bind(&path).unwrap());
    let mut command = on_a_full_disk(&config, 300);
    let host = Running::start("start", command.env("NOTIFY_SOCKET", &path));
    assert_eq!(manager.line("EXTEND_TIMEOUT_USEC="), "60000000");
    while !manager.line("STATUS=").contains("the disk is too full") {}
    assert!(
        manager
            .seen
            .iter()
            .all(|message| !message.contains("READY="))
    );
    empty_disk(&host);
    assert_eq!(manager.line("READY="), "1");
    host.stop().exits_with(0);
}

/// CLOCK_MONOTONIC, as systemd compares it.
fn monotonic_micros() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
}

/// The unit that operators copy. systemd reports what it does not understand and goes on.
#[test]
fn systemd_accepts_the_unit() {
    let unit = root().join("examples/deploy/systemd/lockgate.service");
    let text = std::fs::read_to_string(unit).unwrap();
    assert!(text.contains("\nType=notify\n"), "{text}");
    // The program that the unit names is not installed here.
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("lockgate.service");
    let text = text.replace("/usr/local/bin/lockgate", "/bin/true");
    std::fs::write(&copy, text).unwrap();
    let verify = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&copy)
        .output();
    let Ok(output) = verify else {
        println!("skipped: systemd-analyze is not installed");
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let of_unit: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("lockgate.service"))
        .collect();
    assert!(of_unit.is_empty(), "{said}");
}
