//! What an outcome counts for, from the catalogue's caps: planned by the leader, checked again by `apply`.

use crate::catalog::caps::CapDefinition;
use crate::catalog::tenant::TenantCatalog;
use crate::decide::counting::cap_window;
use crate::decide::view::{EscrowView, Instant};
use crate::keys::{CapKey, ChannelKey, CreativeKey, CustomerId, Micros, OfferKey, OutcomeKey, PlacementKey, TenantId};
use crate::model::offer::{CapScope, CountOn};
use crate::model::settings::Sentiment;
use crate::profile::command::{AccountId, CapTake, CountEvent, DecisionId, Idempotency, OptOut, Respond, TakeAccount};
use crate::time::Timestamp;

/// An outcome as the channel reports it, names resolved to keys.
#[derive(Clone, Debug, PartialEq)]
pub struct RespondRequest {
    /// Whose.
    pub tenant: TenantId,
    /// Of which customer.
    pub customer: CustomerId,
    /// Key of the call.
    pub idempotency: Idempotency,
    /// The proposition, if a `recommendationId` named one.
    pub proposition: Option<Proposed>,
    /// What.
    pub offer: OfferKey,
    /// Content, or NONE.
    pub creative: CreativeKey,
    /// Channel, or NONE.
    pub channel: ChannelKey,
    /// Placement, or NONE.
    pub placement: PlacementKey,
    /// What happened.
    pub outcome: OutcomeKey,
    /// How that counts.
    pub sentiment: Sentiment,
    /// Money or value of a conversion.
    pub value: Option<Micros>,
    /// For `opt_out`.
    pub opt_out: Option<OptOut>,
    /// See [`Respond::withheld`].
    pub withheld: bool,
}

/// What a `recommendationId` says of one proposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// The decision.
    pub decision: DecisionId,
    /// From 1.
    pub rank: u16,
    /// When it was made.
    pub decided_at: Timestamp,
    /// Until when it may be answered.
    pub answerable_until: Timestamp,
    /// Whether it is evidence: not fallback, mandatory or held out.
    pub evidence: bool,
}

/// The command that records `request`: with the offer's caps in force that count on the outcome, or on the impression
/// that it may imply. An offer that is gone has none. O(caps of the offer).
pub fn plan_respond(
    catalog: &TenantCatalog,
    escrow: &impl EscrowView,
    request: RespondRequest,
    at: &Instant,
) -> Respond {
    let offer = catalog.offers().get(request.offer);
    let category = offer
        .and_then(|offer| offer.body.category_id.as_ref())
        .and_then(|category| catalog.categories().key_of(&category.0));
    let counts = catalog
        .caps(request.offer)
        .iter()
        .filter(|cap| cap.placement.is_none_or(|placement| placement == request.placement))
        .filter_map(|cap| Some((cap, counted_event(catalog, cap)?)))
        .filter(|(_, event)| match event {
            CountEvent::Decision => false,
            CountEvent::Impression => true,
            CountEvent::Outcome(outcome) => *outcome == request.outcome,
        })
        .map(|(cap, count_on)| CapTake {
            cap: cap.cap,
            account: take_account(escrow, cap, at),
            count_on,
            expires_at: at.now,
        })
        .collect();
    Respond {
        tenant: request.tenant,
        customer: request.customer,
        idempotency: request.idempotency,
        proposition: request.proposition.map(|of| (of.decision, of.rank)),
        decided_at: request.proposition.map(|of| of.decided_at),
        answerable_until: request.proposition.map(|of| of.answerable_until),
        offer: request.offer,
        creative: request.creative,
        channel: request.channel,
        placement: request.placement,
        category,
        outcome: request.outcome,
        sentiment: request.sentiment,
        value: request.value,
        evidence: request.proposition.is_some_and(|of| of.evidence),
        counts,
        opt_out: request.opt_out,
        withheld: request.withheld,
    }
}

/// What makes a cap count; `None` for an outcome that the tenant no longer has.
pub fn counted_event(catalog: &TenantCatalog, cap: &CapDefinition) -> Option<CountEvent> {
    Some(match &cap.count_on {
        CountOn::Decision => CountEvent::Decision,
        CountOn::Impression => CountEvent::Impression,
        CountOn::Outcome(word) => CountEvent::Outcome(catalog.outcomes().get(word)?.key),
    })
}

/// Where a unit of the cap comes from at this instant.
pub fn take_account(escrow: &impl EscrowView, cap: &CapDefinition, at: &Instant) -> TakeAccount {
    match cap.scope {
        CapScope::Profile => {
            TakeAccount::Profile { limit: cap.limit, window: cap_window(cap.per, cap.window, &at.frame) }
        }
        CapScope::Global => {
            let account = escrow.free(cap.cap, at.now).map_or(AccountId::nowhere(cap.cap), |free| free.account);
            TakeAccount::Global { account, amount: cap.cost }
        }
    }
}

