//! What stands between two nodes: every connection of theirs goes through here, and what goes one way can be held back.
//!
//! A proxy listens where its node says that it can be reached. Who dials is read from the first message of a connection, in which every node names its
//! own address as text. What is held back is not lost: as with packets that are sent again, it arrives when the link is healed, unless a side has
//! given the connection up by then.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::limits::{PROXY_CHUNK_BYTES, PROXY_HELLO_BYTES_MAX, TRY_MAX};

/// From one node to another, by their numbers.
pub type Way = (usize, usize);

/// The ways on which nothing arrives.
#[derive(Clone, Debug)]
pub struct Links {
    cut: watch::Sender<BTreeSet<Way>>,
}

impl Default for Links {
    fn default() -> Self {
        Links { cut: watch::Sender::new(BTreeSet::new()) }
    }
}

impl Links {
    /// Holds back what goes these ways, from now on.
    pub fn cut(&self, ways: impl IntoIterator<Item = Way>) {
        self.cut.send_modify(|cut| cut.extend(ways));
    }

    /// Lets everything through again, what was held back first.
    pub fn heal(&self) {
        self.cut.send_modify(BTreeSet::clear);
    }

    /// Waits until what goes this way arrives.
    async fn open(&self, way: Option<Way>) {
        let Some(way) = way else { return };
        let mut cut = self.cut.subscribe();
        // The sender is ours: it outlives the wait.
        let _ = cut.wait_for(|cut| !cut.contains(&way)).await;
    }
}

/// Hands connections from where a node says it can be reached on to where it listens, until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    _accepting: JoinSet<()>,
}

impl Proxy {
    /// Stands before the `number`th of the nodes at `addresses`, as they tell each other; that one listens at `upstream`.
    pub fn start(
        listener: TcpListener,
        number: usize,
        upstream: SocketAddr,
        addresses: Arc<Vec<String>>,
        links: Links,
    ) -> Proxy {
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    biased;
                    Some(_) = connections.join_next() => {}
                    accepted = listener.accept() => {
                        // None may be left for a moment; the next try says so again.
                        let Ok((stream, _)) = accepted else { continue };
                        let (addresses, links) = (Arc::clone(&addresses), links.clone());
                        connections.spawn(async move {
                            // It ended, for whichever reason: both sides are told by the end of their streams.
                            let _ = relay(stream, number, upstream, &addresses, &links).await;
                        });
                    }
                }
            }
        });
        Proxy { _accepting: accepting }
    }
}

async fn relay(
    mut from: TcpStream,
    number: usize,
    upstream: SocketAddr,
    addresses: &[String],
    links: &Links,
) -> io::Result<()> {
    from.set_nodelay(true)?;
    let first = timeout(TRY_MAX, first_message(&mut from)).await.map_err(io::Error::other)??;
    let dialler = dialler(&first, addresses);
    let (there, back) = (dialler.map(|dialler| (dialler, number)), dialler.map(|dialler| (number, dialler)));
    links.open(there).await;
    let mut to = TcpStream::connect(upstream).await?;
    to.set_nodelay(true)?;
    to.write_all(&first).await?;
    let (from_read, from_write) = from.into_split();
    let (to_read, to_write) = to.into_split();
    // Half a connection is of no use to nodes: whichever ends first ends both.
    tokio::select! {
        biased;
        ended = pump(from_read, to_write, there, links) => ended,
        ended = pump(to_read, from_write, back, links) => ended,
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    way: Option<Way>,
    links: &Links,
) -> io::Result<()> {
    let mut chunk = vec![0; PROXY_CHUNK_BYTES];
    loop {
        let length = from.read(&mut chunk).await;
        // The end of a stream does not arrive either.
        links.open(way).await;
        match length? {
            0 => return to.shutdown().await,
            length => to.write_all(&chunk[..length]).await?,
        }
    }
}

/// Bytes before the first frame's length, and of it.
const MAGIC_BYTES: usize = 8;
const LENGTH_BYTES: usize = 4;

/// The first message of a connection: magic, length, and as much as that says. What does not look like one is taken as it is.
async fn first_message(from: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let length = bytes.get(MAGIC_BYTES..MAGIC_BYTES + LENGTH_BYTES);
        let length = length.map(|length| u32::from_le_bytes(length.try_into().expect("four bytes")) as usize);
        let is_whole = length.is_some_and(|length| bytes.len() >= MAGIC_BYTES + LENGTH_BYTES + length);
        if is_whole || bytes.len() >= PROXY_HELLO_BYTES_MAX || from.read_buf(&mut bytes).await? == 0 {
            return Ok(bytes);
        }
    }
}

