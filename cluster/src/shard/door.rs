//! The way into a shard: admission before anything is sent, and the queue that a turn takes from.
//!
//! ractor's mailboxes are unbounded and first come, first served. So calls wait here, counted, and the actor gets one wake-up
//! for all of them: an entry to apply never stands behind more than one turn's worth of decisions.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use proffer_engine::keys::TenantId;
use tokio::sync::{Mutex as Turnstile, OwnedMutexGuard, Semaphore};

use crate::bell::{Bell, Waker};
use crate::error::Error;
use crate::limits::{
    BULK_SHARE_DIVISOR, RETRY_AFTER_BUSY_MS, SHARD_OPEN_MAX, SHARD_WAITING_MAX, SHARD_WORK_NS_MAX, WORK_NS_START,
};
use crate::shard::ask::{Ask, Lane};

/// One shard's gate and queue. It outlives the actor behind it: what waits is not lost when that is restarted.
pub(crate) struct ShardDoor {
    waiting: Mutex<Waiting>,
    bell: Bell,
    /// Moving estimate of one deed's cost, in nanoseconds.
    deed_ns: AtomicU64,
    /// The replica that stood behind the door last.
    behind: AtomicU64,
    /// Replicas with lower ids are of a generation that was lost, and so are lower terms.
    founder: AtomicU64,
    term_floor: AtomicU64,
    /// One for each call that may be open: admitted, and not answered.
    places: Arc<Semaphore>,
    /// Held by whoever goes through all profiles for sums: copies of the state and threads are not to be had without end.
    counting: Arc<Turnstile<()>>,
}

#[derive(Default)]
struct Waiting {
    /// The cluster's own: before all others, never refused.
    own: VecDeque<Ask>,
    calls: VecDeque<Waiter>,
    work_ns: u64,
    bulk: usize,
    by_tenant: Vec<(TenantId, usize)>,
}

struct Waiter {
    ask: Ask,
    tenant: TenantId,
    bulk: bool,
    work_ns: u64,
}

impl ShardDoor {
    pub(crate) fn new() -> Self {
        ShardDoor {
            waiting: Mutex::new(Waiting::default()),
            bell: Bell::default(),
            deed_ns: AtomicU64::new(WORK_NS_START),
            behind: AtomicU64::new(0),
            founder: AtomicU64::new(0),
            term_floor: AtomicU64::new(0),
            places: Arc::new(Semaphore::new(SHARD_OPEN_MAX)),
            counting: Arc::default(),
        }
    }

