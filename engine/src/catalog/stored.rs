//! The catalogue as bytes: a stream of records, so that no single one is large.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::catalog::Catalog;
use crate::catalog::caps::CapDefinition;
use crate::catalog::command::EntityKind;
use crate::catalog::entity::Authored;
use crate::catalog::index::{Index, Thing};
use crate::catalog::table::Table;
use crate::catalog::tenant::{TenantCatalog, TenantState};
use crate::codec::{self, DecodeError};
use crate::keys::{
    ActivityKey, CategoryKey, ChannelKey, CollectionKey, CreativeKey, FlowKey, GuardrailKey, MetricKey, ModelKey,
    OfferKey, PlacementKey, PolicyKey, RuleKey, SchemaKey, SubCategoryKey, TenantId,
};
use crate::limits::IDS_PER_RECORD;
use crate::model::Entity;
use crate::model::activity::Activity;
use crate::model::algorithm::AlgorithmModel;
use crate::model::category::{Category, SubCategory};
use crate::model::channel::Channel;
use crate::model::collection::Collection;
use crate::model::creative::Creative;
use crate::model::flow::{DecisionFlow, FlowVersion};
use crate::model::guardrail::Guardrail;
use crate::model::metric::BehavioralMetric;
use crate::model::offer::Offer;
use crate::model::placement::Placement;
use crate::model::policy::ContactPolicy;
use crate::model::rule::QualificationRule;
use crate::model::schema::Schema;
use crate::model::settings::TracePercent;

/// A record of a stored catalogue, by format version.
#[derive(Encode, Decode)]
enum Stored {
    /// The first format.
    V1(Record),
}

/// A tenant's record comes first, its rows after it, kind by kind in the order of references, each by key.
#[derive(Encode, Decode)]
enum Record {
    Tenant(TenantId, Box<TenantState>),
    /// Next key of one kind.
    Table(EntityKind, u32),
    /// More retired ids of one kind.
    Retired(EntityKind, Vec<String>),
    /// More of the numbers that category ids were made unique with.
    Slugs(Vec<(String, u32)>),
    Category(Arc<Entity<CategoryKey, Category>>),
    SubCategory(Arc<Entity<SubCategoryKey, SubCategory>>),
    Channel(Arc<Entity<ChannelKey, Channel>>),
    Placement(Arc<Entity<PlacementKey, Placement>>),
    Offer(Arc<Entity<OfferKey, Offer>>, Arc<[CapDefinition]>),
    Creative(Arc<Entity<CreativeKey, Creative>>),
    Collection(Arc<Entity<CollectionKey, Collection>>),
    Activity(Arc<Entity<ActivityKey, Activity>>),
    Rule(Arc<Entity<RuleKey, QualificationRule>>),
    Policy(Arc<Entity<PolicyKey, ContactPolicy>>),
    Schema(Arc<Entity<SchemaKey, Schema>>),
    Flow(Arc<Entity<FlowKey, DecisionFlow>>),
    /// A published version of the flow; versions come oldest first.
    Version(FlowKey, Arc<FlowVersion>),
    /// Of a tenant that has any.
    Guardrail(Arc<Entity<GuardrailKey, Guardrail>>),
    /// Of a tenant that has any.
    Metric(Arc<Entity<MetricKey, BehavioralMetric>>),
    /// Right after the tenant, where it is set.
    TracePercent(f64),
    /// Of a tenant that has any.
    Model(Arc<Entity<ModelKey, AlgorithmModel>>),
}

impl Catalog {
    /// The state as encoded records, each far below [`codec::MAX_ENCODED_BYTES`]; equal states give equal records.
    pub fn records(&self) -> impl Iterator<Item = Vec<u8>> {
        self.tenants
            .iter()
            .flat_map(|(id, tenant)| records_of(id, tenant))
            .map(|record| codec::encode_stored("catalogue record", &Stored::V1(record)))
    }

    /// The state that [`Catalog::records`] wrote.
    ///
    /// # Errors
    /// If the records are not ones that a catalogue wrote, in their order. Never panics on corrupt bytes.
    pub fn from_records<B: AsRef<[u8]>>(records: impl IntoIterator<Item = B>) -> Result<Self, DecodeError> {
        let mut builder = Builder::default();
        for bytes in records {
            let Stored::V1(record) = codec::decode("catalogue record", bytes.as_ref())?;
            builder.add(record).map_err(broken)?;
        }
        builder.finish().map_err(broken)
    }

