//! The kernel gives the same decision as the naive evaluation, over random catalogues, profiles and requests.
//!
//! A case is one request; each catalogue is asked many, so that [`CATALOGUES`] × [`REQUESTS`] ≥ 10,000 cases cost seconds.
//! What fails is shrunk to few commands and kept in `proptest-regressions/`.

mod catalogue;
mod dice;
mod metrics;
mod models;
mod policies;
mod regressions;
mod scenarios;
mod scene;
mod slots;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use proffer_engine::catalog::TenantCatalog;
use proffer_engine::codec::encode;
use proffer_engine::decide::decision::{Decision, Proposition, PropositionKind};
use proffer_engine::decide::request::{Duplicates, Explain, Request, SlotTarget};
use proffer_engine::decide::trace::{Contention, Noting, Read, Trace};
use proffer_engine::decide::view::Subject;
use proffer_engine::decide::{Scratch, Taking, decide, enrolment_of, oracle, take_of};
use proffer_engine::keys::PlacementKey;
use proffer_engine::profile::command::{DecisionId, Idempotency, Take};
use proffer_engine::profile::symbols::Symbols;
use proffer_engine::profile::trials::{Enrolment, ExperimentId};
use proffer_engine::snapshot::{Binding, Snapshot};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use catalogue::{Made, Plan};
use world::World;

/// Random catalogues, each with a profile.
const CATALOGUES: u32 = 340;
/// Requests asked of each catalogue and profile, on average.
const REQUESTS: usize = 32;

/// Small ones, in which everything meets everything.
fn plans() -> impl Strategy<Value = Plan> {
    plans_of(14, 1..=14, 24)
}

/// Ones with several blocks of offers, so that scoring can stop early.
fn large_plans() -> impl Strategy<Value = Plan> {
    plans_of(1 << 40, 600..=1_500, 400)
}

fn plans_of(offer_ids: u64, offers: RangeInclusive<usize>, creatives: usize) -> impl Strategy<Value = Plan> {
    let seed = || any::<u64>().no_shrink();
    let some = |most: usize| prop::collection::vec(seed(), 0..=most);
    (
        (seed(), some(2), prop::collection::vec(seed(), offers), some(creatives), some(10)),
        (some(9), some(8), some(3), prop::option::of(seed())),
    )
        .prop_map(move |((settings, frame, offers, creatives, slots), (rules, policies, flows, routing))| Plan {
            offer_ids,
            settings,
            frame,
            offers,
            creatives,
            slots,
            rules,
            policies,
            flows,
            routing,
        })
}

fn histories() -> impl Strategy<Value = (u64, Vec<u64>)> {
    (any::<u64>().no_shrink(), prop::collection::vec(any::<u64>().no_shrink(), 0..16))
}

fn requests() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(any::<u64>().no_shrink(), 1..=2 * REQUESTS)
}

fn subject(world: &World) -> Subject<'_> {
    Subject { profile: world.profile.as_ref(), symbols: &world.symbols }
}

fn naive(catalog: &TenantCatalog, world: &World, request: &Request) -> Decision {
    oracle::decide(catalog, subject(world), &world.escrow, world.learned.tallies(), request, &world.at, seed(world))
}

/// What a world's decisions draw from: another number in most of them.
fn seed(world: &World) -> u64 {
    world.at.now.0 as u64
}

/// A deciding thread: its buffers live from one decision to the next, and from one snapshot to the next.
#[derive(Default)]
struct Kernel {
    binding: Binding,
    scratch: Scratch,
}

impl Kernel {
    fn decide(&mut self, snapshot: &Snapshot, world: &World, request: &Request) -> Decision {
        let Kernel { binding, scratch } = self;
        decide(
            snapshot,
            subject(world),
            binding,
            &world.escrow,
            &world.learned,
            request,
            &world.at,
            seed(world),
            scratch,
        )
    }
}

