//! A turn's deeds that need the catalogue: decisions, outcomes, and what is read.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use proffer_engine::decide::decision::{EmptyReason, Proposition};
use proffer_engine::decide::request::{Explain, Request};
use proffer_engine::decide::trace::{Contention, Noting, Read, Trace};
use proffer_engine::decide::view::{EscrowView, Free, Instant as Moment};
use proffer_engine::decide::{Scratch, Taking, decide, enrolment_of, take_of};
use proffer_engine::keys::{CapKey, TenantId};
use proffer_engine::profile::apply::{Outcome, Refusal, Took};
use proffer_engine::profile::cells::{Look, ProfileId};
use proffer_engine::profile::command::{
    AccountId, DecisionId, FirstAnswer, Idempotency, Leader, Release, ShardOp, Take,
};
use proffer_engine::profile::keyed::{Keyed, KeyedAnswer};
use proffer_engine::profile::measuring::{self, measure_event, measure_respond};
use proffer_engine::profile::planning::{self, plan_respond};
use proffer_engine::profile::trials::Enrolment;
use proffer_engine::snapshot::Binding;
use proffer_engine::time::{CalendarFrame, Timestamp};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use crate::calls::{CallKey, Decided, Degraded, ProfileView, Responded};
use crate::error::Error;
use crate::limits::{CONTENTION_TRIES, DECISION_KEY_MS, ESCROW_WAIT_MS, MISSES_MAX, RESPONSE_KEY_MS};
use crate::planted::{Bug, is};
use crate::shard::ask::{Ask, DecideAsk, Held, ReadAsk, RespondAsk, Told};
use crate::shard::leader::ShardLeader;
use crate::shard::trial::{Inputs, Raw};
use crate::shard::work::{Origin, Work};
use crate::view::TenantView;

/// What deciding keeps between decisions to be fast: nothing that changes an answer.
#[derive(Default)]
pub(super) struct Frames {
    by_tenant: BTreeMap<TenantId, Workbench>,
    scratch: Scratch,
}

struct Workbench {
    binding: Binding,
    /// The calendar of a snapshot around the last decision, while it holds.
    frame: Option<(proffer_engine::keys::Revision, CalendarFrame)>,
}

impl Frames {
    /// What symbols stand for is looked up again.
    pub(super) fn forget_names(&mut self) {
        self.by_tenant.clear();
    }

    fn workbench(&mut self, view: &TenantView, now: Timestamp) -> (&mut Binding, &mut Scratch, CalendarFrame) {
        if !self.by_tenant.contains_key(&view.tenant) {
            self.by_tenant.insert(view.tenant.clone(), Workbench { binding: Binding::new(), frame: None });
        }
        let bench = self.by_tenant.get_mut(&view.tenant).expect("inserted above");
        let frame = match bench.frame {
            Some((revision, frame)) if revision == view.revision && frame.valid.contains(now) => frame,
            Some(_) | None => view.snapshot.calendar().frame(now),
        };
        bench.frame = Some((view.revision, frame));
        (&mut bench.binding, &mut self.scratch, frame)
    }
}

/// The tenant's escrow, and what a decision looked for there in vain.
pub(super) struct Searched<'a, L: ?Sized> {
    look: &'a L,
    tenant: u32,
    missed: RefCell<Vec<AccountId>>,
    /// Nothing is free: the last resort of a decision that others keep outrunning.
    barren: bool,
}

impl<'a, L: Look + ?Sized> Searched<'a, L> {
    pub(super) fn new(look: &'a L, tenant: u32, barren: bool) -> Self {
        Searched { look, tenant, missed: RefCell::default(), barren }
    }
}

impl<L: Look + ?Sized> EscrowView for Searched<'_, L> {
    fn free(&self, cap: CapKey, now: Timestamp) -> Option<Free> {
        let (account, held) = self.look.current_account(self.tenant, cap, now)?;
        let (amount, left) = (if self.barren { 0 } else { held.free() }, held.left());
        // Of a soft cap nothing is to be had: what is left of it is left for all.
        if amount == 0 && left.is_none() {
            let mut missed = self.missed.borrow_mut();
            if missed.len() < MISSES_MAX {
                missed.push(account);
            }
        }
        Some(Free { account, amount, left })
    }
}

