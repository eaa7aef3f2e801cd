//! Random profiles with histories, escrow views, requests and instants over a catalogue.

use std::collections::BTreeMap;
use std::sync::Arc;

use proffer_engine::budget::escrow::EscrowAccount;
use proffer_engine::catalog::TenantCatalog;
use proffer_engine::decide::request::{Duplicates, Explain, Request, SlotRequest, SlotTarget};
use proffer_engine::decide::view::{EscrowView, Free, Instant};
use proffer_engine::keys::{
    CapKey, CategoryKey, ChannelKey, CreativeKey, CustomerId, OfferKey, OutcomeKey, PlacementKey, Revision, Symbol,
    TenantId,
};
use proffer_engine::learn::{Learned, Tallies};
use proffer_engine::model::flow::Arbitration;
use proffer_engine::model::offer::{CapPer, CapScope, CapWindow, Enforcement};
use proffer_engine::profile::apply::{Outcome, Refusal, apply};
use proffer_engine::profile::cells::{Cells, Look, ProfileId};
use proffer_engine::profile::command::{
    AccountId, CountEvent, Counted, DecisionId, EscrowMessage, Idempotency, Leader, OptOut, Position, Recall,
    ShardCommand, ShardCommandV1, ShardOp, SoftTerms, Take, TakeAccount, Window,
};
use proffer_engine::profile::evidence::Tally;
use proffer_engine::profile::measuring::EventRequest;
use proffer_engine::profile::measuring::measure_event;
use proffer_engine::profile::metrics::Metrics;
use proffer_engine::profile::shard::ShardState;
use proffer_engine::profile::state::{
    CapUse, Dealings, Exposure, Exposures, Named, OutcomeRecord, PolicyHold, Profile, Reservation, Used,
};
use proffer_engine::profile::symbols::Symbols;
use proffer_engine::time::{Calendar, DAY_MS, HOUR_MS, Period, Span, Timestamp};
use proffer_engine::value::Value;

use super::catalogue::{SEGMENTS, START};
use super::dice::Dice;

/// What a shard may spend, by cap.
#[derive(Default)]
pub struct Escrow(BTreeMap<CapKey, Free>);

impl EscrowView for Escrow {
    fn free(&self, cap: CapKey, _: Timestamp) -> Option<Free> {
        self.0.get(&cap).copied()
    }
}

impl Escrow {
    /// A shard of one customer, with these accounts.
    fn open(&self, state: &mut ShardState, now: Timestamp) {
        for free in self.0.values() {
            let message = EscrowMessage {
                account: free.account,
                granted: free.amount,
                span: Span::ALWAYS,
                unit: 1,
                cooling_ms: 0,
                recall: Recall::Nothing,
                closed: false,
                version: 0,
                soft: free.left.map(|limit| SoftTerms { limit, taken_elsewhere: 0, returned_elsewhere: 0 }),
            };
            state.put_account(free.account, EscrowAccount::open(&message, now));
        }
    }

    /// What such a shard has left.
    fn left(state: &ShardState) -> Self {
        let free = |account, held: &EscrowAccount| Free { account, amount: held.free(), left: held.left() };
        Escrow(state.accounts().map(|(account, held)| (account.cap, free(account, held))).collect())
    }
}

/// Everything beside the catalogue that a decision reads, but the request.
pub struct World {
    pub profile: Option<Profile>,
    pub symbols: Symbols,
    pub escrow: Escrow,
    pub at: Instant,
    pub learned: Arc<Learned>,
}

impl World {
    /// A world whose shard knows the names in `symbols` already, and maybe learns more.
    pub fn build(catalog: &TenantCatalog, seed: u64, history: &[u64], mut symbols: Symbols) -> Self {
        let mut dice = Dice(seed);
        let hours = dice.pick(&[0, 0, 1, 5, 24, 30, 24 * 8, 24 * 31]);
        let now = START.plus_ms(hours * HOUR_MS + dice.pick(&[0, 0, 1, 59_999]));
        let at = Instant { now, frame: Calendar::of(catalog.settings()).frame(now) };
        let escrow = escrow(catalog, &mut dice);
        let profile = (!dice.chance(8)).then(|| profile(catalog, &mut symbols, &at, &mut dice, history));
        let learned = Arc::new(Learned::new(tallies(catalog, &mut dice)));
        World { profile, symbols, escrow, at, learned }
    }

