//! What becomes of a node's data.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use fastrand::Rng;
use serde_json::json;
use tokio::time::sleep;

use super::Nemesis;
use crate::supervisor::Started;

/// Of a log, this part is far below what was known to be synced: what lies at its very end may be a torn write, and no node can tell.
const ROTTEN_PART: f64 = 0.6;
/// The head of a segment is another matter than its records.
const HEAD_BYTES: u64 = 4_096;
const FLIPS_MAX: usize = 4;

impl Nemesis {
    /// A node loses its disk: it joins as a new one, and the old one is removed.
    pub(super) async fn lose_disk(&mut self) -> anyhow::Result<String> {
        let victim = self.victim().await;
        let old = self.operator.id(&self.cluster, victim).await.context("nobody says which node this is")?;
        self.say(format!("kill node {victim} ({old}) and empty its disk"));
        self.cluster.kill(victim).await?;
        sleep(self.millis(1, 1_000)).await;
        self.replace(victim, &old).await?;
        Ok(format!("node {victim} ({old}) lost its disk and came back as a new node"))
    }

    async fn replace(&mut self, victim: usize, old: &str) -> anyhow::Result<()> {
        self.cluster.note(victim, "its disk is emptied")?;
        self.cluster.wipe(victim)?;
        self.revive(&[victim]).await?;
        self.say(format!("remove {old}"));
        let path = format!("/cluster/nodes/{old}/remove");
        self.operator.insist(&self.cluster, &path, &json!({"reduceRedundancy": false})).await?;
        let is_gone = |status: &serde_json::Value| {
            status["nodes"].as_array().is_some_and(|nodes| nodes.iter().all(|node| node["node"] != old))
        };
        self.operator.until(&self.cluster, &format!("without {old}"), is_gone).await?;
        self.whole().await.context("after a node was replaced").map(drop)
    }

    /// Bits of a killed node's log are flipped: the node may refuse to start, or make good what is lost; but it must not go on as if nothing were.
    pub(super) async fn flip_bits(&mut self) -> anyhow::Result<String> {
        let victim = self.victim().await;
        let old = self.operator.id(&self.cluster, victim).await.context("nobody says which node this is")?;
        self.say(format!("kill node {victim} ({old}) and flip bits in its log"));
        self.cluster.kill(victim).await?;
        let Some(flipped) = flip(&self.cluster.data(victim), &mut self.draw)? else {
            self.revive(&[victim]).await?;
            return Ok(format!("node {victim} killed; its log is too short to flip bits in"));
        };
        self.cluster.note(victim, &format!("bits are flipped: {flipped}"))?;
        self.cluster.start(victim)?;
        let started = self.cluster.started(victim).await;
        if matches!(started, Ok(Started::Serving)) {
            self.whole().await.context("after a rotten log")?;
            return Ok(format!("bits flipped in the log of node {victim} ({flipped}); it came back by itself"));
        }
        self.say(format!("node {victim} does not start on a rotten log"));
        self.cluster.kill(victim).await?;
        self.replace(victim, &old).await?;
        Ok(format!(
            "bits flipped in the log of node {victim} ({old}, {flipped}); it refused to start, and came back as a new node"
        ))
    }
}

/// Flips bits in the longest segment; says where. Nothing if it is too short.
fn flip(data: &Path, draw: &mut Rng) -> anyhow::Result<Option<String>> {
    let mut segments: Vec<(u64, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(data)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("wal-") {
            segments.push((entry.metadata()?.len(), entry.path()));
        }
    }
    let Some((length, path)) = segments.into_iter().max() else { return Ok(None) };
    let end = (length as f64 * ROTTEN_PART) as u64;
    if end <= HEAD_BYTES {
        return Ok(None);
    }
    let file = OpenOptions::new().read(true).write(true).open(&path)?;
    let mut places = Vec::new();
    for _ in 0..draw.usize(1..=FLIPS_MAX) {
        let (at, bit) = (draw.u64(HEAD_BYTES..end), draw.u8(..8));
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        file.write_all_at(&[byte[0] ^ (1 << bit)], at)?;
        places.push(format!("{at}.{bit}"));
    }
    file.sync_all()?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Some(format!("{name} at {}", places.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_flipped_in_the_part_that_is_surely_synced() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(flip(data.path(), &mut Rng::with_seed(1)).unwrap(), None);
        let log = data.path().join("wal-00000000000000000001.log");
        let before = vec![0x55; 20_000];
        std::fs::write(&log, &before).unwrap();
        std::fs::write(data.path().join("identity"), [0x55; 50_000]).unwrap();
        assert!(
            flip(data.path(), &mut Rng::with_seed(1)).unwrap().unwrap().starts_with("wal-00000000000000000001.log at ")
        );
        let after = std::fs::read(&log).unwrap();
        let changed: Vec<usize> = (0..before.len()).filter(|at| before[*at] != after[*at]).collect();
        assert!((1..=FLIPS_MAX).contains(&changed.len()), "{changed:?}");
        assert!(changed.iter().all(|at| (4_096..12_000).contains(at)), "{changed:?}");
    }
}
