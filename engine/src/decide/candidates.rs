//! Candidates of a slot: live, open, in stock, collected, with content that fits. And which content that is.

use crate::decide::case::{Case, Spot};
use crate::decide::qualify::Track;
use crate::decide::variant;
use crate::keys::{ChannelKey, CreativeKey, PlacementKey};
use crate::model::flow::PlacementMatchMode;
use crate::snapshot::bitset;
use crate::snapshot::rules::{Effect, Question, Rule};
use crate::snapshot::segment::Content;

/// A slot's spot, and the rules for content there.
pub(crate) struct Spotting<'a, 'b> {
    pub(crate) case: &'b Case<'a>,
    pub(crate) track: &'b Track<'a>,
    pub(crate) spot: Spot,
    /// What competes.
    pub(crate) collection: Admission,
    /// The content types that the placement takes, if not all.
    types: Option<&'b [Box<str>]>,
}

/// Which offers a slot is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// All.
    All,
    /// Those of the collection with this number.
    Collection(usize),
    /// None: its collection is gone.
    None,
}

impl Admission {
    /// Extends `into` by those `of` all positions that it admits.
    pub(crate) fn copy_admitted(self, case: &Case<'_>, of: &[u64], into: &mut Vec<u64>) {
        match self {
            Admission::All => into.extend_from_slice(of),
            Admission::Collection(collection) => {
                for part in &case.snapshot.parts {
                    let words = of[part.range()].iter().zip(&part.segment.collections[collection].0);
                    into.extend(words.map(|(of, collected)| of & collected));
                }
            }
            Admission::None => into.resize(of.len(), 0),
        }
    }

    /// Adds to `into` those `of` all positions that it admits.
    pub(crate) fn or_admitted(self, case: &Case<'_>, of: &[u64], into: &mut [u64]) {
        match self {
            Admission::All => bitset::or(into, of),
            Admission::Collection(collection) => {
                for part in &case.snapshot.parts {
                    let words = of[part.range()].iter().zip(&part.segment.collections[collection].0);
                    let into = into[part.range()].iter_mut();
                    into.zip(words).for_each(|(into, (of, collected))| *into |= of & collected);
                }
            }
            Admission::None => {}
        }
    }
}

/// What an offer would show in a spot.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Show<'a> {
    /// This.
    Creative(&'a Content),
    /// Nothing, and it had nothing to show.
    Nothing,
    /// It had content there, but a rule of each of them fails.
    LostToRule,
    /// It had content there, but the request excludes it.
    LostToRequest,
}

impl<'a, 'b> Spotting<'a, 'b> {
    pub(crate) fn new(case: &'b Case<'a>, track: &'b Track<'a>, spot: Spot, collection: Admission) -> Self {
        let placement = case.shared.placements.get(&spot.placement);
        let types = placement.map(|placement| &*placement.content_types).filter(|types| !types.is_empty());
        Spotting { case, track, spot, collection, types }
    }

    /// Whether the placement takes this content: what was made for it was checked when it was written.
    fn takes(&self, content: &Content) -> bool {
        content.placement == self.spot.placement
            || self.types.is_none_or(|types| types.iter().any(|fits| **fits == *content.entity.body.content_type))
    }

    /// Whether propositions here must have content.
    pub(crate) fn needs_content(&self) -> bool {
        self.spot.placement != PlacementKey::NONE || self.track.flow.require_creative
    }

    /// `into &=` in stock, with content as compiled.
    pub(crate) fn narrow(&self, into: &mut [u64]) {
        for part in &self.case.snapshot.parts {
            bitset::and(&mut into[part.range()], &part.segment.stocks[self.track.flow.inventory].0);
        }
        if self.needs_content() {
            self.narrow_to_content(into);
        }
    }

