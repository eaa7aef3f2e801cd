//! Traces: everything a decision read but the catalogue, and what it came to. With the catalogue of its revision it is decided again
//! to the same bytes, anywhere (domain.md §10, docs/adr/0019).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::codec::{self, DecodeError};
use crate::decide::case::Scratch;
use crate::decide::decision::{Decision, EmptyReason, Proposition, PropositionKind};
use crate::decide::kernel::decide;
use crate::decide::request::{Explain, Request};
use crate::decide::view::{EscrowView, Free, Instant, Subject};
use crate::keys::{CapKey, OfferKey, Revision, Symbol};
use crate::learn::{Learned, Tallies};
use crate::profile::command::AccountId;
use crate::profile::metrics::{Metrics, Series};
use crate::profile::state::{Named, Profile};
use crate::profile::symbols::Symbols;
use crate::snapshot::{Binding, Snapshot};
use crate::time::{CalendarFrame, Timestamp};

/// What others taking its units again and again leave of a decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum Contention {
    /// They did not: all of it.
    #[default]
    None,
    /// What takes no unit.
    Units,
    /// Fallback offers: nothing that could be refused.
    Everything,
}

impl Contention {
    /// Leaves out what is not left, and says so of its slots.
    pub fn withhold(self, decision: &mut Decision) {
        let keeps = |proposition: &Proposition| match (self, proposition.kind) {
            (Contention::None, _) | (_, PropositionKind::Fallback) => true,
            (Contention::Units, PropositionKind::Regular | PropositionKind::Mandatory) => proposition.takes.is_empty(),
            (Contention::Everything, PropositionKind::Regular | PropositionKind::Mandatory) => false,
        };
        if self == Contention::None {
            return;
        }
        decision.propositions.retain(keeps);
        if decision.slots.is_empty() && decision.propositions.is_empty() {
            decision.empty.get_or_insert(EmptyReason::NoCandidate);
        }
        for (number, slot) in (0u16..).zip(&mut decision.slots) {
            let left = decision.propositions.iter().filter(|proposition| proposition.slot == Some(number)).count();
            slot.count = left as u32;
            if left == 0 {
                slot.fallback = false;
                slot.empty.get_or_insert(EmptyReason::NoCandidate);
            }
        }
    }
}

/// Stored form: a trace outlives the release that made it.
#[derive(Debug, Encode, Decode)]
enum Stored {
    /// P was 0.5 for every offer: nothing was learned, or it was before anything could be.
    V1(Recorded),
    /// With the tallies that P followed from.
    V2(Recorded, Tallies),
}

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// What was read of one shard and one request, and the decision.
    pub recorded: Recorded,
    /// What P followed from: shared with all that decided by it.
    learned: Arc<Learned>,
}

/// See [`Trace`].
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Recorded {
    /// The catalogue it was decided under.
    pub revision: Revision,
    /// What was asked, with what `apply` refused among its excluded offers.
    pub request: Request,
    /// Offers that `apply` refused: others had taken their last units.
    pub refused: Vec<OfferKey>,
    /// Log time of the decision.
    pub now: Timestamp,
    /// The tenant's calendar around it.
    pub frame: CalendarFrame,
    /// What random draws derive from.
    pub seed: u64,
    /// Names of the profile's symbols, which are counted from 0 here.
    names: Vec<Arc<str>>,
    /// The customer, without answered keys; `None` for one never seen.
    profile: Option<Profile>,
    /// What their metrics counted.
    metrics: Vec<Series>,
    /// What the shard could spend, as far as it was looked at.
    escrow: Vec<(CapKey, Option<Free>)>,
    /// What others left of it.
    pub contention: Contention,
    /// What it came to.
    pub decision: Decision,
}

/// Where two decisions differ first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The place, as a path of members.
    pub path: String,
    /// What the trace has there.
    pub recorded: String,
    /// What was decided again.
    pub replayed: String,
}

/// An escrow that notes what is looked up in it.
pub struct Noting<'a> {
    escrow: &'a dyn EscrowView,
    seen: RefCell<BTreeMap<CapKey, Option<Free>>>,
}

impl<'a> Noting<'a> {
    /// Nothing looked up yet.
    pub fn new(escrow: &'a dyn EscrowView) -> Self {
        Noting { escrow, seen: RefCell::default() }
    }

