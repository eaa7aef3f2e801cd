//! From the catalogue to a segment.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;

use super::bitset::{Bits, Members, and, put};
use super::checks::Check;
use super::columns::{FULL_WEIGHT, PlanColumns};
use super::flows::Stock;
use super::predicates::Builder;
use super::rules::{Effect, Question, Rule, Selector, require_segments};
use super::schedule::Schedules;
use super::segment::{CapPlan, Cell, ChannelContent, Column, Content, Lists, RuleColumns, Segment};
use super::shared::Shared;
use super::slots::Names;
use super::world::{NULL, OfferWorld, World};
use crate::catalog::TenantCatalog;
use crate::decide::schedule::{LocalHours, OpenHours};
use crate::decide::score::NEUTRAL_PROPENSITY;
use crate::keys::{CategoryKey, ChannelKey, CreativeKey, OfferKey, PlacementKey, RuleKey, SubCategoryKey};
use crate::model::collection::Collection;
use crate::model::offer::{CapScope, CountOn, Enforcement, Offer, OfferKind};
use crate::model::record::Field as _;
use crate::model::{Entity, Status};
use crate::profile::command::CountEvent;
use crate::time::{HOUR_MS, Timestamp};
use crate::value::Value;

type OfferRow = Arc<Entity<OfferKey, Offer>>;

/// Compiles `rows` against `shared`.
pub(crate) fn compile(catalog: &TenantCatalog, shared: &Shared, names: &mut Names, rows: Vec<OfferRow>) -> Segment {
    let offers = in_score_order(catalog, shared, rows);
    let len = offers.len();
    let categories: Box<[_]> = offers.iter().map(|offer| category(catalog, &offer.body)).collect();
    let sub_categories: Box<[_]> = offers.iter().map(|offer| sub_category(catalog, &offer.body)).collect();
    let keys: Box<[OfferKey]> = offers.iter().map(|offer| offer.key).collect();
    let contents = Lists::new(offers.iter().map(|offer| contents(catalog, offer.key)));
    let caps = Lists::new(keys.iter().map(|key| caps(catalog, *key)));
    let (rules, rules_of, rules_of_content) = rules(catalog, names, &keys, &contents);
    let required = Lists::new(offers.iter().map(|offer| {
        match require_segments(names, &offer.body.eligibility.required_segments) {
            Check::Segments(segments) => segments.into_vec(),
            Check::Condition { .. } | Check::Program(_) | Check::Constant(_) => Vec::new(),
        }
    }));
    let preferred = Lists::new(offers.iter().map(|offer| {
        let mut segments: Vec<u32> =
            offer.body.preferred_segments.iter().map(|segment| names.segment(segment)).collect();
        segments.sort_unstable();
        segments.dedup();
        segments
    }));
    let recency = recency(&offers, &rules, &rules_of);
    let (half_life, strength) = shared.fatigue;
    let general = of_general(&offers);
    let hours: Box<[_]> = offers.iter().map(|offer| open_hours(shared, &offer.body)).collect();
    let mut segment = Segment {
        len,
        positions: positions(&keys),
        by_category: members_by(len, &categories),
        by_sub_category: members_by(len, &sub_categories),
        live: Bits::of(len, (0..len as u32).filter(|position| is_live(catalog, &offers[*position as usize].body))),
        excluded: having(&offers, |offer| offer.emergency_excluded),
        schedules: Arc::new(Schedules::new(&hours)),
        hours,
        mandatory: mandatory(shared, &offers),
        content_positions: (0..len as u32)
            .flat_map(|position| contents.range(position).map(move |_| position))
            .collect(),
        content_of: places(&contents, |content| Some(content.key)),
        has_weights: contents.items().iter().any(|content| content.weight != FULL_WEIGHT),
        on_channel: on_channel(len, &contents),
        at_placement: at_placement(len, &contents),
        collections: collect(catalog, shared, &offers, &general),
        stocks: Box::new([]),
        cap_of: places(&caps, |cap: &CapPlan| (cap.scope == CapScope::Profile).then_some(cap.cap)),
        closed: (0..len as u32)
            .filter(|position| caps.of(*position).iter().any(|cap| cap.scope == CapScope::Profile && cap.limit == 0))
            .collect(),
        global_caps: Bits::of(
            len,
            (0..len as u32).filter(|position| caps.of(*position).iter().any(|cap| cap.scope == CapScope::Global)),
        )
        .if_any(),
        fatigue: offers
            .iter()
            .map(|offer| {
                let own = &offer.body.fatigue;
                let half_life = own.half_life_hours.unwrap_or(half_life) * HOUR_MS as f64;
                (half_life, own.strength.unwrap_or(strength))
            })
            .collect(),
        plans: Box::new([]),
        rule_columns: Box::new([]),
        fields: fields(shared, names, &offers, &categories),
        offers,
        keys,
        categories,
        sub_categories,
        general,
        contents,
        rules,
        rules_of,
        rules_of_content,
        recency,
        preferred,
        required,
        caps,
    };
    segment.stocks = shared.parts.stocks.values().iter().map(|stock| take_stock(&segment, stock)).collect();
    segment.plans = plans(&segment, shared);
    segment.rule_columns =
        shared.parts.rules.values().iter().map(|selector| index_rules(&segment, shared, selector)).collect();
    segment
}

