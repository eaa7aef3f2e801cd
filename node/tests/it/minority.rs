//! A node that has lost the others: it says so, decides nothing, and goes on when they are back.

use std::time::Duration;

use proffer_node::client::{Client, Problem};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::nodes::{Nodes, PATIENCE};

async fn refused(client: &Client, method: Method, path: &str, body: &Value) -> (u16, Value) {
    let error = client.call(method, path, body).await.expect_err("it is refused");
    let Problem { status, problem } = error.downcast().expect("it is answered");
    (status.as_u16(), problem)
}

/// Waits until `/readyz?verbose` gives a reason that contains `words`.
async fn says(client: &Client, words: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let said = client.call(Method::GET, "/readyz?verbose", &Value::Null).await;
        let said = said.unwrap_or_else(|error| match error.downcast::<Problem>() {
            Ok(Problem { problem, .. }) => problem,
            Err(unreached) => json!(format!("{unreached:#}")),
        });
        let said = said.to_string();
        if said.contains(words) {
            return;
        }
        assert!(Instant::now() < deadline, "{words:?} is not among what it says: {said}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_alone_of_three_says_what_it_misses_and_decides_nothing_until_it_is_back() {
    let mut nodes = Nodes::start(3, 4).await;
    let client = nodes.client(2);
    let offers = json!({"offers": [{"name": "kept", "status": "active"}]});
    client.call(Method::POST, "/api/v1/import?wait=all", &offers).await.expect("it is written");
    let ask = json!({"customerId": "ann"});
    nodes.kill(0);
    nodes.kill(1);
    says(&client, "nobody leads the catalogue").await;
    for _ in 0..3 {
        let (status, problem) = refused(&client, Method::POST, "/api/v1/recommend", &ask).await;
        assert_eq!((status, &problem["retryable"]), (503, &json!(true)), "{problem}");
    }
    nodes.kill(2);
    let starting = tokio::spawn(async move {
        tokio::task::block_in_place(|| nodes.start_again(2));
        nodes
    });
    says(&client, "nobody leads shard 3").await;
    let (status, _) = refused(&client, Method::POST, "/api/v1/recommend", &ask).await;
    assert_eq!(status, 503);
    let mut nodes = starting.await.expect("it listens at last, though it is alone");
    let (status, problem) = refused(&client, Method::POST, "/api/v1/recommend", &ask).await;
    assert_eq!((status, &problem["retryable"]), (503, &json!(true)), "{problem}");
    nodes.start_all();
    nodes.whole().await;
    let decided = client.post("/recommend", &ask).await.expect("it is decided again");
    assert_eq!(decided["decisions"][0]["offerName"], "kept", "{decided}");
}
