//! Commands around deeds: what happened, with what each metric makes of it, and with the customer's place in an experiment.

use bincode::{Decode, Encode};

use crate::keys::{CustomerId, MetricKey, TenantId};
use crate::limits::PROPOSITIONS_PER_TAKE;
use crate::profile::apply::{Outcome, Refusal, Responded};
use crate::profile::cells::{Look, ProfileId};
use crate::profile::command::{Idempotency, Respond, Take};
use crate::profile::draft::Draft;
use crate::profile::keyed::{Keyed, KeyedAnswer};
use crate::profile::metrics::{Feed, Trigger};
use crate::profile::state::Profile;
use crate::profile::trials::Enrolment;

/// A deed, and what metrics count if it is done.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Measured {
    /// What is done.
    pub op: MeasuredOp,
    /// What that means to metrics.
    pub feeds: Vec<Feed>,
    /// Metrics that the profile holds something of, and that are no more.
    pub gone: Vec<MetricKey>,
}

/// A deed, and the place in an experiment that its customer takes if it is done.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Enrolled {
    /// What is done; metrics may make nothing of it.
    pub measured: Measured,
    /// The place.
    pub enrolment: Enrolment,
}

/// The deeds that metrics look at.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum MeasuredOp {
    /// A decision that is shown at once.
    Take(Box<Take>),
    /// An outcome.
    Respond(Box<Respond>),
    /// An event.
    Event(Event),
}

/// Something that happened to a customer and is no outcome of a proposition. What it was is in the feeds: nothing else reads it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Event {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub customer: CustomerId,
    /// Counts once under this key.
    pub idempotency: Idempotency,
}

impl<L: Look> Draft<'_, L> {
    pub(crate) fn measured(&mut self, measured: &Measured) -> Result<Outcome, Refusal> {
        self.feeds.clone_from(&measured.feeds);
        self.gone.clone_from(&measured.gone);
        match &measured.op {
            MeasuredOp::Take(take) => self.take(take),
            MeasuredOp::Respond(respond) => self.respond(respond),
            MeasuredOp::Event(event) => self.note_event(event),
        }
    }

    /// As [`Draft::measured`], with a place in an experiment.
    pub(crate) fn enrolled(&mut self, enrolled: &Enrolled) -> Result<Outcome, Refusal> {
        if enrolled.enrolment.offers.len() > PROPOSITIONS_PER_TAKE {
            return Err(Refusal::Malformed("too many offers".to_owned()));
        }
        self.enrolment = Some(enrolled.enrolment.clone());
        self.measured(&enrolled.measured)
    }

    /// Counts what the command's metrics count when `trigger` comes.
    pub(crate) fn feed(&self, profile: &mut Profile, trigger: Trigger) {
        if self.feeds.is_empty() && self.gone.is_empty() {
            return;
        }
        let metrics = &mut profile.dealings.get_or_insert_default().metrics;
        metrics.forget(&self.gone);
        for feed in self.feeds.iter().filter(|feed| feed.trigger == trigger) {
            metrics.feed(feed, self.now());
        }
    }

    fn note_event(&mut self, event: &Event) -> Result<Outcome, Refusal> {
        let id = ProfileId { tenant: event.tenant.clone(), customer: event.customer.clone() };
        let mut profile = self.open_profile(&id);
        let duplicate = match profile.answered(&event.idempotency)? {
            Some(KeyedAnswer::Noted) => true,
            Some(KeyedAnswer::Responded { .. } | KeyedAnswer::Took { .. }) => return Err(Refusal::IdempotencyConflict),
            None => false,
        };
        if !duplicate {
            let Idempotency { key, body, until } = event.idempotency;
            let keyed = Keyed { key, body, until, answer: KeyedAnswer::Noted };
            if !self.can_remember(&profile, &keyed) {
                return Err(Refusal::KeyTableFull);
            }
            self.feed(&mut profile, Trigger::Itself);
            profile.dealings.get_or_insert_default().keyed.push(keyed);
        }
        self.store_profile(id, profile);
        Ok(Outcome::Responded(Responded { duplicate, ..Responded::default() }))
    }
}
