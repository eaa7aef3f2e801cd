//! One node on a disk: deciding, recording, changing, restarting.

use std::cell::Cell;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::join_all;
use proffer_engine::catalog::{EntityKind, Op};
use proffer_engine::decide::request::Explain;
use proffer_engine::keys::ShardId;
use proffer_engine::profile::shard::ShardState;
use proffer_engine::value::Value;
use tokio::time::Instant;

use super::world::*;
use crate::calls::{Call, CallKey, Forwarded, Operation, ProfileWrite};
use crate::config::Config;
use crate::error::Error;
use crate::group::Group;
use crate::handle::Handle;
use crate::meta::state::MetaState;
use crate::ports::memory_disk::MemoryDisk;
use crate::ports::propose::Pending;
use crate::start::start;

async fn node(disk: &Arc<MemoryDisk>, shards: u16, name: &str) -> Handle {
    let (ports, _) = ports(Arc::clone(disk) as _, 7);
    start(Config::founding(name, shards), ports).await.unwrap()
}

async fn with_tenant(name: &str, shards: u16) -> (Arc<MemoryDisk>, Handle) {
    let disk = Arc::new(MemoryDisk::new());
    let handle = node(&disk, shards, name).await;
    change(&handle, command(Op::CreateTenant)).await;
    (disk, handle)
}

