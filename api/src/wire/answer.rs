//! The answer of `recommend`, `decisions` and `simulate`: keys of a decision turned into the words of the catalogue it was
//! decided under, borrowed from there.

use std::borrow::Cow;

use proffer_engine::calendar::iso;
use proffer_engine::catalog::TenantCatalog;
use proffer_engine::decide::decision::{
    Arm, EmptyReason, Explanation, Factors, Funnel, PROPERTIES, Proposition, PropositionKind, RemovalReason, Removed,
    SlotOutcome,
};
use proffer_engine::decide::request::{SlotRequest, SlotTarget};
use proffer_engine::keys::{ChannelKey, OfferKey};
use proffer_engine::learn::PropensitySource;
use proffer_engine::model::creative::Creative;
use proffer_engine::model::offer::Offer;
use proffer_engine::model::template::{self, Escape};
use proffer_engine::time::Timestamp;
use proffer_engine::value::Value;
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::wire::value::{Computed, Json, Number, round_score, round_significant};

/// A whole answer.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer<'a> {
    /// The `recommendationId` again; null in a simulation.
    pub interaction_id: Option<&'a str>,
    /// Names this decision in `respond`, `release` and `supersedes`.
    pub recommendation_id: Option<&'a str>,
    /// As asked.
    pub customer_id: &'a str,
    /// Key of the flow that decided; null for the base flow.
    pub decision_flow_key: Option<&'a str>,
    /// Published version of it; 0 for the base flow.
    pub decision_flow_version: u32,
    /// Name of the request's channel.
    pub channel: Option<&'a str>,
    /// Length of `decisions`.
    pub count: usize,
    /// In slot order.
    pub decisions: Vec<Entry<'a>>,
    /// One per slot, when slots were named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots: Option<Vec<SlotEntry<'a>>>,
    /// How it came about.
    pub meta: Meta<'a>,
    /// What was removed, with `explain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explanation: Option<RemovedList<'a>>,
}

/// One proposition, at the length the flow asks for.
#[derive(Debug, serde::Serialize)]
#[serde(untagged)]
pub enum Entry<'a> {
    /// `responseFormat: compact`.
    Compact(CompactEntry<'a>),
    /// `responseFormat: standard`.
    Standard(Box<StandardEntry<'a>>),
}

/// Ids, score and rank.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CompactEntry<'a> {
    offer_id: &'a str,
    score: Number,
    rank: usize,
    creative_id: Option<&'a str>,
    placement_id: Option<&'a str>,
}

/// Everything.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StandardEntry<'a> {
    offer_id: &'a str,
    offer_name: &'a str,
    score: Number,
    rank: usize,
    priority: u8,
    personalization: Personalization<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    properties: Option<Computed<'a>>,
    creative_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    creative: Option<CreativeEntry<'a>>,
    placement_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    placement: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    activity: Option<&'a str>,
    short_desc: &'a str,
    mandatory: bool,
    fallback: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<EntryExplanation<'a>>,
}

#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct CreativeEntry<'a> {
    content_type: &'a str,
    content: Content<'a>,
}

/// Content of a creative.
#[derive(Debug)]
pub enum Content<'a> {
    /// As it was authored.
    Authored(&'a Value),
    /// With what it names filled in.
    Filled(Value),
}

impl Serialize for Content<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Content::Authored(content) => Json(content).serialize(serializer),
            Content::Filled(content) => Json(content).serialize(serializer),
        }
    }
}

/// Computed fields by name, null where they could not be computed.
#[derive(Debug)]
struct Personalization<'a>(Vec<(&'a str, &'a Value)>);

impl Serialize for Personalization<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, &Computed(value))?;
        }
        map.end()
    }
}

#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct EntryExplanation<'a> {
    ranking_scores: RankingScores<'a>,
}

#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct RankingScores<'a> {
    propensity: Number,
    propensity_source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shadow: Option<Shadow<'a>>,
    relevance: Number,
    impact: Number,
    emphasis: Number,
    uplift: Number,
    #[serde(rename = "match")]
    matching: Number,
    fatigue: Number,
    boost: Number,
    weights: Weights,
    #[serde(skip_serializing_if = "Option::is_none")]
    optimized: Option<Number>,
}

/// What the model that scores other customers would give this one.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Shadow<'a> {
    model: &'a str,
    propensity: Number,
}

