//! Qualification: the facts of a request under a flow, and which offers fail its hard rules.
//!
//! Everything that is the same for every slot is found once per flow. What a rule bars in one channel or placement only,
//! and rules that must be evaluated offer by offer, wait for the slot.

use smallvec::SmallVec;

use crate::decide::case::{Case, Scratch, Sheet, Spot};
use crate::decide::contact::Contact;
use crate::decide::request::Request;
use crate::decide::view::Subject;
use crate::keys::{ChannelKey, PlacementKey, RuleKey, Slot};
use crate::snapshot::bitset;
use crate::snapshot::flows::Flow;
use crate::snapshot::models::Models;
use crate::snapshot::rules::{Effect, Question, Rule, Scopes, Selector};
use crate::snapshot::slots::{ATTRIBUTES, CONTEXT, CUSTOMER, UNREAD};
use crate::snapshot::world::{NULL, OfferWorld, World};
use crate::snapshot::{Binding, Part};
use crate::time::DAY_MS;
use crate::value::Value;

/// A request under its flow: shared by all its slots.
pub(crate) struct Track<'a> {
    pub(crate) flow: &'a Flow,
    pub(crate) world: World<'a>,
    /// Positions that fail a hard rule wherever they would go.
    pub(crate) fail: Vec<u64>,
    /// Channels and placements that a failing rule bars.
    pub(crate) barred_channels: Vec<ChannelKey>,
    pub(crate) barred_placements: Vec<PlacementKey>,
    /// Per part, places of creatives that fail a rule of theirs.
    pub(crate) lost: SmallVec<[Sheet; 2]>,
    /// Positions whose creatives are fewer than compiled: by a rule, or by the request.
    pub(crate) recheck: Vec<u32>,
    /// Wide rules that must be evaluated per offer for this customer wherever it would go (numbers in `wide_rules`).
    pub(crate) late_everywhere: Vec<usize>,
    /// The same where their channel or placement is meant.
    pub(crate) late_by_spot: Vec<usize>,
    /// Tests that must be evaluated per offer, by number.
    pub(crate) late_tests: SmallVec<[usize; 4]>,
    /// Wide soft rules.
    pub(crate) soft: Vec<usize>,
    /// Whether nothing but priority ranks.
    pub(crate) by_priority: bool,
    pub(crate) contact: Contact<'a>,
}

impl<'a> Track<'a> {
    /// A track of which only flow and facts are looked at.
    pub(crate) fn bare(flow: &'a Flow, world: World<'a>) -> Self {
        Track {
            flow,
            world,
            fail: Vec::new(),
            barred_channels: Vec::new(),
            barred_placements: Vec::new(),
            lost: SmallVec::new(),
            recheck: Vec::new(),
            late_everywhere: Vec::new(),
            late_by_spot: Vec::new(),
            late_tests: SmallVec::new(),
            soft: Vec::new(),
            by_priority: false,
            contact: Contact::default(),
        }
    }

    /// The scoring plan in `spot`.
    pub(crate) fn plan_on(&self, case: &Case<'_>, spot: Spot) -> usize {
        if self.by_priority { case.shared.priority_plan } else { self.flow.plan_on(spot.channel) }
    }

    /// The selection of rules, if the flow qualifies at all.
    pub(crate) fn selector<'b>(&self, case: &'b Case<'_>) -> Option<&'b Selector<RuleKey>> {
        self.flow.rules.map(|rules| &case.shared.parts.rules.values()[rules])
    }

    /// Whether the flow uses this rule.
    pub(crate) fn selects(&self, case: &Case<'_>, rule: RuleKey) -> bool {
        self.selector(case).is_some_and(|selector| selector.selects(&rule))
    }

    /// Whether a scope that no offer decides binds this customer.
    pub(crate) fn binds_everything(&self, scopes: &Scopes) -> bool {
        scopes.global || scopes.segments.iter().any(|segment| self.world.is_in(*segment))
    }

