//! What there is: the ledger, the shards, those whose majority is lost, and every message that was ever sent.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use proffer_cluster::group::Group;
use proffer_cluster::meta::command::{Founding, MetaCommand, MetaCommandV1, MetaOp, MetaOutcome};
use proffer_cluster::meta::roster::NodeInfo;
use proffer_cluster::meta::state::MetaState;
use proffer_engine::budget::escrow::{EscrowAccount, EscrowReport};
use proffer_engine::budget::ledger::{Terms, Totals, Whereabouts};
use proffer_engine::catalog::{Actor, Command, CommandV1, EntityKind, Op};
use proffer_engine::codec::encode;
use proffer_engine::keys::{CapKey, Revision, ShardId, TenantId};
use proffer_engine::profile::apply::{Outcome, apply};
use proffer_engine::profile::cells::Look;
use proffer_engine::profile::command::{
    AccountId, CountEvent, EscrowMessage, Leader, Position, ShardCommand, ShardCommandV1, ShardOp,
};
use proffer_engine::profile::shard::ShardState;
use proffer_engine::time::{Span, Timestamp};
use proffer_engine::value::Value;

use super::{Bounds, Escrow};

pub(super) const ACCOUNT: AccountId = AccountId { tenant: 0, cap: CapKey(0), ordinal: 0 };
const LEADER: Leader = Leader { term: 1, replica: 1 };
const NOW: Timestamp = Timestamp(5);

/// Something that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mail {
    /// From the ledger, for a generation of a shard.
    ToShard(ShardId, u64, EscrowMessage),
    /// From a generation of a shard.
    ToLedger(ShardId, u64, EscrowReport),
}

impl Mail {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Mail::ToShard(shard, generation, message) => encode(&(0_u8, shard, generation, message)),
            Mail::ToLedger(shard, generation, report) => encode(&(1_u8, shard, generation, report)),
        }
    }
}

/// One shard as its majority has it.
#[derive(Clone)]
pub(super) struct Shard {
    /// What the log comes after.
    base: Arc<ShardState>,
    /// What was committed since, where it matters what a survivor may know of it.
    log: Vec<ShardOp>,
    state: ShardState,
    /// What was last said to have been returned.
    told: u64,
    /// What tells it from others; `None` until it is sealed.
    bytes: Option<Arc<[u8]>>,
}

impl Shard {
    pub(super) fn beginning(base: ShardState) -> Self {
        Shard { state: base.clone(), base: Arc::new(base), log: Vec::new(), told: 0, bytes: None }
    }

    pub(super) fn state(&self) -> &ShardState {
        &self.state
    }

    /// Entries committed since it began.
    pub(super) fn entries(&self) -> usize {
        self.log.len()
    }

    /// Applies what was committed.
    pub(super) fn commit(&mut self, now: Timestamp, op: ShardOp, is_logged: bool) -> Outcome {
        if is_logged {
            self.log.push(op.clone());
        }
        self.bytes = None;
        run(&mut self.state, now, op)
    }

    /// The state of a replica that knows so many of the entries.
    pub(super) fn remembered(&self, entries: usize) -> ShardState {
        let mut state = ShardState::clone(&self.base);
        for op in &self.log[..entries] {
            run(&mut state, NOW, op.clone());
        }
        state
    }

    /// Goes on as one that knows what was granted, and not what was done with it.
    pub(super) fn forget(&mut self) {
        self.state = ShardState::clone(&self.base);
        self.bytes = None;
        let is_escrow = |op: &&ShardOp| matches!(op, ShardOp::Escrow(_) | ShardOp::EscrowOf { .. });
        for op in self.log.iter().filter(is_escrow) {
            run(&mut self.state, NOW, op.clone());
        }
    }

    /// How much more it returned than it last told.
    pub(super) fn tell_more(&mut self, returned: u64) -> u64 {
        self.bytes = None;
        returned - std::mem::replace(&mut self.told, returned)
    }