#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Weights {
    propensity: Number,
    relevance: Number,
    impact: Number,
    emphasis: Number,
    uplift: Number,
}

/// What became of a slot.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SlotEntry<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    placement: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    activity: Option<&'a str>,
    count: u32,
    fallback: bool,
    empty: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    funnel: Option<FunnelEntry>,
}

/// How many offers each step left.
#[derive(Clone, Copy, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FunnelEntry {
    total_candidates: u32,
    after_qualification: u32,
    after_suppression: u32,
    after_contact_policy: u32,
}

impl From<Funnel> for FunnelEntry {
    fn from(funnel: Funnel) -> Self {
        FunnelEntry {
            total_candidates: funnel.total_candidates,
            after_qualification: funnel.after_qualification,
            after_suppression: funnel.after_suppression,
            after_contact_policy: funnel.after_contact_policy,
        }
    }
}

/// How the answer came about.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Meta<'a> {
    /// How many offers each step left.
    #[serde(flatten)]
    pub funnel: FunnelEntry,
    /// A model could not score.
    pub degraded_scoring: bool,
    /// Where no slots were named: why nothing is proposed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub empty: Option<&'static str>,
    /// Held out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_group: Option<bool>,
    /// The experiment's arm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experiment: Option<Experiment<'a>>,
    /// An offer was passed over for want of units.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub budget_limited: bool,
    /// Why the answer is less than it could have been.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub degraded: Option<&'static str>,
    /// A repeated answer left out offers excluded since.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub excluded: bool,
    /// With `trace`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
}

/// A customer's place in an experiment.
#[derive(Debug, serde::Serialize)]
pub struct Experiment<'a> {
    key: &'a str,
    arm: &'static str,
}

impl<'a> From<&'a Arm> for Experiment<'a> {
    fn from(arm: &'a Arm) -> Self {
        Experiment { key: &arm.experiment, arm: if arm.control { "control" } else { "treatment" } }
    }
}

/// What makes a decision repeatable: the same catalogue, profile, request, instant and seed give the same bytes.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    /// Of the random draws, as 16 hex digits.
    pub seed: String,
    /// When it was decided.
    pub decided_at: String,
    /// Catalogue revision.
    pub revision: u64,
    /// What a node that keeps it is asked for it by.
    pub id: String,
    /// All that was read, to decide it again: `POST /replay`. Null of a repeated answer, and where it is too large to carry.
    pub record: Option<String>,
}

/// Offers that are not in the answer.
#[derive(Debug, serde::Serialize)]
pub struct RemovedList<'a> {
    removed: Vec<RemovedEntry<'a>>,
}

/// Why an offer is not in the answer.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RemovedEntry<'a> {
    offer_id: &'a str,
    stage: &'static str,
    rule_id: Option<&'a str>,
    detail: Cow<'a, str>,
}

/// Puts the catalogue's words to a decision's keys.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a> {
    /// The catalogue it was decided under.
    pub catalog: &'a TenantCatalog,
    /// Ids, scores and ranks only.
    pub compact: bool,
}

