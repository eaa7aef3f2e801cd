//! A network in memory whose links can be cut, slowed, silenced and refused, by name, on `tokio::time`.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Sleep};

use super::network::{Network, Stream};
use super::propose::Pending;

/// Bytes under way in one direction of a connection; beyond, writing waits.
const PIPE_BYTES_MAX: usize = 64 * 1024;
/// Connections that wait to be accepted; beyond, dialling is refused.
const BACKLOG_MAX: usize = 128;

/// How one host's bytes reach another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Way {
    silent: bool,
    refused: bool,
    delay: Duration,
}

/// Hosts and the ways between them. Clones share them.
///
/// It draws nothing: on a paused clock the same calls give the same run.
#[derive(Clone)]
pub struct MemoryNetwork {
    fabric: Arc<Fabric>,
}

struct Fabric {
    state: Mutex<State>,
    // Told at each change of a way: dials that wait for an open one look again.
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    hosts: BTreeMap<String, mpsc::Sender<(Stream, String)>>,
    ways: BTreeMap<(String, String), Way>,
    // Every pipe and whose bytes it carries to whom.
    pipes: Vec<(String, String, Weak<Pipe>)>,
}

impl Default for MemoryNetwork {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryNetwork {
    /// A network without hosts, all ways open.
    pub fn new() -> Self {
        let fabric = Fabric { state: Mutex::default(), changed: watch::Sender::new(0) };
        MemoryNetwork { fabric: Arc::new(fabric) }
    }

    /// A host that listens at the address `name`, in place of one that had it before.
    pub fn host(&self, name: &str) -> MemoryHost {
        let (sender, incoming) = mpsc::channel(BACKLOG_MAX);
        self.fabric.lock().hosts.insert(name.to_owned(), sender);
        MemoryHost {
            name: name.to_owned(),
            fabric: Arc::clone(&self.fabric),
            incoming: tokio::sync::Mutex::new(incoming),
        }
    }

    /// Nothing from `from` reaches `to` any more, and nothing tells so: connections stay half open. What is written waits, and
    /// arrives after [`MemoryNetwork::heal`].
    pub fn silence(&self, from: &str, to: &str) {
        self.set(from, to, |way| way.silent = true);
    }

    /// Dials from `from` to `to` are refused; connections that stand are left alone.
    pub fn refuse(&self, from: &str, to: &str) {
        self.set(from, to, |way| way.refused = true);
    }

    /// Bytes from `from` to `to` take so long.
    pub fn slow(&self, from: &str, to: &str, delay: Duration) {
        self.set(from, to, |way| way.delay = delay);
    }

    /// Cuts two hosts off from each other: their connections break, and new ones are refused.
    pub fn cut(&self, one: &str, other: &str) {
        self.sever(one, other);
        self.refuse(one, other);
        self.refuse(other, one);
    }

    /// Breaks the connections between two hosts; they may dial again at once.
    pub fn sever(&self, one: &str, other: &str) {
        for (from, to, pipe) in &self.fabric.lock().pipes {
            let is_between = (from == one && to == other) || (from == other && to == one);
            if let Some(pipe) = pipe.upgrade().filter(|_| is_between) {
                pipe.change(|flow| flow.is_broken = true);
            }
        }
    }

    /// Opens the ways between two hosts, in both directions.
    pub fn heal(&self, one: &str, other: &str) {
        self.set(one, other, |way| *way = Way::default());
        self.set(other, one, |way| *way = Way::default());
    }

