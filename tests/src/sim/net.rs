//! The network between hosts: ordered bytes, as the port promises, on ways that are cut, slow, lossy and reset, all drawn from the
//! seed. The harness moves its time; everything that arrives does so at the beginning of a millisecond.
//!
//! Under ordered bytes a lost packet is a late one: what is lost here comes after a retransmission, and what follows it waits. What is
//! cut comes when the way is open again, unless the connection was reset meanwhile: then it never does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll, Waker};

use proffer_cluster::ports::network::{Network, Stream};
use proffer_cluster::ports::propose::Pending;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::seed::Draws;
use super::trace::Trace;

/// Bytes under way in one direction of a connection; beyond, writing waits.
const PIPE_BYTES_MAX: usize = 256 * 1024;
/// After this a lost packet is sent again, and each time it is lost again after twice as long.
const RETRANSMIT_MS: u64 = 200;

/// How one host's bytes reach another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Nothing passes, and nothing tells so.
    pub is_cut: bool,
    /// A usual delay …
    pub delay_ms: u64,
    /// … and the longest of its tail.
    pub delay_ms_max: u64,
    /// Packets lost in a million.
    pub loss: u64,
    /// Connections reset in a million packets.
    pub reset: u64,
}

impl Way {
    /// As it is when nothing is wrong.
    pub const FINE: Way = Way { is_cut: false, delay_ms: 1, delay_ms_max: 8, loss: 0, reset: 0 };
}

/// Hosts and the ways between them. Clones share it.
#[derive(Clone)]
pub struct SimNetwork(Arc<Fabric>);

struct Fabric {
    state: Mutex<State>,
    draws: Draws,
    trace: Trace,
}

#[derive(Default)]
struct State {
    now_ms: u64,
    /// Which host is reached at an address.
    addresses: BTreeMap<String, usize>,
    listening: BTreeMap<usize, Listener>,
    ways: BTreeMap<(usize, usize), Way>,
    pipes: BTreeMap<u64, Weak<Pipe>>,
    /// When which pipe has something for its reader.
    due: BTreeSet<(u64, u64)>,
    dials: BTreeMap<u64, Dial>,
    next: u64,
    delivered: u64,
    resets: u64,
    lost: u64,
}

/// What waits to be accepted at a host: of one start of it.
#[derive(Default)]
struct Listener {
    start: u64,
    waiting: VecDeque<(Stream, String)>,
    waker: Option<Waker>,
}

struct Dial {
    from: usize,
    to: String,
    due_ms: u64,
    result: Option<io::Result<Stream>>,
    waker: Option<Waker>,
}

/// What a network has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Pieces delivered.
    pub delivered: u64,
    /// Connections reset.
    pub resets: u64,
    /// Packets that had to be sent again.
    pub lost: u64,
}

impl SimNetwork {
    /// A network without hosts, all ways fine.
    pub fn new(seed: u64, trace: Trace) -> Self {
        SimNetwork(Arc::new(Fabric { state: Mutex::default(), draws: Draws::new(seed, "network", 0), trace }))
    }

    /// One start of a host that listens at an address.
    pub fn host(&self, number: usize, start: u64, address: &str) -> SimHost {
        let mut state = self.0.lock();
        state.addresses.insert(address.to_owned(), number);
        let before = state.listening.insert(number, Listener { start, ..Listener::default() });
        drop(state);
        // Streams say goodbye, and lock the network for that.
        drop(before);
        SimHost { number, start, fabric: Arc::clone(&self.0) }
    }

    /// The process of a host is gone. Those at the other ends learn of it, unless the whole machine is gone (`is_silent`).
    pub fn crash(&self, number: usize, is_silent: bool) {
        let mut state = self.0.lock();
        let listening = state.listening.remove(&number);
        let (own, others) = std::mem::take(&mut state.dials).into_iter().partition(|(_, dial)| dial.from == number);
        let own: BTreeMap<u64, Dial> = own;
        state.dials = others;
        let pipes = state.living(|pipe| pipe.from == number || pipe.to == number);
        let now = state.now_ms;
        drop(state);
        drop((listening, own));
        for pipe in pipes {
            if pipe.to == number || is_silent {
                pipe.change(|flow| flow.is_dead = true);
            } else {
                self.0.end(&pipe, now, true);
            }
        }
    }

