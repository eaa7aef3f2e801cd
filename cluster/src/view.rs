//! What deciding threads see of the catalogue: one immutable view per tenant, swapped whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use proffer_engine::catalog::TenantCatalog;
use proffer_engine::keys::{Revision, TenantId};
use proffer_engine::snapshot::Snapshot;
use tokio::sync::watch;

use crate::calls::Identity;

/// One tenant's catalogue and its compiled snapshot, both of the same revision.
#[derive(Debug)]
pub struct TenantView {
    /// Whose.
    pub tenant: TenantId,
    /// The tenant's number, never reused: accounts and ids carry it.
    pub number: u32,
    /// Revision of both.
    pub revision: Revision,
    /// What was authored.
    pub catalog: Arc<TenantCatalog>,
    /// The same, compiled for deciding.
    pub snapshot: Arc<Snapshot>,
}

/// Everything in force, of all tenants.
#[derive(Debug, Default)]
pub(crate) struct InForce {
    /// The meta group's last applied revision that is wholly in force.
    pub(crate) revision: Revision,
    pub(crate) tenants: BTreeMap<TenantId, Arc<TenantView>>,
    pub(crate) keys: BTreeMap<[u8; 32], Arc<Identity>>,
    /// Tenants whose catalogue of this revision cannot be compiled: an older one, or none, decides.
    pub(crate) broken: BTreeMap<TenantId, Revision>,
}

/// The views of a node: loaded by every request, swapped by the meta group's compiler.
#[derive(Debug)]
pub(crate) struct Views {
    in_force: ArcSwap<InForce>,
    /// The revision that was committed when this node last began to lead the catalogue.
    expected: watch::Sender<Option<Revision>>,
    // Waiters for a revision need a wake-up, which an atomic pointer does not give.
    revision: watch::Sender<Revision>,
}

impl Views {
    pub(crate) fn new() -> Self {
        Views {
            in_force: ArcSwap::from_pointee(InForce::default()),
            expected: watch::Sender::new(None),
            revision: watch::Sender::new(Revision(0)),
        }
    }

    /// The tenant's view, if there is such a tenant.
    pub(crate) fn tenant(&self, tenant: &TenantId) -> Option<Arc<TenantView>> {
        self.in_force.load().tenants.get(tenant).cloned()
    }

    /// The tenants in force.
    pub(crate) fn tenants(&self) -> Vec<TenantId> {
        self.in_force.load().tenants.keys().cloned().collect()
    }

    /// Who holds the key with this SHA-256.
    pub(crate) fn identity(&self, hash: &[u8; 32]) -> Option<Arc<Identity>> {
        self.in_force.load().keys.get(hash).cloned()
    }

    /// The newest revision that is wholly in force.
    pub(crate) fn revision(&self) -> Revision {
        *self.revision.borrow()
    }

    /// The catalogue is known up to this revision.
    pub(crate) fn expect(&self, revision: Revision) {
        self.expected.send_replace(Some(revision));
    }

    /// Returns once everything that was committed when it became known is in force.
    pub(crate) async fn settled(&self) {
        let mut expected = self.expected.subscribe();
        // The senders live as long as `self`.
        let revision = expected.wait_for(Option::is_some).await.map_or(Revision(0), |known| known.unwrap_or_default());
        let _ = self.watch().wait_for(|newest| *newest >= revision).await;
    }

    /// Tells of each newer revision in force.
    pub(crate) fn watch(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    /// Puts `next` in force. Only one task calls it, with revisions that never fall.
    pub(crate) fn swap(&self, next: InForce) {
        let revision = next.revision;
        self.in_force.store(Arc::new(next));
        self.revision.send_replace(revision);
    }

    pub(crate) fn load(&self) -> Arc<InForce> {
        self.in_force.load_full()
    }
}
