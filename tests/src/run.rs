//! One run: a cluster is founded, clients come, things go wrong for a while, everything is mended, and then it has to work.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use proffer_chaos::checker;
use proffer_chaos::history::{Answer, Budget, Call};
use proffer_cluster::Timing;
use proffer_cluster::calls::Examined;
use proffer_cluster::group::Group;
use proffer_engine::time::Timestamp;
use serde_json::{Value, json};

use crate::check::at_rest::AtRest;
use crate::check::claims::Claims;
use crate::check::{self, Invariant, Known, Seen, State};
use crate::operator::{Operator, ask};
use crate::sim::clock::BEGIN_MS;
use crate::sim::faults::{Faults, Kind, groups};
use crate::sim::host::Reply;
use crate::sim::seed::Draws;
use crate::sim::trace::Trace;
use crate::sim::world::World;
use crate::tell;
use crate::workload::{LAPSE_S_MAX, Role, Tally, Workload};

/// How long a cluster may take to be founded.
const FOUNDED_MS_MAX: u64 = 60_000;
/// Clients go on for so long after everything was mended.
const AFTERWARDS_MS: u64 = 3_000;
/// Then, within this, every node serves and nothing is under way.
const SETTLED_MS_MAX: u64 = 30_000;
/// And within this the last unit is sold.
const SOLD_MS_MAX: u64 = 30_000;
/// Reservations lapse within this; …
const LAPSED_MS: u64 = LAPSE_S_MAX * 1_000 + 1_000;
/// … and within this nothing is in flight any more.
const RETURNED_MS: u64 = 5_000;
/// States are looked at so often, …
const LOOK_MS: u64 = 400;
/// … and so often while an exclusion is under way.
const LOOK_CLOSELY_MS: u64 = 20;
/// What nodes claim is heard so often.
const CLAIMS_MS: u64 = 5;
/// Violations that are told.
const TOLD_MAX: usize = 8;

/// What a run is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Everything is drawn from it.
    pub seed: u64,
    /// Milliseconds in which things go wrong.
    pub faults_ms: u64,
    /// Nodes at the beginning; `None`: drawn.
    pub nodes: Option<usize>,
    /// One violation is enough: the run ends with it.
    pub ends_at_first: bool,
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Of which seed.
    pub seed: u64,
    /// All that could be seen, in one number.
    pub hash: u64,
    /// How much that was.
    pub events: u64,
    /// Nodes at the beginning.
    pub nodes: usize,
    /// Shards.
    pub shards: u16,
    /// Simulated milliseconds.
    pub simulated_ms: u64,
    /// How often each kind of fault struck.
    pub struck: BTreeMap<Kind, u64>,
    /// What clients did.
    pub tally: Tally,
    /// What was reached of that which a batch of runs must reach.
    pub sometimes: BTreeSet<&'static str>,
    /// States that were looked at.
    pub looks: u64,
    /// What did not hold.
    pub violations: Vec<String>,
}

/// What a batch of runs has to reach somewhere, or it has not looked where it hurts.
pub const SOMETIMES: [&str; 10] = [
    "the catalogue's leader changed while units were in flight",
    "a shard's leader changed under load",
    "the last unit was sold while things went wrong",
    "a call was answered elsewhere after an attempt was lost",
    "a repeated call was known",
    "an exclusion was acknowledged by another leader than it was sent to",
    "a period ended",
    "a node lost what it had acknowledged, and the others went on",
    "a node joined while things went wrong",
    "a node was removed for good",
];

struct Look {
    host: usize,
    start: u64,
    group: Group,
    slot: Arc<Mutex<Option<Option<Examined>>>>,
    asked_ms: u64,
}

struct Run {
    world: World,
    workload: Workload,
    faults: Faults,
    invariants: Vec<Box<dyn Invariant>>,
    known: Known,
    report: Report,
    groups: Vec<Group>,
    looks: Vec<Look>,
    next_look_ms: u64,
    metas_turn: bool,
    operator: Operator,
    /// Of the end of the run.
    at_rest: Option<AtRest>,
    claims: Claims,
    next_claims_ms: u64,
    draws: Draws,
    /// Who led each group at the last look, and in which term.
    led: BTreeMap<Group, (usize, u64)>,
    were_in_flight: bool,
    excluding: Option<(usize, usize)>,
    initial_hosts: usize,
    /// After so many violations it ends.
    told_max: usize,
}

