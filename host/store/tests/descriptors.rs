//! A process without file descriptors. A binary of its own, because the limit is that of a process.

#![cfg(target_os = "linux")]

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use lockgate_store::{Options, Store};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The host ended: `unable to open database file`.
#[test]
fn a_read_waits_until_a_file_descriptor_is_free() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(Options::new(directory.path())).unwrap();
    let limits = getrlimit(Resource::Nofile);
    let set = |current| setrlimit(Resource::Nofile, Rlimit { current, ..limits }).unwrap();
    let (read, reads) = mpsc::channel();
    thread::scope(|scope| {
        // Fewer than are open: none can be opened.
        set(Some(1));
        scope.spawn(|| read.send(store.reads().gaps()).unwrap());
        assert!(reads.recv_timeout(Duration::from_millis(300)).is_err());
        set(limits.current);
        assert!(reads.recv().unwrap().unwrap().is_empty());
    });
}
