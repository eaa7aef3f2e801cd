//! Soft global caps: counted where outcomes happen, known everywhere soon after, never a reason to starve.

use std::sync::Arc;
use std::time::Duration;

use proffer_engine::catalog::Op;
use proffer_engine::keys::OfferKey;
use proffer_engine::value::Value;
use tokio::time::Instant;

use super::world::*;
use crate::calls::{AccountReport, Responded};
use crate::config::Config;
use crate::handle::Handle;
use crate::ports::memory_disk::MemoryDisk;
use crate::start::start;

const SHARDS: u16 = 16;

async fn node(name: &str) -> Handle {
    let (ports, _) = ports(Arc::new(MemoryDisk::new()), 7);
    let handle = start(Config::founding(name, SHARDS), ports).await.unwrap();
    change(&handle, command(Op::CreateTenant)).await;
    handle
}

fn cap(limit: u64, enforcement: &str) -> Value {
    object([
        ("scope", Value::text("global")),
        ("limit", Value::Number(limit as f64)),
        ("enforcement", Value::text(enforcement)),
    ])
}

/// A customer of each shard.
fn one_a_shard(handle: &Handle) -> Vec<usize> {
    let shard = |number: &usize| handle.shard_number(&tenant(), &customer(*number));
    (0..SHARDS).map(|wanted| (0..).find(|number| shard(number).0 == wanted).expect("every shard has some")).collect()
}

/// Shows the offer to a customer: `None` if it is not proposed.
async fn show(handle: &Handle, number: usize, one: OfferKey, key: u128) -> Option<Responded> {
    let decided = decide(handle, number).await.unwrap();
    let proposed = !decided.decision.propositions.is_empty();
    if !proposed {
        return None;
    }
    Some(impression(handle, number, one, Some((decided.id, decided.at)), key).await.unwrap())
}

async fn account(handle: &Handle, one: OfferKey) -> AccountReport {
    let report = handle.budget(&tenant(), one, false, soon()).await.unwrap();
    let [account] = &report.accounts[..] else { panic!("{report:?}") };
    let held: u64 = account.shards.iter().map(|shard| shard.free + shard.reserved + shard.spent).sum();
    assert_eq!(
        i128::from(account.pool) + i128::from(account.in_flight + held),
        i128::from(account.limit),
        "{report:?}"
    );
    account.clone()
}

fn spent(account: &AccountReport) -> u64 {
    account.shards.iter().map(|shard| shard.spent).sum()
}

async fn round() {
    tokio::time::sleep(Duration::from_millis(2_500)).await;
}

#[tokio::test(start_paused = true)]
async fn a_soft_cap_delivers_in_every_shard_until_the_limit_is_known_to_be_used_up() {
    let handle = node("soft").await;
    change(&handle, offer("one", 50, vec![cap(3, "soft")])).await;
    let one = key_of(&handle, "one");
    let customers = one_a_shard(&handle);
    for number in &customers {
        assert_eq!(decide(&handle, *number).await.unwrap().decision.propositions.len(), 1, "nothing is used");
    }
    for (index, number) in customers[..3].iter().enumerate() {
        let seen = show(&handle, *number, one, index as u128 + 1).await.expect("something is left");
        assert!(seen.recorded && !seen.over_cap, "{seen:?}");
        round().await;
    }
    let account = account(&handle, one).await;
    assert_eq!((spent(&account), account.pool, account.in_flight), (3, 0, 0));
    for number in &customers {
        let decided = decide(&handle, *number).await.unwrap();
        assert!(decided.decision.propositions.is_empty() && decided.decision.remarks.budget_limited);
    }
    // What happens all the same is stored past the cap.
    let seen = impression(&handle, customers[9], one, None, 99).await.unwrap();
    assert!(seen.recorded && seen.over_cap, "{seen:?}");
    handle.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_shards_count_before_they_hear_of_each_other_is_counted_past_the_limit() {
    let handle = node("overshoot").await;
    change(&handle, offer("one", 50, vec![cap(3, "soft")])).await;
    let one = key_of(&handle, "one");
    let customers = one_a_shard(&handle);
    let mut decided = Vec::new();
    for number in &customers {
        decided.push(decide(&handle, *number).await.unwrap());
    }
    let told = customers
        .iter()
        .zip(&decided)
        .map(|(number, decided)| impression(&handle, *number, one, Some((decided.id, decided.at)), *number as u128));
    let mut counted = 0;
    for seen in futures_of(told).await {
        counted += u64::from(!seen.over_cap);
    }
    round().await;
    let account = account(&handle, one).await;
    assert!(counted >= 3);
    assert_eq!(spent(&account), counted, "every one that was not past the cap");
    assert_eq!(account.pool, 3 - i64::try_from(counted).unwrap());
    handle.shutdown().await;
}

/// All of them under way at once.
async fn futures_of(
    calls: impl Iterator<Item = impl Future<Output = Result<Responded, crate::error::Error>>>,
) -> Vec<Responded> {
    let mut calls: Vec<_> = calls.map(|call| (Box::pin(call), None)).collect();
    std::future::poll_fn(|context| {
        for (call, seen) in calls.iter_mut().filter(|(_, seen)| seen.is_none()) {
            if let std::task::Poll::Ready(result) = call.as_mut().poll(context) {
                *seen = Some(result.unwrap());
            }
        }
        if calls.iter().all(|(_, seen)| seen.is_some()) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    calls.into_iter().filter_map(|(_, seen)| seen).collect()
}

#[tokio::test(start_paused = true)]
async fn raised_a_soft_cap_delivers_again_and_made_strict_it_sells_only_what_is_left() {
    let handle = node("hardened").await;
    change(&handle, offer("one", 50, vec![cap(1, "soft")])).await;
    let one = key_of(&handle, "one");
    let customers = one_a_shard(&handle);
    show(&handle, customers[0], one, 1).await.unwrap();
    round().await;
    assert_eq!(show(&handle, customers[5], one, 2).await, None);
    change(&handle, update("one", object([("caps", Value::list([cap(4, "soft")]))]))).await;
    assert!(!show(&handle, customers[5], one, 3).await.expect("three are left").over_cap);
    change(&handle, update("one", object([("caps", Value::list([cap(4, "strict")]))]))).await;
    let until = Instant::now() + Duration::from_secs(60);
    let (mut sold, mut key) = (0, 10);
    while Instant::now() < until {
        key += 1;
        sold += u64::from(show(&handle, customers[7], one, key).await.is_some_and(|seen| !seen.over_cap));
        round().await;
    }
    assert_eq!(sold, 2, "the count went on, and not one too many");
    assert_eq!(spent(&account(&handle, one).await), 4);
    // And back: the count still goes on.
    change(&handle, update("one", object([("caps", Value::list([cap(5, "soft")]))]))).await;
    assert!(show(&handle, customers[11], one, 1_000).await.is_some());
    round().await;
    assert_eq!(show(&handle, customers[12], one, 1_001).await, None);
    handle.shutdown().await;
}
