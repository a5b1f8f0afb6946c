//! A simulated receiver inside the test, which can change its behaviour while the host runs.

use std::path::{Path, PathBuf};

use crate::{endpoint, until};
use lockgate_sim::receiver::{Fault, Receiver, ReceiverControl, ReceiverOptions, Rule, Totals};

pub struct LocalReceiver {
    runtime: tokio::runtime::Runtime,
    receiver: Receiver,
    /// Its certificates and those of its client.
    pub dir: PathBuf,
    pub control: ReceiverControl,
}

impl LocalReceiver {
    pub fn start(dir: &Path) -> LocalReceiver {
        LocalReceiver::with(dir, ReceiverOptions::default())
    }

    pub fn with(dir: &Path, options: ReceiverOptions) -> LocalReceiver {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let dir = dir.join("receiver");
        let options = ReceiverOptions {
            out: dir.clone(),
            ..options
        };
        let receiver = runtime
            .block_on(Receiver::start(options))
            .expect("the receiver starts");
        LocalReceiver {
            control: receiver.control(),
            runtime,
            receiver,
            dir,
        }
    }

    pub fn address(&self) -> String {
        self.receiver.address().to_string()
    }

    /// `url` and `tls` of a sink.
    pub fn endpoint(&self, path: &str) -> String {
        endpoint(&self.address(), &self.dir, path)
    }

    /// `session-url` of a sink.
    pub fn session_url(&self, path: &str) -> String {
        let port = self.receiver.address().port();
        format!("session-url = \"https://localhost:{port}/{path}\"\n")
    }

    /// Every request meets this fault from here on.
    pub fn always(&self, fault: Fault) {
        self.control.set_rules(vec![Rule::new(fault)]);
    }

    /// Refuses requests with a document that holds this text from here on, as a receiver does that
    /// cannot store a document.
    pub fn refuse(&self, text: &str) {
        self.refuse_each(&[text]);
    }

    /// The same with any of several texts.
    pub fn refuse_each(&self, texts: &[&str]) {
        let rules = texts.iter().map(|&text| Rule {
            body: text.to_owned(),
            ..Rule::new(Fault::Status(400))
        });
        self.control.set_rules(rules.collect());
    }

    /// Accepts every request from here on, those that hang included.
    pub fn recover(&self) {
        self.control.set_rules(Vec::new());
        self.control.release();
    }

    #[track_caller]
    pub fn wait_for_requests(&self, number: u64) {
        let shown = || format!("{:?}", self.control.totals());
        let arrived = || self.control.totals().requests >= number;
        until(&format!("{number} requests arrive"), shown, arrived);
    }

    pub fn stop(self) -> Totals {
        self.runtime.block_on(self.receiver.stop())
    }
}
