//! What goes wrong: which kinds may is drawn for each seed, when and for how long as the run goes on. All that is broken can be mended.

mod kinds;
mod plots;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use proffer_cluster::group::Group;

pub use self::kinds::Kind;
use self::plots::Plot;
use super::disk::SimDisk;
use super::net::Way;
use super::seed::Draws;
use super::world::World;
use crate::tell;

/// Nodes are heard to have shown what they showed for so long.
const SHOWN_MS: u64 = 3_000;

/// Something that is to be undone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Undo {
    /// The way from the one to the other is fine again.
    Way(usize, usize),
    Wall(usize),
    /// What a wall showed is forgotten.
    Shown(usize),
    Drift(usize),
    Disk(usize),
    Busy(usize),
    Undrain(usize),
}

/// A node that an operator wants to be gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Where it runs.
    pub host: usize,
    /// Which.
    pub node: u64,
    /// Hosts that have known it: one that does not any more has heard that it is gone.
    pub knew: BTreeSet<usize>,
    /// When the operator asks again.
    pub next_ms: u64,
}

/// An operator's call that the run makes as soon as somebody can be asked: path and body.
pub type Order = (String, serde_json::Value);

/// See the module.
pub struct Faults {
    draws: Draws,
    kinds: Vec<Kind>,
    /// Between two faults, usually.
    pause_ms: u64,
    next_ms: u64,
    undo: BTreeSet<(u64, Undo)>,
    /// How often each kind struck.
    pub struck: BTreeMap<Kind, u64>,
    /// Hosts whose disk has lost something that was acknowledged: what they say at a start is no fault of theirs.
    pub harmed: BTreeSet<usize>,
    /// Hosts that are expected to end themselves.
    pub doomed: BTreeSet<usize>,
    /// The node that is to be removed, once it holds nothing.
    pub removing: Option<Removal>,
    /// Hosts whose node was removed: they are switched off for good.
    pub gone: BTreeSet<usize>,
    /// What an operator is to do about it.
    pub orders: Vec<Order>,
    /// Something goes wrong while clients want nothing new.
    pub clients_rest_until_ms: u64,
    /// What goes on by itself.
    plots: Vec<Plot>,
    /// No more hosts than this.
    hosts_max: usize,
    copies: BTreeMap<usize, Arc<SimDisk>>,
}

