//! What was decided, as keys and numbers; `api` puts the words to it.

use bincode::de::Decoder;
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{Decode, Encode};

use crate::decide::explain::depth;
use crate::keys::{
    ActivityKey, CapKey, ChannelKey, CreativeKey, FlowKey, GuardrailKey, ModelKey, OfferKey, PlacementKey, PolicyKey,
    Revision, RuleKey,
};
use crate::learn::PropensitySource;
use crate::profile::command::CapTake;
use crate::value::Value;

/// An answer. The same snapshot, profile, escrow view, request, now and seed give the same bytes.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Decision {
    /// Catalogue revision it was decided under.
    pub revision: Revision,
    /// Flow that decided.
    pub flow: FlowChoice,
    /// In slot order; rank is the position from 1.
    pub propositions: Vec<Proposition>,
    /// One per requested slot.
    pub slots: Vec<SlotOutcome>,
    /// Where no slots were named: why nothing is proposed, if nothing is.
    pub empty: Option<EmptyReason>,
    /// How many offers each step left.
    pub funnel: Funnel,
    /// The experiment's arm, if the flow runs one.
    pub arm: Option<Arm>,
    /// What a held-out customer would have been proposed.
    pub ghosts: Vec<Ghost>,
    /// What is to be said of the decision as a whole.
    pub remarks: Remarks,
    /// On request.
    pub explanation: Option<Box<Explanation>>,
}

/// What is to be said of a decision as a whole. As one byte: decisions from when there was one remark read as they were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remarks {
    /// An offer was passed over because its shard held no unit of a global cap.
    pub budget_limited: bool,
    /// A model could not score what is proposed: 0.5 stood in its place.
    pub degraded: bool,
}

impl Encode for Remarks {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        (u8::from(self.budget_limited) | u8::from(self.degraded) << 1).encode(encoder)
    }
}

impl<C> Decode<C> for Remarks {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let bits = u8::decode(decoder)?;
        if bits > 3 {
            return Err(DecodeError::OtherString(format!("{bits} are no remarks of a decision")));
        }
        Ok(Remarks { budget_limited: bits & 1 != 0, degraded: bits & 2 != 0 })
    }
}
bincode::impl_borrow_decode!(Remarks);

/// Which flow decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FlowChoice {
    /// `None`: the base flow.
    pub key: Option<FlowKey>,
    /// Published version; 0 for the base flow.
    pub version: u32,
    /// `compact` asks for ids, scores and ranks only.
    pub compact: bool,
}

/// One offer chosen for one slot.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Proposition {
    /// What.
    pub offer: OfferKey,
    /// Its content, or [`CreativeKey::NONE`].
    pub creative: CreativeKey,
    /// Channel it goes to, or [`ChannelKey::NONE`].
    pub channel: ChannelKey,
    /// Placement it fills, or [`PlacementKey::NONE`].
    pub placement: PlacementKey,
    /// Activity it answers.
    pub activity: Option<ActivityKey>,
    /// Index into the request's slots.
    pub slot: Option<u16>,
    /// exp of the log-sum score; 1 for mandatory, 0 for fallback offers.
    pub score: f64,
    /// How it came in.
    pub kind: PropositionKind,
    /// Units it takes.
    pub takes: Vec<CapTake>,
    /// Computed fields of its category, evaluated for this customer, in declaration order: (field index, value). After them
    /// what the flow sets beside them, as one map under [`PROPERTIES`].
    pub computed: Vec<(u16, Value)>,
}

/// The number under which a proposition's computed values hold the properties that the flow sets: no category has so many
/// fields.
pub const PROPERTIES: u16 = u16::MAX;

/// How a proposition came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum PropositionKind {
    /// Won its place by score.
    Regular,
    /// Prepended.
    Mandatory,
    /// Nothing else was left.
    Fallback,
}

/// What became of one requested slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SlotOutcome {
    /// Propositions in it.
    pub count: u32,
    /// Filled by the fallback offer.
    pub fallback: bool,
    /// Why it is empty, if it is.
    pub empty: Option<EmptyReason>,
}

/// Why a slot is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum EmptyReason {
    /// Nothing was eligible and there is no fallback.
    NoCandidate,
    /// The placement, its channel, the activity, its collection or the flow is not active (or gone).
    Inactive,
    /// The fallback offer may not be shown (status, exclusion, excluded by the request, no creative).
    FallbackUnavailable,
    /// A sibling of an atomic channel stayed empty.
    Coupling,
    /// The answer's limit was used up by earlier slots.
    Limit,
    /// The customer is held out.
    Holdout,
}

/// Distinct offers left after each step, over the union of all slots (domain.md §5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Funnel {
    /// After status, schedule, exclusion, inventory, collection, creative match.
    pub total_candidates: u32,
    /// After hard rules.
    pub after_qualification: u32,
    /// After opt-outs, excludes, caps, budgets, escrow.
    pub after_suppression: u32,
    /// After contact policies.
    pub after_contact_policy: u32,
}

/// A customer's place in an experiment.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Arm {
    /// Name of the experiment.
    pub experiment: String,
    /// Held out.
    pub control: bool,
}

/// A proposition withheld from a held-out customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ghost {
    /// What would have been proposed.
    pub offer: OfferKey,
    /// With which content.
    pub creative: CreativeKey,
}

/// Why this answer and no other.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Explanation {
    /// One per proposition, same order.
    pub factors: Vec<Factors>,
    /// Offers that were removed or outscored, by offer key, up to the limit asked for.
    pub removed: Vec<Removed>,
}

