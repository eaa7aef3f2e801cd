//! What reads answer: whole objects, pages of them.

use std::sync::Arc;

use crate::calendar::iso;
use crate::catalog::command::EntityKind;
use crate::catalog::entity::{Authored, for_kind};
use crate::catalog::index::Thing;
use crate::catalog::table::TableKey;
use crate::catalog::tenant::TenantCatalog;
use crate::limits;
use crate::model::record::Field;
use crate::model::{Entity, Status};
use crate::value::Value;

/// Which entities a list shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only those in this status.
    pub status: Option<Status>,
    /// Only those of this category (offers, sub-categories), by id or exact name.
    pub category_id: Option<String>,
    /// Only those with any of these tags (offers); empty = all.
    pub tags: Vec<String>,
    /// At most so many, 1–1,000; default 100.
    pub limit: Option<usize>,
    /// Go on after this, from [`Page::next_cursor`].
    pub cursor: Option<String>,
}

/// A stretch of a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Whole objects, in the order they were made.
    pub items: Vec<Value>,
    /// Where to go on; `None` at the end.
    pub next_cursor: Option<String>,
}

/// A cursor that no list gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cursor is not one that a list gave")]
pub struct BadCursor;

impl TenantCatalog {
    /// The whole object with this id: body, `id`, `createdAt`, `updatedAt`, `revision`. O(log n + its size).
    pub fn get(&self, kind: EntityKind, id: &str) -> Option<Value> {
        for_kind!(kind, Body => Some(self.show(Body::table(self).by_id(id)?)))
    }

    /// The id of the one thing with this id, key or exact name.
    pub fn find(&self, kind: EntityKind, reference: &str) -> Option<String> {
        let by_key = match kind {
            EntityKind::Flow => self.flow_by_key(reference).map(|row| row.id.clone()),
            EntityKind::Activity => self.activity(reference).map(|row| row.id.clone()),
            EntityKind::Category
            | EntityKind::SubCategory
            | EntityKind::Offer
            | EntityKind::Creative
            | EntityKind::Channel
            | EntityKind::Placement
            | EntityKind::Collection
            | EntityKind::Rule
            | EntityKind::Policy
            | EntityKind::Schema
            | EntityKind::Guardrail
            | EntityKind::Model
            | EntityKind::Metric => None,
        };
        by_key.or_else(|| {
            for_kind!(kind, Body => {
                let table = Body::table(self);
                table.by_id(reference).or_else(|| table.by_name(reference)).map(|row| row.id.clone())
            })
        })
    }

    /// A page of the entities that pass `filter`, oldest first. O(rows looked at); a filter may look at all.
    ///
    /// # Errors
    /// If the cursor is not one of ours.
    pub fn list(&self, kind: EntityKind, filter: &Filter) -> Result<Page, BadCursor> {
        for_kind!(kind, Body => self.list_of::<Body>(filter))
    }

    /// Number of entities of a kind.
    pub fn count(&self, kind: EntityKind) -> usize {
        for_kind!(kind, Body => Body::table(self).len())
    }

    /// Tenant settings as an object with `revision` and `updatedAt`.
    pub fn settings_value(&self) -> Value {
        let Value::Map(members) = self.state.settings.write() else { unreachable!("records write maps") };
        let mut members = Arc::unwrap_or_clone(members);
        members.insert(Arc::from("revision"), Value::Number(self.state.settings_revision.0 as f64));
        members.insert(Arc::from("updatedAt"), Value::text(iso(self.state.settings_updated_at)));
        Value::Map(Arc::new(members))
    }

    /// The published versions of a flow, oldest first: `{version, publishedAt, draftConfig}`.
    pub fn versions_value(&self, flow_id: &str) -> Option<Value> {
        let key = self.flows.key_of(flow_id)?;
        let shown = self.flow_versions(key).iter().map(|version| {
            Value::map([
                ("version", Value::Number(f64::from(version.number))),
                ("publishedAt", Value::text(iso(version.published_at))),
                ("draftConfig", version.source.clone()),
            ])
        });
        Some(Value::list(shown))
    }