/// What a turn makes of a decision.
enum Plan {
    /// Units may come: look again when they have.
    Wait,
    /// The answer, what it takes, and the place in an experiment that comes with that.
    Decided(Box<Raw>, Option<Box<Take>>, Option<Enrolment>),
}

impl ShardLeader {
    pub(super) fn decide(&mut self, mut ask: Box<DecideAsk>, leader: Leader) {
        ask.call.idempotency = ask.call.idempotency.map(|key| known_under(key, leader));
        if ask.call.deadline <= Instant::now() {
            ask.reply.send(Err(Error::Expired));
            return;
        }
        let in_force = self.around.views.load();
        let Some(view) = in_force.tenants.get(&ask.request.tenant).cloned() else {
            let error = Error::UnknownTenant(ask.request.tenant.to_string());
            ask.reply.send(Err(error));
            return;
        };
        let now = self.now();
        let id = ProfileId { tenant: ask.request.tenant.clone(), customer: ask.request.customer.clone() };
        if let Some(key) = ask.call.idempotency
            && let Some(answer) = self.repeat(key, &id, &view, now)
        {
            let until = self.pending.touched_profile(&id);
            match answer {
                Ok(raw) => self.answer_decision(until, ask, raw),
                Err(error) => self.refuse_when(until, Work::Ask(Ask::Decide(ask)), error),
            }
            return;
        }
        if let Some(earlier) = ask.call.supersedes {
            // Given back first, in the same turn: this decision reads the overlay, and so finds the units.
            let (tenant, customer) = (id.tenant.clone(), id.customer.clone());
            let op = ShardOp::Release(Release { tenant, customer, decision: earlier, ranks: Vec::new() });
            self.write(op, Origin::Own, leader);
        }
        // A request that makes this program panic costs its own answer, and not the shard.
        let plan = catch_unwind(AssertUnwindSafe(|| self.plan(&ask, &id, &view, now)));
        let (raw, take, enrolment) = match plan {
            Ok(Plan::Wait) => {
                let until = Instant::now() + Duration::from_millis(ESCROW_WAIT_MS);
                self.park(until.min(ask.call.deadline), *ask);
                return;
            }
            Ok(Plan::Decided(raw, take, enrolment)) => (raw, take, enrolment),
            Err(_) => {
                self.panicked("deciding");
                ask.reply.send(Err(Error::Poisonous));
                return;
            }
        };
        let Some(take) = take else {
            // What takes nothing writes nothing; it waits only for what it has read.
            let until = self.pending.touched_profile(&id).max(self.pending.touched_escrow());
            self.answer_decision(until, ask, raw);
            return;
        };
        let supersedes = ask.call.supersedes.is_some();
        let op = self.measure_take(take, &id, &view, now);
        let op = match enrolment {
            Some(enrolment) => op.enrolling(enrolment),
            None => op,
        };
        let command = self.command(op, in_force.revision, leader);
        match self.foresee(&command, leader) {
            Ok((_, Outcome::Refused(refusal))) => self.reconsider(Origin::Decide(ask, raw), &command, refusal),
            Ok((sequence, outcome)) => {
                if supersedes {
                    // The old units do not go without the new ones being taken.
                    self.join_last();
                }
                self.form(sequence, command, outcome, Origin::Decide(ask, raw));
            }
            Err(error) => self.fail(Origin::Decide(ask, raw), &error),
        }
    }

