//! The field tables of the vendors' references for offers and the business hierarchy: for each field what it takes, what it
//! is when left out, and where it says no.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::node::Node;

/// A line of a field table.
struct Line {
    /// Where the field lies in the object.
    at: &'static str,
    /// Members that give it a value that is taken as it is.
    good: Vec<Value>,
    /// Its value when it is left out; none where it must be given.
    default: Option<Value>,
    /// Members that are refused, with the pointers of their faults.
    bad: Vec<(Value, &'static str)>,
}

fn line(at: &'static str, good: &[Value], default: Value, bad: &[(Value, &'static str)]) -> Line {
    Line { at, good: good.to_vec(), default: Some(default), bad: bad.to_vec() }
}

fn required(at: &'static str, good: &[Value], bad: &[(Value, &'static str)]) -> Line {
    Line { at, good: good.to_vec(), default: None, bad: bad.to_vec() }
}

/// `least` with other members, and a name of its own unless they have one.
fn with(least: &Value, number: &mut usize, members: &Value) -> Value {
    *number += 1;
    let mut body = least.clone();
    body["name"] = json!(format!("thing {number}"));
    body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    body
}

/// Writes every value of `table` to objects at `path`, of which `least` and a name are enough.
async fn check(node: &Node, path: &str, least: &Value, table: &[Line]) {
    let mut number = 0;
    let plain = node.ok("POST", path, &with(least, &mut number, &json!({})).to_string()).await;
    let plain_path = format!("{path}/{}", plain["id"].as_str().unwrap());
    for Line { at, good, default, bad } in table {
        let member = at.split('/').nth(1).unwrap();
        if let Some(default) = default {
            assert_eq!(plain.pointer(at), Some(default), "{at} when left out");
        }
        for members in good {
            let made = node.ok("POST", path, &with(least, &mut number, members).to_string()).await;
            assert_eq!(made.pointer(at), members.pointer(at), "{at}: {members}");
            let own = format!("{path}/{}", made["id"].as_str().unwrap());
            assert_eq!(node.ok("GET", &own, "").await, made, "{at}: {members}");
            // A status has an order of its own; what must be given has nothing to go back to.
            if let Some(default) = default.as_ref().filter(|_| member != "status" && least.get(member).is_none()) {
                let reset = node.ok("PUT", &own, &json!({member: null}).to_string()).await;
                assert_eq!(reset.pointer(at), Some(default), "{at} after null");
            }
        }
        let before = node.ok("GET", path, "").await;
        for (members, pointers) in bad {
            let body = with(least, &mut number, members).to_string();
            for (method, path, body) in [("POST", path, body), ("PUT", &*plain_path, members.to_string())] {
                let reply = node.call(method, path, &body).await;
                let mut found = reply.pointers();
                found.sort();
                let expected: Vec<&str> = pointers.split(' ').collect();
                assert_eq!((reply.status, found), (StatusCode::BAD_REQUEST, to_strings(&expected)), "{method} {body}");
            }
        }
        assert_eq!(node.ok("GET", path, "").await, before, "{at}: what is refused changes nothing");
    }
}

fn to_strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn long(length: usize) -> String {
    "x".repeat(length)
}