    /// Moves the time on: what is due arrives.
    pub fn tick(&self, now_ms: u64) {
        let mut wakers = Vec::new();
        let mut state = self.0.lock();
        state.now_ms = now_ms;
        while let Some((due, number)) = state.due.first().copied().filter(|(due, _)| *due <= now_ms) {
            state.due.remove(&(due, number));
            if let Some(pipe) = state.pipes.get(&number).and_then(Weak::upgrade) {
                wakers.extend(pipe.lock().reader.take());
            } else {
                state.pipes.remove(&number);
            }
        }
        let ready: Vec<u64> = state.dials.iter().filter(|(_, dial)| dial.due_ms <= now_ms).map(|(id, _)| *id).collect();
        for id in ready {
            wakers.extend(self.0.connect(&mut state, id));
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Changes the way from one host to another.
    pub fn change(&self, from: usize, to: usize, change: impl Fn(&mut Way)) {
        let mut state = self.0.lock();
        let way = state.ways.entry((from, to)).or_insert(Way::FINE);
        let was_cut = way.is_cut;
        change(way);
        let way = *way;
        if !was_cut || way.is_cut {
            return;
        }
        // What waited sets out now.
        let now = state.now_ms;
        for pipe in state.living(|pipe| pipe.from == from && pipe.to == to) {
            let mut flow = pipe.lock();
            let due = now + 1 + self.0.draws.below(way.delay_ms_max);
            for chunk in &mut flow.chunks {
                chunk.0 = chunk.0.max(due);
            }
            flow.ends = flow.ends.map(|(ends, is_reset)| (ends.max(due), is_reset));
            drop(flow);
            state.due.insert((due, pipe.number));
        }
    }

    /// The way from one host to another.
    pub fn way(&self, from: usize, to: usize) -> Way {
        self.0.lock().way(from, to)
    }

    /// Breaks all connections between two hosts, at both ends, at once.
    pub fn reset(&self, one: usize, other: usize) {
        let mut state = self.0.lock();
        state.resets += 1;
        let between = |pipe: &Pipe| (pipe.from, pipe.to) == (one, other) || (pipe.from, pipe.to) == (other, one);
        let pipes = state.living(between);
        drop(state);
        for pipe in pipes {
            pipe.change(|flow| flow.is_broken = true);
        }
    }

    /// What has been seen so far.
    pub fn seen(&self) -> Seen {
        let state = self.0.lock();
        Seen { delivered: state.delivered, resets: state.resets, lost: state.lost }
    }
}

impl State {
    fn way(&self, from: usize, to: usize) -> Way {
        self.ways.get(&(from, to)).copied().unwrap_or(Way::FINE)
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn living(&mut self, is_meant: impl Fn(&Pipe) -> bool) -> Vec<Arc<Pipe>> {
        self.pipes.retain(|_, pipe| pipe.strong_count() > 0);
        self.pipes.values().filter_map(Weak::upgrade).filter(|pipe| is_meant(pipe)).collect()
    }
}

impl Fabric {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    /// How long something takes on a way.
    fn delay(&self, state: &mut State, way: Way) -> u64 {
        let mut delay = self.draws.heavy(way.delay_ms, way.delay_ms_max).max(1);
        let mut again = RETRANSMIT_MS;
        while way.loss > 0 && again < 8 * RETRANSMIT_MS && self.draws.happens(way.loss) {
            delay += again;
            again *= 2;
            state.lost += 1;
        }
        delay
    }

    /// A dial has arrived: answers it, or lets it wait for an open way.
    fn connect(self: &Arc<Self>, state: &mut State, id: u64) -> Vec<Waker> {
        let dial = &state.dials[&id];
        if dial.result.is_some() {
            return Vec::new();
        }
        let (from, to) = (dial.from, state.addresses.get(&dial.to).copied());
        if let Some(to) = to
            && (state.way(from, to).is_cut || state.way(to, from).is_cut)
        {
            let later = state.now_ms + 50 + self.draws.below(50);
            state.dials.get_mut(&id).expect("looked up above").due_ms = later;
            return Vec::new();
        }
        let listening = to.filter(|to| state.listening.contains_key(to));
        let mut wakers = Vec::new();
        let result = match listening {
            None => Err(io::Error::new(io::ErrorKind::ConnectionRefused, "nobody listens there")),
            Some(to) => {
                let there = Pipe::new(state.number(), from, to);
                let back = Pipe::new(state.number(), to, from);
                for pipe in [&there, &back] {
                    state.pipes.insert(pipe.number, Arc::downgrade(pipe));
                }
                let near =
                    SimStream { incoming: Arc::clone(&back), outgoing: Arc::clone(&there), fabric: Arc::clone(self) };
                let far = SimStream { incoming: there, outgoing: back, fabric: Arc::clone(self) };
                let listener = state.listening.get_mut(&to).expect("looked up above");
                listener.waiting.push_back((Box::new(far), format!("h{from}")));
                wakers.extend(listener.waker.take());
                Ok(Box::new(near) as Stream)
            }
        };
        let dial = state.dials.get_mut(&id).expect("looked up above");
        dial.result = Some(result);
        wakers.extend(dial.waker.take());
        wakers
    }

    /// The writer of a pipe ends it: orderly, or with a reset.
    fn end(&self, pipe: &Pipe, now: u64, is_reset: bool) {
        let mut state = self.lock();
        let way = state.way(pipe.from, pipe.to);
        let ends = now + self.delay(&mut state, way);
        let mut flow = pipe.lock();
        if flow.ends.is_none() {
            let ends = flow.chunks.back().map_or(ends, |(due, _)| ends.max(*due));
            flow.ends = Some((ends, is_reset));
            state.due.insert((ends, pipe.number));
        }
    }
}

/// One start of a host of a [`SimNetwork`].
pub struct SimHost {
    number: usize,
    start: u64,
    fabric: Arc<Fabric>,
}

/// Forgets the dial when its caller does.
struct Dialling<'a> {
    id: u64,
    fabric: &'a Fabric,
}

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        let dial = self.fabric.lock().dials.remove(&self.id);
        // A stream in it says goodbye, and locks the network for that.
        drop(dial);
    }
}