    fn set(&self, from: &str, to: &str, change: impl Fn(&mut Way)) {
        let mut state = self.fabric.lock();
        let way = state.ways.entry((from.to_owned(), to.to_owned())).or_default();
        change(way);
        let way = *way;
        state.pipes.retain(|(_, _, pipe)| pipe.strong_count() > 0);
        for (one, other, pipe) in &state.pipes {
            if let Some(pipe) = pipe.upgrade().filter(|_| one == from && other == to) {
                pipe.change(|flow| flow.way = way);
            }
        }
        drop(state);
        self.fabric.changed.send_modify(|changes| *changes += 1);
    }
}

impl Fabric {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    /// The ways there and back.
    fn ways(&self, from: &str, to: &str) -> (Way, Way) {
        let state = self.lock();
        let way = |from: &str, to: &str| state.ways.get(&(from.to_owned(), to.to_owned())).copied().unwrap_or_default();
        (way(from, to), way(to, from))
    }

    async fn dial(&self, from: &str, to: &str) -> io::Result<Stream> {
        let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, format!("{to} refuses connections"));
        let mut changed = self.changed.subscribe();
        loop {
            let (there, back) = self.ways(from, to);
            if !there.silent && !back.silent {
                tokio::time::sleep(there.delay + back.delay).await;
                break;
            }
            changed.changed().await.map_err(|_| refused())?;
        }
        let (there, back) = self.ways(from, to);
        if there.refused {
            return Err(refused());
        }
        let (outgoing, incoming) = (Pipe::new(there), Pipe::new(back));
        let mut state = self.lock();
        let host = state.hosts.get(to).cloned().ok_or_else(refused)?;
        state.pipes.retain(|(_, _, pipe)| pipe.strong_count() > 0);
        state.pipes.push((from.to_owned(), to.to_owned(), Arc::downgrade(&outgoing)));
        state.pipes.push((to.to_owned(), from.to_owned(), Arc::downgrade(&incoming)));
        drop(state);
        let theirs = MemoryStream::new(Arc::clone(&outgoing), Arc::clone(&incoming));
        host.try_send((Box::new(theirs), from.to_owned())).map_err(|_| refused())?;
        Ok(Box::new(MemoryStream::new(incoming, outgoing)))
    }
}

/// One host of a [`MemoryNetwork`].
pub struct MemoryHost {
    name: String,
    fabric: Arc<Fabric>,
    incoming: tokio::sync::Mutex<mpsc::Receiver<(Stream, String)>>,
}

impl Network for MemoryHost {
    fn dial<'a>(&'a self, address: &'a str) -> Pending<'a, io::Result<Stream>> {
        Box::pin(self.fabric.dial(&self.name, address))
    }

    fn accept(&self) -> Pending<'_, io::Result<(Stream, String)>> {
        Box::pin(async {
            match self.incoming.lock().await.recv().await {
                Some(accepted) => Ok(accepted),
                // Another host has the name now: nobody connects to this one any more.
                None => std::future::pending().await,
            }
        })
    }
}

/// One direction of a connection.
struct Pipe {
    flow: Mutex<Flow>,
}

#[derive(Default)]
struct Flow {
    way: Way,
    chunks: VecDeque<(Instant, Vec<u8>)>,
    // Bytes of the first chunk that were read already.
    read: usize,
    held: usize,
    // When the reader sees the end.
    ends: Option<Instant>,
    is_unread: bool,
    is_broken: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn new(way: Way) -> Arc<Pipe> {
        Arc::new(Pipe { flow: Mutex::new(Flow { way, ..Flow::default() }) })
    }

