//! Clients of a simulated cluster: they write down what they ask and what comes of it, and ask again elsewhere, with the same key, when
//! they are not answered.

mod answers;
mod wishes;

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use axum::http::Request;
use proffer_chaos::history::{Answer, Call, Operation, Outcome};
use serde_json::{Value, json};

use crate::sim::host::{KEY, Reply, Slot};
use crate::sim::seed::Draws;
use crate::sim::world::World;
use crate::tell;

/// Clients; each makes one call at a time.
const CLIENTS: u64 = 8;
/// After this without an answer a client asks another node.
const PATIENCE_MS: u64 = 2_500;
/// After this it gives a call up.
const INSIST_MS: u64 = 9_000;
/// Whoever is behind a write asks at the same node so many milliseconds later, at most.
const BEHIND_MS_MAX: u64 = 40;
/// Clients all rest for so long, at most, now and then.
const LULL_MS_MAX: u64 = 3_000;
/// Offers that can be excluded, each once: as many at first, and new ones when fewer than these are left.
const FLEETING: usize = 4;
/// Reservations lapse after so many seconds, at most.
pub const LAPSE_S_MAX: u64 = 3;
/// Of those of them that have a limit.
const FLEETING_LIMIT: u64 = 60;

/// The field of a decision that tells what was read of the customer.
const NUMBER: &str = "number";

/// An offer of the catalogue.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it is there for.
    pub role: Role,
}

/// What an offer is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Always to be had.
    Plain,
    /// Few units for all.
    Scarce {
        /// So many.
        limit: u64,
    },
    /// Few units for each.
    Personal {
        /// So many.
        limit: u64,
    },
    /// Few units a day.
    Daily,
    /// Money a day.
    Costly,
    /// Its limit is raised and lowered.
    Changing,
    /// It is excluded at some time.
    Fleeting {
        /// It has a global cap until then.
        is_limited: bool,
    },
}

/// A call that is to be made until it is answered.
struct Wish {
    operation: usize,
    call: Call,
    method: &'static str,
    path: String,
    body: Option<Value>,
    key: Option<String>,
    least: Option<u64>,
    /// Twice is as good as once.
    is_harmless: bool,
    /// Where it is asked first.
    host: Option<usize>,
    began_ms: u64,
}

/// A customer who is written, and asked for before that is answered.
struct Behind {
    customer: String,
    host: usize,
    at_ms: u64,
}

struct Attempt {
    host: usize,
    start: u64,
    slot: Option<Slot>,
    sent_ms: u64,
}

#[derive(Default)]
struct Client {
    wish: Option<Wish>,
    attempt: Option<Attempt>,
    /// An earlier attempt may have had an effect.
    is_in_doubt: bool,
    resumes_ms: u64,
    /// What was proposed to it last, to be answered: customer, recommendation, rank and offer of each.
    proposed: Vec<(String, String, u64, String)>,
}

/// An answer that has to come again when its key does.
#[derive(Clone, Debug)]
struct Kept {
    operation: u64,
    path: &'static str,
    body: Value,
    key: String,
}

/// What has been asked and answered, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls answered.
    pub ok: u64,
    /// Refused without effect.
    pub failed: u64,
    /// Of which nobody knows.
    pub unknown: u64,
    /// Attempts beyond the first.
    pub repeated: u64,
    /// Calls that were answered although an attempt before had been lost.
    pub answered_after_doubt: u64,
    /// Answers to those that said that the first attempt had counted.
    pub duplicates: u64,
}

/// See the module.
pub struct Workload {
    draws: Draws,
    clients: Vec<Client>,
    /// Everything so far.
    pub history: Vec<Operation>,
    /// The catalogue.
    pub offers: Vec<Offer>,
    kept: Vec<Kept>,
    /// What was counted.
    pub tally: Tally,
    /// What clients saw that no history tells: in words.
    pub violations: Vec<String>,
    /// Nothing new is begun.
    pub is_over: bool,
    /// A catalogue revision that somebody was told of.
    known_revision: u64,
    numbers: u64,
    /// The newest revision with an exclusion that was acknowledged.
    pub excluded_at: u64,
    /// Offers whose exclusion was asked for.
    excluded: BTreeSet<String>,
    /// Decisions by key: what was proposed under it first.
    decided: BTreeMap<String, (String, Vec<String>)>,
    /// Who is asked for next.
    behind: Option<Behind>,
    /// Nobody wants anything new until then …
    lull_until_ms: u64,
    /// … and from then on again for a while. Never with half of the seeds.
    next_lull_ms: u64,
}

