//! Behavioural metrics, compiled: what they are worth for the customer of a request, and for one offer. A request pays for those
//! that something compiled reads; where nothing does, for nothing.

use std::sync::Arc;

use crate::catalog::TenantCatalog;
use crate::keys::{CategoryKey, ChannelKey, MetricKey, OfferKey};
use crate::model::metric::{Aggregation, Dimension};
use crate::model::{Entity, Status, metric::BehavioralMetric};
use crate::profile::metrics::{GroupRef, aggregate};
use crate::profile::state::Profile;
use crate::time::Timestamp;
use crate::value::Value;

/// A metric in force.
#[derive(Clone, Debug)]
pub struct Metric {
    key: MetricKey,
    generation: u32,
    aggregation: Aggregation,
    by_offer: bool,
    by_category: bool,
    by_channel: bool,
}

/// A metric, and one of its groups, as something compiled reads it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reading {
    /// Which.
    pub metric: MetricKey,
    /// The value of its property, of one that counts apart by one.
    pub property: Option<Arc<str>>,
}

/// Active metrics of a catalogue, by key.
pub(crate) fn compile(catalog: &TenantCatalog) -> Box<[Metric]> {
    let compile = |row: &Arc<Entity<MetricKey, BehavioralMetric>>| {
        let by = |dimension: &Dimension| row.body.group_by.contains(dimension);
        Metric {
            key: row.key,
            generation: row.body.generation,
            aggregation: row.body.aggregation,
            by_offer: by(&Dimension::Offer),
            by_category: by(&Dimension::Category),
            by_channel: by(&Dimension::Channel),
        }
    };
    catalog.metrics().iter().filter(|row| row.body.status == Status::Active).map(compile).collect()
}

/// Whose metrics a request reads, and when.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measures<'a> {
    pub(crate) metrics: &'a [Metric],
    pub(crate) profile: Option<&'a Profile>,
    pub(crate) channel: Option<ChannelKey>,
    pub(crate) now: Timestamp,
}

impl Measures<'_> {
    /// The value of a metric where `candidate` is at hand. One that is not in force has none. O(log metrics + log series +
    /// buckets).
    pub(crate) fn value(&self, reading: &Reading, candidate: Option<(OfferKey, Option<CategoryKey>)>) -> Value {
        let Ok(place) = self.metrics.binary_search_by_key(&reading.metric, |metric| metric.key) else {
            return Value::Null;
        };
        let metric = &self.metrics[place];
        let group = GroupRef {
            offer: candidate.map(|(offer, _)| offer).filter(|_| metric.by_offer),
            category: candidate.and_then(|(_, category)| category).filter(|_| metric.by_category),
            channel: self.channel.filter(|_| metric.by_channel),
            property: reading.property.as_deref(),
        };
        // Nothing is counted under no category or no channel.
        let known = self.profile.and_then(Profile::metrics);
        let tally = known.and_then(|known| known.tally(metric.key, metric.generation, &group, self.now));
        aggregate(metric.aggregation, tally)
    }
}
