//! Categories and sub-categories.

use std::collections::BTreeSet;

use crate::catalog::command::EntityKind;
use crate::catalog::entity::{Authored, Context, Findings, resolve, shown, stored_in, thing_of};
use crate::catalog::index::Thing;
use crate::catalog::refusal::Touched;
use crate::catalog::tenant::TenantCatalog;
use crate::catalog::validate::condition::Kind;
use crate::catalog::validate::{custom_fields, formula, text};
use crate::keys::{CategoryKey, SubCategoryKey};
use crate::model::category::{Category, CustomFieldType, SubCategory};
use crate::value::Value;

/// Most categories a tenant has.
pub(crate) const CATEGORIES_MAX: usize = 10_000;

impl Authored for Category {
    stored_in!(categories: CategoryKey, EntityKind::Category, at most CATEGORIES_MAX);
    const UNIQUE_NAME: bool = true;
    const READ_ONLY: &'static [&'static str] = &["subCategories"];
    // Formulas read the other fields.
    const DEPENDENT: &'static [(&'static str, &'static str)] = &[("customFields", "customFields")];

    fn stand_in() -> Value {
        Value::map([("name", Value::text("-"))])
    }

    fn check(&mut self, context: &Context<'_, Self>, findings: &mut Findings) {
        let faults = &mut findings.faults;
        text::check_name("name", &self.name, faults);
        text::check_description(&self.description, faults);
        text::check_length("icon", &self.icon, crate::limits::WORD_CHARS_MAX, faults);
        text::check_length("color", &self.color, crate::limits::WORD_CHARS_MAX, faults);
        custom_fields::check_schema(context.tenant, &self.custom_fields, faults);
        faults.within("customFields", |faults| formula::check_reads(context.tenant, &names_read(self), faults));
    }

    fn references(&self, _tenant: &TenantCatalog) -> Vec<Thing> {
        Vec::new()
    }

    fn reindex(tenant: &mut TenantCatalog, _key: CategoryKey, before: Option<&Self>, after: Option<&Self>) {
        if before.map(|body| &body.custom_fields) == after.map(|body| &body.custom_fields) {
            return;
        }
        let reads = |body: Option<&Self>| body.map(names_read).unwrap_or_default();
        tenant.index.reread(&reads(before), reads(after));
        let fields = |body: Option<&Self>| -> BTreeSet<(String, Kind)> {
            let fields = body.into_iter().flat_map(|body| &body.custom_fields);
            fields.map(|field| (field.name.clone(), Kind::of_field(field))).collect()
        };
        tenant.index.reschema(&fields(before), fields(after));
    }

    fn touched(
        _tenant: &TenantCatalog,
        _key: CategoryKey,
        before: Option<&Self>,
        after: Option<&Self>,
        effect: &mut Vec<Touched>,
    ) {
        let read = |body: &Self| (body.name.clone(), body.status, body.custom_fields.clone());
        if before.map(read) != after.map(read) {
            effect.push(Touched::Shared);
        }
    }
}

impl Authored for SubCategory {
    stored_in!(sub_categories: SubCategoryKey, EntityKind::SubCategory, at most 100_000);
    const UNIQUE_NAME: bool = false;

    fn stand_in() -> Value {
        Value::map([("name", Value::text("-")), ("categoryId", Value::text("-"))])
    }

    fn check(&mut self, context: &Context<'_, Self>, findings: &mut Findings) {
        let tenant = context.tenant;
        text::check_name("name", &self.name, &mut findings.faults);
        text::check_description(&self.description, &mut findings.faults);
        let category =
            findings.faults.within("categoryId", |faults| resolve::<Category>(tenant, &mut self.category_id, faults));
        let Some(category) = category else { return };
        let namesake = tenant.index.sub_category_names.get(&(category, self.name.clone()));
        if namesake.is_some_and(|key| Some(*key) != context.key()) {
            let message = format!("another sub-category of the category is named {:?}", shown(&self.name));
            findings.conflicts.add_at("name", message);
        }
        if let Some(before) = context.before
            && before.body.category_id != self.category_id
            && tenant.index.users(Thing::new(Self::KIND, before.key)).next().is_some()
        {
            findings.conflicts.add_at("categoryId", "cannot change while something refers to the sub-category");
        }
    }

    fn references(&self, tenant: &TenantCatalog) -> Vec<Thing> {
        thing_of::<Category>(tenant, &self.category_id).into_iter().collect()
    }

    fn reindex(tenant: &mut TenantCatalog, key: SubCategoryKey, before: Option<&Self>, after: Option<&Self>) {
        let place = |tenant: &TenantCatalog, body: &Self| {
            let category = tenant.categories.key_of(&body.category_id.0)?;
            Some((category, body.name.clone()))
        };
        if let Some(place) = before.and_then(|body| place(tenant, body)) {
            tenant.index.sub_category_names.remove(&place);
        }
        if let Some(place) = after.and_then(|body| place(tenant, body)) {
            tenant.index.sub_category_names.insert(place, key);
        }
    }

    fn touched(
        _tenant: &TenantCatalog,
        _key: SubCategoryKey,
        before: Option<&Self>,
        after: Option<&Self>,
        effect: &mut Vec<Touched>,
    ) {
        let read = |body: &Self| (body.name.clone(), body.status);
        if before.map(read) != after.map(read) {
            effect.push(Touched::Shared);
        }
    }
}

/// The names that a category's formulas read.
fn names_read(category: &Category) -> BTreeSet<String> {
    let formulas = category.custom_fields.iter().filter(|field| field.field_type == CustomFieldType::Computed);
    formulas.filter_map(|field| field.formula.as_deref()).flat_map(formula::names_read).collect()
}
