//! Openraft's way to the other replicas of a group, over whatever carries messages between nodes.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::unfold;
use futures_util::{Stream, StreamExt};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;
use tokio::time::{Instant, timeout_at};

use super::machine::Kept;
use super::pace::Pace;
use super::stored::{encode_meta, log_id_of};
use super::types::{Seat, Types, Vote, position_of};
use super::wire::{Append, Ballot, Part, RaftAnswer, RaftMessage};
use crate::limits::SNAPSHOT_PART_BYTES_MAX;
use crate::ports::offload::{self, Lane, Offload};
use crate::ports::propose::Pending;

/// Carries messages to replicas on other nodes.
///
/// Contract: a message arrives at most once, or not at all; answers are matched to their messages. A message that is lost with its
/// connection ends in [`Unreached`] or not at all: callers set the time they wait.
pub(crate) trait Carrier: Send + Sync + 'static {
    /// Asks the replica `to`, which was placed on `seat`, and gives its answer.
    fn ask(
        &self,
        to: u64,
        seat: Seat,
        message: RaftMessage,
        within: Duration,
    ) -> Pending<'_, Result<RaftAnswer, Unreached>>;
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreached {
    /// There is no connection, and trying again at once is of no use.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The connection broke, or the answer makes no sense.
    #[error("{0}")]
    Broken(String),
    /// It took too long.
    #[error("no answer in time")]
    TimedOut,
}

/// Makes the ways to the other replicas of one.
pub(super) struct Network {
    pub(super) own: u64,
    pub(super) carrier: Arc<dyn Carrier>,
    pub(super) offload: Arc<dyn Offload>,
    pub(super) pace: Arc<Pace>,
    /// How long entries may take to be durable on the other side.
    pub(super) append_within: Duration,
    /// How long the bare news of a commit may wait for entries to go with.
    pub(super) news_within: Duration,
}

/// The way to one replica.
pub(super) struct Way {
    own: u64,
    to: u64,
    seat: Seat,
    carrier: Arc<dyn Carrier>,
    offload: Arc<dyn Offload>,
    pace: Arc<Pace>,
    append_within: Duration,
    news_within: Duration,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Way;

    async fn new_client(&mut self, target: u64, node: &Seat) -> Way {
        Way {
            own: self.own,
            to: target,
            seat: *node,
            carrier: Arc::clone(&self.carrier),
            offload: Arc::clone(&self.offload),
            pace: Arc::clone(&self.pace),
            append_within: self.append_within,
            news_within: self.news_within,
        }
    }
}

impl Way {
    async fn ask(
        &self,
        message: RaftMessage,
        action: RPCTypes,
        within: Duration,
    ) -> Result<RaftAnswer, RPCError<Types>> {
        let answer = self.carrier.ask(self.to, self.seat, message, within);
        let answer = match tokio::time::timeout(within, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(Unreached::TimedOut),
        };
        match answer {
            Ok(RaftAnswer::Failed(reason)) => Err(broken(reason)),
            Ok(answer) => Ok(answer),
            Err(error @ Unreached::Unreachable(_)) => Err(RPCError::Unreachable(Unreachable::new(&error))),
            Err(Unreached::Broken(reason)) => Err(broken(reason)),
            Err(Unreached::TimedOut) => {
                Err(RPCError::Timeout(Timeout { action, id: self.own, target: self.to, timeout: within }))
            }
        }
    }
}

fn broken(reason: String) -> RPCError<Types> {
    RPCError::Network(NetworkError::new(&Unreached::Broken(reason)))
}

fn senseless(answer: &RaftAnswer) -> RPCError<Types> {
    broken(format!("an answer to something else: {answer:?}"))
}

/// What of `requests` is worth a message: one without entries only tells how far the group has committed, which the next one tells as
/// well. It waits so long for that. A request that is passed over is answered by the answer to a later one.
fn worth_sending<S>(requests: S, news_within: Duration) -> BoxStream<'static, AppendEntriesRequest<Types>>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
{
    Box::pin(unfold(requests.fuse(), move |mut requests| async move {
        let mut request = requests.next().await?;
        if request.entries.is_empty() && !news_within.is_zero() {
            let until = Instant::now() + news_within;
            while request.entries.is_empty()
                && let Ok(Some(next)) = timeout_at(until, requests.next()).await
            {
                request = next;
            }
        }
        Some((request, requests))
    }))
}

