//! Sample catalogues and what is shown with them. Each loads through the public HTTP interface, as any operator would.

use anyhow::Context;
use serde_json::{Value, json};

use crate::client::Client;

pub mod coffee;
pub mod generated;
pub mod open_bandit;

/// Creates an entity and returns its id.
async fn create(client: &Client, collection: &str, body: Value) -> anyhow::Result<String> {
    let created =
        client.post(&format!("/{collection}"), &body).await.with_context(|| format!("creating {collection} {body}"))?;
    created["id"].as_str().map(str::to_owned).with_context(|| format!("{collection}: answer without id"))
}

/// Writes many profiles, as NDJSON calls of bounded size.
async fn load_profiles(client: &Client, profiles: &[Value]) -> anyhow::Result<()> {
    for chunk in profiles.chunks(2_000) {
        let mut body = Vec::new();
        for profile in chunk {
            serde_json::to_writer(&mut body, profile)?;
            body.push(b'\n');
        }
        client.send(reqwest::Method::POST, "/import/profiles", "application/x-ndjson", body, &[]).await?;
    }
    Ok(())
}

/// Records an outcome for one proposition of an answer.
async fn respond(client: &Client, answer: &Value, rank: &Value, outcome: &str, key: &str) -> anyhow::Result<Value> {
    client
        .post(
            "/respond",
            &json!({
                "customerId": answer["customerId"],
                "recommendationId": answer["recommendationId"],
                "rank": rank,
                "outcome": outcome,
                "idempotencyKey": key,
            }),
        )
        .await
}
