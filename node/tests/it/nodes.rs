//! A cluster of `proffer serve` processes on loopback, each of which can be killed, stopped and started again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use proffer_node::client::{Client, Problem, Target};
use proffer_node::processes::{addresses, wait_whole};
use reqwest::Method;
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep};

use crate::process::{BINARY, Node, Starting};

/// Longest time for a cluster to become whole, or to answer, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Most nodes of such a cluster.
const NODES_MAX: u16 = 5;

/// Elections want a core: one cluster at a time.
pub static ALONE: Mutex<()> = Mutex::const_new(());

/// See the module. Nodes are numbered from 0; the first has founded the cluster.
pub struct Nodes {
    // The processes end before their data goes and another cluster begins.
    running: Vec<Option<Node>>,
    addresses: Vec<[SocketAddr; 2]>,
    shards: u16,
    /// What all of them are told besides.
    options: &'static [&'static str],
    directory: TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Nodes {
    /// So many nodes with so many shards, whole.
    pub async fn start(count: usize, shards: u16) -> Nodes {
        Nodes::with(count, shards, &[]).await
    }

    /// As [`Nodes::start`], each with these options.
    pub async fn with(count: usize, shards: u16, options: &'static [&'static str]) -> Nodes {
        let _alone = ALONE.lock().await;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let addresses = addresses(0, NODES_MAX).await.expect("there are free ports");
        let mut nodes = Nodes { running: Vec::new(), addresses, shards, options, directory, _alone };
        for _ in 0..count {
            nodes.add();
        }
        nodes.whole().await;
        nodes
    }

    /// One more node; returns once it serves. Its number.
    pub fn add(&mut self) -> usize {
        let number = self.running.len();
        self.running.push(None);
        self.start_again(number);
        number
    }

    /// Starts a node that was killed, on what its disk holds.
    pub fn start_again(&mut self, number: usize) {
        self.running[number] = Some(self.begin(number).listening());
    }

    /// Starts all nodes that were killed, side by side: one of them alone may have to wait for the others.
    pub fn start_all(&mut self) {
        let gone: Vec<_> = (0..self.running.len()).filter(|number| self.running[*number].is_none()).collect();
        let starting: Vec<_> = gone.iter().map(|number| self.begin(*number)).collect();
        for (number, starting) in gone.into_iter().zip(starting) {
            self.running[number] = Some(starting.listening());
        }
    }

    /// Where a node keeps its data.
    pub fn data(&self, number: usize) -> PathBuf {
        self.directory.path().join(format!("n{number}"))
    }

    /// What `/readyz?verbose` of a node remarks.
    pub async fn remarks(&self, number: usize) -> Vec<String> {
        let url = format!("http://{}/readyz?verbose", self.addresses[number][0]);
        let said: Value = reqwest::get(url).await.expect("it runs").json().await.expect("it answers in JSON");
        let remarks = said["details"]["remarks"].as_array().cloned().unwrap_or_default();
        remarks.iter().map(|remark| remark.as_str().unwrap_or_default().to_owned()).collect()
    }

    fn begin(&self, number: usize) -> Starting {
        let [listen, peer] = self.addresses[number];
        let mut command = Command::new(BINARY);
        command.args(["serve", "--dev", "--listen", &listen.to_string(), "--peer", &peer.to_string(), "--data"]);
        command.arg(self.data(number)).args(self.options);
        if number == 0 {
            command.args(["--shards", &self.shards.to_string()]);
        } else {
            command.args(["--join", &self.addresses[0][1].to_string()]);
        }
        Starting::spawn(command)
    }

    /// SIGKILL.
    pub fn kill(&mut self, number: usize) {
        self.running[number].take().expect("it runs").kill();
    }

    /// The disk of a node that was killed is gone.
    pub fn wipe(&self, number: usize) {
        std::fs::remove_dir_all(self.data(number)).expect("it is there");
    }

    /// SIGTERM, and whether it ended well.
    pub fn terminate(&mut self, number: usize) -> bool {
        self.running[number].take().expect("it runs").terminate()
    }

    /// SIGSTOP.
    pub fn pause(&self, number: usize) {
        kill_process(self.node(number).pid(), Signal::STOP).expect("it runs");
    }

    /// SIGCONT.
    pub fn resume(&self, number: usize) {
        kill_process(self.node(number).pid(), Signal::CONT).expect("it is stopped");
    }

    fn node(&self, number: usize) -> &Node {
        self.running[number].as_ref().expect("it runs")
    }

    /// A client of a node, whether it runs or not.
    pub fn client(&self, number: usize) -> Client {
        let url = format!("http://{}", self.addresses[number][0]);
        let target = Target { url, key: "proffer-dev-key".to_owned(), tenant: "default".to_owned() };
        Client::new(target).expect("a client can be built")
    }

    /// The numbers of the nodes that run.
    pub fn running(&self) -> Vec<usize> {
        (0..self.running.len()).filter(|number| self.running[*number].is_some()).collect()
    }

    /// A node that runs, and is another.
    pub fn other(&self, than: usize) -> usize {
        self.running().into_iter().find(|number| *number != than).expect("another runs")
    }

    /// Waits until all that run say that they are whole; answers with the cluster's status.
    pub async fn whole(&self) -> Value {
        let running = self.running();
        let mut status = Value::Null;
        for number in &running {
            let whole = wait_whole(&self.client(*number), running.len(), PATIENCE).await;
            status = whole.expect("the cluster becomes whole");
        }
        status
    }

    /// What `/cluster/…` says through a node.
    pub async fn cluster(&self, number: usize, path: &str) -> Value {
        let client = self.client(number);
        insist(async || client.call(Method::GET, path, &Value::Null).await).await
    }

    /// Which node listens at an address.
    pub fn at(&self, http_address: &Value) -> Option<usize> {
        self.addresses.iter().position(|[listen, _]| *http_address == listen.to_string())
    }

    /// The node that has an id (like `n3`) in the cluster's status.
    pub fn named(&self, status: &Value, id: &Value) -> Option<usize> {
        let node = status["nodes"].as_array()?.iter().find(|node| node["node"] == *id)?;
        self.at(&node["httpAddress"])
    }

    /// Which node leads the customer's shard, as the first one sees it.
    pub async fn leader(&self, customer: &str) -> usize {
        let path = format!("/cluster/locate?customerId={customer}");
        self.found(&path, |there| self.at(&there["httpAddress"])).await
    }

    /// Which node leads the catalogue, as one that runs sees it.
    pub async fn meta_leader(&self) -> usize {
        self.found("/cluster/status", |status| self.named(status, &status["metaLeader"])).await
    }

    async fn found(&self, path: &str, find: impl Fn(&Value) -> Option<usize>) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = self.cluster(self.running()[0], path).await;
            if let Some(number) = find(&said) {
                return number;
            }
            assert!(Instant::now() < deadline, "nobody leads: {said}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Asks until the cluster has found who answers.
pub async fn insist<T>(mut ask: impl AsyncFnMut() -> anyhow::Result<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => {
                let is_retryable = error.downcast_ref::<Problem>().is_some_and(Problem::is_retryable);
                assert!(is_retryable && Instant::now() < deadline, "{error:#}");
                sleep(Duration::from_millis(10)).await;
            }
        }
    }
}
