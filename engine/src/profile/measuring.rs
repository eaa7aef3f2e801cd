//! What metrics make of what happens, from the catalogue: planned by the leader, counted by `apply`.

use crate::catalog::caps::effective_window;
use crate::catalog::outcomes::IMPRESSION;
use crate::catalog::tenant::TenantCatalog;
use crate::decide::counting::cap_window;
use crate::decide::view::Instant;
use crate::expr::compare::condition_holds;
use crate::expr::readable;
use crate::keys::{CategoryKey, ChannelKey, CustomerId, MetricKey, Micros, OfferKey, PlacementKey, TenantId};
use crate::limits::METRIC_GROUP_BYTES;
use crate::model::Status;
use crate::model::filter::{Combinator, FilterCondition, FilterGroup, FilterTerm};
use crate::model::metric::{Aggregation, BehavioralMetric, Dimension, PROPERTIES, VALUE};
use crate::model::rule::OnMissing;
use crate::profile::command::{Idempotency, Respond, ShardOp, Take};
use crate::profile::measured::{Event, Measured, MeasuredOp};
use crate::profile::metrics::{Feed, Group, GroupRef, Metrics, Trigger, aggregate};
use crate::profile::state::Profile;
use crate::time::Timestamp;
use crate::value::{Members, Value};

/// Numbers beyond this, either side of 0, are counted by no metric but a count.
pub const NUMBER_MAX: f64 = 1e12;

/// An event as the channel reports it, names resolved to keys.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRequest {
    /// Whose.
    pub tenant: TenantId,
    /// Of which customer.
    pub customer: CustomerId,
    /// What happened.
    pub event_type: String,
    /// Its number, at most [`NUMBER_MAX`] either side of 0.
    pub value: Option<f64>,
    /// The offer it is about.
    pub offer: Option<OfferKey>,
    /// The channel it happened on.
    pub channel: Option<ChannelKey>,
    /// More about it, by name.
    pub properties: Members,
}

/// What happened, as metrics look at it.
struct Happening<'a> {
    what: What<'a>,
    value: Option<Micros>,
    offer: Option<OfferKey>,
    category: Option<CategoryKey>,
    channel: Option<ChannelKey>,
    placement: Option<PlacementKey>,
    properties: Option<&'a Members>,
}

