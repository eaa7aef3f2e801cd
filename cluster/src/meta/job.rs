//! What the catalogue's leader has in its hands: calls that change it, and the space of an entry.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proffer_engine::budget::escrow::EscrowReport;
use proffer_engine::catalog::{self, CommandV1, EntityKind, Op};
use proffer_engine::keys::{Revision, ShardId, TenantId};
use proffer_engine::profile::command::{AccountId, EscrowMessage};
use proffer_engine::value::Value;
use tokio::sync::oneshot;

use crate::calls::Changed;
use crate::error::Error;
use crate::meta::ask::Reply;
use crate::meta::command::MetaOutcome;
use crate::meta::door::Room;
use crate::meta::keeper::Errand;

/// What one entry may still take.
pub(super) struct Space {
    pub(super) bytes: usize,
    pub(super) commands: usize,
    /// What is written in it, and by which job.
    written: BTreeMap<(TenantId, String), u64>,
}

impl Space {
    pub(super) fn new(bytes: usize, commands: usize) -> Self {
        Space { bytes, commands, written: BTreeMap::new() }
    }

    /// Whether a job may change this in the entry. An entry is one revision: were two callers told the same one of what they wrote, the
    /// first could not tell by it that the second came after.
    pub(super) fn admits(&mut self, job: u64, command: &catalog::Command) -> bool {
        let catalog::Command::V1(CommandV1 { tenant, op, .. }) = command;
        let written = match op {
            Op::Update { kind, id, .. } => format!("{kind:?} {id}"),
            Op::UpdateSettings { .. } => "settings".to_owned(),
            Op::CreateTenant
            | Op::Create { .. }
            | Op::Delete { .. }
            | Op::PublishFlow { .. }
            | Op::RollbackFlow { .. }
            | Op::PutApiKey { .. }
            | Op::RevokeApiKey { .. } => return true,
        };
        *self.written.entry((tenant.clone(), written)).or_insert(job) == job
    }

    pub(super) fn is_left(&self) -> bool {
        self.bytes > 0 && self.commands > 0
    }

    pub(super) fn take(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.commands = self.commands.saturating_sub(1);
    }
}

/// Who waits for a command of the entry under way.
pub(super) enum Part {
    Change {
        job: u64,
        index: usize,
    },
    Open {
        job: Option<u64>,
    },
    /// What a shard reported.
    Settle(ShardId, Vec<EscrowReport>),
    Roster(Errand),
    /// This node's own enrolment.
    OwnStart,
    Own,
}

/// One call that changes the catalogue.
pub(super) struct Job {
    pub(super) todo: VecDeque<(usize, catalog::Command)>,
    pub(super) answers: Vec<Option<Result<Changed, Error>>>,
    pub(super) reply: Reply<Vec<Result<Changed, Error>>>,
    pub(super) tries: u8,
    pub(super) duties: Duties,
    pub(super) urgent: bool,
    pub(super) room: Room,
}

/// What is to be done before a call is acknowledged.
#[derive(Default)]
pub(crate) struct Duties {
    /// The newest revision of its changes.
    pub(crate) revision: Revision,
    /// Whose catalogues they change.
    pub(super) tenants: BTreeSet<TenantId>,
    /// Totals that shards must have.
    pub(crate) told: Vec<(ShardId, EscrowMessage)>,
    /// Every shard must refuse what was decided under an older revision.
    pub(crate) fence: bool,
    /// Accounts whose limit may be exceeded.
    pub(crate) over: Vec<AccountId>,
}

/// A call whose changes are in force, with what is left to do.
pub(crate) struct Acknowledgement {
    pub(crate) answers: Vec<Result<Changed, Error>>,
    pub(crate) reply: Reply<Vec<Result<Changed, Error>>>,
    pub(crate) duties: Duties,
    /// Of which generation the shards are that have to be told.
    pub(crate) generations: BTreeMap<ShardId, u64>,
    pub(crate) room: Room,
    /// Of an exclusion: every shard is to hear of this.
    pub(crate) fence: Option<Revision>,
    /// Of an exclusion: comes when no node can decide without it any more.
    pub(crate) fenced: Option<oneshot::Receiver<()>>,
}

/// The totals that an applied command has for shards.
pub(super) fn told_of(outcome: &MetaOutcome) -> &[(ShardId, EscrowMessage)] {
    match outcome {
        MetaOutcome::Changed(change) => &change.told,
        MetaOutcome::Told(told) => told,
        MetaOutcome::Refused(_) | MetaOutcome::WrongLeader | MetaOutcome::Enrolled { .. } | MetaOutcome::Barred(_) => {
            &[]
        }
    }
}

/// Whether a change may exclude an offer, or take a key or its roles away: then no node may decide or let anybody in under an older
/// catalogue, and no shard take, once it is acknowledged.
pub(super) fn is_exclusion(command: &catalog::Command) -> bool {
    let catalog::Command::V1(CommandV1 { op, .. }) = command;
    match op {
        Op::Update { kind: EntityKind::Offer, patch, .. } => {
            patch.as_map().and_then(|members| members.get("emergencyExcluded")) == Some(&Value::Bool(true))
        }
        // Putting a key that exists may leave it fewer roles.
        Op::PutApiKey { .. } | Op::RevokeApiKey { .. } => true,
        Op::CreateTenant
        | Op::Create { .. }
        | Op::Update { .. }
        | Op::Delete { .. }
        | Op::PublishFlow { .. }
        | Op::RollbackFlow { .. }
        | Op::UpdateSettings { .. } => false,
    }
}
