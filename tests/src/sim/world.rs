//! Hosts, the network between them and the time that all of it takes, a millisecond at a time.

use std::collections::BTreeSet;

use proffer_cluster::Timing;
use proffer_cluster::config::Begin;

use super::host::{Host, Stepped, address};
use super::net::SimNetwork;
use super::seed::Draws;
use super::trace::Trace;

/// A process that cannot be started for want of room is tried again after so long.
const FULL_MS: u64 = 500;

/// See the module.
pub struct World {
    /// Milliseconds since the beginning.
    pub now_ms: u64,
    /// All machines, the first one first.
    pub hosts: Vec<Host>,
    /// What connects them.
    pub network: SimNetwork,
    /// What has been seen.
    pub trace: Trace,
    seed: u64,
    timing: Timing,
    order: Draws,
    /// Hosts whose process is to be started again, and when.
    restarts: BTreeSet<(u64, usize)>,
}

/// Says something in the story of a run.
#[macro_export]
macro_rules! tell {
    ($world:expr, $($what:tt)*) => { $world.trace.tell(format_args!($($what)*)) };
}

impl World {
    /// Nothing yet; all nodes will have this timing profile.
    pub fn new(seed: u64, timing: Timing, trace: Trace) -> Self {
        World {
            now_ms: 0,
            hosts: Vec::new(),
            network: SimNetwork::new(seed, trace.clone()),
            trace,
            seed,
            timing,
            order: Draws::new(seed, "order", 0),
            restarts: BTreeSet::new(),
        }
    }

    /// Another machine, started: the first founds a cluster of so many shards, the others join it. Its number.
    pub fn add(&mut self, shards: u16) -> usize {
        let number = self.hosts.len() + 1;
        let begin = match number {
            1 => Begin::Bootstrap { shards },
            _ => Begin::Join((1..number).map(address).collect()),
        };
        let mut host = Host::new(number, self.seed, self.timing, begin);
        host.start(&self.network, self.now_ms);
        self.hosts.push(host);
        tell!(self, "h{number} is started for the first time");
        number
    }

    /// Those that serve.
    pub fn serving(&self) -> Vec<usize> {
        self.hosts.iter().filter(|host| host.handle().is_some()).map(|host| host.number).collect()
    }

    /// The host with this number.
    pub fn host(&self, number: usize) -> &Host {
        &self.hosts[number - 1]
    }

    /// The host with this number.
    pub fn host_mut(&mut self, number: usize) -> &mut Host {
        &mut self.hosts[number - 1]
    }

    /// Ends a process at once: the machine goes on (`is_silent` false), or loses its power.
    pub fn crash(&mut self, number: usize, loses_power: bool, draws: &Draws) {
        self.network.crash(number, loses_power);
        let host = &mut self.hosts[number - 1];
        host.kill();
        if loses_power {
            host.disk.cut_power(draws);
        }
    }

    /// Starts a process again, at that time.
    pub fn restart(&mut self, number: usize, at_ms: u64) {
        self.restarts.insert((at_ms, number));
    }

    /// Whether a host waits to be started again.
    pub fn is_restarting(&self, number: usize) -> bool {
        self.restarts.iter().any(|(_, waiting)| *waiting == number)
    }

    /// A millisecond passes. Hosts whose process ended itself, with what it said.
    pub fn step(&mut self) -> Vec<(usize, String)> {
        self.now_ms += 1;
        self.trace.set_now(self.now_ms);
        while let Some((at, number)) = self.restarts.first().copied().filter(|(at, _)| *at <= self.now_ms) {
            self.restarts.remove(&(at, number));
            let host = &mut self.hosts[number - 1];
            if !host.runs() {
                host.start(&self.network, self.now_ms);
                tell!(self, "h{number} is started again");
            }
        }
        self.network.tick(self.now_ms);
        let mut order: Vec<usize> = (1..=self.hosts.len()).collect();
        self.order.shuffle(&mut order);
        let mut ended = Vec::new();
        for number in order {
            match self.hosts[number - 1].step(self.now_ms) {
                Stepped::On => {}
                Stepped::Up => tell!(self, "h{number} serves"),
                Stepped::NotStarted(reason) if self.hosts[number - 1].disk.is_filled() => {
                    tell!(self, "h{number} is not started while its disk is full: {reason}");
                    self.network.crash(number, false);
                    self.hosts[number - 1].kill();
                    self.restart(number, self.now_ms + FULL_MS);
                }
                Stepped::Ended(reason) | Stepped::NotStarted(reason) => {
                    tell!(self, "h{number} ends itself: {reason}");
                    self.network.crash(number, false);
                    self.hosts[number - 1].kill();
                    ended.push((number, reason));
                }
            }
        }
        ended
    }
}