    /// The world after `take` was applied to it, or why that was refused.
    pub fn after(&self, take: Take) -> Result<World, Refusal> {
        let id = ProfileId { tenant: take.tenant.clone(), customer: take.customer.clone() };
        let mut state = ShardState::new();
        state.intern(&id.tenant, self.symbols.names());
        if let Some(profile) = &self.profile {
            state.put_profile(&id, profile.clone());
        }
        self.escrow.open(&mut state, self.at.now);
        let leader = Leader { term: 1, replica: 1 };
        let op = ShardOp::Take(Box::new(take));
        let command = ShardCommand::V1(ShardCommandV1 { now: self.at.now, leader, revision: Revision(1), op });
        match apply(&mut state, Position { leader, index: 1 }, &command) {
            Outcome::Refused(refusal) => Err(refusal),
            Outcome::Took(_) | Outcome::Responded(_) | Outcome::Released { .. } | Outcome::Done => Ok(World {
                profile: state.profile(&id).cloned(),
                symbols: self.symbols.clone(),
                escrow: Escrow::left(&state),
                at: self.at,
                learned: Arc::clone(&self.learned),
            }),
        }
    }
}

fn keys<K: Copy>(keys: impl Iterator<Item = K>) -> Vec<K> {
    keys.collect()
}

fn offers(catalog: &TenantCatalog) -> Vec<OfferKey> {
    keys(catalog.offers().iter().map(|offer| offer.key))
}

/// Nothing, too little for most, or enough for priors of all kinds; of offers that are gone, too.
fn tallies(catalog: &TenantCatalog, dice: &mut Dice) -> Tallies {
    let most = dice.pick(&[0, 0, 1, 30, 400]);
    let mut tally = || {
        let shown = if most == 0 { 0 } else { dice.pick(&[0, 1, 9, 10, 19, 20, 400]).min(most) };
        let share = dice.pick(&[0, 0, 1, 5, 50, 100]);
        Tally { shown, positive: shown * share / 100 }
    };
    let offers = offers(catalog).into_iter().chain([OfferKey(u32::MAX)]).map(|offer| (offer, tally())).collect();
    let categories = catalog.categories().iter().map(|category| (category.key, tally())).collect();
    Tallies { all: tally(), offers, categories }
}

fn escrow(catalog: &TenantCatalog, dice: &mut Dice) -> Escrow {
    let mut escrow = Escrow::default();
    for offer in catalog.offers().iter() {
        for cap in catalog.caps(offer.key).iter().filter(|cap| cap.scope == CapScope::Global) {
            if dice.chance(12) {
                continue;
            }
            let account = AccountId { tenant: 0, cap: cap.cap, ordinal: 3 };
            let amount = dice.pick(&[0, 1, 1, 2, 100]) * cap.cost + dice.pick(&[0, 0, cap.cost - 1]);
            let free = match cap.enforcement {
                Enforcement::Strict => Free { account, amount, left: None },
                Enforcement::Soft => Free { account, amount: 0, left: Some(amount) },
            };
            escrow.0.insert(cap.cap, free);
        }
    }
    escrow
}

fn sorted(mut named: Vec<(Symbol, Value)>) -> Named {
    named.sort_by_key(|(symbol, _)| *symbol);
    named.dedup_by_key(|(symbol, _)| *symbol);
    named.into()
}

fn number_value(dice: &mut Dice) -> Value {
    dice.pick(&[Value::Number(20.0), Value::Number(30.0), Value::Number(45.5), Value::Null, Value::text("old")])
}

fn word_value(dice: &mut Dice) -> Value {
    dice.pick(&[Value::text("gold"), Value::text("silver"), Value::text("go"), Value::Null, Value::Bool(true)])
}

