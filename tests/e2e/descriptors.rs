//! Few file descriptors, and many receivers that hang.

use std::fmt::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use lockgate_tests::neighbours::pipeline;
use lockgate_tests::receiver::LocalReceiver;
use lockgate_tests::{Auth, books, configuration, start_with_open_files, status, until};

/// A receiver that accepts connections and never answers.
struct Hung {
    url: String,
    connections: Arc<Mutex<Vec<TcpStream>>>,
}

impl Hung {
    fn start() -> Hung {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("it listens"));
        let connections = Arc::<Mutex<Vec<TcpStream>>>::default();
        let accepted = connections.clone();
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                accepted.lock().unwrap().push(connection);
            }
        });
        Hung { url, connections }
    }

    fn connections(&self) -> usize {
        self.connections.lock().unwrap().len()
    }

    /// So many pipelines that send to it, with 64 requests at once.
    fn pipelines(&self, count: usize, timeout: &str) -> String {
        let mut text = String::new();
        for number in 1..=count {
            write!(
                text,
                "[pipelines.hangs-{number}]\nin-flight = 64\nbatch = {{ events = 10 }}\n\n\
                 [pipelines.hangs-{number}.sink]\nplugin = \"builtin:fluentd\"\n\
                 url = \"{}\"\ntimeout = \"{timeout}\"\n\n",
                self.url
            )
            .expect("a string takes everything");
        }
        text
    }
}

fn files_open(pid: u32) -> usize {
    let open = std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd"));
    open.map_or(0, Iterator::count)
}

/// Receivers that hung took all file descriptors. Then no other could be connected to, for which it
/// was blamed, and the store could not be read.
#[test]
fn many_hung_receivers_leave_file_descriptors_to_a_healthy_one() {
    let (limit, hung) = (400, 40);
    let events = 2000;
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", &events.to_string()]);
    let (receiver, hangs) = (LocalReceiver::start(dir.path()), Hung::start());
    // In the order of their names, the healthy one is the last.
    let pipelines = hangs.pipelines(hung, "100s") + &pipeline("healthy", &receiver);
    let config = configuration(dir.path(), &auth, &pipelines);
    let host = start_with_open_files(&config, limit);
    host.line_with_all(&[
        "no more than 400 files may be open",
        "41 pipelines may need",
    ]);
    let shown = || format!("{} open\n{}", files_open(host.pid()), host.stderr());
    until("the healthy pipeline delivers everything", shown, || {
        assert!(files_open(host.pid()) < limit, "{}", host.stderr());
        books(&status(&config), "healthy").delivered == events
    });
    until("the others have their share", shown, || {
        hangs.connections() >= 5 * hung
    });
    assert!(files_open(host.pid()) < limit, "{}", shown());
    let stderr = host.stop().exits_with(0).stderr;
    for blamed in ["no file descriptor", "Too many open files", "dead letter"] {
        assert!(!stderr.contains(blamed), "{stderr}");
    }
    assert_eq!(receiver.stop().by_path["/healthy"].documents, events);
}

#[test]
fn more_receivers_than_file_descriptors_take_turns() {
    let (limit, hung) = (165, 40);
    let events = 200;
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", &events.to_string()]);
    let (receiver, hangs) = (LocalReceiver::start(dir.path()), Hung::start());
    let pipelines = hangs.pipelines(hung, "4s") + &pipeline("healthy", &receiver);
    let config = configuration(dir.path(), &auth, &pipelines);
    let host = start_with_open_files(&config, limit);
    host.line_with_all(&["held: ", "requests wait for file descriptors"]);
    let shown = || format!("{} open\n{}", files_open(host.pid()), host.stderr());
    until("the healthy pipeline delivers everything", shown, || {
        assert!(files_open(host.pid()) < limit, "{}", host.stderr());
        books(&status(&config), "healthy").delivered == events
    });
    let stderr = host.stop().exits_with(0).stderr;
    for blamed in ["no file descriptor", "Too many open files", "dead letter"] {
        assert!(!stderr.contains(blamed), "{stderr}");
    }
    assert_eq!(receiver.stop().by_path["/healthy"].documents, events);
}