impl Kernel {
    /// What `decision` takes, if anything.
    fn take(&mut self, snapshot: &Snapshot, world: &World, request: &Request, decision: &Decision) -> Option<Take> {
        self.take_as(snapshot, world, request, decision, (None, false))
    }

    /// What it takes under a key, and if it is written for a place in an experiment anyway.
    fn take_as(
        &mut self,
        snapshot: &Snapshot,
        world: &World,
        request: &Request,
        decision: &Decision,
        (idempotency, enrols): (Option<Idempotency>, bool),
    ) -> Option<Take> {
        let earlier =
            world.profile.iter().flat_map(|profile| &profile.dealings).map(|dealings| dealings.decisions.len());
        let decision_id = DecisionId(0xda7e + earlier.sum::<usize>() as u64);
        let taking = Taking { decision: decision_id, idempotency, supersedes: None, contended: false, enrols };
        let binding = &mut self.binding;
        take_of(snapshot, subject(world), binding, &world.escrow, request, decision, &world.at, taking)
    }
}

/// A decision that is written for an experiment alone keeps neither key nor answer; one that takes something keeps both.
fn check_enrolling(
    kernel: &mut Kernel,
    snapshot: &Snapshot,
    world: &World,
    request: &Request,
    decision: &Decision,
) -> Result<(), TestCaseError> {
    let takes = kernel.take(snapshot, world, request, decision).is_some();
    let key = Idempotency { key: 1, body: 2, until: world.at.now };
    let take = kernel.take_as(snapshot, world, request, decision, (Some(key), true));
    let kept = take.map(|take| (take.idempotency, take.answer.is_some()));
    prop_assert_eq!(kept, Some((takes.then_some(key), takes)), "for {:?}", request);
    prop_assert_eq!(kernel.take_as(snapshot, world, request, decision, (Some(key), false)).is_some(), takes);
    Ok(())
}

/// What was decided can be taken from the state that it was decided on, and both evaluations agree on what comes next.
fn check_taken(
    kernel: &mut Kernel,
    snapshot: &Snapshot,
    catalog: &TenantCatalog,
    world: &World,
    request: &Request,
) -> Result<(), TestCaseError> {
    let decision = kernel.decide(snapshot, world, request);
    check_enrolling(kernel, snapshot, world, request, &decision)?;
    let Some(take) = kernel.take(snapshot, world, request, &decision) else { return Ok(()) };
    let next = match world.after(take.clone()) {
        Ok(next) => next,
        Err(refusal) => return Err(TestCaseError::fail(format!("{refusal:?} of {take:?} for {request:?}"))),
    };
    check_equal(kernel, snapshot, catalog, &next, request)
}

/// Where a slot is.
fn placement_of(catalog: &TenantCatalog, slot: SlotTarget) -> Option<PlacementKey> {
    match slot {
        SlotTarget::Placement(placement) => Some(placement),
        SlotTarget::Activity(activity) => {
            let activity = catalog.activities().get(activity)?;
            catalog.placements().key_of(&activity.body.placement_id.0)
        }
    }
}

