//! What clients want.

use proffer_chaos::history::{Call, Operation, Outcome};
use serde_json::json;

use super::{FLEETING, FLEETING_LIMIT, Offer, Role, Wish, Workload};

/// Customers whom they ask for.
const CUSTOMERS: u64 = 24;
/// Offers made while things go wrong, at most.
const MADE_MAX: usize = 40;
/// What is drawn by who wants a decision that takes nothing, without a key.
const ASKS_ONLY: u64 = 980;

impl Workload {
    /// What a client wants next.
    pub(super) fn wish(&mut self, now: u64, number: usize) -> Option<Wish> {
        self.numbers += 1;
        let unique = self.numbers;
        let (customer, host, drawn) = match self.behind.take_if(|behind| behind.at_ms <= now) {
            Some(behind) => (behind.customer, Some(behind.host), ASKS_ONLY),
            None => (format!("c{}", self.draws.below(CUSTOMERS)), None, self.draws.below(1_000)),
        };
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
            host,
            began_ms: now,
        };
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
                    let caps = if unique.is_multiple_of(3) { json!([]) } else { caps };
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
                let is_few = |offer: &Offer| !matches!(offer.role, Role::Plain | Role::Fleeting { is_limited: false });
                let is_left_out = |offer: &Offer| match (drawn % 4, self.excluding()) {
                    // Who wants nothing of which there are few takes nothing: that is answered without the log.
                    (0, _) => is_few(offer),
                    // What is being excluded is what many want just then.
                    (1 | 2, Some(hot)) => offer.id != hot,
                    (_, _) => false,
                };
                let left_out = self.offers.iter().filter(|offer| is_left_out(offer));
                let left_out: Vec<String> = left_out.map(|offer| offer.id.clone()).collect();
                wish.body =
                    Some(json!({"customerId": customer, "channel": "web", "limit": 8, "excludeOffers": left_out}));
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
}
