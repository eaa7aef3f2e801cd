//! The columns of a segment that depend on more than its offers: made from the shared part, and made again only where that
//! differs from the one they were made from.

use std::sync::Arc;

use super::bitset::{Bits, Members, and, put};
use super::columns::PlanColumns;
use super::flows::Stock;
use super::models::tails;
use super::rule_columns::{rule_columns, wide_columns};
use super::schedule::Schedules;
use super::screens::test_columns;
use super::segment::{Cell, Column, Segment};
use super::shared::Shared;
use super::slots::{Field, Names};
use crate::catalog::TenantCatalog;
use crate::decide::schedule::{LocalHours, OpenHours};
use crate::keys::CategoryKey;
use crate::model::Status;
use crate::model::collection::Collection;
use crate::model::offer::Offer;
use crate::model::record::Field as _;
use crate::time::HOUR_MS;
use crate::value::Value;

impl Segment {
    /// Makes the columns that follow from `shared`. Those made from `was` stay, shared with whoever has them, where
    /// nothing they are made of has changed. O(shared + stale columns).
    pub(crate) fn derive(&mut self, catalog: &TenantCatalog, names: &Names, shared: &Shared, was: Option<&Shared>) {
        if was.is_none_or(|was| was.calendar != shared.calendar) {
            self.follow_calendar(shared);
        }
        if was.is_none_or(|was| was.fatigue != shared.fatigue) {
            self.follow_fatigue(shared);
        }
        self.collections = (0..shared.collections.len())
            .map(|number| match was.and_then(|was| was.same_collection(shared, number)) {
                Some(known) => Arc::clone(&self.collections[known]),
                None => Arc::new(self.collect(catalog, &shared.collections[number].body)),
            })
            .collect();
        let stocks = shared.parts.stocks.values().iter().map(|stock| {
            let known = was.and_then(|was| was.parts.stocks.values().iter().position(|known| known == stock));
            known.map_or_else(|| self.take_stock(stock), |known| Arc::clone(&self.stocks[known]))
        });
        self.stocks = stocks.collect();
        let plans = shared.parts.plans.values().iter().map(|plan| {
            let was = was.filter(|was| !plan.is_relative() || was.largest == shared.largest);
            match was.and_then(|was| was.parts.plans.values().iter().position(|known| known == plan)) {
                Some(known) => Arc::clone(&self.plans[known]),
                None => Arc::new(PlanColumns::new(plan, self, &shared.largest)),
            }
        });
        self.plans = plans.collect();
        let changed = self.follow_fields(names, shared, was);
        let wide = wide_columns(self, shared, was, &changed);
        self.rule_columns = rule_columns(self, shared, &wide, was, &changed);
        self.wide = wide;
        self.tests = test_columns(self, shared, was, &changed);
        self.tails = tails(self, shared, was, &changed);
    }

    fn follow_calendar(&mut self, shared: &Shared) {
        let mut hours = vec![OpenHours::ALWAYS; self.len];
        let mut mandatory = Vec::new();
        for (position, offer) in self.by_key() {
            hours[position as usize] = open_hours(shared, &offer.body);
            if let Some(expires) = offer.body.mandatory_expires_at.as_ref().filter(|_| offer.body.mandatory) {
                mandatory.push((position, shared.calendar.resolve(expires)));
            }
        }
        mandatory.sort_unstable();
        self.schedules = Arc::new(Schedules::new(&hours));
        self.hours = hours.into();
        self.mandatory = mandatory.into();
    }

    fn follow_fatigue(&mut self, shared: &Shared) {
        let (half_life, strength) = shared.fatigue;
        let mut fatigue = vec![(0.0, 0.0); self.len];
        for (position, offer) in self.by_key() {
            let own = &offer.body.fatigue;
            let half_life = own.half_life_hours.unwrap_or(half_life) * HOUR_MS as f64;
            fatigue[position as usize] = (half_life, own.strength.unwrap_or(strength));
        }
        self.fatigue = fatigue.into();
    }

    /// The general offers of a collection.
    fn collect(&self, catalog: &TenantCatalog, collection: &Collection) -> Bits {
        if collection.status != Status::Active {
            return Bits::none(self.len);
        }
        if !collection.offer_ids.is_empty() {
            let listed = collection.offer_ids.iter().filter_map(|id| catalog.offers().key_of(&id.0));
            let mut listed = Bits::of(self.len, listed.filter_map(|key| self.position(key)));
            and(&mut listed.0, &self.general.0);
            return listed;
        }
        let mut all = Bits::clone(&self.general);
        for tag in &collection.all_of {
            match self.tagged.get(tag.as_str()) {
                Some(Members::Many(bits)) => and(&mut all.0, &bits.0),
                Some(Members::Few(few)) => and(&mut all.0, &Bits::of(self.len, few.iter().copied()).0),
                None => return Bits::none(self.len),
            }
        }
        if !collection.any_of.is_empty() {
            let mut any = Bits::none(self.len);
            let tagged = collection.any_of.iter().filter_map(|tag| self.tagged.get(tag.as_str()));
            tagged.for_each(|members| members.or_into(&mut any.0));
            and(&mut all.0, &any.0);
        }
        all
    }

