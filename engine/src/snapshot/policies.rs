//! Contact policies, compiled.

use super::rules::{Question, Scopes, ask_metric};
use super::slots::Names;
use crate::catalog::TenantCatalog;
use crate::decide::counting::{days_ms, hours_ms, rolling_ms};
use crate::decide::schedule::LocalHours;
use crate::decide::view::Instant;
use crate::keys::{OfferKey, OutcomeKey, PolicyKey};
use crate::model::offer::{CapWindow, Enforcement};
use crate::model::policy::{ContactPolicy, OutcomeAction, PolicyConfig, TotalPeriod};
use crate::model::{Entity, Status};
use crate::profile::command::Window;
use crate::time::Period;

/// A stretch of time that becomes a [`Window`] at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stretch {
    /// For ever.
    Lifetime,
    /// The calendar period around now.
    Calendar(Period),
    /// The last so many milliseconds.
    Rolling(i64),
}

impl Stretch {
    fn of(period: Period, window: CapWindow) -> Self {
        match window {
            CapWindow::Calendar => Stretch::Calendar(period),
            CapWindow::Rolling => Stretch::Rolling(rolling_ms(period)),
        }
    }

    /// The window around `at`.
    pub fn at(&self, at: &Instant) -> Window {
        match self {
            Stretch::Lifetime => Window::Lifetime,
            Stretch::Calendar(period) => Window::Calendar(at.frame.span(*period)),
            Stretch::Rolling(ms) => Window::Rolling { ms: *ms },
        }
    }
}

/// A limit on impressions in a stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Blocks once so many are counted.
    pub most: u64,
    /// In this stretch.
    pub stretch: Stretch,
}

/// Which impressions limits are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tally {
    /// For each scope that binds, that scope's own kind of thing.
    ByScope,
    /// All of the profile.
    All,
    /// The candidate's own.
    Own,
}

/// Limits on impressions: frequency caps, cooldowns, total and cross-channel caps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counting {
    /// Any of these bars.
    pub limits: Vec<Limit>,
    /// What they count.
    pub tally: Tally,
    /// Whether earlier choices of the same answer count like impressions.
    pub choices: bool,
}

/// What a policy looks at.
#[derive(Clone, Debug, PartialEq)]
pub enum Restraint {
    /// Impressions.
    Impressions(Counting),
    /// Budgets without a free unit.
    Budget {
        /// Lifetime impressions.
        impressions: bool,
        /// The day's money.
        daily: bool,
    },
    /// Outcomes within the time.
    Outcomes {
        /// Any of these.
        outcomes: Vec<OutcomeKey>,
        /// Milliseconds back.
        lookback_ms: i64,
        /// What is blocked.
        action: OutcomeAction,
    },
    /// Customers in any of these segments.
    Segments(Vec<u32>),
    /// Outside these hours.
    Hours(LocalHours),
    /// Another offer of the set was shown within the time.
    Mutual {
        /// The set, sorted.
        offers: Vec<OfferKey>,
        /// Milliseconds back.
        lookback_ms: i64,
    },
    /// Another offer of the category was shown within the time.
    Category {
        /// Milliseconds back.
        lookback_ms: i64,
    },
    /// Lets through what others block, for customers in all of these segments.
    Override(Vec<u32>),
    /// Those for whom the answer is yes: a metric that compares so.
    Asked(Question),
}

impl Restraint {
    /// Whether later choices of one answer look at earlier ones.
    pub(crate) fn counts_choices(&self) -> bool {
        match self {
            Restraint::Impressions(counting) => counting.choices,
            Restraint::Mutual { .. } | Restraint::Category { .. } => true,
            Restraint::Budget { .. }
            | Restraint::Outcomes { .. }
            | Restraint::Segments(_)
            | Restraint::Hours(_)
            | Restraint::Override(_)
            | Restraint::Asked(_) => false,
        }
    }

    /// Fewest impressions, choices included, with which it can bar anything.
    fn least(&self) -> u64 {
        let Restraint::Impressions(counting) = self else { return 0 };
        counting.limits.iter().map(|limit| limit.most).min().unwrap_or(u64::MAX)
    }
}

/// A compiled policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Which.
    pub key: PolicyKey,
    /// Highest first, then by key.
    pub priority: u8,
    /// Whether mandatory offers pass it by.
    pub bypassable: bool,
    /// Whether it reserves.
    pub strict: bool,
    /// What it looks at.
    pub restraint: Restraint,
    /// Whom it binds.
    pub scopes: Scopes,
    /// Fewest impressions, choices of the same answer included, with which it can bar anything.
    pub(crate) least: u64,
}

impl Policy {
    pub(crate) fn new(
        catalog: &TenantCatalog,
        names: &mut Names,
        policy: &Entity<PolicyKey, ContactPolicy>,
    ) -> Option<Self> {
        let config = catalog.policy_config(policy.key)?;
        let restraint = restrain(catalog, names, config);
        Some(Policy {
            least: restraint.least(),
            key: policy.key,
            priority: policy.body.priority.0,
            bypassable: policy.body.is_bypassable(),
            strict: enforcement(config) == Enforcement::Strict,
            restraint,
            scopes: Scopes::new(catalog, names, &policy.body.all_scopes()),
        })
    }
}