/// The scoring plans over a segment.
pub(crate) fn plans(segment: &Segment, shared: &Shared) -> Box<[PlanColumns]> {
    let columns = shared.parts.plans.values().iter().map(|plan| {
        let offers = segment.offers.iter().zip(&segment.categories);
        PlanColumns::new(plan, offers.map(|(offer, category)| (&offer.body, *category)), &shared.largest)
    });
    columns.collect()
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

/// Best first by the tenant's default flow, so that blocks of positions have falling bounds.
fn in_score_order(catalog: &TenantCatalog, shared: &Shared, rows: Vec<OfferRow>) -> Box<[OfferRow]> {
    let flow = &shared.flows[shared.default_flow.unwrap_or(shared.base_flow)];
    let plan = &shared.parts.plans.values()[flow.plan];
    let score = |offer: &Offer| plan.method_terms(offer, category(catalog, offer), 1.0, FULL_WEIGHT, &shared.largest);
    let mut scored: Vec<(f64, OfferRow)> = rows.into_iter().map(|row| (score(&row.body), row)).collect();
    scored.sort_by(|(left_score, left), (right_score, right)| {
        right_score.total_cmp(left_score).then_with(|| tie(left, right))
    });
    scored.into_iter().map(|(_, row)| row).collect()
}

/// Which of two offers with equal scores comes first.
pub(crate) fn tie(left: &Entity<OfferKey, Offer>, right: &Entity<OfferKey, Offer>) -> std::cmp::Ordering {
    let rank = |offer: &Offer| (offer.priority, offer.business_value);
    rank(&right.body).cmp(&rank(&left.body)).then_with(|| left.id.cmp(&right.id))
}

fn category(catalog: &TenantCatalog, offer: &Offer) -> Option<CategoryKey> {
    catalog.categories().key_of(&offer.category_id.as_ref()?.0)
}

fn sub_category(catalog: &TenantCatalog, offer: &Offer) -> Option<SubCategoryKey> {
    catalog.sub_categories().key_of(&offer.sub_category_id.as_ref()?.0)
}

/// Whether an offer and what it lies in are active.
pub(crate) fn is_live(catalog: &TenantCatalog, offer: &Offer) -> bool {
    let category = category(catalog, offer).and_then(|key| catalog.categories().get(key));
    let sub_category = sub_category(catalog, offer).and_then(|key| catalog.sub_categories().get(key));
    offer.status == Status::Active
        && category.is_none_or(|category| category.body.status == Status::Active)
        && sub_category.is_none_or(|sub_category| sub_category.body.status == Status::Active)
}

fn of_general(offers: &[OfferRow]) -> Bits {
    having(offers, |offer| offer.kind == OfferKind::General)
}

fn having(offers: &[OfferRow], holds: impl Fn(&Offer) -> bool) -> Bits {
    let mut bits = Bits::none(offers.len());
    for (position, offer) in offers.iter().enumerate() {
        put(&mut bits.0, position as u32, holds(&offer.body));
    }
    bits
}

fn positions(keys: &[OfferKey]) -> Box<[u32]> {
    let most = keys.iter().map(|key| key.0 as usize + 1).max().unwrap_or(0);
    let mut positions = vec![u32::MAX; most];
    for (position, key) in keys.iter().enumerate() {
        positions[key.0 as usize] = position as u32;
    }
    positions.into()
}

fn members_by<K: Ord + Copy>(len: usize, column: &[Option<K>]) -> BTreeMap<K, Members> {
    let mut lists = BTreeMap::<K, Vec<u32>>::new();
    for (position, key) in column.iter().enumerate() {
        if let Some(key) = key {
            lists.entry(*key).or_default().push(position as u32);
        }
    }
    lists.into_iter().map(|(key, positions)| (key, Members::new(len, positions))).collect()
}

fn mandatory(shared: &Shared, offers: &[OfferRow]) -> Box<[(u32, Timestamp)]> {
    let until = |offer: &OfferRow| {
        let expires = offer.body.mandatory_expires_at.as_ref().filter(|_| offer.body.mandatory)?;
        Some(shared.calendar.resolve(expires))
    };
    offers.iter().zip(0..).filter_map(|(offer, position)| Some((position, until(offer)?))).collect()
}

fn contents(catalog: &TenantCatalog, offer: OfferKey) -> Vec<Content> {
    let compile = |creative: &Arc<Entity<CreativeKey, _>>| {
        let body: &crate::model::creative::Creative = &creative.body;
        let placement = match &body.placement_id {
            Some(placement) => catalog.placements().key_of(&placement.0)?,
            None => PlacementKey::NONE,
        };
        Some(Content {
            key: creative.key,
            channel: catalog.channels().key_of(&body.channel_id.0)?,
            placement,
            weight: body.weight.0,
            split: body.split,
            entity: Arc::clone(creative),
        })
    };
    catalog.creatives_of(offer).filter(|creative| creative.body.status == Status::Active).filter_map(compile).collect()
}

/// (key, position, place in the lists), sorted by key.
fn places<T, K: Ord + Copy>(lists: &Lists<T>, key: impl Fn(&T) -> Option<K>) -> Box<[(K, u32, u32)]> {
    let mut found = Vec::new();
    let mut position = 0;
    for (place, item) in lists.items().iter().enumerate() {
        while lists.range(position).end <= place {
            position += 1;
        }
        found.extend(key(item).map(|key| (key, position, place as u32)));
    }
    found.sort_unstable_by_key(|(key, _, _)| *key);
    found.into()
}

fn on_channel(len: usize, contents: &Lists<Content>) -> BTreeMap<ChannelKey, ChannelContent> {
    let mut channels = BTreeMap::<ChannelKey, ChannelContent>::new();
    for position in 0..len as u32 {
        for content in contents.of(position) {
            let channel = channels
                .entry(content.channel)
                .or_insert_with(|| ChannelContent { any: Bits::none(len), open: Bits::none(len) });
            put(&mut channel.any.0, position, true);
            if content.placement == PlacementKey::NONE {
                put(&mut channel.open.0, position, true);
            }
        }
    }
    channels
}

fn at_placement(len: usize, contents: &Lists<Content>) -> BTreeMap<PlacementKey, Bits> {
    let mut placements = BTreeMap::<PlacementKey, Bits>::new();
    for position in 0..len as u32 {
        for content in contents.of(position).iter().filter(|content| content.placement != PlacementKey::NONE) {
            put(&mut placements.entry(content.placement).or_insert_with(|| Bits::none(len)).0, position, true);
        }
    }
    placements
}

/// The general offers of each collection.
fn collect(catalog: &TenantCatalog, shared: &Shared, offers: &[OfferRow], general: &Bits) -> Box<[Bits]> {
    let mut tagged = HashMap::<&str, Vec<u32>>::new();
    let mut by_key = HashMap::<OfferKey, u32>::new();
    for (offer, position) in offers.iter().zip(0..) {
        by_key.insert(offer.key, position);
        for tag in &offer.body.tags {
            tagged.entry(tag.as_str()).or_default().push(position);
        }
    }
    let with = |tag: &String| tagged.get(tag.as_str()).map_or(&[][..], Vec::as_slice).iter().copied();
    let members = |collection: &Collection| {
        if collection.status != Status::Active {
            return Bits::none(offers.len());
        }
        if !collection.offer_ids.is_empty() {
            let listed = collection.offer_ids.iter().filter_map(|id| catalog.offers().key_of(&id.0));
            let mut listed = Bits::of(offers.len(), listed.filter_map(|key| by_key.get(&key).copied()));
            and(&mut listed.0, &general.0);
            return listed;
        }
        let mut all = general.clone();
        for tag in &collection.all_of {
            and(&mut all.0, &Bits::of(offers.len(), with(tag)).0);
        }
        if !collection.any_of.is_empty() {
            and(&mut all.0, &Bits::of(offers.len(), collection.any_of.iter().flat_map(with)).0);
        }
        all
    };
    shared.collections.iter().map(|collection| members(&collection.body)).collect()
}

fn take_stock(segment: &Segment, stock: &Stock) -> Bits {
    let mut bits = match stock {
        Stock::All => return segment.general.clone(),
        Stock::Categories(..) | Stock::Named(_) => Bits::none(segment.len),
    };
    match stock {
        Stock::All => {}
        Stock::Categories(categories, sub_categories) => {
            categories.iter().filter_map(|key| segment.by_category.get(key)).for_each(|m| m.or_into(&mut bits.0));
            sub_categories
                .iter()
                .filter_map(|key| segment.by_sub_category.get(key))
                .for_each(|members| members.or_into(&mut bits.0));
        }
        Stock::Named(offers) => {
            offers
                .iter()
                .filter_map(|key| segment.position(*key))
                .for_each(|position| put(&mut bits.0, position, true));
        }
    }
    and(&mut bits.0, &segment.general.0);
    bits
}

fn caps(catalog: &TenantCatalog, offer: OfferKey) -> Vec<CapPlan> {
    let plan = |cap: &crate::catalog::CapDefinition| CapPlan {
        cap: cap.cap,
        scope: cap.scope,
        limit: cap.limit,
        cost: cap.cost,
        per: cap.per,
        window: cap.window,
        count_on: match &cap.count_on {
            CountOn::Decision => Some(CountEvent::Decision),
            CountOn::Impression => Some(CountEvent::Impression),
            CountOn::Outcome(word) => catalog.outcomes().get(word).map(|outcome| CountEvent::Outcome(outcome.key)),
        },
        placement: cap.placement,
        strict: cap.enforcement == Enforcement::Strict,
        reservation_seconds: cap.reservation_seconds,
        origin: cap.origin,
    };
    catalog.caps(offer).iter().map(plan).collect()
}

/// The active rules that name offers or creatives of the segment, each once, with who they bind.
fn rules(
    catalog: &TenantCatalog,
    names: &mut Names,
    keys: &[OfferKey],
    contents: &Lists<Content>,
) -> (Box<[Rule]>, Lists<u32>, Lists<u32>) {
    let mut rules: Vec<Rule> = Vec::new();
    let mut numbers = HashMap::<RuleKey, u32>::new();
    let mut compile = |key: RuleKey| -> Option<u32> {
        if let Some(number) = numbers.get(&key) {
            return Some(*number);
        }
        let entity = catalog.rules().get(key).filter(|rule| rule.body.status == Status::Active)?;
        let rule = Rule::new(catalog, names, entity)?;
        let number = rules.len() as u32;
        rules.push(rule);
        numbers.insert(key, number);
        Some(number)
    };
    let mut lists_of = Vec::with_capacity(keys.len());
    for key in keys {
        lists_of.push(catalog.rules_of(*key).filter_map(|rule| compile(rule.key)).collect::<Vec<u32>>());
    }
    let mut lists_of_content = Vec::with_capacity(contents.items().len());
    for content in contents.items() {
        let naming = catalog.rules_of_creative(content.key);
        lists_of_content.push(naming.filter_map(|rule| compile(rule.key)).collect::<Vec<u32>>());
    }
    for list in lists_of.iter_mut().chain(&mut lists_of_content) {
        list.sort_by_key(|number| rules[*number as usize].order());
    }
    (rules.into(), Lists::new(lists_of), Lists::new(lists_of_content))
}

/// Offers that a hard recency rule of their own may bar, or their `eligibility`.
fn recency(offers: &[OfferRow], rules: &[Rule], rules_of: &Lists<u32>) -> Option<Bits> {
    let asks = |number: &u32| {
        let rule = &rules[*number as usize];
        matches!(rule.question, Question::Recency { .. }) && rule.effect == Effect::Hard
    };
    let barred = |position: &u32| {
        offers[*position as usize].body.eligibility.recency.is_some() || rules_of.of(*position).iter().any(asks)
    };
    Bits::of(offers.len(), (0..offers.len() as u32).filter(barred)).if_any()
}

fn fields(shared: &Shared, names: &Names, offers: &[OfferRow], categories: &[Option<CategoryKey>]) -> Box<[Column]> {
    let mut columns: Vec<Vec<Cell>> = names.fields().iter().map(|_| Vec::with_capacity(offers.len())).collect();
    if columns.is_empty() {
        return Box::new([]);
    }
    for (offer, category) in offers.iter().zip(categories) {
        let written = offer.body.write();
        let computed = category.and_then(|category| shared.computed_of.get(&category)).map_or(&[][..], Vec::as_slice);
        for (field, column) in names.fields().iter().zip(&mut columns) {
            let built_in = || match field.name.as_str() {
                "id" => Some(Value::text(&offer.id)),
                // Taken by writes in place of the id, and not stored: a category may be renamed.
                "category" => Some(category_name(shared, *category)),
                name => written.as_map().and_then(|members| members.get(name)).cloned(),
            };
            let custom = || {
                let number = computed.iter().find(|number| shared.computed[**number as usize].name == field.name);
                match number {
                    Some(number) => Cell::Computed(*number),
                    None => Cell::Stored(offer.body.custom_fields.get(&field.name).cloned().unwrap_or_default()),
                }
            };
            column.push(match field.built_in.then(built_in).flatten() {
                Some(value) => Cell::Stored(value),
                None => custom(),
            });
        }
    }
    columns.into_iter().map(|cells| Column { cells: cells.into() }).collect()
}

fn category_name(shared: &Shared, category: Option<CategoryKey>) -> Value {
    let found = category.and_then(|category| shared.categories.get(&category));
    found.map_or(Value::Null, |category| Value::text(&category.body.name))
}

fn index_rules(segment: &Segment, shared: &Shared, selector: &Selector<RuleKey>) -> RuleColumns {
    let world = World { facts: Vec::new(), segments: Vec::new(), now: Timestamp(0) };
    debug_assert!(NULL.is_null());
    let at = |position| OfferWorld::new(&world, shared, segment, position);
    let mut index = Builder::new(segment.len);
    let mut late = Bits::none(segment.len);
    let mut soft = Bits::none(segment.len);
    let mut boosts = vec![0.0f64; segment.len];
    let mut require = |question: &Question, position: u32| match question {
        Question::Request(check) => index.require(check, position),
        Question::Recency { .. } => {}
        Question::Program(_) | Question::Field { .. } => match question.settled(&at(position)) {
            Some(passes) => index.require(&Check::Constant(passes), position),
            None => put(&mut late.0, position, true),
        },
    };
    let selected = |rule: &Rule| selector.selects(&rule.key);
    for position in 0..segment.len as u32 {
        for number in segment.rules_of.of(position) {
            let rule = &segment.rules[*number as usize];
            match rule.effect {
                _ if !selected(rule) => {}
                Effect::Hard => require(&rule.question, position),
                Effect::Match { .. } => put(&mut soft.0, position, true),
                Effect::Ranking { boost } => {
                    put(&mut soft.0, position, true);
                    boosts[position as usize] += raise(boost);
                }
            }
        }
        let required = segment.required.of(position);
        if !required.is_empty() {
            require(&Question::Request(Check::Segments(required.into())), position);
        }
        let threshold = segment.offers[position as usize].body.eligibility.propensity_threshold;
        if threshold.is_some_and(|least| NEUTRAL_PROPENSITY < least) {
            require(&Question::Request(Check::Constant(false)), position);
        }
    }
    for (rule, scopes) in shared.wide_rules.iter().filter(|(rule, _)| selected(rule) && rule.effect == Effect::Hard) {
        let mut members = Bits::none(segment.len);
        match rule.question {
            Question::Request(_) | Question::Recency { .. } => continue,
            Question::Program(_) | Question::Field { .. } => {}
        }
        if scopes.global {
            members = Bits::all(segment.len);
        }
        let (categories, sub_categories) = (&segment.by_category, &segment.by_sub_category);
        scopes.categories.iter().filter_map(|key| categories.get(key)).for_each(|m| m.or_into(&mut members.0));
        scopes.sub_categories.iter().filter_map(|key| sub_categories.get(key)).for_each(|m| m.or_into(&mut members.0));
        super::bitset::ones(&members.0).for_each(|position| require(&rule.question, position));
    }
    let (creative_index, late_creatives) = index_creatives(segment, selector, &mut soft, &mut boosts);
    let wide_boost: f64 = shared
        .wide_rules
        .iter()
        .filter(|(rule, _)| selected(rule))
        .map(|(rule, _)| match rule.effect {
            Effect::Ranking { boost } => raise(boost),
            Effect::Hard | Effect::Match { .. } => 0.0,
        })
        .sum();
    let own_boost = boosts.iter().copied().fold(0.0, f64::max);
    let boost_bound = if own_boost + wide_boost > 0.0 { own_boost + wide_boost + BOUND_SLACK } else { 0.0 };
    RuleColumns { index: index.build(), creative_index, late: late.if_any(), late_creatives, soft, boost_bound }
}

/// More than logarithms and sums can be off by.
const BOUND_SLACK: f64 = 1e-9;

fn raise(boost: f64) -> f64 {
    libm::log(boost.max(1.0))
}

fn index_creatives(
    segment: &Segment,
    selector: &Selector<RuleKey>,
    soft: &mut Bits,
    boosts: &mut [f64],
) -> (super::predicates::PredicateIndex, Box<[u32]>) {
    let mut index = Builder::new(segment.contents.items().len());
    let mut late = Vec::new();
    for position in 0..segment.len as u32 {
        let mut best = 0.0f64;
        for place in segment.contents.range(position) {
            let mut raised = 0.0;
            for number in segment.rules_of_content.of(place as u32) {
                let rule = &segment.rules[*number as usize];
                match (&rule.question, rule.effect) {
                    _ if !selector.selects(&rule.key) => {}
                    (Question::Request(check), Effect::Hard) => index.require(check, place as u32),
                    (Question::Program(_) | Question::Field { .. } | Question::Recency { .. }, Effect::Hard) => {
                        late.push(position);
                    }
                    (_, Effect::Match { .. }) => put(&mut soft.0, position, true),
                    (_, Effect::Ranking { boost }) => {
                        put(&mut soft.0, position, true);
                        raised += raise(boost);
                    }
                }
            }
            best = best.max(raised);
        }
        boosts[position as usize] += best;
    }
    late.dedup();
    (index.build(), late.into())
}
