//! Passes connections on to a server, until nothing passes any more.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub struct Relay {
    pub address: SocketAddr,
    stall: watch::Sender<bool>,
}

impl Relay {
    pub async fn start(server: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stall, stalls) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut stalls = stalls.clone();
                let is_late = *stalls.borrow();
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(server).await.expect("it listens");
                    let passing = tokio::io::copy_bidirectional(&mut client, &mut server);
                    let stall = async { stalls.wait_for(|stalls| *stalls).await.is_ok() };
                    let stalls = tokio::select! {
                        _ = passing => false,
                        stalls = stall, if !is_late => stalls,
                    };
                    if stalls {
                        // Both sides stay open, and neither hears of the other.
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        Relay { address, stall }
    }

    /// From now on nothing passes on the connections that there are. New ones work.
    pub fn stall(&self) {
        self.stall.send_replace(true);
    }
}
