//! What a shard is asked, each with the port for its answer.

use bincode::{Decode, Encode};
use proffer_engine::budget::escrow::EscrowReport;
use proffer_engine::decide::request::Request;
use proffer_engine::keys::{CustomerId, OfferKey, TenantId};
use proffer_engine::profile::command::{AccountId, EscrowMessage, Position, ShardOp};
use proffer_engine::profile::measuring::EventRequest;
use proffer_engine::profile::shard::ShardState;
use proffer_engine::time::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use crate::calls::{Call, ProfileView, RespondRequest, Responded};
use crate::error::Error;
use crate::shard::trial::{Inputs, Raw};

/// Where an answer goes, with what is known of the attempts made so far.
pub(crate) struct Reply<T> {
    port: oneshot::Sender<Result<T, Error>>,
    in_doubt: bool,
    /// The call's place in the shard, given back when it is answered.
    place: Option<OwnedSemaphorePermit>,
}

impl<T> Reply<T> {
    pub(crate) fn new(port: oneshot::Sender<Result<T, Error>>) -> Self {
        Reply { port, in_doubt: false, place: None }
    }

    /// Holds a place until the answer is given.
    pub(crate) fn hold(&mut self, place: OwnedSemaphorePermit) {
        self.place = Some(place);
    }

    /// It is not known what became of an attempt: however the next ones end, none of them can say that nothing was applied.
    pub(crate) fn doubt(&mut self) {
        self.in_doubt = true;
    }

    /// Nobody waits for the answer any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.port.is_closed()
    }

    /// Answers. The caller may have stopped waiting.
    pub(crate) fn send(self, result: Result<T, Error>) {
        let in_doubt = self.in_doubt;
        let _ = self.port.send(result.map_err(|error| if in_doubt { error.in_doubt() } else { error }));
    }
}

/// Whose share of a shard's room a call uses.
pub(crate) enum Lane {
    /// The cluster's own: escrow, fences, ticks.
    Own,
    /// A tenant's request.
    Request(TenantId),
    /// A tenant's bulk write.
    Bulk(TenantId),
}

/// One call to a shard.
pub(crate) enum Ask {
    Decide(Box<DecideAsk>),
    Respond(Box<RespondAsk>),
    Write(WriteAsk),
    Read(ReadAsk),
    /// The ledger's totals.
    Notice(Notice),
}

impl Ask {
    /// How many deeds of about the same cost it is.
    pub(crate) fn deeds(&self) -> usize {
        match self {
            Ask::Decide(_) | Ask::Respond(_) | Ask::Read(_) | Ask::Notice(_) => 1,
            Ask::Write(write) => write.ops.len().max(1),
        }
    }

    /// Holds a place until it is answered.
    pub(crate) fn hold(&mut self, place: OwnedSemaphorePermit) {
        match self {
            Ask::Decide(ask) => ask.reply.hold(place),
            Ask::Respond(ask) => ask.reply.hold(place),
            Ask::Write(write) => write.reply.hold(place),
            Ask::Read(ReadAsk::Profile { reply, .. }) => reply.hold(place),
            Ask::Read(ReadAsk::Inputs { reply, .. }) => reply.hold(place),
            Ask::Read(ReadAsk::State { reply }) => reply.hold(place),
            Ask::Read(ReadAsk::Escrow { reply, .. }) => reply.hold(place),
            Ask::Notice(_) => {}
        }
    }

    /// Nobody waits for its answer any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        match self {
            Ask::Decide(ask) => ask.reply.is_abandoned(),
            Ask::Respond(ask) => ask.reply.is_abandoned(),
            Ask::Write(write) => write.reply.is_abandoned(),
            Ask::Read(read) => read.is_abandoned(),
            Ask::Notice(_) => false,
        }
    }

    /// Answers that it failed.
    pub(crate) fn fail(self, error: Error) {
        match self {
            Ask::Decide(ask) => ask.reply.send(Err(error)),
            Ask::Respond(ask) => ask.reply.send(Err(error)),
            Ask::Write(write) => write.reply.send(Err(error)),
            Ask::Read(ReadAsk::Profile { reply, .. }) => reply.send(Err(error)),
            Ask::Read(ReadAsk::Inputs { reply, .. }) => reply.send(Err(error)),
            Ask::Read(ReadAsk::State { reply }) => reply.send(Err(error)),
            Ask::Read(ReadAsk::Escrow { reply, .. }) => reply.send(Err(error)),
            Ask::Notice(_) => {}
        }
    }
}

