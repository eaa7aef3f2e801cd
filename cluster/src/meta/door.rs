//! The way into the meta group: what waits is counted, and the cluster's own goes first.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use proffer_engine::budget::escrow::EscrowReport;
use proffer_engine::keys::ShardId;
use proffer_engine::profile::command::AccountId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::bell::{Bell, Waker};
use crate::error::Error;
use crate::limits::{ESCROW_MESSAGES_MAX, LEASE_ASKS_MAX, META_OPEN_BYTES_MAX, META_OPEN_MAX, RETRY_AFTER_BUSY_MS};
use crate::meta::ask::{LeaseAsk, MetaAsk};

/// The meta group's gate and queue. It outlives the actor behind it.
pub(crate) struct MetaDoor {
    waiting: Mutex<Waiting>,
    bell: Bell,
    /// Rings for what concerns leases: it is heard also while an entry is under way.
    lease_bell: Bell,
    /// Calls and bytes that may be open: admitted, and not answered.
    places: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

#[derive(Default)]
struct Waiting {
    /// Shards with reports, in the order in which they came; of each account the newest.
    reporting: VecDeque<ShardId>,
    reports: BTreeMap<ShardId, Reports>,
    calls: VecDeque<Admitted>,
    leases: VecDeque<LeaseAsk>,
}

/// What one generation of a shard reports.
#[derive(Default)]
struct Reports {
    generation: u64,
    by_account: BTreeMap<AccountId, EscrowReport>,
}

/// What a call occupies until it is answered.
pub(crate) struct Room {
    _place: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

/// A call with its room.
pub(crate) struct Admitted {
    pub(crate) ask: MetaAsk,
    pub(crate) room: Room,
}

impl Default for MetaDoor {
    fn default() -> Self {
        MetaDoor {
            waiting: Mutex::default(),
            bell: Bell::default(),
            lease_bell: Bell::default(),
            places: Arc::new(Semaphore::new(META_OPEN_MAX)),
            bytes: Arc::new(Semaphore::new(META_OPEN_BYTES_MAX)),
        }
    }
}

impl MetaDoor {
    pub(crate) fn is_up(&self) -> bool {
        self.bell.is_up()
    }

    /// A recovered actor stands behind the door from now on.
    pub(crate) fn open(&self, waker: Waker) {
        self.lease_bell.open(Arc::clone(&waker));
        self.bell.open(waker);
    }

    /// The actor is gone.
    pub(crate) fn close(&self) {
        self.bell.close();
        self.lease_bell.close();
        // Whoever asked asks again, at whoever leads then.
        self.lock().leases.clear();
    }

    /// Who is woken while the catalogue is not led here and reports of shards wait.
    pub(crate) fn when_not_led(&self, courier: Waker) {
        self.bell.when_closed(courier);
    }

    /// Reports that wait, if the catalogue is not led here.
    pub(crate) fn take_reports_unless_led(&self) -> Option<(ShardId, u64, Vec<EscrowReport>)> {
        if self.is_up() { None } else { self.next_reports() }
    }

    /// Admits a call. O(its bytes).
    pub(crate) fn send(&self, ask: MetaAsk) -> Result<(), Error> {
        if !self.is_up() {
            return Err(Error::NotLed { reason: "the catalogue".to_owned() });
        }
        // One that is larger than all the room there is goes in alone.
        let bytes = u32::try_from(ask.bytes().min(META_OPEN_BYTES_MAX)).unwrap_or(u32::MAX);
        let place = Arc::clone(&self.places).try_acquire_owned();
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(bytes);
        let (Ok(place), Ok(bytes)) = (place, bytes) else {
            return Err(Error::Overloaded { retry_after_ms: RETRY_AFTER_BUSY_MS });
        };
        self.lock().calls.push_back(Admitted { ask, room: Room { _place: place, _bytes: bytes } });
        self.bell.ring();
        Ok(())
    }

    /// A node has something to say for the sake of its lease. What finds nobody, or no room, is dropped: it is said again.
    pub(crate) fn ask_lease(&self, ask: LeaseAsk) {
        if !self.is_up() {
            return;
        }
        let mut waiting = self.lock();
        if waiting.leases.len() < LEASE_ASKS_MAX {
            waiting.leases.push_back(ask);
        }
        drop(waiting);
        self.lease_bell.ring();
    }

    /// What nodes have said for the sake of their leases; when there is nothing more, the next word rings.
    pub(crate) fn next_lease_ask(&self) -> Option<LeaseAsk> {
        loop {
            let next = self.lock().leases.pop_front();
            if next.is_some() || !self.lease_bell.rest(|| !self.lock().leases.is_empty()) {
                return next;
            }
        }
    }

    /// A shard's totals and wishes: never refused, and not answered here: the shard is told in a notice. A later report of an
    /// account takes the place of one that still waits, but for what that wished for. What an earlier generation of the shard says is
    /// nothing beside what a later one does.
    pub(crate) fn report(&self, shard: ShardId, generation: u64, reports: Vec<EscrowReport>) {
        if reports.is_empty() {
            return;
        }
        let mut waiting = self.lock();
        if !waiting.reports.contains_key(&shard) {
            waiting.reporting.push_back(shard);
        }
        let of_shard = waiting.reports.entry(shard).or_default();
        if generation > of_shard.generation {
            *of_shard = Reports { generation, ..Reports::default() };
        }
        for report in reports.into_iter().filter(|_| generation == of_shard.generation) {
            let kept = of_shard.by_account.entry(report.account).or_insert(report);
            *kept = EscrowReport { wish: report.wish.max(kept.wish), ..report };
        }
        drop(waiting);
        self.bell.ring();
    }

