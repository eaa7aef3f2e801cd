//! Calls that another node answers: two or three nodes with a catalogue each, and ways between them that a script holds.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use proffer_api::forwarding::answering::Answering;
use proffer_api::forwarding::ways::Ways;
use proffer_cluster::Error;
use proffer_cluster::calls::{Forwarded, Place};
use proffer_cluster::peers::Lane;
use proffer_cluster::ports::propose::Pending;
use proffer_engine::keys::{CustomerId, TenantId};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::node::{Node, Reply};

/// What happens to a call on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Open,
    /// It does not set out.
    Shut,
    /// The other node has no router yet.
    Closed,
    /// The link breaks when it has been answered.
    Breaks,
}

/// Ways to one other node.
struct Script {
    place: watch::Sender<Place>,
    to: Arc<dyn Forwarded>,
    /// What happens to the next calls; from then on all pass.
    ways: Mutex<Vec<Way>>,
    sent: AtomicUsize,
}

const OTHER: u64 = 2;
const PATIENCE: Duration = Duration::from_secs(2);

impl Script {
    fn to(node: &Node, place: Place, ways: &[Way]) -> Arc<Script> {
        Arc::new(Script {
            place: watch::Sender::new(place),
            to: Arc::new(Answering::new(node.router.clone(), 7)),
            ways: Mutex::new(ways.to_vec()),
            sent: AtomicUsize::new(0),
        })
    }

    fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Ways for Script {
    fn place(&self, _: &TenantId, _: &CustomerId) -> Place {
        *self.place.borrow()
    }

    fn place_changes<'a>(
        &'a self,
        _: &'a TenantId,
        _: &'a CustomerId,
        was: Place,
        deadline: Instant,
    ) -> Pending<'a, ()> {
        let mut place = self.place.subscribe();
        let until = deadline.min(Instant::now() + Duration::from_millis(20));
        Box::pin(async move {
            let _ = timeout_at(until, place.wait_for(|now| *now != was)).await;
        })
    }

    fn forward(
        &self,
        node: u64,
        lane: Lane,
        call: Vec<u8>,
        _: bool,
        deadline: Instant,
    ) -> Pending<'_, Result<Vec<u8>, Error>> {
        assert_eq!(node, OTHER);
        assert!(call.len() <= lane.body_bytes_max());
        self.sent.fetch_add(1, Ordering::Relaxed);
        let mut ways = self.ways.lock().unwrap();
        let way = if ways.is_empty() { Way::Open } else { ways.remove(0) };
        drop(ways);
        let answering = self.to.answer(call, deadline.saturating_duration_since(Instant::now()));
        Box::pin(async move {
            match way {
                Way::Open => {
                    let answer = answering.await;
                    assert!(answer.len() <= lane.body_bytes_max(), "{} bytes on {lane:?}", answer.len());
                    Ok(answer)
                }
                Way::Closed => Ok(Vec::new()),
                Way::Shut => Err(Error::NotLed { reason: "cut".to_owned() }),
                Way::Breaks => {
                    answering.await;
                    Err(Error::Unknown)
                }
            }
        })
    }
}

async fn revision(node: &Node) -> u64 {
    node.call("GET", "/api/v1/tags", "").await.header("x-catalog-revision").parse().unwrap()
}

/// Brings the catalogue of a node to a revision, with things that matter to nobody.
async fn bring_to(node: &Node, least: u64) {
    for number in 0.. {
        if revision(node).await >= least {
            break;
        }
        node.create("channels", &json!({"name": format!("unused {least} {number}")}).to_string()).await;
    }
}

