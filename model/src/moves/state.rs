//! What there is: the roster as meta has it and as each node knows it, the group's replicas, and the reports that were sent.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use proffer_cluster::group::Group;
use proffer_cluster::meta::command::{Founding, MetaCommand, MetaCommandV1, MetaOp};
use proffer_cluster::meta::roster::{Configured, NodeInfo, Roster};
use proffer_cluster::meta::state::MetaState;
use proffer_engine::codec::encode;
use proffer_engine::keys::ShardId;
use proffer_engine::profile::command::{Leader, Position};
use proffer_engine::time::Timestamp;

use super::Bounds;

pub(super) const GROUP: Group = Group::Shard(ShardId(0));
const META: Leader = Leader { term: 1, replica: 1 };

/// Who is a member: one set of voters, or two while they change; and all members, voters among them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Configuration {
    pub(super) voters: Vec<BTreeSet<u64>>,
    pub(super) members: BTreeSet<u64>,
}

impl Configuration {
    /// Whether these are a majority of each set of voters.
    pub(super) fn is_quorum(&self, of: impl Fn(&u64) -> bool) -> bool {
        self.voters.iter().all(|voters| 2 * voters.iter().filter(|voter| of(voter)).count() > voters.len())
    }

    pub(super) fn votes(&self, replica: u64) -> bool {
        self.voters.iter().any(|voters| voters.contains(&replica))
    }
}

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Content {
    /// A leader's first.
    Blank,
    Command,
    Members(Configuration),
}

/// An entry, and who wrote it: the leader of a term.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Entry {
    pub(super) term: u64,
    pub(super) content: Content,
}

/// What lies on a disk, all of it synced.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Replica {
    pub(super) term: u64,
    pub(super) log: Vec<Arc<Entry>>,
    /// How much of it this replica, as a leader, knows to be committed.
    pub(super) committed: usize,
}

impl Replica {
    /// The configuration in force, and its index from 1.
    pub(super) fn configuration(&self) -> Option<(usize, &Configuration)> {
        self.log.iter().enumerate().rev().find_map(|(at, entry)| match &entry.content {
            Content::Members(configuration) => Some((at + 1, configuration)),
            Content::Blank | Content::Command => None,
        })
    }

    /// Whether its log is as new as another's.
    pub(super) fn is_as_new_as(&self, other: &Replica) -> bool {
        let last = |of: &Replica| (of.log.last().map_or(0, |entry| entry.term), of.log.len());
        last(self) >= last(other)
    }
}

/// The roster as it was applied.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) roster: Arc<Roster>,
    bytes: Arc<[u8]>,
}

impl Known {
    fn of(meta: &MetaState) -> Self {
        let bytes = meta.encode_chunks().flatten().collect();
        Known { roster: Arc::clone(meta.roster()), bytes }
    }
}

/// See the module.
#[derive(Clone)]
pub struct State {
    pub(super) meta: Arc<MetaState>,
    pub(super) newest: Known,
    /// Nodes by their place in the bounds.
    pub(super) nodes: Vec<u64>,
    /// The roster that each node has applied.
    pub(super) known: Vec<Known>,
    pub(super) replicas: BTreeMap<u64, Replica>,
    pub(super) destroyed: BTreeSet<u64>,
    /// Who leads each term, from 1.
    pub(super) leaders: Vec<u64>,
    pub(super) reports: Vec<Configured>,
    sent: BTreeSet<Vec<u8>>,
    pub(super) targets: usize,
    pub(super) commands: u64,
    /// What was ever committed.
    pub(super) history: Vec<Arc<Entry>>,
    /// Something else was committed, or a leader began without some of it.
    pub(super) is_lost: bool,
    bytes: Arc<[u8]>,
}

impl State {
    /// A group with one voter on the first node, which leads it.
    pub(super) fn new(bounds: &Bounds) -> Self {
        let meta = Arc::new(MetaState::new());
        let mut state = State {
            newest: Known::of(&meta),
            meta,
            nodes: Vec::new(),
            known: Vec::new(),
            replicas: BTreeMap::new(),
            destroyed: BTreeSet::new(),
            leaders: Vec::new(),
            reports: Vec::new(),
            sent: BTreeSet::new(),
            targets: 0,
            commands: 0,
            history: Vec::new(),
            is_lost: false,
            bytes: Arc::default(),
        };
        state.commit(MetaOp::Found(Founding { secret: [1; 16], shards: 1 }));
        for disk in 1..=bounds.nodes as u128 {
            let (peer_address, http_address) = (format!("n{disk}:1"), format!("n{disk}:2"));
            state.commit(MetaOp::Enroll(NodeInfo { disk, boots: 1, peer_address, http_address, zone: String::new() }));
        }
        state.nodes = state.meta.roster().nodes().map(|(node, _)| node).collect();
        state.known = vec![state.newest.clone(); bounds.nodes];
        let first = state.meta.roster().replica_on(GROUP, state.nodes[0]).expect("the first node founds every group");
        let members = Configuration { voters: vec![[first].into()], members: [first].into() };
        let entries = [Content::Members(members), Content::Blank];
        let log: Vec<_> = entries.map(|content| Arc::new(Entry { term: 1, content })).into();
        state.history = log.clone();
        state.replicas.insert(first, Replica { term: 1, committed: log.len(), log });
        state.leaders.push(first);
        state.seal();
        state
    }