impl<'a> Words<'a> {
    /// Name of a channel.
    pub fn channel(self, channel: ChannelKey) -> Option<&'a str> {
        self.catalog.channels().get(channel).map(|channel| channel.body.name.as_str())
    }

    /// One proposition; `None` if the offer was deleted since (only a repeated answer can name such a one).
    pub fn entry(
        self,
        rank: usize,
        chosen: &'a Proposition,
        expires: Option<Timestamp>,
        factors: Option<&Factors>,
    ) -> Option<Entry<'a>> {
        let offer = self.catalog.offers().get(chosen.offer)?;
        let creative = self.catalog.creatives().get(chosen.creative);
        let placement = self.catalog.placements().get(chosen.placement);
        let score = Number(round_score(chosen.score));
        let creative_id = creative.map(|creative| creative.id.as_str());
        let placement_id = placement.map(|placement| placement.id.as_str());
        if self.compact {
            return Some(Entry::Compact(CompactEntry { offer_id: &offer.id, score, rank, creative_id, placement_id }));
        }
        Some(Entry::Standard(Box::new(StandardEntry {
            offer_id: &offer.id,
            offer_name: &offer.body.name,
            score,
            rank,
            priority: offer.body.priority.0,
            personalization: self.personalization(chosen),
            properties: properties(chosen),
            creative_id,
            creative: creative.map(|creative| CreativeEntry {
                content_type: &creative.body.content_type,
                content: self.content(chosen, &offer.body, &creative.body),
            }),
            placement_id,
            placement: placement.and_then(|placement| placement.body.key.as_deref()),
            activity: chosen.activity.and_then(|key| self.catalog.activities().get(key)?.body.key.as_deref()),
            short_desc: &offer.body.short_desc,
            mandatory: chosen.kind == PropositionKind::Mandatory,
            fallback: chosen.kind == PropositionKind::Fallback,
            expires_at: expires.map(iso),
            explanation: factors
                .map(|factors| EntryExplanation { ranking_scores: RankingScores::new(factors, self.catalog) }),
        })))
    }

    /// A creative's content, filled with what it lists: computed fields of the offer, or stored ones.
    pub fn content(self, chosen: &'a Proposition, offer: &Offer, creative: &'a Creative) -> Content<'a> {
        if creative.personalization.is_empty() {
            return Content::Authored(&creative.content);
        }
        let computed = self.personalization(chosen);
        let value = |name: &str| {
            let found = computed.0.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).clone());
            found.or_else(|| offer.custom_fields.get(name).cloned()).unwrap_or_default()
        };
        Content::Filled(template::fill(&creative.content, Escape::of(&creative.content_type), &value))
    }

    fn personalization(self, chosen: &'a Proposition) -> Personalization<'a> {
        if chosen.computed.is_empty() {
            return Personalization(Vec::new());
        }
        let category = self
            .catalog
            .offers()
            .get(chosen.offer)
            .and_then(|offer| self.catalog.categories().by_id(&offer.body.category_id.as_ref()?.0));
        let fields = category.map_or(&[][..], |category| &category.body.custom_fields);
        let named = |(index, value): &'a (u16, Value)| Some((fields.get(usize::from(*index))?.name.as_str(), value));
        Personalization(chosen.computed.iter().filter_map(named).collect())
    }

    /// One slot.
    pub fn slot(self, slot: SlotRequest, outcome: SlotOutcome, funnel: Option<Funnel>) -> SlotEntry<'a> {
        let (placement, activity) = match slot.target {
            SlotTarget::Placement(key) => {
                (self.catalog.placements().get(key).and_then(|p| p.body.key.as_deref()), None)
            }
            SlotTarget::Activity(key) => (None, self.catalog.activities().get(key).and_then(|a| a.body.key.as_deref())),
        };
        SlotEntry {
            placement,
            activity,
            count: outcome.count,
            fallback: outcome.fallback,
            empty: outcome.empty.map(empty_reason),
            funnel: funnel.map(FunnelEntry::from),
        }
    }

    /// What was removed.
    pub fn removed(self, explanation: &Explanation) -> RemovedList<'a> {
        RemovedList { removed: explanation.removed.iter().filter_map(|removed| self.removed_entry(removed)).collect() }
    }

    /// Why an offer is not in the answer, in other words than a stage's; `None` if it was deleted since.
    pub fn told(self, offer: OfferKey, stage: &'static str, detail: Cow<'a, str>) -> Option<RemovedEntry<'a>> {
        let offer = self.catalog.offers().get(offer)?;
        Some(RemovedEntry { offer_id: &offer.id, stage, rule_id: None, detail })
    }

    /// One removed offer; `None` if it was deleted since.
    pub fn removed_entry(self, removed: &Removed) -> Option<RemovedEntry<'a>> {
        let offer = self.catalog.offers().get(removed.offer)?;
        let (stage, rule_id, detail): (_, Option<&'a str>, Cow<'a, str>) = match removed.reason {
            RemovalReason::Status => ("status", None, "the offer or its category is not active".into()),
            RemovalReason::Schedule => ("schedule", None, "outside its dates, days or hours".into()),
            RemovalReason::EmergencyExcluded => ("emergency_exclusion", None, "excluded in an emergency".into()),
            RemovalReason::Inventory => ("inventory", None, "not in the inventory or collection".into()),
            RemovalReason::Creative => ("creative", None, "no active creative for the channel or placement".into()),
            RemovalReason::Rule(key) => match self.catalog.rules().get(key) {
                Some(rule) => ("qualification", Some(rule.id.as_str()), rule.body.name.as_str().into()),
                None => ("qualification", None, "a qualification rule".into()),
            },
            RemovalReason::Eligibility => ("eligibility", None, "the offer's own eligibility".into()),
            RemovalReason::OptOut => ("opt_out", None, "the customer opted out".into()),
            RemovalReason::Excluded => ("excluded", None, "excluded by the request".into()),
            RemovalReason::ProfileCap(cap) => ("profile_cap", None, self.cap(removed.offer, cap)),
            RemovalReason::GlobalCap(cap) => ("global_cap", None, self.cap(removed.offer, cap)),
            RemovalReason::MandatoryPerDay => ("mandatory_per_day", None, "enough mandatory offers today".into()),
            RemovalReason::Policy(key) => match self.catalog.policies().get(key) {
                Some(policy) => ("contact_policy", Some(policy.id.as_str()), policy.body.name.as_str().into()),
                None => ("contact_policy", None, "a contact policy".into()),
            },
            RemovalReason::ZeroFactor => ("score", None, "a factor of its score is 0".into()),
            RemovalReason::Outscored => ("rank", None, "others scored higher".into()),
            RemovalReason::Coupled => ("coupling", None, "another slot of its atomic channel stayed empty".into()),
            RemovalReason::Filter { flow, node } => {
                let version = self.catalog.current_version(flow);
                let node = version.and_then(|version| version.config.all_nodes().get(usize::from(node)).copied());
                ("filter", None, node.map_or("a filter of the flow".into(), |node| node.id.as_str().into()))
            }
            RemovalReason::Guardrail(key) => match self.catalog.guardrails().get(key) {
                Some(guardrail) => ("guardrail", Some(guardrail.id.as_str()), guardrail.body.name.as_str().into()),
                None => ("guardrail", None, "a guardrail".into()),
            },
            RemovalReason::Contended => ("contention", None, "others took the last unit first".into()),
        };
        Some(RemovedEntry { offer_id: &offer.id, stage, rule_id, detail })
    }

    fn cap(self, offer: OfferKey, cap: proffer_engine::keys::CapKey) -> Cow<'a, str> {
        let known = self.catalog.caps(offer).iter().find(|known| known.cap == cap);
        known.map_or("a cap".into(), |known| known.key.as_str().into())
    }
}