impl Faults {
    /// Draws which kinds there are for a seed.
    pub fn new(seed: u64, hosts: usize) -> Self {
        let draws = Draws::new(seed, "faults", 0);
        let mut kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|_| draws.below(100) < 35).collect();
        if kinds.is_empty() {
            kinds.extend(draws.pick(&Kind::ALL));
        }
        let pause_ms = draws.between(200, 2_500);
        Faults {
            draws,
            kinds,
            pause_ms,
            next_ms: 0,
            undo: BTreeSet::new(),
            struck: BTreeMap::new(),
            harmed: BTreeSet::new(),
            doomed: BTreeSet::new(),
            removing: None,
            gone: BTreeSet::new(),
            orders: Vec::new(),
            clients_rest_until_ms: 0,
            plots: Vec::new(),
            hosts_max: (hosts + 2).min(7),
            copies: BTreeMap::new(),
        }
    }

    /// Which kinds may strike.
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// A millisecond passes in which something may go wrong.
    pub fn tick(&mut self, world: &mut World) {
        self.undo_due(world, world.now_ms);
        self.go_on(world);
        if self.next_ms == 0 {
            self.next_ms = world.now_ms + self.draws.between(1, self.pause_ms);
        }
        if world.now_ms < self.next_ms {
            return;
        }
        // What strikes may leave more time.
        self.next_ms = world.now_ms + self.draws.between(self.pause_ms / 2, self.pause_ms * 3 / 2);
        if let Some(kind) = self.draws.pick(&self.kinds).copied()
            && self.strike(world, kind)
        {
            *self.struck.entry(kind).or_default() += 1;
        }
    }

    /// Everything is mended, and what is off goes on.
    pub fn heal(&mut self, world: &mut World) {
        self.mend(world);
        tell!(world, "everything is healed");
    }

    fn mend(&mut self, world: &mut World) {
        self.undo_due(world, u64::MAX);
        for number in 1..=world.hosts.len() {
            let now = world.now_ms;
            let host = world.host_mut(number);
            host.paused_until_ms = host.paused_until_ms.min(now);
            if !host.runs() && !self.gone.contains(&number) && !world.is_restarting(number) {
                world.restart(number, now + 1);
            }
        }
    }

    fn undo_due(&mut self, world: &mut World, until_ms: u64) {
        while let Some((at, undo)) = self.undo.first().cloned().filter(|(at, _)| *at <= until_ms) {
            self.undo.remove(&(at, undo.clone()));
            match undo {
                // Something that came later lasts longer.
                Undo::Way(..) if self.undo.iter().any(|(_, later)| *later == undo) => {}
                Undo::Way(from, to) => world.network.change(from, to, |way| *way = Way::FINE),
                Undo::Wall(number) => {
                    tell!(world, "the clock of h{number} is right again");
                    world.host(number).wall.set_right();
                    self.undo.insert((world.now_ms + SHOWN_MS, Undo::Shown(number)));
                }
                Undo::Shown(_) => {}
                Undo::Drift(number) => world.host_mut(number).drift_ppm = 0,
                Undo::Disk(number) => {
                    world.host(number).pace.log_ms.store(0, Ordering::SeqCst);
                    world.host(number).disk.fill(None);
                }
                Undo::Busy(number) => world.host(number).pace.bulk_ms.store(0, Ordering::SeqCst),
                Undo::Undrain(node) => {
                    self.orders.push((format!("/cluster/nodes/n{node}/undrain"), serde_json::json!({})))
                }
            }
        }
    }

    fn later(&self, world: &World) -> u64 {
        world.now_ms + self.draws.heavy(1_500, 12_000)
    }

    /// Not more than a minority may be without what it acknowledged, or off for good.
    fn may_harm(&self, world: &World) -> bool {
        let there = world.hosts.len() - self.gone.len();
        there >= 3 && self.harmed.is_empty() && self.removing.is_none() && self.runs_all(world)
    }

    /// What most clocks show is the time: not more than a minority may be wrong, or have been within the length of a lease.
    fn may_mislead(&self, world: &World) -> bool {
        let leave = self.gone.len() + usize::from(self.removing.is_some());
        2 * (self.misled() + 1) < world.hosts.len() - leave
    }

    /// Clocks that are wrong, or have been within the length of a lease.
    fn misled(&self) -> usize {
        self.undo.iter().filter(|(_, undo)| matches!(undo, Undo::Wall(_) | Undo::Shown(_))).count()
    }

    /// Whether all hosts run that are not gone for good.
    fn runs_all(&self, world: &World) -> bool {
        world.hosts.iter().all(|host| host.runs() || self.gone.contains(&host.number))
    }

    fn strike(&mut self, world: &mut World, kind: Kind) -> bool {
        let numbers: Vec<usize> = (1..=world.hosts.len()).collect();
        let running: Vec<usize> = numbers.iter().copied().filter(|number| world.host(*number).runs()).collect();
        let Some(one) = self.draws.pick(&running).copied() else { return false };
        let others: Vec<usize> = numbers.iter().copied().filter(|number| *number != one).collect();
        let until = self.later(world);
        match kind {
            Kind::Isolate => {
                tell!(world, "h{one} is cut off from all others");
                others.iter().for_each(|other| self.cut(world, one, *other, until));
            }
            Kind::Split => {
                let mut order = numbers;
                self.draws.shuffle(&mut order);
                let size = usize::try_from(self.draws.between(1, order.len() as u64)).unwrap_or(1);
                let (near, far) = order.split_at(size.min(order.len()));
                tell!(world, "{near:?} and {far:?} are cut off from each other");
                for (near, far) in near.iter().flat_map(|near| far.iter().map(move |far| (*near, *far))) {
                    self.cut(world, near, far, until);
                }
            }
            Kind::OneWay => {
                let Some(other) = self.draws.pick(&others).copied() else { return false };
                tell!(world, "nothing from h{one} reaches h{other}");
                world.network.change(one, other, |way| way.is_cut = true);
                self.undo_way(until, one, other);
            }
            Kind::Ring => {
                let mut order = numbers;
                self.draws.shuffle(&mut order);
                let far = |a: usize, b: usize| (2..order.len() - 1).contains(&a.abs_diff(b));
                if order.len() < 4 {
                    return false;
                }
                tell!(world, "each of {order:?} hears those beside it, and nobody else");
                for (a, b) in (0..order.len()).flat_map(|a| (0..a).map(move |b| (a, b))).filter(|(a, b)| far(*a, *b)) {
                    self.cut(world, order[a], order[b], until);
                }
            }
            Kind::LeadersLink => {
                let Some((meta, shard)) = leaders(world, &self.draws) else { return false };
                tell!(
                    world,
                    "the link between h{meta}, which leads the catalogue, and h{shard}, which leads a shard, is cut"
                );
                self.cut(world, meta, shard, until);
            }
            Kind::Slow | Kind::Loss | Kind::Reset => {
                let Some(other) = self.draws.pick(&others).copied() else { return false };
                let (delay, tail) = (self.draws.between(5, 60), self.draws.between(60, 1_500));
                let (loss, reset) = (self.draws.between(5_000, 200_000), self.draws.between(1_000, 50_000));
                tell!(world, "{kind:?} between h{one} and h{other}");
                for (from, to) in [(one, other), (other, one)] {
                    world.network.change(from, to, |way| {
                        if kind == Kind::Slow {
                            (way.delay_ms, way.delay_ms_max) = (delay, tail);
                        } else if kind == Kind::Loss {
                            way.loss = loss;
                        } else {
                            way.reset = reset;
                        }
                    });
                    self.undo_way(until, from, to);
                }
                if kind == Kind::Reset {
                    world.network.reset(one, other);
                }
            }
            Kind::Crash | Kind::PowerCut => {
                tell!(world, "h{one}: {kind:?}");
                world.crash(one, kind == Kind::PowerCut, &self.draws);
                world.restart(one, world.now_ms + self.downtime());
            }
            Kind::CutUnsynced => {
                let led = leaders(world, &self.draws).map(|(meta, _)| meta).filter(|_| self.draws.below(2) == 0);
                let one = led.filter(|meta| world.host(*meta).runs()).unwrap_or(one);
                self.plots.push(Plot::Unsynced { one, until_ms: until });
            }
            Kind::Blackout => {
                tell!(world, "all machines lose their power");
                for number in running {
                    world.crash(number, true, &self.draws);
                    world.restart(number, world.now_ms + self.draws.heavy(500, 3_000));
                }
            }
            Kind::Pause => {
                tell!(world, "h{one} is stopped for {} ms", until - world.now_ms);
                world.host_mut(one).paused_until_ms = until;
            }
            Kind::ClockJump | Kind::ClockFreeze if !self.may_mislead(world) => return false,
            Kind::ClockJump => {
                let by = i64::try_from(self.draws.heavy(20_000, 4 * 3_600_000)).unwrap_or(0);
                let by = if self.draws.below(2) == 0 { by } else { -by };
                tell!(world, "the clock of h{one} is put {by} ms wrong");
                world.host(one).wall.ahead_ms.store(by, Ordering::SeqCst);
                self.undo.insert((until, Undo::Wall(one)));
            }
            Kind::ClockDrift => {
                let ppm = i64::try_from(self.draws.between(0, 96_000)).unwrap_or(0) - 48_000;
                // Two nodes' rates differ by 5 % at most: the contract of the port.
                tell!(world, "the clocks of h{one} run {ppm} millionths fast");
                world.host_mut(one).drift_ppm = ppm / 2;
                self.undo.insert((until + 10_000, Undo::Drift(one)));
            }
            Kind::ClockFreeze => {
                tell!(world, "the clock on the wall of h{one} stands still");
                world.host(one).wall.freeze(true);
                self.undo.insert((until, Undo::Wall(one)));
            }
            Kind::SlowDisk => {
                let by = self.draws.between(5, 120);
                tell!(world, "the disk of h{one} takes {by} ms more");
                world.host(one).pace.log_ms.store(by, Ordering::SeqCst);
                self.undo.insert((until, Undo::Disk(one)));
            }
            Kind::FullDisk => {
                tell!(world, "the disk of h{one} is full");
                world.host(one).disk.fill(Some(self.draws.below(20_000)));
                self.undo.insert((until, Undo::Disk(one)));
            }
            Kind::FailedSync => {
                tell!(world, "a sync of h{one} fails soon");
                world.host(one).disk.fail_one_sync(self.draws.below(20));
                self.doomed.insert(one);
                let more_ms = self.draws.between(1, 2_000);
                self.plots.push(Plot::SyncFailed { one, more_ms, until_ms: until + 5_000 });
            }
            Kind::Wipe | Kind::Rot => return self.harm(world, kind, one),
            Kind::OldCopy => return self.begin_old_copy(world, one),
            Kind::Amnesia => return self.begin_amnesia(world),
            Kind::Fading => return self.begin_fading(world, &running),
            Kind::Bystander => return self.begin_bystander(world, &running),
            Kind::Busy => {
                let by = self.draws.between(20, 400);
                tell!(world, "what h{one} does beside takes {by} ms more");
                world.host(one).pace.bulk_ms.store(by, Ordering::SeqCst);
                self.undo.insert((until, Undo::Busy(one)));
            }
            Kind::Join => {
                if world.hosts.len() >= self.hosts_max {
                    return false;
                }
                world.add(0);
            }
            Kind::Drain => {
                let node = node_of(world, one);
                let Some(node) = node else { return false };
                tell!(world, "n{node} is to be drained");
                self.orders.push((format!("/cluster/nodes/n{node}/drain"), serde_json::json!({})));
                let at = until + self.draws.between(2_000, 10_000);
                self.undo.insert((at, Undo::Undrain(usize::try_from(node).unwrap_or(0))));
            }
            Kind::Remove => {
                // Two have to be left, or there is nobody to go to; and most of them know the time.
                if !self.may_harm(world) || self.misled() > 0 {
                    return false;
                }
                let Some(node) = node_of(world, one) else { return false };
                tell!(world, "n{node} on h{one} is to be removed");
                self.removing = Some(Removal { host: one, node, knew: BTreeSet::new(), next_ms: world.now_ms });
            }
            Kind::Transfer => {
                let Some(node) = node_of(world, one) else { return false };
                let shard = self.draws.below(2);
                tell!(world, "n{node} is to lead shard {shard}");
                let body = serde_json::json!({"node": format!("n{node}")});
                self.orders.push((format!("/cluster/shards/{shard}/transfer"), body));
            }
        }
        true
    }

    /// How long a process is off: now and then its supervisor is as quick as it can be.
    fn downtime(&self) -> u64 {
        if self.draws.below(3) == 0 { self.draws.between(2, 120) } else { self.draws.heavy(800, 8_000) }
    }

    fn undo_way(&mut self, at_ms: u64, from: usize, to: usize) {
        self.undo.insert((at_ms, Undo::Way(from, to)));
    }

    fn cut(&mut self, world: &mut World, one: usize, other: usize, until: u64) {
        let resets = self.draws.below(3) == 0;
        for (from, to) in [(one, other), (other, one)] {
            world.network.change(from, to, |way| way.is_cut = true);
            self.undo_way(until, from, to);
        }
        if resets {
            world.network.reset(one, other);
        }
    }

    /// Takes from a disk what was acknowledged: once in a run, and never from the first host, whose disk founds a cluster.
    fn harm(&mut self, world: &mut World, kind: Kind, one: usize) -> bool {
        if one == 1 || !self.may_harm(world) {
            return false;
        }
        let Some(node) = node_of(world, one).filter(|node| is_one_of_three(world, *node)) else { return false };
        if kind == Kind::Wipe {
            tell!(world, "h{one} comes back with an empty disk: n{node} is lost");
            world.crash(one, true, &self.draws);
            world.host_mut(one).disk = Arc::default();
        } else if kind == Kind::OldCopy {
            let Some(copy) = self.copies.remove(&one) else { return false };
            tell!(world, "h{one} comes back with an older copy of its disk: n{node} is lost");
            world.crash(one, true, &self.draws);
            world.host_mut(one).disk = copy;
        } else {
            world.crash(one, true, &self.draws);
            let prefix = if self.draws.below(3) == 0 { "snap" } else { "wal" };
            let rotten = world.host(one).disk.rot(prefix, &self.draws);
            tell!(world, "h{one} comes back with a rotten disk: {rotten:?}");
        }
        self.harmed.insert(one);
        world.restart(one, world.now_ms + self.draws.heavy(500, 3_000));
        true
    }
}

