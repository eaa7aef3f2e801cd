//! A cluster of `proffer serve` processes on loopback, each of which can be killed, stopped and started again.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use proffer_node::client::{Client, Target};
use proffer_node::processes::{addresses, wait_whole};
use reqwest::Method;
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{BINARY, Node};

/// Longest time for a cluster to become whole on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// See the module. Nodes are numbered from 0.
pub struct Nodes {
    directory: TempDir,
    addresses: Vec<[SocketAddr; 2]>,
    running: Vec<Option<Node>>,
    shards: u16,
}

impl Nodes {
    /// So many nodes with so many shards, whole; there are addresses for `most`.
    pub async fn start(count: usize, most: usize, shards: u16) -> Nodes {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let addresses = addresses(0, most as u16).await.expect("free addresses");
        let mut nodes = Nodes { directory, addresses, running: Vec::new(), shards };
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
        let starting = self.begin(number);
        self.running[number] = Some(Node::spawn(starting));
    }

    /// Starts all nodes that were killed, side by side: one of them alone may have to wait for the others.
    pub fn start_all(&mut self) {
        let missing: Vec<usize> = (0..self.running.len()).filter(|number| self.running[*number].is_none()).collect();
        let commands: Vec<_> = missing.iter().map(|number| self.begin(*number)).collect();
        let started: Vec<_> = std::thread::scope(|scope| {
            let spawned: Vec<_> =
                commands.into_iter().map(|command| scope.spawn(move || Node::spawn(command))).collect();
            spawned.into_iter().map(|node| node.join().expect("it starts")).collect()
        });
        for (number, node) in missing.into_iter().zip(started) {
            self.running[number] = Some(node);
        }
    }

    fn begin(&self, number: usize) -> Command {
        let [listen, peer] = self.addresses[number];
        let mut command = Command::new(BINARY);
        command.args(["serve", "--dev", "--listen", &listen.to_string(), "--peer", &peer.to_string(), "--data"]);
        command.arg(self.directory.path().join(format!("n{number}")));
        if number == 0 {
            command.args(["--shards", &self.shards.to_string()]);
        } else {
            command.args(["--join", &self.addresses[0][1].to_string()]);
        }
        command
    }

    /// SIGKILL.
    pub fn kill(&mut self, number: usize) {
        self.running[number].take().expect("it runs").kill();
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

    /// Waits until all that run are whole; answers with the cluster's status.
    pub async fn whole(&self) -> Value {
        let running = self.running();
        let client = self.client(*running.first().expect("a node runs"));
        wait_whole(&client, running.len(), PATIENCE).await.expect("the cluster becomes whole")
    }

    /// What `/cluster/…` says through a node.
    pub async fn cluster(&self, number: usize, path: &str) -> Value {
        self.client(number).call(Method::GET, path, &Value::Null).await.expect("it is answered")
    }
}