/// Runs a plan to its end.
pub fn run(plan: Plan, trace: Trace) -> Report {
    let draws = Draws::new(plan.seed, "run", 0);
    let drawn_nodes = [3, 3, 3, 3, 3, 3, 5, 4, 1, 2, 3, 7][usize::try_from(draws.below(12)).unwrap_or(0)];
    let nodes = plan.nodes.unwrap_or(drawn_nodes);
    let shards = if draws.below(20) == 0 { 16 } else { u16::try_from(draws.between(1, 4)).unwrap_or(1) };
    let timing = if draws.below(3) == 0 { Timing::Slow } else { Timing::Fast };
    let mut world = World::new(plan.seed, timing, trace.clone());
    for _ in 0..nodes {
        world.add(shards);
    }
    let faults = Faults::new(plan.seed, nodes);
    tell!(world, "{nodes} nodes, {shards} shards, {timing} elections; what may go wrong: {:?}", faults.kinds());
    let mut run = Run {
        world,
        workload: Workload::new(plan.seed),
        faults,
        invariants: check::all(),
        known: Known::default(),
        report: Report { seed: plan.seed, nodes, shards, ..Report::default() },
        groups: groups(shards),
        looks: Vec::new(),
        next_look_ms: 0,
        metas_turn: false,
        operator: Operator::new(plan.seed),
        at_rest: None,
        claims: Claims::default(),
        next_claims_ms: 0,
        draws,
        led: BTreeMap::new(),
        were_in_flight: false,
        excluding: None,
        initial_hosts: nodes,
        told_max: if plan.ends_at_first { 1 } else { TOLD_MAX },
    };
    if run.found() && run.go_wrong(plan.faults_ms) {
        run.come_to_rest();
        run.judge();
    }
    run.verdict(&trace)
}

impl Run {
    fn violated(&mut self, what: String) {
        tell!(self.world, "VIOLATION: {what}");
        self.report.violations.push(what);
    }

    /// A millisecond passes.
    fn step(&mut self) {
        for (number, reason) in self.world.step() {
            self.ended(number, &reason);
        }
        self.workload.rest(self.faults.clients_rest_until_ms);
        self.workload.tick(&mut self.world);
        for what in std::mem::take(&mut self.workload.violations) {
            self.violated(what);
        }
        self.operator.tick(&mut self.world, &mut self.faults);
        self.hear_claims();
        self.look();
    }

    /// A process has ended itself.
    fn ended(&mut self, number: usize, reason: &str) {
        let is_removed = self.faults.removing.as_ref().is_some_and(|removal| removal.host == number);
        if is_removed && !self.faults.doomed.contains(&number) {
            // It has heard that it is wanted no more.
            return;
        }
        let is_expected = self.faults.harmed.contains(&number) || self.faults.doomed.contains(&number);
        if !is_expected {
            self.violated(format!("h{number} ended itself: {reason}"));
            return;
        }
        if self.faults.doomed.remove(&number) {
            // A disk that fails takes the machine with it, and what it had not synced.
            self.world.crash(number, true, &self.draws);
        }
        if !self.faults.harmed.contains(&number) {
            self.world.restart(number, self.world.now_ms + 500);
        }
    }

    /// Sends to one host; steps until it is answered, elsewhere if need be, or the time is over.
    fn insist(&mut self, method: &str, path: &str, body: &Value, until_ms: u64) -> Option<Reply> {
        while self.world.now_ms < until_ms {
            let Some(host) = self.draws.pick(&self.world.serving()).copied() else {
                self.step();
                continue;
            };
            let slot = ask(&self.world, host, method, path, body);
            let patience = self.world.now_ms + 3_000;
            while self.world.now_ms < patience.min(until_ms) {
                self.step();
                let reply = slot.as_ref().and_then(|slot| slot.lock().expect("no holder panics").take());
                match reply {
                    Some(reply) if reply.status < 300 => {
                        tell!(self.world, "{method} {path}: {} {}", reply.status, reply.body);
                        return Some(reply);
                    }
                    Some(reply) if reply.status == 409 && method == "POST" => return Some(reply),
                    Some(reply) => {
                        tell!(self.world, "{method} {path}: {} {}", reply.status, reply.body);
                        break;
                    }
                    None => {}
                }
            }
            for _ in 0..50 {
                self.step();
            }
        }
        None
    }