impl RaftNetworkV2<Types> for Way {
    type SnapshotData = Kept;

    fn stream_append<'s, S>(
        &'s mut self,
        requests: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
    {
        let requests = worth_sending(requests, self.news_within);
        stream_append_sequential(self, requests, option)
    }

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        // With entries the answer comes when they are durable there: a slow disk must not have them sent again and again.
        let within = if request.entries.is_empty() { option.soft_ttl() } else { self.append_within };
        let message = RaftMessage::Append(Append::new(&request));
        let answer = self.ask(message, RPCTypes::AppendEntries, within).await?;
        let RaftAnswer::Append(appended) = answer else { return Err(senseless(&answer)) };
        Ok(appended.read())
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ballot(RaftMessage::Vote(Ballot::new(&request)), option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ballot(RaftMessage::PreVote(Ballot::new(&request)), option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<Types, Kept>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(vote, snapshot, option) => sent.map_err(StreamingError::from),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let message = RaftMessage::Transfer {
            from: request.from_leader().into(),
            to: *request.to_node_id(),
            last: request.last_log_id().map(position_of),
        };
        let answer = self.ask(message, RPCTypes::TransferLeader, option.soft_ttl()).await?;
        let RaftAnswer::Transfer(heard) = answer else { return Err(senseless(&answer)) };
        heard.map(Ok).map_err(broken)
    }
}

impl Way {
    async fn ballot(&self, message: RaftMessage, option: RPCOption) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let answer = self.ask(message, RPCTypes::Vote, option.soft_ttl()).await?;
        let RaftAnswer::Vote { vote, granted, last } = answer else { return Err(senseless(&answer)) };
        Ok(VoteResponse::new(Vote::from(vote), last.map(log_id_of), granted))
    }

    /// Sends a snapshot part by part, each when the one before is kept and the node's pace allows it.
    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: SnapshotOf<Types, Kept>,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, RPCError<Types>> {
        let meta = encode_meta(&snapshot.meta);
        let Kept { group, index, snapshots } = snapshot.snapshot;
        let open = move || snapshots.chunks(group, index);
        let unread = |error: &dyn std::fmt::Display| broken(format!("the snapshot cannot be read: {error}"));
        let opened = offload::call(&*self.offload, Lane::Bulk, open).await.map_err(|lost| unread(&lost))?;
        let mut chunks = opened.map_err(|error| unread(&error))?;
        let mut number = 0;
        let mut ahead = None;
        loop {
            let (read, rest) = offload::call(&*self.offload, Lane::Bulk, move || (chunks.next(), chunks))
                .await
                .map_err(|lost| unread(&lost))?;
            chunks = rest;
            let read = read.transpose().map_err(|error| unread(&error))?;
            let is_end = read.is_none();
            let Some(piece) = std::mem::replace(&mut ahead, read) else {
                if is_end {
                    return Err(broken("the snapshot is empty".to_owned()));
                }
                continue;
            };
            let parts = piece.len().div_ceil(SNAPSHOT_PART_BYTES_MAX);
            for (count, bytes) in piece.chunks(SNAPSHOT_PART_BYTES_MAX).enumerate() {
                let ends_piece = count + 1 == parts;
                let part = Part {
                    vote: (&vote).into(),
                    meta: meta.clone(),
                    number,
                    bytes: bytes.to_vec(),
                    ends_piece,
                    is_last: ends_piece && is_end,
                };
                number += 1;
                self.pace.take(bytes.len()).await;
                let answer =
                    self.ask(RaftMessage::Snapshot(part), RPCTypes::InstallSnapshot, option.soft_ttl()).await?;
                if let RaftAnswer::Installed(vote) = answer {
                    return Ok(SnapshotResponse::new(Vote::from(vote)));
                }
                if answer != RaftAnswer::Part {
                    return Err(senseless(&answer));
                }
            }
            if is_end {
                return Err(broken("the snapshot was sent and is not installed".to_owned()));
            }
        }
    }
}
