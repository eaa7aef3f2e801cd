//! A `proffer serve` process on a free port, killed when dropped.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use proffer_node::client::{Client, Target};
use rustix::process::Pid;

pub const BINARY: &str = env!("CARGO_BIN_EXE_proffer");

/// A node that does not listen yet, killed when dropped.
pub struct Starting {
    child: Option<Child>,
}

impl Starting {
    /// Runs `command`.
    pub fn spawn(mut command: Command) -> Starting {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the binary runs");
        Starting { child: Some(child) }
    }

    /// Waits for its line `listening on URL`.
    pub fn listening(mut self) -> Node {
        let child = self.child.as_mut().expect("it is taken below");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let url = loop {
            let mut line = String::new();
            assert_ne!(lines.read_line(&mut line).expect("stdout is text"), 0, "the node ended before it listened");
            if let Some(url) = line.trim_end().strip_prefix("listening on ") {
                break url.to_owned();
            }
        };
        // A full pipe would stop the node.
        std::thread::Builder::new().spawn(move || lines.read_to_end(&mut Vec::new())).expect("threads can be started");
        Node { child: self.child.take().expect("nobody else takes it"), url }
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The processes that `parent` has started.
pub fn children(parent: &Child) -> Vec<Pid> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", parent.id())).expect("it runs");
    let lists = tasks.map(|task| std::fs::read_to_string(task.expect("it is listed").path().join("children")));
    let numbers = lists.map(Result::unwrap_or_default).collect::<Vec<_>>().join(" ");
    numbers.split_whitespace().filter_map(|number| Pid::from_raw(number.parse().ok()?)).collect()
}

/// A running node.
pub struct Node {
    child: Child,
    pub url: String,
}

impl Node {
    /// Starts a node on `data`, or without a disk.
    pub fn start(data: Option<&Path>) -> Node {
        let mut command = Command::new(BINARY);
        command.args(["serve", "--dev", "--listen", "127.0.0.1:0"]);
        match data {
            Some(data) => command.arg("--data").arg(data),
            None => command.arg("--ephemeral"),
        };
        Node::spawn(command)
    }

    /// Runs `command` and waits for its line `listening on URL`.
    pub fn spawn(command: Command) -> Node {
        Starting::spawn(command).listening()
    }

    /// SIGKILL: no chance to sync or say goodbye.
    pub fn kill(mut self) {
        self.child.kill().expect("the node runs");
        self.child.wait().expect("the node is ours");
    }

    /// SIGTERM, and whether it ended well.
    pub fn terminate(mut self) -> bool {
        let pid = Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("the node runs");
        self.child.wait().expect("the node is ours").success()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn target(&self) -> Target {
        Target { url: self.url.clone(), key: "proffer-dev-key".to_owned(), tenant: "default".to_owned() }
    }

    pub fn client(&self) -> Client {
        Client::new(self.target()).expect("a client can be built")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may be gone already: killed by the test.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
