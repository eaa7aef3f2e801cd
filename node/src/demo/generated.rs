//! A generated catalogue of any size for measuring: offers in categories, each with a creative, rules that tell customers apart,
//! profile caps on every tenth. The same number gives the same catalogue.

use reqwest::Method;
use serde_json::{Value, json};

use super::{create, load_profiles};
use crate::client::Client;

/// Customers: `member-0` and so on, as the default body of `proffer bench` asks.
const MEMBERS: usize = 1_000;
const CATEGORIES: usize = 20;
/// Entities written in one call.
const CHUNK: usize = 2_000;

/// Spreads consecutive numbers over `0..most`.
fn spread(number: usize, most: usize) -> usize {
    number.wrapping_mul(0x9E37_79B9) / 64 % most
}

fn offer(number: usize) -> Value {
    let caps = match number % 10 {
        0 => json!([{"scope": "profile", "limit": 100, "per": "day"}]),
        _ => json!([]),
    };
    json!({
        "name": format!("offer {number}"),
        "status": "active",
        "categoryId": format!("category {}", number % CATEGORIES),
        "priority": spread(number, 101),
        "businessValue": spread(number + 7, 101),
        "tags": [format!("tag {}", number % 50)],
        "shortDesc": "generated",
        "caps": caps,
    })
}

fn creative(number: usize) -> Value {
    json!({
        "name": format!("offer {number} on web"), "status": "active", "offerId": format!("offer {number}"),
        "channelId": "web", "contentType": "text", "content": {"title": format!("offer {number}")},
    })
}

fn rule(number: usize) -> Value {
    let config = match number % 2 {
        0 => json!({"attribute": "age", "operator": "gte", "value": 18 + number}),
        _ => json!({"attribute": "tier", "operator": "in", "value": ["gold", "silver"]}),
    };
    json!({
        "name": format!("rule {number}"), "ruleType": "attribute_condition", "scope": "category",
        "scopeId": format!("category {number}"), "config": config,
    })
}

fn member(number: usize) -> Value {
    let tier = ["gold", "silver", "none"][number % 3];
    json!({
        "customerId": format!("member-{number}"),
        "attributes": {"age": 18 + spread(number, 60), "tier": tier},
        "segments": [format!("segment {}", number % 10)],
    })
}

/// Loads a catalogue of `offers` offers, with customers to ask for.
///
/// # Errors
/// When the node refuses anything.
pub async fn load(client: &Client, offers: usize) -> anyhow::Result<()> {
    create(client, "channels", json!({"name": "web"})).await?;
    let categories: Vec<Value> = (0..CATEGORIES).map(|number| json!({"name": format!("category {number}")})).collect();
    import(client, "categories", &categories).await?;
    import(client, "offers", &(0..offers).map(offer).collect::<Vec<_>>()).await?;
    import(client, "creatives", &(0..offers).map(creative).collect::<Vec<_>>()).await?;
    import(client, "qualification-rules", &(0..CATEGORIES).map(rule).collect::<Vec<_>>()).await?;
    load_profiles(client, &(0..MEMBERS).map(member).collect::<Vec<_>>()).await
}

async fn import(client: &Client, kind: &str, lines: &[Value]) -> anyhow::Result<()> {
    for chunk in lines.chunks(CHUNK) {
        let body = chunk.iter().map(|line| format!("{line}\n")).collect::<String>().into_bytes();
        client.send(Method::POST, &format!("/import/{kind}"), "application/x-ndjson", body, &[]).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_are_spread_over_their_range() {
        let mut seen: Vec<usize> = (0..5_000).map(|number| spread(number, 101)).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 101);
    }
}