#[tokio::test(start_paused = true)]
async fn a_change_decides_once_it_is_acknowledged_and_an_exclusion_is_final() {
    let (_, handle) = with_tenant("exclusion", 4).await;
    let changed = change(&handle, offer("one", 50, vec![])).await;
    assert!(handle.revision() >= changed.revision);
    let decided = decide(&handle, 1).await.unwrap();
    assert_eq!(decided.decision.propositions.len(), 1);
    assert_eq!(decided.decision.propositions[0].offer, key_of(&handle, "one"));
    change(&handle, update("one", object([("emergencyExcluded", Value::Bool(true))]))).await;
    for number in 0..50 {
        assert!(decide(&handle, number).await.unwrap().decision.propositions.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_profile_cap_holds_a_unit_until_it_is_used_or_lapses() {
    let (_, handle) = with_tenant("lapse", 2).await;
    change(&handle, offer("one", 50, vec![profile_cap(1)])).await;
    let first = decide(&handle, 1).await.unwrap();
    assert_eq!(first.decision.propositions.len(), 1);
    assert!(first.expires[0].is_some());
    assert!(decide(&handle, 1).await.unwrap().decision.propositions.is_empty(), "the unit is held");
    assert_eq!(decide(&handle, 2).await.unwrap().decision.propositions.len(), 1, "for this customer only");
    tokio::time::sleep(Duration::from_secs(901)).await;
    let again = decide(&handle, 1).await.unwrap();
    assert_eq!(again.decision.propositions.len(), 1, "it lapsed");
    let one = key_of(&handle, "one");
    let seen = impression(&handle, 1, one, Some((again.id, again.at)), 9).await.unwrap();
    assert!(seen.recorded && !seen.duplicate && !seen.over_cap, "{seen:?}");
    let repeated = impression(&handle, 1, one, Some((again.id, again.at)), 9).await.unwrap();
    assert!(repeated.duplicate, "{repeated:?}");
    tokio::time::sleep(Duration::from_secs(901)).await;
    assert!(decide(&handle, 1).await.unwrap().decision.propositions.is_empty(), "used for good");
}

#[tokio::test(start_paused = true)]
async fn what_an_override_lifts_is_answered_however_often_a_strict_policy_is_past() {
    let (_, handle) = with_tenant("override", 1).await;
    change(&handle, offer("one", 50, vec![])).await;
    let policy = |id: &str, kind: &str, config: Value| {
        let body = object([("name", Value::text(id)), ("ruleType", Value::text(kind)), ("config", config)]);
        command(Op::Create { kind: EntityKind::Policy, id: id.to_owned(), body })
    };
    let cooldown = object([("cooldownHours", Value::Number(24.0)), ("enforcement", Value::text("strict"))]);
    change(&handle, policy("cool", "cooldown", cooldown)).await;
    assert_eq!(decide(&handle, 1).await.unwrap().decision.propositions.len(), 1);
    assert_eq!(decide(&handle, 1).await.unwrap().decision.propositions.len(), 0, "held");
    change(&handle, policy("let", "allow_override", object([]))).await;
    for _ in 0..3 {
        let decided = decide(&handle, 1).await.unwrap();
        assert_eq!((decided.decision.propositions.len(), decided.degraded), (1, None));
    }
}

#[tokio::test(start_paused = true)]
async fn a_keyed_decision_is_answered_again_and_takes_once() {
    let (_, handle) = with_tenant("keyed", 2).await;
    change(&handle, offer("one", 50, vec![global_cap(10)])).await;
    let first = handle.decide(request(customer(1)), keyed(5)).await.unwrap();
    assert_eq!(first.decision.propositions.len(), 1);
    let again = handle.decide(request(customer(1)), keyed(5)).await.unwrap();
    assert!(again.duplicate && !first.duplicate);
    assert_eq!((again.id, again.at), (first.id, first.at));
    assert_eq!(again.decision.propositions[0].offer, first.decision.propositions[0].offer);
    let other = Call { idempotency: Some(CallKey { key: 5, body: 2 }), ..Call::until(soon()) };
    assert_eq!(handle.decide(request(customer(1)), other).await.unwrap_err(), Error::KeyReused);
    let report = handle.budget(&tenant(), key_of(&handle, "one"), false, soon()).await.unwrap();
    let held: u64 = report.accounts[0].shards.iter().map(|shard| shard.reserved).sum();
    assert_eq!(held, 1, "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn the_last_unit_of_a_global_cap_is_sold_once_whoever_asks() {
    for limit in [1, 3, 100] {
        let (_, handle) = with_tenant(&format!("last-{limit}"), 16).await;
        change(&handle, offer("one", 50, vec![global_cap(limit)])).await;
        let mut sold = 0;
        for round in 0..20 {
            let mut clients = Vec::new();
            for number in 0..64 {
                let handle = handle.clone();
                clients.push(tokio::spawn(async move { decide(&handle, round * 64 + number).await }));
            }
            for client in clients {
                sold += client.await.unwrap().unwrap().decision.propositions.len() as u64;
            }
            tokio::time::sleep(Duration::from_millis(1_100)).await;
        }
        let report = handle.budget(&tenant(), key_of(&handle, "one"), false, soon()).await.unwrap();
        assert_eq!(sold, limit, "all of it, and no more: {report:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn units_that_lapse_in_one_shard_are_sold_in_another() {
    let (_, handle) = with_tenant("return", 8).await;
    change(&handle, offer("one", 50, vec![global_cap(1)])).await;
    assert_eq!(decide(&handle, 1).await.unwrap().decision.propositions.len(), 1);
    let other = (2..).find(|number| {
        let shard = |number| handle.shard_number(&tenant(), &customer(number));
        shard(*number) != shard(1)
    });
    let other = other.unwrap();
    assert!(decide(&handle, other).await.unwrap().decision.propositions.is_empty());
    tokio::time::sleep(Duration::from_secs(905)).await;
    let mut sold = 0;
    for _ in 0..5 {
        sold += decide(&handle, other).await.unwrap().decision.propositions.len();
        tokio::time::sleep(Duration::from_millis(1_100)).await;
    }
    assert_eq!(sold, 1);
}

#[tokio::test(start_paused = true)]
async fn explaining_and_dry_runs_take_nothing_more_and_decide_the_same() {
    let (_, handle) = with_tenant("explain", 2).await;
    change(&handle, offer("one", 50, vec![profile_cap(1)])).await;
    change(&handle, offer("two", 40, vec![])).await;
    let mut asked = request(customer(1));
    asked.explain = Explain::Full { limit: 10 };
    let dry = handle.decide(asked.clone(), Call { dry_run: true, ..Call::until(soon()) }).await.unwrap();
    let real = handle.decide(asked, Call::until(soon())).await.unwrap();
    assert_eq!(dry.decision.propositions, real.decision.propositions);
    assert_eq!(real.decision.explanation.as_ref().unwrap().factors.len(), 1);
    assert_eq!(real.decision.propositions[0].offer, key_of(&handle, "one"));
    let next = decide(&handle, 1).await.unwrap();
    assert_eq!(next.decision.propositions[0].offer, key_of(&handle, "two"));
}

#[tokio::test(start_paused = true)]
async fn a_lowered_limit_binds_at_once_and_what_is_free_comes_back() {
    let (_, handle) = with_tenant("lowered", 4).await;
    change(&handle, offer("one", 50, vec![global_cap(1_000)])).await;
    assert_eq!(decide(&handle, 1).await.unwrap().decision.propositions.len(), 1);
    let changed = change(&handle, update("one", object([("caps", Value::list([global_cap(0)]))]))).await;
    assert_eq!(changed.over_by, 1, "one unit is held and cannot come back yet");
    for number in 0..40 {
        assert!(decide(&handle, number).await.unwrap().decision.propositions.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_finds_everything_acknowledged() {
    let (disk, handle) = with_tenant("before", 4).await;
    change(&handle, offer("one", 50, vec![profile_cap(1), global_cap(100)])).await;
    for number in 0..20 {
        assert_eq!(decide(&handle, number).await.unwrap().decision.propositions.len(), 1);
        let write = ProfileWrite {
            tenant: tenant(),
            customer: customer(number),
            attributes: Some(vec![("number".to_owned(), Value::Number(number as f64))]),
            segments: Some(vec!["all".to_owned()]),
        };
        handle.put_profile(write, soon()).await.unwrap();
    }
    // A crash that keeps only what was synced (what ran before must not go on writing there); then a start that was shut down in order.
    handle.inner.groups.close().await;
    disk.cut_power(|_, _| 0);
    for name in ["crashed", "ordered"] {
        let handle = node(&disk, 4, name).await;
        for number in 0..20 {
            let profile = handle.get_profile(&tenant(), &customer(number), soon()).await.unwrap().unwrap();
            assert_eq!(profile.attributes[0].1, Value::Number(number as f64));
            assert!(decide(&handle, number).await.unwrap().decision.propositions.is_empty(), "the unit is still held");
        }
        let report = handle.budget(&tenant(), key_of(&handle, "one"), false, soon()).await.unwrap();
        assert_eq!(report.accounts[0].shards.iter().map(|shard| shard.reserved).sum::<u64>(), 20);
        assert!(handle.status().ready, "{:?}", handle.status());
        handle.shutdown().await;
        assert!(!handle.status().ready);
        assert!(matches!(decide(&handle, 1).await, Err(Error::Unavailable { .. })));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_past_its_deadline_is_not_begun_and_strangers_are_told_so() {
    let (_, handle) = with_tenant("deadline", 1).await;
    let late = Call::until(Instant::now());
    let result = handle.decide(request(customer(1)), late).await;
    assert!(matches!(result, Err(Error::Expired | Error::Unknown)), "{result:?}");
    let mut foreign = request(customer(1));
    foreign.tenant = proffer_engine::keys::TenantId::new("nobody");
    assert!(matches!(handle.decide(foreign, Call::until(soon())).await, Err(Error::UnknownTenant(_))));
    let refused = handle.change(update("nothing", object([])), soon()).await;
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn bulk_profiles_are_all_applied_and_visible() {
    let (_, handle) = with_tenant("bulk", 4).await;
    let writes: Vec<_> = (0..2_000)
        .map(|number| ProfileWrite {
            tenant: tenant(),
            customer: customer(number),
            attributes: Some(vec![("number".to_owned(), Value::Number(number as f64))]),
            segments: None,
        })
        .collect();
    let deadline = Instant::now() + Duration::from_secs(60);
    assert_eq!(handle.put_profiles(&tenant(), writes, deadline).await.unwrap(), 2_000);
    for number in (0..2_000).step_by(97) {
        let profile = handle.get_profile(&tenant(), &customer(number), soon()).await.unwrap().unwrap();
        assert_eq!(profile.attributes[0].1, Value::Number(number as f64));
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_an_exclusion_overtakes_is_decided_again() {
    for (name, call) in [("overtaken", Call::until(soon())), ("overtaken-keyed", keyed(5))] {
        let (_, handle) = with_tenant(name, 2).await;
        change(&handle, offer("bad", 90, vec![profile_cap(1)])).await;
        change(&handle, offer("good", 50, vec![])).await;
        let mut deciding = Box::pin(handle.decide(request(customer(1)), call));
        // It is on its way, and nobody looks at the answer until the offer is excluded.
        let pending = std::future::poll_fn(|context| Poll::Ready(deciding.as_mut().poll(context).is_pending())).await;
        assert!(pending);
        change(&handle, update("bad", object([("emergencyExcluded", Value::Bool(true))]))).await;
        let decided = deciding.await.unwrap();
        let (bad, good) = (key_of(&handle, "bad"), key_of(&handle, "good"));
        let offers: Vec<_> = decided.decision.propositions.iter().map(|proposition| proposition.offer).collect();
        let profile = handle.get_profile(&tenant(), &customer(1), soon()).await.unwrap();
        let held = profile.and_then(|profile| profile.dealings).map_or(0, |dealings| dealings.reservations.len());
        if call.idempotency.is_some() {
            let rank = offers.iter().position(|offer| *offer == bad).map(|place| place as u16 + 1);
            assert_eq!(
                decided.excluded,
                Vec::from_iter(rank),
                "a key leads to the first answer, shown without the offer"
            );
            assert!(rank.is_some());
        } else {
            assert_eq!((offers, held), (vec![good], 0), "and what was taken is given back");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn few_units_are_found_whichever_shard_is_asked() {
    let (_, handle) = with_tenant("few", 16).await;
    change(&handle, offer("one", 50, vec![global_cap(2)])).await;
    let mut sold = 0;
    let mut asked = 0;
    while sold < 2 {
        asked += 1;
        assert!(asked < 60, "sold {sold}: {:?}", handle.budget(&tenant(), key_of(&handle, "one"), false, soon()).await);
        sold += decide(&handle, asked).await.unwrap().decision.propositions.len();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn units_that_every_shard_wants_at_once_are_all_sold() {
    const LIMIT: usize = 40;
    const CLIENTS: usize = 48;
    let (_, handle) = with_tenant("wanted", 16).await;
    change(&handle, offer("one", 50, vec![global_cap(LIMIT as u64)])).await;
    let (sold, begun) = (Cell::new(0), Instant::now());
    join_all((0..CLIENTS).map(async |client| {
        for number in (client..).step_by(CLIENTS) {
            if sold.get() == LIMIT {
                return;
            }
            let propositions = decide(&handle, number).await.unwrap().decision.propositions;
            sold.set(sold.get() + propositions.len());
            let after = begun.elapsed();
            assert!(after < Duration::from_secs(5), "{} of {LIMIT} are sold after {after:?}", sold.get());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }))
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_knows_of_itself_and_of_each_of_its_starts() {
    let (disk, handle) = with_tenant("roster", 2).await;
    let first = handle.roster();
    assert_eq!(first.node(1).unwrap().info.boots, 1);
    assert_eq!(first.replicas_of(1).count(), 3);
    let refused = handle.operate(Operation::Drain { node: 1 }, soon()).await.unwrap().unwrap_err();
    assert!(refused.contains("only one"), "{refused}");
    handle.shutdown().await;
    let handle = node(&disk, 2, "roster-again").await;
    while handle.roster().node(1).is_none_or(|record| record.info.boots < 2) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(handle.roster().replicas().collect::<Vec<_>>(), first.replicas().collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn two_callers_that_change_one_thing_at_once_are_told_different_revisions() {
    let (_, handle) = with_tenant("revisions", 1).await;
    change(&handle, offer("one", 50, vec![])).await;
    change(&handle, offer("two", 50, vec![])).await;
    let told = |words: &str| object([("description", Value::text(words))]);
    let (first, second, other) = tokio::join!(
        change(&handle, update("one", told("first"))),
        change(&handle, update("one", told("second"))),
        change(&handle, update("two", told("other"))),
    );
    assert!(first.revision < second.revision, "the first could not tell that it was written over");
    assert_eq!(first.revision, other.revision, "what does not touch it waits for nobody");
}

/// A face that asks the node that it answers for, as the one over HTTP does.
struct Face(#[expect(dead_code, reason = "it is held")] Handle);

impl Forwarded for Face {
    fn answer(&self, call: Vec<u8>, _: Duration) -> Pending<'static, Vec<u8>> {
        Box::pin(async move { call })
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_shut_down_is_held_by_nobody_though_its_face_holds_it() {
    let (_, handle) = with_tenant("freed", 2).await;
    handle.on_forwarded(Arc::new(Face(handle.clone())));
    let inner = Arc::downgrade(&handle.inner);
    handle.shutdown().await;
    drop(handle);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(inner.strong_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_replica_shows_the_state_that_it_holds_and_where_it_stands() {
    let (_, handle) = with_tenant("shown", 2).await;
    change(&handle, offer("one", 50, vec![profile_cap(1)])).await;
    decide(&handle, 1).await.unwrap();
    let examined = handle.examine(Group::Meta).await.unwrap();
    let state = MetaState::decode_chunks(examined.pieces.into_iter()).unwrap();
    assert_eq!((state.revision(), examined.leads_in_term.is_some()), (handle.revision(), true));
    let shard = handle.shard_number(&tenant(), &customer(1));
    let before = handle.examine(Group::Shard(shard)).await.unwrap();
    impression(&handle, 1, key_of(&handle, "one"), None, 7).await.unwrap();
    let after = handle.examine(Group::Shard(shard)).await.unwrap();
    assert!(after.position.index > before.position.index && after.pieces != before.pieces);
    assert_eq!(ShardState::decode_chunks(&after.pieces).unwrap().profile_count(), 1);
    assert!(handle.examine(Group::Shard(ShardId(2))).await.is_none(), "there is no such shard");
}