/// What must hold of any decision, whoever made it.
fn check_shape(catalog: &TenantCatalog, request: &Request, decision: &Decision) -> Result<(), TestCaseError> {
    let mut per_slot = BTreeMap::new();
    let mut seen = BTreeMap::new();
    for proposition in &decision.propositions {
        *per_slot.entry(proposition.slot).or_insert(0u32) += 1;
        if proposition.kind != PropositionKind::Fallback {
            let slot = proposition.slot.map(|slot| request.slots[usize::from(slot)].target);
            seen.entry(proposition.offer)
                .or_insert_with(Vec::new)
                .push(slot.and_then(|slot| placement_of(catalog, slot)));
        }
        prop_assert!(proposition.score.is_finite() && proposition.score >= 0.0);
        prop_assert!(!request.exclude_offers.contains(&proposition.offer));
        prop_assert!(!request.exclude_creatives.contains(&proposition.creative));
        prop_assert!(proposition.kind != PropositionKind::Fallback || proposition.takes.is_empty());
    }
    match request.duplicates {
        Duplicates::Never => prop_assert!(seen.values().all(|places| places.len() == 1), "an offer twice: {seen:?}"),
        Duplicates::WithinPlacement => {
            let is_one = |places: &Vec<_>| places.iter().all(|place| *place == places[0]);
            prop_assert!(seen.values().all(is_one), "an offer in two placements: {seen:?}");
        }
        Duplicates::Anywhere => {}
    }
    if let Some(limit) = request.limit {
        prop_assert!(decision.propositions.len() <= limit as usize);
    }
    prop_assert_eq!(decision.slots.len(), request.slots.len());
    for ((number, slot), outcome) in (0u16..).zip(&request.slots).zip(&decision.slots) {
        let count = per_slot.get(&Some(number)).copied().unwrap_or(0);
        prop_assert_eq!(count, outcome.count);
        prop_assert!(count <= slot.limit);
        prop_assert_eq!(outcome.empty.is_some(), count == 0);
    }
    let funnel = decision.funnel;
    let steps =
        [funnel.total_candidates, funnel.after_qualification, funnel.after_suppression, funnel.after_contact_policy];
    prop_assert!(steps.is_sorted_by(|left, right| left >= right), "{funnel:?}");
    if let Some(explanation) = &decision.explanation {
        prop_assert_eq!(explanation.factors.len(), decision.propositions.len());
    }
    Ok(())
}

/// Kernel and naive evaluation agree on `request`, however much explanation and counting it asks for.
fn check_equal(
    kernel: &mut Kernel,
    snapshot: &Snapshot,
    catalog: &TenantCatalog,
    world: &World,
    request: &Request,
) -> Result<(), TestCaseError> {
    let expected = naive(catalog, world, request);
    let found = kernel.decide(snapshot, world, request);
    prop_assert_eq!(&found, &expected, "kernel left, naive right, for {:?}", request);
    check_shape(catalog, request, &found)?;
    let place = enrolment_of(snapshot, None, request, &found, &world.at);
    prop_assert_eq!(place, enrolment(catalog, &expected), "compiled left, authored right, for {:?}", request);
    let silent = Request { explain: Explain::Off, ..request.clone() };
    let unexplained = Decision { explanation: None, ..found };
    prop_assert_eq!(&kernel.decide(snapshot, world, &silent), &unexplained, "explaining changes {:?}", request);
    check_replayed(kernel, snapshot, catalog, world, &silent)?;
    let uncounted = kernel.decide(snapshot, world, &Request { counters: false, ..silent });
    let funnel = uncounted.funnel;
    prop_assert_eq!(uncounted, Decision { funnel, ..unexplained }, "counting changes {:?}", request);
    Ok(())
}

/// The place in an experiment that a decision gives somebody new, by the flow as it is authored.
fn enrolment(catalog: &TenantCatalog, decision: &Decision) -> Option<Enrolment> {
    let flow = catalog.current_version(decision.flow.key?)?;
    let authored = flow.config.flow_config.experiment.as_ref().filter(|experiment| experiment.enabled)?;
    let arm = decision.arm.as_ref().expect("a flow with an experiment has arms");
    let regular = |proposed: &&Proposition| proposed.kind == PropositionKind::Regular;
    let proposed = decision.propositions.iter().filter(regular).map(|proposed| proposed.offer);
    let offers: BTreeSet<_> = proposed.chain(decision.ghosts.iter().map(|ghost| ghost.offer)).collect();
    (!offers.is_empty()).then(|| Enrolment {
        experiment: ExperimentId::of(&arm.experiment),
        control: arm.control,
        window_days: authored.window_days as u16,
        offers: offers.into_iter().collect(),
    })
}

