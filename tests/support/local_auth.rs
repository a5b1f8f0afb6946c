//! A simulated Teleport inside the test, which can change its behaviour while the host runs.

use std::path::{Path, PathBuf};

use lockgate_sim::auth::{AuthOptions, AuthServer, Faults, Lock};
use tokio::runtime::Runtime;

pub struct LocalAuth {
    runtime: Runtime,
    options: AuthOptions,
    server: Option<AuthServer>,
    pub addr: String,
    pub dir: PathBuf,
}

impl LocalAuth {
    pub fn start(dir: &Path, options: AuthOptions) -> LocalAuth {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let dir = dir.join("auth");
        let options = AuthOptions {
            out: dir.clone(),
            ..options
        };
        let mut auth = LocalAuth {
            runtime,
            options,
            server: None,
            addr: String::new(),
            dir,
        };
        auth.go_on();
        auth
    }

    /// From here on.
    pub fn set_faults(&self, faults: Faults) {
        let server = self.server.as_ref().expect("it runs");
        server.set_faults(faults);
    }

    /// How many recordings have been opened.
    pub fn opened_recordings(&self) -> u64 {
        self.server.as_ref().expect("it runs").served().recordings
    }

    /// Each lock that was made, in order.
    pub fn made_locks(&self) -> Vec<Lock> {
        self.server.as_ref().expect("it runs").made_locks()
    }

    /// How many events have appeared.
    pub fn visible(&self) -> u64 {
        self.server.as_ref().expect("it runs").visible()
    }

    /// The `uid` of an event by its position.
    pub fn uid(&self, position: u64) -> String {
        let server = self.server.as_ref().expect("it runs");
        server.generator().uid(position)
    }

    /// The time of an event by its position, in milliseconds since the Unix epoch.
    pub fn time(&self, position: u64) -> i64 {
        let server = self.server.as_ref().expect("it runs");
        server.generator().time(position)
    }

    /// The addresses of the proxy and of the load balancer in front of it.
    pub fn proxy(&self) -> (String, String) {
        let server = self.server.as_ref().expect("it runs");
        let proxy = server.proxy_address().expect("it has a proxy");
        let balancer = server.balancer_address().expect("it has a balancer");
        (proxy.to_string(), balancer.to_string())
    }

    /// The address of the proxy's SSH tunnel.
    pub fn tunnel(&self) -> String {
        let server = self.server.as_ref().expect("it runs");
        let tunnel = server.tunnel_address().expect("it has a tunnel");
        tunnel.to_string()
    }

    /// Cuts every connection; new ones are accepted.
    pub fn cut_connections(&self) {
        self.server.as_ref().expect("it runs").drop_connections();
    }

    /// Closes the ports and connections of the proxy alone.
    pub fn stop_proxy(&mut self) {
        let server = self.server.as_mut().expect("it runs");
        self.runtime.block_on(server.stop_proxy());
    }

    pub fn start_proxy(&mut self) {
        let server = self.server.as_mut().expect("it runs");
        let started = self.runtime.block_on(server.start_proxy());
        started.expect("the proxy starts");
    }

    /// Closes the port and all connections.
    pub fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.stop());
        }
    }

    /// Ends, and begins with other options.
    pub fn restart_with(&mut self, change: impl FnOnce(&mut AuthOptions)) {
        self.stop();
        change(&mut self.options);
        self.go_on();
    }

    /// Listens, again at the address of before if there was one.
    pub fn go_on(&mut self) {
        let started = AuthServer::start(self.options.clone());
        let server = self.runtime.block_on(started).expect("it starts");
        self.addr = server.address().to_string();
        self.options.listen.clone_from(&self.addr);
        self.server = Some(server);
    }
}
