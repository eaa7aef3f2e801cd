//! One command, one outcome: the same on every replica and on the leader's pending view. A refused command changes nothing.

use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::budget::escrow::EscrowAccount;
use crate::codec::encode;
use crate::keys::{CapKey, OfferKey, Revision, Symbol, TenantId};
use crate::limits::{
    ATTRIBUTE_BYTES, ATTRIBUTES_PER_PROFILE, NAMES_PER_TENANT, ROWS_PER_PROFILE, SEGMENTS_PER_PROFILE,
    VALUE_BYTES_PER_PROFILE,
};
use crate::profile::cells::{Cells, Look, ProfileId};
use crate::profile::command::{
    DecisionId, EscrowMessage, FirstAnswer, Position, PutProfile, PutRow, ShardCommand, ShardCommandV1, ShardOp,
};
use crate::profile::draft::Draft;
use crate::profile::state::{Dealings, Named, Profile};
use crate::profile::symbols::Symbols;
use crate::time::Timestamp;
use crate::value::Value;

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Outcome {
    /// Of a take.
    Took(Took),
    /// Of a respond.
    Responded(Responded),
    /// Of a release: so many units were given back.
    Released {
        /// Reservations that no longer are.
        units: u32,
    },
    /// A profile, a row, a fence, escrow totals or the passing of time: done.
    Done,
    /// Nothing was changed.
    Refused(Refusal),
}

/// See [`Outcome::Took`].
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Took {
    /// The decision that holds the units: the first one if this is a retry.
    pub decision: DecisionId,
    /// When that was.
    pub at: Timestamp,
    /// Of a retry: the first answer. `None`: the command's own was taken.
    pub first_answer: Option<Arc<FirstAnswer>>,
}

/// See [`Outcome::Responded`]; fields as on the wire (domain.md §5). `recorded` is always true.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Responded {
    /// The key was answered before: this is that answer, nothing was counted again.
    pub duplicate: bool,
    /// A unit it would have used had lapsed.
    pub late: bool,
    /// The proposition had this outcome already: stored, uncounted.
    pub repeat: bool,
    /// A limit had no unit left: stored, uncounted there.
    pub over_cap: bool,
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Encode, Decode, thiserror::Error)]
pub enum Refusal {
    /// Another leader's entry.
    #[error("decided by another leader than the one that wrote it")]
    WrongLeader,
    /// Decided under a catalogue too old: decide again.
    #[error("decided under a revision before {need}")]
    Fenced {
        /// Oldest revision that will do.
        need: Revision,
    },
    /// Units are gone: decide again without these offers.
    #[error("a cap or policy has no unit left for {} offers", offers.len())]
    CapRefused {
        /// Offers to mask.
        offers: Vec<OfferKey>,
        /// Caps without a unit (policies and the mandatory limit are not among them).
        caps: Vec<CapKey>,
    },
    /// The key was used with another body.
    #[error("idempotency key was used with another body")]
    IdempotencyConflict,
    /// The decision is in the log already.
    #[error("decision is already applied")]
    DecisionRepeated,
    /// The profile or its shard holds as many answered keys as it may.
    #[error("as many idempotency keys are held as may be")]
    KeyTableFull,
    /// The tenant has as many names of attributes and segments as it may.
    #[error("the tenant has as many attribute and segment names as it may")]
    NamesFull,
    /// Too many or too large attributes, segments, columns or rows.
    #[error("the profile is larger than it may be")]
    ProfileTooLarge,
    /// The command contradicts itself.
    #[error("malformed command: {0}")]
    Malformed(String),
}

/// Applies the command that stands at `position`. A refusal changes nothing, not even log time. Cost: the profile's own
/// history and what the command touches; a tick costs what has fallen due.
pub fn apply<C: Cells>(cells: &mut C, position: Position, command: &ShardCommand) -> Outcome {
    let ShardCommand::V1(command) = command;
    let now = command.now.max(cells.log_time());
    let mut draft = Draft::new(&*cells, now);
    match run(&mut draft, position, command) {
        Ok(outcome) => {
            let writes = draft.finish();
            writes.commit(cells, now);
            outcome
        }
        Err(refusal) => Outcome::Refused(refusal),
    }
}