    /// Whether `scopes` bind the offer at `global` in `spot` (creatives aside).
    pub(crate) fn binds(&self, case: &Case<'_>, scopes: &Scopes, global: u32, spot: Spot) -> bool {
        self.binds_everything(scopes)
            || scopes.channels.contains(&spot.channel)
            || scopes.placements.contains(&spot.placement)
            || case.category(global).is_some_and(|category| scopes.categories.contains(&category))
            || case.sub_category(global).is_some_and(|sub| scopes.sub_categories.contains(&sub))
            || scopes.offers.binary_search(&case.offer(global)).is_ok()
    }

    /// Whether a rule holds for the offer at `global`.
    pub(crate) fn holds(&self, case: &Case<'_>, question: &Question, global: u32) -> bool {
        let (part, position) = case.locate(global);
        let at = OfferWorld::new(&self.world, case.shared, &part.segment, position);
        question.holds(&at, case.profile)
    }

    /// Whether P of the offer at `global` is what its own `eligibility` wants.
    pub(crate) fn is_likely_enough(&self, case: &Case<'_>, global: u32) -> bool {
        let (part, position) = case.locate(global);
        OfferWorld::new(&self.world, case.shared, &part.segment, position).is_likely_enough()
    }

    /// Whether the offer at `global` fails a rule that is evaluated offer by offer, wherever it would go.
    pub(crate) fn fails_late(&self, case: &Case<'_>, global: u32) -> bool {
        let Some(rules) = self.flow.rules else { return false };
        let selector = &case.shared.parts.rules.values()[rules];
        let (part, position) = case.locate(global);
        let segment = &part.segment;
        let mut failing = false;
        if segment.rule_columns[rules].late.as_ref().is_some_and(|late| late.has(position)) {
            let own = segment.rules_of.of(position).iter().map(|number| &segment.rules[*number as usize]);
            failing = !self.is_likely_enough(case, global)
                || own
                    .filter(|rule| is_late(rule) && selector.selects(&rule.key))
                    .any(|rule| !self.holds(case, &rule.question, global));
            failing = failing
                || case.shared.wide_rules.iter().any(|(rule, scopes)| {
                    is_late(rule)
                        && selector.selects(&rule.key)
                        && self.binds(case, scopes, global, NOWHERE)
                        && !self.holds(case, &rule.question, global)
                });
        }
        failing
            || self.late_everywhere.iter().any(|number| {
                let (rule, _) = &case.shared.wide_rules[*number];
                !self.holds(case, &rule.question, global)
            })
    }

    /// Whether the offer at `global` fails a rule of `spot` that is evaluated offer by offer.
    pub(crate) fn fails_in_spot(&self, case: &Case<'_>, global: u32, spot: Spot) -> bool {
        self.late_by_spot.iter().any(|number| {
            let (rule, scopes) = &case.shared.wide_rules[*number];
            is_of_spot(scopes, spot) && !self.holds(case, &rule.question, global)
        })
    }

    /// Whether any rule of `spot` is evaluated offer by offer.
    pub(crate) fn is_late_in(&self, case: &Case<'_>, spot: Spot) -> bool {
        self.late_by_spot.iter().any(|number| is_of_spot(&case.shared.wide_rules[*number].1, spot))
    }

    /// Whether a failing rule bars everything from `spot`.
    pub(crate) fn is_barred(&self, spot: Spot) -> bool {
        self.barred_channels.contains(&spot.channel) || self.barred_placements.contains(&spot.placement)
    }

    /// Gives the buffers back.
    pub(crate) fn recycle(self, scratch: &mut Scratch) {
        scratch.give(self.fail);
        self.lost.into_iter().for_each(|lost| scratch.give(lost.into_buffer()));
        self.contact.recycle(scratch);
    }
}

/// A spot that no scope means.
pub(crate) const NOWHERE: Spot = Spot { channel: ChannelKey::NONE, placement: PlacementKey::NONE };