    /// Hash of the whole state: replicas at the same revision agree on it. O(size).
    pub fn hash(&self) -> u64 {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        for record in self.records() {
            hash.update(&(record.len() as u64).to_le_bytes());
            hash.update(&record);
        }
        hash.digest()
    }
}

fn broken(reason: String) -> DecodeError {
    DecodeError::new("catalogue", reason)
}

fn records_of<'a>(id: &TenantId, tenant: &'a TenantCatalog) -> impl Iterator<Item = Record> + 'a {
    // What grows with every thing that ever was is not kept in one record with what does not.
    let mut state = tenant.state.clone();
    let slugs: Vec<(String, u32)> = std::mem::take(&mut state.category_slugs).into_iter().collect();
    let slugs: Vec<Record> = slugs.chunks(IDS_PER_RECORD).map(|slugs| Record::Slugs(slugs.to_vec())).collect();
    let traced = state.settings.trace_percent.0;
    let traced = (traced > 0.0).then_some(Record::TracePercent(traced));
    let head = std::iter::once(Record::Tenant(id.clone(), Box::new(state))).chain(traced).chain(slugs);
    let tables = EntityKind::ALL.iter().flat_map(|kind| {
        let (next, retired) = crate::catalog::entity::for_kind!(*kind, Body => Body::table(tenant).memory());
        let retired: Vec<String> = retired.iter().cloned().collect();
        let retired: Vec<Record> =
            retired.chunks(IDS_PER_RECORD).map(|ids| Record::Retired(*kind, ids.to_vec())).collect();
        // A kind that came later is not mentioned before there ever was one: what was stored without it reads on.
        let is_later = matches!(kind, EntityKind::Guardrail | EntityKind::Metric | EntityKind::Model);
        let table = (next > 0 || !is_later).then_some(Record::Table(*kind, next));
        table.into_iter().chain(retired)
    });
    let none: Arc<[CapDefinition]> = Arc::from([]);
    let offers = tenant.offers.iter().map(move |row| {
        let caps = tenant.caps.get(&row.key).unwrap_or(&none);
        Record::Offer(Arc::clone(row), Arc::clone(caps))
    });
    let versions = tenant
        .flow_versions
        .iter()
        .flat_map(|(key, versions)| versions.iter().map(|version| Record::Version(*key, Arc::clone(version))));
    head.chain(tables)
        .chain(tenant.categories.iter().cloned().map(Record::Category))
        .chain(tenant.sub_categories.iter().cloned().map(Record::SubCategory))
        .chain(tenant.channels.iter().cloned().map(Record::Channel))
        .chain(tenant.placements.iter().cloned().map(Record::Placement))
        .chain(offers)
        .chain(tenant.creatives.iter().cloned().map(Record::Creative))
        .chain(tenant.collections.iter().cloned().map(Record::Collection))
        .chain(tenant.activities.iter().cloned().map(Record::Activity))
        .chain(tenant.rules.iter().cloned().map(Record::Rule))
        .chain(tenant.policies.iter().cloned().map(Record::Policy))
        .chain(tenant.schemas.iter().cloned().map(Record::Schema))
        .chain(tenant.flows.iter().cloned().map(Record::Flow))
        .chain(versions)
        .chain(tenant.guardrails.iter().cloned().map(Record::Guardrail))
        .chain(tenant.metrics.iter().cloned().map(Record::Metric))
        .chain(tenant.models.iter().cloned().map(Record::Model))
}

/// Rows of one tenant as they come in.
#[derive(Default)]
struct Pending {
    tenant: TenantCatalog,
    memory: BTreeMap<EntityKind, (u32, BTreeSet<String>)>,
    categories: Vec<Entity<CategoryKey, Category>>,
    sub_categories: Vec<Entity<SubCategoryKey, SubCategory>>,
    channels: Vec<Entity<ChannelKey, Channel>>,
    placements: Vec<Entity<PlacementKey, Placement>>,
    offers: Vec<Entity<OfferKey, Offer>>,
    creatives: Vec<Entity<CreativeKey, Creative>>,
    collections: Vec<Entity<CollectionKey, Collection>>,
    activities: Vec<Entity<ActivityKey, Activity>>,
    rules: Vec<Entity<RuleKey, QualificationRule>>,
    policies: Vec<Entity<PolicyKey, ContactPolicy>>,
    schemas: Vec<Entity<SchemaKey, Schema>>,
    flows: Vec<Entity<FlowKey, DecisionFlow>>,
    guardrails: Vec<Entity<GuardrailKey, Guardrail>>,
    metrics: Vec<Entity<MetricKey, BehavioralMetric>>,
    models: Vec<Entity<ModelKey, AlgorithmModel>>,
}