#[tokio::test]
async fn every_field_of_an_offer_has_its_type_default_and_range() {
    let node = Node::start().await;
    node.create("categories", r#"{"name": "Beverages"}"#).await;
    node.create("categories", r#"{"name": "Cards"}"#).await;
    let sub = node.ok("POST", "/api/v1/categories/cat_beverages/sub-categories", r#"{"name": "Cold"}"#).await;
    let sub = sub["id"].clone();
    let many: Vec<String> = (0..101).map(|number| format!("tag {number}")).collect();
    let percent = |at: &'static str| {
        let member = &at[1..];
        let bad = [json!(101), json!(-1), json!(50.5), json!("50"), json!(true)];
        let bad: Vec<_> = bad.into_iter().map(|value| (json!({member: value}), at)).collect();
        line(at, &[json!({member: 0}), json!({member: 100})], json!(50), &bad)
    };
    let money = |at: &'static str| {
        let member = &at[1..];
        let good = [json!({member: 12.5}), json!({member: 0}), json!({member: -3})];
        line(at, &good, json!(0), &[(json!({member: "1"}), at), (json!({member: [1]}), at)])
    };
    let text = |at: &'static str, default: Value, most: usize| {
        let member = &at[1..];
        let bad = [(json!({member: 7}), at), (json!({member: long(most + 1)}), at)];
        line(at, &[json!({member: "text"}), json!({member: long(most)})], default, &bad)
    };
    let governed = json!({"mandatory": true, "mandatoryReason": "law", "mandatoryApprovedBy": "jane.smith@acme.com",
        "mandatoryExpiresAt": "2026-04-15T23:59:59Z"});
    let table = [
        required(
            "/name",
            &[json!({"name": long(255)})],
            &[(json!({"name": null}), "/name"), (json!({"name": " "}), "/name"), (json!({"name": long(256)}), "/name")],
        ),
        line(
            "/status",
            &[json!({"status": "active"}), json!({"status": "paused"}), json!({"status": "draft"})],
            json!("draft"),
            &[(json!({"status": "gone"}), "/status"), (json!({"status": 1}), "/status")],
        ),
        line(
            "/categoryId",
            &[json!({"categoryId": "cat_beverages"})],
            Value::Null,
            &[(json!({"categoryId": "cat_none"}), "/categoryId"), (json!({"categoryId": 7}), "/categoryId")],
        ),
        line(
            "/subCategoryId",
            &[json!({"categoryId": "cat_beverages", "subCategoryId": sub})],
            Value::Null,
            &[
                (json!({"categoryId": "cat_beverages", "subCategoryId": "none"}), "/subCategoryId"),
                (json!({"categoryId": "cat_cards", "subCategoryId": sub}), "/subCategoryId"),
                (json!({"subCategoryId": sub}), "/subCategoryId"),
            ],
        ),
        text("/productType", json!(""), 255),
        percent("/priority"),
        percent("/businessValue"),
        money("/margin"),
        money("/revenueValue"),
        line(
            "/mandatory",
            &[governed],
            json!(false),
            &[
                (json!({"mandatory": "yes"}), "/mandatory"),
                (json!({"mandatory": true}), "/mandatoryApprovedBy /mandatoryExpiresAt /mandatoryReason"),
                (
                    json!({"mandatory": true, "mandatoryReason": "law", "mandatoryExpiresAt": "2026-04-15"}),
                    "/mandatoryApprovedBy",
                ),
            ],
        ),
        text("/mandatoryReason", Value::Null, 1_000),
        text("/mandatoryApprovedBy", Value::Null, 1_000),
        line(
            "/mandatoryExpiresAt",
            &[json!({"mandatoryExpiresAt": "2026-04-15T23:59:59Z"})],
            Value::Null,
            &[
                (json!({"mandatoryExpiresAt": "soon"}), "/mandatoryExpiresAt"),
                (json!({"mandatoryExpiresAt": 20_260_415}), "/mandatoryExpiresAt"),
            ],
        ),
        text("/description", json!(""), 10_000),
        text("/shortDesc", json!(""), 1_000),
        line(
            "/tags",
            &[json!({"tags": ["bogo", "frappuccino"]}), json!({"tags": many[..100]})],
            json!([]),
            &[
                (json!({"tags": "bogo"}), "/tags"),
                (json!({"tags": ["a", 1]}), "/tags/1"),
                (json!({"tags": many}), "/tags"),
            ],
        ),
        line(
            "/metadata",
            &[json!({"metadata": {"crm": {"id": 7, "open": [true, null]}}})],
            json!({}),
            &[(json!({"metadata": []}), "/metadata"), (json!({"metadata": "x"}), "/metadata")],
        ),
        line(
            "/emergencyExcluded",
            &[json!({"emergencyExcluded": true})],
            json!(false),
            &[(json!({"emergencyExcluded": 1}), "/emergencyExcluded")],
        ),
    ];
    check(&node, "/api/v1/offers", &json!({}), &table).await;
}