fn profile(catalog: &TenantCatalog, symbols: &mut Symbols, at: &Instant, dice: &mut Dice, history: &[u64]) -> Profile {
    let mut attributes = Vec::new();
    if dice.chance(80) {
        attributes.push((symbols.intern("age"), number_value(dice)));
    }
    if dice.chance(70) {
        attributes.push((symbols.intern("tier"), word_value(dice)));
    }
    if dice.chance(40) {
        let since = dice.pick(&[Value::text("2026-01-01"), Value::text("never"), Value::Number(1.0)]);
        attributes.push((symbols.intern("since"), since));
    }
    let mut segments: Vec<Symbol> =
        dice.some_of(45, &SEGMENTS).into_iter().map(|segment| symbols.intern(segment)).collect();
    segments.sort_unstable();
    let mut rows = Vec::new();
    for schema in catalog.schemas().iter() {
        if dice.chance(50) {
            let row = vec![
                (symbols.intern("customer"), Value::text("c")),
                (symbols.intern("age"), number_value(dice)),
                (symbols.intern("tier"), word_value(dice)),
            ];
            rows.push((schema.key, sorted(row)));
        }
    }
    let mut profile = Profile {
        attributes: sorted(attributes),
        segments: segments.into(),
        rows,
        exposures: Exposures::default(),
        dealings: None,
    };
    let mut dealings = Dealings::default();
    for seed in history {
        happen(catalog, at, &mut profile, &mut dealings, &mut Dice(*seed));
    }
    profile.exposures.sort_by_key(Exposure::at);
    dealings.outcomes.sort_by_key(|record| record.at);
    dealings.opt_outs.sort_unstable();
    dealings.opt_outs.dedup();
    dealings.answered.sort_unstable();
    dealings.answered.reverse();
    dealings.answered.sort_by_key(|(offer, _)| *offer);
    dealings.answered.dedup_by_key(|(offer, _)| *offer);
    // An offer's impressions all count for its latest category.
    let latest: BTreeMap<OfferKey, Option<CategoryKey>> =
        profile.exposures.iter().map(|seen| (seen.offer, seen.category())).collect();
    for seen in profile.exposures.iter_mut() {
        *seen = seen.in_category(latest[&seen.offer]);
    }
    dealings.metrics = measured(catalog, at, dice);
    if dealings != Dealings::default() {
        profile.dealings = Some(Box::new(dealings));
    }
    profile
}

/// What the catalogue's metrics make of what a customer did.
fn measured(catalog: &TenantCatalog, at: &Instant, dice: &mut Dice) -> Metrics {
    let mut times: Vec<Timestamp> = (0..dice.below(12)).map(|_| ago(at, dice)).collect();
    times.sort_unstable();
    let (tenant, customer) = (TenantId::new("acme"), CustomerId::new("ada"));
    let id = ProfileId { tenant: tenant.clone(), customer: customer.clone() };
    let mut state = ShardState::new();
    let calendar = Calendar::of(catalog.settings());
    for (key, now) in (0..).zip(times) {
        let offer = dice.pick(&offers(catalog));
        let brand = dice.pick(&["acme", "other brand", ""]);
        let request = EventRequest {
            tenant: tenant.clone(),
            customer: customer.clone(),
            event_type: dice.pick(&["click", "buy", "view", "view"]).to_owned(),
            value: dice.pick(&[None, Some(1.5), Some(20.0), Some(-3.25)]),
            offer: dice.chance(85).then_some(offer),
            channel: dice.pick(&[Some(ChannelKey(0)), Some(ChannelKey(1)), None]),
            properties: [("brand".into(), Value::text(brand))].into(),
        };
        let idempotency = Idempotency { key, body: 1, until: now.plus_ms(DAY_MS) };
        let moment = Instant { now, frame: calendar.frame(now) };
        let op = measure_event(catalog, state.profile(&id), &request, idempotency, &moment);
        let leader = Leader { term: 1, replica: 1 };
        let command = ShardCommand::V1(ShardCommandV1 { now, leader, revision: Revision(1), op });
        let outcome = apply(&mut state, Position { leader, index: 1 }, &command);
        assert!(matches!(outcome, Outcome::Responded(_)), "{outcome:?}");
    }
    state.profile(&id).and_then(Profile::metrics).cloned().unwrap_or_default()
}

fn ago(at: &Instant, dice: &mut Dice) -> Timestamp {
    let ms = dice.pick(&[
        0,
        HOUR_MS / 2,
        HOUR_MS,
        5 * HOUR_MS,
        DAY_MS,
        DAY_MS - 1,
        2 * DAY_MS,
        7 * DAY_MS,
        12 * DAY_MS,
        29 * DAY_MS,
        40 * DAY_MS,
    ]);
    at.now.plus_ms(-ms)
}