    /// The cluster comes up, and the catalogue is written.
    fn found(&mut self) -> bool {
        self.workload.is_over = true;
        let until = FOUNDED_MS_MAX;
        while !self.is_whole() {
            self.step();
            if self.world.now_ms > until {
                self.violated("the cluster was not founded within a minute".to_owned());
                return false;
            }
        }
        for (kind, body, role) in self.workload.wanted() {
            let Some(reply) = self.insist("POST", &format!("/{kind}?wait=all"), &body, until) else {
                self.violated(format!("{kind} were not written within a minute"));
                return false;
            };
            if let (Some(role), Some(id)) = (role, reply.body["id"].as_str()) {
                let name = body["name"].as_str().unwrap_or_default().to_owned();
                self.workload.made(self.world.now_ms, id.to_owned(), name, role);
            }
        }
        true
    }

    /// Whether every host that can serves, and has nothing to complain of.
    fn is_whole(&self) -> bool {
        let is_sound = |number| !self.faults.harmed.contains(number) && !self.faults.gone.contains(number);
        let mut sound = self.world.hosts.iter().filter(|host| is_sound(&host.number));
        sound.all(|host| host.look(|handle| handle.status().ready).unwrap_or(false))
    }

    /// `false`: more than enough has been seen.
    fn go_wrong(&mut self, faults_ms: u64) -> bool {
        tell!(self.world, "clients come");
        self.workload.is_over = false;
        let until = self.world.now_ms + faults_ms;
        while self.world.now_ms < until && !self.is_enough() {
            self.faults.tick(&mut self.world);
            self.step();
            self.watch();
        }
        let hosts = self.world.hosts.len();
        self.reach("a node joined while things went wrong", hosts > self.initial_hosts);
        self.reach("a node lost what it had acknowledged, and the others went on", !self.faults.harmed.is_empty());
        if self.told_max == 1 && !self.is_enough() {
            // What clients have seen so far may say it already.
            self.judge();
        }
        self.faults.heal(&mut self.world);
        !self.is_enough()
    }

    fn is_enough(&self) -> bool {
        self.report.violations.len() >= self.told_max
    }

    /// Mended, the cluster works: all nodes serve, everything is sold, nothing is under way.
    fn come_to_rest(&mut self) {
        let until = self.world.now_ms + AFTERWARDS_MS;
        while self.world.now_ms < until {
            self.step();
        }
        self.workload.is_over = true;
        let until = self.world.now_ms + SETTLED_MS_MAX;
        while !(self.is_whole() && self.faults.removing.is_none() && self.workload.is_quiet()) {
            self.step();
            if self.world.now_ms > until {
                let mut reasons = Vec::new();
                for host in &self.world.hosts {
                    let reason = host.look(|handle| handle.status().reasons);
                    reasons.push(format!("h{}: {reason:?}", host.number));
                }
                self.violated(format!("mended, the cluster did not come to rest within 30 s: {}", reasons.join("; ")));
                return;
            }
        }
        tell!(self.world, "all nodes serve");
        let until = self.world.now_ms + LAPSED_MS;
        while self.world.now_ms < until {
            self.step();
        }
        self.sell_out();
        let until = self.world.now_ms + LAPSED_MS + RETURNED_MS;
        while self.world.now_ms < until {
            self.step();
        }
        let is_removed = !self.faults.gone.is_empty();
        self.reach("a node was removed for good", is_removed);
        self.read_all();
        self.compare_all();
    }