    /// Changes something and wakes both sides.
    fn change(&self, change: impl FnOnce(&mut Flow)) {
        let mut flow = self.flow.lock().expect("no holder panics");
        change(&mut flow);
        let wakers = [flow.reader.take(), flow.writer.take()];
        drop(flow);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    fn end(&self) {
        self.change(|flow| {
            let ends = Instant::now() + flow.way.delay;
            flow.ends.get_or_insert(ends);
        });
    }
}

struct MemoryStream {
    incoming: Arc<Pipe>,
    outgoing: Arc<Pipe>,
    // Rings when the first chunk has arrived.
    arrival: Pin<Box<Sleep>>,
}

impl MemoryStream {
    fn new(incoming: Arc<Pipe>, outgoing: Arc<Pipe>) -> Self {
        MemoryStream { incoming, outgoing, arrival: Box::pin(tokio::time::sleep(Duration::ZERO)) }
    }
}

impl Drop for MemoryStream {
    fn drop(&mut self) {
        self.outgoing.end();
        self.incoming.change(|flow| {
            flow.is_unread = true;
            flow.chunks.clear();
            flow.held = 0;
        });
    }
}

impl AsyncRead for MemoryStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let MemoryStream { incoming, arrival, .. } = self.get_mut();
        let mut flow = incoming.flow.lock().expect("no holder panics");
        if flow.is_broken {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        flow.reader = Some(context.waker().clone());
        if flow.way.silent {
            return Poll::Pending;
        }
        let Some(due) = flow.chunks.front().map(|(due, _)| *due).or(flow.ends) else { return Poll::Pending };
        if due > Instant::now() {
            arrival.as_mut().reset(due);
            if arrival.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
        let start = flow.read;
        let Some((_, chunk)) = flow.chunks.front() else { return Poll::Ready(Ok(())) };
        let count = buffer.remaining().min(chunk.len() - start);
        buffer.put_slice(&chunk[start..start + count]);
        flow.read += count;
        flow.held -= count;
        if flow.chunks.front().is_some_and(|(_, chunk)| chunk.len() == flow.read) {
            flow.chunks.pop_front();
            flow.read = 0;
        }
        let writer = flow.writer.take();
        drop(flow);
        writer.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for MemoryStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut flow = self.outgoing.flow.lock().expect("no holder panics");
        if flow.is_broken || flow.ends.is_some() || (flow.is_unread && !flow.way.silent) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = bytes.len().min(PIPE_BYTES_MAX - flow.held);
        if count == 0 && !bytes.is_empty() {
            flow.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        if count > 0 {
            // What is written later never overtakes, also when the way became faster.
            let earliest = flow.chunks.back().map(|(due, _)| *due);
            let due = earliest.into_iter().fold(Instant::now() + flow.way.delay, Instant::max);
            flow.held += count;
            flow.chunks.push_back((due, bytes[..count].to_vec()));
        }
        let reader = flow.reader.take();
        drop(flow);
        reader.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.end();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::ports::network_conformance::network_conformance;

    #[tokio::test(start_paused = true)]
    async fn the_network_in_memory_keeps_the_contract() {
        network_conformance(async || {
            let network = MemoryNetwork::new();
            [("a".to_owned(), network.host("a")), ("b".to_owned(), network.host("b"))]
        })
        .await;
    }

    async fn connected() -> (MemoryNetwork, Stream, Stream) {
        let network = MemoryNetwork::new();
        let (a, b) = (network.host("a"), network.host("b"));
        let near = a.dial("b").await.unwrap();
        let (far, from) = b.accept().await.unwrap();
        assert_eq!(from, "a");
        (network, near, far)
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_way_holds_bytes_and_ends_until_it_heals() {
        let (network, mut near, mut far) = connected().await;
        network.silence("a", "b");
        near.write_all(b"hello").await.unwrap();
        let mut read = [0; 5];
        let waited = tokio::time::timeout(Duration::from_secs(60), far.read_exact(&mut read)).await;
        waited.expect_err("nothing arrives");
        far.write_all(b"other").await.unwrap();
        near.read_exact(&mut read).await.expect("the other way is open");
        drop(near);
        network.heal("a", "b");
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"hello");
        assert_eq!(far.read(&mut read).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_way_takes_its_time_and_a_cut_breaks() {
        let (network, mut near, mut far) = connected().await;
        network.slow("a", "b", Duration::from_millis(70));
        let start = Instant::now();
        near.write_all(b"hello").await.unwrap();
        let mut read = [0; 5];
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(start.elapsed(), Duration::from_millis(70));
        network.cut("b", "a");
        assert_eq!(far.read(&mut read).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        near.write_all(b"x").await.unwrap_err();
    }
}