impl Workload {
    /// Clients that have done nothing yet.
    pub fn new(seed: u64) -> Self {
        let draws = Draws::new(seed, "workload", 0);
        let next_lull_ms = if draws.below(2) == 0 { u64::MAX } else { 0 };
        Workload {
            draws,
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            history: Vec::new(),
            offers: Vec::new(),
            kept: Vec::new(),
            tally: Tally::default(),
            violations: Vec::new(),
            is_over: false,
            known_revision: 0,
            numbers: 0,
            excluded_at: 0,
            excluded: BTreeSet::new(),
            decided: BTreeMap::new(),
            behind: None,
            lull_until_ms: 0,
            next_lull_ms,
        }
    }

    /// What has to be in the catalogue, as `POST` bodies with a role each.
    pub fn wanted(&self) -> Vec<(&'static str, Value, Option<Role>)> {
        let (scarce, few) = (self.draws.between(30, 150), self.draws.between(1, 3));
        let lapse = self.draws.between(1, LAPSE_S_MAX);
        let global = |limit: u64| json!([{"scope": "global", "limit": limit, "reservationSeconds": lapse}]);
        let offer = |name: String, priority: u64, more: Value| {
            let mut body = json!({"name": name, "status": "active", "priority": priority});
            body.as_object_mut().expect("it is one").extend(more.as_object().cloned().unwrap_or_default());
            body
        };
        let number = json!({"name": NUMBER, "type": "computed", "formula": "customer.number", "outputType": "number"});
        let mut wanted = vec![
            ("channels", json!({"name": "web"}), None),
            ("categories", json!({"name": "numbered", "customFields": [number]}), None),
        ];
        let mut add = |name: &str, priority, more, role| {
            wanted.push(("offers", offer(name.to_owned(), priority, more), Some(role)));
        };
        add("plain", 10, json!({"category": "numbered"}), Role::Plain);
        add("scarce", 90, json!({"caps": global(scarce)}), Role::Scarce { limit: scarce });
        add("last", 89, json!({"caps": global(few * 3)}), Role::Scarce { limit: few * 3 });
        let personal = json!({"caps": [{"scope": "profile", "limit": few, "reservationSeconds": lapse}]});
        add("personal", 80, personal, Role::Personal { limit: few });
        let daily = json!({"caps": [{"scope": "global", "limit": 60, "per": "day", "reservationSeconds": lapse}]});
        add("daily", 85, daily, Role::Daily);
        let costly = json!({"budget": {"costPerAction": 1.5, "maxDailyBudget": 90.0}});
        add("costly", 84, costly, Role::Costly);
        add("changing", 83, json!({"caps": global(40)}), Role::Changing);
        for number in 0..FLEETING {
            let is_limited = number >= FLEETING / 2;
            let more = if is_limited { json!({"caps": global(FLEETING_LIMIT)}) } else { json!({}) };
            add(&format!("fleeting-{number}"), 60 + number as u64, more, Role::Fleeting { is_limited });
        }
        wanted
    }

    /// An offer was made.
    pub fn made(&mut self, now_ms: u64, id: String, name: String, role: Role) {
        let (global, per_customer) = match role {
            Role::Scarce { limit } => (Some(limit), None),
            Role::Personal { limit } => (None, Some(limit)),
            Role::Plain | Role::Daily | Role::Costly | Role::Changing | Role::Fleeting { .. } => (None, None),
        };
        let at = now_ms * 1_000;
        let outcome = Outcome::Ok { sent_us: at, returned_us: at, answer: Answer::Created { offer: id.clone() } };
        let call = Call::Create { global, per_customer };
        self.history.push(Operation { id: self.history.len() as u64, client: 0, invoked_us: at, call, outcome });
        self.offers.push(Offer { id, name, role });
    }