/// A decision to make, with what became of it so far.
pub(crate) struct DecideAsk {
    pub(crate) request: Request,
    pub(crate) call: Call,
    pub(crate) reply: Reply<Raw>,
    /// Offers that `apply` refused: not proposed again in this answer.
    pub(crate) masked: Vec<OfferKey>,
    /// How often `apply` refused what it takes.
    pub(crate) contended: u8,
    /// How often the log refused it.
    pub(crate) proposed: u8,
    /// It has waited for escrow: it takes what there is now.
    pub(crate) waited: bool,
}

impl DecideAsk {
    pub(crate) fn new(request: Request, call: Call, reply: Reply<Raw>) -> Self {
        DecideAsk { request, call, reply, masked: Vec::new(), contended: 0, proposed: 0, waited: false }
    }

    /// Answers, and gives the request back with it.
    pub(crate) fn answer(self, raw: Box<Raw>) {
        self.reply.send(Ok(Raw { request: Some(Box::new(self.request)), ..*raw }));
    }
}

/// Something that happened, to record.
pub(crate) struct RespondAsk {
    pub(crate) told: Told,
    pub(crate) call: Call,
    pub(crate) reply: Reply<Responded>,
    /// How often the log refused it.
    pub(crate) proposed: u8,
}

/// What happened.
pub(crate) enum Told {
    /// An outcome.
    Outcome(RespondRequest),
    /// Anything else that metrics may look at.
    Event(EventRequest),
}

impl Told {
    /// Whose catalogue says what it counts for.
    pub(crate) fn tenant(&self) -> &TenantId {
        match self {
            Told::Outcome(request) => &request.tenant,
            Told::Event(request) => &request.tenant,
        }
    }

    /// Whom it happened to.
    pub(crate) fn customer(&self) -> &CustomerId {
        match self {
            Told::Outcome(request) => &request.customer,
            Told::Event(request) => &request.customer,
        }
    }
}

/// Deeds that need no catalogue: applied in order.
pub(crate) struct WriteAsk {
    pub(crate) ops: Vec<ShardOp>,
    /// `None`: the cluster's own, which does not lapse.
    pub(crate) deadline: Option<Instant>,
    /// Told how many were applied.
    pub(crate) reply: Reply<usize>,
}

/// Questions about a shard's state.
pub(crate) enum ReadAsk {
    /// A profile.
    Profile { tenant: TenantId, customer: CustomerId, reply: Reply<Option<ProfileView>> },
    /// Everything a decision reads, copied.
    Inputs { request: Request, reply: Reply<Inputs> },
    /// The committed state, shared, and the entry it stands at.
    State { reply: Reply<(ShardState, Position)> },
    /// What the shard holds of accounts; those it never heard of are left out.
    Escrow { accounts: Vec<AccountId>, reply: Reply<Vec<Held>> },
}

impl ReadAsk {
    /// Nobody waits for the answer any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        match self {
            ReadAsk::Profile { reply, .. } => reply.is_abandoned(),
            ReadAsk::Inputs { reply, .. } => reply.is_abandoned(),
            ReadAsk::State { reply } => reply.is_abandoned(),
            ReadAsk::Escrow { reply, .. } => reply.is_abandoned(),
        }
    }
}

/// What a shard holds of one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Held {
    pub(crate) account: AccountId,
    pub(crate) granted_seen: u64,
    pub(crate) returned: u64,
    pub(crate) minted: u64,
    pub(crate) free: u64,
    pub(crate) reserved: u64,
    pub(crate) spent: u64,
    pub(crate) as_of: Timestamp,
}

/// What the ledger tells a shard.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notice {
    /// Which generation of the shard it is told to.
    pub(crate) generation: u64,
    pub(crate) messages: Vec<EscrowMessage>,
    /// The reports that it answers: what they said is booked.
    pub(crate) booked: Vec<EscrowReport>,
}