impl Network for SimHost {
    fn dial<'a>(&'a self, address: &'a str) -> Pending<'a, io::Result<Stream>> {
        Box::pin(async move {
            let id = {
                let mut state = self.fabric.lock();
                let id = state.number();
                let way = state.addresses.get(address).map_or(Way::FINE, |to| state.way(self.number, *to));
                let due_ms = state.now_ms + self.fabric.delay(&mut state, way) + self.fabric.delay(&mut state, way);
                let dial = Dial { from: self.number, to: address.to_owned(), due_ms, result: None, waker: None };
                state.dials.insert(id, dial);
                id
            };
            let dialling = Dialling { id, fabric: &self.fabric };
            poll_fn(|context| {
                let mut state = dialling.fabric.lock();
                match state.dials.get_mut(&id) {
                    // The host has crashed, and this with it.
                    None => Poll::Pending,
                    Some(dial) => match dial.result.take() {
                        Some(result) => Poll::Ready(result),
                        None => {
                            dial.waker = Some(context.waker().clone());
                            Poll::Pending
                        }
                    },
                }
            })
            .await
        })
    }

    fn accept(&self) -> Pending<'_, io::Result<(Stream, String)>> {
        Box::pin(poll_fn(|context| {
            let mut state = self.fabric.lock();
            match state.listening.get_mut(&self.number).filter(|listener| listener.start == self.start) {
                Some(listener) => match listener.waiting.pop_front() {
                    Some(accepted) => Poll::Ready(Ok(accepted)),
                    None => {
                        listener.waker = Some(context.waker().clone());
                        Poll::Pending
                    }
                },
                None => Poll::Pending,
            }
        }))
    }
}