impl AccountId {
    /// Stands for the account of a cap of which a shard holds none: nothing can be taken from it.
    pub fn nowhere(cap: CapKey) -> Self {
        AccountId { tenant: u32::MAX, cap, ordinal: u32::MAX }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::periods::{period_of, terms_of};
    use crate::calendar::Calendar;
    use crate::catalog::Catalog;
    use crate::catalog::command::{Actor, Command, CommandV1, EntityKind, Op};
    use crate::decide::view::Free;
    use crate::keys::Revision;
    use crate::profile::command::Window;
    use crate::time::{DAY_MS, Period, Span};
    use crate::value::Value;

    /// Holds units of the caps named, in their seventh period.
    struct Held(Vec<CapKey>);

    impl EscrowView for Held {
        fn free(&self, cap: CapKey, _: Timestamp) -> Option<Free> {
            let account = AccountId { tenant: 3, cap, ordinal: 7 };
            self.0.contains(&cap).then_some(Free { account, amount: 1, left: None })
        }
    }

    fn catalog() -> Catalog {
        let cap = |scope: &str, per: &str, window: &str, count_on: &str| {
            Value::map([
                ("scope", Value::text(scope)),
                ("limit", Value::Number(4.0)),
                ("per", Value::text(per)),
                ("window", Value::text(window)),
                ("countOn", Value::text(count_on)),
            ])
        };
        let caps = [
            cap("profile", "day", "calendar", "impression"),
            cap("global", "week", "rolling", "click"),
            cap("global", "lifetime", "calendar", "decision"),
        ];
        let budget = Value::map([
            ("maxDailyBudget", Value::Number(10.0)),
            ("costPerAction", Value::Number(0.5)),
            ("countOn", Value::text("click")),
        ]);
        let offer = Value::map([("name", Value::text("Card")), ("caps", Value::list(caps)), ("budget", budget)]);
        let mut catalog = Catalog::new();
        let create = Op::Create { kind: EntityKind::Offer, id: "offer_1".to_owned(), body: offer };
        for (revision, op) in [(1, Op::CreateTenant), (2, create)] {
            let actor = Actor { name: "test".to_owned(), admin: true };
            let command = CommandV1 { tenant: TenantId::new("acme"), actor, at: Timestamp(0), op };
            catalog.apply(Revision(revision), &Command::V1(command)).unwrap();
        }
        catalog
    }

    #[test]
    fn an_outcome_counts_on_its_own_caps_and_on_those_of_the_impression_it_may_imply() {
        let catalog = catalog();
        let tenant = catalog.tenant(&TenantId::new("acme")).unwrap();
        let offer = tenant.offers().key_of("offer_1").unwrap();
        let [shown, click, decision, money] = tenant.caps(offer) else { panic!("{:?}", tenant.caps(offer)) };
        let at = Instant { now: Timestamp(5), frame: Calendar::of(tenant.settings()).frame(Timestamp(5)) };
        let plan = |outcome: &str| {
            let outcome = tenant.outcomes().get(outcome).unwrap();
            let request = RespondRequest {
                tenant: TenantId::new("acme"),
                customer: CustomerId::new("ann"),
                idempotency: Idempotency { key: 1, body: 1, until: Timestamp(DAY_MS) },
                proposition: None,
                offer,
                creative: CreativeKey::NONE,
                channel: ChannelKey::NONE,
                placement: PlacementKey::NONE,
                outcome: outcome.key,
                sentiment: outcome.sentiment,
                value: None,
                opt_out: None,
                withheld: false,
            };
            plan_respond(tenant, &Held(vec![click.cap]), request, &at).counts
        };

        let counts = plan("click");
        let caps: Vec<CapKey> = counts.iter().map(|count| count.cap).collect();
        assert_eq!(caps, [shown.cap, click.cap, money.cap]);
        let today = Span { from: Timestamp(0), until: Timestamp(DAY_MS) };
        assert_eq!(counts[0].account, TakeAccount::Profile { limit: 4, window: Window::Calendar(today) });
        let account = AccountId { tenant: 3, cap: click.cap, ordinal: 7 };
        assert_eq!(counts[1].account, TakeAccount::Global { account, amount: 1 });
        let nowhere = AccountId::nowhere(money.cap);
        assert_eq!(counts[2].account, TakeAccount::Global { account: nowhere, amount: 500_000 });
        assert_eq!(plan("impression").iter().map(|count| count.cap).collect::<Vec<_>>(), [shown.cap]);

        assert_eq!([click, decision, money].map(period_of), [None, None, Some(Period::Day)]);
        let terms = terms_of(money, today);
        assert_eq!((terms.limit, terms.unit, terms.cooling_ms), (10_000_000, 500_000, 0));
        assert_eq!(terms_of(click, Span::ALWAYS).cooling_ms, 7 * DAY_MS);
    }
}