fn is_late(rule: &Rule) -> bool {
    rule.effect == Effect::Hard
        && match rule.question {
            Question::Program(_) | Question::Field { .. } | Question::Propensity { .. } => true,
            Question::Request(_) | Question::Recency { .. } => false,
        }
}

pub(crate) fn is_of_spot(scopes: &Scopes, spot: Spot) -> bool {
    scopes.channels.contains(&spot.channel) || scopes.placements.contains(&spot.placement)
}

/// The facts that `flow` shows: request, profile, rows.
pub(crate) fn look<'a>(case: &Case<'a>, flow: &Flow, subject: Subject<'a>, binding: &Binding) -> World<'a> {
    let names = &case.snapshot.names;
    let mut facts = SmallVec::<[&'a Value; 32]>::from_elem(&NULL, names.fact_count());
    let mut segments: Vec<u32> = case.request.segments.iter().filter_map(|name| names.find_segment(name)).collect();
    if let Some(profile) = subject.profile {
        overlay(&mut facts, binding.slots(CUSTOMER), &profile.attributes);
        for loading in &flow.enrich {
            let Some(row) = profile.row(loading.schema) else { continue };
            let slots = binding.slots(loading.namespace);
            if loading.fields.is_empty() {
                overlay(&mut facts, slots, row);
                continue;
            }
            for column in row.iter() {
                let name = subject.symbols.name(column.0);
                if loading.fields.iter().any(|field| **field == **name) {
                    overlay(&mut facts, slots, std::slice::from_ref(column));
                }
            }
        }
        let bound = profile.segments.iter().map(|symbol| binding.segments()[symbol.0 as usize]);
        segments.extend(bound.filter(|segment| *segment != UNREAD));
    }
    let mut show = |namespace: u16, name: &str, value: &'a Value| {
        if let Some(Slot(slot)) = names.find_fact(namespace, name) {
            facts[usize::from(slot)] = value;
        }
    };
    let request: &'a Request = case.request;
    if let Some(channel) = request.channel.and_then(|channel| case.shared.channels.get(&channel)) {
        show(ATTRIBUTES, "channel", &channel.name);
    }
    request.attributes.iter().for_each(|(name, value)| show(ATTRIBUTES, name, value));
    request.context.iter().for_each(|(name, value)| show(CONTEXT, name, value));
    for (slot, value) in case.measured {
        facts[usize::from(slot.0)] = value;
    }
    segments.sort_unstable();
    segments.dedup();
    World {
        facts,
        segments,
        now: case.at.now,
        measures: case.measures(),
        learned: case.learned,
        models: Models::new(case.shared, case.seed, case.request),
        plan: Some(&case.shared.parts.plans.values()[flow.plan]),
    }
}

fn overlay<'a>(facts: &mut [&'a Value], slots: &[u32], named: &'a [(crate::keys::Symbol, Value)]) {
    for (symbol, value) in named {
        if let Some(fact) = facts.get_mut(slots[symbol.0 as usize] as usize) {
            *fact = value;
        }
    }
}

