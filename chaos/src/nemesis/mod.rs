//! What is done to a cluster: faults drawn from a seed, one after the other, each healed before the next, and each written down.
//!
//! Map: [`operator`] is what is asked of the cluster, `partition` who is cut off from whom, `membership` nodes that come and go, `disks` what becomes of data.

mod disks;
mod membership;
pub mod operator;
mod partition;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use fastrand::Rng;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::client::Recorder;
use crate::supervisor::{Cluster, Started};
use operator::Operator;

/// A sort of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// SIGKILL, of one node or of several, and a start on what the disk holds.
    Kill,
    /// SIGSTOP and SIGCONT.
    Pause,
    /// Ways between nodes are cut and healed.
    Partition,
    /// One node, or all one after the other, are stopped in order and started; or all are killed at once.
    Restart,
    /// A node loses its disk, and joins as a new one; the old one is removed.
    Wipe,
    /// Bits of a killed node's log are flipped.
    Corrupt,
    /// Nodes join, are drained, are removed; leaderships are handed over.
    Membership,
}

impl Kind {
    /// As it is named on the command line and in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Kill => "kill",
            Kind::Pause => "pause",
            Kind::Partition => "partition",
            Kind::Restart => "restart",
            Kind::Wipe => "wipe",
            Kind::Corrupt => "corrupt",
            Kind::Membership => "membership",
        }
    }

    /// Whether copies of data are lost: two of these in a row, and what was acknowledged may be gone for good.
    fn destroys(self) -> bool {
        match self {
            Kind::Wipe | Kind::Corrupt => true,
            Kind::Kill | Kind::Pause | Kind::Partition | Kind::Restart | Kind::Membership => false,
        }
    }
}

/// A fault that was injected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// Which sort.
    pub kind: Kind,
    /// In words.
    pub what: String,
    /// When it began.
    pub from_us: u64,
    /// When it was healed, and every node served again.
    pub until_us: u64,
    /// It ended somebody's leadership, by what the cluster said just before.
    pub hit_a_leader: bool,
    /// Most nodes went on all the time.
    pub keeps_quorum: bool,
}

/// Does faults to a cluster.
pub struct Nemesis {
    /// Its processes.
    pub cluster: Cluster,
    /// Asks what the cluster says of itself.
    pub operator: Operator,
    recorder: Arc<Recorder>,
    draw: Rng,
    open: watch::Sender<Vec<usize>>,
    hit_a_leader: bool,
    keeps_quorum: bool,
}

impl Nemesis {
    /// Over a cluster that is whole; `open` tells clients where nodes are.
    pub fn new(
        cluster: Cluster,
        operator: Operator,
        recorder: Arc<Recorder>,
        seed: u64,
        open: watch::Sender<Vec<usize>>,
    ) -> Nemesis {
        Nemesis {
            cluster,
            operator,
            recorder,
            draw: Rng::with_seed(seed),
            open,
            hit_a_leader: false,
            keeps_quorum: true,
        }
    }

    /// Injects faults of these kinds until it is time, each kind as often as the others, and at least once.
    ///
    /// # Errors
    /// When a node does not serve again though all is healed, with what was injected until then.
    pub async fn rage(&mut self, kinds: &[Kind], until: Instant) -> (Vec<Fault>, anyhow::Result<()>) {
        let mut faults = Vec::new();
        let mut left: Vec<Kind> = Vec::new();
        let mut rounds = 0;
        while Instant::now() < until || rounds == 0 || (rounds == 1 && !left.is_empty()) {
            if left.is_empty() {
                left = kinds.to_vec();
                self.draw.shuffle(&mut left);
                rounds += 1;
            }
            let Some(kind) = left.pop() else { break };
            let pause = self.millis(300, 2_000);
            sleep(pause).await;
            (self.hit_a_leader, self.keeps_quorum) = (false, true);
            let from_us = self.recorder.now_us();
            match self.inject(kind).await {
                Ok(what) => {
                    let until_us = self.recorder.now_us();
                    self.recorder.note(format!("{}: {what}: over", kind.as_str()));
                    let (hit_a_leader, keeps_quorum) = (self.hit_a_leader, self.keeps_quorum);
                    faults.push(Fault { kind, what, from_us, until_us, hit_a_leader, keeps_quorum });
                }
                Err(error) => return (faults, Err(error.context(format!("after a {}", kind.as_str())))),
            }
            if let Err(error) = self.cluster.look() {
                return (faults, Err(error));
            }
        }
        (faults, Ok(()))
    }

    async fn inject(&mut self, kind: Kind) -> anyhow::Result<String> {
        if kind.destroys() {
            // What the disk holds must be elsewhere in as many copies as it takes.
            self.whole().await.context("before a disk is lost")?;
        }
        match kind {
            Kind::Kill => self.kill_some().await,
            Kind::Pause => self.pause_one().await,
            Kind::Partition => self.part().await,
            Kind::Restart => self.restart().await,
            Kind::Wipe => self.lose_disk().await,
            Kind::Corrupt => self.flip_bits().await,
            Kind::Membership => self.change_members().await,
        }
    }