#[derive(Clone, Copy)]
enum What<'a> {
    Outcome(&'a str),
    Event(&'a str),
}

/// A number in micro-units, rounded; `None` beyond what metrics count.
pub fn micros(number: f64) -> Option<Micros> {
    (libm::fabs(number) <= NUMBER_MAX).then(|| Micros(libm::round(number * 1e6) as i64))
}

/// The command that records an outcome, with what metrics count then. O(metrics).
pub fn measure_respond(catalog: &TenantCatalog, profile: Option<&Profile>, respond: Respond, at: &Instant) -> ShardOp {
    let happening = |what| Happening {
        what: What::Outcome(what),
        value: respond.value,
        offer: Some(respond.offer),
        category: respond.category,
        channel: Some(respond.channel).filter(|channel| *channel != ChannelKey::NONE),
        placement: Some(respond.placement).filter(|placement| *placement != PlacementKey::NONE),
        properties: None,
    };
    let mut feeds = Vec::new();
    // An outcome may imply an impression: whether it does, `apply` knows.
    let shown = Happening { value: respond.value.filter(|_| respond.outcome == IMPRESSION), ..happening("impression") };
    feeds_of(catalog, &shown, Trigger::Impression(0), at, &mut feeds);
    if let Some(word) = catalog.outcomes().word(respond.outcome).filter(|_| respond.outcome != IMPRESSION) {
        feeds_of(catalog, &happening(word), Trigger::Itself, at, &mut feeds);
    }
    if feeds.is_empty() {
        return ShardOp::Respond(Box::new(respond));
    }
    let gone = gone(catalog, profile);
    ShardOp::Measured(Box::new(Measured { op: MeasuredOp::Respond(Box::new(respond)), feeds, gone }))
}

/// The command that takes what a decision proposed, with what metrics count of what is shown by that. O(metrics · propositions).
pub fn measure_take(catalog: &TenantCatalog, profile: Option<&Profile>, take: Box<Take>, at: &Instant) -> ShardOp {
    let mut feeds = Vec::new();
    for (proposition, rank) in take.propositions.iter().zip(1..).filter(|(shown, _)| shown.implied_impression) {
        let shown = Happening {
            what: What::Outcome("impression"),
            value: None,
            offer: Some(proposition.offer),
            category: proposition.category,
            channel: Some(proposition.channel).filter(|channel| *channel != ChannelKey::NONE),
            placement: Some(proposition.placement).filter(|placement| *placement != PlacementKey::NONE),
            properties: None,
        };
        feeds_of(catalog, &shown, Trigger::Impression(rank), at, &mut feeds);
    }
    if feeds.is_empty() {
        return ShardOp::Take(take);
    }
    ShardOp::Measured(Box::new(Measured { op: MeasuredOp::Take(take), feeds, gone: gone(catalog, profile) }))
}

/// The command that records an event, with what metrics count of it. O(metrics).
pub fn measure_event(
    catalog: &TenantCatalog,
    profile: Option<&Profile>,
    request: &EventRequest,
    idempotency: Idempotency,
    at: &Instant,
) -> ShardOp {
    let offer = request.offer.and_then(|offer| catalog.offers().get(offer));
    let category = offer.and_then(|offer| catalog.categories().key_of(&offer.body.category_id.as_ref()?.0));
    let happening = Happening {
        what: What::Event(&request.event_type),
        value: request.value.and_then(micros),
        offer: request.offer,
        category,
        channel: request.channel,
        placement: None,
        properties: Some(&request.properties),
    };
    let mut feeds = Vec::new();
    feeds_of(catalog, &happening, Trigger::Itself, at, &mut feeds);
    let event = Event { tenant: request.tenant.clone(), customer: request.customer.clone(), idempotency };
    ShardOp::Measured(Box::new(Measured { op: MeasuredOp::Event(event), feeds, gone: gone(catalog, profile) }))
}

/// A metric in force, and what it is worth at `now`: once, or for each of its groups that anything was counted of.
pub fn values<'a>(
    catalog: &'a TenantCatalog,
    metrics: Option<&'a Metrics>,
    now: Timestamp,
) -> impl Iterator<Item = (&'a BehavioralMetric, Vec<(&'a Group, Value)>)> {
    static WHOLE: Group = Group { offer: None, category: None, channel: None, property: None };
    let active = catalog.metrics().iter().filter(|row| row.body.status == Status::Active);
    active.map(move |row| {
        let of = |group: &'a Group| {
            let tally = metrics.and_then(|known| known.tally(row.key, row.body.generation, &GroupRef::of(group), now));
            (group, tally)
        };
        let worth = |tally| aggregate(row.body.aggregation, tally);
        if row.body.group_by.is_empty() {
            return (&row.body, vec![(&WHOLE, worth(of(&WHOLE).1))]);
        }
        let series = metrics.map_or(&[][..], Metrics::series).iter().filter(|series| series.metric == row.key);
        let counted = series.map(|series| of(&series.group)).filter(|(_, tally)| tally.is_some());
        (&row.body, counted.map(|(group, tally)| (group, worth(tally))).collect())
    })
}

/// Metrics that the profile holds something of, and that were deleted. One that this catalogue has not heard of yet was not: the profile
/// was fed by a newer one.
pub(crate) fn gone(catalog: &TenantCatalog, profile: Option<&Profile>) -> Vec<MetricKey> {
    let series = profile.and_then(Profile::metrics).map_or(&[][..], |metrics| metrics.series());
    let is_known = |metric: &MetricKey| catalog.metrics().next_key().is_none_or(|next| *metric < next);
    let is_gone = |metric: &MetricKey| is_known(metric) && catalog.metrics().get(*metric).is_none();
    let mut gone: Vec<MetricKey> = series.iter().map(|series| series.metric).filter(is_gone).collect();
    gone.dedup();
    gone
}