#[tokio::test]
async fn every_field_of_eligibility_budget_and_schedule_has_its_type_default_and_range() {
    let node = Node::start().await;
    let model =
        json!({"name": "model_propensity_cc_v3", "key": "model_propensity_cc_v3", "modelType": "thompson_bandit"});
    node.create("algorithm-models", &model.to_string()).await;
    let eligibility = |member: &str, value: Value| json!({"eligibility": {member: value}});
    let budget = |member: &str, value: Value| json!({"budget": {member: value}});
    let schedule = |member: &str, value: Value| json!({"schedule": {member: value}});
    let hours = |start: &str, end: &str| json!({"schedule": {"timeWindow": {"start": start, "end": end}}});
    let (threshold, recency) = ("/eligibility/propensityThreshold", "/eligibility/recency");
    let (segments, model) = ("/eligibility/requiredSegments", "/eligibility/modelReference");
    let (impressions, daily, cost) = ("/budget/maxImpressions", "/budget/maxDailyBudget", "/budget/costPerAction");
    let (start, end, days) = ("/schedule/startDate", "/schedule/endDate", "/schedule/daysOfWeek");
    let window = "/schedule/timeWindow";
    let table = [
        line(
            threshold,
            &[json!(0), json!(0.65), json!(1)].map(|least| eligibility("propensityThreshold", least)),
            Value::Null,
            &[json!(1.01), json!(-0.1), json!("high")].map(|bad| (eligibility("propensityThreshold", bad), threshold)),
        ),
        line(
            recency,
            &[json!(0), json!(30), json!(0.5)].map(|days| eligibility("recency", days)),
            Value::Null,
            &[json!(-1), json!(366), json!("month")].map(|bad| (eligibility("recency", bad), recency)),
        ),
        line(
            segments,
            &[eligibility("requiredSegments", json!(["high_value", "credit_eligible"]))],
            json!([]),
            &[
                (eligibility("requiredSegments", json!("high_value")), segments),
                (eligibility("requiredSegments", json!(["a", 7])), "/eligibility/requiredSegments/1"),
                (eligibility("requiredSegments", json!([""])), "/eligibility/requiredSegments/0"),
            ],
        ),
        line(
            model,
            &[eligibility("modelReference", json!("model_propensity_cc_v3"))],
            Value::Null,
            &[
                (eligibility("modelReference", json!(7)), model),
                (eligibility("modelReference", json!("")), model),
                (eligibility("modelReference", json!("nobody")), model),
            ],
        ),
        line(
            impressions,
            &[json!(0), json!(50_000)].map(|limit| budget("maxImpressions", limit)),
            Value::Null,
            &[json!(-1), json!(1.5), json!("many"), json!(2_000_000_000_000_u64)]
                .map(|bad| (budget("maxImpressions", bad), impressions)),
        ),
        line(
            daily,
            &[json!({"budget": {"maxDailyBudget": 2500, "costPerAction": 1.5}})],
            Value::Null,
            &[
                (budget("maxDailyBudget", json!(2500)), cost),
                (json!({"budget": {"maxDailyBudget": -1, "costPerAction": 1.5}}), daily),
                (json!({"budget": {"maxDailyBudget": "much", "costPerAction": 1.5}}), daily),
            ],
        ),
        line(
            cost,
            &[budget("costPerAction", json!(1.5)), budget("costPerAction", json!(0.000001))],
            Value::Null,
            &[json!(0), json!(-1), json!(0.0000001), json!("1.5")].map(|bad| (budget("costPerAction", bad), cost)),
        ),
        line(
            start,
            &[schedule("startDate", json!("2026-03-15T00:00:00Z")), schedule("startDate", json!("2026-03-15"))],
            Value::Null,
            &[(schedule("startDate", json!("15.03.2026")), start), (schedule("startDate", json!(1)), start)],
        ),
        line(
            end,
            &[json!({"schedule": {"startDate": "2026-06-15T23:59:00Z", "endDate": "2026-06-15T23:59:59Z"}})],
            Value::Null,
            &[
                (schedule("endDate", json!("never")), end),
                (json!({"schedule": {"startDate": "2026-03-15", "endDate": "2026-03-15"}}), end),
            ],
        ),
        line(
            days,
            &[schedule("daysOfWeek", json!([1, 2, 3, 4, 5])), schedule("daysOfWeek", json!([0, 6]))],
            json!([]),
            &[
                (schedule("daysOfWeek", json!([0, 7])), "/schedule/daysOfWeek/1"),
                (schedule("daysOfWeek", json!([-1])), "/schedule/daysOfWeek/0"),
                (schedule("daysOfWeek", json!([1, 1])), "/schedule/daysOfWeek/1"),
                (schedule("daysOfWeek", json!("monday")), days),
            ],
        ),
        line(
            window,
            &[hours("08:00", "20:00"), hours("22:00", "02:00")],
            Value::Null,
            &[
                (hours("08:00", "08:00"), window),
                (hours("8:00", "24:00"), "/schedule/timeWindow/end /schedule/timeWindow/start"),
                (json!({"schedule": {"timeWindow": {"start": "08:00"}}}), "/schedule/timeWindow/end"),
            ],
        ),
    ];
    check(&node, "/api/v1/offers", &json!({}), &table).await;
    let empty = json!({"name": "empty objects", "eligibility": {}, "budget": {}, "schedule": {}}).to_string();
    let (empty, plain) =
        (node.ok("POST", "/api/v1/offers", &empty).await, node.ok("POST", "/api/v1/offers", r#"{"name": "p"}"#).await);
    for (member, unknown) in [("eligibility", "minimum"), ("budget", "total"), ("schedule", "months")] {
        assert_eq!(empty[member], plain[member]);
        let body = json!({"name": "n", member: {unknown: 1}}).to_string();
        assert_eq!(node.call("POST", "/api/v1/offers", &body).await.pointers(), [format!("/{member}/{unknown}")]);
    }
}

#[tokio::test]
async fn every_field_of_categories_and_sub_categories_has_its_type_default_and_range() {
    let node = Node::start().await;
    let parent = node.create("categories", r#"{"name": "Parent"}"#).await;
    let text = |at: &'static str, default: &str, most: usize| {
        let member = &at[1..];
        let bad = [(json!({member: 7}), at), (json!({member: long(most + 1)}), at)];
        line(at, &[json!({member: "text"}), json!({member: long(most)})], json!(default), &bad)
    };
    let common = || {
        let name = ["/name"; 3];
        let bad = [json!({"name": null}), json!({"name": ""}), json!({"name": long(256)})];
        let statuses = ["draft", "active", "paused", "archived"].map(|status| json!({"status": status}));
        let ordinals = [json!(-1), json!(1.5), json!("2")].map(|bad| (json!({"ordinal": bad}), "/ordinal"));
        [
            required("/name", &[json!({"name": long(255)})], &bad.into_iter().zip(name).collect::<Vec<_>>()),
            text("/description", "", 10_000),
            line("/status", &statuses, json!("active"), &[(json!({"status": "gone"}), "/status")]),
            line("/ordinal", &[json!({"ordinal": 2})], json!(0), &ordinals),
        ]
    };
    let own = [
        text("/icon", "", 255),
        text("/color", "blue", 255),
        line(
            "/customFields",
            &[json!({"customFields": []})],
            json!([]),
            &[
                (json!({"customFields": {}}), "/customFields"),
                (json!({"customFields": ["text"]}), "/customFields/0"),
                (json!({"customFields": fields(501)}), "/customFields"),
            ],
        ),
    ];
    let table: Vec<Line> = common().into_iter().chain(own).collect();
    check(&node, "/api/v1/categories", &json!({}), &table).await;
    let full = json!({"name": "full", "customFields": fields(500)}).to_string();
    let full = node.ok("POST", "/api/v1/categories", &full).await;
    assert_eq!(full["customFields"].as_array().unwrap().len(), 500);

    let below = format!("/api/v1/categories/{parent}/sub-categories");
    check(&node, &below, &json!({}), &common()).await;
    let made = node.ok("POST", &below, r#"{"name": "Debt Consolidation"}"#).await;
    assert_eq!(made["categoryId"], json!(parent), "the path names it");
    let elsewhere = json!({"name": "n", "categoryId": "cat_full"}).to_string();
    assert_eq!(node.call("POST", &below, &elsewhere).await.pointers(), ["/categoryId"]);
}

fn fields(count: usize) -> Value {
    (0..count).map(|number| json!({"name": format!("f{number}"), "type": "text"})).collect()
}

#[tokio::test]
async fn every_property_of_a_custom_field_has_its_type_default_and_range() {
    let node = Node::start().await;
    let one = |members: Value| {
        let mut field = json!({"name": "a", "type": "text"});
        field.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        json!({"customFields": [field]})
    };
    let computed =
        |formula: Value, output: Value| one(json!({"type": "computed", "formula": formula, "outputType": output}));
    let (name, label, kind) = ("/customFields/0/name", "/customFields/0/label", "/customFields/0/type");
    let (needed, options) = ("/customFields/0/required", "/customFields/0/options");
    let (formula, output) = ("/customFields/0/formula", "/customFields/0/outputType");
    let table = [
        required(
            name,
            &[one(json!({"name": "base_rate"})), one(json!({"name": "_2"}))],
            &[
                (one(json!({"name": null})), name),
                (one(json!({"name": "2a"})), name),
                (one(json!({"name": "a b"})), name),
                (one(json!({"name": "customer"})), name),
                (one(json!({"name": "true"})), name),
                (
                    json!({"customFields": [{"name": "a", "type": "text"}, {"name": "a", "type": "date"}]}),
                    "/customFields/1/name",
                ),
            ],
        ),
        line(
            label,
            &[one(json!({"label": "Base APR"}))],
            json!(""),
            &[(one(json!({"label": 7})), label), (one(json!({"label": long(256)})), label)],
        ),
        required(
            kind,
            &["text", "number", "boolean", "date"].map(|kind| one(json!({"type": kind}))),
            &[(one(json!({"type": null})), kind), (one(json!({"type": "money"})), kind)],
        ),
        line(
            needed,
            &[one(json!({"required": true}))],
            json!(false),
            &[
                (one(json!({"required": "yes"})), needed),
                (one(json!({"type": "computed", "formula": "1", "outputType": "number", "required": true})), needed),
            ],
        ),
        line(
            options,
            &[one(json!({"type": "select", "options": ["low", "high"]}))],
            json!([]),
            &[
                (one(json!({"type": "select"})), options),
                (one(json!({"type": "select", "options": "low"})), options),
                (one(json!({"type": "select", "options": ["low", "low"]})), "/customFields/0/options/1"),
                (one(json!({"options": ["low"]})), options),
            ],
        ),
        line(
            formula,
            &[computed(json!("1 + customer.x"), json!("number"))],
            Value::Null,
            &[
                (computed(Value::Null, json!("number")), formula),
                (computed(json!(" "), json!("number")), formula),
                (computed(json!("1 +"), json!("number")), formula),
                (computed(json!("nothing_of_that_name * 2"), json!("number")), formula),
                (computed(json!("concat('a', 'b')"), json!("number")), formula),
                (computed(json!(7), json!("number")), formula),
                (one(json!({"formula": "1"})), formula),
            ],
        ),
        line(
            output,
            &[computed(json!("1"), json!("number")), computed(json!("'a'"), json!("text"))],
            Value::Null,
            &[
                (computed(json!("1"), Value::Null), output),
                (computed(json!("1"), json!("money")), output),
                (one(json!({"outputType": "text"})), output),
            ],
        ),
    ];
    check(&node, "/api/v1/categories", &one(json!({})), &table).await;
}

#[tokio::test]
async fn values_of_custom_fields_are_of_the_type_that_the_category_says() {
    let node = Node::start().await;
    let fields = json!([
        {"name": "notes", "type": "text"}, {"name": "rate", "type": "number"},
        {"name": "tier", "type": "select", "options": ["low", "high"]}, {"name": "flag", "type": "boolean"},
        {"name": "since", "type": "date"}, {"name": "twice", "type": "computed", "formula": "rate * 2", "outputType": "number"},
    ]);
    node.create("categories", &json!({"name": "Loans", "customFields": fields}).to_string()).await;
    let strict = json!([{"name": "base", "type": "number", "required": true}]);
    node.create("categories", &json!({"name": "Strict", "customFields": strict}).to_string()).await;
    let mut number = 0;
    let mut offer = |category: &str, status: &str, values: Value| {
        number += 1;
        json!({"name": format!("o{number}"), "category": category, "status": status, "customFields": values})
            .to_string()
    };
    for (field, good, bad) in [
        ("notes", vec![json!("internal notes"), json!("")], vec![json!(5), json!(["a"])]),
        // The reference says integer, and shows 12.5.
        ("rate", vec![json!(36), json!(12.5), json!(-1)], vec![json!("12.5"), json!(true)]),
        ("tier", vec![json!("low"), json!("high")], vec![json!("medium"), json!(1)]),
        ("flag", vec![json!(true), json!(false)], vec![json!("true"), json!(1)]),
        ("since", vec![json!("2026-03-15"), json!("2026-03-15T08:00:00Z")], vec![json!("soon"), json!(2026)]),
        ("twice", vec![], vec![json!(5), Value::Null]),
        ("other", vec![], vec![json!(5)]),
    ] {
        for value in good {
            let made = node.ok("POST", "/api/v1/offers", &offer("Loans", "active", json!({field: value}))).await;
            assert_eq!(made["customFields"], json!({field: value}));
        }
        for value in bad {
            let reply = node.call("POST", "/api/v1/offers", &offer("Loans", "draft", json!({field: value}))).await;
            let expected = (StatusCode::BAD_REQUEST, vec![format!("/customFields/{field}")]);
            assert_eq!((reply.status, reply.pointers()), expected, "{field}: {value}");
        }
    }
    let reply = node.call("POST", "/api/v1/offers", &offer("Strict", "active", json!({}))).await;
    assert_eq!(reply.pointers(), ["/customFields/base"], "it is required");
    let draft = node.ok("POST", "/api/v1/offers", &offer("Strict", "draft", json!({}))).await;
    let path = format!("/api/v1/offers/{}", draft["id"].as_str().unwrap());
    assert_eq!(node.call("PUT", &path, r#"{"status": "active"}"#).await.pointers(), ["/customFields/base"]);
    node.ok("PUT", &path, r#"{"status": "active", "customFields": {"base": 1}}"#).await;
}