    /// Applies an entry of the meta group. What is refused changes nothing.
    pub(super) fn commit(&mut self, op: MetaOp) {
        let command = MetaCommand::V1(MetaCommandV1 { now: Timestamp(5), leader: META, op });
        drop(Arc::make_mut(&mut self.meta).apply(Position { leader: META, index: 1 }, &command));
        if !Arc::ptr_eq(self.meta.roster(), &self.newest.roster) {
            self.newest = Known::of(&self.meta);
        }
    }

    /// The group is to have these members.
    pub(super) fn aim(&mut self, voters: &[usize], learners: &[usize]) {
        let nodes = |places: &[usize]| places.iter().map(|place| self.nodes[*place]).collect::<BTreeSet<u64>>();
        let (voters, learners) = (nodes(voters), nodes(learners));
        self.commit(MetaOp::Retarget { group: GROUP, voters, learners, leader: None, pinned: false });
    }

    /// Whether the group is as it was last meant to be, and its record says so.
    pub(super) fn is_settled(&self) -> bool {
        let record = self.meta.roster().group(GROUP).expect("it was founded");
        record.target.is_none() && record.heard == record.targets
    }

    /// What was sent does not arrive any more.
    pub(super) fn lose_reports(&mut self) {
        self.reports.clear();
        self.sent.clear();
    }

    /// Where a node of the roster is in the bounds.
    pub(super) fn place_of(&self, node: u64) -> usize {
        self.nodes.iter().position(|known| *known == node).expect("no node leaves")
    }

    /// The replicas that think that they lead.
    pub(super) fn leading(&self) -> impl Iterator<Item = (u64, &Replica)> {
        self.leaders.iter().zip(1..).filter_map(|(leader, term)| {
            let replica = self.replicas.get(leader).filter(|replica| replica.term == term)?;
            Some((*leader, replica))
        })
    }

    /// The index from 1 of the last entry of its own term that a majority has, or what the leader knew before.
    pub(super) fn committed_by(&self, leader: u64) -> usize {
        let of = &self.replicas[&leader];
        let Some((_, configuration)) = of.configuration() else { return of.committed };
        let has = |replica: &u64, length: usize| {
            self.replicas.get(replica).is_some_and(|other| other.log.get(..length) == Some(&of.log[..length]))
        };
        (of.committed + 1..=of.log.len())
            .rev()
            .find(|length| {
                of.log[length - 1].term == of.term && configuration.is_quorum(|replica| has(replica, *length))
            })
            .unwrap_or(of.committed)
    }

    /// A leader learns what is committed.
    pub(super) fn count(&mut self, leader: u64) {
        let committed = self.committed_by(leader);
        let of = self.replicas.get_mut(&leader).expect("it leads");
        of.committed = committed;
        let common = committed.min(self.history.len());
        self.is_lost |= of.log[..common] != self.history[..common];
        if committed > self.history.len() {
            self.history = of.log[..committed].to_vec();
        }
    }

    pub(super) fn report(&mut self, report: Configured) {
        if self.sent.insert(encode(&report)) {
            self.reports.push(report);
        }
    }

    /// Makes equal states equal.
    pub(super) fn seal(&mut self) {
        self.reports.sort_by_cached_key(encode);
        let counts = encode(&(self.targets as u64, self.commands));
        let rosters = self.known.iter().chain([&self.newest]).flat_map(|known| known.bytes.iter().copied());
        self.bytes = counts.into_iter().chain(rosters).collect();
    }

    fn key(&self) -> impl Hash + PartialEq + '_ {
        (&self.bytes, &self.replicas, &self.destroyed, &self.leaders, &self.sent, &self.history, self.is_lost)
    }

    pub(super) fn is_committed_kept(&self) -> bool {
        !self.is_lost
    }

    /// No voter of a configuration that is committed, or that a leader has appended after it, is destroyed.
    pub(super) fn are_voters_there(&self) -> bool {
        let committed = Replica { log: self.history.clone(), ..Replica::default() };
        let in_force =
            committed.configuration().into_iter().chain(self.leading().filter_map(|(_, of)| of.configuration()));
        in_force.into_iter().all(|(_, of)| of.voters.iter().flatten().all(|voter| !self.destroyed.contains(voter)))
    }

    /// Some replica would be voted for by enough of those that are there.
    pub(super) fn can_be_led(&self) -> bool {
        self.replicas.iter().any(|(id, replica)| {
            let Some((_, configuration)) = replica.configuration() else { return false };
            let grants = |voter: &u64| self.replicas.get(voter).is_some_and(|voter| replica.is_as_new_as(voter));
            configuration.votes(*id) && configuration.is_quorum(grants)
        })
    }

    pub(super) fn is_at_last_target(&self, bounds: &Bounds) -> bool {
        self.targets == bounds.targets.len() && self.is_settled()
    }

    pub(super) fn is_any_destroyed(&self) -> bool {
        !self.destroyed.is_empty()
    }

    pub(super) fn is_led_by_old_roster(&self) -> bool {
        self.leading().any(|(id, _)| {
            let targets = |roster: &Roster| roster.group(GROUP).map(|record| record.targets);
            let node = self.nodes.iter().position(|node| self.meta.roster().node_of(id) == Some(*node));
            node.is_some_and(|place| targets(&self.known[place].roster) < targets(self.meta.roster()))
        })
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.key().hash(hasher);
    }
}

impl fmt::Debug for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("State")
            .field("group", &self.meta.roster().group(GROUP))
            .field("replicas", &self.replicas)
            .field("destroyed", &self.destroyed)
            .field("leaders", &self.leaders)
            .finish_non_exhaustive()
    }
}
