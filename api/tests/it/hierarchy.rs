//! The business hierarchy, along the vendor's reference for it and its examples.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::node::Node;

/// The request of the reference, whole.
fn personal_loans() -> Value {
    json!({
        "name": "Personal Loans",
        "description": "Personal lending products",
        "icon": "banknotes",
        "color": "blue",
        "status": "active",
        "ordinal": 2,
        "customFields": [
            { "name": "base_rate", "label": "Base APR", "type": "number", "required": true },
            { "name": "term_months", "label": "Term (Months)", "type": "number", "required": true },
            { "name": "min_credit_score", "label": "Min Credit Score", "type": "number", "required": false },
            {
                "name": "personalized_rate",
                "label": "Personalized Rate",
                "type": "computed",
                "formula": "base_rate * (1 - customer.loyalty_score * 0.01)",
                "outputType": "number"
            },
            {
                "name": "credit_limit",
                "label": "Dynamic Credit Limit",
                "type": "computed",
                "formula": "max(min(customer.annual_income * 3, 50000), 5000)",
                "outputType": "number"
            }
        ]
    })
}

#[tokio::test]
async fn the_examples_are_taken_as_they_are_written() {
    let node = Node::start().await;
    let reply = node.call("POST", "/api/v1/categories", &personal_loans().to_string()).await;
    assert_eq!(reply.status, StatusCode::CREATED);
    let made = reply.json();
    assert_eq!(made["id"], "cat_personal_loans");
    for member in ["name", "description", "icon", "color", "status", "ordinal"] {
        assert_eq!(made[member], personal_loans()[member]);
    }
    for (made, given) in
        made["customFields"].as_array().unwrap().iter().zip(personal_loans()["customFields"].as_array().unwrap())
    {
        given.as_object().unwrap().iter().for_each(|(name, given)| assert_eq!(&made[name], given));
    }
    assert!(made["createdAt"].is_string() && made["createdAt"] == made["updatedAt"]);
    let debt =
        r#"{"name": "Debt Consolidation", "description": "Loans for consolidating existing debt", "ordinal": 1}"#;
    let reply = node.call("POST", "/api/v1/categories/cat_personal_loans/sub-categories", debt).await;
    assert_eq!(reply.status, StatusCode::CREATED);
    let sub = reply.json();
    assert_eq!((&sub["categoryId"], &sub["ordinal"]), (&json!("cat_personal_loans"), &json!(1)));
    let listed = node.ok("GET", "/api/v1/categories", "").await;
    let first = &listed["items"][0];
    assert_eq!(first["subCategories"][0]["id"], sub["id"], "with their sub-categories");
    assert_eq!(first["customFields"], made["customFields"], "and their schemas");
    let gone = node.call("DELETE", "/api/v1/categories/cat_personal_loans", "").await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    assert_eq!(node.ok("GET", "/api/v1/categories", "").await["items"], json!([]));
}