    /// Decides on what is pending, and says what that takes.
    fn plan(&mut self, ask: &DecideAsk, id: &ProfileId, view: &Arc<TenantView>, now: Timestamp) -> Plan {
        let seed = match ask.call.idempotency {
            Some(CallKey { key, .. }) => xxh3_64(&key.to_le_bytes()),
            None => self.around.entropy.u64(),
        };
        let barren = ask.contended >= CONTENTION_TRIES;
        let mut request = ask.request.clone();
        let explain = std::mem::replace(&mut request.explain, Explain::Off);
        request.exclude_offers.extend(&ask.masked);

        let (binding, scratch, frame) = self.frames.workbench(view, now);
        let at = Moment { now, frame };
        let look = self.pending.view(&self.state);
        let learned = self.around.learning.of(&view.tenant);
        let escrow = Searched::new(&look, view.number, barren);
        let noting = Noting::new(&escrow);
        let seen: &dyn EscrowView = if ask.call.trace { &noting } else { &escrow };
        let mut decision =
            decide(&view.snapshot, look.subject(id), binding, seen, &learned, &request, &at, seed, scratch);
        let noted = noting.into_seen();
        let missed = escrow.missed.into_inner();
        // Whatever still takes units lost three times: it is left out. What is refused even so waits for a policy or the
        // mandatory limit: then only what takes nothing at all is left, and that no one refuses.
        let contention = match (barren, ask.contended > CONTENTION_TRIES) {
            (false, _) => Contention::None,
            (true, false) => Contention::Units,
            (true, true) => Contention::Everything,
        };
        contention.withhold(&mut decision);
        if !barren && decision.remarks.budget_limited && !ask.waited && self.taker.may_have(&missed) {
            self.taker.want(&missed);
            self.taker.send(&self.state, &self.around.meta);
            return Plan::Wait;
        } else if !barren && !missed.is_empty() {
            self.taker.want(&missed);
        }
        let trace = ask.call.trace.then(|| {
            let (refused, learned) = (ask.masked.clone(), Arc::clone(&learned));
            let read = Read { at, seed, escrow: noted, refused, contention, learned };
            Box::new(Trace::new(look.subject(id), &request, read, &decision))
        });

        let decision_id = decision_id(seed, now, ask.proposed);
        let held = look.escrow(view.number);
        let enrolment = enrolment_of(&view.snapshot, look.profile(id), &request, &decision, &at);
        let taking = Taking {
            decision: decision_id,
            idempotency: ask.call.idempotency.map(|key| idempotency(key, now.plus_ms(DECISION_KEY_MS))),
            supersedes: ask.call.supersedes,
            contended: barren,
            enrols: enrolment.is_some(),
        };
        let take = take_of(&view.snapshot, look.subject(id), binding, &held, &request, &decision, &at, taking);
        let inputs = (explain != Explain::Off).then(|| {
            let (state, pending) = (self.state.clone(), self.pending.clone());
            let request = Request { explain, ..request };
            let masked = ask.masked.clone();
            let view = Arc::clone(view);
            Box::new(Inputs { state, pending, view, learned, request, at, seed, masked, barren })
        });
        let raw = Raw {
            decided: Decided {
                expires: decision.propositions.iter().map(expiry).collect(),
                id: decision_id,
                at: now,
                seed,
                duplicate: false,
                excluded: Vec::new(),
                degraded: barren.then_some(Degraded::Contention),
                view: Arc::clone(view),
                decision,
                trace,
            },
            inputs,
            request: None,
        };
        Plan::Decided(Box::new(raw), take.map(Box::new), enrolment)
    }

    /// What deciding keeps between decisions may be half written.
    fn panicked(&mut self, what: &str) {
        tracing::error!(shard = self.around.shard.0, what, "a request makes this panic; it is refused");
        self.frames = Frames::default();
    }

