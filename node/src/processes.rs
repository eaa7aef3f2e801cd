//! A cluster of real processes of this binary on loopback, for whoever tries it out.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::client::{Client, Target};
use crate::compose::{DEV_KEY, DEV_TENANT};
use crate::limits::{CLUSTER_LOOK_PAUSE, CLUSTER_READY_MAX, CLUSTER_STOP_MAX, LOG_TAIL_LINES};

/// A node in a process of its own.
#[derive(Debug)]
pub struct NodeProcess {
    child: Child,
    url: String,
    log: PathBuf,
}

impl NodeProcess {
    /// Starts the `number`th node: it listens at `listen` and, for other nodes, at `peer`; with an address to join, it joins. Its data and what it
    /// says on standard error lie in `directory`.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(
        number: u16,
        [listen, peer]: [SocketAddr; 2],
        join: Option<SocketAddr>,
        directory: &Path,
    ) -> anyhow::Result<NodeProcess> {
        let log = directory.join(format!("node-{number}.log"));
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve", "--dev", "--listen", &listen.to_string(), "--peer", &peer.to_string(), "--data"]);
        command.arg(directory.join(format!("node-{number}")));
        if let Some(join) = join {
            command.args(["--join", &join.to_string()]);
        }
        command.env_remove("PROFFER_ADMIN_KEY_FILE").stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let stderr = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut child = command.stderr(stderr).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
        let announced = timeout(CLUSTER_READY_MAX, lines.next_line()).await;
        let line = announced.ok().and_then(Result::ok).flatten();
        let url = line.as_deref().and_then(|line| line.strip_prefix("listening on ")).map(str::to_owned);
        let Some(url) = url else {
            // It is gone when the child is dropped.
            bail!("the node at {listen} did not start; it said:\n{}", tail(&log));
        };
        Ok(NodeProcess { child, url, log })
    }

    /// A client of it.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn client(&self) -> anyhow::Result<Client> {
        Client::new(Target { url: self.url.clone(), key: DEV_KEY.to_owned(), tenant: DEV_TENANT.to_owned() })
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether it has ended, and how.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// The last lines that it said on standard error.
    pub fn last_words(&self) -> String {
        tail(&self.log)
    }

    /// Asks it to stop.
    pub fn terminate(&self) {
        if let Some(pid) = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
            // It may have ended this moment.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Ends it at once, whatever it does.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Waits until it has ended, and ends it if that takes too long.
    ///
    /// # Errors
    /// When the system does not say.
    pub async fn wait(mut self) -> anyhow::Result<()> {
        if timeout(CLUSTER_STOP_MAX, self.child.wait()).await.is_err() {
            self.child.kill().await?;
        }
        Ok(())
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}

/// Addresses on loopback for clients and for other nodes, `count` each: from `first` up and a hundred above, or any free ones if it is 0.
///
/// # Errors
/// When there are none.
pub async fn addresses(first: u16, count: u16) -> anyhow::Result<Vec<[SocketAddr; 2]>> {
    let local = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    if first > 0 {
        let port = |offset: u16| first.checked_add(offset).context("there are no ports above 65535");
        return (0..count).map(|number| Ok([local(port(number)?), local(port(number + 100)?)])).collect();
    }
    // Held until all are drawn, so that they differ.
    let mut held = Vec::new();
    for _ in 0..2 * count {
        held.push(TcpListener::bind(local(0)).await?);
    }
    let drawn = held.iter().map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>()?;
    Ok(drawn.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect())
}

/// Waits until a cluster of so many nodes is whole: all of them up, every group led, and as many to spare as there can be. Answers
/// with its status.
///
/// # Errors
/// When it is not in time.
pub async fn wait_whole(client: &Client, nodes: usize, patience: Duration) -> anyhow::Result<Value> {
    let deadline = Instant::now() + patience;
    loop {
        let status = client.call(reqwest::Method::GET, "/cluster/status", &Value::Null).await;
        if let Ok(status) = &status
            && is_whole(status, nodes)
        {
            return Ok(status.clone());
        }
        if Instant::now() > deadline {
            match status {
                Ok(status) => bail!("the cluster is not whole after {patience:?}: {status}"),
                Err(error) => return Err(error.context(format!("the cluster is not whole after {patience:?}"))),
            }
        }
        sleep(CLUSTER_LOOK_PAUSE).await;
    }
}

fn is_whole(status: &Value, nodes: usize) -> bool {
    let listed = status["nodes"].as_array().map_or(&[][..], Vec::as_slice);
    let up = listed.iter().filter(|node| node["isUp"] == true).count();
    status["isReady"] == true && listed.len() == nodes && up == nodes && (nodes < 3 || status["redundancy"] != "none")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn every_node_has_two_ports_of_its_own() {
        let fixed = addresses(7070, 2).await.unwrap();
        assert_eq!(format!("{fixed:?}"), "[[127.0.0.1:7070, 127.0.0.1:7170], [127.0.0.1:7071, 127.0.0.1:7171]]");
        let free: std::collections::BTreeSet<_> = addresses(0, 9).await.unwrap().into_iter().flatten().collect();
        assert_eq!(free.len(), 18);
        assert!(addresses(65_500, 2).await.is_err());
    }

    #[test]
    fn a_cluster_is_whole_when_all_are_up_and_one_may_be_lost() {
        let status = |up: &[bool], redundancy: &str, ready: bool| {
            let nodes: Vec<_> = up.iter().map(|up| json!({"isUp": up})).collect();
            json!({"isReady": ready, "redundancy": redundancy, "nodes": nodes})
        };
        assert!(is_whole(&status(&[true; 3], "one node", true), 3));
        assert!(is_whole(&status(&[true; 2], "none", true), 2));
        for bad in [
            status(&[true; 3], "none", true),
            status(&[true; 3], "one node", false),
            status(&[true, true, false], "one node", true),
            status(&[true; 2], "one node", true),
            json!({}),
        ] {
            assert!(!is_whole(&bad, 3), "{bad}");
        }
    }
}
