//! Compiling what changed, off the deciding threads.

use std::collections::BTreeMap;
use std::sync::Arc;

use proffer_engine::catalog::{TenantCatalog, Touched};
use proffer_engine::keys::{Revision, TenantId};
use proffer_engine::snapshot::Snapshot;

use crate::calls::Identity;
use crate::meta::state::MetaState;
use crate::view::{InForce, TenantView};

/// One compile: everything it needs, so that it can run anywhere.
pub(crate) struct Compile {
    revision: Revision,
    tenants: Vec<Stale>,
}

struct Stale {
    tenant: TenantId,
    number: u32,
    catalog: Arc<TenantCatalog>,
    touched: Vec<Touched>,
    before: Option<Arc<Snapshot>>,
}

/// What a compile made.
pub(crate) struct Compiled {
    revision: Revision,
    views: Vec<TenantView>,
}

impl Compile {
    /// What `stale` asks for. O(size of the tenants' tables): bodies are shared, not copied.
    pub(crate) fn new(state: &MetaState, before: &InForce, stale: BTreeMap<TenantId, Vec<Touched>>) -> Self {
        let tenants = stale.into_iter().filter_map(|(tenant, touched)| {
            let catalog = Arc::new(state.catalog().tenant(&tenant)?.clone());
            let number = state.number(&tenant)?;
            let before = before.tenants.get(&tenant).map(|view| Arc::clone(&view.snapshot));
            Some(Stale { tenant, number, catalog, touched, before })
        });
        Compile { revision: state.revision(), tenants: tenants.collect() }
    }

    /// Compiles. O(what changed), or O(catalogue) where a rebuild is due.
    pub(crate) fn run(self) -> Compiled {
        let views = self.tenants.into_iter().map(|stale| {
            let Stale { tenant, number, catalog, touched, before } = stale;
            let revision = catalog.revision();
            let whole = touched.contains(&Touched::Everything);
            let snapshot = match before {
                Some(before) if !whole && !before.wants_rebuild() => before.update(&catalog, &touched, revision),
                Some(_) | None => Snapshot::compile(&tenant, &catalog, revision),
            };
            TenantView { tenant, number, revision, catalog, snapshot: Arc::new(snapshot) }
        });
        Compiled { revision: self.revision, views: views.collect() }
    }
}

impl Compiled {
    /// The views in force once these are.
    pub(crate) fn into_in_force(self, before: &InForce) -> InForce {
        let mut tenants = before.tenants.clone();
        for view in self.views {
            tenants.insert(view.tenant.clone(), Arc::new(view));
        }
        let mut keys = BTreeMap::new();
        for view in tenants.values() {
            for key in view.catalog.api_keys() {
                let (tenant, id, name, roles) =
                    (view.tenant.clone(), key.id.clone(), key.name.clone(), key.roles.clone());
                keys.insert(key.hash, Arc::new(Identity { tenant, id, name, roles }));
            }
        }
        InForce { revision: self.revision, tenants, keys }
    }
}
