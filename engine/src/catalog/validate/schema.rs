//! Schemas.

use crate::catalog::command::EntityKind;
use crate::catalog::entity::{Authored, Context, Findings, stored_in};
use crate::catalog::index::Thing;
use crate::catalog::refusal::Touched;
use crate::catalog::tenant::TenantCatalog;
use crate::catalog::validate::text;
use crate::keys::SchemaKey;
use crate::limits;
use crate::model::schema::{DataType, Schema, SchemaEntity, SchemaField};
use crate::value::Value;

impl Authored for Schema {
    stored_in!(schemas: SchemaKey, EntityKind::Schema, at most limits::ROWS_PER_PROFILE);
    const UNIQUE_NAME: bool = true;

    fn stand_in() -> Value {
        let field = Value::map([
            ("name", Value::text("id")),
            ("dataType", Value::text("varchar")),
            ("isUnique", Value::Bool(true)),
        ]);
        Value::map([("name", Value::text("-")), ("fields", Value::list([field]))])
    }

    fn check(&mut self, context: &Context<'_, Self>, findings: &mut Findings) {
        let faults = &mut findings.faults;
        text::check_name("name", &self.name, faults);
        text::check_description(&self.description, faults);
        text::check_length("displayName", &self.display_name, limits::NAME_CHARS_MAX, faults);
        if self.entity_type == SchemaEntity::Reference {
            faults.add_at("entityType", "reference schemas are not available; use customer");
        }
        text::check_count("fields", &self.fields, limits::SCHEMA_FIELDS_MAX, faults);
        faults.within("fields", |faults| {
            let mut seen = std::collections::BTreeSet::new();
            for (index, field) in self.fields.iter().enumerate() {
                faults.within(&index.to_string(), |faults| {
                    if !text::is_identifier(&field.name) {
                        faults.add_at("name", "must be letters, digits and _, not starting with a digit");
                    } else if !seen.insert(&field.name) {
                        faults.add_at("name", "is given twice");
                    }
                    if field.is_unique && !matches!(field.data_type, DataType::Varchar | DataType::Text) {
                        faults.add_at("dataType", "the unique field names a customer: varchar or text");
                    }
                });
            }
            if self.fields.iter().filter(|field| field.is_unique).count() != 1 {
                faults.add("exactly one field must be unique");
            }
        });
        self.check_enrichments(context, findings);
    }

    fn references(&self, _tenant: &TenantCatalog) -> Vec<Thing> {
        Vec::new()
    }

    fn touched(
        _tenant: &TenantCatalog,
        _key: SchemaKey,
        _before: Option<&Self>,
        _after: Option<&Self>,
        effect: &mut Vec<Touched>,
    ) {
        effect.push(Touched::Shared);
    }
}

impl Schema {
    /// The field that names the row's customer.
    pub fn unique_field(&self) -> Option<&SchemaField> {
        self.fields.iter().find(|field| field.is_unique)
    }

    /// Columns that a published flow loads cannot go away.
    fn check_enrichments(&self, context: &Context<'_, Self>, findings: &mut Findings) {
        use crate::model::flow::Node;
        let Some(before) = context.before else { return };
        let tenant = context.tenant;
        for user in tenant.index.users_of_kind(Thing::new(Self::KIND, before.key), EntityKind::Flow) {
            let Some(version) = tenant.current_version(user.key()) else { continue };
            let sources = version.config.all_nodes().into_iter().filter_map(|node| match &node.node {
                Node::Enrich(enrich) => Some(&enrich.sources),
                Node::Inventory(_)
                | Node::MatchCreatives(_)
                | Node::Qualify(_)
                | Node::ContactPolicy(_)
                | Node::Filter(_)
                | Node::Score(_)
                | Node::Rank(_)
                | Node::Group(_)
                | Node::Conditional(_)
                | Node::CallFlow(_)
                | Node::Compute(_)
                | Node::SetProperties(_)
                | Node::Optimize(_)
                | Node::ScoreByExpression(_)
                | Node::Response(_) => None,
            });
            for source in sources.flatten().filter(|source| source.schema_id.0 == before.id) {
                let unique = self.unique_field().is_some_and(|field| field.name == source.lookup_key);
                let gone = source.fields.iter().find(|name| !self.fields.iter().any(|field| field.name == **name));
                if !unique {
                    let message = format!("a published flow looks rows up by {:?}", source.lookup_key);
                    findings.conflicts.add_at("fields", message);
                }
                if let Some(name) = gone {
                    findings.conflicts.add_at("fields", format!("a published flow loads {name:?}"));
                }
            }
        }
    }
}
