//! The cross-sell tutorial of seed 003, its bodies as its curl commands send them.

use serde_json::{Value, json};

use crate::node::Node;

struct Shop {
    node: Node,
    schema: String,
}

async fn shop() -> Shop {
    let node = Node::start().await;
    let fields = json!([
        {"name": "customer_id", "dataType": "varchar", "isUnique": true},
        {"name": "tenureMonths", "dataType": "integer"},
        {"name": "tier", "dataType": "varchar"},
        {"name": "hasChecking", "dataType": "boolean"},
        {"name": "hasSavings", "dataType": "boolean"},
        {"name": "hasCreditCard", "dataType": "boolean"},
        {"name": "hasMortgage", "dataType": "boolean"},
        {"name": "hasBrokerage", "dataType": "boolean"},
        {"name": "avgMonthlyBalance", "dataType": "decimal"},
    ]);
    let schema = json!({"name": "customer", "displayName": "Customer", "fields": fields}).to_string();
    let schema = node.create("schemas", &schema).await;
    let mut offers = Vec::new();
    for (name, priority, value, revenue) in [
        ("High-yield savings", 70, 40, 40),
        ("Rewards credit card", 80, 80, 90),
        ("Wealth-management account", 95, 95, 250),
        ("Mortgage pre-approval", 90, 90, 500),
    ] {
        let body = json!({"name": name, "status": "active", "category": "cross-sell", "priority": priority,
            "businessValue": value, "revenueValue": revenue});
        offers.push(node.create("offers", &body.to_string()).await);
    }
    let [savings, card, wealth, mortgage] = [0, 1, 2, 3].map(|index| &offers[index]);
    for (name, offer, attribute, operator, value) in [
        ("Savings — has checking", savings, "hasChecking", "eq", json!(true)),
        ("Savings — no savings yet", savings, "hasSavings", "eq", json!(false)),
        ("Card — no card yet", card, "hasCreditCard", "eq", json!(false)),
        ("Card — tenure >= 6mo", card, "tenureMonths", "gte", json!(6)),
        ("Wealth — no brokerage yet", wealth, "hasBrokerage", "eq", json!(false)),
        ("Wealth — premium tier", wealth, "tier", "in", json!(["premium", "private"])),
        ("Wealth — balance >= 50k", wealth, "avgMonthlyBalance", "gte", json!(50_000)),
        ("Mortgage — none yet", mortgage, "hasMortgage", "eq", json!(false)),
        ("Mortgage — tenure >= 24mo", mortgage, "tenureMonths", "gte", json!(24)),
    ] {
        let config = json!({"attribute": format!("customer.{attribute}"), "operator": operator, "value": value});
        let body = json!({"name": name, "ruleType": "attribute_condition", "scope": "offer", "scopeId": offer,
            "stage": "eligibility", "config": config});
        node.create("qualification-rules", &body.to_string()).await;
    }
    for channel in ["email", "in_app", "branch"] {
        let body = json!({"name": channel, "status": "active", "couplingMode": "partial"});
        node.create("channels", &body.to_string()).await;
    }
    publish(&node, &schema).await;
    Shop { node, schema }
}

async fn publish(node: &Node, schema: &str) {
    let columns = [
        "tier",
        "tenureMonths",
        "hasChecking",
        "hasSavings",
        "hasCreditCard",
        "hasMortgage",
        "hasBrokerage",
        "avgMonthlyBalance",
    ];
    let sources = json!([{"schemaId": schema, "lookupKey": "customer_id", "fields": columns}]);
    let weights = json!({"propensityWeight": 0.4, "relevanceWeight": 0.15, "impactWeight": 0.35, "emphasisWeight": 0.1,
        "upliftWeight": 0.5});
    let flow = json!({"key": "cross-sell", "name": "Cross-Sell", "draftConfig": {
        "version": 2,
        "flowConfig": {"experiment": {"enabled": true, "holdoutPercent": 10, "controlGroupAction": "no_offers"}},
        "nodes": [
            {"id": "inv", "type": "inventory", "phase": 1, "position": 0,
                "config": {"scope": "all", "includeStatuses": ["active"]}},
            {"id": "enr", "type": "enrich", "phase": 1, "position": 1, "config": {"sources": sources}},
            {"id": "qual", "type": "qualify", "phase": 1, "position": 2, "config": {"mode": "all"}},
            {"id": "cp", "type": "contact_policy", "phase": 1, "position": 3, "config": {"mode": "all"}},
            {"id": "score", "type": "score", "phase": 2, "position": 4,
                "config": {"method": "formula", "formula": weights}},
            {"id": "rank", "type": "rank", "phase": 2, "position": 5,
                "config": {"method": "topN", "maxCandidates": 5}},
            {"id": "out", "type": "response", "phase": 3, "position": 6, "config": {"responseFormat": "standard"}},
        ],
    }});
    let id = node.create("decision-flows", &flow.to_string()).await;
    let published = node.ok("POST", "/api/v1/decision-flows/publish", &json!({"id": id}).to_string()).await;
    assert_eq!((&published["status"], &published["decisionFlowVersion"]), (&json!("active"), &json!(1)));
    let versions = node.ok("GET", &format!("/api/v1/decision-flows/{id}/versions"), "").await;
    assert_eq!(versions["items"][0]["version"], 1);
}