/// Adds one event to a profile's past.
fn happen(catalog: &TenantCatalog, at: &Instant, profile: &mut Profile, dealings: &mut Dealings, dice: &mut Dice) {
    let all = offers(catalog);
    let offer = dice.pick(&all);
    let category_now = |offer: OfferKey| {
        let row = catalog.offers().get(offer)?;
        catalog.categories().key_of(&row.body.category_id.as_ref()?.0)
    };
    let category = if dice.chance(75) { category_now(offer) } else { dice.pick(&[None, Some(CategoryKey(1))]) };
    let channel = dice.pick(&[ChannelKey(0), ChannelKey(1), ChannelKey(2), ChannelKey::NONE]);
    match dice.below(20) {
        0..=9 => {
            let creatives = keys(catalog.creatives_of(offer).map(|creative| creative.key));
            let creative =
                if creatives.is_empty() || dice.chance(30) { CreativeKey::NONE } else { dice.pick(&creatives) };
            let placement = dice.pick(&[PlacementKey(0), PlacementKey(1), PlacementKey(2), PlacementKey::NONE]);
            let seen = Exposure::new(ago(at, dice), offer, creative, channel, placement);
            profile.exposures.push(seen.in_category(category));
        }
        10 | 11 => dealings.outcomes.push(OutcomeRecord {
            at: ago(at, dice),
            offer,
            category,
            outcome: OutcomeKey(dice.pick(&[1, 2, 6, 10])),
            value: None,
            over_cap: dice.chance(10),
            repeat: false,
            times: 1,
        }),
        12..=14 => use_cap(catalog, at, dealings, offer, dice),
        15 => dealings.policy_holds.push(PolicyHold {
            decision: DecisionId(1),
            rank: 1,
            counted: dice.pick(&[
                Counted::All,
                Counted::Offer(offer),
                Counted::Channel(ChannelKey(0)),
                Counted::Category(CategoryKey(0)),
            ]),
            expires_at: at.now.plus_ms(dice.pick(&[0, 1, HOUR_MS])),
        }),
        16 => dealings.opt_outs.push(match dice.below(8) {
            0 => OptOut::All,
            1 => OptOut::Channel(ChannelKey(dice.below(3) as u16)),
            2 | 3 => OptOut::Category(CategoryKey(dice.below(3) as u32)),
            _ => OptOut::Offer(offer),
        }),
        17 => {
            let today = dealings.mandatory.get_or_insert_with(|| {
                let now = if dice.chance(80) { at.frame.day } else { at.frame.week };
                (now, Vec::new())
            });
            if !today.1.contains(&offer) {
                today.1.push(offer);
            }
        }
        18 => dealings.answered.push((offer, ago(at, dice))),
        _ => {
            let counted = dice.pick(&[Counted::All, Counted::Offer(offer), Counted::Channel(ChannelKey(0))]);
            if !dealings.older.iter().any(|(known, _)| *known == counted) {
                dealings.older.push((counted, dice.pick(&[1, 2])));
            }
        }
    }
}

fn use_cap(catalog: &TenantCatalog, at: &Instant, dealings: &mut Dealings, offer: OfferKey, dice: &mut Dice) {
    let caps: Vec<_> = catalog
        .offers()
        .iter()
        .flat_map(|row| catalog.caps(row.key))
        .filter(|cap| cap.scope == CapScope::Profile)
        .cloned()
        .collect();
    if caps.is_empty() {
        return;
    }
    let own = catalog.caps(offer).iter().find(|cap| cap.scope == CapScope::Profile).cloned();
    let cap = own.unwrap_or_else(|| dice.pick(&caps));
    let period = match cap.per {
        CapPer::Day => Some(Period::Day),
        CapPer::Week => Some(Period::Week),
        CapPer::Month => Some(Period::Month),
        CapPer::Lifetime | CapPer::Hours(_) => None,
    };
    if dice.chance(60) && !dealings.cap_uses.iter().any(|known| known.cap == cap.cap) {
        let count = 1 + dice.below(2) as u64;
        let used = match (cap.per, cap.window, period) {
            (CapPer::Lifetime, _, _) => Used::Lifetime(count),
            (_, CapWindow::Calendar, Some(period)) => {
                let frame = Calendar::of(catalog.settings()).frame(ago(at, dice));
                Used::Calendar(frame.span(period), count)
            }
            (_, _, _) => {
                let mut times: Vec<Timestamp> = (0..count).map(|_| ago(at, dice)).collect();
                times.sort_unstable();
                Used::Rolling(times)
            }
        };
        dealings.cap_uses.push(CapUse { cap: cap.cap, used });
        return;
    }
    let window = match (cap.window, period) {
        (CapWindow::Calendar, Some(period)) => Window::Calendar(at.frame.span(period)),
        (CapWindow::Calendar, None) => Window::Lifetime,
        (CapWindow::Rolling, _) => Window::Rolling { ms: DAY_MS },
    };
    dealings.reservations.push(Reservation {
        decision: DecisionId(1),
        rank: 1,
        cap: cap.cap,
        account: TakeAccount::Profile { limit: cap.limit, window },
        count_on: CountEvent::Impression,
        expires_at: at.now.plus_ms(dice.pick(&[0, 1, HOUR_MS])),
    });
}