    /// Undoes all that may still be in the way, and waits until the cluster is whole.
    ///
    /// # Errors
    /// When it does not become whole.
    pub async fn heal(&mut self) -> anyhow::Result<()> {
        self.cluster.links().heal();
        for number in self.cluster.members() {
            self.cluster.resume(number)?;
        }
        self.revive(&self.cluster.down()).await?;
        self.whole().await.map(drop)
    }

    async fn kill_some(&mut self) -> anyhow::Result<String> {
        let mut victims = vec![self.victim().await];
        if self.draw.u8(..4) == 0 {
            victims.extend(self.other(victims[0]));
        }
        self.keeps_quorum = 2 * victims.len() < self.cluster.members().len();
        for victim in &victims {
            self.say(format!("kill node {victim}"));
            self.cluster.kill(*victim).await?;
            sleep(self.millis(0, 300)).await;
        }
        sleep(self.millis(300, 4_000)).await;
        self.revive(&victims).await?;
        Ok(match victims[..] {
            [one] => format!("node {one} killed and started again"),
            _ => format!("nodes {victims:?} killed and started again"),
        })
    }

    async fn pause_one(&mut self) -> anyhow::Result<String> {
        let victim = self.victim().await;
        let length = self.millis(30, 6_000);
        self.say(format!("stop node {victim} for {length:?}"));
        self.cluster.pause(victim)?;
        sleep(length).await;
        self.cluster.resume(victim)?;
        Ok(format!("node {victim} stopped for {} ms", length.as_millis()))
    }

    async fn restart(&mut self) -> anyhow::Result<String> {
        let running = self.cluster.running();
        match self.draw.u8(..3) {
            0 => {
                self.say("kill all nodes at once".to_owned());
                for number in &running {
                    self.cluster.kill(*number).await?;
                }
                (self.hit_a_leader, self.keeps_quorum) = (true, false);
                sleep(self.millis(0, 1_500)).await;
                self.revive(&running).await?;
                Ok("all nodes killed at once and started again".to_owned())
            }
            1 => {
                for number in running {
                    self.stop_and_start(number).await?;
                }
                Ok("all nodes stopped in order and started again, one after the other".to_owned())
            }
            _ => {
                let victim = self.victim().await;
                self.stop_and_start(victim).await?;
                Ok(format!("node {victim} stopped in order and started again"))
            }
        }
    }

    async fn stop_and_start(&mut self, number: usize) -> anyhow::Result<()> {
        self.say(format!("stop node {number} in order"));
        if !self.cluster.terminate(number).await? {
            self.cluster.blame(number, "it did not end well when it was told to stop");
        }
        self.revive(&[number]).await
    }

    /// Starts nodes that are down, side by side, and waits until they serve.
    async fn revive(&mut self, numbers: &[usize]) -> anyhow::Result<()> {
        for number in numbers {
            self.say(format!("start node {number}"));
            self.cluster.start(*number)?;
        }
        for number in numbers {
            if let Started::Refused(words) = self.cluster.started(*number).await? {
                self.cluster.blame(*number, &format!("it did not start again; it said last:\n{words}"));
                anyhow::bail!("node {number} did not start again: {words}");
            }
        }
        Ok(())
    }

    /// One who leads much, as a rule; and whether it leads.
    async fn victim(&mut self) -> usize {
        let running = self.cluster.running();
        let drawn = running[self.draw.usize(..running.len())];
        let Some(status) = self.operator.status(&self.cluster).await else { return drawn };
        let of = |node: &Value| node["httpAddress"].as_str().and_then(|address| self.cluster.at(address));
        let nodes = status["nodes"].as_array().map_or(&[][..], Vec::as_slice);
        let leads = |number: usize| {
            nodes.iter().filter(|node| of(node) == Some(number)).filter_map(|node| node["leads"].as_u64()).sum::<u64>()
        };
        let leads_meta = nodes.iter().find(|node| node["node"] == status["metaLeader"]).and_then(of);
        let busiest = running.iter().copied().max_by_key(|number| leads(*number));
        let victim = match self.draw.u8(..4) {
            0 | 1 => leads_meta,
            2 => busiest,
            _ => None,
        };
        let victim = victim.filter(|victim| running.contains(victim)).unwrap_or(drawn);
        self.hit_a_leader |= leads(victim) > 0 || leads_meta == Some(victim);
        victim
    }

    /// One that runs, and is another.
    fn other(&mut self, than: usize) -> Option<usize> {
        let others: Vec<usize> = self.cluster.running().into_iter().filter(|number| *number != than).collect();
        self.draw.choice(others)
    }

    /// Between two lengths: the shorter, the likelier.
    fn millis(&mut self, least: u64, most: u64) -> Duration {
        let (low, high) = ((least.max(1) as f64).ln(), (most as f64).ln());
        Duration::from_millis((low + (high - low) * self.draw.f64()).exp() as u64)
    }

    fn say(&self, what: String) {
        self.recorder.note(what);
    }

    async fn whole(&self) -> anyhow::Result<Value> {
        self.operator.whole(&self.cluster).await
    }

    /// Tells clients where nodes are now, but for this one.
    fn tell_clients(&self, but: Option<usize>) {
        let members = self.cluster.members().into_iter().filter(|number| Some(*number) != but);
        self.open.send_replace(members.collect());
    }
}