/// Finds what fails the hard rules of the track's flow.
pub(crate) fn qualify(case: &Case<'_>, track: &mut Track<'_>, scratch: &mut Scratch) {
    track.fail = scratch.take(case.snapshot.words());
    let creatives = |part: &Part| part.segment.contents.items().len();
    let lost = case.snapshot.parts.iter().map(|part| Sheet::new(scratch, bitset::words_for(creatives(part))));
    track.lost = lost.collect();
    let Some(rules) = track.flow.rules else { return };
    let selector = &case.shared.parts.rules.values()[rules];
    let mut spare = scratch.blank();
    for (part, lost) in case.snapshot.parts.iter().zip(&mut track.lost) {
        let columns = &part.segment.rule_columns[rules];
        columns.index.fail_into(&track.world, &mut track.fail[part.range()], &mut spare);
        if !columns.creative_index.is_empty() {
            columns.creative_index.fail_into(&track.world, lost.write(), &mut spare);
        }
        track.recheck.extend(columns.late_creatives.iter().map(|position| part.first() + position));
    }
    scratch.give(spare);
    for (number, (rule, scopes)) in case.shared.wide_rules.iter().enumerate() {
        if !selector.selects(&rule.key) {
            continue;
        }
        match (&rule.question, rule.effect) {
            (_, Effect::Match { .. } | Effect::Ranking { .. }) => track.soft.push(number),
            (Question::Request(check), Effect::Hard) => {
                if !check.holds(&track.world) {
                    bar(case, track, scopes);
                }
            }
            (Question::Program(_) | Question::Field { .. } | Question::Propensity { .. }, Effect::Hard) => {
                if !scopes.global && scopes.segments.iter().any(|segment| track.world.is_in(*segment)) {
                    track.late_everywhere.push(number);
                } else if !scopes.channels.is_empty() || !scopes.placements.is_empty() {
                    track.late_by_spot.push(number);
                }
            }
            (Question::Recency { .. }, Effect::Hard) => bar_recent(case, track, number, rule, scopes),
        }
    }
    bar_recent_by_own_rules(case, track, selector, rules);
    for (part, lost) in case.snapshot.parts.iter().zip(&track.lost) {
        let position = |place: u32| part.segment.content_positions[place as usize];
        track.recheck.extend(bitset::ones(lost.read()).map(|place| part.first() + position(place)));
    }
}

/// Bars whom a failing rule binds. Listed offers and creatives are barred by their segment's index.
fn bar(case: &Case<'_>, track: &mut Track<'_>, scopes: &Scopes) {
    if track.binds_everything(scopes) {
        track.fail.fill(u64::MAX);
    }
    for part in &case.snapshot.parts {
        let fail = &mut track.fail[part.range()];
        let segment = &part.segment;
        scopes.categories.iter().filter_map(|key| segment.by_category.get(key)).for_each(|m| m.or_into(fail));
        scopes.sub_categories.iter().filter_map(|key| segment.by_sub_category.get(key)).for_each(|m| m.or_into(fail));
    }
    track.barred_channels.extend(&scopes.channels);
    track.barred_placements.extend(&scopes.placements);
}

/// Bars recently shown offers that a wide recency rule binds.
fn bar_recent(case: &Case<'_>, track: &mut Track<'_>, number: usize, rule: &Rule, scopes: &Scopes) {
    if !scopes.channels.is_empty() || !scopes.placements.is_empty() {
        track.late_by_spot.push(number);
    }
    for global in case.history.seen.iter().filter_map(|seen| seen.global) {
        if track.binds(case, scopes, global, NOWHERE) && !track.holds(case, &rule.question, global) {
            bitset::set(&mut track.fail, global);
        }
    }
}

/// Bars recently shown offers by rules that name them, and by their own `eligibility`.
fn bar_recent_by_own_rules(case: &Case<'_>, track: &mut Track<'_>, selector: &Selector<RuleKey>, rules: usize) {
    debug_assert_eq!(track.flow.rules, Some(rules));
    for seen in &case.history.seen {
        let (Some(global), Some(last)) = (seen.global, seen.last) else { continue };
        let (part, position) = case.locate(global);
        let segment = &part.segment;
        // Rules and offers of a history lie far apart in memory: a bit tells whether there is anything to look at.
        if !segment.recency.as_ref().is_some_and(|asking| asking.has(position)) {
            continue;
        }
        let own = segment.rules_of.of(position).iter().map(|number| &segment.rules[*number as usize]);
        let failing = own
            .filter(|rule| matches!(rule.question, Question::Recency { .. }) && rule.effect == Effect::Hard)
            .filter(|rule| selector.selects(&rule.key))
            .any(|rule| !track.holds(case, &rule.question, global));
        let days = segment.offers[position as usize].body.eligibility.recency;
        let elapsed = case.at.now.since_ms(last) as f64;
        if failing || days.is_some_and(|days| elapsed < days * DAY_MS as f64) {
            bitset::set(&mut track.fail, global);
        }
    }
}