    /// Whether the slot is for the offer at `global`.
    pub(crate) fn admits(&self, global: u32) -> bool {
        let (part, position) = self.case.locate(global);
        match self.collection {
            Admission::All => true,
            Admission::Collection(collection) => part.segment.collections[collection].has(position),
            Admission::None => false,
        }
    }

    /// `into &=` with content as compiled.
    pub(crate) fn narrow_to_content(&self, into: &mut [u64]) {
        let Spot { channel, placement } = self.spot;
        for part in &self.case.snapshot.parts {
            let into = &mut into[part.range()];
            let on_channel = part.segment.on_channel.get(&channel);
            let at_placement = part.segment.at_placement.get(&placement);
            let any_on_channel = placement == PlacementKey::NONE || self.track.flow.mode == PlacementMatchMode::None;
            if let Some(types) = self.types.filter(|_| self.track.flow.mode != PlacementMatchMode::Exact) {
                let mut fits = at_placement.map_or_else(|| vec![0; into.len()], |exact| exact.0.to_vec());
                for content in types.iter().filter_map(|fits| on_channel?.by_type.get(fits)) {
                    let with_type = if any_on_channel { &content.any } else { &content.open };
                    with_type.or_into(&mut fits);
                }
                bitset::and(into, &fits);
                continue;
            }
            match (on_channel, at_placement, self.track.flow.mode) {
                (Some(on_channel), _, _) if any_on_channel => bitset::and(into, &on_channel.any.0),
                (None, _, _) if any_on_channel => into.fill(0),
                (_, Some(at_placement), PlacementMatchMode::Exact) => bitset::and(into, &at_placement.0),
                (_, None, PlacementMatchMode::Exact) => into.fill(0),
                (Some(on_channel), Some(at_placement), PlacementMatchMode::Any | PlacementMatchMode::None) => {
                    for ((into, open), exact) in into.iter_mut().zip(&on_channel.open.0).zip(&at_placement.0) {
                        *into &= open | exact;
                    }
                }
                (Some(on_channel), None, PlacementMatchMode::Any | PlacementMatchMode::None) => {
                    bitset::and(into, &on_channel.open.0);
                }
                (None, Some(at_placement), PlacementMatchMode::Any | PlacementMatchMode::None) => {
                    bitset::and(into, &at_placement.0);
                }
                (None, None, PlacementMatchMode::Any | PlacementMatchMode::None) => into.fill(0),
            }
        }
    }

    /// Whether the offer at `global` has content here as compiled.
    pub(crate) fn has_content(&self, global: u32) -> bool {
        !self.is_emptied_by(global, &[])
    }

    /// Whether no content that fits here is left when the creatives that these rules name are gone; never, if the offer has
    /// none on the channel and needs none.
    pub(crate) fn is_emptied_by(&self, global: u32, rules: &[&Rule]) -> bool {
        let Spot { channel, placement } = self.spot;
        let (part, position) = self.case.locate(global);
        let segment = &part.segment;
        let stays = |place: usize| {
            let numbers = segment.rules_of_content.of(place as u32);
            !numbers.iter().any(|number| rules.iter().any(|rule| rule.key == segment.rules[*number as usize].key))
        };
        let mut on_channel = segment
            .contents
            .range(position)
            .map(|place| (place, &segment.contents.items()[place]))
            .filter(|(_, content)| content.channel == channel)
            .peekable();
        if on_channel.peek().is_none() {
            return self.needs_content();
        }
        let any_on_channel = placement == PlacementKey::NONE || self.track.flow.mode == PlacementMatchMode::None;
        !on_channel.filter(|(place, content)| stays(*place) && self.takes(content)).any(|(_, content)| {
            any_on_channel
                || content.placement == placement
                || self.track.flow.mode == PlacementMatchMode::Any && content.placement == PlacementKey::NONE
        })
    }

