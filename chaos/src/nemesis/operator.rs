//! What an operator asks of a cluster, through whichever node answers.

use anyhow::{Context, bail};
use reqwest::Method;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::limits::{CONNECT_MAX, DRAIN_MAX, LOOK_PAUSE, TRY_MAX, WHOLE_MAX};
use crate::supervisor::{Cluster, DEV_KEY};

/// See the module.
#[derive(Clone, Debug)]
pub struct Operator {
    http: reqwest::Client,
    urls: Vec<String>,
}

impl Operator {
    /// Of the nodes at these base URLs.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub fn new(urls: Vec<String>) -> anyhow::Result<Operator> {
        let http = reqwest::Client::builder().no_proxy().timeout(TRY_MAX).connect_timeout(CONNECT_MAX).build()?;
        Ok(Operator { http, urls })
    }

    /// One call to one node.
    ///
    /// # Errors
    /// In words, when it is not answered with a success.
    async fn ask(&self, number: usize, method: &Method, path: &str, body: &Value) -> anyhow::Result<Value> {
        let mut asked = self.http.request(method.clone(), format!("{}{path}", self.urls[number]));
        asked = asked.header("X-API-Key", DEV_KEY);
        if !body.is_null() {
            asked = asked.json(body);
        }
        let answer = asked.send().await?;
        let status = answer.status();
        let body: Value = answer.json().await.unwrap_or(Value::Null);
        if !status.is_success() {
            bail!("{status}: {}", body["detail"].as_str().unwrap_or("no problem document"));
        }
        Ok(body)
    }

    /// What any node that runs says of the cluster.
    pub async fn status(&self, cluster: &Cluster) -> Option<Value> {
        self.status_of(&cluster.running()).await
    }

    async fn status_of(&self, numbers: &[usize]) -> Option<Value> {
        for number in numbers.iter().copied() {
            if let Ok(status) = self.ask(number, &Method::GET, "/cluster/status", &Value::Null).await {
                return Some(status);
            }
        }
        None
    }

    /// Asks a node that runs, once.
    ///
    /// # Errors
    /// In words, when it is not done.
    pub async fn once(&self, cluster: &Cluster, path: &str, body: &Value) -> anyhow::Result<Value> {
        let number = *cluster.running().first().context("no node runs")?;
        self.ask(number, &Method::POST, path, body).await
    }

    /// Asks until it is done, through any node that runs: what is refused now may go later.
    ///
    /// # Errors
    /// The last refusal, when it is not done in time.
    pub async fn insist(&self, cluster: &Cluster, path: &str, body: &Value) -> anyhow::Result<Value> {
        let deadline = Instant::now() + DRAIN_MAX;
        let mut turn = 0;
        loop {
            let running = cluster.running();
            let number = *running.get(turn % running.len().max(1)).context("no node runs")?;
            turn += 1;
            match self.ask(number, &Method::POST, path, body).await {
                Ok(answer) => return Ok(answer),
                Err(error) if Instant::now() > deadline => {
                    return Err(error.context(format!("{path} is not done within {DRAIN_MAX:?}")));
                }
                Err(_) => sleep(LOOK_PAUSE).await,
            }
        }
    }

    /// The id (like `n3`) of the node at a place: the newest, if one was there before.
    pub async fn id(&self, cluster: &Cluster, number: usize) -> Option<String> {
        let status = self.status(cluster).await?;
        let here = |node: &&Value| node["httpAddress"].as_str().and_then(|address| cluster.at(address)) == Some(number);
        let ids = status["nodes"].as_array()?.iter().filter(here).filter_map(|node| node["node"].as_str());
        ids.max_by_key(|id| id[1..].parse::<u64>().unwrap_or_default()).map(str::to_owned)
    }

    /// Waits until what a node says of the cluster is as wanted.
    ///
    /// # Errors
    /// With what it says, when it is not in time.
    pub async fn until(&self, cluster: &Cluster, what: &str, is_so: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        self.until_said(&cluster.running(), what, is_so).await
    }

    /// As [`Operator::until`], by what others than one node say: that one may not be told any more.
    ///
    /// # Errors
    /// With what they say, when it is not in time.
    pub async fn until_elsewhere(
        &self,
        cluster: &Cluster,
        but: usize,
        what: &str,
        is_so: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let others: Vec<usize> = cluster.running().into_iter().filter(|number| *number != but).collect();
        self.until_said(&others, what, is_so).await
    }

    async fn until_said(&self, by: &[usize], what: &str, is_so: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let deadline = Instant::now() + DRAIN_MAX;
        loop {
            let status = self.status_of(by).await;
            if let Some(status) = status.as_ref().filter(|status| is_so(status)) {
                return Ok(status.clone());
            }
            if Instant::now() > deadline {
                bail!("not {what} within {DRAIN_MAX:?}: {}", status.unwrap_or_default());
            }
            sleep(LOOK_PAUSE).await;
        }
    }

    /// Waits until every member runs and says that all are up, all is led, and nothing is on its way to another shape.
    ///
    /// # Errors
    /// With what is not so, when it is not in time.
    pub async fn whole(&self, cluster: &Cluster) -> anyhow::Result<Value> {
        let deadline = Instant::now() + WHOLE_MAX;
        let members = cluster.members();
        loop {
            let mut last = Err(anyhow::anyhow!("there is no node"));
            for number in &members {
                last = self.is_whole(*number, members.len()).await.with_context(|| format!("node {number}"));
                if last.is_err() {
                    break;
                }
            }
            match last {
                Ok(status) => return Ok(status),
                Err(error) if Instant::now() > deadline => {
                    return Err(error.context(format!("the cluster is not whole within {WHOLE_MAX:?}")));
                }
                Err(_) => sleep(LOOK_PAUSE).await,
            }
        }
    }

    async fn is_whole(&self, number: usize, members: usize) -> anyhow::Result<Value> {
        let status = self.ask(number, &Method::GET, "/cluster/status", &Value::Null).await?;
        let nodes = status["nodes"].as_array().map_or(&[][..], Vec::as_slice);
        let up = nodes.iter().filter(|node| node["isUp"] == true && node["standing"] == "up").count();
        let is_redundant = members < 3 || status["redundancy"] != "none";
        if status["isReady"] != true || nodes.len() != members || up != members || !is_redundant {
            bail!("{status}");
        }
        let shards = self.ask(number, &Method::GET, "/cluster/shards", &Value::Null).await?;
        let groups = shards["shards"].as_array().map_or(&[][..], Vec::as_slice);
        if let Some(moving) = groups.iter().find(|group| !group["target"].is_null() || group["leader"].is_null()) {
            bail!("{moving}");
        }
        Ok(status)
    }
}