fn run<L: Look>(draft: &mut Draft<'_, L>, position: Position, command: &ShardCommandV1) -> Result<Outcome, Refusal> {
    if command.leader != position.leader {
        return Err(Refusal::WrongLeader);
    }
    let need = draft.look().fence();
    if was_decided(&command.op) && command.revision < need {
        return Err(Refusal::Fenced { need });
    }
    match &command.op {
        ShardOp::PutProfile(put) => put_profile(draft, put),
        ShardOp::PutRow(put) => put_row(draft, put),
        ShardOp::DeleteProfile { tenant, customer } => {
            let id = ProfileId { tenant: tenant.clone(), customer: customer.clone() };
            let mut profile = draft.open_profile(&id);
            let mut left = Profile::default();
            if let Some(mut dealings) = profile.dealings.take() {
                dealings.give_back(draft, |_| true);
                // A retry of an outcome must not count again: that needs hashes and flags, and nothing of the person. What
                // decisions took was given back, so their answers go.
                let keyed = std::mem::take(&mut dealings.keyed).of_outcomes();
                left.dealings = (!keyed.is_empty()).then(|| Box::new(Dealings { keyed, ..Dealings::default() }));
            }
            draft.store_profile(id, left);
            Ok(Outcome::Done)
        }
        ShardOp::Take(take) => draft.take(take),
        ShardOp::Respond(respond) => draft.respond(respond),
        ShardOp::Release(release) => {
            let id = ProfileId { tenant: release.tenant.clone(), customer: release.customer.clone() };
            let mut profile = draft.open_profile(&id);
            let units = profile
                .dealings
                .as_mut()
                .map_or(0, |dealings| dealings.release(draft, release.decision, &release.ranks));
            draft.store_profile(id, profile);
            Ok(Outcome::Released { units: u32::try_from(units).unwrap_or(u32::MAX) })
        }
        ShardOp::ClearOptOuts { tenant, customer } => {
            let id = ProfileId { tenant: tenant.clone(), customer: customer.clone() };
            let mut profile = draft.open_profile(&id);
            if let Some(dealings) = profile.dealings.as_mut() {
                dealings.opt_outs.clear();
            }
            draft.store_profile(id, profile);
            Ok(Outcome::Done)
        }
        ShardOp::Tick => Ok(lapse(draft, draft.now())),
        ShardOp::Lapse(through) => Ok(lapse(draft, draft.now().min(*through))),
        ShardOp::Fence(to) => {
            draft.writes().fence = Some(*to);
            Ok(Outcome::Done)
        }
        ShardOp::Level(to) => {
            draft.writes().level = Some(*to);
            Ok(Outcome::Done)
        }
        ShardOp::Escrow(messages) => Ok(receive_all(draft, 0, messages)),
        ShardOp::EscrowOf { generation, messages } => Ok(receive_all(draft, *generation, messages)),
        ShardOp::Measured(measured) => draft.measured(measured),
        ShardOp::Enrolled(enrolled) => draft.enrolled(enrolled),
    }
}

/// Whether a catalogue was looked at to say so.
fn was_decided(op: &ShardOp) -> bool {
    match op {
        ShardOp::Tick
        | ShardOp::Lapse(_)
        | ShardOp::Fence(_)
        | ShardOp::Escrow(_)
        | ShardOp::EscrowOf { .. }
        | ShardOp::Level(_) => false,
        ShardOp::PutProfile(_)
        | ShardOp::PutRow(_)
        | ShardOp::DeleteProfile { .. }
        | ShardOp::Take(_)
        | ShardOp::Respond(_)
        | ShardOp::Release(_)
        | ShardOp::ClearOptOuts { .. }
        | ShardOp::Measured(_)
        | ShardOp::Enrolled(_) => true,
    }
}

/// Takes in the ledger's totals for a generation of the shard; they are nothing to any other.
fn receive_all<L: Look>(draft: &mut Draft<'_, L>, generation: u64, messages: &[EscrowMessage]) -> Outcome {
    if generation == draft.look().generation() {
        for message in messages {
            receive(draft, message);
        }
    }
    Outcome::Done
}

/// Takes out what has lapsed of all that fell due by `through`.
fn lapse<L: Look>(draft: &mut Draft<'_, L>, through: Timestamp) -> Outcome {
    let due = draft.look().due(through);
    for id in due.profiles {
        let profile = draft.open_profile(&id);
        draft.store_profile(id, profile);
    }
    for id in due.accounts {
        draft.account(id);
    }
    Outcome::Done
}

/// Takes in the ledger's totals of one account.
fn receive<L: Look>(draft: &mut Draft<'_, L>, message: &EscrowMessage) {
    let id = message.account;
    if id.ordinal < draft.look().closed_below(id.tenant, id.cap) {
        return;
    }
    let now = draft.now();
    match draft.account(id) {
        Some(account) => {
            account.receive(message, now);
            if message.closed && account.is_settled() {
                draft.forget_account(id);
            }
        }
        None if message.closed => {}
        None => draft.open_account(id, EscrowAccount::open(message, now)),
    }
}

