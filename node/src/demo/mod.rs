//! Sample catalogues and what is shown with them. Each loads through the public HTTP interface, as any operator would.

use anyhow::Context;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::client::{Client, Problem};
use crate::limits::{LOAD_PATIENCE, LOAD_PAUSE};

pub mod coffee;
pub mod generated;
pub mod open_bandit;

/// Creates an entity and returns its id. Of one that may have been created already it is looked for first: a cluster that is
/// finding its leaders answers so.
async fn create(client: &Client, collection: &str, body: Value) -> anyhow::Result<String> {
    let mut is_in_doubt = false;
    let create = async || {
        if is_in_doubt && let Some(id) = find(client, collection, &body).await? {
            return Ok(id);
        }
        let created = client.post(&format!("/{collection}"), &body).await;
        is_in_doubt |= created.as_ref().is_err_and(|error| problem(error).is_some_and(Problem::is_in_doubt));
        created?["id"].as_str().map(str::to_owned).with_context(|| format!("{collection}: answer without id"))
    };
    patiently(create).await.with_context(|| format!("creating {collection} {body}"))
}

/// The id of the entity that has the body's name.
async fn find(client: &Client, collection: &str, body: &Value) -> anyhow::Result<Option<String>> {
    let page = client.get(&format!("/{collection}?limit=1000")).await?;
    let found = page["items"].as_array().into_iter().flatten().find(|entity| entity["name"] == body["name"]);
    Ok(found.and_then(|entity| entity["id"].as_str()).map(str::to_owned))
}

/// Asks until the node does not ask for patience any more, within bounds.
async fn patiently<T>(mut ask: impl AsyncFnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let deadline = Instant::now() + LOAD_PATIENCE;
    loop {
        match ask().await {
            Err(error) if Instant::now() < deadline && problem(&error).is_some_and(Problem::is_retryable) => {
                sleep(LOAD_PAUSE).await;
            }
            answer => return answer,
        }
    }
}

fn problem(error: &anyhow::Error) -> Option<&Problem> {
    error.downcast_ref()
}

/// Writes many profiles, as NDJSON calls of bounded size.
async fn load_profiles(client: &Client, profiles: &[Value]) -> anyhow::Result<()> {
    for chunk in profiles.chunks(2_000) {
        let mut body = Vec::new();
        for profile in chunk {
            serde_json::to_writer(&mut body, profile)?;
            body.push(b'\n');
        }
        let import =
            || client.send(reqwest::Method::POST, "/import/profiles", "application/x-ndjson", body.clone(), &[]);
        patiently(async || import().await).await?;
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
