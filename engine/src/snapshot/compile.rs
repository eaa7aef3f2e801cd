//! From the catalogue to a segment: the columns that follow from the offers alone. Offers are walked by key, which is how
//! they lie in memory, and what is found is put in its position.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;

use super::bitset::{Bits, Members, put};
use super::checks::Check;
use super::columns::FULL_WEIGHT;
use super::rules::{Effect, Question, Rule, require_segments};
use super::schedule::Schedules;
use super::segment::{CapPlan, ChannelContent, Collected, Content, Lists, Positions, Segment, TypedContent};
use super::shared::Shared;
use super::slots::Names;
use crate::catalog::tenant::OfferUser;
use crate::catalog::{CapDefinition, TenantCatalog};
use crate::decide::score::NEUTRAL_PROPENSITY;
use crate::keys::{CategoryKey, ChannelKey, CreativeKey, OfferKey, PlacementKey, RuleKey, SubCategoryKey};
use crate::model::creative::Creative;
use crate::model::offer::{CapScope, CountOn, Enforcement, Offer, OfferKind};
use crate::model::{Entity, Status};
use crate::profile::command::CountEvent;

type OfferRow = Arc<Entity<OfferKey, Offer>>;

/// Compiles `rows`, which come by key, against `shared`.
pub(crate) fn compile(catalog: &TenantCatalog, shared: &Shared, names: &mut Names, rows: &[OfferRow]) -> Segment {
    let len = rows.len();
    let homes: Vec<_> =
        rows.iter().map(|row| (category(catalog, &row.body), sub_category(catalog, &row.body))).collect();
    let order = in_score_order(shared, rows, &homes);
    let positions = inverse(&order);
    let facts = Facts::new(catalog, names, rows, &positions);
    let keys: Vec<OfferKey> = rows.iter().map(|row| row.key).collect();
    let (contents, rules, rules_of) = users(catalog, names, &keys);
    let contents = contents.arrange(&order);
    let content_of = places(&contents, |content| Some(content.key));
    let (rules, rules_of_content) = rules_of_contents(catalog, names, rules, &content_of, contents.items().len());
    let caps = caps(catalog, &keys).arrange(&order);
    let categories: Arc<[_]> = order.iter().map(|row| homes[*row as usize].0).collect();
    let sub_categories: Arc<[_]> = order.iter().map(|row| homes[*row as usize].1).collect();
    let capped = |holds: fn(&CapPlan) -> bool| {
        let caps = &caps;
        (0..len as u32).filter(move |position| caps.of(*position).iter().any(holds))
    };
    let rules_of = rules_of.arrange(&order);
    let recency = recency(rows, &order, &rules, &rules_of);
    let mut segment = Segment {
        len,
        offers: order.iter().map(|row| Arc::clone(&rows[*row as usize])).collect(),
        keys: order.iter().map(|row| keys[*row as usize]).collect(),
        positions: Positions::new(keys.iter().copied().zip(positions).collect()),
        by_category: Arc::new(members_by(len, &categories)),
        by_sub_category: Arc::new(members_by(len, &sub_categories)),
        categories,
        sub_categories,
        general: Arc::new(facts.general),
        live: Arc::new(facts.live),
        excluded: Arc::new(facts.excluded),
        tagged: Arc::new(facts.tagged),
        schedules: Arc::new(Schedules::new(&[])),
        hours: Arc::default(),
        mandatory: Arc::default(),
        content_positions: (0..len as u32)
            .flat_map(|position| contents.range(position).map(move |_| position))
            .collect(),
        content_of,
        has_weights: contents.items().iter().any(|content| content.weight != FULL_WEIGHT),
        on_channel: Arc::new(on_channel(len, &contents)),
        at_placement: Arc::new(at_placement(len, &contents)),
        contents,
        collections: Box::default(),
        stocks: Box::default(),
        rules,
        rules_of,
        rules_of_content,
        recency,
        wide: Box::default(),
        rule_columns: Box::default(),
        tests: Box::default(),
        tails: Box::default(),
        preferred: facts.preferred.arrange(&order),
        required: facts.required.arrange(&order),
        fields: Box::default(),
        cap_of: places(&caps, |cap: &CapPlan| (cap.scope == CapScope::Profile).then_some(cap.cap)),
        closed: capped(|cap| cap.scope == CapScope::Profile && cap.limit == 0).collect(),
        global_caps: Bits::of(len, capped(|cap| cap.scope == CapScope::Global)).if_any().map(Arc::new),
        caps,
        fatigue: Arc::default(),
        plans: Box::default(),
    };
    segment.derive(catalog, names, shared, None);
    segment
}

