//! What is called: decisions that reserve, impressions, profiles, budgets, edits and exclusions, through all nodes at once.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail};
use fastrand::Rng;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::client::{Caller, Doors, Reached, Recorder, Request};
use crate::history::{Answer, Budget, Call, Responded};

/// Each customer may see the scarce offer so often.
const PER_CUSTOMER: u64 = 3;
/// More than can be sold.
const PLENTY: u64 = 10_000_000;
/// Customers whose profiles are written and read: few, so that calls meet.
const PROFILES: u64 = 12;
/// Between two calls of a client.
const PAUSE: Duration = Duration::from_millis(8);
/// How often each offer is tried to be made before there are faults.
const SETUP_TRIES: usize = 5;
/// Between two reads of an account, and two edits.
const SLOW_PAUSE: Duration = Duration::from_millis(60);
/// So long an account is read again while something is on its way: a little longer than it may be.
const STOCK_MAX: Duration = Duration::from_millis(5_500);
/// An offer is excluded so long after it was made, and the next is made so long after that.
const BRIEF: Duration = Duration::from_millis(700);

/// An acknowledged outcome, to be sent once more.
#[derive(Clone, Debug)]
pub struct Acknowledged {
    /// Of the operation.
    pub id: u64,
    body: Value,
    key: String,
}

/// What the clients share.
#[derive(Debug)]
pub struct Shop {
    doors: Arc<Doors>,
    recorder: Arc<Recorder>,
    /// Will be sold out.
    scarce: String,
    /// Never will.
    counted: String,
    edited: String,
    customers: u64,
    stop: AtomicBool,
    /// Makes keys, profile values and edits unlike any other.
    unique: AtomicU64,
    /// All clients add to it.
    acknowledged: Mutex<Vec<Acknowledged>>,
}

impl Shop {
    /// Makes channel and offers; `limit` is what can be sold of the scarce one.
    ///
    /// # Errors
    /// When the cluster does not take them.
    pub async fn open(doors: Arc<Doors>, recorder: Arc<Recorder>, limit: u64) -> anyhow::Result<Arc<Shop>> {
        let mut caller = Caller::new(0, Arc::clone(&doors), Arc::clone(&recorder))?;
        let channel = Request::new(Method::POST, "/api/v1/channels?wait=all", json!({"name": "web"}));
        match caller.reach(&channel).await {
            Reached::Ok { .. } => {}
            Reached::Fail { why, .. } | Reached::Unknown { why } => bail!("the channel is not made: {why}"),
        }
        let global = |limit| json!({"scope": "global", "limit": limit, "reservationSeconds": 2});
        let each = json!({"scope": "profile", "limit": PER_CUSTOMER, "reservationSeconds": 2});
        let scarce = (Some(limit), Some(PER_CUSTOMER), json!([global(limit), each]));
        let counted = (Some(PLENTY), None, json!([global(PLENTY)]));
        let plain = (None, None, json!([]));
        let mut offers = Vec::new();
        for (name, priority, (global, per_customer, caps)) in
            [("scarce", 90, scarce), ("counted", 80, counted), ("edited", 10, plain)]
        {
            let mut made = None;
            // A slow machine may leave it open whether one was made: then there is one more that nobody looks at.
            for turn in 0..SETUP_TRIES {
                let name = format!("{name} {turn}");
                let body = json!({"name": name, "status": "active", "priority": priority, "caps": caps});
                made = create(&mut caller, Call::Create { global, per_customer }, body).await;
                if made.is_some() {
                    break;
                }
            }
            offers.push(made.with_context(|| format!("{name} is not made: the history says why"))?);
        }
        let [scarce, counted, edited]: [String; 3] = offers.try_into().expect("three were made");
        let customers = (limit / 2).max(1);
        let (stop, unique, acknowledged) = (AtomicBool::new(false), AtomicU64::new(1), Mutex::new(Vec::new()));
        Ok(Arc::new(Shop { doors, recorder, scarce, counted, edited, customers, stop, unique, acknowledged }))
    }