    pub(super) fn account(&self) -> Option<&EscrowAccount> {
        self.state.account(ACCOUNT)
    }

    fn seal(&mut self) {
        let accounts: Vec<_> = self.state.accounts().map(|(id, account)| (id, account.clone())).collect();
        let logged: Vec<Vec<u8>> = self.log.iter().map(encode).collect();
        self.bytes = Some(encode(&(accounts, self.state.generation(), self.told, logged)).into());
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.as_deref().expect("states are sealed before they are compared")
    }
}

/// A shard is shared by all states in which it is the same.
fn seal(shard: &mut Arc<Shard>) {
    if shard.bytes.is_none() {
        Arc::make_mut(shard).seal();
    }
}

fn run(state: &mut ShardState, now: Timestamp, op: ShardOp) -> Outcome {
    let command = ShardCommand::V1(ShardCommandV1 { now, leader: LEADER, revision: Revision(1 << 40), op });
    apply(state, Position { leader: LEADER, index: 1 }, &command)
}

/// See the module.
#[derive(Clone)]
pub struct State {
    pub(super) meta: Arc<MetaState>,
    /// `None` between the loss and the new beginning.
    pub(super) shards: Vec<Option<Arc<Shard>>>,
    /// Lost majorities: they may come back in part, hear what is sent to them, sell what they hold, and say so.
    pub(super) lost: Vec<(ShardId, Arc<Shard>)>,
    /// Whether the ledger knows of the loss of each.
    pub(super) is_booked: Vec<bool>,
    /// What was sent and is not lost, by its bytes.
    pub(super) mail: BTreeMap<Vec<u8>, Mail>,
    /// Decisions so far: each is another customer's.
    pub(super) decisions: u64,
    /// Acknowledged, and not let go.
    pub(super) taken: u64,
    /// By which shard and decision a unit is held.
    pub(super) held: Vec<(ShardId, u64)>,
    /// Time goes by while all heals, and stands before: what was used within the last second is no secret of the protocol.
    pub(super) now: Timestamp,
    /// How many of the limits were in force.
    pub(super) limits: usize,
    highest_limit: u64,
    /// What tells the ledger from others; `None` until it is sealed.
    meta_bytes: Option<Arc<[u8]>>,
}

impl State {
    /// A cluster with one offer, whose cap has an account.
    pub(super) fn new(bounds: &Bounds) -> Self {
        let shards = (0..bounds.shards).map(|_| Some(Arc::new(Shard::beginning(ShardState::new())))).collect();
        let limit = bounds.limits[0];
        let mut state = State {
            meta: Arc::new(MetaState::new()),
            shards,
            lost: Vec::new(),
            is_booked: Vec::new(),
            mail: BTreeMap::new(),
            decisions: 0,
            taken: 0,
            held: Vec::new(),
            now: NOW,
            limits: 1,
            highest_limit: limit,
            meta_bytes: None,
        };
        let body = Value::map([("name", Value::text("one")), ("caps", caps(limit))]);
        let terms = Terms { limit, span: Span::ALWAYS, unit: 1, cooling_ms: 0, soft: false };
        let first = [
            MetaOp::Found(Founding { secret: [1; 16], shards: bounds.shards }),
            MetaOp::Enroll(NodeInfo { disk: 1, boots: 1, ..NodeInfo::default() }),
            change(Op::CreateTenant),
            change(Op::Create { kind: EntityKind::Offer, id: "one".to_owned(), body }),
            MetaOp::Open(vec![(ACCOUNT, terms)]),
        ];
        for op in first {
            // Every shard has heard of the account. A survivor that has not is one that knows none of the entries.
            for mail in state.commit(op) {
                let Mail::ToShard(shard, generation, message) = mail else { continue };
                let of = state.shard(shard).expect("none is lost yet");
                of.commit(NOW, ShardOp::escrow(generation, vec![message]), true);
            }
        }
        state.seal();
        state
    }

