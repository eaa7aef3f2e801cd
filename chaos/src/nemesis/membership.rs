//! Nodes that come and go, and leaderships that are handed over.

use anyhow::Context;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::Nemesis;
use crate::supervisor::Started;

/// How many leaderships are handed over in one go.
const TRANSFERS: usize = 6;

impl Nemesis {
    /// A node more, then one less, as a rule; else leaderships are handed over.
    pub(super) async fn change_members(&mut self) -> anyhow::Result<String> {
        match self.draw.u8(..3) {
            0 => self.hand_over().await,
            _ => self.exchange().await,
        }
    }

    async fn hand_over(&mut self) -> anyhow::Result<String> {
        let status = self.operator.status(&self.cluster).await.context("nobody says who is there")?;
        let shards = status["shards"].as_u64().unwrap_or(1);
        let names = |status: &Value| -> Vec<String> {
            let nodes = status["nodes"].as_array().into_iter().flatten();
            nodes.filter_map(|node| node["node"].as_str().map(str::to_owned)).collect()
        };
        let nodes = names(&status);
        for _ in 0..TRANSFERS {
            let group = self.draw.u64(..=shards);
            let group = if group == shards { "meta".to_owned() } else { group.to_string() };
            let Some(to) = self.draw.choice(nodes.iter()) else { break };
            self.say(format!("hand the leadership of {group} over to {to}"));
            self.hit_a_leader = true;
            // It may be refused: not every node has a voter of it.
            let path = format!("/cluster/shards/{group}/transfer");
            let _ = self.operator.once(&self.cluster, &path, &json!({"node": to})).await;
            sleep(self.millis(50, 600)).await;
        }
        self.operator.insist(&self.cluster, "/cluster/rebalance", &Value::Null).await?;
        Ok(format!("{TRANSFERS} leaderships handed over, then spread evenly again"))
    }

    /// A new node joins, and one that was there before is emptied and removed.
    async fn exchange(&mut self) -> anyhow::Result<String> {
        let Some(new) = self.cluster.vacant() else { return self.hand_over().await };
        let old = self.victim().await;
        self.say(format!("node {new} joins"));
        self.cluster.start(new)?;
        if let Started::Refused(words) = self.cluster.started(new).await? {
            self.cluster.blame(new, &format!("it could not join; it said last:\n{words}"));
            anyhow::bail!("node {new} could not join: {words}");
        }
        self.tell_clients(None);
        let id = self.operator.id(&self.cluster, old).await.context("nobody says which node this is")?;
        sleep(self.millis(1, 3_000)).await;
        self.say(format!("drain node {old} ({id})"));
        self.operator.insist(&self.cluster, &format!("/cluster/nodes/{id}/drain"), &Value::Null).await?;
        let of = |status: &Value| -> Option<Value> {
            status["nodes"].as_array()?.iter().find(|node| node["node"] == *id).cloned()
        };
        // What is left is its replica of the catalogue: every node has one.
        let is_empty =
            |status: &Value| of(status).is_some_and(|node| node["leads"] == 0 && node["replicas"].as_u64() <= Some(1));
        self.operator.until(&self.cluster, &format!("{id} empty"), is_empty).await?;
        self.tell_clients(Some(old));
        self.say(format!("remove {id}"));
        let path = format!("/cluster/nodes/{id}/remove");
        self.operator.insist(&self.cluster, &path, &json!({"reduceRedundancy": false})).await?;
        self.operator
            .until_elsewhere(&self.cluster, old, &format!("without {id}"), |status| of(status).is_none())
            .await?;
        self.say(format!("node {old} is taken away"));
        self.cluster.vacate(old).await?;
        self.whole().await.context("after a node was exchanged")?;
        Ok(format!("node {new} joined, node {old} ({id}) was drained and removed"))
    }
}
