//! What a replica answers the others.

use openraft::errors::Fatal;
use openraft::raft::TransferLeaderRequest;
use tokio::time::Instant;

use super::machine::Kept;
use super::replica::{Replica, Running};
use super::stored::{VoteBytes, decode_meta, log_id_of};
use super::types::{SnapshotMeta, Types, Vote};
use super::wire::{Appended, Part, RaftAnswer, RaftMessage};
use crate::limits::SNAPSHOT_CHUNK_BYTES_MAX;
use crate::ports::offload::{self, Lane};
use crate::snapshots::Draft;

/// A snapshot that is coming in.
pub(super) struct Receiving {
    meta: SnapshotMeta,
    /// Whose it is: parts of another one must not get into it.
    from: (VoteBytes, Vec<u8>),
    next: u64,
    piece: Vec<u8>,
    draft: Draft,
}

impl Replica {
    /// Answers another replica.
    pub(crate) async fn answer(&self, message: RaftMessage) -> RaftAnswer {
        let Some(raft) = self.raft() else { return RaftAnswer::Failed("the replica is starting".to_owned()) };
        let result = match message {
            RaftMessage::Append(append) => match append.read() {
                Ok(request) => raft
                    .append_entries(request)
                    .await
                    .map(|response| RaftAnswer::Append(Appended::new(&response)))
                    .map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            },
            RaftMessage::Vote(_) | RaftMessage::PreVote(_) | RaftMessage::Transfer { .. }
                if Instant::now() < self.silent_until =>
            {
                Err("it has just started: it neither votes nor leads yet".to_owned())
            }
            RaftMessage::Vote(ballot) => {
                raft.vote(ballot.read()).await.map(|vote| RaftAnswer::of_vote(&vote)).map_err(|error| error.to_string())
            }
            RaftMessage::PreVote(ballot) => raft
                .pre_vote(ballot.read())
                .await
                .map(|vote| RaftAnswer::of_vote(&vote))
                .map_err(|error| error.to_string()),
            RaftMessage::Transfer { from, to, last } => {
                let request = TransferLeaderRequest::new(Vote::from(from), to, last.map(log_id_of));
                match raft.handle_transfer_leader(request).await {
                    Ok(heard) => Ok(RaftAnswer::Transfer(heard.map_err(|error| error.to_string()))),
                    Err(error) => Err(error.to_string()),
                }
            }
            RaftMessage::Snapshot(part) => self.receive(raft, part).await,
        };
        result.unwrap_or_else(RaftAnswer::Failed)
    }

    /// Takes a part of a snapshot; after the last one, installs it.
    async fn receive(&self, raft: &Running, part: Part) -> Result<RaftAnswer, String> {
        let mut receiving = self.receiving.lock().await;
        let vote = Vote::from(part.vote);
        if receiving.as_ref().is_some_and(|current| vote < Vote::from(current.from.0)) {
            return Err("a later leader sends another snapshot".to_owned());
        }
        if part.number == 0 {
            let meta = decode_meta(&part.meta).map_err(|error| error.to_string())?;
            let (snapshots, group, bytes) = (self.shelf.snapshots.clone(), self.shelf.group, part.meta.clone());
            let index = meta.last_log_id.map_or(0, |last| last.index);
            let begin = move || snapshots.begin(group, index, &bytes);
            let draft = offload::call(&*self.ports.offload, Lane::Bulk, begin).await;
            let draft = draft.map_err(|lost| lost.to_string())?.map_err(|error| error.to_string())?;
            let from = (part.vote, part.meta.clone());
            *receiving = Some(Receiving { meta, from, next: 0, piece: Vec::new(), draft });
        }
        let mut current = receiving.take().ok_or("no such snapshot is coming in")?;
        if current.from.0 != part.vote || current.from.1 != part.meta {
            *receiving = Some(current);
            return Err("it is a part of another snapshot".to_owned());
        }
        if current.next != part.number {
            return Err(format!("part {} of a snapshot came where {} was next", part.number, current.next));
        }
        if current.piece.len() + part.bytes.len() > SNAPSHOT_CHUNK_BYTES_MAX {
            return Err("a piece of the snapshot is too large".to_owned());
        }
        current.next += 1;
        current.piece.extend(part.bytes);
        let is_last = part.is_last;
        let write = move || -> Result<Result<Receiving, SnapshotMeta>, String> {
            if part.ends_piece {
                current.draft.push(&std::mem::take(&mut current.piece)).map_err(|error| error.to_string())?;
            }
            if is_last {
                current.draft.keep().map_err(|error| error.to_string())?;
                return Ok(Err(current.meta));
            }
            Ok(Ok(current))
        };
        let written =
            offload::call(&*self.ports.offload, Lane::Bulk, write).await.map_err(|lost| lost.to_string())??;
        match written {
            Ok(current) => {
                *receiving = Some(current);
                Ok(RaftAnswer::Part)
            }
            Err(meta) => {
                let index = meta.last_log_id.map_or(0, |last| last.index);
                let snapshot = Kept { group: self.shelf.group, index, snapshots: self.shelf.snapshots.clone() };
                let installed = raft.install_full_snapshot(vote, openraft::Snapshot { meta, snapshot }).await;
                installed
                    .map(|response| RaftAnswer::Installed((&response.vote).into()))
                    .map_err(|error: Fatal<Types>| error.to_string())
            }
        }
    }
}