    /// A shard that has a majority, to be changed.
    pub(super) fn shard(&mut self, shard: ShardId) -> Option<&mut Shard> {
        self.shards[usize::from(shard.0)].as_mut().map(Arc::make_mut)
    }

    /// Whoever holds something of a shard: the one that has a majority, and those that were lost.
    pub(super) fn holders(&mut self, shard: ShardId) -> impl Iterator<Item = &mut Arc<Shard>> {
        let lost = self.lost.iter_mut().filter(move |(of, _)| *of == shard).map(|(_, lost)| lost);
        self.shards[usize::from(shard.0)].iter_mut().chain(lost)
    }

    /// Applies at the ledger what was committed; what is to be told then.
    pub(super) fn commit(&mut self, op: MetaOp) -> Vec<Mail> {
        // Positions are told from each other where something is named by them, and nowhere else: states are to be equal that are alike.
        let index = 10 + self.limits as u64 + self.meta.roster().last_id();
        let command = MetaCommand::V1(MetaCommandV1 { now: self.now, leader: LEADER, op });
        self.meta_bytes = None;
        let told = match Arc::make_mut(&mut self.meta).apply(Position { leader: LEADER, index }, &command) {
            MetaOutcome::Told(told) => told,
            MetaOutcome::Changed(change) => change.told,
            MetaOutcome::Enrolled { .. } => Vec::new(),
            refused @ (MetaOutcome::Refused(_) | MetaOutcome::WrongLeader | MetaOutcome::Barred(_)) => {
                panic!("the model commits what may be committed: {refused:?}")
            }
        };
        told.into_iter().map(|(shard, message)| Mail::ToShard(shard, self.generation(shard), message)).collect()
    }

    pub(super) fn change_limit(&mut self, limit: u64) -> Vec<Mail> {
        let patch = Value::map([("caps", caps(limit))]);
        self.limits += 1;
        self.highest_limit = self.highest_limit.max(limit);
        self.commit(change(Op::Update { kind: EntityKind::Offer, id: "one".to_owned(), patch, expected: None }))
    }

    pub(super) fn generation(&self, shard: ShardId) -> u64 {
        self.meta.roster().generation(Group::Shard(shard))
    }

    pub(super) fn send(&mut self, mail: Mail) {
        self.mail.insert(mail.bytes(), mail);
    }

    pub(super) fn send_all(&mut self, mail: impl IntoIterator<Item = Mail>) {
        mail.into_iter().for_each(|mail| self.send(mail));
    }

    pub(super) fn lose(&mut self, mail: &Mail) {
        self.mail.remove(&mail.bytes());
    }

    /// Whatever is on its way: nothing is any more.
    pub(super) fn take_mail(&mut self) -> Vec<Mail> {
        std::mem::take(&mut self.mail).into_values().collect()
    }

    /// What the ledger and a shard have told each other, as the ledger knows it.
    pub(super) fn given(&self, shard: ShardId) -> Totals {
        self.meta.ledger().given(ACCOUNT, shard).expect("the account is open")
    }

    pub(super) fn alive(&self) -> impl Iterator<Item = (ShardId, &Shard)> {
        (0..).map(ShardId).zip(&self.shards).filter_map(|(shard, of)| Some((shard, &**of.as_ref()?)))
    }

    /// Makes equal states equal.
    pub(super) fn seal(&mut self) {
        self.held.sort_unstable();
        self.shards.iter_mut().flatten().for_each(seal);
        self.lost.iter_mut().for_each(|(_, shard)| seal(shard));
        if self.meta_bytes.is_none() {
            let shards = (0..self.shards.len() as u16).map(ShardId);
            let generations: Vec<u64> = shards.map(|shard| self.generation(shard)).collect();
            self.meta_bytes = Some(encode(&(self.meta.ledger(), generations)).into());
        }
    }

