//! One tenant's catalogue: its tables and everything that is looked up in them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::catalog::by_key::ByKey;
use crate::catalog::caps::CapDefinition;
use crate::catalog::command::{EntityKind, Role};
use crate::catalog::index::Index;
use crate::catalog::outcomes::Outcomes;
use crate::catalog::table::Table;
use crate::decide::score::LargestValues;
use crate::keys::{
    ActivityKey, CategoryKey, ChannelKey, CollectionKey, CreativeKey, FlowKey, GuardrailKey, MetricKey, ModelKey,
    OfferKey, PlacementKey, PolicyKey, Revision, RuleKey, SchemaKey, SubCategoryKey,
};
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
use crate::model::policy::{ContactPolicy, PolicyConfig};
use crate::model::rule::{QualificationRule, RuleConfig};
use crate::model::schema::Schema;
use crate::model::settings::Settings;
use crate::time::Timestamp;

/// What names an offer and is compiled with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OfferUser {
    /// Its content.
    Creative(CreativeKey),
    /// A rule with the offer in a scope.
    Rule(RuleKey),
}

/// A stored API key. The secret itself is never stored.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ApiKey {
    /// Public id.
    pub id: String,
    /// SHA-256 of the secret.
    pub hash: [u8; 32],
    /// What it may do.
    pub roles: Vec<Role>,
    /// Display name.
    pub name: String,
    /// When it was made or replaced.
    pub created_at: Timestamp,
}

/// Everything one tenant has authored. Bodies are shared: a clone copies pointers.
#[derive(Clone, Debug, Default)]
pub struct TenantCatalog {
    pub(crate) categories: Table<CategoryKey, Category>,
    pub(crate) sub_categories: Table<SubCategoryKey, SubCategory>,
    pub(crate) offers: Table<OfferKey, Offer>,
    pub(crate) creatives: Table<CreativeKey, Creative>,
    pub(crate) channels: Table<ChannelKey, Channel>,
    pub(crate) placements: Table<PlacementKey, Placement>,
    pub(crate) collections: Table<CollectionKey, Collection>,
    pub(crate) activities: Table<ActivityKey, Activity>,
    pub(crate) rules: Table<RuleKey, QualificationRule>,
    pub(crate) policies: Table<PolicyKey, ContactPolicy>,
    pub(crate) schemas: Table<SchemaKey, Schema>,
    pub(crate) flows: Table<FlowKey, DecisionFlow>,
    pub(crate) guardrails: Table<GuardrailKey, Guardrail>,
    pub(crate) metrics: Table<MetricKey, BehavioralMetric>,
    pub(crate) models: Table<ModelKey, AlgorithmModel>,
    pub(crate) rule_configs: ByKey<RuleKey, Arc<RuleConfig>>,
    pub(crate) policy_configs: BTreeMap<PolicyKey, Arc<PolicyConfig>>,
    pub(crate) flow_versions: BTreeMap<FlowKey, Vec<Arc<FlowVersion>>>,
    pub(crate) caps: BTreeMap<OfferKey, Arc<[CapDefinition]>>,
    pub(crate) state: TenantState,
    pub(crate) index: Index,
}

/// What a tenant holds beside its tables.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub(crate) struct TenantState {
    pub(crate) created_at: Timestamp,
    pub(crate) revision: Revision,
    pub(crate) next_cap: u32,
    pub(crate) settings: Settings,
    pub(crate) settings_revision: Revision,
    pub(crate) settings_updated_at: Timestamp,
    pub(crate) outcomes: Outcomes,
    pub(crate) api_keys: BTreeMap<String, ApiKey>,
    /// How many category ids were derived from each slug.
    pub(crate) category_slugs: BTreeMap<String, u32>,
}

macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident: $key:ty => $body:ty;)+) => {
        impl TenantCatalog {
            $($(#[$doc])* pub fn $name(&self) -> &Table<$key, $body> { &self.$name })+
        }
    };
}
tables! {
    /// Categories.
    categories: CategoryKey => Category;
    /// Sub-categories of all categories.
    sub_categories: SubCategoryKey => SubCategory;
    /// Offers, general and fallback.
    offers: OfferKey => Offer;
    /// Creatives of all offers.
    creatives: CreativeKey => Creative;
    /// Channels.
    channels: ChannelKey => Channel;
    /// Placements of all channels.
    placements: PlacementKey => Placement;
    /// Collections.
    collections: CollectionKey => Collection;
    /// Activities.
    activities: ActivityKey => Activity;
    /// Qualification rules.
    rules: RuleKey => QualificationRule;
    /// Contact policies.
    policies: PolicyKey => ContactPolicy;
    /// Schemas.
    schemas: SchemaKey => Schema;
    /// Decision flows with their drafts.
    flows: FlowKey => DecisionFlow;
    /// Guardrails.
    guardrails: GuardrailKey => Guardrail;
    /// Behavioural metrics.
    metrics: MetricKey => BehavioralMetric;
    /// Models that P comes from.
    models: ModelKey => AlgorithmModel;
}

impl TenantCatalog {
    /// Revision of this tenant's last change.
    pub fn revision(&self) -> Revision {
        self.state.revision
    }

    /// When the tenant was made.
    pub fn created_at(&self) -> Timestamp {
        self.state.created_at
    }

    /// Tenant settings.
    pub fn settings(&self) -> &Settings {
        &self.state.settings
    }

    /// Outcome types: built-in and the tenant's own.
    pub fn outcomes(&self) -> &Outcomes {
        &self.state.outcomes
    }

    /// API keys by id.
    pub fn api_keys(&self) -> impl Iterator<Item = &ApiKey> {
        self.state.api_keys.values()
    }

    /// The API key with this id.
    pub fn api_key(&self, id: &str) -> Option<&ApiKey> {
        self.state.api_keys.get(id)
    }

    /// The typed config of a rule; every stored rule has one.
    pub fn rule_config(&self, key: RuleKey) -> Option<&Arc<RuleConfig>> {
        self.rule_configs.get(key)
    }

    /// The typed config of a policy; every stored policy has one.
    pub fn policy_config(&self, key: PolicyKey) -> Option<&Arc<PolicyConfig>> {
        self.policy_configs.get(&key)
    }

    /// All caps of an offer, normalised: authored ones in order, then budget, then frequency caps.
    pub fn caps(&self, offer: OfferKey) -> &[CapDefinition] {
        self.caps.get(&offer).map_or(&[], |caps| caps)
    }

    /// Published versions of a flow, oldest first.
    pub fn flow_versions(&self, flow: FlowKey) -> &[Arc<FlowVersion>] {
        self.flow_versions.get(&flow).map_or(&[], Vec::as_slice)
    }

    /// The version of a flow that decides: the newest.
    pub fn current_version(&self, flow: FlowKey) -> Option<&Arc<FlowVersion>> {
        self.flow_versions(flow).last()
    }

    /// The flow with this key.
    pub fn flow_by_key(&self, key: &str) -> Option<&Arc<Entity<FlowKey, DecisionFlow>>> {
        self.flows.get(*self.index.flow_keys.get(key)?)
    }

    /// The model with this key.
    pub fn model_by_key(&self, key: &str) -> Option<&Arc<Entity<ModelKey, AlgorithmModel>>> {
        self.models.get(*self.index.model_keys.get(key)?)
    }

    /// The activity with this key or id.
    pub fn activity(&self, key_or_id: &str) -> Option<&Arc<Entity<ActivityKey, Activity>>> {
        let key = self.index.activity_keys.get(key_or_id).copied().or_else(|| self.activities.key_of(key_or_id))?;
        self.activities.get(key)
    }

    /// The placement of a channel with this key or id.
    pub fn placement(&self, channel: ChannelKey, key_or_id: &str) -> Option<&Arc<Entity<PlacementKey, Placement>>> {
        if let Some(key) = self.index.placement_keys.get(&(channel, key_or_id.to_owned())) {
            return self.placements.get(*key);
        }
        let found = self.placements.by_id(key_or_id)?;
        (self.channels.key_of(&found.body.channel_id.0) == Some(channel)).then_some(found)
    }

    /// The channel of a placement.
    pub fn channel_of(&self, placement: PlacementKey) -> Option<ChannelKey> {
        self.channels.key_of(&self.placements.get(placement)?.body.channel_id.0)
    }

    /// The creatives of an offer, by key. O(their number + log n).
    pub fn creatives_of(&self, offer: OfferKey) -> impl Iterator<Item = &Arc<Entity<CreativeKey, Creative>>> {
        self.index.creatives_of(offer).filter_map(|key| self.creatives.get(key))
    }

    /// The rules that name this offer in a scope, by key.
    pub fn rules_of(&self, offer: OfferKey) -> impl Iterator<Item = &Arc<Entity<RuleKey, QualificationRule>>> {
        self.index.rules_of(offer).filter_map(|key| self.rules.get(key))
    }

    /// The rules that name this creative in a scope, by key.
    pub fn rules_of_creative(
        &self,
        creative: CreativeKey,
    ) -> impl Iterator<Item = &Arc<Entity<RuleKey, QualificationRule>>> {
        self.index.rules_of_creative(creative).filter_map(|key| self.rules.get(key))
    }

    /// The creatives and rules that name each of `offers` (ascending), offer by offer: its place in `offers`, and what
    /// names it. O(offers · log n + result), or O(catalogue) where that is less.
    pub(crate) fn visit_users(&self, offers: &[OfferKey], mut visit: impl FnMut(usize, OfferUser)) {
        self.index.visit_users(EntityKind::Offer, offers, |place, user| match user.kind {
            EntityKind::Creative => visit(place, OfferUser::Creative(user.key())),
            EntityKind::Rule => visit(place, OfferUser::Rule(user.key())),
            EntityKind::Category
            | EntityKind::SubCategory
            | EntityKind::Offer
            | EntityKind::Channel
            | EntityKind::Placement
            | EntityKind::Collection
            | EntityKind::Activity
            | EntityKind::Policy
            | EntityKind::Schema
            | EntityKind::Flow
            | EntityKind::Guardrail
            | EntityKind::Metric
            | EntityKind::Model => {}
        });
    }

    /// The rules that name each of `creatives` (ascending), creative by creative: its place in `creatives`, and the rule.
    pub(crate) fn visit_rules_of_creatives(&self, creatives: &[CreativeKey], mut visit: impl FnMut(usize, RuleKey)) {
        self.index.visit_users(EntityKind::Creative, creatives, |place, user| {
            if user.kind == EntityKind::Rule {
                visit(place, user.key());
            }
        });
    }

    /// The rules with a scope that is no offer and no creative, by key.
    pub(crate) fn wide_rules(&self) -> impl Iterator<Item = &Arc<Entity<RuleKey, QualificationRule>>> {
        self.index.wide_rules.iter().filter_map(|key| self.rules.get(*key))
    }

    /// Largest margin and revenue value of active general offers. O(1).
    pub(crate) fn largest_values(&self) -> LargestValues {
        self.index.worths.largest()
    }

    /// Tags in use by offers, each with the number of offers that carry it.
    pub fn tags(&self) -> impl Iterator<Item = (&str, usize)> {
        self.index.tags.iter().map(|(tag, count)| (tag.as_str(), *count))
    }
}