    /// Whether nobody waits for anything.
    pub fn is_quiet(&self) -> bool {
        self.clients.iter().all(|client| client.wish.is_none())
    }

    /// An exclusion that is under way.
    pub fn excludes(&self) -> Option<usize> {
        let wishes = self.clients.iter().filter_map(|client| client.wish.as_ref());
        wishes.filter(|wish| matches!(wish.call, Call::Exclude { .. })).map(|wish| wish.operation).next()
    }

    /// The offer of such an exclusion.
    fn excluding(&self) -> Option<&str> {
        let mut calls = self.clients.iter().filter_map(|client| Some(&client.wish.as_ref()?.call));
        calls.find_map(|call| if let Call::Exclude { offer } = call { Some(offer.as_str()) } else { None })
    }

    /// Nobody wants anything new until then.
    pub fn rest(&mut self, until_ms: u64) {
        self.lull_until_ms = self.lull_until_ms.max(until_ms);
    }

    /// A millisecond passes for the clients.
    pub fn tick(&mut self, world: &mut World) {
        if world.now_ms >= self.next_lull_ms {
            self.rest(world.now_ms + self.draws.heavy(500, LULL_MS_MAX));
            self.next_lull_ms = self.lull_until_ms + self.draws.heavy(3_000, 10_000);
        }
        for number in 0..self.clients.len() {
            self.drive(world, number);
        }
    }

    fn drive(&mut self, world: &mut World, number: usize) {
        let now = world.now_ms;
        if self.clients[number].resumes_ms > now {
            return;
        }
        if self.clients[number].wish.is_none() {
            if self.is_over || now < self.lull_until_ms {
                return;
            }
            if let Some(wish) = self.wish(now, number) {
                self.clients[number].wish = Some(wish);
                self.clients[number].is_in_doubt = false;
            }
            return;
        }
        let client = &mut self.clients[number];
        let Some(attempt) = &client.attempt else {
            return self.send(world, number);
        };
        let reply = attempt.slot.as_ref().and_then(|slot| slot.lock().expect("no holder panics").take());
        match reply {
            Some(reply) => self.hear(world, number, reply),
            None => {
                let host = world.host(attempt.host);
                let is_gone = host.starts != attempt.start || !host.runs();
                if attempt.slot.is_none() || is_gone || now >= attempt.sent_ms + PATIENCE_MS {
                    client.is_in_doubt |= attempt.slot.is_some();
                    self.again(now, number);
                }
            }
        }
    }

    fn send(&mut self, world: &mut World, number: usize) {
        let Some(wish) = &self.clients[number].wish else { return };
        let up: Vec<usize> =
            world.hosts.iter().filter(|host| host.handle().is_some()).map(|host| host.number).collect();
        let is_first = !self.clients[number].is_in_doubt;
        let meant = wish.host.filter(|host| is_first && up.contains(host));
        let Some(host) = meant.or_else(|| self.draws.pick(&up).copied()) else {
            self.again(world.now_ms, number);
            return;
        };
        let mut request = Request::builder().method(wish.method).uri(format!("/api/v1{}", wish.path));
        request = request.header("x-api-key", KEY).header("content-type", "application/json");
        if let Some(key) = &wish.key {
            request = request.header("idempotency-key", key);
        }
        if let Some(least) = wish.least {
            request = request.header("x-min-catalog-revision", least);
        }
        let body = wish.body.as_ref().map(ToString::to_string).unwrap_or_default();
        tell!(
            world,
            "c{number} -> h{host}: {} {} {} {body}",
            wish.method,
            wish.path,
            wish.key.as_deref().unwrap_or("-")
        );
        let request = request.body(Body::from(body)).expect("it is well-formed");
        if let Call::WriteProfile { customer, .. } = &wish.call
            && self.draws.below(2) == 0
        {
            let at_ms = world.now_ms + self.draws.below(BEHIND_MS_MAX);
            self.behind = Some(Behind { customer: customer.clone(), host, at_ms });
        }
        let start = world.host(host).starts;
        let slot = world.host(host).call(request);
        self.clients[number].attempt = Some(Attempt { host, start, slot, sent_ms: world.now_ms });
    }