#[derive(Default)]
struct Builder {
    catalog: Catalog,
    current: Option<(TenantId, Pending)>,
}

impl Builder {
    fn add(&mut self, record: Record) -> Result<(), String> {
        if let Record::Tenant(id, state) = record {
            self.close()?;
            let tenant = TenantCatalog { state: *state, ..TenantCatalog::default() };
            self.current = Some((id, Pending { tenant, ..Pending::default() }));
            return Ok(());
        }
        let Some((_, pending)) = &mut self.current else { return Err("a row comes before its tenant".to_owned()) };
        match record {
            Record::Tenant(..) => {}
            Record::Table(kind, next) => drop(pending.memory.insert(kind, (next, BTreeSet::new()))),
            Record::Retired(kind, ids) => {
                let (_, retired) = pending.memory.get_mut(&kind).ok_or("retired ids come before their table")?;
                retired.extend(ids);
            }
            Record::Slugs(slugs) => pending.tenant.state.category_slugs.extend(slugs),
            Record::Category(row) => pending.categories.push(Arc::unwrap_or_clone(row)),
            Record::SubCategory(row) => pending.sub_categories.push(Arc::unwrap_or_clone(row)),
            Record::Channel(row) => pending.channels.push(Arc::unwrap_or_clone(row)),
            Record::Placement(row) => pending.placements.push(Arc::unwrap_or_clone(row)),
            Record::Offer(row, caps) => {
                if !caps.is_empty() {
                    pending.tenant.caps.insert(row.key, caps);
                }
                pending.offers.push(Arc::unwrap_or_clone(row));
            }
            Record::Creative(row) => pending.creatives.push(Arc::unwrap_or_clone(row)),
            Record::Collection(row) => pending.collections.push(Arc::unwrap_or_clone(row)),
            Record::Activity(row) => pending.activities.push(Arc::unwrap_or_clone(row)),
            Record::Rule(row) => pending.rules.push(Arc::unwrap_or_clone(row)),
            Record::Policy(row) => pending.policies.push(Arc::unwrap_or_clone(row)),
            Record::Schema(row) => pending.schemas.push(Arc::unwrap_or_clone(row)),
            Record::Flow(row) => pending.flows.push(Arc::unwrap_or_clone(row)),
            Record::Guardrail(row) => pending.guardrails.push(Arc::unwrap_or_clone(row)),
            Record::Metric(row) => pending.metrics.push(Arc::unwrap_or_clone(row)),
            Record::Model(row) => pending.models.push(Arc::unwrap_or_clone(row)),
            Record::TracePercent(percent) => pending.tenant.state.settings.trace_percent = TracePercent(percent),
            Record::Version(key, version) => {
                pending.tenant.flow_versions.entry(key).or_default().push(version);
            }
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), String> {
        let Some((id, pending)) = self.current.take() else { return Ok(()) };
        let tenant = pending.build()?;
        for key in tenant.state.api_keys.values() {
            self.catalog.keys_by_hash.insert(key.hash, (id.clone(), key.id.clone()));
        }
        match self.catalog.tenants.insert(id, tenant) {
            None => Ok(()),
            Some(_) => Err("a tenant comes twice".to_owned()),
        }
    }

    fn finish(mut self) -> Result<Catalog, String> {
        self.close()?;
        Ok(self.catalog)
    }
}

impl Pending {
    fn build(mut self) -> Result<TenantCatalog, String> {
        let mut tenant = std::mem::take(&mut self.tenant);
        tenant.categories = rebuild(&mut self.memory, self.categories)?;
        tenant.sub_categories = rebuild(&mut self.memory, self.sub_categories)?;
        tenant.channels = rebuild(&mut self.memory, self.channels)?;
        tenant.placements = rebuild(&mut self.memory, self.placements)?;
        tenant.offers = rebuild(&mut self.memory, self.offers)?;
        tenant.creatives = rebuild(&mut self.memory, self.creatives)?;
        tenant.collections = rebuild(&mut self.memory, self.collections)?;
        tenant.activities = rebuild(&mut self.memory, self.activities)?;
        tenant.rules = rebuild(&mut self.memory, self.rules)?;
        tenant.policies = rebuild(&mut self.memory, self.policies)?;
        tenant.schemas = rebuild(&mut self.memory, self.schemas)?;
        tenant.flows = rebuild(&mut self.memory, self.flows)?;
        self.memory.entry(EntityKind::Guardrail).or_default();
        tenant.guardrails = rebuild(&mut self.memory, self.guardrails)?;
        self.memory.entry(EntityKind::Metric).or_default();
        tenant.metrics = rebuild(&mut self.memory, self.metrics)?;
        self.memory.entry(EntityKind::Model).or_default();
        tenant.models = rebuild(&mut self.memory, self.models)?;
        if let Some(model) = tenant.models.iter().find(|model| model.body.typed().is_none()) {
            return Err(format!("the config of model {} is unreadable", model.id));
        }
        for rule in tenant.rules.iter() {
            let config = rule.body.config().ok_or_else(|| format!("the config of rule {} is unreadable", rule.id))?;
            tenant.rule_configs.insert(rule.key, Arc::new(config));
        }
        for policy in tenant.policies.iter() {
            let config = policy.body.config();
            let config = config.ok_or_else(|| format!("the config of policy {} is unreadable", policy.id))?;
            tenant.policy_configs.insert(policy.key, Arc::new(config));
        }
        reindex_all(&mut tenant);
        Ok(tenant)
    }
}

fn rebuild<T: Authored>(
    memory: &mut BTreeMap<EntityKind, (u32, BTreeSet<String>)>,
    rows: Vec<Entity<T::Key, T>>,
) -> Result<Table<T::Key, T>, String> {
    let (next, retired) = memory.remove(&T::KIND).ok_or_else(|| format!("no table of {}", T::KIND.as_str()))?;
    Table::rebuild(rows, next, retired, T::name)
}

/// Derives everything that is not stored.
pub(crate) fn reindex_all(tenant: &mut TenantCatalog) {
    tenant.index = Index::default();
    reindex::<Category>(tenant);
    reindex::<SubCategory>(tenant);
    reindex::<Channel>(tenant);
    reindex::<Placement>(tenant);
    reindex::<Offer>(tenant);
    reindex::<Creative>(tenant);
    reindex::<Collection>(tenant);
    reindex::<Schema>(tenant);
    reindex::<QualificationRule>(tenant);
    reindex::<ContactPolicy>(tenant);
    reindex::<DecisionFlow>(tenant);
    reindex::<Activity>(tenant);
    reindex::<Guardrail>(tenant);
    reindex::<AlgorithmModel>(tenant);
}

fn reindex<T: Authored>(tenant: &mut TenantCatalog) {
    let rows: Vec<_> = T::table(tenant).iter().cloned().collect();
    for row in &rows {
        T::reindex(tenant, row.key, None, Some(&row.body));
    }
    // Flows may refer to each other: all are known before any reference is looked up.
    for row in &rows {
        let references = row.body.references(tenant);
        tenant.index.repoint(Thing::new(T::KIND, row.key), &[], &references);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_that_ever_was_fits_records() {
        let mut catalog = Catalog::new();
        let mut tenant = TenantCatalog::default();
        let ids: BTreeSet<String> = (0..200_000).map(|number| format!("offer_{number:0>122}")).collect();
        tenant.offers = Table::rebuild(Vec::new(), 200_000, ids, Offer::name).unwrap();
        tenant.state.category_slugs = (0..100_000).map(|number| (format!("{number:0>255}"), 7)).collect();
        catalog.tenants.insert(TenantId::new("acme"), tenant);

        let records: Vec<Vec<u8>> = catalog.records().collect();
        let restored = Catalog::from_records(&records).unwrap();
        assert!(restored.records().eq(records));
        let restored = restored.tenant(&TenantId::new("acme")).unwrap();
        assert_eq!(restored.offers.memory(), catalog.tenants[&TenantId::new("acme")].offers.memory());
        assert_eq!(restored.state.category_slugs.len(), 100_000);
    }
}
