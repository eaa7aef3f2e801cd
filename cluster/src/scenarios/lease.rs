//! A node and its catalogue lease: it decides and authenticates under one, and an exclusion waits for those who might not know it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use proffer_engine::catalog::{Op, Role};
use proffer_engine::keys::Revision;
use proffer_engine::time::Timestamp;
use proffer_engine::value::Value;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::world::*;
use crate::calls::Call;
use crate::config::Config;
use crate::error::{Error, Outcome};
use crate::handle::Handle;
use crate::lease::{Grant, Renew, Report};
use crate::limits::LEASE_MS;
use crate::meta::ask::{Enrolled, LeaseAsk, MetaAsk};
use crate::meta::roster::NodeInfo;
use crate::ports::memory_disk::MemoryDisk;
use crate::start::start;

async fn node(name: &str) -> (Handle, Arc<OddClock>) {
    let (mut ports, _) = ports(Arc::new(MemoryDisk::new()), 7);
    let clock = Arc::new(OddClock::new());
    ports.clock = Arc::clone(&clock) as _;
    let handle = start(Config::founding(name, 2), ports).await.unwrap();
    change(&handle, command(Op::CreateTenant)).await;
    change(&handle, offer("one", 50, vec![])).await;
    (handle, clock)
}

fn exclusion(excluded: bool) -> proffer_engine::catalog::Command {
    update("one", object([("emergencyExcluded", Value::Bool(excluded))]))
}

fn is_unleased<T: std::fmt::Debug>(answer: &Result<T, Error>) -> bool {
    matches!(answer, Err(Error::Unavailable { reason, .. }) if reason.contains("no catalogue lease"))
}

/// Another node of the cluster, in the test's hands: it joins, and says only what it is told to.
struct Other {
    handle: Handle,
    node: u64,
}

impl Other {
    async fn join(handle: &Handle) -> Other {
        let (reply, answer) = oneshot::channel();
        let info = NodeInfo {
            disk: 99,
            boots: 1,
            peer_address: "other:7170".to_owned(),
            http_address: "other:7070".to_owned(),
            zone: String::new(),
        };
        handle.inner.meta.send(MetaAsk::Enroll { info, reply }).unwrap();
        let Enrolled { node, .. } = answer.await.unwrap().unwrap().unwrap();
        Other { handle: handle.clone(), node }
    }

    fn saw(&self, in_force: Revision) -> Report {
        Report { node: self.node, boots: 1, in_force }
    }

    async fn renew(&self, in_force: Revision) -> Option<Grant> {
        let (reply, answer) = oneshot::channel();
        let renew = Renew { report: self.saw(in_force), wall: Timestamp(NOON) };
        self.handle.inner.meta.ask_lease(LeaseAsk::Renew { renew, reply });
        answer.await.ok()
    }

    fn report(&self, in_force: Revision) {
        self.handle.inner.meta.ask_lease(LeaseAsk::Report(self.saw(in_force)));
    }
}