    fn list_of<T: Authored>(&self, filter: &Filter) -> Result<Page, BadCursor> {
        let after = match &filter.cursor {
            None => None,
            Some(cursor) => Some(cursor.parse().ok().and_then(T::Key::from_index).ok_or(BadCursor)?),
        };
        let limit = filter.limit.unwrap_or(limits::PAGE_ITEMS_DEFAULT).clamp(1, limits::PAGE_ITEMS_MAX);
        let category = filter.category_id.as_ref().map(|category| {
            let found = self.find(EntityKind::Category, category).and_then(|id| self.categories.key_of(&id));
            found.map(|key| Thing::new(EntityKind::Category, key))
        });
        let mut page = Page::default();
        let mut last = None;
        for row in T::table(self).iter_after(after) {
            let in_category =
                category.is_none_or(|category| category.is_some_and(|key| row.body.references(self).contains(&key)));
            let shown = filter.status.is_none_or(|status| row.body.status() == status)
                && in_category
                && self.has_any_tag::<T>(row, &filter.tags);
            if !shown {
                continue;
            }
            if page.items.len() == limit {
                page.next_cursor = last.map(|key: T::Key| key.index().to_string());
                break;
            }
            page.items.push(self.show(row));
            last = Some(row.key);
        }
        Ok(page)
    }

    fn has_any_tag<T: Authored>(&self, row: &Entity<T::Key, T>, tags: &[String]) -> bool {
        let carried = || self.offers.by_id(&row.id).map_or(&[] as &[String], |offer| &offer.body.tags);
        tags.is_empty() || (T::KIND == EntityKind::Offer && carried().iter().any(|tag| tags.contains(tag)))
    }

    /// The whole object of a row.
    fn show<T: Authored>(&self, row: &Entity<T::Key, T>) -> Value {
        let Value::Map(members) = row.body.write() else { unreachable!("records write maps") };
        let mut members = Arc::unwrap_or_clone(members);
        let mut add = |name: &str, value: Value| drop(members.insert(Arc::from(name), value));
        add("id", Value::text(&row.id));
        add("createdAt", Value::text(iso(row.created_at)));
        add("updatedAt", Value::text(iso(row.updated_at)));
        add("revision", Value::Number(row.revision.0 as f64));
        let thing = Thing::new(T::KIND, row.key);
        match T::KIND {
            EntityKind::Category => add("subCategories", self.show_sub_categories(thing)),
            EntityKind::Offer => {
                let category = self.offers.by_id(&row.id).and_then(|offer| offer.body.category_id.as_ref());
                let category = category.and_then(|id| self.categories.by_id(&id.0));
                add("category", category.map_or(Value::Null, |category| Value::text(&category.body.name)));
            }
            EntityKind::Flow => {
                let version = self.current_version(thing.key());
                let number = version.map_or(Value::Null, |version| Value::Number(f64::from(version.number)));
                add("decisionFlowVersion", number);
                let published = version.map_or(Value::Null, |version| Value::text(iso(version.published_at)));
                add("publishedAt", published);
            }
            EntityKind::SubCategory
            | EntityKind::Creative
            | EntityKind::Channel
            | EntityKind::Placement
            | EntityKind::Collection
            | EntityKind::Activity
            | EntityKind::Rule
            | EntityKind::Policy
            | EntityKind::Schema
            | EntityKind::Guardrail
            | EntityKind::Model
            | EntityKind::Metric => {}
        }
        Value::Map(Arc::new(members))
    }

    fn show_sub_categories(&self, category: Thing) -> Value {
        let users = self.index.users_of_kind(category, EntityKind::SubCategory);
        let mut rows: Vec<_> = users.filter_map(|user| self.sub_categories.get(user.key())).collect();
        rows.sort_by_key(|row| (row.body.ordinal, row.key));
        Value::list(rows.into_iter().map(|row| self.show(row)))
    }
}
