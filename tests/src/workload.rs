//! Clients of a simulated cluster: they write down what they ask and what comes of it, and ask again elsewhere, with the same key, when
//! they are not answered.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use axum::http::Request;
use proffer_chaos::history::{Answer, Budget, Call, Operation, Outcome, Responded};
use serde_json::{Value, json};

use crate::sim::host::{KEY, Reply, Slot};
use crate::sim::seed::Draws;
use crate::sim::world::World;
use crate::tell;

/// Clients; each makes one call at a time.
const CLIENTS: u64 = 8;
/// Customers whom they ask for.
const CUSTOMERS: u64 = 24;
/// After this without an answer a client asks another node.
const PATIENCE_MS: u64 = 2_500;
/// After this it gives a call up.
const INSIST_MS: u64 = 9_000;
/// Offers that can be excluded, each once: as many at first, and new ones when fewer than these are left.
const FLEETING: usize = 4;
/// Of those of them that have a limit.
const FLEETING_LIMIT: u64 = 60;
/// Offers made while things go wrong, at most.
const MADE_MAX: usize = 40;
/// Acknowledged outcomes that are kept to be sent again.
const KEPT_MAX: usize = 400;

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
    began_ms: u64,
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
}

impl Workload {
    /// Clients that have done nothing yet.
    pub fn new(seed: u64) -> Self {
        Workload {
            draws: Draws::new(seed, "workload", 0),
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
        }
    }