    /// The last unit of the scarcest offer is sold.
    fn sell_out(&mut self) {
        let Some(offer) = self.workload.offers.iter().find(|offer| offer.name == "last").cloned() else { return };
        let until = self.world.now_ms + SOLD_MS_MAX;
        for turn in 0_u64.. {
            let path = format!("/offers/{}/budget?consistency=linearizable", offer.id);
            let Some(budget) = self.insist("GET", &path, &Value::Null, until) else {
                return self.violated("nobody says what is left of the scarcest offer".to_owned());
            };
            if budget.body["spent"] == budget.body["limit"] {
                return;
            }
            let customer = format!("late-{turn}");
            let wish = json!({"customerId": customer, "channel": "web", "limit": 8});
            let Some(decided) = self.insist("POST", "/recommend", &wish, until) else { break };
            let entries = decided.body["decisions"].as_array().cloned().unwrap_or_default();
            let Some(entry) = entries.iter().find(|entry| entry["offerId"] == *offer.id) else {
                // Its units are on their way.
                for _ in 0..200 {
                    self.step();
                }
                continue;
            };
            let key = format!("late-{turn}");
            let body = json!({"customerId": customer, "recommendationId": decided.body["recommendationId"],
                "rank": entry["rank"], "outcome": "impression", "idempotencyKey": key});
            let began = self.world.now_ms;
            if let Some(reply) = self.insist("POST", "/respond", &body, until) {
                let is = |name: &str| reply.body[name] == true;
                let responded = proffer_chaos::history::Responded {
                    recorded: is("recorded"),
                    duplicate: is("duplicate"),
                    late: is("late"),
                    repeat: is("repeat"),
                    over_cap: is("overCap"),
                };
                let call = Call::Respond { customer, offer: offer.id.clone(), key };
                self.workload.note(began, call, Answer::Responded(responded));
            }
        }
        self.violated(format!("the last unit was not sold within {} s", SOLD_MS_MAX / 1_000));
    }

    /// Everybody is answered, and the accounts are closed.
    fn read_all(&mut self) {
        let until = self.world.now_ms + SETTLED_MS_MAX;
        for offer in self.workload.offers.clone() {
            if !matches!(offer.role, Role::Scarce { .. }) {
                continue;
            }
            let Some(reply) = self.insist(
                "GET",
                &format!("/offers/{}/budget?consistency=linearizable", offer.id),
                &Value::Null,
                until,
            ) else {
                self.violated(format!("the budget of {} is not told", offer.name));
                continue;
            };
            let of = |name: &str| reply.body[name].as_i64().unwrap_or(i64::MIN / 8);
            let (limit, pool, in_flight) = (of("limit"), of("pool"), of("inFlight"));
            let budget =
                Budget { limit, pool, in_flight, free: of("free"), reserved: of("reserved"), spent: of("spent") };
            if budget.reserved != 0 {
                let held = budget.reserved;
                self.violated(format!("{held} units of {} are still reserved: reservations do not lapse", offer.name));
            }
            let call = Call::ReadBudget { offer: offer.id, linearizable: false, settled: true };
            self.workload.note(self.world.now_ms, call, Answer::Budget(budget));
        }
        for number in 0..8 {
            let wish = json!({"customerId": format!("c{number}"), "channel": "web"});
            if self.insist("POST", "/recommend", &wish, until).is_none() {
                self.violated(format!("c{number} is not served"));
            }
        }
    }

    /// Replicas of a group that are asked at rest hold the same, and groups know the same of each other.
    fn compare_all(&mut self) {
        let until = self.world.now_ms + 2 * LOOK_MS + 1_000;
        self.next_look_ms = 0;
        self.at_rest = Some(AtRest::default());
        while self.world.now_ms < until {
            self.step();
        }
        for what in self.at_rest.take().map(|at_rest| at_rest.under_way()).unwrap_or_default() {
            self.violated(format!("at rest nothing is under way: {what}"));
        }
    }

    /// What nodes say of themselves at this instant.
    fn hear_claims(&mut self) {
        if self.world.now_ms < self.next_claims_ms {
            return;
        }
        self.next_claims_ms = self.world.now_ms + CLAIMS_MS;
        let excluded = self.workload.excluded_at;
        for what in self.claims.hear(&self.world, excluded) {
            self.violated(what);
        }
    }

    /// Looks at the states of all replicas: of the shards, and when all have answered, of the meta group.
    fn look(&mut self) {
        let now = self.world.now_ms;
        let looks = std::mem::take(&mut self.looks);
        for look in looks {
            let examined = look.slot.lock().expect("no holder panics").take();
            match examined {
                Some(Some(examined)) => self.hold(&look, examined),
                Some(None) => {}
                None => {
                    let host = self.world.host(look.host);
                    if host.starts == look.start && host.runs() && now < look.asked_ms + 1_500 {
                        self.looks.push(look);
                    }
                }
            }
        }
        if !self.looks.is_empty() || now < self.next_look_ms {
            return;
        }
        self.metas_turn = !self.metas_turn;
        if !self.metas_turn {
            let is_close = self.workload.excludes().is_some();
            self.next_look_ms = now + if is_close { LOOK_CLOSELY_MS } else { LOOK_MS };
        }
        let is_meta = self.metas_turn;
        for host in self.world.hosts.iter().filter(|host| !host.is_paused(now)) {
            for group in self.groups.iter().copied().filter(|group| (*group == Group::Meta) == is_meta) {
                if let Some(slot) = host.ask(move |handle| async move { handle.examine(group).await }) {
                    self.looks.push(Look { host: host.number, start: host.starts, group, slot, asked_ms: now });
                }
            }
        }
    }

