//! Deciding outside a shard's turn, on a copy of what it reads: dry runs, and the long way of explaining a decision.

use std::sync::Arc;

use proffer_engine::decide::decision::{Decision, Explanation, Proposition};
use proffer_engine::decide::request::{Explain, Request};
use proffer_engine::decide::trace::{Contention, Noting, Read, Trace};
use proffer_engine::decide::view::Instant as Moment;
use proffer_engine::decide::{Scratch, decide as decide_on};
use proffer_engine::keys::OfferKey;
use proffer_engine::learn::Learned;
use proffer_engine::profile::cells::{Look, ProfileId};
use proffer_engine::profile::command::DecisionId;
use proffer_engine::profile::pending::Pending;
use proffer_engine::profile::shard::ShardState;
use proffer_engine::snapshot::Binding;

use crate::calls::Decided;
use crate::shard::deciding::Searched;
use crate::view::TenantView;

/// Everything a decision reads. The state shares its chunks with the shard's: a copy is made of what is written meanwhile.
#[derive(Debug)]
pub(crate) struct Inputs {
    pub(crate) state: ShardState,
    pub(crate) pending: Pending,
    pub(crate) view: Arc<TenantView>,
    pub(crate) learned: Arc<Learned>,
    pub(crate) request: Request,
    pub(crate) at: Moment,
    pub(crate) seed: u64,
    /// Offers that others took the last unit of while this was decided: the request excludes them too.
    pub(crate) masked: Vec<OfferKey>,
    /// Nothing was free: others took it again and again.
    pub(crate) barren: bool,
}

/// A decision as a turn leaves it.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) decided: Decided,
    /// What it was decided on, if it is still to be explained.
    pub(crate) inputs: Option<Box<Inputs>>,
    /// What was asked, once it is answered.
    pub(crate) request: Option<Box<Request>>,
}

impl Inputs {
    /// Decides: the same inputs give the same bytes as in the turn.
    pub(crate) fn decide(&self) -> Decision {
        let look = self.pending.view(&self.state);
        let id = ProfileId { tenant: self.request.tenant.clone(), customer: self.request.customer.clone() };
        let escrow = Searched::new(&look, self.view.number, self.barren);
        let (mut binding, mut scratch) = (Binding::new(), Scratch::default());
        let subject = look.subject(&id);
        let (snapshot, learned, request) = (&self.view.snapshot, &self.learned, &self.request);
        decide_on(snapshot, subject, &mut binding, &escrow, learned, request, &self.at, self.seed, &mut scratch)
    }

    /// The same, with what was read. The explanation is no part of that.
    fn decide_traced(&self) -> (Decision, Option<Box<Trace>>) {
        let look = self.pending.view(&self.state);
        let id = ProfileId { tenant: self.request.tenant.clone(), customer: self.request.customer.clone() };
        let escrow = Searched::new(&look, self.view.number, self.barren);
        let noting = Noting::new(&escrow);
        let subject = look.subject(&id);
        let (mut binding, mut scratch) = (Binding::new(), Scratch::default());
        let (snapshot, learned, request) = (&self.view.snapshot, &self.learned, &self.request);
        let unexplained = Request { explain: Explain::Off, ..request.clone() };
        let decision = decide_on(
            snapshot,
            subject,
            &mut binding,
            &noting,
            learned,
            &unexplained,
            &self.at,
            self.seed,
            &mut scratch,
        );
        let read = Read {
            at: self.at,
            seed: self.seed,
            escrow: noting.into_seen(),
            refused: self.masked.clone(),
            contention: Contention::None,
            learned: Arc::clone(learned),
        };
        let trace = Box::new(Trace::new(subject, request, read, &decision));
        (self.decide(), Some(trace))
    }

    /// Explains `answered`, which was decided on this and may have lost some of it since: what did is told as that.
    fn explain(&self, answered: &Decision) -> Option<Box<Explanation>> {
        let Decision { propositions, explanation, .. } = self.decide();
        let mut explanation = explanation?;
        let mut lost = self.masked.clone();
        let mut left = answered.propositions.iter().peekable();
        let mut factors = std::mem::take(&mut explanation.factors).into_iter();
        for chosen in &propositions {
            let factors = factors.next();
            let is_same = |kept: &&Proposition| (kept.offer, kept.slot) == (chosen.offer, chosen.slot);
            if left.next_if(is_same).is_some() {
                explanation.factors.extend(factors);
            } else {
                lost.push(chosen.offer);
            }
        }
        let limit = match self.request.explain {
            Explain::Off => 0,
            Explain::Full { limit } => limit as usize,
        };
        let is_answered = |offer| answered.propositions.iter().any(|kept| kept.offer == offer);
        explanation.account_for(&lost, is_answered, limit);
        Some(explanation)
    }

    /// Decides, takes nothing, and notes what is read if that is asked for.
    pub(crate) fn try_out(self, traced: bool) -> Decided {
        let (decision, trace) = if traced { self.decide_traced() } else { (self.decide(), None) };
        let expires = vec![None; decision.propositions.len()];
        Decided {
            decision,
            id: DecisionId(self.seed),
            at: self.at.now,
            seed: self.seed,
            duplicate: false,
            excluded: Vec::new(),
            degraded: None,
            view: self.view,
            expires,
            trace,
        }
    }
}

impl Raw {
    /// The decision, explained if that was asked for.
    pub(crate) fn finish(self) -> Decided {
        let Raw { mut decided, inputs, .. } = self;
        if let Some(inputs) = inputs {
            decided.decision.explanation = inputs.explain(&decided.decision);
        }
        decided
    }
}
