//! What profiles cost in memory (architecture.md §10): heap bytes of a shard of 100,000, by count of every allocation. The
//! numbers do not depend on optimisation: `cargo test -p proffer-engine --bench memory` prints the same.

use proffer_engine::keys::{
    CategoryKey, ChannelKey, CreativeKey, CustomerId, OfferKey, PlacementKey, Revision, SchemaKey, Symbol, TenantId,
};
use proffer_engine::profile::apply::{Outcome, apply};
use proffer_engine::profile::command::{
    DecisionId, Leader, Position, PutProfile, ShardCommand, ShardCommandV1, ShardOp, Take, TakenProposition,
};
use proffer_engine::profile::shard::ShardState;
use proffer_engine::time::{HOUR_MS, Timestamp};
use proffer_engine::value::Value;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static COUNTED: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

const PROFILES: u32 = 100_000;
const ATTRIBUTES: u32 = 20;
const EXPOSURES: u32 = 10;
const LEADER: Leader = Leader { term: 1, replica: 1 };
const START: Timestamp = Timestamp(400_000 * HOUR_MS);

/// Most that a profile with ten exposures may take beside what the channel sends of it.
const TARGET: f64 = 250.0;

fn run(state: &mut ShardState, now: Timestamp, op: ShardOp) {
    let command = ShardCommandV1 { now, leader: LEADER, revision: Revision(1), op };
    let outcome = apply(state, Position { leader: LEADER, index: 1 }, &ShardCommand::V1(command));
    assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
}

fn tenant() -> TenantId {
    TenantId::new("acme")
}

fn customer(number: u32) -> CustomerId {
    CustomerId::new(format!("c{number:09}"))
}

fn put(number: u32) -> ShardOp {
    let attributes = (0..ATTRIBUTES).map(|index| (format!("a{index}"), Value::Number(f64::from(number + index))));
    ShardOp::PutProfile(PutProfile {
        tenant: tenant(),
        customer: customer(number),
        attributes: Some(attributes.collect()),
        segments: None,
    })
}

/// A decision on a channel that counts what is decided as shown.
fn show(number: u32, exposures: u32, now: Timestamp) -> ShardOp {
    let shown = (0..exposures).map(|index| {
        let offer = (number * 7 + index * 131) % 10_000;
        TakenProposition {
            offer: OfferKey(offer),
            creative: CreativeKey(offer),
            channel: ChannelKey((index % 3) as u16),
            placement: PlacementKey(index % 5),
            category: Some(CategoryKey(offer % 20)),
            score: 0.5,
            mandatory: false,
            fallback: false,
            implied_impression: true,
            evidence: true,
            takes: Vec::new(),
        }
    });
    ShardOp::Take(Box::new(Take {
        tenant: tenant(),
        customer: customer(number),
        decision: DecisionId(u64::from(number)),
        idempotency: None,
        supersedes: None,
        propositions: shown.collect(),
        ghosts: Vec::new(),
        mandatory: None,
        policies: Vec::new(),
        counts: Vec::new(),
        answer: None,
        answerable_until: now.plus_ms(HOUR_MS),
    }))
}

/// A shard of profiles with so many exposures each, answered keys and open decisions lapsed; read back from its bytes, as at
/// every start, or as it grew.
fn shard(exposures: u32, restored: bool) -> ShardState {
    let mut state = ShardState::new();
    for number in 0..PROFILES {
        run(&mut state, START, put(number));
    }
    for number in 0..if exposures > 0 { PROFILES } else { 0 } {
        run(&mut state, START, show(number, exposures, START));
    }
    run(&mut state, START.plus_ms(HOUR_MS), ShardOp::Tick);
    assert_eq!(state.next_due(), None);
    if restored { ShardState::decode_chunks(state.encode_chunks()).expect("just written") } else { state }
}

/// What a channel sends of a customer, as any store would hold it: id, attributes, segments, rows.
type Sent = (Box<str>, Box<[(Symbol, Value)]>, Box<[Symbol]>, Vec<(SchemaKey, Box<[(Symbol, Value)]>)>);

fn sent() -> Vec<Sent> {
    let attributes = |number: u32| (0..ATTRIBUTES).map(move |index| (Symbol(index), Value::Number(f64::from(number))));
    let one = |number: u32| (Box::from(&*customer(number).0), attributes(number).collect(), Box::default(), Vec::new());
    (0..PROFILES).map(one).collect()
}

/// Heap bytes a profile, of something that holds all of them.
fn weigh<T>(make: impl FnOnce() -> T) -> f64 {
    let region = Region::new(COUNTED);
    let made = make();
    let change = region.change();
    let held = change.bytes_allocated as i64 - change.bytes_deallocated as i64;
    drop(made);
    held as f64 / f64::from(PROFILES)
}

fn main() {
    let sent = weigh(sent);
    eprintln!(
        "heap bytes a profile, {PROFILES} profiles of {ATTRIBUTES} attributes; what a channel sends of one takes {sent:.0}"
    );
    for restored in [false, true] {
        let how = if restored { "read from a snapshot" } else { "as it grew" };
        for exposures in [0, EXPOSURES] {
            let all = weigh(|| shard(exposures, restored));
            let beside = all - sent;
            eprintln!("{exposures:>2} exposures, {how}: {all:.0} in all, {beside:.0} beside");
            assert!(beside <= TARGET, "more than {TARGET} bytes beside what the channel sends");
        }
    }
}
