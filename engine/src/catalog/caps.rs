//! The caps of an offer, normalised: authored caps, budget and frequency caps as one list with stable keys.

use bincode::{Decode, Encode};

use crate::catalog::tenant::TenantCatalog;
use crate::keys::{CapKey, PlacementKey};
use crate::model::offer::{Cap, CapPer, CapScope, CapWindow, CountOn, Enforcement, Offer};

/// Where on the offer a cap is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum CapOrigin {
    /// `caps[i]`.
    Caps(u16),
    /// `budget.maxImpressions`.
    BudgetImpressions,
    /// `budget.maxDailyBudget`.
    BudgetDaily,
    /// `frequencyCaps.perCustomer.daily`.
    FrequencyDaily,
    /// `frequencyCaps.perCustomer.weekly`.
    FrequencyWeekly,
    /// `frequencyCaps.perCustomer.monthly`.
    FrequencyMonthly,
}

/// One cap of one offer, with every default filled in.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CapDefinition {
    /// Its `capId`: kept while scope, per, window, countOn and placement stay the same under one `key`.
    pub cap: CapKey,
    /// Where it is written.
    pub origin: CapOrigin,
    /// Its identity across edits, unique on the offer.
    pub key: String,
    /// Per profile, or over all.
    pub scope: CapScope,
    /// At most so many units; micro-units for money.
    pub limit: u64,
    /// Units one counted event takes: 1, or `costPerAction` in micro-units.
    pub cost: u64,
    /// Stretch of time.
    pub per: CapPer,
    /// How the stretch moves. `Calendar` for lifetime caps, whose stretch does not.
    pub window: CapWindow,
    /// What is counted.
    pub count_on: CountOn,
    /// Only propositions in this placement.
    pub placement: Option<PlacementKey>,
    /// Reserve at the decision, or count outcomes only.
    pub enforcement: Enforcement,
    /// How long a proposition holds its unit; `None`: the channel's or tenant's time.
    pub reservation_seconds: Option<u32>,
}

impl CapDefinition {
    /// Whether a count of `other` is a count of `self`: then an edit keeps the key.
    fn counts_like(&self, other: &CapDefinition) -> bool {
        self.key == other.key
            && self.scope == other.scope
            && self.per == other.per
            && self.window == other.window
            && self.count_on == other.count_on
            && self.placement == other.placement
    }
}

/// The window that holds for a cap: the one authored, else calendar, but rolling for hours.
pub fn effective_window(per: CapPer, authored: Option<CapWindow>) -> CapWindow {
    match per {
        CapPer::Lifetime => CapWindow::Calendar,
        CapPer::Hours(_) => CapWindow::Rolling,
        CapPer::Day | CapPer::Week | CapPer::Month => authored.unwrap_or(CapWindow::Calendar),
    }
}

/// The key of an authored cap: the one given, else `scope-per-countOn-placementId`.
pub fn effective_key(cap: &Cap) -> String {
    cap.key.clone().unwrap_or_else(|| {
        let scope = cap.scope.as_str();
        let per = match cap.per {
            CapPer::Lifetime => "lifetime".to_owned(),
            CapPer::Day => "day".to_owned(),
            CapPer::Week => "week".to_owned(),
            CapPer::Month => "month".to_owned(),
            CapPer::Hours(hours) => format!("{hours}h"),
        };
        let mut key = format!("{scope}-{per}-{}", cap.count_on.as_str());
        if let Some(placement) = &cap.placement_id {
            key.push('-');
            key.push_str(&placement.0);
        }
        key
    })
}

/// The caps of `offer` (references resolved), keeping keys of `before` and counting new ones up from `next`.
pub(crate) fn define(
    tenant: &TenantCatalog,
    offer: &Offer,
    before: &[CapDefinition],
    next: &mut u32,
) -> Vec<CapDefinition> {
    let mut defined = authored(tenant, offer);
    defined.extend(from_budget(offer));
    defined.extend(from_frequency(offer));
    for cap in &mut defined {
        cap.cap = match before.iter().find(|old| cap.counts_like(old)) {
            Some(old) => old.cap,
            None => {
                let fresh = CapKey(*next);
                *next += 1;
                fresh
            }
        };
    }
    defined
}

fn authored(tenant: &TenantCatalog, offer: &Offer) -> Vec<CapDefinition> {
    let define = |(index, cap): (usize, &Cap)| CapDefinition {
        cap: CapKey(0),
        origin: CapOrigin::Caps(index as u16),
        key: effective_key(cap),
        scope: cap.scope,
        limit: cap.limit,
        cost: 1,
        per: cap.per,
        window: effective_window(cap.per, cap.window),
        count_on: cap.count_on.clone(),
        placement: cap.placement_id.as_ref().and_then(|placement| tenant.placements().key_of(&placement.0)),
        enforcement: cap.enforcement.unwrap_or_else(|| cap.count_on.default_enforcement()),
        reservation_seconds: cap.reservation_seconds,
    };
    offer.caps.iter().enumerate().map(define).collect()
}

fn from_budget(offer: &Offer) -> Vec<CapDefinition> {
    let budget = &offer.budget;
    let global = |origin, key: &str, limit, cost, per, count_on: CountOn| CapDefinition {
        cap: CapKey(0),
        origin,
        key: key.to_owned(),
        scope: CapScope::Global,
        limit,
        cost,
        per,
        window: CapWindow::Calendar,
        placement: None,
        enforcement: count_on.default_enforcement(),
        count_on,
        reservation_seconds: None,
    };
    let impressions = budget.max_impressions.map(|limit| {
        let key = "budget.maxImpressions";
        global(CapOrigin::BudgetImpressions, key, limit, 1, CapPer::Lifetime, CountOn::Impression)
    });
    let daily = budget.max_daily_budget.zip(budget.cost_per_action).map(|(limit, cost)| {
        let (limit, cost) = (limit.0.0.unsigned_abs(), cost.0.0.unsigned_abs());
        let key = "budget.maxDailyBudget";
        global(CapOrigin::BudgetDaily, key, limit, cost, CapPer::Day, budget.count_on.clone())
    });
    impressions.into_iter().chain(daily).collect()
}

fn from_frequency(offer: &Offer) -> Vec<CapDefinition> {
    let limits = &offer.frequency_caps.per_customer;
    let shorthand = [
        (CapOrigin::FrequencyDaily, "frequencyCaps.daily", limits.daily, CapPer::Day),
        (CapOrigin::FrequencyWeekly, "frequencyCaps.weekly", limits.weekly, CapPer::Week),
        (CapOrigin::FrequencyMonthly, "frequencyCaps.monthly", limits.monthly, CapPer::Month),
    ];
    let define = |(origin, key, limit, per): (CapOrigin, &str, Option<u64>, CapPer)| {
        Some(CapDefinition {
            cap: CapKey(0),
            origin,
            key: key.to_owned(),
            scope: CapScope::Profile,
            limit: limit?,
            cost: 1,
            per,
            window: CapWindow::Calendar,
            count_on: CountOn::Impression,
            placement: None,
            enforcement: Enforcement::Strict,
            reservation_seconds: None,
        })
    };
    shorthand.into_iter().filter_map(define).collect()
}