    /// The answer to a call whose key was answered before; `None`: it was not.
    fn repeat(
        &self,
        key: CallKey,
        id: &ProfileId,
        view: &Arc<TenantView>,
        now: Timestamp,
    ) -> Option<Result<Box<Raw>, Error>> {
        let look = self.pending.view(&self.state);
        let known = |keyed: &&Keyed| keyed.key == key.key && now < keyed.until;
        let found = look.profile(id)?.dealings.as_ref()?.keyed.iter().find(known)?;
        let (body, answer) = (found.body, found.answer.clone());
        Some(match answer {
            KeyedAnswer::Took { decision, at, answer } if body == key.body => {
                let seed = xxh3_64(&key.key.to_le_bytes());
                Ok(Box::new(replayed(view, decision, at, &answer, seed)))
            }
            KeyedAnswer::Took { .. } | KeyedAnswer::Responded { .. } | KeyedAnswer::Noted => Err(Error::KeyReused),
        })
    }

    pub(super) fn settle_decision(&mut self, ask: Box<DecideAsk>, mut raw: Box<Raw>, outcome: Outcome) {
        match outcome {
            Outcome::Took(Took { decision, at, first_answer: Some(first) }) => {
                let raw = replayed(&raw.decided.view, decision, at, &first, raw.decided.seed);
                ask.answer(Box::new(raw));
            }
            Outcome::Took(Took { decision, at, first_answer: None }) => {
                (raw.decided.id, raw.decided.at) = (decision, at);
                ask.answer(raw);
            }
            Outcome::Released { .. } | Outcome::Responded(_) | Outcome::Done => {
                ask.answer(raw);
            }
            Outcome::Refused(refusal) => {
                let op = ShardOp::Tick;
                let command = self.command(op, raw.decided.view.revision, Leader::default());
                self.reconsider(Origin::Decide(ask, raw), &command, refusal);
            }
        }
    }

    pub(super) fn respond(&mut self, mut ask: Box<RespondAsk>, leader: Leader) {
        ask.call.idempotency = ask.call.idempotency.map(|key| known_under(key, leader));
        if ask.call.deadline <= Instant::now() {
            ask.reply.send(Err(Error::Expired));
            return;
        }
        let in_force = self.around.views.load();
        let Some(view) = in_force.tenants.get(ask.told.tenant()).cloned() else {
            let error = Error::UnknownTenant(ask.told.tenant().to_string());
            ask.reply.send(Err(error));
            return;
        };
        let Some(key) = ask.call.idempotency else {
            ask.reply.send(Err(Error::Invalid("what happened needs an idempotency key".to_owned())));
            return;
        };
        // What makes this program panic costs its own answer, and not the shard.
        let op = match catch_unwind(AssertUnwindSafe(|| self.plan_told(&ask.told, key, &view))) {
            Ok(Ok(op)) => op,
            Ok(Err(error)) => {
                ask.reply.send(Err(error));
                return;
            }
            Err(_) => {
                self.panicked("planning what happened");
                ask.reply.send(Err(Error::Poisonous));
                return;
            }
        };
        let command = self.command(op, in_force.revision, leader);
        match self.foresee(&command, leader) {
            Ok((_, Outcome::Refused(refusal))) => self.reconsider(Origin::Respond(ask), &command, refusal),
            Ok((sequence, outcome)) => self.form(sequence, command, outcome, Origin::Respond(ask)),
            Err(error) => self.fail(Origin::Respond(ask), &error),
        }
    }