    /// What was looked up, by cap.
    pub fn into_seen(self) -> Vec<(CapKey, Option<Free>)> {
        self.seen.into_inner().into_iter().collect()
    }
}

impl EscrowView for Noting<'_> {
    fn free(&self, cap: CapKey, now: Timestamp) -> Option<Free> {
        let free = self.escrow.free(cap, now);
        self.seen.borrow_mut().insert(cap, free);
        free
    }
}

/// An escrow as it was noted.
struct Noted<'a> {
    seen: &'a [(CapKey, Option<Free>)],
    /// What a cap has that was not looked up.
    unseen: fn(CapKey) -> Option<Free>,
}

impl EscrowView for Noted<'_> {
    fn free(&self, cap: CapKey, _: Timestamp) -> Option<Free> {
        match self.seen.binary_search_by_key(&cap, |(cap, _)| *cap) {
            Ok(place) => self.seen[place].1,
            Err(_) => (self.unseen)(cap),
        }
    }
}

fn plenty(cap: CapKey) -> Option<Free> {
    Some(Free { account: AccountId::nowhere(cap), amount: u64::MAX, left: None })
}

/// What a decision read beside request and customer.
#[derive(Clone, Debug)]
pub struct Read {
    /// When it was made.
    pub at: Instant,
    /// What random draws derive from.
    pub seed: u64,
    /// See [`Noting::into_seen`].
    pub escrow: Vec<(CapKey, Option<Free>)>,
    /// Offers that `apply` refused before.
    pub refused: Vec<OfferKey>,
    /// What others left of it.
    pub contention: Contention,
    /// What was known of how offers are received.
    pub learned: Arc<Learned>,
}

impl Trace {
    /// The trace of `decision`, which was made of `request` for `subject`. O(profile).
    pub fn new(subject: Subject<'_>, request: &Request, read: Read, decision: &Decision) -> Self {
        let Read { at, seed, escrow, refused, contention, learned } = read;
        let (mut names, mut metrics) = (Vec::new(), Vec::new());
        let profile = subject.profile.map(|profile| {
            let mut profile = profile.clone();
            if let Some(dealings) = profile.dealings.as_mut() {
                dealings.keyed = Default::default();
                metrics = dealings.metrics.series().to_vec();
            }
            names = rename(&mut profile, subject.symbols);
            profile
        });
        let recorded = Recorded {
            revision: decision.revision,
            request: Request { explain: Explain::Off, ..request.clone() },
            refused,
            now: at.now,
            frame: at.frame,
            seed,
            names,
            profile,
            metrics,
            escrow,
            contention,
            decision: Decision { explanation: None, ..decision.clone() },
        };
        Trace { recorded, learned }
    }

    /// Decides again, under the catalogue of its revision compiled as `snapshot`.
    pub fn replay(&self, snapshot: &Snapshot) -> Decision {
        let mut decision = self.decide(snapshot, |_| None);
        self.recorded.contention.withhold(&mut decision);
        decision
    }

    /// Decides what was asked then under another catalogue. A cap that was not looked up then has units.
    pub fn decide_under(&self, snapshot: &Snapshot) -> Decision {
        self.decide(snapshot, plenty)
    }

    fn decide(&self, snapshot: &Snapshot, unseen: fn(CapKey) -> Option<Free>) -> Decision {
        let Recorded { names, profile, metrics, escrow, now, frame, request, seed, .. } = &self.recorded;
        let escrow = Noted { seen: escrow, unseen };
        let mut symbols = Symbols::default();
        for name in names {
            symbols.intern(name);
        }
        let mut profile = profile.clone();
        if let Some(metrics) = Metrics::restored(metrics.clone()).filter(|metrics| !metrics.series().is_empty()) {
            profile.get_or_insert_default().dealings.get_or_insert_default().metrics = metrics;
        }
        let subject = Subject { profile: profile.as_ref(), symbols: &symbols };
        let at = Instant { now: *now, frame: *frame };
        let (mut binding, mut scratch) = (Binding::new(), Scratch::new());
        decide(snapshot, subject, &mut binding, &escrow, &self.learned, request, &at, *seed, &mut scratch)
    }