/// Two nodes of one catalogue, and the first as one that reaches the other by a script.
async fn entry_and_leader(place: Place, ways: &[Way]) -> (Node, Node, Arc<Script>, String) {
    let (entry, leader) = (Node::start().await, Node::start().await);
    let mut offer = String::new();
    for node in [&entry, &leader] {
        node.create("channels", r#"{"name": "web"}"#).await;
        let body = json!({"name": "A", "status": "active", "caps": [{"scope": "global", "limit": 10}]});
        offer = node.create("offers", &body.to_string()).await;
    }
    bring_to(&leader, revision(&entry).await).await;
    let script = Script::to(&leader, place, ways);
    (entry.with_ways(script.clone(), PATIENCE), leader, script, offer)
}

async fn recommend(node: &Node, key: Option<&str>) -> Reply {
    let mut request = Request::builder().method("POST").uri("/api/v1/recommend").header("X-API-Key", "channel-key");
    request = request.header("Content-Type", "application/json").header("X-Request-Id", "asked-here");
    if let Some(key) = key {
        request = request.header("Idempotency-Key", key);
    }
    node.send(request.body(Body::from(json!({"customerId": "ann", "channel": "web"}).to_string())).unwrap()).await
}

async fn reserved(leader: &Node, offer: &str) -> Value {
    leader.ok("GET", &format!("/api/v1/offers/{offer}/budget"), "").await["reserved"].clone()
}

#[tokio::test]
async fn whoever_is_asked_the_node_that_leads_answers() {
    let (entry, leader, script, offer) = entry_and_leader(Place::At(OTHER), &[]).await;
    entry.ok("PUT", "/api/v1/profiles/ann", r#"{"attributes": {"age": 41}}"#).await;
    assert_eq!(leader.ok("GET", "/api/v1/profiles/ann", "").await["attributes"]["age"], 41);
    assert_eq!(entry.ok("GET", "/api/v1/profiles/ann", "").await["attributes"]["age"], 41);
    let first = recommend(&entry, Some("k")).await;
    assert_eq!(first.header("x-request-id"), "asked-here");
    let direct = recommend(&leader, Some("k")).await;
    assert_eq!((first.status, &first.bytes), (StatusCode::OK, &direct.bytes));
    assert_eq!(first.header("x-catalog-revision"), direct.header("x-catalog-revision"));
    assert_eq!(reserved(&leader, &offer).await, 1);
    let shown = json!({"customerId": "ann", "recommendationId": first.json()["recommendationId"], "rank": 1,
        "outcome": "impression", "idempotencyKey": "1"});
    assert_eq!(entry.ok("POST", "/api/v1/respond", &shown.to_string()).await["recorded"], true);
    let release = json!({"customerId": "ann", "recommendationId": first.json()["recommendationId"]});
    assert_eq!(entry.ok("POST", "/api/v1/release", &release.to_string()).await["released"], true);
    let simulated = entry.ok("POST", "/api/v1/simulate", r#"{"customerId": "ann", "channel": "web"}"#).await;
    assert_eq!(simulated["count"], 1);
    let sent = script.sent();
    entry.ok("GET", "/api/v1/offers", "").await;
    assert_eq!(script.sent(), sent, "what is known everywhere is answered at once");
    entry.ok("DELETE", "/api/v1/profiles/ann/opt-outs", "").await;
    entry.ok("DELETE", "/api/v1/profiles/ann", "").await;
    assert_eq!(leader.call("GET", "/api/v1/profiles/ann", "").await.status, StatusCode::NOT_FOUND);
    assert_eq!(entry.call("GET", "/api/v1/profiles/ann", "").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_call_waits_for_a_leader_and_that_is_no_forward() {
    let (entry, _leader, script, _) = entry_and_leader(Place::Nowhere, &[]).await;
    let (answer, ()) = tokio::join!(recommend(&entry, None), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        script.place.send_replace(Place::At(OTHER));
    });
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(script.sent(), 1);
}

#[tokio::test]
async fn a_call_that_found_nobody_in_time_took_no_effect_and_may_be_made_again() {
    let (entry, leader, script, _) = entry_and_leader(Place::Nowhere, &[]).await;
    let entry = entry.with_ways(script.clone(), Duration::from_millis(150));
    for place in [Place::Nowhere, Place::At(OTHER)] {
        script.place.send_replace(place);
        *script.ways.lock().unwrap() = vec![Way::Shut; 1_000];
        let begin = Instant::now();
        let answer = recommend(&entry, None).await;
        assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1"));
        assert_eq!((&answer.json()["outcome"], &answer.json()["retryable"]), (&json!("notApplied"), &json!(true)));
        assert!(begin.elapsed() < PATIENCE);
    }
    assert!(script.sent() < 40, "{} attempts in 150 ms", script.sent());
    drop(leader);
}

#[tokio::test]
async fn a_lost_call_is_made_again_where_that_is_as_good_as_once() {
    let (entry, leader, script, offer) = entry_and_leader(Place::At(OTHER), &[Way::Breaks]).await;
    assert_eq!(recommend(&entry, Some("k")).await.json()["count"], 1);
    assert_eq!((reserved(&leader, &offer).await, script.sent()), (json!(1), 2));
    for (method, path, body) in [
        ("PUT", "/api/v1/profiles/ann", r#"{"attributes": {"age": 41}}"#),
        ("GET", "/api/v1/profiles/ann", ""),
        ("POST", "/api/v1/simulate", r#"{"customerId": "ann", "channel": "web"}"#),
        ("DELETE", "/api/v1/profiles/ann/opt-outs", ""),
        ("DELETE", "/api/v1/profiles/ann", ""),
    ] {
        *script.ways.lock().unwrap() = vec![Way::Breaks, Way::Shut, Way::Breaks];
        entry.ok(method, path, body).await;
        assert!(script.ways.lock().unwrap().is_empty(), "{method} {path}");
    }
}

#[tokio::test]
async fn a_decision_without_a_key_is_never_asked_for_twice() {
    let (entry, leader, script, offer) = entry_and_leader(Place::At(OTHER), &[Way::Breaks]).await;
    let answer = recommend(&entry, None).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!((&answer.json()["outcome"], answer.header("retry-after")), (&json!("unknown"), "1"));
    assert_eq!((reserved(&leader, &offer).await, script.sent()), (json!(1), 1));
}

#[tokio::test]
async fn what_may_have_been_done_is_not_said_to_be_undone() {
    let (entry, _leader, script, _) = entry_and_leader(Place::At(OTHER), &[]).await;
    let entry = entry.with_ways(script.clone(), Duration::from_millis(150));
    for key in [Some("k"), None] {
        let mut ways = vec![Way::Shut; 1_000];
        ways[0] = Way::Breaks;
        *script.ways.lock().unwrap() = ways;
        let answer = recommend(&entry, key).await;
        assert_eq!((answer.status, &answer.json()["outcome"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("unknown")));
    }
    // What changes nothing is never in doubt.
    let mut ways = vec![Way::Shut; 1_000];
    ways[0] = Way::Breaks;
    *script.ways.lock().unwrap() = ways;
    let read = entry.call("GET", "/api/v1/profiles/ann", "").await;
    assert_eq!(read.json()["outcome"], "notApplied", "{read:?}");
}

#[tokio::test]
async fn a_call_is_passed_on_once_more_and_then_given_back() {
    let (middle, leader, on, _) = entry_and_leader(Place::At(OTHER), &[]).await;
    let start = Node::start().await;
    bring_to(&middle, revision(&start).await).await;
    bring_to(&leader, revision(&middle).await).await;
    let entry_ways = Script::to(&middle, Place::At(OTHER), &[]);
    let entry = start.with_ways(entry_ways.clone(), PATIENCE);
    let answer = recommend(&entry, None).await;
    assert_eq!((answer.status, entry_ways.sent(), on.sent()), (StatusCode::OK, 1, 1), "{answer:?}");
    // The leader takes a fourth node for the leader: the call has been forwarded twice and comes back, again and again.
    let beyond = Script::to(&leader, Place::At(OTHER), &[]);
    let follower = leader.with_ways(beyond.clone(), PATIENCE);
    let middle = middle.with_ways(Script::to(&follower, Place::At(OTHER), &[]), PATIENCE);
    let entry_ways = Script::to(&middle, Place::At(OTHER), &[]);
    let entry = start.with_ways(entry_ways.clone(), Duration::from_millis(200));
    let answer = recommend(&entry, None).await;
    assert_eq!((answer.status, beyond.sent()), (StatusCode::SERVICE_UNAVAILABLE, 0));
    assert_eq!(answer.json()["outcome"], "notApplied");
    assert!(entry_ways.sent() > 1, "the entry looks again");
}

#[tokio::test]
async fn a_node_in_between_neither_waits_nor_repeats() {
    let (middle, leader, on, _) = entry_and_leader(Place::Nowhere, &[]).await;
    let start = Node::start().await;
    bring_to(&middle, revision(&start).await).await;
    bring_to(&leader, revision(&middle).await).await;
    let ways = Script::to(&middle, Place::At(OTHER), &[]);
    let entry = start.with_ways(ways.clone(), PATIENCE);
    let (answer, ()) = tokio::join!(recommend(&entry, None), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        ways.place.send_replace(Place::Here);
    });
    assert!(ways.sent() > 1 && on.sent() == 0, "it was asked {} times, and asked none", ways.sent());
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "answered at the entry, which has no channel: {answer:?}");
    // A loss behind it is told, and the entry repeats what may be.
    ways.place.send_replace(Place::At(OTHER));
    on.place.send_replace(Place::At(OTHER));
    *on.ways.lock().unwrap() = vec![Way::Breaks, Way::Breaks];
    assert_eq!(recommend(&entry, Some("k")).await.status, StatusCode::OK);
    assert_eq!(on.sent(), 3);
}

#[tokio::test]
async fn a_forwarded_call_is_answered_by_a_catalogue_no_older_than_the_entrys() {
    let (entry, leader, _, _) = entry_and_leader(Place::At(OTHER), &[]).await;
    bring_to(&entry, revision(&leader).await + 2).await;
    let (answer, ()) = tokio::join!(recommend(&entry, None), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        leader.create("offers", r#"{"name": "B", "status": "active"}"#).await;
        bring_to(&leader, revision(&entry).await).await;
    });
    assert_eq!(answer.json()["count"], 2, "{answer:?}");
}

#[tokio::test]
async fn a_node_that_is_starting_has_begun_nothing() {
    let (entry, leader, script, offer) = entry_and_leader(Place::At(OTHER), &[Way::Closed, Way::Closed]).await;
    assert_eq!(recommend(&entry, None).await.status, StatusCode::OK, "asked again though it has no key");
    assert_eq!((script.sent(), reserved(&leader, &offer).await), (3, json!(1)));
}

#[tokio::test]
async fn an_answer_too_large_for_its_lane_comes_on_the_other_one() {
    let (entry, leader, script, offer) = entry_and_leader(Place::At(OTHER), &[]).await;
    let text = "x".repeat(25_000);
    for number in 0..12 {
        let offer = json!({"name": format!("B{number}"), "status": "active"});
        let offer = leader.create("offers", &offer.to_string()).await;
        let creative = json!({"name": format!("B{number}"), "offerId": offer, "channelId": "web", "status": "active",
            "contentType": "text", "content": {"title": text}});
        leader.create("creatives", &creative.to_string()).await;
    }
    let body = json!({"customerId": "ann", "channel": "web", "limit": 50});
    let answer = entry.call("POST", "/api/v1/recommend", &body.to_string()).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.bytes.len() > Lane::Control.body_bytes_max(), "{}", answer.bytes.len());
    assert_eq!((script.sent(), reserved(&leader, &offer).await), (2, json!(1)), "asked for once, and fetched");
}
