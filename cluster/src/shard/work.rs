//! What a turn has in its hands: work to do, deeds on their way into the log, answers that wait for it.

use std::sync::Arc;

use proffer_engine::profile::apply::Outcome;
use proffer_engine::profile::command::{ShardCommand, ShardCommandV1, ShardOp};
use proffer_engine::profile::pending::Sequence;

use crate::error::Error;
use crate::shard::ask::{Ask, DecideAsk, ReadAsk, RespondAsk};
use crate::shard::leader::Command;
use crate::shard::tally::Tally;
use crate::shard::trial::Raw;

/// A command on its way into the log.
pub(super) struct Deed {
    pub(super) sequence: Sequence,
    pub(super) command: Command,
    pub(super) bytes: usize,
    /// What the leader's own `apply` gave.
    pub(super) expected: Outcome,
    pub(super) origin: Origin,
    /// Stands in the same entry as the one after it: one cannot be applied without the other.
    pub(super) joined: bool,
}

/// Who waits for a deed.
pub(super) enum Origin {
    Decide(Box<DecideAsk>, Box<Raw>),
    Respond(Box<RespondAsk>),
    Write(Arc<Tally>),
    /// Nobody: ticks and escrow.
    Own,
    /// Nobody any more: whoever did was told that it is not known. It may still be applied, and is not begun again.
    Doubted,
}

/// A finished answer that waits for what it has read to commit.
pub(super) struct Waiter {
    pub(super) until: Sequence,
    pub(super) answer: Answer,
}

pub(super) enum Answer {
    Decide(Box<DecideAsk>, Box<Raw>),
    /// Read again when it is time: cheaper than to keep what it would have said.
    Read(ReadAsk),
    /// Refused for what is pending.
    Refused(Work, Error),
}

impl Answer {
    /// Nobody waits for it any more.
    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Answer::Decide(ask, _) => ask.reply.is_abandoned(),
            Answer::Read(read) => read.is_abandoned(),
            Answer::Refused(work, _) => work.is_abandoned(),
        }
    }
}

/// Something to do.
pub(super) enum Work {
    Ask(Ask),
    Op(ShardOp, Arc<Tally>),
    Own(ShardOp),
}

impl Work {
    /// Nobody waits for it any more.
    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Work::Ask(ask) => ask.is_abandoned(),
            Work::Op(_, tally) => tally.is_abandoned(),
            Work::Own(_) => false,
        }
    }
}

impl Origin {
    /// Doing it twice does no harm: it names its result, or carries a key.
    pub(super) fn may_be_repeated(&self) -> bool {
        match self {
            Origin::Decide(ask, _) => ask.call.idempotency.is_some(),
            Origin::Respond(ask) => ask.call.idempotency.is_some(),
            Origin::Write(_) | Origin::Own => true,
            Origin::Doubted => false,
        }
    }

    /// Somebody waits for what becomes of it.
    pub(super) fn is_awaited(&self) -> bool {
        match self {
            Origin::Decide(..) | Origin::Respond(_) | Origin::Write(_) => true,
            Origin::Own | Origin::Doubted => false,
        }
    }

    /// Counts one more attempt and says how many there were.
    pub(super) fn count_try(&mut self) -> u8 {
        let tries = match self {
            Origin::Decide(ask, _) => &mut ask.proposed,
            Origin::Respond(ask) => &mut ask.proposed,
            Origin::Write(tally) => return tally.count_try(),
            Origin::Own | Origin::Doubted => return 1,
        };
        *tries = tries.saturating_add(1);
        *tries
    }

    /// The same from the beginning, if it is to be begun again.
    pub(super) fn into_work(self, command: &Command) -> Option<Work> {
        let ShardCommand::V1(ShardCommandV1 { op, .. }) = &**command;
        Some(match self {
            Origin::Decide(ask, _) => Work::Ask(Ask::Decide(ask)),
            Origin::Respond(ask) => Work::Ask(Ask::Respond(ask)),
            Origin::Write(tally) => Work::Op(op.clone(), tally),
            Origin::Own => Work::Own(op.clone()),
            Origin::Doubted => return None,
        })
    }

    /// It may have been applied, and is tried again.
    pub(super) fn doubt(&mut self) {
        match self {
            Origin::Decide(ask, _) => ask.reply.doubt(),
            Origin::Respond(ask) => ask.reply.doubt(),
            Origin::Write(tally) => tally.doubt(),
            Origin::Own | Origin::Doubted => {}
        }
    }
}