    /// Where `decision` differs from the trace's, if its bytes do.
    pub fn difference(&self, decision: &Decision) -> Option<Difference> {
        if codec::encode(&self.recorded.decision) == codec::encode(decision) {
            return None;
        }
        let (recorded, replayed) = (format!("{:#?}", self.recorded.decision), format!("{decision:#?}"));
        let mut path: Vec<&str> = Vec::new();
        let mut lines = recorded.lines().zip(replayed.lines());
        let found = lines.find(|(one, other)| {
            let depth = (one.len() - one.trim_start().len()) / 4;
            path.truncate(depth);
            path.push(one.trim().split([':', ' ', '(', '{']).next().unwrap_or_default());
            one != other
        });
        let (one, other) = found.unwrap_or(("nothing more", "more, or nothing"));
        Some(Difference { path: path.join("/"), recorded: one.trim().to_owned(), replayed: other.trim().to_owned() })
    }

    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let recorded = self.recorded.clone();
        codec::encode(&match self.learned.is_neutral() {
            true => Stored::V1(recorded),
            false => Stored::V2(recorded, self.learned.tallies().clone()),
        })
    }

    /// From bytes.
    ///
    /// # Errors
    /// If they are no trace, or one of another version. What is read is trusted: bytes from outside must be known to be a trace's.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (recorded, tallies) = match codec::decode("a trace", bytes)? {
            Stored::V1(recorded) => (recorded, Tallies::default()),
            Stored::V2(recorded, tallies) => (recorded, tallies),
        };
        Ok(Trace { recorded, learned: Arc::new(Learned::new(tallies)) })
    }
}