    /// What the offer at `global` shows here.
    pub(crate) fn show(&self, global: u32) -> Show<'b> {
        self.show_by(global, true)
    }

    /// What a fallback offer shows here: rules and the flow's way of matching do not bind it.
    pub(crate) fn show_fallback(&self, global: u32) -> Show<'b> {
        self.show_with(global, false, PlacementMatchMode::Any)
    }

    /// The same, with or without regard to rules of creatives.
    pub(crate) fn show_by(&self, global: u32, rules_bind: bool) -> Show<'b> {
        self.show_with(global, rules_bind, self.track.flow.mode)
    }

    fn show_with(&self, global: u32, rules_bind: bool, mode: PlacementMatchMode) -> Show<'b> {
        let Spot { channel, placement } = self.spot;
        if channel == ChannelKey::NONE {
            return Show::Nothing;
        }
        let (number, part) = match &self.case.snapshot.parts[..] {
            [_, delta] if global >= delta.first() => (1, delta),
            parts => (0, &parts[0]),
        };
        let position = global - part.first();
        let segment = &part.segment;
        let range = segment.contents.range(position);
        let on_channel = || range.clone().map(|place| (place, &segment.contents.items()[place]));
        let on_channel = || on_channel().filter(|(_, content)| content.channel == channel && self.takes(content));
        let only = |wanted: PlacementKey| move |(_, content): &(usize, &Content)| content.placement == wanted;
        let (mut lost_to_rule, mut lost_to_request) = (false, false);
        let mut usable = |(place, content): &(usize, &'b Content)| {
            if rules_bind && self.is_lost(number, *place as u32, global) {
                lost_to_rule = true;
                return false;
            }
            let excluded = self.case.request.exclude_creatives.contains(&content.key);
            lost_to_request |= excluded;
            !excluded
        };
        let mut found = smallvec::SmallVec::<[&'b Content; 4]>::new();
        if placement == PlacementKey::NONE || mode == PlacementMatchMode::None {
            found.extend(on_channel().filter(&mut usable).map(|(_, content)| content));
        } else {
            found.extend(on_channel().filter(only(placement)).filter(&mut usable).map(|(_, content)| content));
            if found.is_empty() && mode == PlacementMatchMode::Any {
                let open = on_channel().filter(only(PlacementKey::NONE));
                found.extend(open.filter(&mut usable).map(|(_, content)| content));
            }
        }
        match &found[..] {
            [] if lost_to_request => Show::LostToRequest,
            [] if lost_to_rule => Show::LostToRule,
            [] => Show::Nothing,
            [only] => Show::Creative(only),
            several => {
                let splits: smallvec::SmallVec<[f64; 4]> = several.iter().map(|content| content.split).collect();
                let id = &segment.offers[position as usize].id;
                let request = self.case.request;
                let index = variant::choose(&request.tenant, id, &request.customer, &splits).unwrap_or(0);
                Show::Creative(several[index])
            }
        }
    }

    /// The creative that the offer at `global` shows here, or NONE.
    pub(crate) fn creative(&self, global: u32) -> CreativeKey {
        match self.show(global) {
            Show::Creative(content) => content.key,
            Show::Nothing | Show::LostToRule | Show::LostToRequest => CreativeKey::NONE,
        }
    }

    /// Whether a creative fails a hard rule of its own.
    fn is_lost(&self, part: usize, place: u32, global: u32) -> bool {
        let Some(rules) = self.track.flow.rules else { return false };
        self.track.lost[part].has(place) || {
            let segment = &self.case.snapshot.parts[part].segment;
            let is_late = |rule: &&Rule| rule.effect == Effect::Hard && !matches!(rule.question, Question::Request(_));
            let late = &segment.rule_columns[rules].late_creatives;
            let numbers = if late.is_empty() { &[][..] } else { segment.rules_of_content.of(place) };
            numbers
                .iter()
                .map(|number| &segment.rules[*number as usize])
                .filter(is_late)
                .filter(|rule| self.track.selects(self.case, rule.key))
                .any(|rule| !self.track.holds(self.case, &rule.question, global))
        }
    }
}