/// Whether a profile can hold these attributes, or a row these columns. For callers that must know before they write.
pub fn are_values_storable(values: &[(String, Value)]) -> bool {
    values.len() <= ATTRIBUTES_PER_PROFILE && encode(&values).len() <= ATTRIBUTE_BYTES
}

/// Whether a profile can hold these segments.
pub fn are_segments_storable(segments: &[String]) -> bool {
    segments.len() <= SEGMENTS_PER_PROFILE && encode(&segments).len() <= ATTRIBUTE_BYTES
}

fn put_profile<L: Look>(draft: &mut Draft<'_, L>, put: &PutProfile) -> Result<Outcome, Refusal> {
    let is_storable = put.attributes.as_deref().is_none_or(are_values_storable)
        && put.segments.as_deref().is_none_or(are_segments_storable);
    if !is_storable {
        return Err(Refusal::ProfileTooLarge);
    }
    let mut names = Names::of(draft.look(), &put.tenant);
    let attributes = put.attributes.as_ref().map(|attributes| names.sort(attributes)).transpose()?;
    let segments: Option<Result<Vec<Symbol>, Refusal>> =
        put.segments.as_ref().map(|segments| segments.iter().map(|name| names.symbol(name)).collect());
    let id = ProfileId { tenant: put.tenant.clone(), customer: put.customer.clone() };
    let mut profile = draft.open_profile(&id);
    if let Some(attributes) = attributes {
        profile.attributes = attributes;
    }
    if let Some(mut segments) = segments.transpose()? {
        segments.sort_unstable();
        segments.dedup();
        profile.segments = segments.into_boxed_slice();
    }
    if profile.value_weight() > VALUE_BYTES_PER_PROFILE {
        return Err(Refusal::ProfileTooLarge);
    }
    draft.writes().names = names.fresh();
    draft.store_profile(id, profile);
    Ok(Outcome::Done)
}

fn put_row<L: Look>(draft: &mut Draft<'_, L>, put: &PutRow) -> Result<Outcome, Refusal> {
    if !are_values_storable(&put.columns) {
        return Err(Refusal::ProfileTooLarge);
    }
    let mut names = Names::of(draft.look(), &put.tenant);
    let columns = names.sort(&put.columns)?;
    let id = ProfileId { tenant: put.tenant.clone(), customer: put.customer.clone() };
    let mut profile = draft.open_profile(&id);
    match profile.rows.binary_search_by_key(&put.schema, |(schema, _)| *schema) {
        Ok(index) => profile.rows[index].1 = columns,
        Err(_) if profile.rows.len() >= ROWS_PER_PROFILE => return Err(Refusal::ProfileTooLarge),
        Err(index) => profile.rows.insert(index, (put.schema, columns)),
    }
    if profile.value_weight() > VALUE_BYTES_PER_PROFILE {
        return Err(Refusal::ProfileTooLarge);
    }
    draft.writes().names = names.fresh();
    draft.store_profile(id, profile);
    Ok(Outcome::Done)
}

/// Looks names up and foresees the symbols that new ones will get.
struct Names<'a> {
    tenant: TenantId,
    known: Option<&'a Symbols>,
    fresh: Vec<Arc<str>>,
}

impl<'a> Names<'a> {
    fn of<L: Look>(look: &'a L, tenant: &TenantId) -> Self {
        Names { tenant: tenant.clone(), known: look.symbols(tenant).map(Arc::as_ref), fresh: Vec::new() }
    }

    fn symbol(&mut self, name: &str) -> Result<Symbol, Refusal> {
        if let Some(symbol) = self.known.and_then(|known| known.find(name)) {
            return Ok(symbol);
        }
        let known = self.known.map_or(0, Symbols::len);
        let index = match self.fresh.iter().position(|fresh| &**fresh == name) {
            Some(index) => index,
            None => {
                self.fresh.push(Arc::from(name));
                self.fresh.len() - 1
            }
        };
        if known + index >= NAMES_PER_TENANT {
            return Err(Refusal::NamesFull);
        }
        Ok(Symbol((known + index) as u32))
    }

    /// Named values in symbol order; of a name given twice the last value holds.
    fn sort(&mut self, named: &[(String, Value)]) -> Result<Named, Refusal> {
        let mut sorted = std::collections::BTreeMap::new();
        for (name, value) in named {
            sorted.insert(self.symbol(name)?, value.clone());
        }
        Ok(sorted.into_iter().collect())
    }

    fn fresh(self) -> Option<(TenantId, Vec<Arc<str>>)> {
        (!self.fresh.is_empty()).then_some((self.tenant, self.fresh))
    }
}