/// Whose address is in the message: the longest that is.
fn dialler(message: &[u8], addresses: &[String]) -> Option<usize> {
    let is_in = |address: &str| message.windows(address.len()).any(|window| window == address.as_bytes());
    let known = addresses.iter().enumerate().filter(|(_, address)| is_in(address));
    known.max_by_key(|(_, address)| address.len()).map(|(number, _)| number)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);
    const MOMENT: Duration = Duration::from_millis(50);

    /// A node that sends back what it gets, behind a proxy as the node 1; and where node 0 finds it.
    async fn echo(links: &Links) -> (SocketAddr, Proxy) {
        let node = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = node.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = node.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.into_split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let addresses = Arc::new(vec!["10.0.0.1:700".to_owned(), address.to_string(), "10.0.0.1:7000".to_owned()]);
        (address, Proxy::start(listener, 1, upstream, addresses, links.clone()))
    }

    fn hello(from: &str) -> Vec<u8> {
        let body = format!("\x05{from}\x00");
        [&b"proffer\n"[..], &u32::try_from(body.len()).unwrap().to_le_bytes(), body.as_bytes()].concat()
    }

    async fn dial(address: SocketAddr, from: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&hello(from)).await.unwrap();
        stream
    }

    async fn heard(stream: &mut TcpStream, bytes: &[u8]) -> bool {
        let mut back = vec![0; bytes.len()];
        let read = timeout(MOMENT, stream.read_exact(&mut back)).await;
        read.is_ok_and(|read| read.is_ok()) && back == bytes
    }

    async fn comes_back(stream: &mut TcpStream, bytes: &[u8]) {
        let mut back = vec![0; bytes.len()];
        timeout(PATIENCE, stream.read_exact(&mut back)).await.unwrap().unwrap();
        assert_eq!(back, bytes);
    }

    #[tokio::test]
    async fn what_goes_a_way_that_is_cut_arrives_when_it_is_healed() {
        for way in [(0, 1), (1, 0)] {
            let links = Links::default();
            let (address, _proxy) = echo(&links).await;
            let mut stream = dial(address, "10.0.0.1:700").await;
            comes_back(&mut stream, &hello("10.0.0.1:700")).await;
            links.cut([way]);
            stream.write_all(b"held").await.unwrap();
            assert!(!heard(&mut stream, b"held").await, "{way:?}");
            // A new connection gets nowhere either, and others are not touched.
            let mut new = dial(address, "10.0.0.1:700").await;
            assert!(!heard(&mut new, b"p").await, "{way:?}");
            let mut other = dial(address, "10.0.0.1:7000").await;
            comes_back(&mut other, &hello("10.0.0.1:7000")).await;
            links.heal();
            comes_back(&mut stream, b"held").await;
            comes_back(&mut new, &hello("10.0.0.1:700")).await;
        }
    }

    #[tokio::test]
    async fn the_end_of_one_side_is_the_end_of_the_other() {
        let (address, _proxy) = echo(&Links::default()).await;
        let mut stream = dial(address, "10.0.0.1:700").await;
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    }

    #[test]
    fn the_dialler_is_whose_whole_address_is_told() {
        let addresses = ["10.0.0.1:700".to_owned(), "10.0.0.1:7000".to_owned()];
        assert_eq!(dialler(&hello("10.0.0.1:700"), &addresses), Some(0));
        assert_eq!(dialler(&hello("10.0.0.1:7000"), &addresses), Some(1));
        assert_eq!(dialler(&hello("10.0.0.2:700"), &addresses), None);
        assert_eq!(dialler(b"GET / HTTP/1.1", &addresses), None);
    }
}
