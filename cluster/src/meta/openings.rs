//! Which accounts have to be opened: computed by the leader alone, since it needs calendars, and committed as instants.

use std::collections::{BTreeMap, BTreeSet};

use proffer_engine::budget::ledger::{Ledger, Terms};
use proffer_engine::budget::periods::{Opening, next_opening, period_of, terms_of};
use proffer_engine::catalog::TenantCatalog;
use proffer_engine::keys::{OfferKey, TenantId};
use proffer_engine::limits::OPEN_AHEAD_MS;
use proffer_engine::profile::command::AccountId;
use proffer_engine::time::{Calendar, Timestamp};

use crate::meta::state::{MetaState, global_caps};

/// When the next account of a cap falls due. Derived; made again by every leader.
#[derive(Debug, Default)]
pub(crate) struct Openings {
    due: BTreeSet<(Timestamp, TenantId, OfferKey)>,
    by_offer: BTreeMap<(TenantId, OfferKey), Timestamp>,
}

impl Openings {
    /// The calendar of every offer with a global cap.
    pub(crate) fn of(state: &MetaState) -> Self {
        let mut openings = Openings::default();
        for (tenant, number) in state.numbers() {
            let Some(catalog) = state.catalog().tenant(tenant) else { continue };
            for offer in catalog.offers().iter() {
                openings.follow(tenant, number, catalog, offer.key, state.ledger());
            }
        }
        openings
    }

    /// An offer's caps or accounts have changed.
    pub(crate) fn follow(
        &mut self,
        tenant: &TenantId,
        number: u32,
        catalog: &TenantCatalog,
        offer: OfferKey,
        ledger: &Ledger,
    ) {
        if let Some(at) = self.by_offer.remove(&(tenant.clone(), offer)) {
            self.due.remove(&(at, tenant.clone(), offer));
        }
        let next = global_caps(catalog, offer).filter_map(|cap| {
            let last = ledger.accounts_of(number, cap.cap).next_back();
            match (last, period_of(cap)) {
                (None, _) => Some(Timestamp(i64::MIN)),
                (Some(_), None) => None,
                (Some((_, account)), Some(_)) => Some(account.span().until.plus_ms(-OPEN_AHEAD_MS)),
            }
        });
        if let Some(at) = next.min() {
            self.by_offer.insert((tenant.clone(), offer), at);
            self.due.insert((at, tenant.clone(), offer));
        }
    }

    /// When something falls due.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, ..)| *at)
    }

    /// The offers for which an account falls due by `now`.
    pub(crate) fn due(&self, now: Timestamp) -> Vec<(TenantId, OfferKey)> {
        let due = self.due.iter().take_while(|(at, ..)| *at <= now);
        due.map(|(_, tenant, offer)| (tenant.clone(), *offer)).collect()
    }
}

/// The accounts to open for an offer at `now`.
pub(crate) fn to_open(
    catalog: &TenantCatalog,
    calendar: &Calendar,
    tenant: u32,
    offer: OfferKey,
    ledger: &Ledger,
    now: Timestamp,
) -> Vec<(AccountId, Terms)> {
    let mut open = Vec::new();
    for cap in global_caps(catalog, offer) {
        let mut last = ledger
            .accounts_of(tenant, cap.cap)
            .next_back()
            .map(|(id, account)| Opening { ordinal: id.ordinal, span: account.span() });
        // The period of now, and the next one if it is close.
        for _ in 0..2 {
            let Some(next) = next_opening(|at| calendar.frame(at), period_of(cap), last, now) else { break };
            let id = AccountId { tenant, cap: cap.cap, ordinal: next.ordinal };
            open.push((id, terms_of(cap, next.span)));
            last = Some(next);
        }
    }
    open
}
