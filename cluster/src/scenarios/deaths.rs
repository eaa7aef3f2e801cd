//! Actors that die: they come back with everything acknowledged, and one that keeps dying ends the node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use proffer_engine::catalog::Op;
use proffer_engine::value::Value;

use super::world::*;
use crate::calls::{Call, ProfileWrite};
use crate::config::Config;
use crate::error::Error;
use crate::handle::Handle;
use crate::limits::ACTOR_DEATHS_WITHIN_MS;
use crate::ports::entropy::{Entropy, SeededEntropy};
use crate::ports::fatal::RecordedFatal;
use crate::ports::memory_disk::MemoryDisk;
use crate::ports::offload::{InlineOffload, Lane, Offload, Running, Step};
use crate::start::start;

/// Gives what is asked for, but for so many times: who asks then panics.
struct DeadlyEntropy {
    inner: SeededEntropy,
    deaths: AtomicUsize,
}

impl Entropy for DeadlyEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        let armed = self.deaths.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        assert!(!armed, "a fault of the test's making");
        self.inner.fill(bytes);
    }
}

/// The log's jobs take their time; the others may panic.
#[derive(Default)]
struct SlowOffload {
    log_ms: AtomicUsize,
    panics: AtomicBool,
}

impl Offload for SlowOffload {
    fn run(&self, lane: Lane, steps: Vec<Step>) -> Running {
        assert!(lane == Lane::Log || !self.panics.load(Ordering::SeqCst), "a fault of the test's making");
        let ms = if lane == Lane::Log { self.log_ms.load(Ordering::SeqCst) } else { 0 };
        let job = InlineOffload.run(lane, steps);
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(ms as u64)).await;
            job.await;
        })
    }
}

struct Mortal {
    handle: Handle,
    entropy: Arc<DeadlyEntropy>,
    offload: Arc<SlowOffload>,
    fatal: Arc<RecordedFatal>,
}

impl Mortal {
    /// A node of one shard with an offer that each customer gets once.
    async fn new(name: &str) -> Self {
        let (mut ports, fatal) = ports(Arc::new(MemoryDisk::new()), 7);
        let entropy = Arc::new(DeadlyEntropy { inner: SeededEntropy::new(7), deaths: AtomicUsize::new(0) });
        let offload = Arc::new(SlowOffload::default());
        (ports.entropy, ports.offload) = (Arc::clone(&entropy) as _, Arc::clone(&offload) as _);
        let config = Config::founding(name, 1);
        let handle = start(config, ports).await.unwrap();
        change(&handle, command(Op::CreateTenant)).await;
        change(&handle, offer("one", 50, vec![profile_cap(1)])).await;
        Mortal { handle, entropy, offload, fatal }
    }

    /// The shard's actor dies of the next simulation.
    async fn die(&self) {
        self.entropy.deaths.store(1, Ordering::SeqCst);
        let dry_run = Call { dry_run: true, ..Call::until(soon()) };
        assert_eq!(self.handle.decide(request(customer(999)), dry_run).await.unwrap_err(), Error::Unknown);
        assert_eq!(self.entropy.deaths.load(Ordering::SeqCst), 0);
    }

    async fn takes(&self, number: usize) -> bool {
        !decide(&self.handle, number).await.unwrap().decision.propositions.is_empty()
    }
}

fn profile(number: usize) -> ProfileWrite {
    let attributes = Some(vec![("number".to_owned(), Value::Number(number as f64))]);
    ProfileWrite { tenant: tenant(), customer: customer(number), attributes, segments: None }
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_dies_comes_back_with_everything_acknowledged() {
    let node = Mortal::new("revived").await;
    let mut number = 0;
    for minute in 0..3 {
        // Twice a minute is tolerated for ever.
        for _ in 0..2 {
            number += 1;
            assert!(node.takes(number).await);
            node.die().await;
            let status = node.handle.status();
            assert!(!status.ready && status.reasons[0].contains("shard 0"), "{status:?}");
            assert!(matches!(decide(&node.handle, number).await, Err(Error::NotLed { .. })));
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert!(node.handle.status().ready, "{:?}", node.handle.status());
            assert!(!node.takes(number).await, "the unit is held still");
        }
        tokio::time::sleep(Duration::from_millis(ACTOR_DEATHS_WITHIN_MS)).await;
        assert_eq!(node.fatal.reasons(), [""; 0], "in minute {minute}");
    }
    // The one that was going on in vain left nothing.
    assert!(node.takes(999).await);
}

#[tokio::test(start_paused = true)]
async fn three_deaths_within_a_minute_end_the_node() {
    let node = Mortal::new("three").await;
    for deaths in 1..=3 {
        assert_eq!(node.fatal.reasons(), [""; 0], "before death {deaths}");
        node.die().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let reasons = node.fatal.reasons();
    assert_eq!(reasons.len(), 1);
    assert!(reasons[0].contains("shard-00 died 3 times"), "{reasons:?}");
}

#[tokio::test(start_paused = true)]
async fn a_recovery_that_panics_ends_the_node() {
    let node = Mortal::new("unrecoverable").await;
    node.offload.panics.store(true, Ordering::SeqCst);
    node.die().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let reasons = node.fatal.reasons();
    assert_eq!(reasons.len(), 1);
    assert!(reasons[0].contains("recovering shard-00"), "{reasons:?}");
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_was_on_its_way_when_the_actor_died_is_found() {
    let node = Mortal::new("late").await;
    node.offload.log_ms.store(400, Ordering::SeqCst);
    let writing = tokio::spawn({
        let handle = node.handle.clone();
        async move { handle.put_profile(profile(1), soon()).await }
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    // The recovery begins before that write has reached the disk.
    node.die().await;
    assert_eq!(writing.await.unwrap(), Err(Error::Unknown));
    tokio::time::sleep(Duration::from_secs(3)).await;
    node.offload.log_ms.store(0, Ordering::SeqCst);
    node.handle.put_profile(profile(2), soon()).await.unwrap();
    for number in 1..=2 {
        let found = node.handle.get_profile(&tenant(), &customer(number), soon()).await.unwrap();
        assert!(found.is_some(), "profile {number}");
    }
    assert_eq!(node.fatal.reasons(), [""; 0]);
}
