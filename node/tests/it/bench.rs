//! `proffer bench --cluster` as whoever has enough of it sees it.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use crate::nodes::{ALONE, PATIENCE};
use crate::process::{BINARY, children};

#[tokio::test]
async fn a_bench_that_is_told_to_stop_takes_its_nodes_with_it() {
    let _alone = ALONE.lock().await;
    let mut command = Command::new(BINARY);
    command.args(["bench", "--cluster", "--offers", "20", "--seconds", "60"]);
    let mut bench = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let stderr = BufReader::new(bench.stderr.take().expect("stderr is piped"));
    let mut lines = stderr.lines().map(|line| line.expect("stderr is text"));
    assert!(lines.any(|line| line.starts_with("20 offers loaded")));
    let nodes = children(&bench);
    assert_eq!(nodes.len(), 3);
    kill_process(Pid::from_child(&bench), Signal::TERM).expect("it runs");
    assert!(!bench.wait().expect("it is ours").success(), "it has not measured what it was asked to");
    let runs = |node: &Pid| std::fs::read_link(format!("/proc/{}/exe", node.as_raw_nonzero())).is_ok();
    let deadline = Instant::now() + PATIENCE;
    while nodes.iter().any(runs) {
        assert!(Instant::now() < deadline, "nodes outlive it");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