fn feeds_of(catalog: &TenantCatalog, happening: &Happening<'_>, trigger: Trigger, at: &Instant, feeds: &mut Vec<Feed>) {
    for row in catalog.metrics().iter().filter(|row| row.body.status == Status::Active) {
        let metric = &row.body;
        let (listens, word) = match happening.what {
            What::Outcome(word) => (&metric.outcomes, word),
            What::Event(word) => (&metric.events, word),
        };
        if !listens.iter().any(|known| known == word) {
            continue;
        }
        let passes = metric.filters.as_ref().is_none_or(|filters| passes(catalog, happening, filters));
        let Some((number, group)) = number_of(happening, metric).zip(group_of(happening, metric)).filter(|_| passes)
        else {
            continue;
        };
        let window = cap_window(metric.per, effective_window(metric.per, metric.window), &at.frame);
        feeds.push(Feed { trigger, metric: row.key, generation: metric.generation, group, number, window });
    }
}

/// What the metric aggregates; `None` where there is no such number.
fn number_of(happening: &Happening<'_>, metric: &BehavioralMetric) -> Option<Micros> {
    if metric.aggregation == Aggregation::Count {
        return Some(Micros(0));
    }
    match metric.field.strip_prefix(PROPERTIES) {
        Some(name) => happening.properties?.get(name)?.as_number().and_then(micros),
        None => happening.value,
    }
}

/// What it is counted under; `None` where it is nothing of that kind.
fn group_of(happening: &Happening<'_>, metric: &BehavioralMetric) -> Option<Group> {
    let mut group = Group::default();
    for by in &metric.group_by {
        match by {
            Dimension::Offer => group.offer = Some(happening.offer?),
            Dimension::Category => group.category = Some(happening.category?),
            Dimension::Channel => group.channel = Some(happening.channel?),
            Dimension::Property(name) => {
                let word = readable(happening.properties?.get(name.as_str())?)?;
                group.property = Some(Some(word).filter(|word| (1..=METRIC_GROUP_BYTES).contains(&word.len()))?.into());
            }
        }
    }
    Some(group)
}

fn passes(catalog: &TenantCatalog, happening: &Happening<'_>, filters: &FilterGroup) -> bool {
    let mut terms = filters.conditions.iter().map(|term| match term {
        FilterTerm::Group(group) => passes(catalog, happening, group),
        FilterTerm::Condition(condition) => holds(catalog, happening, condition),
    });
    match filters.combinator {
        Combinator::And => terms.all(|holds| holds),
        Combinator::Or => terms.any(|holds| holds),
    }
}

fn holds(catalog: &TenantCatalog, happening: &Happening<'_>, condition: &FilterCondition) -> bool {
    let id = |id: Option<&String>| id.map_or(Value::Null, Value::text);
    let actual = match condition.field.as_str() {
        "type" => match happening.what {
            What::Outcome(word) | What::Event(word) => Value::text(word),
        },
        VALUE => happening.value.map_or(Value::Null, |value| Value::Number(value.0 as f64 / 1e6)),
        "offerId" => id(happening.offer.and_then(|key| catalog.offers().get(key)).map(|row| &row.id)),
        "categoryId" => id(happening.category.and_then(|key| catalog.categories().get(key)).map(|row| &row.id)),
        "channel" => id(happening.channel.and_then(|key| catalog.channels().get(key)).map(|row| &row.body.name)),
        "placementId" => id(happening.placement.and_then(|key| catalog.placements().get(key)).map(|row| &row.id)),
        property => {
            let name = property.strip_prefix(PROPERTIES).unwrap_or_default();
            happening.properties.and_then(|properties| properties.get(name)).cloned().unwrap_or_default()
        }
    };
    // The catalogue holds no filter of a metric with a regular expression.
    let operator = condition.operator.as_rule_operator();
    operator.is_some_and(|operator| condition_holds(&actual, operator, &condition.value, OnMissing::Fail))
}