#[tokio::test]
async fn deleting_unlinks_offers_and_leaves_their_creatives() {
    let node = Node::start().await;
    node.create("channels", r#"{"name": "web"}"#).await;
    node.create("categories", r#"{"name": "Cards"}"#).await;
    let subs = "/api/v1/categories/cat_cards/sub-categories";
    let mut made = Vec::new();
    for name in ["Premium", "Travel"] {
        let sub = node.ok("POST", subs, &json!({"name": name}).to_string()).await["id"].as_str().unwrap().to_owned();
        let offer = json!({"name": name, "status": "active", "categoryId": "cat_cards", "subCategoryId": sub});
        let offer = node.create("offers", &offer.to_string()).await;
        let creative = json!({"name": name, "offerId": offer, "channelId": "web", "status": "active", "content": "…"});
        node.create("creatives", &creative.to_string()).await;
        made.push((sub, offer));
    }
    let links = async |offer: &str| {
        let offer = node.ok("GET", &format!("/api/v1/offers/{offer}"), "").await;
        (offer["categoryId"].clone(), offer["subCategoryId"].clone())
    };
    let [(premium, premium_offer), (travel, travel_offer)] = &made[..] else { unreachable!("two were made") };
    assert_eq!(node.call("DELETE", &format!("{subs}/{premium}"), "").await.status, StatusCode::NO_CONTENT);
    assert_eq!(links(premium_offer).await, (json!("cat_cards"), Value::Null));
    assert_eq!(links(travel_offer).await, (json!("cat_cards"), json!(travel)));
    assert_eq!(node.call("DELETE", "/api/v1/categories/cat_cards", "").await.status, StatusCode::NO_CONTENT);
    assert_eq!(links(travel_offer).await, (Value::Null, Value::Null));
    assert_eq!(node.call("GET", &format!("{subs}/{travel}"), "").await.status, StatusCode::NOT_FOUND);
    assert_eq!(node.ok("GET", "/api/v1/creatives", "").await["items"].as_array().unwrap().len(), 2);
    let answer = node.ok("POST", "/api/v1/recommend", r#"{"customerId": "c", "channel": "web"}"#).await;
    assert_eq!(answer["count"], 2, "they are offers still");
}

#[tokio::test]
async fn computed_fields_are_the_customers_own() {
    let node = Node::start().await;
    node.create("channels", r#"{"name": "email"}"#).await;
    let columns = json!([{"name": "customer_id", "dataType": "varchar", "isUnique": true},
        {"name": "loyalty_score", "dataType": "integer"}, {"name": "annual_income", "dataType": "decimal"},
        {"name": "credit_score", "dataType": "integer"}, {"name": "preferred_name", "dataType": "varchar"}]);
    let schema = node.create("schemas", &json!({"name": "customer", "fields": columns}).to_string()).await;
    let mut category = personal_loans();
    let more = [
        ("welcome_bonus", "customer.credit_score >= 750 ? 500 : customer.credit_score >= 650 ? 250 : 100", "number"),
        ("offer_label", r#"concat(attributes.channel, " - ", coalesce(customer.preferred_name, "Customer"))"#, "text"),
        ("tier_label", "concat('tier ', attributes.tier)", "text"),
        ("mistyped", "customer.preferred_name", "number"),
    ];
    for (name, formula, output) in more {
        let field = json!({"name": name, "type": "computed", "formula": formula, "outputType": output});
        category["customFields"].as_array_mut().unwrap().push(field);
    }
    node.create("categories", &category.to_string()).await;
    let offer = json!({"name": "Loan", "status": "active", "categoryId": "cat_personal_loans",
        "customFields": {"base_rate": 12.5, "term_months": 36}});
    node.create("offers", &offer.to_string()).await;
    let row = json!({"customer_id": "ann", "loyalty_score": 80, "annual_income": 12_000, "credit_score": 650,
        "preferred_name": "Ann"});
    node.ok("POST", &format!("/api/v1/schemas/{schema}/rows"), &format!("{row}\n")).await;
    let personal = async |customer: &str| {
        let body = json!({"customerId": customer, "channel": "email", "attributes": {"tier": "gold"}}).to_string();
        node.ok("POST", "/api/v1/recommend", &body).await["decisions"][0]["personalization"].clone()
    };
    let expected = json!({"personalized_rate": 2.5, "credit_limit": 36_000, "welcome_bonus": 250,
        "offer_label": "email - Ann", "tier_label": "tier gold", "mistyped": null});
    assert_eq!(personal("ann").await, expected);
    let stranger = json!({"personalized_rate": null, "credit_limit": null, "welcome_bonus": 100,
        "offer_label": "email - Customer", "tier_label": "tier gold", "mistyped": null});
    assert_eq!(personal("stranger").await, stranger);
}

#[tokio::test]
async fn a_rule_binds_a_whole_category_or_a_sub_category() {
    let node = Node::start().await;
    node.create("categories", r#"{"name": "Cards"}"#).await;
    let subs = "/api/v1/categories/cat_cards/sub-categories";
    let sub = node.ok("POST", subs, r#"{"name": "Travel"}"#).await["id"].clone();
    for (name, category, sub) in [
        ("travel", json!("cat_cards"), sub.clone()),
        ("card", json!("cat_cards"), Value::Null),
        ("loan", Value::Null, Value::Null),
    ] {
        let offer = json!({"name": name, "status": "active", "categoryId": category, "subCategoryId": sub});
        node.create("offers", &offer.to_string()).await;
    }
    let left = async || {
        let answer = node.ok("POST", "/api/v1/recommend", r#"{"customerId": "c"}"#).await;
        let decisions = answer["decisions"].as_array().unwrap().iter();
        let mut names: Vec<String> = decisions.map(|one| one["offerName"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(left().await, ["card", "loan", "travel"]);
    for (scope, id, expected) in
        [("subcategory", sub, &["card", "loan"][..]), ("category", json!("cat_cards"), &["loan"])]
    {
        let rule = json!({"name": scope, "ruleType": "segment_required", "scope": scope, "scopeId": id,
            "config": {"requiredSegments": ["vip"]}});
        node.create("qualification-rules", &rule.to_string()).await;
        assert_eq!(left().await, expected, "{scope}");
    }
}