/// A random request that names only what exists.
pub fn request(catalog: &TenantCatalog, tenant: &TenantId, seed: u64) -> Request {
    let mut dice = Dice(seed);
    let channels = keys(catalog.channels().iter().map(|row| row.key));
    let flows = keys(catalog.flows().iter().map(|row| row.key));
    let creatives = keys(catalog.creatives().iter().map(|row| row.key));
    let mut attributes: Vec<(Arc<str>, Value)> = Vec::new();
    for (name, percent) in [("age", 50), ("tier", 40), ("channel", 15)] {
        if dice.chance(percent) {
            let value = if name == "age" { number_value(&mut dice) } else { word_value(&mut dice) };
            attributes.push((Arc::from(name), value));
        }
    }
    let mut context: Vec<(Arc<str>, Value)> = Vec::new();
    if dice.chance(50) {
        context.push((Arc::from("stock"), dice.pick(&[Value::Number(0.0), Value::Number(30.0), Value::text("x")])));
    }
    if dice.chance(30) {
        context.push((Arc::from("city"), Value::text("gold")));
    }
    let slots = slots(catalog, &mut dice);
    Request {
        tenant: tenant.clone(),
        customer: CustomerId::new(dice.pick(&["ada", "bob", "eve", "kim", "lee"])),
        channel: dice.chance(75).then(|| dice.pick(&channels)),
        slots,
        flow: (!flows.is_empty() && dice.chance(45)).then(|| dice.pick(&flows)),
        limit: dice.chance(50).then(|| dice.pick(&[1, 2, 3, 50])),
        attributes,
        context,
        segments: dice.some_of(25, &SEGMENTS).into_iter().map(Arc::from).collect(),
        exclude_offers: if dice.chance(25) { dice.some_of(25, &offers(catalog)) } else { Vec::new() },
        exclude_creatives: if dice.chance(25) { dice.some_of(30, &creatives) } else { Vec::new() },
        duplicates: match dice.below(8) {
            0 => Duplicates::WithinPlacement,
            1 | 2 => Duplicates::Anywhere,
            _ => Duplicates::Never,
        },
        arbitration: dice.pick(&[None, None, Some(Arbitration::Greedy), Some(Arbitration::Optimal)]),
        explain: Explain::Full { limit: dice.pick(&[100, 100, 100, 3, 0]) },
        counters: true,
    }
}

fn slots(catalog: &TenantCatalog, dice: &mut Dice) -> Vec<SlotRequest> {
    let placements = keys(catalog.placements().iter().map(|row| row.key));
    let activities = keys(catalog.activities().iter().map(|row| row.key));
    let count = dice.pick(&[0, 0, 1, 1, 2, 3, 5]);
    let activities_only = dice.chance(50) && !activities.is_empty();
    let targets = (0..count).map(|_| {
        if activities_only {
            SlotTarget::Activity(dice.pick(&activities))
        } else {
            SlotTarget::Placement(dice.pick(&placements))
        }
    });
    let targets: Vec<SlotTarget> = targets.collect();
    targets.into_iter().map(|target| SlotRequest { target, limit: dice.pick(&[1, 1, 1, 2, 4]) }).collect()
}