/// The node that a host is.
fn node_of(world: &World, number: usize) -> Option<u64> {
    world.host(number).look(|handle| handle.report().node)
}

/// Whether most of each group that a node votes in are others, as all hosts know: after a removal two may be all there are for a while.
fn is_one_of_three(world: &World, node: u64) -> bool {
    let reports = world.hosts.iter().filter_map(|host| host.look(|handle| handle.report()));
    let mut groups = reports.flat_map(|report| report.groups);
    groups.all(|group| !group.voters.contains(&node) || group.voters.len() >= 3)
}

/// Hosts that lead the meta group and some shard, as the hosts themselves say.
fn leaders(world: &World, draws: &Draws) -> Option<(usize, usize)> {
    let reports: Vec<_> =
        world.hosts.iter().filter_map(|host| host.look(|handle| (host.number, handle.report()))).collect();
    let host_of = |node: u64| reports.iter().find(|(_, report)| report.node == node).map(|(host, _)| *host);
    let (_, report) = draws.pick(&reports)?;
    let meta = host_of(report.meta_leader?)?;
    let shards: Vec<usize> = report
        .groups
        .iter()
        .filter(|group| group.shard.is_some())
        .filter_map(|group| host_of(group.leader?))
        .filter(|host| *host != meta)
        .collect();
    Some((meta, draws.pick(&shards).copied()?))
}

/// All groups of a cluster of so many shards.
pub fn groups(shards: u16) -> Vec<Group> {
    std::iter::once(Group::Meta)
        .chain((0..shards).map(|shard| Group::Shard(proffer_engine::keys::ShardId(shard))))
        .collect()
}
