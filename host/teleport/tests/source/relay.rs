//! Passes connections on to a server, until nothing passes any more.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub struct Relay {
    pub address: SocketAddr,
    accepted: watch::Receiver<usize>,
    stalled: watch::Sender<usize>,
}

impl Relay {
    pub async fn start(server: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (accept, accepted) = watch::channel(0);
        // How many connections stall, the first ones.
        let (stalled, stall) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let number = *accept.borrow();
                accept.send_replace(number + 1);
                let mut stall = stall.clone();
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(server).await.expect("it listens");
                    let passing = tokio::io::copy_bidirectional(&mut client, &mut server);
                    let stall = async { stall.wait_for(|&count| number < count).await.is_ok() };
                    let stalls = tokio::select! {
                        _ = passing => false,
                        stalls = stall => stalls,
                    };
                    if stalls {
                        // Both sides stay open, and neither hears of the other.
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        Relay {
            address,
            accepted,
            stalled,
        }
    }

    /// From now on nothing passes on the connections that there are. New ones work.
    pub fn stall(&self) {
        self.stall_first(*self.accepted.borrow());
    }

    /// From now on nothing passes on so many connections, the first ones.
    pub fn stall_first(&self, count: usize) {
        self.stalled.send_replace(count);
    }
}