impl Shop {
    async fn load(&self, customer: &str, has_mortgage: bool) {
        let row = json!({"customer_id": customer, "tenureMonths": 36, "tier": "premium", "hasChecking": true,
            "hasSavings": false, "hasCreditCard": false, "hasMortgage": has_mortgage, "hasBrokerage": true,
            "avgMonthlyBalance": 12_000.5});
        let path = format!("/api/v1/schemas/{}/rows", self.schema);
        self.node.ok("POST", &path, &format!("{row}\n")).await;
    }

    async fn recommend(&self, customer: &str, query: &str) -> Value {
        let body = json!({"customerId": customer, "channel": "in_app", "decisionFlowKey": "cross-sell"});
        self.node.ok("POST", &format!("/api/v1/recommend{query}"), &body.to_string()).await
    }
}

fn names(answer: &Value) -> Vec<&str> {
    answer["decisions"].as_array().unwrap().iter().map(|chosen| chosen["offerName"].as_str().unwrap()).collect()
}

/// Puts stable words for what differs from run to run.
fn redact(mut answer: Value) -> Value {
    for member in ["interactionId", "recommendationId"] {
        answer[member] = json!(format!("[{member}]"));
    }
    for list in ["/decisions", "/explanation/removed"] {
        let Some(entries) = answer.pointer_mut(list).and_then(Value::as_array_mut) else { continue };
        for entry in entries {
            for id in ["offerId", "ruleId"] {
                if entry[id].is_string() {
                    entry[id] = json!(format!("[{id}]"));
                }
            }
        }
    }
    answer
}

#[tokio::test]
async fn the_rules_leave_card_and_savings_in_the_tutorials_shape() {
    let shop = shop().await;
    shop.load("cust_42", true).await;
    let answer = shop.recommend("cust_42", "").await;
    assert_eq!(names(&answer), ["Rewards credit card", "High-yield savings"]);
    insta::assert_json_snapshot!(redact(answer));
}

#[tokio::test]
async fn a_customer_without_mortgage_is_offered_one() {
    let shop = shop().await;
    shop.load("cust_42", false).await;
    let answer = shop.recommend("cust_42", "").await;
    assert_eq!(names(&answer), ["Mortgage pre-approval", "Rewards credit card", "High-yield savings"]);
    assert_eq!(answer["meta"]["afterQualification"], 3);
}

#[tokio::test]
async fn explain_shows_factors_and_removals_and_decides_the_same() {
    let shop = shop().await;
    shop.load("cust_42", true).await;
    let plain = shop.recommend("cust_42", "").await;
    let explained = shop.recommend("cust_42", "?explain=true").await;
    assert_eq!(names(&plain), names(&explained));
    assert_eq!(plain["meta"], explained["meta"]);
    insta::assert_json_snapshot!(redact(explained));
}

#[tokio::test]
async fn a_held_out_customer_gets_every_field_and_no_offer() {
    let shop = shop().await;
    for number in 0..200 {
        let customer = format!("cust_{number}");
        shop.load(&customer, true).await;
        let answer = shop.recommend(&customer, "").await;
        if answer["meta"]["controlGroup"] == json!(true) {
            assert_eq!((&answer["count"], &answer["decisions"]), (&json!(0), &json!([])));
            assert_eq!(answer["meta"]["experiment"], json!({"key": "cross-sell", "arm": "control"}));
            assert_eq!(answer["meta"]["afterContactPolicy"], 2, "counters as if treated");
            let id = answer["recommendationId"].as_str().unwrap();
            let outcome = json!({"customerId": customer, "recommendationId": id, "offerId": "Rewards credit card",
                "outcome": "conversion", "idempotencyKey": "k"});
            assert_eq!(shop.node.ok("POST", "/api/v1/respond", &outcome.to_string()).await["recorded"], true);
            return;
        }
    }
    panic!("a tenth of the customers is held out");
}