    fn take_stock(&self, stock: &Stock) -> Arc<Bits> {
        let mut bits = Bits::none(self.len);
        match stock {
            Stock::All => return Arc::clone(&self.general),
            Stock::Categories(categories, sub_categories) => {
                let members = categories.iter().filter_map(|key| self.by_category.get(key));
                let more = sub_categories.iter().filter_map(|key| self.by_sub_category.get(key));
                members.chain(more).for_each(|members| members.or_into(&mut bits.0));
            }
            Stock::Named(offers) => {
                let positions = offers.iter().filter_map(|key| self.position(*key));
                positions.for_each(|position| put(&mut bits.0, position, true));
            }
            Stock::Common(stocks) => {
                bits = Bits::clone(&self.general);
                stocks.iter().for_each(|stock| and(&mut bits.0, &self.take_stock(stock).0));
            }
        }
        and(&mut bits.0, &self.general.0);
        Arc::new(bits)
    }

    /// Makes the columns of fields that are read for the first time, or whose cells are computed otherwise than before:
    /// the numbers of the latter.
    fn follow_fields(&mut self, names: &Names, shared: &Shared, was: Option<&Shared>) -> Vec<u16> {
        let renumbered = was.map(|was| shared.renumbered_fields(was)).unwrap_or_default();
        let renamed = was.is_some_and(|was| !category_names(was).eq(category_names(shared)));
        let is_stale = |field: &Field| {
            was.is_none()
                || renumbered.contains(field.name.as_str())
                || renamed && field.built_in && field.name == CATEGORY
        };
        let numbered = || names.fields().iter().enumerate();
        let stale: Vec<(usize, &Field)> =
            numbered().filter(|(number, field)| *number >= self.fields.len() || is_stale(field)).collect();
        if stale.is_empty() {
            return Vec::new();
        }
        let mut columns = vec![vec![Cell::Stored(Value::Null); self.len]; stale.len()];
        let built_in = stale.iter().any(|(_, field)| field.built_in);
        for (position, offer) in self.by_key() {
            let written = if built_in { offer.body.write() } else { Value::Null };
            let category = self.categories[position as usize];
            let computed = category.and_then(|category| shared.computed_of.get(&category));
            let computed = computed.map_or(&[][..], Vec::as_slice);
            for ((_, field), column) in stale.iter().zip(&mut columns) {
                if let Some(reading) = &field.metric {
                    column[position as usize] = Cell::Metric(Arc::new(reading.clone()));
                    continue;
                }
                let stored = match field.name.as_str() {
                    _ if !field.built_in => None,
                    "id" => Some(Value::text(&offer.id)),
                    // Taken by writes in place of the id, and not stored: a category may be renamed.
                    CATEGORY => Some(category_name(shared, category)),
                    name => written.as_map().and_then(|members| members.get(name)).cloned(),
                };
                let custom =
                    || match computed.iter().find(|number| shared.computed[**number as usize].name == field.name) {
                        Some(number) => Cell::Computed(*number),
                        None => Cell::Stored(offer.body.custom_fields.get(&field.name).cloned().unwrap_or_default()),
                    };
                column[position as usize] = stored.map_or_else(custom, Cell::Stored);
            }
        }
        let mut fields = std::mem::take(&mut self.fields).into_vec();
        let mut changed = Vec::new();
        for ((number, _), cells) in stale.iter().zip(columns) {
            let column = Arc::new(Column { cells: cells.into() });
            match fields.get_mut(*number) {
                Some(known) => {
                    *known = column;
                    changed.push(*number as u16);
                }
                None => fields.push(column),
            }
        }
        self.fields = fields.into();
        changed
    }
}

/// The field that is the name of an offer's category.
const CATEGORY: &str = "category";

fn category_names(shared: &Shared) -> impl Iterator<Item = (&CategoryKey, &str)> {
    shared.categories.iter().map(|(key, category)| (key, category.body.name.as_str()))
}

fn category_name(shared: &Shared, category: Option<CategoryKey>) -> Value {
    let found = category.and_then(|category| shared.categories.get(&category));
    found.map_or(Value::Null, |category| Value::text(&category.body.name))
}

/// When an offer may be proposed.
fn open_hours(shared: &Shared, offer: &Offer) -> OpenHours {
    let schedule = &offer.schedule;
    let window = schedule.time_window.as_ref();
    OpenHours {
        from: schedule.start_date.as_ref().map_or(OpenHours::ALWAYS.from, |start| shared.calendar.resolve(start)),
        until: schedule.end_date.as_ref().map_or(OpenHours::ALWAYS.until, |end| shared.calendar.resolve_end(end)),
        local: LocalHours::new(
            &schedule.days_of_week,
            window.map(|window| window.start.0),
            window.map(|window| window.end.0),
        ),
    }
}