    fn key(&self) -> impl Hash + PartialEq + '_ {
        let shards: Vec<Option<&[u8]>> = self.shards.iter().map(|of| of.as_deref().map(Shard::bytes)).collect();
        let lost: Vec<(u16, &[u8])> = self.lost.iter().map(|(shard, of)| (shard.0, of.bytes())).collect();
        let held: Vec<(u16, u64)> = self.held.iter().map(|(shard, decision)| (shard.0, *decision)).collect();
        let counts = (self.decisions, self.taken, self.limits, &self.is_booked);
        let mail: Vec<&[u8]> = self.mail.keys().map(Vec::as_slice).collect();
        (&self.meta_bytes, shards, lost, held, counts, mail)
    }

    fn whereabouts(&self) -> Option<Whereabouts> {
        let held = self.alive().filter_map(|(shard, of)| Some((shard, of.account()?)));
        self.meta.ledger().whereabouts(ACCOUNT, held)
    }

    fn is_whole(&self) -> bool {
        self.shards.iter().all(Option::is_some)
    }

    /// Units that the ledger ever granted.
    pub(super) fn granted(&self) -> u64 {
        (0..self.shards.len() as u16).map(|shard| self.given(ShardId(shard)).granted).sum()
    }

    pub(super) fn is_within_limit(&self) -> bool {
        self.taken <= self.highest_limit
    }

    /// While a shard has no majority nobody can say where its units are.
    pub(super) fn is_identity_kept(&self) -> bool {
        let account = self.meta.ledger().account(ACCOUNT).expect("the account is open");
        let Some(found) = self.whereabouts().filter(|_| self.is_whole()) else { return true };
        let is_covered = found.pool >= 0 || account.limit() < self.highest_limit;
        found.total() == i128::from(account.limit()) && is_covered && found.in_flight >= 0 && found.free >= 0
    }

    pub(super) fn is_nothing_had_before_given(&self) -> bool {
        self.alive().all(|(shard, of)| {
            let (given, Some(account)) = (self.given(shard), of.account()) else { return true };
            account.granted_seen() <= given.granted && given.returned <= account.returned()
        })
    }

    pub(super) fn highest_limit(&self) -> u64 {
        self.highest_limit
    }

    pub(super) fn was_granted_again(&self) -> bool {
        self.granted() > self.highest_limit
    }

    /// From here on everything arrives: nothing stays in flight, and what is left can be sold by any one shard. Units that a lost majority may
    /// have spent are spent.
    pub(super) fn is_settled_after_healing(&self, model: &Escrow) -> bool {
        let mut healed = self.clone();
        let model = Escrow { bounds: Bounds { takes: u64::MAX, ..model.bounds.clone() }, ..model.clone() };
        model.heal(&mut healed, None);
        let Some(found) = healed.whereabouts() else { return false };
        if found.in_flight != 0 || !healed.is_whole() {
            return false;
        }
        if !self.lost.is_empty() {
            return true;
        }
        let limit = healed.meta.ledger().account(ACCOUNT).expect("the account is open").limit();
        let before = healed.taken;
        let mut tries = 0;
        while healed.taken < limit && tries <= 2 * limit {
            if !model.decide(&mut healed, ShardId(0), CountEvent::Decision) {
                model.heal(&mut healed, Some(ShardId(0)));
                tries += 1;
            }
        }
        healed.taken == limit.max(before)
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.key().hash(hasher);
    }
}

impl fmt::Debug for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let accounts: Vec<_> = self.alive().map(|(shard, of)| (shard, of.account())).collect();
        formatter
            .debug_struct("State")
            .field("ledger", self.meta.ledger())
            .field("shards", &accounts)
            .field("taken", &self.taken)
            .finish_non_exhaustive()
    }
}

fn caps(limit: u64) -> Value {
    Value::list([Value::map([("scope", Value::text("global")), ("limit", Value::Number(limit as f64))])])
}

fn change(op: Op) -> MetaOp {
    let actor = Actor { name: "model".to_owned(), admin: true };
    MetaOp::Change(Command::V1(CommandV1 { tenant: TenantId::new("acme"), actor, at: NOW, op }))
}