    /// An attempt came to nothing.
    fn again(&mut self, now: u64, number: usize) {
        let client = &mut self.clients[number];
        client.attempt = None;
        let Some(wish) = &client.wish else { return };
        let may_go_on = wish.is_harmless || wish.key.is_some() || !client.is_in_doubt;
        if may_go_on && now < wish.began_ms + INSIST_MS {
            self.tally.repeated += 1;
            client.resumes_ms = now + self.draws.between(10, 300);
            return;
        }
        let outcome = if client.is_in_doubt {
            self.tally.unknown += 1;
            Outcome::Unknown
        } else {
            self.tally.failed += 1;
            Outcome::Fail
        };
        self.end(now, number, outcome);
    }

    fn end(&mut self, now: u64, number: usize, outcome: Outcome) {
        let client = &mut self.clients[number];
        client.attempt = None;
        client.resumes_ms = now + self.draws.between(5, 150);
        if let Some(wish) = client.wish.take() {
            self.history[wish.operation].outcome = outcome;
        }
    }

    fn hear(&mut self, world: &mut World, number: usize, reply: Reply) {
        let now = world.now_ms;
        let client = &mut self.clients[number];
        let (Some(wish), Some(attempt)) = (&client.wish, &client.attempt) else { return };
        tell!(world, "c{number} <- h{}: {} {}", attempt.host, reply.status, reply.body);
        if let Some(revision) = header(&reply, "x-catalog-revision") {
            self.known_revision = self.known_revision.max(revision);
            if wish.least.is_some_and(|least| revision < least) && reply.status < 300 {
                let what = format!("{} was answered at revision {revision}, asked for {:?}", wish.path, wish.least);
                self.violations.push(what);
            }
        }
        if reply.status >= 400 {
            let is_undone = reply.body["outcome"] == "notApplied";
            let is_worth_another = reply.body["retryable"] == true;
            client.is_in_doubt |= !is_undone;
            if is_worth_another {
                return self.again(now, number);
            }
            let outcome = if client.is_in_doubt && reply.status >= 500 { Outcome::Unknown } else { Outcome::Fail };
            if reply.status >= 500 || reply.body.is_null() {
                self.violations.push(format!("{} {}: {} {}", wish.method, wish.path, reply.status, reply.body));
            }
            match outcome {
                Outcome::Unknown => self.tally.unknown += 1,
                Outcome::Fail | Outcome::Ok { .. } => self.tally.failed += 1,
            }
            // An attempt before may have done what this one could not do any more.
            let outcome = if client.is_in_doubt { Outcome::Unknown } else { outcome };
            return self.end(now, number, outcome);
        }
        // Sent and heard within a millisecond each: an answer comes after what was heard in the same one.
        let (sent_us, returned_us) = (attempt.sent_ms * 1_000, now * 1_000 + 999);
        self.tally.ok += 1;
        self.tally.answered_after_doubt += u64::from(client.is_in_doubt);
        let invoked_us = wish.began_ms * 1_000;
        if let Some((customer, value)) = self.read_by(number, &reply) {
            let id = self.history.len() as u64;
            let outcome = Outcome::Ok { sent_us, returned_us, answer: Answer::Profile { value } };
            let call = Call::ReadProfile { customer };
            self.history.push(Operation { id, client: number as u64, invoked_us, call, outcome });
        }
        let answer = self.understand(number, &reply);
        self.end(now, number, Outcome::Ok { sent_us, returned_us, answer });
    }

    /// Asks once for something outside the clients' ways, and writes it down: for the end of a run.
    pub fn note(&mut self, now_ms: u64, call: Call, answer: Answer) {
        let at = now_ms * 1_000;
        let outcome = Outcome::Ok { sent_us: at, returned_us: at + 999, answer };
        self.history.push(Operation { id: self.history.len() as u64, client: CLIENTS, invoked_us: at, call, outcome });
    }
}

fn header(reply: &Reply, name: &str) -> Option<u64> {
    reply.headers.get(name)?.to_str().ok()?.parse().ok()
}