/// Rows by position: best first by the tenant's default flow, so that blocks of positions have falling bounds. What ties
/// goes by priority and business value; who comes first in the end is not decided here.
fn in_score_order(
    shared: &Shared,
    rows: &[OfferRow],
    homes: &[(Option<CategoryKey>, Option<SubCategoryKey>)],
) -> Vec<u32> {
    let plan = shared.default_plan();
    let score = |(row, (category, _)): (&OfferRow, &(Option<CategoryKey>, _))| {
        let offer = &row.body;
        let score = plan.terms(offer, *category, NEUTRAL_PROPENSITY, 1.0, FULL_WEIGHT, &shared.largest);
        (score, (offer.priority, offer.business_value))
    };
    let mut scored: Vec<_> = rows.iter().zip(homes).map(score).zip(0..).collect();
    scored.sort_unstable_by(|((left_score, left), left_row), ((right_score, right), right_row)| {
        right_score.total_cmp(left_score).then_with(|| right.cmp(left)).then_with(|| left_row.cmp(right_row))
    });
    scored.into_iter().map(|(_, row)| row).collect()
}

/// Where each number stands in `order`.
fn inverse(order: &[u32]) -> Vec<u32> {
    let mut places = vec![0; order.len()];
    for (place, number) in (0..).zip(order) {
        places[*number as usize] = place;
    }
    places
}

/// What offers say of themselves.
struct Facts {
    general: Bits,
    live: Bits,
    excluded: Bits,
    tagged: HashMap<Box<str>, Members>,
    required: Collected<u32>,
    preferred: Collected<u32>,
}

impl Facts {
    fn new(catalog: &TenantCatalog, names: &mut Names, rows: &[OfferRow], positions: &[u32]) -> Self {
        let len = rows.len();
        let (mut general, mut live, mut excluded) = (Bits::none(len), Bits::none(len), Bits::none(len));
        let mut numbers = HashMap::<&str, usize>::new();
        let mut tags = Vec::<(&str, Vec<u32>)>::new();
        let (mut required, mut preferred) = (Collected::new(), Collected::new());
        for ((row, offer), position) in rows.iter().enumerate().zip(positions) {
            let offer = &offer.body;
            put(&mut general.0, *position, offer.kind == OfferKind::General);
            put(&mut live.0, *position, is_live(catalog, offer));
            put(&mut excluded.0, *position, offer.emergency_excluded);
            for tag in &offer.tags {
                let number = *numbers.entry(tag.as_str()).or_insert_with(|| {
                    tags.push((tag.as_str(), Vec::new()));
                    tags.len() - 1
                });
                tags[number].1.push(*position);
            }
            if let Check::Segments(segments) = require_segments(names, &offer.eligibility.required_segments) {
                segments.iter().for_each(|segment| required.push(row, *segment));
            }
            let mut liked: Vec<u32> = offer.preferred_segments.iter().map(|segment| names.segment(segment)).collect();
            liked.sort_unstable();
            liked.dedup();
            liked.into_iter().for_each(|segment| preferred.push(row, segment));
        }
        let tagged = tags.into_iter().map(|(tag, positions)| (Box::from(tag), Members::new(len, positions))).collect();
        Facts { general, live, excluded, tagged, required, preferred }
    }
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

fn members_by<K: Ord + Copy>(len: usize, column: &[Option<K>]) -> BTreeMap<K, Members> {
    let mut lists = BTreeMap::<K, Vec<u32>>::new();
    for (position, key) in column.iter().enumerate() {
        if let Some(key) = key {
            lists.entry(*key).or_default().push(position as u32);
        }
    }
    lists.into_iter().map(|(key, positions)| (key, Members::new(len, positions))).collect()
}

fn content(catalog: &TenantCatalog, creative: &Arc<Entity<CreativeKey, Creative>>) -> Option<Content> {
    let body = &creative.body;
    if body.status != Status::Active {
        return None;
    }
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
}

/// Rules that name offers or creatives, each compiled once.
struct RuleBook<'a> {
    catalog: &'a TenantCatalog,
    rules: Vec<Rule>,
    numbers: HashMap<RuleKey, Option<u32>>,
}

impl RuleBook<'_> {
    /// The number of a rule, if it is active.
    fn number(&mut self, names: &mut Names, key: RuleKey) -> Option<u32> {
        let RuleBook { catalog, rules, numbers } = self;
        *numbers.entry(key).or_insert_with(|| {
            let entity = catalog.rules().get(key).filter(|rule| rule.body.status == Status::Active)?;
            rules.push(Rule::new(catalog, names, entity)?);
            Some(rules.len() as u32 - 1)
        })
    }
}

