//! What goes wrong in several steps, each at its moment.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use super::{Faults, Kind, Way, leaders};
use crate::sim::world::World;
use crate::tell;

/// Within this all nodes have heard how far each had come, and keep it.
const TOLD_MS: u64 = 4_000;

/// So long after the last call reservations have lapsed and shards write nothing any more.
const QUIET_MS: u64 = 4_000;

/// Hosts, and what is still to happen to them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Plot {
    /// One loses its power as soon as it has written something that is not synced.
    Unsynced { one: usize, until_ms: u64 },
    /// One loses its power so many milliseconds after a sync has failed there.
    SyncFailed { one: usize, more_ms: u64, until_ms: u64 },
    /// One is behind, one forgets, and one knows everything: as soon as who forgot runs again, the other two change places.
    Amnesia { behind: usize, forgets: usize, knows: usize, at_ms: u64 },
    /// One comes back with an older copy of its disk.
    OldCopy { one: usize, at_ms: u64 },
    /// One is slow to hear, and then hears nothing.
    Fading { one: usize, at_ms: u64 },
    /// Two are cut off from each other for a moment, and who hears both hears the first of them late; …
    Flapping { two: (usize, usize), bystander: usize, at_ms: u64, more: u64, rests: bool },
    /// … in which who hears both is killed and is back at once; so many times more.
    Bystander { two: (usize, usize), bystander: usize, at_ms: u64, more: u64, rests: bool },
}

impl Faults {
    /// Another millisecond of everything that takes several steps.
    pub(super) fn go_on(&mut self, world: &mut World) {
        for plot in std::mem::take(&mut self.plots) {
            if let Some(plot) = self.go_on_with(world, plot) {
                self.plots.push(plot);
            }
        }
    }

    /// What is left of it after this millisecond.
    fn go_on_with(&mut self, world: &mut World, plot: Plot) -> Option<Plot> {
        let now = world.now_ms;
        match plot {
            Plot::Unsynced { until_ms, .. } | Plot::SyncFailed { until_ms, .. } if now >= until_ms => None,
            Plot::Unsynced { one, .. } if world.host(one).runs() && world.host(one).disk.has_unsynced() => {
                self.cut_power(world, one);
                None
            }
            Plot::SyncFailed { one, more_ms, until_ms }
                if world.host(one).runs() && world.host(one).disk.has_lied() =>
            {
                if more_ms > 0 {
                    return Some(Plot::SyncFailed { one, more_ms: more_ms - 1, until_ms });
                }
                self.cut_power(world, one);
                None
            }
            Plot::Amnesia { forgets, at_ms, .. } if now == at_ms => {
                self.harm(world, Kind::Rot, forgets).then_some(plot)
            }
            Plot::Amnesia { behind, forgets, knows, at_ms } if now > at_ms && world.host(forgets).runs() => {
                let until = now + self.draws.between(2_000, 9_000);
                for (from, to) in [(behind, forgets), (forgets, behind)] {
                    world.network.change(from, to, |way| *way = Way::FINE);
                }
                tell!(world, "h{behind} and h{forgets} hear each other, and h{knows} neither");
                [behind, forgets].into_iter().for_each(|other| self.cut(world, knows, other, until));
                None
            }
            Plot::OldCopy { one, at_ms } if now >= at_ms => {
                self.harm(world, Kind::OldCopy, one);
                None
            }
            Plot::Fading { one, at_ms } if now >= at_ms => {
                tell!(world, "h{one} is cut off from all others");
                let until = now + self.draws.between(2_500, 7_000);
                let others = (1..=world.hosts.len()).filter(|other| *other != one);
                others.for_each(|other| self.cut(world, one, other, until));
                None
            }
            Plot::Flapping { two, bystander, at_ms, more, rests } if now >= at_ms => {
                tell!(world, "h{} and h{} are cut off from each other; h{bystander} hears both", two.0, two.1);
                // Until who is cut off from the first does not count on it any more: by either timing profile.
                let patience = if self.draws.below(3) == 0 { (1_200, 2_200) } else { (350, 800) };
                let at_ms = now + self.draws.between(patience.0, patience.1);
                let until = at_ms + self.draws.between(200, 500);
                self.cut(world, two.0, two.1, until);
                let delay = self.draws.between(5, 60);
                world.network.change(two.0, bystander, |way| (way.delay_ms, way.delay_ms_max) = (delay, delay));
                self.undo_way(until, two.0, bystander);
                Some(Plot::Bystander { two, bystander, at_ms, more, rests })
            }
            Plot::Bystander { two, bystander, at_ms, more, rests } if now >= at_ms => {
                if world.host(bystander).runs() {
                    tell!(world, "h{bystander} is killed and back at once");
                    world.crash(bystander, false, &self.draws);
                    world.restart(bystander, now + self.draws.between(2, 20));
                }
                let at_ms = now + self.draws.between(600, 1_500);
                self.let_clients_rest(rests, at_ms);
                (more > 0).then(|| Plot::Flapping { two, bystander, at_ms, more: more - 1, rests })
            }
            Plot::Unsynced { .. }
            | Plot::SyncFailed { .. }
            | Plot::Amnesia { .. }
            | Plot::OldCopy { .. }
            | Plot::Fading { .. }
            | Plot::Flapping { .. }
            | Plot::Bystander { .. } => Some(plot),
        }
    }

