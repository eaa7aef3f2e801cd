//! What the kinds of entities differ in, as one trait; the transitions are generic over it.

use std::sync::Arc;

use crate::catalog::command::{Actor, EntityKind};
use crate::catalog::index::Thing;
use crate::catalog::refusal::Touched;
use crate::catalog::table::{Resolved, Table, TableKey};
use crate::catalog::tenant::TenantCatalog;
use crate::model::fault::Faults;
use crate::model::record::Record;
use crate::model::{Entity, Ref, Status};
use crate::value::{Members, Value};

/// An authored body: how it is stored, checked, referenced, and what a change of it makes stale.
pub(crate) trait Authored: Record + Clone + PartialEq {
    /// Its key.
    type Key: TableKey;
    /// Its kind.
    const KIND: EntityKind;
    /// Most rows of this kind in a tenant.
    const ROWS_MAX: usize;
    /// Whether two rows may not have the same name.
    const UNIQUE_NAME: bool;
    /// Members that reads add and writes ignore, beside those of every entity.
    const READ_ONLY: &'static [&'static str] = &[];
    /// `(a, b)`: without a sound `a`, what is found wrong with `b` means nothing; `(a, a)`: nor does an item of the list `a`
    /// mean anything without the others.
    const DEPENDENT: &'static [(&'static str, &'static str)] = &[];

    /// The table of this kind.
    fn table(tenant: &TenantCatalog) -> &Table<Self::Key, Self>;

    /// The table of this kind, to change.
    fn table_mut(tenant: &mut TenantCatalog) -> &mut Table<Self::Key, Self>;

    /// What it can be referenced by, beside its id.
    fn name(&self) -> &str;

    /// Where it is in its life.
    fn status(&self) -> Status;

    /// A readable value for each required member: lets the other members be checked when that one is bad.
    fn stand_in() -> Value;

    /// Turns a stored body and a patch into the body to read. `patch` holds no read-only members.
    fn merge(stored: &Self, patch: &Members) -> Members {
        let Value::Map(stored) = stored.write() else { unreachable!("records write maps") };
        let mut merged = Arc::unwrap_or_clone(stored);
        merged.extend(patch.iter().map(|(name, value)| (name.clone(), value.clone())));
        merged
    }

    /// Checks everything beyond the shape; fills in defaults and turns references into ids.
    fn check(&mut self, context: &Context<'_, Self>, findings: &mut Findings);

    /// What it references. Stored references only: they resolve.
    fn references(&self, tenant: &TenantCatalog) -> Vec<Thing>;

    /// Brings derived lookups up to date: tags, keys.
    fn reindex(_tenant: &mut TenantCatalog, _key: Self::Key, _before: Option<&Self>, _after: Option<&Self>) {}

    /// Brings dependent state up to date: caps, typed configs.
    fn settle(_tenant: &mut TenantCatalog, _key: Self::Key, _before: Option<&Self>, _after: Option<&Self>) {}

    /// What a change from `before` to `after` makes stale. The tenant still, or already, holds what it references.
    fn touched(
        tenant: &TenantCatalog,
        key: Self::Key,
        before: Option<&Self>,
        after: Option<&Self>,
        effect: &mut Vec<Touched>,
    );
}

/// The part of [`Authored`] that is the same but for names.
macro_rules! stored_in {
    ($table:ident: $key:ty, $kind:expr, at most $max:expr) => {
        type Key = $key;
        const KIND: $crate::catalog::command::EntityKind = $kind;
        const ROWS_MAX: usize = $max;

        fn table(tenant: &$crate::catalog::tenant::TenantCatalog) -> &$crate::catalog::table::Table<Self::Key, Self> {
            &tenant.$table
        }

        fn table_mut(
            tenant: &mut $crate::catalog::tenant::TenantCatalog,
        ) -> &mut $crate::catalog::table::Table<Self::Key, Self> {
            &mut tenant.$table
        }

        fn name(&self) -> &str {
            &self.name
        }

        fn status(&self) -> $crate::model::Status {
            self.status
        }
    };
}
pub(crate) use stored_in;