    /// Waits until nobody goes through all profiles for sums.
    pub(crate) async fn begin_to_count(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.counting).lock_owned().await
    }

    /// Whether a recovered actor stands behind the door, and is not of a generation that was lost.
    pub(crate) fn is_up(&self) -> bool {
        self.bell.is_up() && !self.is_lost()
    }

    /// Whether an actor stands behind the door, whatever it is of.
    pub(crate) fn is_open(&self) -> bool {
        self.bell.is_up()
    }

    /// A recovered actor stands behind the door from now on, which leads as this replica.
    pub(crate) fn open(&self, replica: u64, waker: Waker) {
        self.behind.store(replica, Ordering::SeqCst);
        self.bell.open(waker);
    }

    /// The shard was begun anew: replicas before `founder` are of a lost generation, and nothing that they say counts any more.
    pub(crate) fn begin_generation(&self, founder: u64, term_floor: u64) {
        self.term_floor.fetch_max(term_floor, Ordering::SeqCst);
        self.founder.fetch_max(founder, Ordering::SeqCst);
    }

    /// The first replica of the generation that counts: whoever is answered while this rises was answered by nobody.
    pub(crate) fn founder(&self) -> u64 {
        self.founder.load(Ordering::SeqCst)
    }

    /// Whether what stood behind the door last is of a generation that was lost: its answers are none.
    fn is_lost(&self) -> bool {
        self.behind.load(Ordering::SeqCst) < self.founder()
    }

    /// Who leads in a term that is not higher leads a generation that was lost.
    pub(crate) fn term_floor(&self) -> u64 {
        self.term_floor.load(Ordering::SeqCst)
    }

    /// Takes out every call that waits, to be answered: the shard is led elsewhere. The cluster's own goes on waiting.
    pub(crate) fn turn_away(&self) -> Vec<Ask> {
        let mut waiting = self.lock();
        let own = std::mem::take(&mut waiting.own);
        let turned_away = std::mem::replace(&mut *waiting, Waiting { own, ..Waiting::default() });
        turned_away.calls.into_iter().map(|waiter| waiter.ask).collect()
    }

    /// The actor is gone: what waits goes on waiting, nothing new is admitted.
    pub(crate) fn close(&self) {
        self.bell.close();
    }

    /// Who is woken while the shard is not led here and something of the cluster's own waits.
    pub(crate) fn when_not_led(&self, courier: Waker) {
        self.bell.when_closed(courier);
    }

    /// What waits of the cluster's own, if the shard is not led here.
    pub(crate) fn take_own_unless_led(&self) -> VecDeque<Ask> {
        if self.is_up() { VecDeque::new() } else { std::mem::take(&mut self.lock().own) }
    }

    /// Admits a call, or refuses it. O(tenants waiting).
    pub(crate) fn send(&self, lane: Lane, mut ask: Ask) -> Result<(), Error> {
        let (tenant, bulk) = match lane {
            Lane::Own => {
                self.lock().own.push_back(ask);
                self.bell.ring();
                return Ok(());
            }
            Lane::Request(tenant) => (tenant, false),
            Lane::Bulk(tenant) => (tenant, true),
        };
        if !self.is_up() {
            let error = Error::NotLed { reason: "the customer's shard".to_owned() };
            return Err(error);
        }
        let work_ns = self.deed_ns.load(Ordering::Relaxed).saturating_mul(ask.deeds() as u64);
        let mut waiting = self.lock();
        let place = waiting.has_room(&tenant, bulk, work_ns).then(|| Arc::clone(&self.places).try_acquire_owned());
        let Some(Ok(place)) = place else {
            return Err(Error::Overloaded { retry_after_ms: RETRY_AFTER_BUSY_MS });
        };
        ask.hold(place);
        waiting.work_ns = waiting.work_ns.saturating_add(work_ns);
        waiting.bulk += usize::from(bulk);
        match waiting.by_tenant.iter_mut().find(|(name, _)| *name == tenant) {
            Some((_, count)) => *count += 1,
            None => waiting.by_tenant.push((tenant.clone(), 1)),
        }
        waiting.calls.push_back(Waiter { ask, tenant, bulk, work_ns });
        drop(waiting);
        self.bell.ring();
        Ok(())
    }

    /// The next call, the cluster's own first.
    pub(crate) fn next(&self) -> Option<Ask> {
        let mut waiting = self.lock();
        if let Some(own) = waiting.own.pop_front() {
            return Some(own);
        }
        let waiter = waiting.calls.pop_front()?;
        waiting.work_ns = waiting.work_ns.saturating_sub(waiter.work_ns);
        waiting.bulk -= usize::from(waiter.bulk);
        let at = waiting.by_tenant.iter().position(|(name, _)| *name == waiter.tenant).expect("counted when admitted");
        waiting.by_tenant[at].1 -= 1;
        if waiting.by_tenant[at].1 == 0 {
            waiting.by_tenant.swap_remove(at);
        }
        Some(waiter.ask)
    }

    /// The actor has looked: says whether it has to come again.
    pub(crate) fn rest(&self) -> bool {
        self.bell.rest(|| self.waiting() > 0)
    }

    /// Learns how long `deeds` of work took.
    pub(crate) fn observe(&self, deeds: usize, took: Duration) {
        if deeds > 0 {
            let each = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX) / deeds as u64;
            let before = self.deed_ns.load(Ordering::Relaxed);
            self.deed_ns.store(before - before / 16 + each / 16, Ordering::Relaxed);
        }
    }

    /// How many calls wait.
    pub(crate) fn waiting(&self) -> usize {
        let waiting = self.lock();
        waiting.calls.len() + waiting.own.len()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no holder panics")
    }
}