/// A trace of the decision, stored and read again, comes to the same bytes: under the snapshot it was made under, and under one
/// that is compiled from nothing but the catalogue.
fn check_replayed(
    kernel: &mut Kernel,
    snapshot: &Snapshot,
    catalog: &TenantCatalog,
    world: &World,
    request: &Request,
) -> Result<(), TestCaseError> {
    let noting = Noting::new(&world.escrow);
    let Kernel { binding, scratch } = kernel;
    let mut decision =
        decide(snapshot, subject(world), binding, &noting, &world.learned, request, &world.at, seed(world), scratch);
    // By the customer's first letter: their names are of one length.
    let letter = usize::from(request.customer.0.as_bytes()[0]);
    let contention = [Contention::None, Contention::Units, Contention::Everything][letter % 3];
    contention.withhold(&mut decision);
    let read = Read {
        at: world.at,
        seed: seed(world),
        escrow: noting.into_seen(),
        refused: Vec::new(),
        contention,
        learned: Arc::clone(&world.learned),
    };
    let trace = Trace::new(subject(world), request, read, &decision);
    let stored = Trace::decode(&trace.encode()).expect("it was written just now");
    // What compiles a thousand offers for each request tests little more.
    let compiled = (catalog.offers().len() < 30 && request.segments.len() == 2)
        .then(|| Snapshot::compile(&request.tenant, catalog, snapshot.revision()));
    for snapshot in [Some(snapshot), compiled.as_ref()].into_iter().flatten() {
        let again = stored.replay(snapshot);
        prop_assert_eq!(trace.difference(&again), None, "{:?}", request);
        prop_assert_eq!(encode(&again), encode(&decision));
    }
    Ok(())
}

/// So many catalogues, times `SOAK` if that is set.
fn config(catalogues: u32) -> ProptestConfig {
    let times = std::env::var("SOAK").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    ProptestConfig { cases: catalogues * times, max_shrink_iters: 3_000, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(CATALOGUES))]

    #[test]
    fn kernel_decides_as_the_naive_evaluation(
        plan in plans(), (profile, history) in histories(), requests in requests(),
    ) {
        let made = Made::build(&plan);
        let catalog = made.catalog.tenant(&made.tenant).expect("the plan makes the tenant");
        let snapshot = Snapshot::compile(&made.tenant, catalog, made.revision());
        let world = World::build(catalog, profile, &history, Symbols::default());
        let mut kernel = Kernel::default();
        for seed in requests {
            let request = world::request(catalog, &made.tenant, seed);
            check_equal(&mut kernel, &snapshot, catalog, &world, &request)?;
            check_taken(&mut kernel, &snapshot, catalog, &world, &request)?;
        }
    }
}

proptest! {
    #![proptest_config(config(12))]

    #[test]
    fn kernel_decides_as_the_naive_evaluation_over_many_offers(
        plan in large_plans(), (profile, history) in histories(), requests in prop::collection::vec(any::<u64>(), 8),
    ) {
        let made = Made::build(&plan);
        let catalog = made.catalog.tenant(&made.tenant).expect("the plan makes the tenant");
        let snapshot = Snapshot::compile(&made.tenant, catalog, made.revision());
        let world = World::build(catalog, profile, &history, Symbols::default());
        let mut kernel = Kernel::default();
        for seed in requests {
            let request = world::request(catalog, &made.tenant, seed);
            check_equal(&mut kernel, &snapshot, catalog, &world, &request)?;
        }
    }
}

proptest! {
    #![proptest_config(config(100))]

    #[test]
    fn an_updated_snapshot_decides_as_a_compiled_one(
        plan in plans(),
        (profile, history) in histories(),
        changes in prop::collection::vec((any::<u64>().no_shrink(), any::<u64>().no_shrink()), 1..30),
    ) {
        let mut made = Made::build(&plan);
        let compile = |made: &Made| {
            let catalog = made.catalog.tenant(&made.tenant).expect("the plan makes the tenant");
            Snapshot::compile(&made.tenant, catalog, made.revision())
        };
        let mut snapshot = compile(&made);
        let mut kernel = Kernel::default();
        let mut symbols = Symbols::default();
        for (change, seed) in changes {
            let touched = made.change(change);
            let catalog = made.catalog.tenant(&made.tenant).expect("a tenant is never removed");
            snapshot = snapshot.update(catalog, &touched, made.revision());
            let world = World::build(catalog, profile ^ (seed % 3), &history, symbols);
            for seed in [seed, seed ^ 1, seed ^ 2] {
                let request = world::request(catalog, &made.tenant, seed);
                let expected = Kernel::default().decide(&compile(&made), &world, &request);
                let found = kernel.decide(&snapshot, &world, &request);
                prop_assert_eq!(&found, &expected, "updated left, compiled right, for {:?}", request);
                check_equal(&mut kernel, &snapshot, catalog, &world, &request)?;
            }
            symbols = world.symbols;
        }
    }
}

