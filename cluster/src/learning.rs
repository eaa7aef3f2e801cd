//! What this node knows of the evidence that all shards have counted, and what has been learned from it (docs/adr/0020).
//!
//! A board has the newest tallies of each shard: those of the replicas here, and what other nodes told. One task adds them up, a table a
//! tenant, and swaps that in; decisions read nothing else. Nothing here is agreed on, and nothing needs to be: tallies only grow, so the
//! larger ones of a shard are the later ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arc_swap::ArcSwap;
use bincode::{Decode, Encode};
use proffer_engine::keys::{ShardId, TenantId};
use proffer_engine::learn::{Learned, Tallies};
use proffer_engine::profile::cells::Look;
use proffer_engine::profile::evidence::Evidence;
use proffer_engine::profile::shard::ShardState;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::limits::{EVIDENCE_POST_MS, LEARN_MERGE_MS};
use crate::ports::offload::{self, Offload};

/// How far a shard's tallies have come: of two, the later is the larger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub(crate) struct Mark {
    /// How often the shard was begun anew.
    pub(crate) generation: u64,
    /// How many observations were counted, of all tenants.
    pub(crate) count: u64,
}

impl Mark {
    /// Where a shard stands. O(tenants).
    fn of(state: &ShardState) -> Self {
        let counts = state.evidence_by_tenant().map(|(_, evidence)| evidence.all().count());
        Mark { generation: state.generation(), count: counts.fold(0, u64::saturating_add) }
    }
}

/// What a shard has counted.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Counted {
    pub(crate) shard: ShardId,
    pub(crate) mark: Mark,
    /// By tenant.
    pub(crate) tenants: BTreeMap<TenantId, Tallies>,
}

impl Counted {
    /// Whether its mark is that of what it has.
    fn is_sound(&self) -> bool {
        self.mark.count == self.tenants.values().map(Tallies::count).fold(0, u64::saturating_add)
    }

    /// Bytes that it takes at most on its way.
    fn size(&self) -> usize {
        const AROUND: usize = 40;
        const ENTRY: usize = 5 + 2 * 9;
        let of_tenant = |(tenant, tallies): (&TenantId, &Tallies)| {
            AROUND + tenant.0.len() + ENTRY * (tallies.offers.len() + tallies.categories.len())
        };
        AROUND + self.tenants.iter().map(of_tenant).sum::<usize>()
    }
}

/// What a replica here has counted, as it has it: made [`Counted`] off its thread.
struct Fresh {
    mark: Mark,
    tenants: Vec<(TenantId, Arc<Evidence>)>,
}

/// The newest of each shard.
struct Board {
    shards: Vec<Option<Arc<Counted>>>,
    fresh: BTreeMap<ShardId, Fresh>,
    /// Tenants of which something has changed since they were added up.
    changed: BTreeSet<TenantId>,
}

impl Board {
    fn mark(&self, shard: ShardId) -> Option<Mark> {
        self.shards.get(usize::from(shard.0))?.as_ref().map(|counted| counted.mark)
    }

    /// Puts up what is later than what was known; `true`: it was.
    fn put(&mut self, counted: Counted) -> bool {
        let Some(place) = self.shards.get_mut(usize::from(counted.shard.0)) else { return false };
        let none = BTreeMap::new();
        let known = place.as_ref().map_or(&none, |known| &known.tenants);
        if place.as_ref().is_some_and(|known| known.mark >= counted.mark) || !counted.is_sound() {
            return false;
        }
        let all = known.keys().chain(counted.tenants.keys());
        let changed = all.filter(|tenant| known.get(*tenant) != counted.tenants.get(*tenant)).cloned();
        self.changed.extend(changed);
        *place = Some(Arc::new(counted));
        true
    }
}

/// See the module.
pub(crate) struct Learning {
    board: Mutex<Board>,
    learned: ArcSwap<BTreeMap<TenantId, Arc<Learned>>>,
    nothing: Arc<Learned>,
    news: Notify,
}

impl Learning {
    /// Of a cluster of so many shards, of which nothing is known yet.
    pub(crate) fn new(shards: u16) -> Self {
        let shards = (0..shards).map(|_| None).collect();
        Learning {
            board: Mutex::new(Board { shards, fresh: BTreeMap::new(), changed: BTreeSet::new() }),
            learned: ArcSwap::default(),
            nothing: Arc::default(),
            news: Notify::new(),
        }
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().expect("no holder panics")
    }

