//! Categories and sub-categories.

use crate::catalog::command::EntityKind;
use crate::catalog::entity::{Authored, Context, Findings, resolve, shown, stored_in, thing_of};
use crate::catalog::index::Thing;
use crate::catalog::refusal::Touched;
use crate::catalog::tenant::TenantCatalog;
use crate::catalog::validate::{custom_fields, text};
use crate::keys::{CategoryKey, SubCategoryKey};
use crate::model::category::{Category, SubCategory};
use crate::value::Value;

/// Most categories a tenant has.
pub(crate) const CATEGORIES_MAX: usize = 10_000;

impl Authored for Category {
    stored_in!(categories: CategoryKey, EntityKind::Category, at most CATEGORIES_MAX);
    const UNIQUE_NAME: bool = true;
    const READ_ONLY: &'static [&'static str] = &["subCategories"];

    fn stand_in() -> Value {
        Value::map([("name", Value::text("-"))])
    }

    fn check(&mut self, _context: &Context<'_, Self>, findings: &mut Findings) {
        let faults = &mut findings.faults;
        text::check_name("name", &self.name, faults);
        text::check_description(&self.description, faults);
        text::check_length("icon", &self.icon, crate::limits::WORD_CHARS_MAX, faults);
        text::check_length("color", &self.color, crate::limits::WORD_CHARS_MAX, faults);
        custom_fields::check_schema(&self.custom_fields, faults);
    }

    fn references(&self, _tenant: &TenantCatalog) -> Vec<Thing> {
        Vec::new()
    }

    fn touched(
        tenant: &TenantCatalog,
        key: CategoryKey,
        before: Option<&Self>,
        after: Option<&Self>,
        effect: &mut Vec<Touched>,
    ) {
        let read = |body: &Self| (body.name.clone(), body.status, body.custom_fields.clone());
        if before.map(read) != after.map(read) {
            touch_offers(tenant, Thing::new(Self::KIND, key), effect);
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
        let siblings = tenant
            .index
            .users_of_kind(Thing::new(EntityKind::Category, category), EntityKind::SubCategory)
            .map(Thing::key::<SubCategoryKey>)
            .filter(|key| Some(*key) != context.key())
            .filter_map(|key| tenant.sub_categories.get(key));
        if siblings.into_iter().any(|row| row.body.name == self.name) {
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

    fn touched(
        tenant: &TenantCatalog,
        key: SubCategoryKey,
        before: Option<&Self>,
        after: Option<&Self>,
        effect: &mut Vec<Touched>,
    ) {
        let read = |body: &Self| (body.name.clone(), body.status);
        if before.map(read) != after.map(read) {
            touch_offers(tenant, Thing::new(Self::KIND, key), effect);
        }
    }
}

fn touch_offers(tenant: &TenantCatalog, category: Thing, effect: &mut Vec<Touched>) {
    let offers = tenant.index.users_of_kind(category, EntityKind::Offer).map(|user| Touched::Offer(user.key()));
    effect.extend(offers.take(Touched::LISTED_OFFERS_MAX + 1));
}
