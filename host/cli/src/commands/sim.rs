//! `lockgate sim`: the simulators as processes.

use std::net::SocketAddr;

use lockgate_sim::{auth, generate, receiver};

use crate::args::{Backend, SimAuth, SimReceiver, Upgrade};
use crate::failure::Failure;
use crate::print;
use crate::signals::Signals;

/// Paths that a receiver prints one by one. Each session recording has its own.
const PATHS_PRINTED: usize = 20;

/// Serves until SIGTERM or SIGINT. The first line on standard output contains the address.
pub(crate) fn auth(command: SimAuth) -> Result<(), Failure> {
    let options = auth::AuthOptions {
        listen: command.listen.to_string(),
        out: command.out,
        events: generate::GeneratorOptions {
            events: command.events,
            seed: command.seed,
            odd: command.odd,
            ..generate::GeneratorOptions::default()
        },
        backend: match command.backend {
            Backend::Export => auth::Backend::Export,
            Backend::Search => auth::Backend::Search,
        },
        rate: command.rate.map(f64::from),
        proxy: command.proxy.map(|listen| auth::ProxyOptions {
            listen: listen.to_string(),
            balancer: command.balancer.map(|listen| listen.to_string()),
            tls_routing: command.tunnel.is_none(),
            tunnel: command.tunnel.map(|listen| listen.to_string()),
            upgrade: match command.upgrade {
                Upgrade::Websocket => auth::Upgrade::WebSocket,
                Upgrade::Alpn => auth::Upgrade::Alpn,
            },
            ..auth::ProxyOptions::default()
        }),
        ..auth::AuthOptions::default()
    };
    super::tokio_runtime()?.block_on(async {
        let ready = |server: &auth::AuthServer| {
            announce("sim auth", server.address());
            for (name, address) in [
                ("sim proxy", server.proxy_address()),
                ("sim balancer", server.balancer_address()),
                ("sim tunnel", server.tunnel_address()),
            ] {
                if let Some(address) = address {
                    announce(name, address);
                }
            }
        };
        auth::serve(options, ready, stopped()?)
            .await
            .map_err(Failure::failed)?;
        Ok(())
    })
}

/// Like `auth`. When stopped, it prints its counts as one JSON object.
pub(crate) fn receiver(command: SimReceiver) -> Result<(), Failure> {
    let status = command
        .status
        .parse()
        .map_err(|error| Failure::usage(format!("`--status {}`: {error}", command.status)))?;
    let options = receiver::ReceiverOptions {
        listen: command.listen.to_string(),
        out: command.out,
        latency: command.latency,
        status,
        capture: command.capture,
        capture_max: command.capture_max,
        ..receiver::ReceiverOptions::default()
    };
    super::tokio_runtime()?.block_on(async {
        let served = receiver::serve(
            options,
            |address| announce("sim receiver", address),
            stopped()?,
        )
        .await;
        let totals = served.map_err(Failure::failed)?.with_paths(PATHS_PRINTED);
        print::data(&format!(
            "{}\n",
            serde_json::to_string(&totals).map_err(Failure::failed)?
        ))
    })
}

fn announce(name: &str, address: SocketAddr) {
    // The parent process reads this line. Without a standard output, the server still works.
    let _ = print::data(&format!("{name} is listening on {address}\n"));
}

fn stopped() -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    let mut signals = Signals::new()?;
    Ok(async move {
        let signal = signals.next().await;
        tracing::info!("{signal}: stopping");
    })
}