/// Active creatives and rules by row.
fn users<'a>(
    catalog: &'a TenantCatalog,
    names: &mut Names,
    offers: &[OfferKey],
) -> (Collected<Content>, RuleBook<'a>, Collected<u32>) {
    let mut book = RuleBook { catalog, rules: Vec::new(), numbers: HashMap::new() };
    let (mut contents, mut rules_of) = (Collected::new(), Collected::new());
    catalog.visit_users(offers, |row, user| match user {
        OfferUser::Creative(key) => {
            if let Some(content) = catalog.creatives().get(key).and_then(|creative| content(catalog, creative)) {
                contents.push(row, content);
            }
        }
        OfferUser::Rule(key) => {
            if let Some(number) = book.number(names, key) {
                rules_of.push(row, number);
            }
        }
    });
    rules_of.sort_each(offers.len(), |number| book.rules[*number as usize].order());
    (contents, book, rules_of)
}

/// The rules of the book and those that name creatives, and the latter by place of the creative.
fn rules_of_contents(
    catalog: &TenantCatalog,
    names: &mut Names,
    mut book: RuleBook<'_>,
    content_of: &[(CreativeKey, u32, u32)],
    len: usize,
) -> (Arc<[Rule]>, Lists<u32>) {
    let creatives: Vec<CreativeKey> = content_of.iter().map(|(key, _, _)| *key).collect();
    let mut rules_of = Collected::new();
    catalog.visit_rules_of_creatives(&creatives, |row, key| {
        if let Some(number) = book.number(names, key) {
            rules_of.push(row, number);
        }
    });
    rules_of.sort_each(len, |number| book.rules[*number as usize].order());
    let mut rows = vec![0; len];
    for (row, (_, _, place)) in (0..).zip(content_of) {
        rows[*place as usize] = row;
    }
    (book.rules.into(), rules_of.arrange(&rows))
}

fn caps(catalog: &TenantCatalog, offers: &[OfferKey]) -> Collected<CapPlan> {
    let mut caps = Collected::new();
    for (row, offer) in offers.iter().enumerate() {
        catalog.caps(*offer).iter().for_each(|cap| caps.push(row, plan_cap(catalog, cap)));
    }
    caps
}

fn plan_cap(catalog: &TenantCatalog, cap: &CapDefinition) -> CapPlan {
    CapPlan {
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
    }
}

/// (key, position, place in the lists), sorted by key.
fn places<T, K: Ord + Copy>(lists: &Lists<T>, key: impl Fn(&T) -> Option<K>) -> Arc<[(K, u32, u32)]> {
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
    let none = || ChannelContent { any: Bits::none(len), open: Bits::none(len), by_type: BTreeMap::new() };
    let mut channels = BTreeMap::<ChannelKey, ChannelContent>::new();
    let mut typed = BTreeMap::<(ChannelKey, &str), (Vec<u32>, Vec<u32>)>::new();
    for position in 0..len as u32 {
        for content in contents.of(position) {
            let channel = channels.entry(content.channel).or_insert_with(none);
            let (any, open) = typed.entry((content.channel, &content.entity.body.content_type)).or_default();
            put(&mut channel.any.0, position, true);
            any.push(position);
            if content.placement == PlacementKey::NONE {
                put(&mut channel.open.0, position, true);
                open.push(position);
            }
        }
    }
    for ((channel, content_type), (any, open)) in typed {
        let typed = TypedContent { any: Members::new(len, any), open: Members::new(len, open) };
        channels.entry(channel).or_insert_with(none).by_type.insert(content_type.into(), typed);
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

/// Offers that a hard recency rule of their own may bar, or their `eligibility`.
fn recency(rows: &[OfferRow], order: &[u32], rules: &[Rule], rules_of: &Lists<u32>) -> Option<Arc<Bits>> {
    let asks = |number: &u32| {
        let rule = &rules[*number as usize];
        matches!(rule.question, Question::Recency { .. }) && rule.effect == Effect::Hard
    };
    let barred = |position: &u32| {
        let offer = &rows[order[*position as usize] as usize].body;
        offer.eligibility.recency.is_some() || rules_of.of(*position).iter().any(asks)
    };
    Bits::of(rows.len(), (0..rows.len() as u32).filter(barred)).if_any().map(Arc::new)
}