/// Factors of a score: the log-sum's terms as plain numbers.
#[derive(Clone, Copy, Debug, PartialEq, Encode, Decode)]
pub struct Factors {
    /// P.
    pub propensity: f64,
    /// What P rests on.
    pub source: PropensitySource,
    /// The model that scores the offer for this customer, if one does.
    pub model: Option<ModelKey>,
    /// The one that does so for others, and the P that it would give.
    pub shadow: Option<(ModelKey, f64)>,
    /// R.
    pub relevance: f64,
    /// I.
    pub impact: f64,
    /// E.
    pub emphasis: f64,
    /// Uplift base 1 + t.
    pub uplift: f64,
    /// Product of failed match rules' multipliers.
    pub matching: f64,
    /// Fatigue factor.
    pub fatigue: f64,
    /// Product of ranking rules' boosts.
    pub boost: f64,
    /// Exponents: Wp, Wr, Wi, We, Wu (those of the method, for the others as it implies).
    pub weights: [f64; 5],
    /// What the flow's objectives come to, in the place of the method's score.
    pub optimized: Option<f64>,
}

/// One offer that is not in the answer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Removed {
    /// Which.
    pub offer: OfferKey,
    /// By what; the first in pipeline order.
    pub reason: RemovalReason,
}

/// The first step that removed an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum RemovalReason {
    /// Not active, or its category is not.
    Status,
    /// Outside its dates, days or hours.
    Schedule,
    /// Emergency exclusion.
    EmergencyExcluded,
    /// Not in the flow's inventory or the slot's collection.
    Inventory,
    /// No creative for the channel or placement.
    Creative,
    /// A qualification rule.
    Rule(RuleKey),
    /// Its own `eligibility` object.
    Eligibility,
    /// The customer opted out.
    OptOut,
    /// The request excluded it.
    Excluded,
    /// A profile cap.
    ProfileCap(CapKey),
    /// A global cap or budget with nothing free here.
    GlobalCap(CapKey),
    /// Too many mandatory offers today.
    MandatoryPerDay,
    /// A contact policy.
    Policy(PolicyKey),
    /// A factor of 0 in its score.
    ZeroFactor,
    /// Others scored higher.
    Outscored,
    /// It was chosen, and its slot emptied with another of its atomic channel.
    Coupled,
    /// It was chosen, and others took its last unit first.
    Contended,
    /// A filter.
    Filter {
        /// Of this flow.
        flow: FlowKey,
        /// Its place among all nodes of the flow.
        node: u16,
    },
    /// A hard guardrail.
    Guardrail(GuardrailKey),
}

impl Explanation {
    /// Accounts for offers that were `lost` after they had been chosen, and are not `answered`: they came further than any
    /// other. At most `limit` are listed.
    pub fn account_for(&mut self, lost: &[OfferKey], answered: impl Fn(OfferKey) -> bool, limit: usize) {
        let mut lost: Vec<OfferKey> = lost.iter().copied().filter(|offer| !answered(*offer)).collect();
        lost.sort_unstable();
        lost.dedup();
        self.removed.retain(|removed| lost.binary_search(&removed.offer).is_err());
        self.removed.extend(lost.into_iter().map(|offer| Removed { offer, reason: RemovalReason::Contended }));
        furthest(&mut self.removed, limit);
    }
}

/// Leaves the `limit` offers that came furthest, by key.
pub(crate) fn furthest(removed: &mut Vec<Removed>, limit: usize) {
    removed.sort_unstable_by_key(|removed| (std::cmp::Reverse(depth(&removed.reason)), removed.offer));
    removed.truncate(limit);
    removed.sort_unstable_by_key(|removed| removed.offer);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    #[test]
    fn remarks_are_the_byte_that_the_first_of_them_was() {
        for (budget_limited, degraded, byte) in [(false, false, 0), (true, false, 1), (false, true, 2), (true, true, 3)]
        {
            let remarks = Remarks { budget_limited, degraded };
            let bytes = codec::encode(&remarks);
            assert_eq!(bytes, [byte]);
            assert_eq!(codec::decode::<Remarks>("remarks", &bytes).unwrap(), remarks);
            assert!(degraded || bytes == codec::encode(&budget_limited), "as before there was a second one");
        }
        assert!(codec::decode::<Remarks>("remarks", &[4]).is_err());
    }

    #[test]
    fn what_was_lost_after_it_was_chosen_is_told_as_that_and_before_others() {
        let removed = |offer, reason| Removed { offer: OfferKey(offer), reason };
        let explained = || Explanation {
            factors: Vec::new(),
            removed: vec![
                removed(1, RemovalReason::Status),
                removed(2, RemovalReason::Excluded),
                removed(3, RemovalReason::Outscored),
            ],
        };
        let lost = [OfferKey(9), OfferKey(2), OfferKey(9), OfferKey(7)];
        let answered = |offer| offer == OfferKey(7);
        let (two, nine) = (removed(2, RemovalReason::Contended), removed(9, RemovalReason::Contended));
        let mut whole = explained();
        whole.account_for(&lost, answered, 10);
        let [status, _, outscored] = explained().removed.try_into().unwrap();
        assert_eq!(whole.removed, [status, two.clone(), outscored, nine.clone()]);
        let mut short = explained();
        short.account_for(&lost, answered, 2);
        assert_eq!(short.removed, [two, nine]);
    }
}
