//! Decision flows and their drafts. What a draft says is checked when it is published (`publish`).

use crate::catalog::command::EntityKind;
use crate::catalog::entity::{Authored, Context, Findings, shown, stored_in, thing_of};
use crate::catalog::index::Thing;
use crate::catalog::refusal::Touched;
use crate::catalog::tenant::TenantCatalog;
use crate::catalog::validate::text;
use crate::keys::FlowKey;
use crate::model::Status;
use crate::model::category::{Category, SubCategory};
use crate::model::channel::Channel;
use crate::model::flow::{DecisionFlow, FlowConfig, Node};
use crate::model::offer::Offer;
use crate::model::policy::ContactPolicy;
use crate::model::rule::QualificationRule;
use crate::model::schema::Schema;
use crate::value::Value;

impl Authored for DecisionFlow {
    stored_in!(flows: FlowKey, EntityKind::Flow, at most 1_000);
    const UNIQUE_NAME: bool = false;
    const READ_ONLY: &'static [&'static str] = &["decisionFlowVersion", "publishedAt"];

    fn stand_in() -> Value {
        Value::map([("name", Value::text("-")), ("key", Value::text("-"))])
    }

    fn check(&mut self, context: &Context<'_, Self>, findings: &mut Findings) {
        let tenant = context.tenant;
        let faults = &mut findings.faults;
        text::check_key("key", &self.key, faults);
        text::check_name("name", &self.name, faults);
        text::check_description(&self.description, faults);
        if !matches!(self.draft_config, Value::Null | Value::Map(_)) {
            faults.add_at("draftConfig", format!("must be an object, not {}", self.draft_config.kind()));
        }
        if tenant.index.flow_keys.get(&self.key).is_some_and(|taken| Some(*taken) != context.key()) {
            let message = format!("another decision flow has the key {:?}", shown(&self.key));
            findings.conflicts.add_at("key", message);
        }
        if context.before.is_some_and(|row| row.body.key != self.key) {
            findings.conflicts.add_at("key", "cannot change: requests, activities and experiments use it");
        }
        let published = context.key().is_some_and(|key| !tenant.flow_versions(key).is_empty());
        if self.status == Status::Active && !published {
            findings.conflicts.add_at("status", "a decision flow becomes active by publishing it");
        }
    }

    /// What the version in force references; drafts may dangle.
    fn references(&self, tenant: &TenantCatalog) -> Vec<Thing> {
        let key = tenant.index.flow_keys.get(&self.key);
        let version = key.and_then(|key| tenant.current_version(*key));
        version.map(|version| references_of(tenant, &version.config)).unwrap_or_default()
    }

    fn reindex(tenant: &mut TenantCatalog, key: FlowKey, before: Option<&Self>, after: Option<&Self>) {
        if let Some(body) = before {
            tenant.index.flow_keys.remove(&body.key);
        }
        if let Some(body) = after {
            tenant.index.flow_keys.insert(body.key.clone(), key);
        }
    }

    fn settle(tenant: &mut TenantCatalog, key: FlowKey, _before: Option<&Self>, after: Option<&Self>) {
        if after.is_none() {
            tenant.flow_versions.remove(&key);
        }
    }

    fn touched(
        tenant: &TenantCatalog,
        key: FlowKey,
        before: Option<&Self>,
        after: Option<&Self>,
        effect: &mut Vec<Touched>,
    ) {
        let status = |body: &Self| body.status;
        if before.map(status) != after.map(status) && !tenant.flow_versions(key).is_empty() {
            effect.push(Touched::Shared);
        }
    }
}

/// Everything that a config with resolved references names.
pub(crate) fn references_of(tenant: &TenantCatalog, config: &FlowConfig) -> Vec<Thing> {
    let mut things = Vec::new();
    for node in config.all_nodes() {
        match &node.node {
            Node::Inventory(inventory) => {
                things.extend(inventory.category_ids.iter().filter_map(|id| thing_of::<Category>(tenant, id)));
                things.extend(inventory.sub_category_ids.iter().filter_map(|id| thing_of::<SubCategory>(tenant, id)));
                things.extend(inventory.offer_ids.iter().filter_map(|id| thing_of::<Offer>(tenant, id)));
            }
            Node::Enrich(enrich) => {
                things.extend(enrich.sources.iter().filter_map(|source| thing_of::<Schema>(tenant, &source.schema_id)));
            }
            Node::Qualify(selection) => {
                things.extend(selection.ids.iter().filter_map(|id| thing_of::<QualificationRule>(tenant, id)));
            }
            Node::ContactPolicy(selection) => {
                things.extend(selection.ids.iter().filter_map(|id| thing_of::<ContactPolicy>(tenant, id)));
            }
            Node::Score(score) => {
                for one in &score.overrides {
                    things.extend(one.channel.as_ref().and_then(|id| thing_of::<Channel>(tenant, id)));
                    things.extend(one.category.as_ref().and_then(|id| thing_of::<Category>(tenant, id)));
                }
            }
            Node::CallFlow(call) => {
                let called = tenant.flow_by_key(&call.flow_key);
                things.extend(called.map(|row| Thing::new(EntityKind::Flow, row.key)));
            }
            Node::MatchCreatives(_)
            | Node::Filter(_)
            | Node::Conditional(_)
            | Node::Rank(_)
            | Node::Group(_)
            | Node::Compute(_)
            | Node::SetProperties(_)
            | Node::Optimize(_)
            | Node::ScoreByExpression(_)
            | Node::Response(_) => {}
        }
    }
    things
}