    /// Of three hosts that have a group's replicas between them the first is cut off from the other two. Of nodes that have no other
    /// groups than these that is all that is left of the cluster.
    pub(super) fn begin_amnesia(&mut self, world: &mut World) -> bool {
        let Some(mut three) = self.three_of_a_group(world) else { return false };
        self.draws.shuffle(&mut three);
        let [behind, forgets, knows] = three;
        if forgets == 1 || !self.may_harm(world) {
            return false;
        }
        tell!(world, "h{behind} is cut off from h{forgets} and h{knows}");
        let until = self.later(world);
        [forgets, knows].into_iter().for_each(|other| self.cut(world, behind, other, until));
        let at_ms = world.now_ms + self.draws.between(300, 1_500);
        self.plots.push(Plot::Amnesia { behind, forgets, knows, at_ms });
        true
    }

    /// The hosts of some shard that has just three voters.
    fn three_of_a_group(&self, world: &World) -> Option<[usize; 3]> {
        let reports: Vec<_> =
            world.hosts.iter().filter_map(|host| host.look(|handle| (host.number, handle.report()))).collect();
        let hosts: BTreeMap<u64, usize> = reports.iter().map(|(host, report)| (report.node, *host)).collect();
        let (_, report) = self.draws.pick(&reports)?;
        let threes: Vec<[usize; 3]> = report
            .groups
            .iter()
            .filter(|group| group.shard.is_some())
            .filter_map(|group| {
                let voters: Option<Vec<usize>> = group.voters.iter().map(|node| hosts.get(node).copied()).collect();
                <[usize; 3]>::try_from(voters?).ok()
            })
            .collect();
        self.draws.pick(&threes).copied()
    }

    /// A disk is copied; another time everything else is mended for a while, in which the disk is put back to that copy. While others cannot say how
    /// far its node had come, nobody can tell an older copy from a disk that is merely behind: where an operator puts one back, nothing else goes
    /// wrong (docs/operations.md).
    pub(super) fn begin_old_copy(&mut self, world: &mut World, one: usize) -> bool {
        if let Entry::Vacant(place) = self.copies.entry(one) {
            place.insert(Arc::new(world.host(one).disk.copy()));
            return false;
        }
        if one == 1 || !self.may_harm(world) {
            return false;
        }
        tell!(world, "an operator is about to put back h{one}'s disk");
        self.mend(world);
        self.plots.clear();
        self.plots.push(Plot::OldCopy { one, at_ms: world.now_ms + TOLD_MS });
        self.next_ms = world.now_ms + 2 * TOLD_MS;
        true
    }

    /// Everything that comes to a host, or from it, is late; soon nothing does. Not the catalogue's leader, if there is another: it is who the others
    /// are late to hear.
    pub(super) fn begin_fading(&mut self, world: &mut World, running: &[usize]) -> bool {
        let leads = leaders(world, &self.draws).map(|(meta, _)| meta);
        let others: Vec<usize> = running.iter().copied().filter(|one| Some(*one) != leads).collect();
        let Some(one) = self.draws.pick(&others).copied() else { return false };
        tell!(world, "all links of h{one} become slow");
        let (delay, at_ms) = (self.draws.between(150, 295), world.now_ms + self.draws.between(300, 1_500));
        for other in (1..=world.hosts.len()).filter(|other| *other != one) {
            for (from, to) in [(one, other), (other, one)] {
                world.network.change(from, to, |way| (way.delay_ms, way.delay_ms_max) = (delay, delay));
                self.undo_way(at_ms, from, to);
            }
        }
        self.plots.push(Plot::Fading { one, at_ms });
        true
    }

    /// A leader and another do not hear each other now and then; who hears both is killed then.
    pub(super) fn begin_bystander(&mut self, world: &mut World, running: &[usize]) -> bool {
        // Two of these at once leave nobody in the lead.
        if self.plots.iter().any(|plot| matches!(plot, Plot::Flapping { .. } | Plot::Bystander { .. })) {
            return false;
        }
        let leads =
            leaders(world, &self.draws).map(|(meta, shard)| if self.draws.below(2) == 0 { meta } else { shard });
        let Some(leads) = leads.or_else(|| self.draws.pick(running).copied()) else { return false };
        let mut others: Vec<usize> = running.iter().copied().filter(|other| *other != leads).collect();
        self.draws.shuffle(&mut others);
        let &[other, bystander, ..] = others.as_slice() else { return false };
        let (rests, more) = (self.draws.below(2) == 0, self.draws.between(1, 5));
        let at_ms = world.now_ms + if rests { QUIET_MS } else { 1 };
        self.let_clients_rest(rests, at_ms);
        self.plots.push(Plot::Flapping { two: (leads, other), bystander, at_ms, more, rests });
        true
    }

    /// Who is cut off while nothing is written misses nothing, and may lead.
    fn let_clients_rest(&mut self, rests: bool, until_ms: u64) {
        if rests {
            self.clients_rest_until_ms = until_ms + QUIET_MS;
        }
    }

    fn cut_power(&mut self, world: &mut World, one: usize) {
        tell!(world, "h{one} loses its power, just now");
        world.crash(one, true, &self.draws);
        world.restart(one, world.now_ms + self.downtime());
    }
}
