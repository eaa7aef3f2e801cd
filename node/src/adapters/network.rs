//! TCP between nodes.

use std::io;

use proffer_cluster::ports::network::{Network, Stream};
use proffer_cluster::ports::propose::Pending;
use tokio::net::{TcpListener, TcpStream};

/// Plain TCP without Nagle's delay. Addresses are `host:port`.
///
/// It does not know who is on the other side: use it where the network is trusted.
#[derive(Debug)]
pub struct TcpNetwork {
    listener: TcpListener,
}

impl TcpNetwork {
    /// Listens at `address`.
    ///
    /// # Errors
    /// The address cannot be listened at.
    pub async fn listen(address: &str) -> io::Result<Self> {
        Ok(TcpNetwork { listener: TcpListener::bind(address).await? })
    }

    /// The port that it listens on.
    ///
    /// # Errors
    /// The system does not say.
    pub fn port(&self) -> io::Result<u16> {
        Ok(self.listener.local_addr()?.port())
    }

    /// Where it listens: the port that was given, if any was asked for.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> io::Result<String> {
        Ok(self.listener.local_addr()?.to_string())
    }
}

impl Network for TcpNetwork {
    fn dial<'a>(&'a self, address: &'a str) -> Pending<'a, io::Result<Stream>> {
        Box::pin(async move { stream(TcpStream::connect(address).await?) })
    }

    fn accept(&self) -> Pending<'_, io::Result<(Stream, String)>> {
        Box::pin(async {
            let (accepted, from) = self.listener.accept().await?;
            Ok((stream(accepted)?, from.to_string()))
        })
    }
}

fn stream(stream: TcpStream) -> io::Result<Stream> {
    // Frames are written whole: waiting for more would only delay heartbeats.
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use proffer_cluster::peers::{Class, Gatekeeper, Hello, Peers, PeersConfig, Request, Service};
    use proffer_cluster::ports::entropy::SeededEntropy;
    use proffer_cluster::ports::network_conformance::network_conformance;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn node() -> (String, TcpNetwork) {
        let network = TcpNetwork::listen("127.0.0.1:0").await.unwrap();
        (network.address().unwrap(), network)
    }

    #[tokio::test]
    async fn tcp_keeps_the_contract() {
        network_conformance(async || [node().await, node().await]).await;
    }

    struct Open;

    impl Gatekeeper for Open {
        fn about(&self) -> Vec<u8> {
            Vec::new()
        }

        fn judge(&self, _: &Hello, _: bool) -> Result<(), String> {
            Ok(())
        }
    }

    impl Service for Open {
        fn serve(&self, _: &Hello, mut request: Request) -> Pending<'static, Vec<u8>> {
            request.body.reverse();
            Box::pin(std::future::ready(request.body))
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nodes_talk_and_browsers_are_told() {
        let mut nodes = Vec::new();
        for id in 1..=2 {
            let (address, network) = node().await;
            let config = PeersConfig::new(Some(1), id, id.into(), 1, &address);
            let entropy = Arc::new(SeededEntropy::new(id));
            nodes.push((address, Peers::start(config, Arc::new(network), entropy, Arc::new(Open), Arc::new(Open))));
        }
        let [(_, first), (address, _second)] = &nodes[..] else { panic!("two nodes") };
        first.set_route(2, address);
        for bytes in [0, 3, 100_000, 5_000_000] {
            let body: Vec<u8> = (0..=255).cycle().take(bytes).collect();
            let mut answer = first.ask(2, Class::Call, body.clone(), Duration::from_secs(20)).await.unwrap();
            answer.reverse();
            assert!(answer == body, "{bytes} bytes come back");
        }
        let mut browser = TcpStream::connect(address).await.unwrap();
        browser.write_all(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n").await.unwrap();
        let mut told = String::new();
        browser.read_to_string(&mut told).await.unwrap();
        assert!(told.starts_with("HTTP/1.1 400 "), "{told}");
    }
}
