//! Offers with their limits and schedules, creatives, collections, activities.

use proffer_engine::catalog::{EntityKind, Op};
use proffer_engine::time::{DAY_MS, HOUR_MS, Timestamp};
use proffer_engine::value::Value;

use super::super::dice::Dice;
use super::models::MODELS;
use super::{
    CATEGORIES, CHANNELS, CONTENT_TYPES, Known, PLACEMENTS, SEGMENTS, START, SUB_CATEGORIES, number, one_of, status,
    text, texts,
};

pub(super) const TAGS: [&str; 3] = ["red", "blue", "green"];

fn iso(at: Timestamp) -> Value {
    text(&proffer_engine::calendar::iso(at))
}

fn moment(dice: &mut Dice) -> Value {
    if dice.chance(30) {
        return text(dice.pick(&["2026-06-05T23:59:59", "2026-06-06", "2026-06-05T22:00:00"]));
    }
    let days = dice.pick(&[-40, -1, 0, 1, 3, 9]);
    let hours = dice.pick(&[0, 1, -1]);
    iso(START.plus_ms(days * DAY_MS + hours * HOUR_MS))
}

fn schedule(dice: &mut Dice) -> Value {
    let mut members = Vec::new();
    if dice.chance(40) {
        members.push(("startDate", moment(dice)));
    }
    if dice.chance(40) {
        members.push(("endDate", moment(dice)));
    }
    if dice.chance(40) {
        let days = dice.some_of(60, &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        members.push(("daysOfWeek", Value::list(days.into_iter().map(Value::Number))));
    }
    if dice.chance(40) {
        members.push(("timeWindow", time_window(dice)));
    }
    Value::map(members)
}

fn time_window(dice: &mut Dice) -> Value {
    let (start, end) = dice.pick(&[("08:00", "20:00"), ("22:00", "02:00"), ("21:30", "21:31"), ("00:00", "12:00")]);
    Value::map([("start", text(start)), ("end", text(end))])
}

fn count_on(dice: &mut Dice) -> Value {
    text(dice.pick(&["impression", "impression", "decision", "click", "installed"]))
}

fn cap(dice: &mut Dice) -> Value {
    let mut members = vec![
        ("scope", text(dice.pick(&["profile", "profile", "global"]))),
        ("limit", number(dice, &[0.0, 1.0, 1.0, 2.0, 3.0])),
        ("countOn", count_on(dice)),
    ];
    match dice.below(5) {
        0 => members.push(("per", Value::map([("hours", number(dice, &[1.0, 48.0]))]))),
        1 => {}
        _ => {
            members.push(("per", text(dice.pick(&["day", "week", "month"]))));
            if dice.chance(40) {
                members.push(("window", text(dice.pick(&["rolling", "calendar"]))));
            }
        }
    }
    if dice.chance(25) {
        members.push(("placementId", text(dice.pick(&PLACEMENTS))));
    }
    if dice.chance(25) {
        members.push(("enforcement", text(dice.pick(&["strict", "soft"]))));
    }
    if dice.chance(20) {
        members.push(("reservationSeconds", Value::Number(30.0)));
    }
    Value::map(members)
}

fn limits(dice: &mut Dice) -> Vec<(&'static str, Value)> {
    let mut members = Vec::new();
    if dice.chance(35) {
        let caps: Vec<Value> = (0..1 + dice.below(2)).map(|_| cap(dice)).collect();
        members.push(("caps", Value::list(caps)));
    }
    if dice.chance(15) {
        let budget = [
            ("maxImpressions", number(dice, &[0.0, 1.0, 5.0])),
            ("maxDailyBudget", number(dice, &[0.0, 2.5, 10.0])),
            ("costPerAction", number(dice, &[1.0, 2.5])),
            ("countOn", count_on(dice)),
        ];
        members.push(("budget", Value::map(budget)));
    }
    if dice.chance(15) {
        let daily = dice.pick(&["daily", "weekly", "monthly"]);
        let per_customer = Value::map([(daily, number(dice, &[1.0, 2.0]))]);
        members.push(("frequencyCaps", Value::map([("perCustomer", per_customer)])));
    }
    members
}

fn eligibility(dice: &mut Dice) -> Value {
    let mut members = Vec::new();
    if dice.chance(30) {
        members.push(("propensityThreshold", number(dice, &[0.1, 0.3, 0.5, 0.6])));
    }
    if dice.chance(25) {
        members.push(("modelReference", text(dice.pick(&MODELS))));
    }
    if dice.chance(40) {
        members.push(("recency", number(dice, &[0.5, 1.0, 7.0])));
    }
    if dice.chance(40) {
        members.push(("requiredSegments", texts(&dice.some_of(40, &SEGMENTS))));
    }
    Value::map(members)
}

fn offer_members(dice: &mut Dice) -> Vec<(&'static str, Value)> {
    let mut members = vec![
        ("priority", number(dice, &[0.0, 50.0, 50.0, 80.0, 100.0])),
        ("businessValue", number(dice, &[0.0, 50.0, 50.0, 100.0])),
        ("tags", texts(&dice.some_of(50, &TAGS))),
        ("productType", text(dice.pick(&["", "card", "loan"]))),
    ];
    if dice.chance(40) {
        members.push(("margin", number(dice, &[-1.0, 3.0, 10.0])));
        members.push(("revenueValue", number(dice, &[-2.0, 5.0, 7.0])));
    }
    if dice.chance(35) {
        members.push(("schedule", schedule(dice)));
    }
    if dice.chance(20) {
        members.push(("eligibility", eligibility(dice)));
    }
    if dice.chance(25) {
        members.push(("preferredSegments", texts(&dice.some_of(60, &["vip", "vip", "young", "other"]))));
    }
    if dice.chance(20) {
        let fatigue = [("strength", number(dice, &[0.0, 0.5])), ("halfLifeHours", number(dice, &[2.0, 100.0]))];
        members.push(("fatigue", Value::map(fatigue)));
    }
    members.extend(limits(dice));
    members
}

pub(super) fn create_offer(ids: u64, dice: &mut Dice) -> Op {
    let id = format!("offer_{}", dice.roll() % ids);
    let name = format!("Offer {id}");
    let mut members = vec![("name", text(&name)), ("status", status(dice, 88))];
    members.extend(offer_members(dice));
    if dice.chance(75) {
        let category = dice.below(CATEGORIES.len());
        members.push(("categoryId", text(CATEGORIES[category])));
        if category < 2 && dice.chance(50) {
            members.push(("subCategoryId", text(SUB_CATEGORIES[category])));
        }
        let mut values = vec![("rate", number(dice, &[0.0, 12.5, 80.0]))];
        if dice.chance(50) {
            values.push(("colour", text(dice.pick(&["red", "blue"]))));
        }
        members.push(("customFields", Value::map(values)));
    }
    if dice.chance(12) {
        members.extend([
            ("mandatory", Value::Bool(true)),
            ("mandatoryReason", text("law")),
            ("mandatoryApprovedBy", text("board")),
            ("mandatoryExpiresAt", moment(dice)),
        ]);
    }
    if dice.chance(6) {
        members.push(("emergencyExcluded", Value::Bool(true)));
    }
    Op::Create { kind: EntityKind::Offer, id, body: Value::map(members) }
}

pub(super) fn edit_offer(known: &Known, dice: &mut Dice) -> Op {
    let patch = match dice.below(8) {
        0 => Value::map([("status", text(dice.pick(&["active", "paused"])))]),
        1 => Value::map([("emergencyExcluded", Value::Bool(dice.chance(50)))]),
        2 => Value::map(limits(dice)),
        3 => Value::map([("customFields", Value::map([("rate", number(dice, &[1.0, 2.0]))]))]),
        4 => {
            let category = dice.pick(&[Value::Null, text(CATEGORIES[0]), text(CATEGORIES[2])]);
            Value::map([("categoryId", category), ("subCategoryId", Value::Null), ("customFields", Value::Null)])
        }
        5 => Value::map([("description", text(dice.pick(&["", "dull", "bright"])))]),
        6 => Value::map([("metadata", Value::map([("note", text(dice.pick(&["a", "b"])))]))]),
        _ => Value::map(offer_members(dice)),
    };
    Op::Update { kind: EntityKind::Offer, id: one_of(dice, &known.offers), patch, expected: None }
}

pub(super) fn create_creative(known: &Known, dice: &mut Dice) -> Op {
    let channel = dice.below(CHANNELS.len());
    let id = format!("crt_{}", dice.below(24));
    let mut members = vec![
        ("name", text(&id)),
        ("offerId", text(&one_of(dice, &known.offers))),
        ("channelId", text(CHANNELS[channel])),
        ("status", status(dice, 90)),
        ("weight", number(dice, &[0.0, 50.0, 100.0, 100.0])),
        ("split", number(dice, &[0.0, 1.0, 1.0, 3.0])),
    ];
    if dice.chance(50) {
        let placement = if channel < 2 && dice.chance(50) { channel + 3 } else { channel };
        members.push(("placementId", text(PLACEMENTS[placement])));
    }
    members.push(("contentType", text(if dice.chance(60) { CONTENT_TYPES[0] } else { dice.pick(&CONTENT_TYPES) })));
    Op::Create { kind: EntityKind::Creative, id, body: Value::map(members) }
}

pub(super) fn create_slot_part(known: &Known, dice: &mut Dice) -> Op {
    let number = dice.below(4);
    if dice.chance(50) {
        let id = format!("col_{number}");
        let mut members = vec![("name", text(&id)), ("status", status(dice, 93))];
        match dice.below(4) {
            0 => members.push(("allOf", texts(&dice.some_of(50, &TAGS)))),
            1 => members.push(("anyOf", texts(&dice.some_of(60, &TAGS)))),
            2 => {
                let ids: Vec<String> = (0..1 + dice.below(5)).map(|_| one_of(dice, &known.offers)).collect();
                members.push(("offerIds", texts(&ids)));
            }
            _ => {}
        }
        return Op::Create { kind: EntityKind::Collection, id, body: Value::map(members) };
    }
    let id = format!("act_{number}");
    let mut members = vec![
        ("name", text(&id)),
        ("collectionId", text(&one_of(dice, &known.collections))),
        ("placementId", text(dice.pick(&PLACEMENTS))),
        ("fallbackOfferId", text(dice.pick(&["fall_0", "fall_1"]))),
        ("status", status(dice, 90)),
    ];
    if dice.chance(25) && !known.flows.is_empty() {
        members.push(("decisionFlowKey", text(&one_of(dice, &known.flows))));
    }
    Op::Create { kind: EntityKind::Activity, id, body: Value::map(members) }
}