#[tokio::test(start_paused = true)]
async fn one_node_alone_waits_for_nobody() {
    let (handle, _) = node("lease-alone").await;
    let begun = Instant::now();
    change(&handle, exclusion(true)).await;
    change(&handle, exclusion(false)).await;
    handle.wait_everywhere(handle.revision(), soon()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(20), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn without_a_lease_nothing_is_decided_and_nobody_let_in() {
    let (handle, _) = node("lease-lost").await;
    let op = Op::PutApiKey { id: "key".to_owned(), hash: [3; 32], roles: vec![Role::Channel], name: "key".to_owned() };
    change(&handle, command(op)).await;
    assert!(handle.verify_api_key(&[3; 32]).unwrap().is_some());
    // Whoever grants leases is gone.
    handle.inner.meta.close();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(decide(&handle, 1).await.unwrap().decision.propositions.len(), 1, "the last one holds still");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let call = Call { dry_run: true, ..Call::until(soon()) };
    let one = key_of(&handle, "one");
    assert!(is_unleased(&decide(&handle, 2).await));
    assert!(is_unleased(&handle.decide(request(customer(3)), call).await));
    assert!(is_unleased(&impression(&handle, 1, one, None, 1).await));
    assert!(is_unleased(&handle.verify_api_key(&[3; 32])));
    let status = handle.status();
    assert!(!status.ready && status.reasons.iter().any(|reason| reason.contains("no catalogue lease")), "{status:?}");
    assert!(handle.inner.tenure.lost_for().is_some_and(|lost| lost < Duration::from_secs(2)));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_stopped_asks_before_it_goes_on() {
    let (handle, clock) = node("lease-stopped").await;
    clock.stopped_ms.store(3_600_000, Ordering::SeqCst);
    assert!(is_unleased(&handle.verify_api_key(&[3; 32])));
    let begun = Instant::now();
    assert_eq!(decide(&handle, 1).await.unwrap().decision.propositions.len(), 1);
    assert!(begun.elapsed() < Duration::from_millis(20), "it does not wait for the next round");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_made_under_a_lease_does_not_go_without_one() {
    let (handle, clock) = node("lease-answer").await;
    let deciding = handle.decide(request(customer(1)), Call::until(soon()));
    let mut deciding = Box::pin(deciding);
    assert!(futures_util::poll!(&mut deciding).is_pending(), "it is on its way to the shard");
    handle.inner.meta.close();
    clock.stopped_ms.store(u64::from(LEASE_MS), Ordering::SeqCst);
    let error = deciding.await.unwrap_err();
    assert_eq!((error.outcome(), error.retryable()), (Outcome::Unknown, true), "what it took is taken");
}

#[tokio::test(start_paused = true)]
async fn an_exclusion_is_answered_when_every_node_reports_it_or_has_no_lease_without_it() {
    let (handle, _) = node("lease-others").await;
    let other = Other::join(&handle).await;
    // The new leader's wait is over.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let granted = other.renew(handle.revision()).await.unwrap();
    assert_eq!((granted.fence, granted.revision, granted.lease_ms), (Revision(0), handle.revision(), LEASE_MS));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun = Instant::now();
    let first = change(&handle, exclusion(true)).await;
    assert_eq!(begun.elapsed().as_millis() / 10, 200, "2,100 ms after the grant that did not name it");
    let granted = other.renew(Revision(0)).await.unwrap();
    assert_eq!(granted.fence, first.revision, "it is named now");
    let begun = Instant::now();
    change(&handle, exclusion(false)).await;
    assert!(begun.elapsed() < Duration::from_millis(20), "what lets an offer in again waits for nobody");
    let excluding = tokio::spawn({
        let handle = handle.clone();
        async move { change(&handle, exclusion(true)).await }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!excluding.is_finished());
    other.report(handle.revision());
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(excluding.is_finished(), "it has reported it");
}

#[tokio::test(start_paused = true)]
async fn a_revoked_key_lets_nobody_in_anywhere_once_that_is_answered() {
    let (handle, _) = node("lease-keys").await;
    let op = Op::PutApiKey { id: "key".to_owned(), hash: [3; 32], roles: vec![Role::Channel], name: "key".to_owned() };
    change(&handle, command(op)).await;
    let other = Other::join(&handle).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    other.renew(handle.revision()).await.unwrap();
    let begun = Instant::now();
    change(&handle, command(Op::RevokeApiKey { id: "key".to_owned() })).await;
    assert!(begun.elapsed() >= Duration::from_millis(2_100));
    assert_eq!(handle.verify_api_key(&[3; 32]), Ok(None));
}

#[tokio::test(start_paused = true)]
async fn a_revision_is_everywhere_when_all_that_hold_a_lease_have_it() {
    let (handle, _) = node("lease-everywhere").await;
    let other = Other::join(&handle).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let revision = handle.revision();
    handle.wait_everywhere(revision, soon()).await.unwrap();
    other.renew(Revision(1)).await.unwrap();
    let late = handle.wait_everywhere(revision, Instant::now() + Duration::from_millis(500)).await;
    assert!(matches!(&late, Err(Error::Unavailable { reason, .. }) if reason.contains("every node")), "{late:?}");
    other.report(revision);
    handle.wait_everywhere(revision, soon()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_not_let_in_is_granted_nothing() {
    let (handle, _) = node("lease-stranger").await;
    let stranger = Other { handle: handle.clone(), node: 77 };
    assert_eq!(stranger.renew(Revision(9)).await, None);
}
