//! What deciding threads see of the catalogue: one immutable view per tenant, swapped whole.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use proffer_engine::catalog::TenantCatalog;
use proffer_engine::keys::{Revision, TenantId};
use proffer_engine::snapshot::Snapshot;
use tokio::sync::watch;

use crate::calls::Identity;
use crate::limits::CATALOGUES_KEPT;

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

/// One tenant's catalogue as it is, or was before.
#[derive(Clone, Debug)]
pub enum CatalogueAt {
    /// In force.
    Now(Arc<TenantView>),
    /// No longer, and not compiled.
    Past(Arc<Past>),
}

/// A catalogue that was in force.
#[derive(Debug)]
pub struct Past {
    tenant: TenantId,
    revision: Revision,
    catalog: Arc<TenantCatalog>,
}

impl CatalogueAt {
    /// What was authored.
    pub fn catalog(&self) -> &Arc<TenantCatalog> {
        match self {
            CatalogueAt::Now(view) => &view.catalog,
            CatalogueAt::Past(past) => &past.catalog,
        }
    }

    /// The same, compiled for deciding. O(catalogue) for one that is past.
    pub fn compiled(&self) -> Arc<Snapshot> {
        match self {
            CatalogueAt::Now(view) => Arc::clone(&view.snapshot),
            CatalogueAt::Past(past) => Arc::new(Snapshot::compile(&past.tenant, &past.catalog, past.revision)),
        }
    }
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
    /// The revision that was committed when this node was first granted a lease.
    expected: watch::Sender<Option<Revision>>,
    // Waiters for a revision need a wake-up, which an atomic pointer does not give.
    revision: watch::Sender<Revision>,
    /// Catalogues that were in force before, of each tenant, oldest first: decisions are replayed under them.
    past: Mutex<BTreeMap<TenantId, VecDeque<Arc<Past>>>>,
}

impl Views {
    pub(crate) fn new() -> Self {
        Views {
            in_force: ArcSwap::from_pointee(InForce::default()),
            expected: watch::Sender::new(None),
            revision: watch::Sender::new(Revision(0)),
            past: Mutex::default(),
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

    /// The same, for who looks often.
    pub(crate) fn load_revision(&self) -> Revision {
        self.in_force.load().revision
    }

    /// The catalogue goes at least up to this revision. Only what is said first counts: from then on it is kept up with.
    pub(crate) fn expect(&self, revision: Revision) {
        self.expected.send_if_modified(|expected| {
            let is_first = expected.is_none();
            expected.get_or_insert(revision);
            is_first
        });
    }

    /// Returns once it is known how far the catalogue goes.
    pub(crate) async fn known(&self) -> Revision {
        let mut expected = self.expected.subscribe();
        // The sender lives as long as `self`.
        expected.wait_for(Option::is_some).await.map_or(Revision(0), |known| known.unwrap_or_default())
    }

    /// Returns once everything that was committed when it became known is in force.
    pub(crate) async fn settled(&self) {
        let revision = self.known().await;
        let _ = self.watch().wait_for(|newest| *newest >= revision).await;
    }

    /// Whether a state of this revision is worth compiling: it is not one of the old ones that a start is fed, and not older than what
    /// is in force.
    pub(crate) fn wants(&self, revision: Revision) -> bool {
        self.expected.borrow().is_some_and(|expected| revision >= expected) && revision >= self.revision()
    }

    /// Tells of each newer revision in force.
    pub(crate) fn watch(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    /// Puts `next` in force. Only one task calls it, with revisions that never fall.
    pub(crate) fn swap(&self, next: InForce) {
        let revision = next.revision;
        self.remember(&next);
        self.in_force.store(Arc::new(next));
        self.revision.send_replace(revision);
    }

    /// Keeps what `next` takes the place of.
    fn remember(&self, next: &InForce) {
        let before = self.in_force.load();
        let mut past = self.past.lock().expect("no holder panics");
        past.retain(|tenant, _| next.tenants.contains_key(tenant));
        for (tenant, view) in &before.tenants {
            let stays = next.tenants.get(tenant).is_none_or(|next| next.revision == view.revision);
            if stays {
                continue;
            }
            let kept = past.entry(tenant.clone()).or_default();
            let (tenant, catalog) = (tenant.clone(), Arc::clone(&view.catalog));
            kept.push_back(Arc::new(Past { tenant, revision: view.revision, catalog }));
            if kept.len() > CATALOGUES_KEPT {
                kept.pop_front();
            }
        }
    }

    /// A tenant's catalogue of this revision, if it is in force or kept.
    pub(crate) fn at(&self, tenant: &TenantId, revision: Revision) -> Option<CatalogueAt> {
        if let Some(view) = self.tenant(tenant).filter(|view| view.revision == revision) {
            return Some(CatalogueAt::Now(view));
        }
        let past = self.past.lock().expect("no holder panics");
        let found = past.get(tenant)?.iter().find(|past| past.revision == revision);
        found.cloned().map(CatalogueAt::Past)
    }

    pub(crate) fn load(&self) -> Arc<InForce> {
        self.in_force.load_full()
    }
}