impl Waiting {
    /// Count, estimated work, the bulk share and the tenants' fair share bind; but an idle shard takes any one call.
    fn has_room(&self, tenant: &TenantId, bulk: bool, work_ns: u64) -> bool {
        if self.calls.is_empty() {
            return true;
        }
        let share = if bulk { BULK_SHARE_DIVISOR } else { 1 };
        let mine = self.by_tenant.iter().find(|(name, _)| name == tenant).map_or(0, |(_, count)| *count);
        let tenants = self.by_tenant.len() + usize::from(mine == 0);
        let fits = self.work_ns.saturating_add(work_ns) <= SHARD_WORK_NS_MAX / share as u64;
        // Bulk that was let in alone may be more than the whole estimate: it does not bar requests.
        let only_bulk = !bulk && self.calls.len() == self.bulk;
        self.calls.len() < SHARD_WAITING_MAX
            && (!bulk || self.bulk < SHARD_WAITING_MAX / BULK_SHARE_DIVISOR)
            && mine < SHARD_WAITING_MAX / tenants
            && (fits || only_bulk)
    }
}

#[cfg(test)]
mod tests {
    use proffer_engine::profile::command::ShardOp;
    use tokio::sync::oneshot;

    use super::*;
    use crate::shard::ask::{Reply, WriteAsk};

    fn ask() -> Ask {
        Ask::Write(WriteAsk { ops: vec![ShardOp::Tick], deadline: None, reply: Reply::new(oneshot::channel().0) })
    }

    fn open_door() -> ShardDoor {
        let door = ShardDoor::new();
        door.open(1, Arc::new(|| {}));
        // So cheap that only the count binds.
        door.deed_ns.store(1, Ordering::Relaxed);
        door
    }

    fn admitted(door: &ShardDoor, lane: impl Fn(TenantId) -> Lane, tenant: &str, tries: usize) -> usize {
        (0..tries).filter(|_| door.send(lane(TenantId::new(tenant)), ask()).is_ok()).count()
    }

    #[test]
    fn no_more_wait_than_may() {
        let door = open_door();
        assert_eq!(admitted(&door, Lane::Request, "a", 1_000), SHARD_WAITING_MAX);
        assert!(door.next().is_some());
        assert_eq!(admitted(&door, Lane::Request, "a", 1_000), 1, "room is given back");
    }

    #[test]
    fn a_call_keeps_its_place_until_it_is_answered() {
        let door = open_door();
        let mut open = Vec::new();
        while open.len() < 2 * SHARD_OPEN_MAX && door.send(Lane::Request(TenantId::new("a")), ask()).is_ok() {
            open.extend(door.next());
        }
        assert_eq!(open.len(), SHARD_OPEN_MAX, "nothing waits in the door, and yet no more is admitted");
        open.pop();
        assert!(door.send(Lane::Request(TenantId::new("a")), ask()).is_ok());
    }

    #[test]
    fn bulk_keeps_to_its_share_and_leaves_the_rest() {
        let door = open_door();
        assert_eq!(admitted(&door, Lane::Bulk, "a", 1_000), SHARD_WAITING_MAX / BULK_SHARE_DIVISOR);
        assert!(admitted(&door, Lane::Request, "b", 1_000) >= SHARD_WAITING_MAX / 2);
    }

    #[test]
    fn one_tenant_cannot_take_all_room_while_another_waits() {
        let door = open_door();
        assert!(door.send(Lane::Request(TenantId::new("small")), ask()).is_ok());
        assert_eq!(admitted(&door, Lane::Request, "big", 1_000), SHARD_WAITING_MAX / 2);
        assert!(door.send(Lane::Request(TenantId::new("small")), ask()).is_ok());
    }

    #[test]
    fn estimated_work_binds_before_the_count_does() {
        let door = open_door();
        door.deed_ns.store(SHARD_WORK_NS_MAX / 4, Ordering::Relaxed);
        assert_eq!(admitted(&door, Lane::Request, "a", 1_000), 4);
    }

    #[test]
    fn a_door_without_an_actor_refuses_calls_but_keeps_the_clusters_own() {
        let door = ShardDoor::new();
        assert!(door.send(Lane::Request(TenantId::new("a")), ask()).is_err());
        assert!(door.send(Lane::Own, ask()).is_ok());
        assert_eq!(door.waiting(), 1);
    }
}