/// Gives the profile's symbols new numbers, counted from 0 in the same order, and says what they are called.
fn rename(profile: &mut Profile, symbols: &Symbols) -> Vec<Arc<str>> {
    let columns = profile.rows.iter().flat_map(|(_, row)| row.iter());
    let named = profile.attributes.iter().chain(columns).map(|(symbol, _)| *symbol);
    let mut used: Vec<Symbol> = named.chain(profile.segments.iter().copied()).collect();
    used.sort_unstable();
    used.dedup();
    let renamed = |symbol: &mut Symbol| {
        let place = used.binary_search(symbol).expect("every symbol of the profile is in the list");
        *symbol = Symbol(place as u32);
    };
    let all = |named: &mut Named| named.iter_mut().for_each(|(symbol, _)| renamed(symbol));
    all(&mut profile.attributes);
    profile.rows.iter_mut().for_each(|(_, row)| all(row));
    profile.segments.iter_mut().for_each(renamed);
    used.iter().map(|symbol| Arc::clone(symbols.name(*symbol))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::decision::{FlowChoice, Funnel, Remarks, SlotOutcome};
    use crate::decide::request::Duplicates;
    use crate::keys::{CategoryKey, ChannelKey, CreativeKey, CustomerId, PlacementKey, TenantId};
    use crate::profile::evidence::Tally;
    use crate::time::Span;
    use crate::value::Value;

    fn decision() -> Decision {
        let proposition = Proposition {
            offer: OfferKey(70),
            creative: CreativeKey::NONE,
            channel: ChannelKey(7),
            placement: PlacementKey(8),
            activity: None,
            slot: Some(0),
            score: 0.75,
            kind: PropositionKind::Regular,
            takes: Vec::new(),
            computed: Vec::new(),
        };
        Decision {
            revision: Revision(300),
            flow: FlowChoice { key: None, version: 0, compact: false },
            propositions: vec![proposition],
            slots: vec![SlotOutcome { count: 1, fallback: false, empty: None }],
            empty: None,
            funnel: Funnel {
                total_candidates: 4,
                after_qualification: 3,
                after_suppression: 2,
                after_contact_policy: 1,
            },
            arm: None,
            ghosts: Vec::new(),
            remarks: Remarks::default(),
            explanation: None,
        }
    }

    fn trace() -> Trace {
        trace_of(Tallies::default())
    }

    fn trace_of(tallies: Tallies) -> Trace {
        let request = Request {
            tenant: TenantId::new("acme"),
            customer: CustomerId::new("ann"),
            channel: Some(ChannelKey(7)),
            slots: Vec::new(),
            flow: None,
            limit: Some(3),
            attributes: Vec::new(),
            context: vec![("city".into(), Value::text("Bonn"))],
            segments: Vec::new(),
            exclude_offers: vec![OfferKey(3)],
            exclude_creatives: Vec::new(),
            duplicates: Duplicates::Never,
            arbitration: None,
            explain: Explain::Full { limit: 10 },
            counters: true,
        };
        let mut symbols = Symbols::default();
        for name in ["unused", "age", "other", "vip"] {
            symbols.intern(name);
        }
        let profile = Profile {
            attributes: Box::new([(Symbol(1), Value::Number(41.0))]),
            segments: Box::new([Symbol(3)]),
            ..Profile::default()
        };
        let day = Span { from: Timestamp(0), until: Timestamp(86_400_000) };
        let frame = CalendarFrame { valid: day, weekday: 4, minute_of_day: 3, day, week: day, month: day };
        let read = Read {
            at: Instant { now: Timestamp(1_000), frame },
            seed: 7,
            escrow: vec![(CapKey(9), None)],
            refused: vec![OfferKey(3)],
            contention: Contention::None,
            learned: Arc::new(Learned::new(tallies)),
        };
        let subject = Subject { profile: Some(&profile), symbols: &symbols };
        Trace::new(subject, &request, read, &decision())
    }

    #[test]
    fn a_trace_keeps_its_bytes_and_names_only_what_the_profile_has() {
        let trace = trace();
        assert_eq!(trace.recorded.names.iter().map(|name| &**name).collect::<Vec<_>>(), ["age", "vip"]);
        let bytes = trace.encode();
        assert_eq!(Trace::decode(&bytes).unwrap(), trace);
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        insta::assert_snapshot!(hex.concat());
        let mut unknown = bytes;
        unknown[0] = 2;
        assert!(Trace::decode(&unknown).is_err());
    }

    #[test]
    fn a_trace_has_the_tallies_that_p_followed_from() {
        let tally = |shown, positive| Tally { shown, positive };
        let tallies = Tallies {
            all: tally(30, 3),
            offers: vec![(OfferKey(70), tally(30, 3))],
            categories: vec![(CategoryKey(2), tally(20, 1))],
        };
        let (plain, trace) = (trace().encode(), trace_of(tallies.clone()));
        let bytes = trace.encode();
        let read = Trace::decode(&bytes).unwrap();
        assert_eq!((&read, read.learned.tallies()), (&trace, &tallies));
        assert_eq!((bytes[0], &bytes[1..plain.len()]), (1, &plain[1..]), "the rest is what it was");
        let tail: Vec<String> = bytes[plain.len()..].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(tail.concat(), "1e0301461e0301021401");
        // Too little to change any P is left out, and so is a byte for it.
        let few = Tallies { all: tally(9, 9), offers: Vec::new(), categories: Vec::new() };
        assert_eq!(trace_of(few).encode(), plain);
    }

    #[test]
    fn the_first_difference_is_told_with_its_path() {
        let trace = trace();
        assert_eq!(trace.difference(&decision()), None);
        let mut other = decision();
        other.propositions[0].score = 0.5;
        other.remarks.budget_limited = true;
        let found = trace.difference(&other).unwrap();
        assert_eq!(found.path, "Decision/propositions/Proposition/score");
        assert_eq!((found.recorded.as_str(), found.replayed.as_str()), ("score: 0.75,", "score: 0.5,"));
    }

    #[test]
    fn what_others_left_is_withheld_and_said_of_the_slots() {
        let mut all = decision();
        all.propositions.push(Proposition { kind: PropositionKind::Fallback, ..all.propositions[0].clone() });
        let left = |contention: Contention, decision: &Decision| {
            let mut decision = decision.clone();
            contention.withhold(&mut decision);
            (decision.propositions.len(), decision.slots[0].count, decision.slots[0].empty)
        };
        assert_eq!(left(Contention::Units, &all), (2, 2, None), "neither takes a unit");
        assert_eq!(left(Contention::Everything, &all), (1, 1, None));
        assert_eq!(left(Contention::Everything, &decision()), (0, 0, Some(EmptyReason::NoCandidate)));
    }
}
