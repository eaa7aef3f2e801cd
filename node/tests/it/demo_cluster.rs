//! `proffer demo-cluster` as whoever tries it out sees it.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use proffer_node::client::{Client, Target};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::time::Instant;

use crate::nodes::ALONE;
use crate::process::{BINARY, children};

/// Ends the demo, and with it its nodes, when dropped.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}

fn is_served(url: &str) -> bool {
    TcpStream::connect(url.strip_prefix("http://").expect("an http address")).is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_cluster_survives_a_node_says_which_and_takes_the_others_with_it() {
    let _alone = ALONE.lock().await;
    let mut command = Command::new(BINARY);
    command.args(["demo-cluster", "--nodes", "3", "--port", "0"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut demo = Demo(command.spawn().expect("the binary runs"));
    let mut urls = Vec::new();
    let mut directory = None;
    for line in BufReader::new(demo.0.stdout.take().expect("stdout is piped")).lines() {
        let line = line.expect("stdout is text");
        let words: Vec<_> = line.split_whitespace().collect();
        if let ["curl", "-s", url, ..] = words[..] {
            urls.push(url.strip_suffix("/api/v1/recommend").expect("it asks for a decision").to_owned());
        }
        if let Some((_, rest)) = line.split_once("Data and logs: ") {
            directory = rest.split_once(". ").map(|(path, _)| path.to_owned());
            break;
        }
    }
    assert_eq!(urls.len(), 3, "one for each node");
    let directory = std::path::PathBuf::from(directory.expect("it says where its data lies"));
    assert!(directory.is_dir());
    let nodes = children(&demo.0);
    assert_eq!(nodes.len(), 3);
    kill_process(nodes[2], Signal::KILL).expect("it runs");
    let mut said = String::new();
    // Kept to the end: a demo that cannot say what it has to say ends.
    let mut stderr = BufReader::new(demo.0.stderr.take().expect("stderr is piped"));
    stderr.read_line(&mut said).expect("stderr is text");
    let gone = urls.iter().find(|url| said.contains(*url)).unwrap_or_else(|| panic!("{said:?} of {urls:?}"));
    let left = urls.iter().find(|url| *url != gone).expect("two are left");
    let target = Target { url: left.clone(), key: "proffer-dev-key".to_owned(), tenant: "default".to_owned() };
    let client = Client::new(target).expect("a client can be built");
    let deadline = Instant::now() + Duration::from_secs(30);
    for number in 0..20 {
        let body = json!({"customerId": format!("member-{number}"), "channel": "web", "decisionFlowKey": "rewards"});
        while let Err(error) = client.post("/recommend", &body).await {
            assert!(Instant::now() < deadline, "{error:#}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    kill_process(Pid::from_child(&demo.0), Signal::TERM).expect("it runs");
    assert!(demo.0.wait().expect("it is ours").success());
    assert!(!urls.iter().any(|url| is_served(url)), "nodes outlive it");
    assert!(!directory.exists(), "its data is removed");
}