    fn hold(&mut self, look: &Look, examined: Examined) {
        self.report.looks += 1;
        let at = Timestamp(BEGIN_MS + i64::try_from(self.world.now_ms).unwrap_or(i64::MAX / 2));
        let seen = match Seen::read(&mut self.known, at, look.host, look.start, look.group, examined) {
            Ok(seen) => seen,
            Err(error) => return self.violated(format!("{} on h{}: {error}", look.group, look.host)),
        };
        let mut wrong = Vec::new();
        for invariant in &mut self.invariants {
            if let Err(what) = invariant.look(&seen) {
                wrong.push(format!("{}: {what}", invariant.sentence()));
            }
        }
        for what in wrong {
            if self.report.violations.len() < TOLD_MAX {
                self.violated(what);
            }
        }
        if let Some(at_rest) = &mut self.at_rest {
            at_rest.see(&seen);
        }
        self.cover(&seen);
    }

    /// What of a state is worth having been reached.
    fn cover(&mut self, seen: &Seen) {
        if let Some(term) = seen.leads_in_term {
            let before = self.led.insert(seen.group, (seen.host, term)).unwrap_or((seen.host, term));
            if before.0 != seen.host {
                tell!(self.world, "{} is led by h{} in term {term}", seen.group, seen.host);
                let is_meta = seen.group == Group::Meta;
                let (in_flight, over) = (self.were_in_flight, self.workload.is_over);
                self.reach("the catalogue's leader changed while units were in flight", is_meta && in_flight);
                self.reach("a shard's leader changed under load", !is_meta && !over);
            }
        }
        if let State::Meta(state) = &*seen.state {
            let accounts: Vec<_> = state.ledger().accounts().collect();
            self.were_in_flight = accounts.iter().any(|(_, account)| {
                let granted =
                    |shard| account.totals().find(|(of, _)| *of == shard).map_or(0, |(_, totals)| totals.granted);
                account.reports().any(|(shard, report)| report.granted_seen < granted(shard))
            });
            self.reach("a period ended", accounts.iter().any(|(id, _)| id.ordinal > 0));
            let over = self.workload.is_over;
            let is_sold = accounts.iter().any(|(_, account)| account.is_used_up() && account.limit() > 0);
            self.reach("the last unit was sold while things went wrong", is_sold && !over);
        }
    }

    fn reach(&mut self, what: &'static str, is_reached: bool) {
        if is_reached {
            self.report.sometimes.insert(what);
        }
    }

    /// What of the clients' doings is worth having been reached.
    fn watch(&mut self) {
        let tally = self.workload.tally;
        self.reach("a call was answered elsewhere after an attempt was lost", tally.answered_after_doubt > 0);
        self.reach("a repeated call was known", tally.duplicates > 0);
        let leader = self.led.get(&Group::Meta).map_or(0, |(host, _)| *host);
        match (self.excluding, self.workload.excludes()) {
            (None, Some(operation)) => self.excluding = Some((operation, leader)),
            (Some((operation, before)), _) if self.workload.history[operation].answered().is_some() => {
                self.excluding = None;
                let what = "an exclusion was acknowledged by another leader than it was sent to";
                self.reach(what, before != leader);
            }
            (Some((operation, _)), now) if now != Some(operation) => self.excluding = None,
            (_, _) => {}
        }
    }

    /// Holds what clients saw against what is promised.
    fn judge(&mut self) {
        for verdict in checker::check(&self.workload.history) {
            for violation in &verdict.told {
                let what = format!("{}: {} (operations {:?})", verdict.invariant, violation.what, violation.operations);
                self.violated(what);
            }
            if let Some(why) = verdict.undecided {
                tell!(self.world, "undecided: {}: {why}", verdict.invariant);
            }
        }
    }

    fn verdict(mut self, trace: &Trace) -> Report {
        self.report.struck = self.faults.struck.clone();
        self.report.tally = self.workload.tally;
        self.report.simulated_ms = self.world.now_ms;
        self.report.hash = trace.hash();
        self.report.events = trace.events();
        self.report
    }
}