    /// What a decision of this tenant reads: one table, whatever comes meanwhile. O(log tenants).
    pub(crate) fn of(&self, tenant: &TenantId) -> Arc<Learned> {
        Arc::clone(self.learned.load().get(tenant).unwrap_or(&self.nothing))
    }

    /// A replica here has counted this. O(tenants).
    fn post(&self, shard: ShardId, mark: Mark, state: &ShardState) {
        let tenants = state.evidence_by_tenant().map(|(tenant, evidence)| (tenant.clone(), Arc::clone(evidence)));
        let mut board = self.board();
        if board.mark(shard).is_none_or(|known| known < mark) {
            board.fresh.insert(shard, Fresh { mark, tenants: tenants.collect() });
            self.news.notify_one();
        }
    }

    /// Another node knows this.
    pub(crate) fn hear(&self, told: Vec<Counted>) {
        let mut board = self.board();
        let mut is_news = false;
        for counted in told {
            is_news |= board.put(counted);
        }
        if is_news {
            self.news.notify_one();
        }
    }

    /// What is known here, by shard.
    pub(crate) fn marks(&self) -> Vec<(ShardId, Mark)> {
        self.board().shards.iter().flatten().map(|counted| (counted.shard, counted.mark)).collect()
    }

    /// What is known here and later than that, up to `room` bytes; and whether there is more.
    pub(crate) fn later_than(&self, marks: &[(ShardId, Mark)], room: usize) -> (Vec<Counted>, bool) {
        let marks: BTreeMap<ShardId, Mark> = marks.iter().copied().collect();
        let is_later = |counted: &&Arc<Counted>| marks.get(&counted.shard).is_none_or(|mark| *mark < counted.mark);
        let later: Vec<Arc<Counted>> = self.board().shards.iter().flatten().filter(is_later).cloned().collect();
        let mut left = room;
        let fitting: Vec<Counted> = later
            .iter()
            .filter(|counted| {
                let fits = counted.size() <= left;
                left -= if fits { counted.size() } else { 0 };
                fits
            })
            .map(|counted| Counted::clone(counted))
            .collect();
        let has_more = fitting.len() < later.len();
        (fitting, has_more)
    }

    /// Adds up what has changed, and swaps it in. Only one caller at a time.
    fn merge(&self) {
        let fresh = std::mem::take(&mut self.board().fresh);
        for (shard, Fresh { mark, tenants }) in fresh {
            let tenants = tenants.iter().filter(|(_, evidence)| evidence.all().count() > 0);
            let tenants = tenants.map(|(tenant, evidence)| (tenant.clone(), Tallies::of(evidence))).collect();
            self.board().put(Counted { shard, mark, tenants });
        }
        let (changed, shards) = {
            let mut board = self.board();
            (std::mem::take(&mut board.changed), board.shards.clone())
        };
        if changed.is_empty() {
            return;
        }
        let mut learned = BTreeMap::clone(&self.learned.load());
        for tenant in changed {
            let of_tenant = shards.iter().flatten().filter_map(|counted| counted.tenants.get(&tenant));
            let sum = Tallies::sum(of_tenant);
            learned.insert(tenant, Arc::new(Learned::new(sum)));
        }
        self.learned.store(Arc::new(learned));
    }

    /// Keeps what decisions read up with the board. Goes on for ever: stop it by dropping its task.
    pub(crate) async fn run(self: Arc<Self>, offload: Arc<dyn Offload>) {
        loop {
            self.news.notified().await;
            let own = Arc::clone(&self);
            if offload::call(&*offload, offload::Lane::Bulk, move || own.merge()).await.is_err() {
                tracing::error!("what shards have counted could not be added up; decisions go on with what was known");
            }
            tokio::time::sleep(Duration::from_millis(LEARN_MERGE_MS)).await;
        }
    }
}

/// One replica's way to its node's board: now and then, and only what is new.
#[derive(Default)]
pub(crate) struct Posting {
    posted: Mark,
    posted_at: Option<Instant>,
    due: Option<Instant>,
}

