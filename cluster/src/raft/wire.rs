//! Messages between replicas. Openraft's own types are no format: what is sent is ours, and versioned by the peers' protocol.

use bincode::{Decode, Encode};
use openraft::entry::RaftEntry;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use proffer_engine::codec::DecodeError;
use proffer_engine::profile::command::Position;

use super::stored::{VoteBytes, decode_entry, encode_entry, log_id_of};
use super::types::{Entry, LogId, Types, Vote, position_of};

/// What a replica asks of another.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) enum RaftMessage {
    /// Take entries (or none: a heartbeat), and learn what is committed.
    Append(Append),
    /// Vote for me.
    Vote(Ballot),
    /// Would you?
    PreVote(Ballot),
    /// Lead in my place.
    Transfer { from: VoteBytes, to: u64, last: Option<Position> },
    /// A part of a snapshot.
    Snapshot(Part),
}

/// See [`RaftMessage::Append`].
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct Append {
    vote: VoteBytes,
    previous: Option<Position>,
    /// Index of the first entry.
    first: u64,
    entries: Vec<Vec<u8>>,
    committed: Option<Position>,
}

/// See [`RaftMessage::Vote`].
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct Ballot {
    vote: VoteBytes,
    last: Option<Position>,
    transfer: bool,
}

/// Snapshots go in parts, each answered before the next is sent: that is what bounds them on both sides.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct Part {
    /// The sender's vote.
    pub(super) vote: VoteBytes,
    /// What the snapshot is of, encoded.
    pub(super) meta: Vec<u8>,
    /// Which part, from 0 on.
    pub(super) number: u64,
    /// Bytes of a piece.
    pub(super) bytes: Vec<u8>,
    /// Whether they are the last of their piece.
    pub(super) ends_piece: bool,
    /// Whether it is the last part.
    pub(super) is_last: bool,
}

/// What the other answers.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) enum RaftAnswer {
    Append(Appended),
    Vote {
        vote: VoteBytes,
        granted: bool,
        last: Option<Position>,
    },
    /// A leader's handing over was heard; or not, and why.
    Transfer(Result<(), String>),
    /// A part of a snapshot is kept; more, please.
    Part,
    /// The snapshot is installed, or refused by a newer vote.
    Installed(VoteBytes),
    /// The replica cannot answer now; the sender tries again later.
    Failed(String),
}

/// See [`RaftAnswer::Append`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Appended {
    All,
    Through(Option<Position>),
    Conflict,
    HigherVote(VoteBytes),
}

fn position(id: &Option<LogId>) -> Option<Position> {
    id.as_ref().map(position_of)
}

impl Append {
    pub(super) fn new(request: &AppendEntriesRequest<Types>) -> Self {
        Append {
            vote: (&request.vote).into(),
            previous: position(&request.prev_log_id),
            first: request.entries.first().map_or(0, RaftEntry::index),
            entries: request.entries.iter().map(encode_entry).collect(),
            committed: position(&request.leader_commit),
        }
    }

    /// The request, if a leader can have sent it: openraft takes for granted that entries follow each other, and that no leader
    /// writes in the name of a later one.
    pub(super) fn read(self) -> Result<AppendEntriesRequest<Types>, DecodeError> {
        let wrong = |reason: &str| Err(DecodeError::new("entries from another replica", reason.to_owned()));
        let expected = self.previous.map_or(0, |previous| previous.index.saturating_add(1));
        if !self.entries.is_empty() && self.first != expected {
            return wrong("they do not follow the entry before them");
        }
        let entries = (self.first..).zip(&self.entries).map(|(index, bytes)| decode_entry(index, bytes));
        let entries: Vec<Entry> = entries.collect::<Result<_, _>>()?;
        let vote = Vote::from(self.vote);
        let mut before = self.previous.map(log_id_of).map(|previous| previous.leader_id);
        for entry in &entries {
            let leader = Some(entry.log_id.leader_id);
            if leader < before || leader > Some(vote.leader_id) {
                return wrong("their leaders are not in order");
            }
            before = leader;
        }
        Ok(AppendEntriesRequest {
            vote,
            prev_log_id: self.previous.map(log_id_of),
            entries,
            leader_commit: self.committed.map(log_id_of),
        })
    }
}

impl Appended {
    pub(super) fn new(response: &AppendEntriesResponse<Types>) -> Self {
        match response {
            AppendEntriesResponse::Success => Appended::All,
            AppendEntriesResponse::PartialSuccess(through) => Appended::Through(position(through)),
            AppendEntriesResponse::Conflict => Appended::Conflict,
            AppendEntriesResponse::HigherVote(vote) => Appended::HigherVote(vote.into()),
        }
    }

