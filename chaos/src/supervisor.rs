//! A cluster of processes: each can be killed, stopped, continued, and started again on what its disk holds, or on nothing.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::limits::{LOOK_PAUSE, NODES_MAX, START_MAX, STOP_MAX};
use crate::proxy::{Links, Proxy};

/// The key that `--dev` sets.
pub const DEV_KEY: &str = "proffer-dev-key";

/// See the module. Nodes are numbered from 0; the first has founded the cluster.
#[derive(Debug)]
pub struct Cluster {
    binary: PathBuf,
    directory: PathBuf,
    shards: u16,
    nodes: Vec<Node>,
    advertised: Arc<Vec<String>>,
    links: Links,
    _proxies: Vec<Proxy>,
    /// Nodes that ended though nobody told them to.
    deaths: Vec<String>,
}

#[derive(Debug)]
struct Node {
    http: SocketAddr,
    peer: SocketAddr,
    standing: Standing,
}

#[derive(Debug)]
enum Standing {
    /// Never started, or removed.
    Absent,
    /// Killed or stopped.
    Down,
    Running(Child),
    Paused(Child),
}

/// What a node came to that was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Started {
    /// It answers.
    Serving,
    /// It ended: so it said last.
    Refused(String),
}

impl Cluster {
    /// No node yet, and a place for each of the most there can be.
    ///
    /// # Errors
    /// When there are not enough ports, or the directory cannot be made.
    pub async fn new(binary: &Path, directory: &Path, shards: u16) -> anyhow::Result<Cluster> {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        // Held until all are drawn, so that they differ.
        let (mut held, mut proxies) = (Vec::new(), Vec::new());
        for _ in 0..NODES_MAX {
            held.push((TcpListener::bind(local).await?, TcpListener::bind(local).await?));
            proxies.push(TcpListener::bind(local).await?);
        }
        let mut nodes = Vec::new();
        for (http, peer) in held {
            nodes.push(Node { http: http.local_addr()?, peer: peer.local_addr()?, standing: Standing::Absent });
        }
        let advertised = proxies.iter().map(|proxy| Ok(proxy.local_addr()?.to_string()));
        let advertised = Arc::new(advertised.collect::<anyhow::Result<Vec<_>>>()?);
        let links = Links::default();
        let start = |(number, (listener, node)): (usize, (TcpListener, &Node))| {
            Proxy::start(listener, number, node.peer, Arc::clone(&advertised), links.clone())
        };
        let proxies = proxies.into_iter().zip(&nodes).enumerate().map(start).collect();
        let (binary, directory) = (binary.to_owned(), directory.to_owned());
        Ok(Cluster { binary, directory, shards, nodes, advertised, links, _proxies: proxies, deaths: Vec::new() })
    }