/// One direction of a connection.
struct Pipe {
    number: u64,
    from: usize,
    to: usize,
    flow: Mutex<Flow>,
}

#[derive(Default)]
struct Flow {
    chunks: VecDeque<(u64, Vec<u8>)>,
    held: usize,
    /// When the reader sees the end, and whether it is a reset.
    ends: Option<(u64, bool)>,
    /// The reader is gone.
    is_unread: bool,
    /// Both sides see it.
    is_broken: bool,
    /// A machine at an end of it is gone without a word.
    is_dead: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn new(number: u64, from: usize, to: usize) -> Arc<Pipe> {
        Arc::new(Pipe { number, from, to, flow: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().expect("no holder panics")
    }

    /// Changes something and wakes both sides.
    fn change(&self, change: impl FnOnce(&mut Flow)) {
        let mut flow = self.lock();
        change(&mut flow);
        let wakers = [flow.reader.take(), flow.writer.take()];
        drop(flow);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

struct SimStream {
    incoming: Arc<Pipe>,
    outgoing: Arc<Pipe>,
    fabric: Arc<Fabric>,
}

impl Drop for SimStream {
    fn drop(&mut self) {
        let now = self.fabric.lock().now_ms;
        self.fabric.end(&self.outgoing, now, false);
        self.incoming.change(|flow| {
            flow.is_unread = true;
            flow.chunks.clear();
            flow.held = 0;
        });
    }
}

impl AsyncRead for SimStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (now, is_cut) = {
            let state = self.fabric.lock();
            (state.now_ms, state.way(self.incoming.from, self.incoming.to).is_cut)
        };
        let mut flow = self.incoming.lock();
        if flow.is_broken {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        flow.reader = Some(context.waker().clone());
        let arrived = flow.chunks.front().is_some_and(|(due, _)| *due <= now);
        if is_cut || flow.is_dead && !arrived {
            return Poll::Pending;
        }
        if !arrived {
            return match flow.ends.filter(|(ends, _)| flow.chunks.is_empty() && *ends <= now) {
                Some((_, true)) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                Some((_, false)) => Poll::Ready(Ok(())),
                None => Poll::Pending,
            };
        }
        let (due, mut chunk) = flow.chunks.pop_front().expect("it has arrived");
        let count = buffer.remaining().min(chunk.len());
        self.fabric.trace.saw(self.incoming.from, self.incoming.to, &chunk[..count]);
        buffer.put_slice(&chunk[..count]);
        flow.held -= count;
        if count < chunk.len() {
            flow.chunks.push_front((due, chunk.split_off(count)));
        }
        let writer = flow.writer.take();
        drop(flow);
        self.fabric.lock().delivered += 1;
        writer.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.fabric.lock();
        let way = state.way(self.outgoing.from, self.outgoing.to);
        if way.reset > 0 && self.fabric.draws.happens(way.reset) {
            state.resets += 1;
            drop(state);
            self.outgoing.change(|flow| flow.is_broken = true);
            self.incoming.change(|flow| flow.is_broken = true);
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let mut flow = self.outgoing.lock();
        if flow.is_broken || flow.ends.is_some() || (flow.is_unread && !way.is_cut) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = bytes.len().min(PIPE_BYTES_MAX - flow.held);
        if count == 0 && !bytes.is_empty() {
            flow.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        if count > 0 {
            // What is written later never overtakes.
            let due = state.now_ms + self.fabric.delay(&mut state, way);
            let due = flow.chunks.back().map_or(due, |(before, _)| due.max(*before));
            flow.held += count;
            flow.chunks.push_back((due, bytes[..count].to_vec()));
            state.due.insert((due, self.outgoing.number));
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let now = self.fabric.lock().now_ms;
        self.fabric.end(&self.outgoing, now, false);
        Poll::Ready(Ok(()))
    }
}