    /// The command that records what happened, and what metrics make of it.
    fn plan_told(&mut self, told: &Told, key: CallKey, view: &TenantView) -> Result<ShardOp, Error> {
        let now = self.now();
        let (_, _, frame) = self.frames.workbench(view, now);
        let at = Moment { now, frame };
        let look = self.pending.view(&self.state);
        let id = ProfileId { tenant: told.tenant().clone(), customer: told.customer().clone() };
        let idempotency = idempotency(key, now.plus_ms(RESPONSE_KEY_MS));
        let request = match told {
            Told::Event(request) => {
                return Ok(measure_event(&view.catalog, look.profile(&id), request, idempotency, &at));
            }
            Told::Outcome(request) => request,
        };
        let word = view.catalog.outcomes().word(request.outcome);
        let Some(outcome) = word.and_then(|word| view.catalog.outcomes().get(word)) else {
            return Err(Error::NotFound(format!("outcome {}", request.outcome)));
        };
        let window_ms = i64::from(view.catalog.settings().outcome_window_days) * proffer_engine::time::DAY_MS;
        let proposition = request.proposition.zip(request.decided_at).map(|((decision, rank), decided_at)| {
            let answerable_until = decided_at.plus_ms(window_ms);
            planning::Proposed { decision, rank, decided_at, answerable_until, evidence: request.evidence }
        });
        let planned = planning::RespondRequest {
            tenant: request.tenant.clone(),
            customer: request.customer.clone(),
            idempotency,
            proposition,
            offer: request.offer,
            creative: request.creative,
            channel: request.channel,
            placement: request.placement,
            outcome: request.outcome,
            sentiment: outcome.sentiment,
            value: request.value,
            opt_out: request.opt_out,
            withheld: request.withheld,
        };
        let respond = plan_respond(&view.catalog, &look.escrow(view.number), planned, &at);
        Ok(measure_respond(&view.catalog, look.profile(&id), respond, &at))
    }

    /// The command that takes, with what metrics make of what it shows at once.
    fn measure_take(&mut self, take: Box<Take>, id: &ProfileId, view: &TenantView, now: Timestamp) -> ShardOp {
        if view.catalog.metrics().is_empty() {
            return ShardOp::Take(take);
        }
        let (_, _, frame) = self.frames.workbench(view, now);
        let look = self.pending.view(&self.state);
        measuring::measure_take(&view.catalog, look.profile(id), take, &Moment { now, frame })
    }

    pub(super) fn settle_outcome(&mut self, ask: Box<RespondAsk>, outcome: Outcome) {
        let answer = match outcome {
            Outcome::Responded(responded) => Ok(Responded {
                recorded: true,
                duplicate: responded.duplicate,
                late: responded.late,
                repeat: responded.repeat,
                over_cap: responded.over_cap,
            }),
            Outcome::Refused(refusal) => {
                let command = self.command(ShardOp::Tick, self.around.views.revision(), Leader::default());
                self.reconsider(Origin::Respond(ask), &command, refusal);
                return;
            }
            Outcome::Took(_) | Outcome::Released { .. } | Outcome::Done => Err(Error::Unknown),
        };
        ask.reply.send(answer);
    }

    pub(super) fn read(&mut self, read: ReadAsk) {
        match read {
            ReadAsk::Profile { tenant, customer, reply } => {
                let id = ProfileId { tenant, customer };
                if let Some(until) = self.pending.touched_profile(&id) {
                    let ProfileId { tenant, customer } = id;
                    self.answer_read_later(until, ReadAsk::Profile { tenant, customer, reply });
                    return;
                }
                reply.send(Ok(self.profile(&id)));
            }
            ReadAsk::Inputs { request, reply } => {
                let Some(view) = self.around.views.tenant(&request.tenant) else {
                    reply.send(Err(Error::UnknownTenant(request.tenant.to_string())));
                    return;
                };
                let now = self.around.clock.wall().max(self.state.log_time());
                let (_, _, frame) = self.frames.workbench(&view, now);
                let seed = self.around.entropy.u64();
                let pending = proffer_engine::profile::pending::Pending::new();
                let at = Moment { now, frame };
                let (state, masked) = (self.state.clone(), Vec::new());
                let learned = self.around.learning.of(&view.tenant);
                reply.send(Ok(Inputs { state, pending, view, learned, request, at, seed, masked, barren: false }));
            }
            ReadAsk::State { reply } => {
                reply.send(Ok(self.share()));
            }
            ReadAsk::Escrow { accounts, reply } => {
                let as_of = self.state.log_time();
                let held = accounts.into_iter().filter_map(|account| {
                    let held = self.state.account(account)?;
                    Some(Held {
                        account,
                        granted_seen: held.granted_seen(),
                        returned: held.returned(),
                        minted: held.minted(),
                        free: held.free(),
                        reserved: held.reserved(),
                        spent: held.spent(),
                        as_of,
                    })
                });
                reply.send(Ok(held.collect()));
            }
        }
    }