/// Another model's P is told.
#[derive(Debug)]
struct Shadowed;

/// Some model could not score.
#[derive(Debug)]
struct Degraded;

/// What random decisions showed, by name: a generator that never shows something tests nothing of it.
#[derive(Default)]
struct Seen(BTreeMap<String, usize>);

impl Seen {
    fn note(&mut self, what: impl std::fmt::Debug) {
        // Keys and numbers do not matter, only which variant it was.
        let name: String = format!("{what:?}").chars().take_while(|letter| letter.is_alphanumeric()).collect();
        *self.0.entry(name).or_insert(0) += 1;
    }

    fn look_at(&mut self, decision: &Decision) {
        decision.propositions.iter().for_each(|proposition| {
            self.note(proposition.kind);
            proposition.takes.iter().for_each(|take| self.note(take.account));
        });
        decision.slots.iter().filter_map(|slot| slot.empty).for_each(|reason| self.note(reason));
        decision.ghosts.iter().for_each(|ghost| self.note(ghost));
        let explained = || decision.explanation.iter();
        explained().flat_map(|explained| &explained.factors).for_each(|factors| self.note(factors.source));
        for _ in explained().flat_map(|explained| &explained.factors).filter(|told| told.shadow.is_some()) {
            self.note(Shadowed);
        }
        if decision.remarks.degraded {
            self.note(Degraded);
        }
        let removed = explained().flat_map(|explanation| &explanation.removed);
        removed.for_each(|removed| self.note(removed.reason));
    }
}

#[test]
fn random_catalogues_are_rich() {
    let mut runner = TestRunner::deterministic();
    let (mut accepted, mut refused, mut seen) = (0, 0, Seen::default());
    for _ in 0..180 {
        let plan = plans().new_tree(&mut runner).expect("plans can always be made").current();
        let (profile, history) = histories().new_tree(&mut runner).expect("histories can always be made").current();
        let made = Made::build(&plan);
        accepted += made.accepted;
        refused += made.refused.len();
        let catalog = made.catalog.tenant(&made.tenant).expect("the plan makes the tenant");
        let world = World::build(catalog, profile, &history, Symbols::default());
        for seed in 0..40 {
            seen.look_at(&naive(catalog, &world, &world::request(catalog, &made.tenant, seed)));
        }
    }
    assert!(accepted > 5 * refused, "{accepted} accepted, {refused} refused");
    let wanted = [
        "Regular",
        "Mandatory",
        "Fallback",
        "Ghost",
        "Profile",
        "Global",
        "NoCandidate",
        "Inactive",
        "FallbackUnavailable",
        "Coupling",
        "Limit",
        "Holdout",
        "Status",
        "Schedule",
        "EmergencyExcluded",
        "Inventory",
        "Creative",
        "Rule",
        "Eligibility",
        "OptOut",
        "Excluded",
        "ProfileCap",
        "GlobalCap",
        "MandatoryPerDay",
        "Policy",
        "ZeroFactor",
        "Outscored",
        "Coupled",
        "Filter",
        "Guardrail",
        "Default",
        "Model",
        "Degraded",
        "Shadowed",
    ];
    for name in wanted {
        let times = seen.0.get(name).copied().unwrap_or(0);
        assert!(times >= 5, "{name} was seen {times} times: {:?}", seen.0);
    }
}