    /// The ways between the nodes.
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// Base URLs of all places, whether there is a node or not.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| format!("http://{}", node.http)).collect()
    }

    /// Which place listens at an address for clients.
    pub fn at(&self, http_address: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.http.to_string() == http_address)
    }

    /// The nodes that are of the cluster: running, stopped or killed.
    pub fn members(&self) -> Vec<usize> {
        self.which(|standing| !matches!(standing, Standing::Absent))
    }

    /// Those that run, and are not stopped.
    pub fn running(&self) -> Vec<usize> {
        self.which(|standing| matches!(standing, Standing::Running(_)))
    }

    /// Those that were killed.
    pub fn down(&self) -> Vec<usize> {
        self.which(|standing| matches!(standing, Standing::Down))
    }

    /// A place where no node is.
    pub fn vacant(&self) -> Option<usize> {
        self.which(|standing| matches!(standing, Standing::Absent)).first().copied()
    }

    fn which(&self, is_so: impl Fn(&Standing) -> bool) -> Vec<usize> {
        (0..self.nodes.len()).filter(|number| is_so(&self.nodes[*number].standing)).collect()
    }

    /// Where a node keeps its data.
    pub fn data(&self, number: usize) -> PathBuf {
        self.directory.join(format!("node-{number}"))
    }

    /// What a node says on standard error.
    pub fn log(&self, number: usize) -> PathBuf {
        self.directory.join(format!("node-{number}.log"))
    }

    /// Runs a node that does not run: on what its disk holds, else founding the cluster (the first, if nobody else is there) or joining it.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start(&mut self, number: usize) -> anyhow::Result<()> {
        let others: Vec<&str> =
            self.members().into_iter().filter(|other| *other != number).map(|other| &*self.advertised[other]).collect();
        let log = self.log(number);
        let mut said = OpenOptions::new().create(true).append(true).open(&log)?;
        writeln!(said, "--- started")?;
        let node = &mut self.nodes[number];
        let mut command = Command::new(&self.binary);
        command.args(["serve", "--dev", "--listen", &node.http.to_string(), "--peer", &node.peer.to_string()]);
        command.args(["--advertise-peer", &self.advertised[number], "--data"]);
        command.arg(self.directory.join(format!("node-{number}")));
        if others.is_empty() {
            command.args(["--shards", &self.shards.to_string()]);
        } else {
            command.args(["--join", &others.join(",")]);
        }
        command.env_remove("PROFFER_ADMIN_KEY_FILE").stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
        let child = command.kill_on_drop(true).spawn();
        node.standing = Standing::Running(child.with_context(|| format!("cannot run {}", self.binary.display()))?);
        Ok(())
    }

    /// Waits until a node that was started answers, or has ended. One that ended is down.
    ///
    /// # Errors
    /// When it does neither in time.
    pub async fn started(&mut self, number: usize) -> anyhow::Result<Started> {
        let deadline = Instant::now() + START_MAX;
        let http = reqwest::Client::builder().no_proxy().timeout(LOOK_PAUSE * 10).build()?;
        let url = format!("http://{}/readyz", self.nodes[number].http);
        while Instant::now() < deadline {
            if self.ended(number)?.is_some() {
                return Ok(Started::Refused(last_words(&self.log(number))));
            }
            if let Ok(answer) = http.get(&url).send().await
                && answer.status().is_success()
            {
                return Ok(Started::Serving);
            }
            sleep(LOOK_PAUSE).await;
        }
        bail!("node {number} did not serve within {START_MAX:?}; it said:\n{}", last_words(&self.log(number)));
    }

    /// Whether a node that runs has ended, and how. One that has is down.
    fn ended(&mut self, number: usize) -> anyhow::Result<Option<ExitStatus>> {
        let node = &mut self.nodes[number];
        let Standing::Running(child) = &mut node.standing else { return Ok(None) };
        let status = child.try_wait()?;
        if status.is_some() {
            node.standing = Standing::Down;
        }
        Ok(status)
    }

    /// Looks for nodes that ended though nobody told them to, and remembers them.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn look(&mut self) -> anyhow::Result<()> {
        for number in self.running() {
            if let Some(status) = self.ended(number)? {
                self.deaths.push(format!("node {number}: {status}; it said last:\n{}", last_words(&self.log(number))));
            }
        }
        Ok(())
    }

    /// Remembers what a node should not have done.
    pub fn blame(&mut self, number: usize, what: &str) {
        self.deaths.push(format!("node {number}: {what}"));
    }

    /// See [`Cluster::look`].
    pub fn deaths(&self) -> &[String] {
        &self.deaths
    }

    /// SIGKILL, to one that runs or is stopped.
    ///
    /// # Errors
    /// When the system does not let us.
    pub async fn kill(&mut self, number: usize) -> anyhow::Result<()> {
        match std::mem::replace(&mut self.nodes[number].standing, Standing::Down) {
            Standing::Running(mut child) | Standing::Paused(mut child) => Ok(child.kill().await?),
            Standing::Absent | Standing::Down => Ok(()),
        }
    }

    /// SIGTERM; whether it ended well within the time there is. One that does not is killed.
    ///
    /// # Errors
    /// When the system does not let us.
    pub async fn terminate(&mut self, number: usize) -> anyhow::Result<bool> {
        match std::mem::replace(&mut self.nodes[number].standing, Standing::Down) {
            Standing::Running(mut child) | Standing::Paused(mut child) => {
                signal(&child, Signal::TERM)?;
                match timeout(STOP_MAX, child.wait()).await {
                    Ok(status) => Ok(status?.success()),
                    Err(_) => {
                        child.kill().await?;
                        Ok(false)
                    }
                }
            }
            Standing::Absent | Standing::Down => Ok(true),
        }
    }

    /// SIGSTOP, to one that runs.
    ///
    /// # Errors
    /// When the system does not let us.
    pub fn pause(&mut self, number: usize) -> anyhow::Result<()> {
        let node = &mut self.nodes[number];
        node.standing = match std::mem::replace(&mut node.standing, Standing::Down) {
            Standing::Running(child) => {
                signal(&child, Signal::STOP)?;
                Standing::Paused(child)
            }
            other @ (Standing::Absent | Standing::Down | Standing::Paused(_)) => other,
        };
        Ok(())
    }

    /// SIGCONT, to one that is stopped.
    ///
    /// # Errors
    /// When the system does not let us.
    pub fn resume(&mut self, number: usize) -> anyhow::Result<()> {
        let node = &mut self.nodes[number];
        node.standing = match std::mem::replace(&mut node.standing, Standing::Down) {
            Standing::Paused(child) => {
                signal(&child, Signal::CONT)?;
                Standing::Running(child)
            }
            other @ (Standing::Absent | Standing::Down | Standing::Running(_)) => other,
        };
        Ok(())
    }

    /// Takes a node that is down out of the cluster's places, with its disk.
    ///
    /// # Errors
    /// When its data cannot be removed.
    pub async fn vacate(&mut self, number: usize) -> anyhow::Result<()> {
        self.kill(number).await?;
        self.wipe(number)?;
        self.nodes[number].standing = Standing::Absent;
        Ok(())
    }

    /// Empties the disk of a node that is down.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn wipe(&self, number: usize) -> anyhow::Result<()> {
        let data = self.data(number);
        std::fs::remove_dir_all(&data).with_context(|| format!("cannot empty {}", data.display()))
    }

    /// Says in a node's log what is done to it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn note(&self, number: usize, what: &str) -> anyhow::Result<()> {
        let mut log: File = OpenOptions::new().create(true).append(true).open(self.log(number))?;
        Ok(writeln!(log, "--- {what}")?)
    }
}

fn signal(child: &Child, signal: Signal) -> anyhow::Result<()> {
    let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    // It may have ended this moment.
    Ok(pid.map_or(Ok(()), |pid| kill_process(pid, signal))?)
}

/// Lines of a log that are told.
const TOLD_LINES: usize = 12;

/// The end of a log.
pub fn last_words(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TOLD_LINES)..].join("\n")
}

/// Lines in which a log tells of a panic.
pub fn panics(log: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().filter(|line| line.contains("panicked at")).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_are_found_in_a_log_and_its_end_is_told() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let lines: Vec<_> = (0..30).map(|line| format!("line {line}")).collect();
        std::fs::write(log.path(), format!("thread 'x' panicked at a.rs:1:2:\n{}\n", lines.join("\n"))).unwrap();
        assert_eq!(panics(log.path()), ["thread 'x' panicked at a.rs:1:2:"]);
        assert!(last_words(log.path()).starts_with("line 18\n") && last_words(log.path()).ends_with("line 29"));
        assert_eq!(last_words(Path::new("/not/there")), "");
    }
}