    /// What has to be in the catalogue, as `POST` bodies with a role each.
    pub fn wanted(&self) -> Vec<(&'static str, Value, Option<Role>)> {
        let (scarce, few) = (self.draws.between(30, 150), self.draws.between(1, 3));
        let lapse = self.draws.between(1, 6);
        let global = |limit: u64| json!([{"scope": "global", "limit": limit, "reservationSeconds": lapse}]);
        let offer = |name: String, priority: u64, more: Value| {
            let mut body = json!({"name": name, "status": "active", "priority": priority});
            body.as_object_mut().expect("it is one").extend(more.as_object().cloned().unwrap_or_default());
            body
        };
        let mut wanted = vec![("channels", json!({"name": "web"}), None)];
        let mut add = |name: &str, priority, more, role| {
            wanted.push(("offers", offer(name.to_owned(), priority, more), Some(role)));
        };
        add("plain", 10, json!({}), Role::Plain);
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

    /// A millisecond passes for the clients.
    pub fn tick(&mut self, world: &mut World) {
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
            if self.is_over {
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
        let Some(host) = self.draws.pick(&up).copied() else {
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
        let sent_us = attempt.sent_ms * 1_000;
        self.tally.ok += 1;
        self.tally.answered_after_doubt += u64::from(client.is_in_doubt);
        let answer = self.understand(number, &reply);
        // Sent and heard within a millisecond each: an answer comes after what was heard in the same one.
        self.end(now, number, Outcome::Ok { sent_us, returned_us: now * 1_000 + 999, answer });
    }

    fn understand(&mut self, number: usize, reply: &Reply) -> Answer {
        let client = &mut self.clients[number];
        let Some(wish) = &client.wish else { return Answer::Done };
        let body = &reply.body;
        match &wish.call {
            Call::Recommend { customer, .. } => {
                let entries = body["decisions"].as_array().cloned().unwrap_or_default();
                let id = body["recommendationId"].as_str().unwrap_or_default().to_owned();
                let offers: Vec<String> =
                    entries.iter().filter_map(|entry| entry["offerId"].as_str().map(str::to_owned)).collect();
                client.proposed = entries
                    .iter()
                    .filter_map(|entry| {
                        Some((
                            customer.clone(),
                            id.clone(),
                            entry["rank"].as_u64()?,
                            entry["offerId"].as_str()?.to_owned(),
                        ))
                    })
                    .collect();
                // Only what takes units is written, and known again.
                let takes = entries.iter().any(|entry| entry["expiresAt"].is_string());
                if let Some(key) = wish.key.as_ref().filter(|key| takes || self.decided.contains_key(*key)) {
                    let first = self.decided.entry(key.clone()).or_insert_with(|| (id.clone(), offers.clone()));
                    if first.0 != id {
                        self.violations.push(format!("{key} led to two decisions: {} and {id}", first.0));
                    }
                    if offers.iter().any(|offer| !first.1.contains(offer)) {
                        self.violations.push(format!("{key} led to {:?}, then to {offers:?}", first.1));
                    }
                    let kept = Kept {
                        operation: wish.operation as u64,
                        path: "/recommend",
                        body: wish.body.clone().unwrap_or_default(),
                        key: key.clone(),
                    };
                    keep(&mut self.kept, kept, &self.draws);
                }
                Answer::Decided { offers }
            }
            Call::Respond { .. } | Call::Repeat { .. } => {
                let is = |name: &str| body[name] == true;
                let responded = Responded {
                    recorded: is("recorded"),
                    duplicate: is("duplicate"),
                    late: is("late"),
                    repeat: is("repeat"),
                    over_cap: is("overCap"),
                };
                self.tally.duplicates += u64::from(responded.duplicate);
                if let (Call::Respond { key, .. }, Some(sent)) = (&wish.call, &wish.body) {
                    let kept = Kept {
                        operation: wish.operation as u64,
                        path: "/respond",
                        body: sent.clone(),
                        key: key.clone(),
                    };
                    keep(&mut self.kept, kept, &self.draws);
                }
                Answer::Responded(responded)
            }
            Call::WriteProfile { .. } => Answer::Done,
            Call::Exclude { .. } => {
                self.excluded_at = self.excluded_at.max(body["revision"].as_u64().unwrap_or(0));
                Answer::Done
            }
            Call::Create { .. } => {
                let id = body["id"].as_str().unwrap_or_default().to_owned();
                let name = body["name"].as_str().unwrap_or_default().to_owned();
                let is_limited = body["caps"].as_array().is_some_and(|caps| !caps.is_empty());
                self.offers.push(Offer { id: id.clone(), name, role: Role::Fleeting { is_limited } });
                Answer::Created { offer: id }
            }
            Call::ReadProfile { .. } => Answer::Profile { value: body["attributes"]["number"].as_u64() },
            Call::ReadBudget { .. } => {
                let of = |name: &str| body[name].as_i64().unwrap_or(i64::MIN / 8);
                let (pool, in_flight) = (of("pool"), of("inFlight"));
                let (free, reserved, spent) = (of("free"), of("reserved"), of("spent"));
                Answer::Budget(Budget { limit: of("limit"), pool, in_flight, free, reserved, spent })
            }
            Call::Edit { .. } => Answer::Revised { revision: header(reply, "x-catalog-revision").unwrap_or(0) },
            Call::ReadOffer { .. } => Answer::Offer {
                catalog: header(reply, "x-catalog-revision").unwrap_or(0),
                revision: body["revision"].as_u64().unwrap_or(0),
                value: body["description"].as_str().and_then(|text| text.parse().ok()),
            },
        }
    }

    /// What a client wants next.
    fn wish(&mut self, now: u64, number: usize) -> Option<Wish> {
        self.numbers += 1;
        let unique = self.numbers;
        let customer = format!("c{}", self.draws.below(CUSTOMERS));
        let of = |role: fn(&Role) -> bool| -> Vec<Offer> {
            self.offers.iter().filter(|offer| role(&offer.role)).cloned().collect()
        };
        let proposed = self.clients[number].proposed.pop();
        let mut wish = Wish {
            operation: self.history.len(),
            call: Call::ReadProfile { customer: customer.clone() },
            method: "GET",
            path: String::new(),
            body: None,
            key: None,
            least: None,
            is_harmless: false,
            began_ms: now,
        };
        let drawn = self.draws.below(1_000);
        match (proposed, drawn) {
            (Some((customer, recommendation, rank, offer)), 0..700) => {
                let key = format!("r{unique}");
                wish.body = Some(json!({"customerId": customer, "recommendationId": recommendation, "rank": rank,
                    "outcome": "impression"}));
                wish.call = Call::Respond { customer, offer, key: key.clone() };
                (wish.method, wish.path, wish.key) = ("POST", "/respond".to_owned(), Some(key));
            }
            (_, 700..760) => {
                let kept = self.draws.pick(&self.kept)?.clone();
                wish.call = match kept.path {
                    "/respond" => Call::Repeat { of: kept.operation },
                    _ => Call::Recommend {
                        customer: kept.body["customerId"].as_str().unwrap_or_default().to_owned(),
                        key: Some(kept.key.clone()),
                    },
                };
                (wish.method, wish.path, wish.key) = ("POST", kept.path.to_owned(), Some(kept.key));
                wish.body = Some(kept.body);
            }
            (_, 760..810) => {
                wish.call = Call::WriteProfile { customer: customer.clone(), value: unique };
                (wish.method, wish.path) = ("PUT", format!("/profiles/{customer}"));
                wish.body = Some(json!({"attributes": {"number": unique}}));
            }
            (_, 810..880) => {
                wish.path = format!("/profiles/{customer}");
                wish.is_harmless = true;
            }
            (_, 880..920) => {
                let offer = self.draws.pick(&of(|role| matches!(role, Role::Scarce { .. })))?.clone();
                wish.path = format!("/offers/{}/budget", offer.id);
                wish.call = Call::ReadBudget { offer: offer.id, linearizable: false, settled: false };
                wish.is_harmless = true;
            }
            (_, 920..935) => {
                let offer = self.draws.pick(&of(|role| *role == Role::Plain))?.clone();
                wish.call = Call::Edit { offer: offer.id.clone(), value: unique };
                (wish.method, wish.path) = ("PUT", format!("/offers/{}", offer.id));
                wish.body = Some(json!({"description": unique.to_string()}));
            }
            (_, 935..955) => {
                let offer = self.draws.pick(&of(|role| *role == Role::Plain))?.clone();
                let least = self.known_revision;
                wish.path = format!("/offers/{}", offer.id);
                wish.call = Call::ReadOffer { offer: offer.id, least };
                (wish.least, wish.is_harmless) = (Some(least), true);
            }
            (_, 955..968) => {
                let is_left = |offer: &&Offer| !self.excluded.contains(&offer.id);
                let fleeting = of(|role| matches!(role, Role::Fleeting { .. }));
                let left: Vec<&Offer> = fleeting.iter().filter(is_left).collect();
                if left.len() < FLEETING && fleeting.len() < MADE_MAX {
                    let priority = self.draws.between(60, 70);
                    wish.call = Call::Create { global: None, per_customer: None };
                    (wish.method, wish.path) = ("POST", "/offers".to_owned());
                    let name = format!("fleeting-{unique}");
                    let caps = json!([{"scope": "global", "limit": FLEETING_LIMIT, "reservationSeconds": 2}]);
                    let caps = if unique.is_multiple_of(2) { caps } else { json!([]) };
                    let body = json!({"name": name, "status": "active", "priority": priority + 30, "caps": caps});
                    wish.body = Some(body);
                } else {
                    let offer = (*self.draws.pick(&left)?).clone();
                    self.excluded.insert(offer.id.clone());
                    wish.path = format!("/offers/{}", offer.id);
                    wish.call = Call::Exclude { offer: offer.id };
                    wish.method = "PUT";
                    wish.body = Some(json!({"emergencyExcluded": true}));
                    wish.is_harmless = true;
                }
            }
            (_, 968..974) => {
                // Written down as an edit of its own kind: nobody reads these numbers.
                let offer = self.draws.pick(&of(|role| *role == Role::Changing))?.clone();
                let limit = self.draws.between(5, 80);
                wish.call = Call::Edit { offer: offer.id.clone(), value: unique };
                (wish.method, wish.path) = ("PUT", format!("/offers/{}", offer.id));
                let caps = json!([{"scope": "global", "limit": limit, "reservationSeconds": 3}]);
                wish.body = Some(json!({"caps": caps}));
            }
            (_, _) => {
                let key = (!drawn.is_multiple_of(5)).then(|| format!("d{unique}"));
                // Who wants nothing of which there are few takes nothing: that is answered without the log.
                let few = of(|role| !matches!(role, Role::Plain | Role::Fleeting { is_limited: false }));
                let few: Vec<String> =
                    few.into_iter().filter(|_| drawn.is_multiple_of(4)).map(|offer| offer.id).collect();
                wish.body = Some(json!({"customerId": customer, "channel": "web", "limit": 8, "excludeOffers": few}));
                wish.call = Call::Recommend { customer, key: key.clone() };
                (wish.method, wish.path, wish.key) = ("POST", "/recommend".to_owned(), key);
            }
        }
        let (id, call) = (wish.operation as u64, wish.call.clone());
        let operation =
            Operation { id, client: number as u64, invoked_us: now * 1_000, call, outcome: Outcome::Unknown };
        self.history.push(operation);
        Some(wish)
    }

    /// Asks once for something outside the clients' ways, and writes it down: for the end of a run.
    pub fn note(&mut self, now_ms: u64, call: Call, answer: Answer) {
        let at = now_ms * 1_000;
        let outcome = Outcome::Ok { sent_us: at, returned_us: at + 999, answer };
        self.history.push(Operation { id: self.history.len() as u64, client: CLIENTS, invoked_us: at, call, outcome });
    }
}

/// Keeps an answer; beyond the room there is, in place of a drawn one.
fn keep(kept: &mut Vec<Kept>, new: Kept, draws: &Draws) {
    if kept.len() < KEPT_MAX {
        kept.push(new);
    } else {
        let place = usize::try_from(draws.below(KEPT_MAX as u64)).unwrap_or(0);
        kept[place] = new;
    }
}

fn header(reply: &Reply, name: &str) -> Option<u64> {
    reply.headers.get(name)?.to_str().ok()?.parse().ok()
}
