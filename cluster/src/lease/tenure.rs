//! A node's lease, kept renewed for as long as the node runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proffer_engine::keys::Revision;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::{ClusterClock, Grantor, Lease, Renew, Report};
use crate::error::Error;
use crate::limits::{LEASE_ANSWER_MS, LEASE_ASK_AGAIN_MS, LEASE_RENEW_MS, LEASE_WAIT_MS, RETRY_AFTER_BUSY_MS};
use crate::ports::clock::Clock;
use crate::view::Views;

/// See the module.
pub(crate) struct Tenure {
    lease: Lease,
    views: Arc<Views>,
    own: Arc<dyn Clock>,
    clock: Arc<ClusterClock>,
    /// The newest revision that a grant named.
    named: AtomicU64,
    /// Somebody waits for a lease.
    wanted: Notify,
}

impl Tenure {
    /// No lease yet, for a node that decides under `views` and has this clock.
    pub(crate) fn new(own: Arc<dyn Clock>, views: Arc<Views>) -> Self {
        Tenure {
            lease: Lease::new(Arc::clone(&own)),
            views,
            clock: Arc::new(ClusterClock::new(Arc::clone(&own))),
            own,
            named: AtomicU64::new(0),
            wanted: Notify::new(),
        }
    }

    /// Cluster time.
    pub(crate) fn clock(&self) -> &Arc<ClusterClock> {
        &self.clock
    }

    /// Whether the node may decide, and authenticate, under what is in force there.
    pub(crate) fn is_held(&self) -> bool {
        self.lease.is_held(self.views.load_revision())
    }

    /// For how long there has been no lease, if there is none.
    pub(crate) fn lost_for(&self) -> Option<Duration> {
        self.lease.lost_for()
    }

    /// The newest fence and the newest revision that grants named, and what is in force here.
    pub(crate) fn named(&self) -> (Revision, Revision, Revision) {
        (self.lease.fence(), Revision(self.named.load(Ordering::Relaxed)), self.views.load_revision())
    }

    /// Returns at once if the lease is held; else asks for one, and waits a little.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if there is none in time.
    pub(crate) async fn held(&self, deadline: Instant) -> Result<(), Error> {
        if self.is_held() {
            return Ok(());
        }
        let until = deadline.min(Instant::now() + Duration::from_millis(LEASE_WAIT_MS));
        while !self.is_held() {
            if Instant::now() >= until {
                return Err(self.refusal());
            }
            // If there is one, and it is the catalogue that is behind, asking for another does not help.
            if self.lost_for().is_some() {
                self.wanted.notify_one();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// What is said to whoever asks without a lease.
    pub(crate) fn refusal(&self) -> Error {
        let reason = match self.lost_for() {
            Some(lost) => format!("no catalogue lease for {} ms", lost.as_millis()),
            None => "no catalogue lease: the catalogue here is not new enough".to_owned(),
        };
        Error::Unavailable { reason, retry_after_ms: RETRY_AFTER_BUSY_MS }
    }

    /// Renews the lease, and says at once what comes into force. Runs for ever: stop it by dropping it.
    pub(crate) async fn keep(&self, node: u64, boots: u64, grantor: Arc<dyn Grantor>) {
        tokio::join!(self.renew(node, boots, &*grantor), self.tell(node, boots, &*grantor));
    }

    async fn renew(&self, node: u64, boots: u64, grantor: &dyn Grantor) {
        loop {
            let begun = Instant::now();
            let is_granted = self.renew_once(node, boots, grantor).await;
            let pause = |ms| begun + Duration::from_millis(ms);
            // However many want it, one asks no sooner than after this.
            tokio::time::sleep_until(pause(if is_granted { 1 } else { LEASE_ASK_AGAIN_MS })).await;
            if is_granted {
                let next = tokio::time::sleep_until(pause(LEASE_RENEW_MS));
                tokio::select! {
                    biased;
                    () = self.wanted.notified() => {}
                    () = next => {}
                }
            }
        }
    }

    async fn renew_once(&self, node: u64, boots: u64, grantor: &dyn Grantor) -> bool {
        let asked_at = self.lease.before_asking();
        let report = Report { node, boots, in_force: self.views.load_revision() };
        let renew = Renew { report, wall: self.own.wall() };
        let answer = timeout(Duration::from_millis(LEASE_ANSWER_MS), grantor.renew(renew)).await;
        let Ok(Some(grant)) = answer else { return false };
        self.lease.granted(asked_at, grant);
        self.clock.granted(asked_at, grant);
        self.views.expect(grant.revision);
        self.named.fetch_max(grant.revision.0, Ordering::Relaxed);
        true
    }

    async fn tell(&self, node: u64, boots: u64, grantor: &dyn Grantor) {
        let mut newest = self.views.watch();
        while newest.changed().await.is_ok() {
            let in_force = *newest.borrow_and_update();
            grantor.report(Report { node, boots, in_force });
        }
    }
}