impl<'a> RankingScores<'a> {
    fn new(factors: &Factors, catalog: &'a TenantCatalog) -> Self {
        let number = |factor| Number(round_significant(factor));
        let name = |model| catalog.models().get(model).and_then(|row| row.body.key.as_deref());
        let [propensity, relevance, impact, emphasis, uplift] = factors.weights.map(number);
        RankingScores {
            propensity: number(factors.propensity),
            propensity_source: word_of(factors.source),
            model: factors.model.and_then(name),
            shadow: factors.shadow.and_then(|(model, p)| Some(Shadow { model: name(model)?, propensity: number(p) })),
            relevance: number(factors.relevance),
            impact: number(factors.impact),
            emphasis: number(factors.emphasis),
            uplift: number(factors.uplift),
            matching: number(factors.matching),
            fatigue: number(factors.fatigue),
            boost: number(factors.boost),
            weights: Weights { propensity, relevance, impact, emphasis, uplift },
            optimized: factors.optimized.map(number),
        }
    }
}

/// What P rests on, in a word.
pub fn word_of(source: PropensitySource) -> &'static str {
    match source {
        PropensitySource::Offer => "offer",
        PropensitySource::Category => "category",
        PropensitySource::Global => "global",
        PropensitySource::Default => "default",
        PropensitySource::Model => "model",
    }
}

/// What the flow set beside a proposition.
fn properties(chosen: &Proposition) -> Option<Computed<'_>> {
    let set = chosen.computed.iter().find(|(index, _)| *index == PROPERTIES);
    set.map(|(_, properties)| Computed(properties))
}

/// The wire word.
pub fn empty_reason(reason: EmptyReason) -> &'static str {
    match reason {
        EmptyReason::NoCandidate => "no_candidate",
        EmptyReason::Inactive => "inactive",
        EmptyReason::FallbackUnavailable => "fallback_unavailable",
        EmptyReason::Coupling => "coupling",
        EmptyReason::Limit => "limit",
        EmptyReason::Holdout => "holdout",
    }
}