/// Runs `$body` with `$body_type` bound to the body type of a kind.
macro_rules! for_kind {
    ($kind:expr, $body_type:ident => $body:expr) => {{
        use $crate::catalog::command::EntityKind;
        match $kind {
            EntityKind::Category => {
                type $body_type = $crate::model::category::Category;
                $body
            }
            EntityKind::SubCategory => {
                type $body_type = $crate::model::category::SubCategory;
                $body
            }
            EntityKind::Offer => {
                type $body_type = $crate::model::offer::Offer;
                $body
            }
            EntityKind::Creative => {
                type $body_type = $crate::model::creative::Creative;
                $body
            }
            EntityKind::Channel => {
                type $body_type = $crate::model::channel::Channel;
                $body
            }
            EntityKind::Placement => {
                type $body_type = $crate::model::placement::Placement;
                $body
            }
            EntityKind::Collection => {
                type $body_type = $crate::model::collection::Collection;
                $body
            }
            EntityKind::Activity => {
                type $body_type = $crate::model::activity::Activity;
                $body
            }
            EntityKind::Rule => {
                type $body_type = $crate::model::rule::QualificationRule;
                $body
            }
            EntityKind::Policy => {
                type $body_type = $crate::model::policy::ContactPolicy;
                $body
            }
            EntityKind::Schema => {
                type $body_type = $crate::model::schema::Schema;
                $body
            }
            EntityKind::Flow => {
                type $body_type = $crate::model::flow::DecisionFlow;
                $body
            }
            EntityKind::Guardrail => {
                type $body_type = $crate::model::guardrail::Guardrail;
                $body
            }
            EntityKind::Metric => {
                type $body_type = $crate::model::metric::BehavioralMetric;
                $body
            }
            EntityKind::Model => {
                type $body_type = $crate::model::algorithm::AlgorithmModel;
                $body
            }
        }
    }};
}
pub(crate) use for_kind;

/// What a check may look at.
pub(crate) struct Context<'a, T: Authored> {
    pub(crate) tenant: &'a TenantCatalog,
    pub(crate) actor: &'a Actor,
    /// The stored row, for updates.
    pub(crate) before: Option<&'a Entity<T::Key, T>>,
}

impl<T: Authored> Context<'_, T> {
    /// The key of the row being changed.
    pub(crate) fn key(&self) -> Option<T::Key> {
        self.before.map(|row| row.key)
    }
}

/// What checks found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Wrong in itself (400).
    pub(crate) faults: Faults,
    /// At odds with what is stored (409).
    pub(crate) conflicts: Faults,
    /// Not for this actor (403).
    pub(crate) forbidden: Option<String>,
    /// A category to make with the offer that names it.
    pub(crate) new_category: Option<NewCategory>,
}

/// A category that an offer named and that does not exist yet.
#[derive(Debug)]
pub(crate) struct NewCategory {
    pub(crate) id: String,
    pub(crate) slug: String,
    pub(crate) name: String,
}

/// Turns a reference (id or exact name) into an id, or adds a fault at the current place.
pub(crate) fn resolve<T: Authored>(tenant: &TenantCatalog, reference: &mut Ref, faults: &mut Faults) -> Option<T::Key> {
    let table = T::table(tenant);
    match table.resolve(reference) {
        Resolved::Found(key) => {
            let row = table.get(key).expect("a resolved key has a row");
            if row.id != reference.0 {
                reference.0.clone_from(&row.id);
            }
            Some(key)
        }
        Resolved::Unknown => {
            faults.add(format!("no {} has the id or name {:?}", T::KIND.noun(), shown(&reference.0)));
            None
        }
        Resolved::Ambiguous => {
            faults.add(format!("several are named {:?}: give the id of a {}", shown(&reference.0), T::KIND.noun()));
            None
        }
    }
}

/// Resolves each of a list of references, dropping doubles.
pub(crate) fn resolve_all<T: Authored>(
    tenant: &TenantCatalog,
    references: &mut Vec<Ref>,
    faults: &mut Faults,
) -> Vec<T::Key> {
    let mut keys = Vec::with_capacity(references.len());
    for (index, reference) in references.iter_mut().enumerate() {
        keys.extend(faults.within(&index.to_string(), |faults| resolve::<T>(tenant, reference, faults)));
    }
    let mut seen = std::collections::BTreeSet::new();
    references.retain(|reference| seen.insert(reference.0.clone()));
    keys
}

/// The thing a stored reference stands for.
pub(crate) fn thing_of<T: Authored>(tenant: &TenantCatalog, reference: &Ref) -> Option<Thing> {
    T::table(tenant).key_of(&reference.0).map(|key| Thing::new(T::KIND, key))
}

/// As much of a text as belongs in a message.
pub(crate) fn shown(text: &str) -> &str {
    match text.char_indices().nth(80) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}