    /// Lets so many clients in, and those who read accounts, edit and exclude. All draws come from `seed`.
    ///
    /// # Errors
    /// When a client cannot be built.
    pub fn fill(self: &Arc<Shop>, clients: u64, seed: u64) -> anyhow::Result<JoinSet<()>> {
        let mut inside = JoinSet::new();
        for number in 1..=clients {
            let (caller, draw) = self.client(number, seed)?;
            inside.spawn(Arc::clone(self).shop(caller, draw));
        }
        for number in [1, 2] {
            let (caller, draw) = self.client(clients + number, seed)?;
            inside.spawn(Arc::clone(self).count(caller, draw));
        }
        let (caller, _) = self.client(clients + 3, seed)?;
        inside.spawn(Arc::clone(self).edit(caller));
        let (caller, _) = self.client(clients + 4, seed)?;
        inside.spawn(Arc::clone(self).exclude(caller));
        Ok(inside)
    }

    fn client(&self, number: u64, seed: u64) -> anyhow::Result<(Caller, Rng)> {
        let caller = Caller::new(number, Arc::clone(&self.doors), Arc::clone(&self.recorder))?;
        Ok((caller, Rng::with_seed(seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15))))
    }

    /// Lets nobody begin anything more.
    pub fn close(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn is_open(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn unique(&self) -> u64 {
        self.unique.fetch_add(1, Ordering::Relaxed)
    }

    /// Sends acknowledged outcomes once more, at most so many, spread over all of them; so many at a time.
    ///
    /// # Errors
    /// When a client cannot be built.
    pub async fn repeat(self: &Arc<Shop>, most: usize, at_once: u64) -> anyhow::Result<()> {
        let all = std::mem::take(&mut *self.acknowledged.lock().expect("no holder panics"));
        let step = all.len().div_ceil(most.max(1)).max(1);
        let left = Arc::new(Mutex::new(all.into_iter().step_by(step).collect::<Vec<_>>()));
        let mut inside = JoinSet::new();
        for number in 0..at_once {
            let (mut caller, _) = self.client(1_000 + number, 0)?;
            let left = Arc::clone(&left);
            inside.spawn(async move {
                loop {
                    let next = left.lock().expect("no holder panics").pop();
                    let Some(Acknowledged { id, body, key }) = next else { break };
                    let request = Request::new(Method::POST, "/api/v1/respond", body).keyed(&key);
                    caller.record(Call::Repeat { of: id }, request, |_, body| responded(body)).await;
                }
            });
        }
        while let Some(ended) = inside.join_next().await {
            ended?;
        }
        Ok(())
    }

    /// Reads the accounts after all is settled, again while something is on its way, and each profile once more.
    ///
    /// # Errors
    /// When a client cannot be built, or an account is not told.
    pub async fn take_stock(&self) -> anyhow::Result<()> {
        let (mut caller, _) = self.client(2_000, 0)?;
        for offer in [&self.scarce, &self.counted] {
            let until = Instant::now() + STOCK_MAX;
            loop {
                let told = self.read_budget(&mut caller, offer, true).await;
                let told = told.with_context(|| format!("the account of {offer} is not told"))?;
                if told.in_flight == 0 || Instant::now() > until {
                    break;
                }
                sleep(SLOW_PAUSE).await;
            }
        }
        for profile in 0..PROFILES {
            read_profile(&mut caller, format!("p{profile}")).await;
        }
        Ok(())
    }

    /// Wants offers, sees one of them; and writes and reads profiles now and then.
    async fn shop(self: Arc<Shop>, mut caller: Caller, mut draw: Rng) {
        let mut earlier: Option<(String, String)> = None;
        while self.is_open() {
            match draw.u8(..100) {
                0..12 => {
                    let (customer, value) = (format!("p{}", draw.u64(..PROFILES)), self.unique());
                    write_profile(&mut caller, customer, value).await;
                }
                12..26 => read_profile(&mut caller, format!("p{}", draw.u64(..PROFILES))).await,
                26..30 if earlier.is_some() => {
                    // A client that never heard of the answer asks again.
                    if let Some((customer, key)) = &earlier {
                        recommend(&mut caller, customer, Some(key)).await;
                    }
                }
                _ => {
                    let customer = format!("c{}", draw.u64(..self.customers));
                    let key = draw.bool().then(|| format!("d{}", self.unique()));
                    let answer = recommend(&mut caller, &customer, key.as_deref()).await;
                    if let Some(answer) = answer
                        && draw.u8(..100) < 85
                    {
                        self.see(&mut caller, &mut draw, &customer, &answer).await;
                    }
                    earlier = key.map(|key| (customer, key)).or(earlier);
                }
            }
            sleep(PAUSE).await;
        }
    }

    /// One of the offers was seen: the scarce one if it is among them, as a rule.
    async fn see(&self, caller: &mut Caller, draw: &mut Rng, customer: &str, answer: &Value) {
        let Some(decisions) = answer["decisions"].as_array().filter(|decisions| !decisions.is_empty()) else { return };
        let scarce = decisions.iter().find(|decision| decision["offerId"] == *self.scarce);
        let seen = match scarce {
            Some(scarce) if draw.u8(..100) < 70 => scarce,
            Some(_) | None => &decisions[draw.usize(..decisions.len())],
        };
        let Some(offer) = seen["offerId"].as_str().map(str::to_owned) else { return };
        let key = format!("r{}", self.unique());
        let body = json!({"customerId": customer, "recommendationId": answer["recommendationId"],
            "rank": seen["rank"], "outcome": "impression"});
        let call = Call::Respond { customer: customer.to_owned(), offer, key: key.clone() };
        let request = Request::new(Method::POST, "/api/v1/respond", body.clone()).keyed(&key);
        let (id, answered) = caller.record(call, request, |_, body| responded(body)).await;
        if answered.is_some() {
            self.acknowledged.lock().expect("no holder panics").push(Acknowledged { id, body, key });
        }
    }

    /// Reads accounts all the time.
    async fn count(self: Arc<Shop>, mut caller: Caller, mut draw: Rng) {
        while self.is_open() {
            let offer = if draw.u8(..4) == 0 { &self.scarce } else { &self.counted };
            self.read_budget(&mut caller, offer, false).await;
            sleep(SLOW_PAUSE).await;
        }
    }

    async fn read_budget(&self, caller: &mut Caller, offer: &str, settled: bool) -> Option<Budget> {
        let call = Call::ReadBudget { offer: offer.to_owned(), linearizable: true, settled };
        let path = format!("/api/v1/offers/{offer}/budget?consistency=linearizable");
        let request = Request::new(Method::GET, path, Value::Null);
        match caller.record(call, request, |_, body| budget(body)).await.1 {
            Some((Answer::Budget(budget), _)) => Some(budget),
            Some(_) | None => None,
        }
    }

    /// Edits an offer, and reads it at another node.
    async fn edit(self: Arc<Shop>, mut caller: Caller) {
        let mut least = 0;
        while self.is_open() {
            let (offer, value) = (self.edited.clone(), self.unique());
            let path = format!("/api/v1/offers/{offer}");
            let request = Request::new(Method::PUT, &path, json!({"shortDesc": value.to_string()}));
            let call = Call::Edit { offer: offer.clone(), value };
            let revised = |_, body: &Value| Some(Answer::Revised { revision: body["revision"].as_u64()? });
            if let (_, Some((Answer::Revised { revision }, _))) = caller.record(call, request, revised).await {
                least = revision;
            }
            for _ in 0..2 {
                let call = Call::ReadOffer { offer: offer.clone(), least };
                let request = Request { least: Some(least), ..Request::new(Method::GET, &path, Value::Null) };
                let read = |catalog, body: &Value| {
                    let value = body["shortDesc"].as_str().and_then(|text| text.parse().ok());
                    Some(Answer::Offer { catalog, revision: body["revision"].as_u64()?, value })
                };
                caller.record(call, request, read).await;
            }
            sleep(SLOW_PAUSE).await;
        }
    }

    /// Makes an offer that everybody gets, and excludes it.
    async fn exclude(self: Arc<Shop>, mut caller: Caller) {
        while self.is_open() {
            let name = format!("brief {}", self.unique());
            let body = json!({"name": name, "status": "active", "priority": 95});
            let made = create(&mut caller, Call::Create { global: None, per_customer: None }, body).await;
            sleep(BRIEF).await;
            // One that may have been made without our knowing stays as it is.
            let Some(offer) = made else { continue };
            let path = format!("/api/v1/offers/{offer}");
            // As often as it takes, also when the shop is about to close: it is recommended until then.
            for _ in 0..20 {
                let call = Call::Exclude { offer: offer.clone() };
                let request = Request::new(Method::PUT, &path, json!({"emergencyExcluded": true}));
                let request = Request { may_repeat: true, ..request };
                let done = |_, body: &Value| (body["emergencyExcluded"] == true).then_some(Answer::Done);
                if caller.record(call, request, done).await.1.is_some() {
                    break;
                }
            }
            sleep(BRIEF).await;
        }
    }
}

async fn create(caller: &mut Caller, call: Call, body: Value) -> Option<String> {
    let request = Request::new(Method::POST, "/api/v1/offers", body);
    let created = |_, body: &Value| Some(Answer::Created { offer: body["id"].as_str()?.to_owned() });
    match caller.record(call, request, created).await.1 {
        Some((Answer::Created { offer }, _)) => Some(offer),
        Some(_) | None => None,
    }
}

async fn recommend(caller: &mut Caller, customer: &str, key: Option<&str>) -> Option<Value> {
    let call = Call::Recommend { customer: customer.to_owned(), key: key.map(str::to_owned) };
    let body = json!({"customerId": customer, "channel": "web"});
    let request = Request::new(Method::POST, "/api/v1/recommend", body);
    let request = match key {
        Some(key) => request.keyed(key),
        None => request,
    };
    let decided = |_, body: &Value| {
        let offers =
            body["decisions"].as_array()?.iter().map(|decision| Some(decision["offerId"].as_str()?.to_owned()));
        Some(Answer::Decided { offers: offers.collect::<Option<Vec<_>>>()? })
    };
    Some(caller.record(call, request, decided).await.1?.1)
}

async fn write_profile(caller: &mut Caller, customer: String, value: u64) {
    let path = format!("/api/v1/profiles/{customer}");
    let request = Request::new(Method::PUT, path, json!({"attributes": {"n": value}}));
    caller.record(Call::WriteProfile { customer, value }, request, |_, _| Some(Answer::Done)).await;
}

async fn read_profile(caller: &mut Caller, customer: String) {
    let request = Request::new(Method::GET, format!("/api/v1/profiles/{customer}"), Value::Null);
    let nothing = |status| (status == StatusCode::NOT_FOUND).then_some(Answer::Profile { value: None });
    let read = |_, body: &Value| Some(Answer::Profile { value: Some(whole(&body["attributes"]["n"])?) });
    caller.record_failing(Call::ReadProfile { customer }, request, nothing, read).await;
}

fn responded(body: &Value) -> Option<Answer> {
    let is = |member: &str| body[member].as_bool();
    Some(Answer::Responded(Responded {
        recorded: is("recorded")?,
        duplicate: is("duplicate")?,
        late: is("late")?,
        repeat: is("repeat")?,
        over_cap: is("overCap")?,
    }))
}

fn budget(body: &Value) -> Option<Answer> {
    let number = |member: &str| body[member].as_i64();
    Some(Answer::Budget(Budget {
        limit: number("limit")?,
        pool: number("pool")?,
        in_flight: number("inFlight")?,
        free: number("free")?,
        reserved: number("reserved")?,
        spent: number("spent")?,
    }))
}

/// A whole number, however it is written.
fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_f64().filter(|number| number.fract() == 0.0).map(|number| number as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whole_or_not_at_all() {
        let told = json!({"recorded": true, "duplicate": false, "late": true, "repeat": false, "overCap": false});
        let expected = Responded { recorded: true, late: true, ..Responded::default() };
        assert_eq!(responded(&told), Some(Answer::Responded(expected)));
        assert_eq!(responded(&json!({"recorded": true})), None);
        let told = json!({"limit": 9, "pool": -1, "inFlight": 2, "free": 3, "reserved": 4, "spent": 1, "shards": []});
        let expected = Budget { limit: 9, pool: -1, in_flight: 2, free: 3, reserved: 4, spent: 1 };
        assert_eq!(budget(&told), Some(Answer::Budget(expected)));
        assert_eq!(budget(&json!({"offerId": "o", "accounts": []})), None);
        assert_eq!(
            (whole(&json!(7)), whole(&json!(7.0)), whole(&json!(7.5)), whole(&json!("7"))),
            (Some(7), Some(7), None, None)
        );
    }
}