impl Posting {
    /// Entries have been applied: what was counted is put up, or soon will be. O(tenants).
    pub(crate) fn look(&mut self, shard: ShardId, state: &ShardState, learning: &Learning) {
        let mark = Mark::of(state);
        if mark == self.posted {
            return;
        }
        let now = Instant::now();
        let due = self.posted_at.map_or(now, |at| at + Duration::from_millis(EVIDENCE_POST_MS));
        if due > now {
            self.due = Some(due);
            return;
        }
        learning.post(shard, mark, state);
        *self = Posting { posted: mark, posted_at: Some(now), due: None };
    }

    /// When there is something to put up.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use proffer_engine::keys::OfferKey;
    use proffer_engine::profile::evidence::Tally;

    use super::*;

    fn tenant() -> TenantId {
        TenantId::new("acme")
    }

    fn counted(shard: u16, generation: u64, shown: u64) -> Counted {
        let tally = Tally { shown, positive: 0 };
        let tallies = Tallies { all: tally, offers: vec![(OfferKey(1), tally)], categories: Vec::new() };
        let mark = Mark { generation, count: shown };
        Counted { shard: ShardId(shard), mark, tenants: BTreeMap::from([(tenant(), tallies)]) }
    }

    fn known(learning: &Learning) -> u64 {
        learning.merge();
        learning.of(&tenant()).tallies().all.shown
    }

    #[test]
    fn each_shard_counts_once_however_often_and_in_whatever_order_it_is_told() {
        let learning = Learning::new(3);
        assert_eq!(known(&learning), 0);
        learning.hear(vec![counted(0, 0, 5), counted(1, 0, 7)]);
        assert_eq!(known(&learning), 12);
        learning.hear(vec![counted(1, 0, 7), counted(0, 0, 4), counted(0, 0, 5)]);
        assert_eq!(known(&learning), 12, "the same again, and older ones, change nothing");
        learning.hear(vec![counted(0, 0, 6)]);
        assert_eq!(known(&learning), 13);
        learning.hear(vec![counted(0, 1, 2)]);
        assert_eq!(known(&learning), 9, "a shard that was begun anew has what it has");
        learning.hear(vec![counted(0, 0, 60)]);
        assert_eq!(known(&learning), 9);
    }

    #[test]
    fn what_no_shard_of_ours_can_have_counted_is_left_out() {
        let learning = Learning::new(3);
        let lie = Counted { mark: Mark { generation: 0, count: u64::MAX }, ..counted(0, 0, 5) };
        learning.hear(vec![lie, counted(3, 0, 5), counted(u16::MAX, 0, 5)]);
        assert_eq!((known(&learning), learning.marks().len()), (0, 0));
        learning.hear(vec![counted(0, u64::MAX, u64::MAX), counted(1, u64::MAX, u64::MAX)]);
        assert_eq!(known(&learning), u64::MAX, "absurd, and no panic");
    }

    #[test]
    fn what_is_later_is_told_as_far_as_there_is_room() {
        let learning = Learning::new(4);
        learning.hear(vec![counted(0, 0, 5), counted(1, 0, 7), counted(2, 0, 9)]);
        let marks = [(ShardId(0), counted(0, 0, 5).mark), (ShardId(1), counted(1, 0, 6).mark)];
        let (told, has_more) = learning.later_than(&marks, usize::MAX);
        assert_eq!((told, has_more), (vec![counted(1, 0, 7), counted(2, 0, 9)], false));
        let one = counted(1, 0, 7).size();
        let (told, has_more) = learning.later_than(&marks, one);
        assert_eq!((told, has_more), (vec![counted(1, 0, 7)], true));
        assert_eq!(learning.later_than(&marks, 0), (Vec::new(), true));
        assert_eq!(learning.later_than(&learning.marks(), usize::MAX), (Vec::new(), false));
        let large = Tally { shown: u64::MAX, positive: u64::MAX };
        let tallies = Tallies { all: large, offers: vec![(OfferKey(u32::MAX), large); 9], categories: Vec::new() };
        let largest = Counted {
            shard: ShardId(u16::MAX),
            mark: Mark { generation: u64::MAX, count: u64::MAX },
            tenants: BTreeMap::from([(tenant(), tallies)]),
        };
        assert!(proffer_engine::codec::encode(&largest).len() <= largest.size());
    }
}
