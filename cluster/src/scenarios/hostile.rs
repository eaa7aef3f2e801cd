//! Nodes whose logs delay, refuse, lose, apply unheard and change leaders: no cap is exceeded, a key counts once, and what was
//! acknowledged is applied.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proffer_engine::catalog::Op;
use proffer_engine::keys::{OfferKey, ShardId};
use proffer_engine::profile::apply::Outcome;
use proffer_engine::profile::command::Position;
use proffer_engine::profile::shard::ShardState;
use proffer_engine::time::Timestamp;
use tokio::time::Instant;

use super::world::*;
use crate::calls::{Call, CallKey};
use crate::config::Config;
use crate::error::{Error, StartError};
use crate::groups::{Group, Groups, ProposeMeta, ProposeShard};
use crate::handle::Handle;
use crate::meta::command::{Founding, MetaOutcome};
use crate::meta::keeper::Whereabouts;
use crate::meta::leader::Command as MetaEntry;
use crate::meta::roster::NodeInfo;
use crate::meta::state::MetaState;
use crate::ports::entropy::{Entropy, SeededEntropy};
use crate::ports::memory_disk::MemoryDisk;
use crate::ports::propose::{Pending, Replicated};
use crate::propose::hostile::{Faults, HostilePropose};
use crate::raft::Remains;
use crate::shard::leader::Command as ShardEntry;
use crate::start::assemble;

/// Groups in memory, each in bad company.
struct HostileGroups {
    seed: u64,
    heal: Mutex<Vec<Box<dyn Fn() + Send>>>,
}

impl HostileGroups {
    fn heal(&self) {
        self.heal.lock().unwrap().iter().for_each(|heal| heal());
    }

    fn keep<C: Clone + Send + Sync + 'static, R: Send + 'static>(
        &self,
        group: HostilePropose<C, R>,
    ) -> Arc<HostilePropose<C, R>> {
        let group = Arc::new(group);
        let patient = Arc::clone(&group);
        self.heal.lock().unwrap().push(Box::new(move || patient.heal()));
        group
    }
}

impl Groups for HostileGroups {
    fn recover_meta(&self) -> Pending<'_, Result<(MetaState, Position), StartError>> {
        Box::pin(async move { Ok((MetaState::new(), Position::default())) })
    }

    fn recover_shard(&self, _: ShardId) -> Pending<'_, Result<(ShardState, Position), StartError>> {
        Box::pin(async move { Ok((ShardState::new(), Position::default())) })
    }

    fn meta(&self, machine: Arc<dyn Replicated<MetaEntry, MetaOutcome>>) -> ProposeMeta {
        self.keep(HostilePropose::new(self.seed, Faults::SOME, machine))
    }

    fn shard(&self, shard: ShardId, machine: Arc<dyn Replicated<ShardEntry, Outcome>>) -> ProposeShard {
        let seed = self.seed * 1_000 + 1 + u64::from(shard.0);
        self.keep(HostilePropose::new(seed, Faults::SOME, machine))
    }

    fn is_snapshot_due(&self, _: Group) -> bool {
        false
    }

    fn keep(&self, _: Group) -> Pending<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    fn give_up(&self, _: Group, _: String) -> Pending<'_, bool> {
        Box::pin(async { false })
    }

    fn remarks(&self) -> Vec<String> {
        Vec::new()
    }

    fn holds(&self, _: Group) -> bool {
        true
    }

    fn remains(&self, _: Group) -> Option<Remains> {
        None
    }

    fn trouble(&self) -> Option<String> {
        None
    }

    fn close(&self) -> Pending<'_, ()> {
        Box::pin(async {})
    }
}

const GLOBAL_LIMIT: u64 = 40;
const PROFILE_LIMIT: u64 = 2;
const CUSTOMERS: usize = 12;
const CLIENTS: u64 = 8;

/// What clients have seen acknowledged.
#[derive(Default)]
struct Seen {
    /// Impressions that count, by customer and offer.
    counted: BTreeMap<(usize, OfferKey), u64>,
    keys: u128,
    proposals: u64,
    unknown: u64,
}

async fn founded(seed: u64) -> (Arc<HostileGroups>, Handle) {
    let groups = Arc::new(HostileGroups { seed, heal: Mutex::default() });
    let (ports, _) = ports(Arc::new(MemoryDisk::new()), seed);
    let config = Config::founding(&format!("hostile-{seed}"), 4);
    let founding = Founding { secret: [7; 16], shards: 4 };
    let whereabouts = Whereabouts::of(NodeInfo { disk: 1, boots: 1, ..NodeInfo::default() });
    let handle = assemble(config, ports, Arc::clone(&groups) as _, founding, whereabouts).await.unwrap();
    let commands = [
        command(Op::CreateTenant),
        offer("global", 90, vec![global_cap(GLOBAL_LIMIT)]),
        offer("profile", 50, vec![profile_cap(PROFILE_LIMIT)]),
    ];
    for command in commands {
        loop {
            match handle.change(command.clone(), Instant::now() + Duration::from_secs(10)).await {
                Ok(_) | Err(Error::Refused(_)) => break,
                Err(error) => assert!(error.retryable(), "{error:?}"),
            }
        }
    }
    (groups, handle)
}

