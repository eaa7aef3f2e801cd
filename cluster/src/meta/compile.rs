//! Compiling what changed, off the deciding threads.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
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

pub(crate) struct Stale {
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
    /// Tenants whose catalogue this release cannot compile, and at which revision.
    broken: Vec<(TenantId, Revision)>,
}

impl Compile {
    /// What `stale` asks for. O(size of the tenants' tables): bodies are shared, not copied.
    pub(crate) fn new(state: &MetaState, before: &InForce, stale: BTreeMap<TenantId, Vec<Touched>>) -> Self {
        let tenants = stale.into_iter().filter_map(|(tenant, touched)| {
            let catalog = Arc::new(state.catalog().tenant(&tenant)?.clone());
            let number = state.number(&tenant)?;
            // What decides for a broken tenant lacks more than what was touched last.
            let usable = !before.broken.contains_key(&tenant);
            let before = before.tenants.get(&tenant).filter(|_| usable).map(|view| Arc::clone(&view.snapshot));
            Some(Stale { tenant, number, catalog, touched, before })
        });
        Compile { revision: state.revision(), tenants: tenants.collect() }
    }

    /// Compiles. O(what changed), or O(catalogue) where a rebuild is due. A catalogue that makes this panic leaves its tenant
    /// with what decided before.
    pub(crate) fn run(self) -> Compiled {
        self.run_with(Stale::compile)
    }

    pub(crate) fn run_with(self, compile: impl Fn(&Stale) -> Snapshot) -> Compiled {
        let (mut views, mut broken) = (Vec::new(), Vec::new());
        for stale in self.tenants {
            let revision = stale.catalog.revision();
            let Ok(snapshot) = catch_unwind(AssertUnwindSafe(|| Arc::new(compile(&stale)))) else {
                tracing::error!(tenant = %stale.tenant, %revision, "compiling the catalogue panics; an older one decides");
                broken.push((stale.tenant, revision));
                continue;
            };
            let Stale { tenant, number, catalog, .. } = stale;
            views.push(TenantView { tenant, number, revision, catalog, snapshot });
        }
        Compiled { revision: self.revision, views, broken }
    }
}

impl Stale {
    fn compile(&self) -> Snapshot {
        let revision = self.catalog.revision();
        let whole = self.touched.contains(&Touched::Everything);
        match &self.before {
            Some(before) if !whole && !before.wants_rebuild() => before.update(&self.catalog, &self.touched, revision),
            Some(_) | None => Snapshot::compile(&self.tenant, &self.catalog, revision),
        }
    }
}

impl Compiled {
    /// The views in force once these are.
    pub(crate) fn into_in_force(self, before: &InForce) -> InForce {
        let (mut tenants, mut broken) = (before.tenants.clone(), before.broken.clone());
        broken.extend(self.broken);
        for view in self.views {
            broken.remove(&view.tenant);
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
        InForce { revision: self.revision, tenants, keys, broken }
    }
}

#[cfg(test)]
mod tests {
    use proffer_engine::catalog::{self, Actor, CommandV1, EntityKind, Op};
    use proffer_engine::profile::command::{Leader, Position};
    use proffer_engine::time::Timestamp;
    use proffer_engine::value::Value;

    use super::*;
    use crate::meta::command::{Founding, MetaCommand, MetaCommandV1, MetaOp, MetaOutcome};

    struct Group(MetaState, u64);

    impl Group {
        fn apply(&mut self, op: MetaOp) {
            self.1 += 1;
            let leader = Leader { term: 1, replica: 1 };
            let command = MetaCommand::V1(MetaCommandV1 { now: Timestamp(5), leader, op });
            let outcome = self.0.apply(Position { leader, index: self.1 }, &command);
            assert!(!matches!(outcome, MetaOutcome::Refused(_)), "{outcome:?}");
        }

        fn change(&mut self, tenant: &str, op: Op) {
            let actor = Actor { name: "test".to_owned(), admin: true };
            let command = CommandV1 { tenant: TenantId::new(tenant), actor, at: Timestamp(5), op };
            self.apply(MetaOp::Change(catalog::Command::V1(command)));
        }

        fn offer(&mut self, tenant: &str, id: &str) {
            let body = Value::map([("name", Value::text(id))]);
            self.change(tenant, Op::Create { kind: EntityKind::Offer, id: id.to_owned(), body });
        }
    }

    fn stale(touched: Touched) -> BTreeMap<TenantId, Vec<Touched>> {
        ["sound", "sick"].into_iter().map(|tenant| (TenantId::new(tenant), vec![touched])).collect()
    }

    #[test]
    fn a_catalogue_that_cannot_be_compiled_leaves_the_old_one_and_the_other_tenants_alone() {
        let mut group = Group(MetaState::new(), 0);
        group.apply(MetaOp::Found(Founding { secret: [1; 16], shards: 4 }));
        for tenant in ["sound", "sick"] {
            group.change(tenant, Op::CreateTenant);
            group.offer(tenant, "one");
        }
        let before = InForce::default();
        let before = Compile::new(&group.0, &before, stale(Touched::Everything)).run().into_in_force(&before);
        for tenant in ["sound", "sick"] {
            group.offer(tenant, "two");
        }
        let offers =
            |in_force: &InForce, tenant: &str| in_force.tenants[&TenantId::new(tenant)].catalog.offers().iter().count();
        let panicking = |stale: &Stale| {
            assert_ne!(stale.tenant, TenantId::new("sick"), "a fault of the test's making");
            stale.compile()
        };
        let next = Compile::new(&group.0, &before, stale(Touched::Shared)).run_with(panicking).into_in_force(&before);
        assert_eq!((offers(&next, "sound"), offers(&next, "sick")), (2, 1));
        assert_eq!(next.revision, group.0.revision(), "those that wait are answered");
        assert_eq!(next.broken.keys().collect::<Vec<_>>(), [&TenantId::new("sick")]);
        // Whatever is touched next, all that was missed is compiled.
        let mended = Compile::new(&group.0, &next, stale(Touched::Shared)).run().into_in_force(&next);
        assert_eq!(offers(&mended, "sick"), 2);
        assert!(mended.broken.is_empty());
    }
}