    pub(super) fn read(self) -> AppendEntriesResponse<Types> {
        match self {
            Appended::All => AppendEntriesResponse::Success,
            Appended::Through(through) => AppendEntriesResponse::PartialSuccess(through.map(log_id_of)),
            Appended::Conflict => AppendEntriesResponse::Conflict,
            Appended::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote.into()),
        }
    }
}

impl Ballot {
    pub(super) fn new(request: &VoteRequest<Types>) -> Self {
        Ballot {
            vote: (&request.vote).into(),
            last: position(&request.last_log_id),
            transfer: request.leadership_transfer,
        }
    }

    pub(super) fn read(self) -> VoteRequest<Types> {
        let mut request = VoteRequest::new(self.vote.into(), self.last.map(log_id_of));
        request.leadership_transfer = self.transfer;
        request
    }
}

impl RaftAnswer {
    pub(super) fn of_vote(response: &VoteResponse<Types>) -> Self {
        RaftAnswer::Vote {
            vote: (&response.vote).into(),
            granted: response.vote_granted,
            last: position(&response.last_log_id),
        }
    }
}

#[cfg(test)]
mod tests {
    use proffer_engine::codec::{decode, encode};
    use proffer_engine::profile::command::Leader;

    use super::super::types::leader_id;
    use super::*;
    use crate::peers::PROTOCOLS;

    const LEADER: Leader = Leader { term: 7, replica: 300 };
    const AT: Position = Position { leader: LEADER, index: 9 };

    #[test]
    fn bytes_of_protocol_1() {
        assert_eq!(PROTOCOLS, (1, 1), "a new protocol has golden bytes of its own beside these");
        let vote = VoteBytes::from(&Vote { leader_id: leader_id(LEADER), committed: true });
        let last = Some(AT);
        let append = Append { vote, previous: last, first: 10, entries: vec![vec![1, 2]], committed: None };
        let ballot = Ballot { vote, last, transfer: true };
        let part = Part { vote, meta: vec![3], number: 4, bytes: vec![5, 6], ends_piece: true, is_last: false };
        let messages: [(RaftMessage, &[u8]); 5] = [
            (RaftMessage::Append(append), &[0, 7, 251, 44, 1, 1, 1, 7, 251, 44, 1, 9, 10, 1, 2, 1, 2, 0]),
            (RaftMessage::Vote(ballot.clone()), &[1, 7, 251, 44, 1, 1, 1, 7, 251, 44, 1, 9, 1]),
            (RaftMessage::PreVote(ballot), &[2, 7, 251, 44, 1, 1, 1, 7, 251, 44, 1, 9, 1]),
            (
                RaftMessage::Transfer { from: vote, to: 300, last },
                &[3, 7, 251, 44, 1, 1, 251, 44, 1, 1, 7, 251, 44, 1, 9],
            ),
            (RaftMessage::Snapshot(part), &[4, 7, 251, 44, 1, 1, 1, 3, 4, 2, 5, 6, 1, 0]),
        ];
        for (message, bytes) in messages {
            assert_eq!(encode(&message), bytes, "{message:?}");
            assert_eq!(decode::<RaftMessage>("message", bytes).unwrap(), message);
        }
        let answers: [(RaftAnswer, &[u8]); 10] = [
            (RaftAnswer::Append(Appended::All), &[0, 0]),
            (RaftAnswer::Append(Appended::Through(last)), &[0, 1, 1, 7, 251, 44, 1, 9]),
            (RaftAnswer::Append(Appended::Conflict), &[0, 2]),
            (RaftAnswer::Append(Appended::HigherVote(vote)), &[0, 3, 7, 251, 44, 1, 1]),
            (RaftAnswer::Vote { vote, granted: true, last }, &[1, 7, 251, 44, 1, 1, 1, 1, 7, 251, 44, 1, 9]),
            (RaftAnswer::Transfer(Ok(())), &[2, 0]),
            (RaftAnswer::Transfer(Err("no".to_owned())), &[2, 1, 2, b'n', b'o']),
            (RaftAnswer::Part, &[3]),
            (RaftAnswer::Installed(vote), &[4, 7, 251, 44, 1, 1]),
            (RaftAnswer::Failed("no".to_owned()), &[5, 2, b'n', b'o']),
        ];
        for (answer, bytes) in answers {
            assert_eq!(encode(&answer), bytes, "{answer:?}");
            assert_eq!(decode::<RaftAnswer>("answer", bytes).unwrap(), answer);
        }
    }
}