    fn profile(&self, id: &ProfileId) -> Option<ProfileView> {
        let profile = self.state.profile(id).filter(|profile| !profile.is_deleted())?;
        let symbols = self.state.symbols(&id.tenant)?;
        let named = |named: &[(proffer_engine::keys::Symbol, proffer_engine::value::Value)]| {
            named.iter().map(|(symbol, value)| (Arc::clone(symbols.name(*symbol)), value.clone())).collect::<Vec<_>>()
        };
        Some(ProfileView {
            attributes: named(&profile.attributes),
            segments: profile.segments.iter().map(|symbol| Arc::clone(symbols.name(*symbol))).collect(),
            rows: profile.rows.iter().map(|(schema, row)| (*schema, named(row))).collect(),
            exposures: profile.exposures.to_vec(),
            dealings: profile.dealings.clone(),
        })
    }
}

/// What a caller is told of a refusal that deciding again cannot cure.
pub(super) fn refused(refusal: &Refusal) -> Error {
    match refusal {
        Refusal::IdempotencyConflict => Error::KeyReused,
        Refusal::KeyTableFull => Error::KeysFull,
        Refusal::WrongLeader | Refusal::Fenced { .. } | Refusal::CapRefused { .. } | Refusal::DecisionRepeated => {
            Error::Unavailable { reason: refusal.to_string(), retry_after_ms: crate::limits::RETRY_AFTER_BUSY_MS }
        }
        Refusal::NamesFull | Refusal::ProfileTooLarge | Refusal::Malformed(_) => Error::Invalid(refusal.to_string()),
    }
}

fn idempotency(key: CallKey, until: Timestamp) -> Idempotency {
    Idempotency { key: key.key, body: key.body, until }
}

/// The id of a decision: of its seed, but a key that is used again after it was forgotten names another decision.
fn decision_id(seed: u64, now: Timestamp, tries: u8) -> DecisionId {
    let mut bytes = [0; 17];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&now.0.to_le_bytes());
    bytes[16] = tries;
    DecisionId(xxh3_64(&bytes))
}

/// The first answer to a keyed decision, again. All of its propositions keep their ranks: outcomes name them. Those that have
/// been excluded since are only not to be shown.
fn replayed(view: &Arc<TenantView>, id: DecisionId, at: Timestamp, first: &FirstAnswer, seed: u64) -> Raw {
    let mut decision = first.decision.clone();
    let mut excluded = Vec::new();
    for (proposition, rank) in decision.propositions.iter().zip(1..) {
        if !view.snapshot.is_excluded(proposition.offer) {
            continue;
        }
        excluded.push(rank);
        let Some(slot) = proposition.slot.and_then(|slot| decision.slots.get_mut(usize::from(slot))) else { continue };
        slot.count = slot.count.saturating_sub(1);
        if slot.count == 0 {
            let reason = if slot.fallback { EmptyReason::FallbackUnavailable } else { EmptyReason::NoCandidate };
            (slot.fallback, slot.empty) = (false, Some(reason));
        }
    }
    let expires = decision.propositions.iter().map(expiry).collect();
    let degraded = first.contended.then_some(Degraded::Contention);
    let view = Arc::clone(view);
    let decided = Decided { decision, id, at, seed, duplicate: true, excluded, degraded, view, expires, trace: None };
    Raw { decided, inputs: None, request: None }
}

/// When the first of a proposition's units lapses.
fn expiry(proposition: &Proposition) -> Option<Timestamp> {
    proposition.takes.iter().map(|take| take.expires_at).min()
}

/// What a key is known by: the same under every leader.
fn known_under(key: CallKey, leader: Leader) -> CallKey {
    if is(Bug::KeysForgottenOnFailover) {
        CallKey { key: key.key & !0xFFFF | u128::from(leader.term), ..key }
    } else {
        key
    }
}