/// Decides with a key, as often as it takes to get an answer.
async fn decide_surely(handle: &Handle, number: usize, key: u128) -> Option<crate::calls::Decided> {
    for _ in 0..30 {
        let call = Call { idempotency: Some(CallKey { key, body: 1 }), ..Call::until(soon()) };
        match handle.decide(request(customer(number)), call).await {
            Ok(decided) => return Some(decided),
            Err(error) => assert!(error.retryable(), "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    None
}

/// One client: decides, shows some of what it gets, retries what it is not sure of, and now and then waits.
async fn client(handle: Handle, seed: u64, turns: usize, seen: Arc<Mutex<Seen>>) {
    let draws = SeededEntropy::new(seed);
    for _ in 0..turns {
        let number = draws.u64() as usize % CUSTOMERS;
        let key = {
            let mut seen = seen.lock().unwrap();
            seen.keys += 1;
            seen.keys
        };
        let decided = if draws.u64().is_multiple_of(4) {
            match decide(&handle, number).await {
                Ok(decided) => Some(decided),
                Err(error) => {
                    assert!(error.retryable(), "{error:?}");
                    seen.lock().unwrap().unknown += u64::from(error == Error::Unknown);
                    None
                }
            }
        } else {
            decide_surely(&handle, number, key).await
        };
        if let Some(decided) = decided
            && let Some(proposition) = decided.decision.propositions.first()
        {
            let offer = proposition.offer;
            seen.lock().unwrap().proposals += 1;
            if draws.u64().is_multiple_of(3) {
                tokio::time::sleep(Duration::from_secs(draws.u64() % 1_000)).await;
            }
            if !draws.u64().is_multiple_of(5) {
                show(&handle, number, offer, (decided.id, decided.at), key + (1 << 64), &seen).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(draws.u64() % 50)).await;
    }
}

/// Records an impression, as often as it takes to know what became of it, and once more for good measure.
async fn show(
    handle: &Handle,
    number: usize,
    offer: OfferKey,
    decided: (proffer_engine::profile::command::DecisionId, Timestamp),
    key: u128,
    seen: &Mutex<Seen>,
) {
    let first = loop {
        match impression(handle, number, offer, Some(decided), key).await {
            Ok(responded) => break responded,
            Err(error) => assert!(error.retryable(), "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    if !first.over_cap && !first.repeat {
        *seen.lock().unwrap().counted.entry((number, offer)).or_default() += 1;
    }
    if let Ok(again) = impression(handle, number, offer, Some(decided), key).await {
        assert!(again.duplicate, "what was acknowledged is known");
        assert_eq!((again.over_cap, again.repeat), (first.over_cap, first.repeat), "and is answered alike");
    }
}

async fn spent(handle: &Handle, offer: OfferKey) -> (u64, u64) {
    let report = handle.budget(&tenant(), offer, false, soon()).await.unwrap();
    let shards = || report.accounts.iter().flat_map(|account| &account.shards);
    for account in &report.accounts {
        let held: i128 = shards().map(|of| i128::from(of.free + of.reserved + of.spent)).sum();
        assert_eq!(i128::from(account.pool) + i128::from(account.in_flight) + held, i128::from(account.limit));
        assert!(account.pool >= 0);
    }
    (shards().map(|shard| shard.spent).sum(), shards().map(|shard| shard.reserved).sum())
}

async fn run(seed: u64) -> Seen {
    let (groups, handle) = founded(seed).await;
    let seen = Arc::new(Mutex::new(Seen::default()));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::spawn(client(handle.clone(), seed * 100 + number, 12, Arc::clone(&seen))))
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let (global, profile) = (key_of(&handle, "global"), key_of(&handle, "profile"));
    groups.heal();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (used, reserved) = spent(&handle, global).await;
    assert!(used + reserved <= GLOBAL_LIMIT, "seed {seed}: {used} + {reserved} of {GLOBAL_LIMIT}");
    {
        let seen = seen.lock().unwrap();
        let of = |offer| seen.counted.iter().filter(move |((_, of), _)| *of == offer);
        assert_eq!(used, of(global).map(|(_, count)| count).sum::<u64>(), "seed {seed}: each impression counts once");
        for ((number, _), count) in of(profile) {
            assert!(*count <= PROFILE_LIMIT, "seed {seed}: customer {number} was shown {count}");
        }
    }
    // What is left is still sold, to the last unit.
    tokio::time::sleep(Duration::from_secs(1_000)).await;
    for number in 0..2_000 {
        let decided = decide(&handle, 100 + number).await.unwrap();
        let Some(first) = decided.decision.propositions.first().filter(|first| first.offer == global) else {
            if spent(&handle, global).await.0 == GLOBAL_LIMIT {
                break;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
            continue;
        };
        let key = (1 << 100) + number as u128;
        impression(&handle, 100 + number, first.offer, Some((decided.id, decided.at)), key).await.unwrap();
    }
    assert_eq!(spent(&handle, global).await, (GLOBAL_LIMIT, 0), "seed {seed}: the last unit is sold");
    handle.shutdown().await;
    Arc::into_inner(seen).unwrap().into_inner().unwrap()
}

#[tokio::test(start_paused = true)]
async fn no_cap_is_exceeded_and_a_key_counts_once_whatever_the_log_does() {
    let (mut proposals, mut unknown) = (0, 0);
    for seed in 1..=12 {
        let seen = run(seed).await;
        proposals += seen.proposals;
        unknown += seen.unknown;
    }
    assert!(proposals > 200 && unknown > 0, "the runs met what they are for: {proposals} proposals, {unknown} unknown");
}