/// All active policies of a tenant.
#[derive(Clone, Debug, Default)]
pub struct PolicyTable {
    /// By priority, then key.
    pub(crate) policies: Box<[Policy]>,
}

impl PolicyTable {
    /// Compiles the policies of `catalog`.
    pub(crate) fn new(catalog: &TenantCatalog, names: &mut Names) -> Self {
        let active = catalog.policies().iter().filter(|policy| policy.body.status == Status::Active);
        let mut policies: Vec<_> = active.filter_map(|policy| Policy::new(catalog, names, policy)).collect();
        policies.sort_by_key(|policy| (std::cmp::Reverse(policy.priority), policy.key));
        PolicyTable { policies: policies.into() }
    }
}

fn enforcement(config: &PolicyConfig) -> Enforcement {
    match config {
        PolicyConfig::FrequencyCap(config) => config.enforcement,
        PolicyConfig::Cooldown(config) => config.enforcement,
        PolicyConfig::CrossChannelCap(config) => config.enforcement,
        PolicyConfig::CustomerTotalCap(config) => config.enforcement,
        PolicyConfig::BudgetExhausted(_)
        | PolicyConfig::OutcomeBased(_)
        | PolicyConfig::SegmentExclusion(_)
        | PolicyConfig::TimeWindow(_)
        | PolicyConfig::MutualExclusion(_)
        | PolicyConfig::AllowOverride(_)
        | PolicyConfig::CategorySuppression(_)
        | PolicyConfig::MetricCondition(_) => Enforcement::Soft,
    }
}

fn count(limits: Vec<Limit>, tally: Tally, choices: bool) -> Restraint {
    Restraint::Impressions(Counting { limits, tally, choices })
}

fn restrain(catalog: &TenantCatalog, names: &mut Names, config: &PolicyConfig) -> Restraint {
    match config {
        PolicyConfig::FrequencyCap(config) => {
            let per = |most: Option<u64>, stretch| most.map(|most| Limit { most, stretch });
            let limits = [
                per(config.max_per_day, Stretch::of(Period::Day, config.window)),
                per(config.max_per_week, Stretch::of(Period::Week, config.window)),
                per(config.max_per_month, Stretch::of(Period::Month, config.window)),
                per(config.max_total, Stretch::Lifetime),
            ];
            count(limits.into_iter().flatten().collect(), Tally::ByScope, true)
        }
        PolicyConfig::Cooldown(config) => {
            let limit = Limit { most: 1, stretch: Stretch::Rolling(hours_ms(config.cooldown_hours)) };
            count(vec![limit], Tally::ByScope, false)
        }
        PolicyConfig::BudgetExhausted(config) => {
            Restraint::Budget { impressions: config.check_impressions, daily: config.check_daily_budget }
        }
        PolicyConfig::OutcomeBased(config) => Restraint::Outcomes {
            outcomes: config
                .outcomes
                .iter()
                .filter_map(|word| catalog.outcomes().get(word).map(|outcome| outcome.key))
                .collect(),
            lookback_ms: days_ms(config.lookback_days),
            action: config.action,
        },
        PolicyConfig::SegmentExclusion(config) => {
            Restraint::Segments(config.exclude_segments.iter().map(|name| names.segment(name)).collect())
        }
        PolicyConfig::TimeWindow(config) => Restraint::Hours(LocalHours::of_policy(config)),
        PolicyConfig::MutualExclusion(config) => {
            let mut offers: Vec<OfferKey> =
                config.offer_ids.iter().filter_map(|id| catalog.offers().key_of(&id.0)).collect();
            offers.sort_unstable();
            offers.dedup();
            Restraint::Mutual { offers, lookback_ms: days_ms(config.lookback_days) }
        }
        PolicyConfig::CrossChannelCap(config) => {
            let stretch = Stretch::Rolling(days_ms(config.period_days));
            count(vec![Limit { most: config.max_total, stretch }], Tally::Own, true)
        }
        PolicyConfig::CustomerTotalCap(config) => {
            let stretch = match config.period_type {
                TotalPeriod::Daily => Stretch::of(Period::Day, config.window),
                TotalPeriod::Weekly => Stretch::of(Period::Week, config.window),
                TotalPeriod::Monthly => Stretch::of(Period::Month, config.window),
                TotalPeriod::Alltime => Stretch::Lifetime,
            };
            count(vec![Limit { most: config.max_total, stretch }], Tally::All, true)
        }
        PolicyConfig::AllowOverride(config) => {
            Restraint::Override(config.required_segments.iter().map(|name| names.segment(name)).collect())
        }
        PolicyConfig::CategorySuppression(config) => Restraint::Category { lookback_ms: days_ms(config.lookback_days) },
        PolicyConfig::MetricCondition(config) => {
            let group = config.group.as_deref();
            Restraint::Asked(ask_metric(names, &config.metric, group, config.operator, &config.value))
        }
    }
}