    /// The reports of the shard that has waited longest, and of which of its generations they are.
    pub(crate) fn next_reports(&self) -> Option<(ShardId, u64, Vec<EscrowReport>)> {
        let mut waiting = self.lock();
        let shard = waiting.reporting.pop_front()?;
        let Reports { generation, by_account: mut reports } =
            waiting.reports.remove(&shard).expect("whoever reports has reports");
        if let Some(later) = reports.keys().nth(ESCROW_MESSAGES_MAX).copied() {
            let later = reports.split_off(&later);
            waiting.reports.insert(shard, Reports { generation, by_account: later });
            waiting.reporting.push_back(shard);
        }
        Some((shard, generation, reports.into_values().collect()))
    }

    /// The call that has waited longest.
    pub(crate) fn next_call(&self) -> Option<Admitted> {
        self.lock().calls.pop_front()
    }

    /// The actor has looked: says whether it has to look again.
    pub(crate) fn rest(&self) -> bool {
        self.bell.rest(|| !self.is_empty())
    }

    pub(crate) fn is_empty(&self) -> bool {
        let waiting = self.lock();
        waiting.reporting.is_empty() && waiting.calls.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no holder panics")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proffer_engine::catalog::{Actor, Command, CommandV1, EntityKind, Op};
    use proffer_engine::keys::{CapKey, TenantId};
    use proffer_engine::time::Timestamp;
    use proffer_engine::value::Value;
    use tokio::sync::oneshot;
    use tokio::time::Instant;

    use super::*;

    fn report(account: u32, spent: u64, wish: u64) -> EscrowReport {
        let account = AccountId { tenant: 0, cap: CapKey(account), ordinal: 0 };
        EscrowReport {
            account,
            granted_seen: 9,
            returned: 0,
            free: 0,
            reserved: 0,
            spent,
            wish,
            minted: 0,
            version: 0,
            soft: None,
            as_of: Timestamp(0),
        }
    }

    #[test]
    fn reports_that_wait_are_one_an_account_and_keep_their_wish() {
        let door = MetaDoor::default();
        for spent in 0..1_000 {
            door.report(ShardId(1), 0, vec![report(7, spent, u64::from(spent == 500)), report(8, spent, 0)]);
        }
        door.report(ShardId(2), 0, vec![report(7, 1, 0)]);
        assert_eq!(door.next_reports(), Some((ShardId(1), 0, vec![report(7, 999, 1), report(8, 999, 0)])));
        assert_eq!(door.next_reports(), Some((ShardId(2), 0, vec![report(7, 1, 0)])));
        assert_eq!(door.next_reports(), None);
        assert!(!door.rest());
    }

    #[test]
    fn reports_of_a_lost_generation_do_not_stand_beside_those_of_the_next() {
        let door = MetaDoor::default();
        door.report(ShardId(1), 0, vec![report(7, 5, 1), report(8, 5, 1)]);
        door.report(ShardId(1), 1, vec![report(7, 1, 0)]);
        door.report(ShardId(1), 0, vec![report(7, 6, 1)]);
        assert_eq!(door.next_reports(), Some((ShardId(1), 1, vec![report(7, 1, 0)])));
        assert_eq!(door.next_reports(), None);
    }

    #[test]
    fn more_reports_than_an_entry_holds_come_in_parts() {
        let door = MetaDoor::default();
        let many = u32::try_from(ESCROW_MESSAGES_MAX).unwrap() + 10;
        door.report(ShardId(1), 0, (0..many).map(|account| report(account, 1, 0)).collect());
        let sizes: Vec<usize> = std::iter::from_fn(|| door.next_reports()).map(|(.., reports)| reports.len()).collect();
        assert_eq!(sizes, [ESCROW_MESSAGES_MAX, 10]);
    }

    #[tokio::test]
    async fn bytes_of_open_calls_are_bounded_until_they_are_answered() {
        let door = MetaDoor::default();
        door.open(Arc::new(|| {}));
        let mebibytes = |count: usize| {
            let body = Value::map([("name", Value::text("x".repeat(count * 1024 * 1024)))]);
            let op = Op::Create { kind: EntityKind::Offer, id: "one".to_owned(), body };
            let actor = Actor { name: "test".to_owned(), admin: true };
            let command = CommandV1 { tenant: TenantId::new("acme"), actor, at: Timestamp(0), op };
            let deadline = Instant::now() + Duration::from_secs(1);
            MetaAsk::Change { commands: vec![Command::V1(command)], deadline, reply: oneshot::channel().0 }
        };
        let most = META_OPEN_BYTES_MAX / 1024 / 1024;
        assert!(door.send(mebibytes(most * 2 / 3)).is_ok());
        let open = door.next_call().unwrap();
        assert!(matches!(door.send(mebibytes(most * 2 / 3)), Err(Error::Overloaded { .. })), "it is not answered yet");
        drop(open);
        assert!(door.send(mebibytes(most * 2)).is_ok(), "one alone always fits");
        assert!(door.send(mebibytes(1)).is_err());
    }
}
