//! Behavioural metrics of one profile: what was counted, kept so that every window can be read exactly at any time.
//!
//! A series is what one metric counted for one group. A lifetime is one tally, a calendar period is the tally of the period that
//! it is in, and a rolling window is a list of tallies by time. Each tally knows number, sum, least and most, so a series says the
//! same whatever is made of it. Sums are whole micro-units: no order of events changes them.

use std::collections::BTreeMap;

use bincode::de::Decoder;
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{Decode, Encode};

use crate::keys::{CategoryKey, ChannelKey, MetricKey, Micros, OfferKey};
use crate::limits::{METRIC_BUCKETS_PER_SERIES, METRIC_SERIES_PER_PROFILE};
use crate::model::metric::Aggregation;
use crate::profile::command::Window;
use crate::time::{Span, Timestamp};
use crate::value::Value;

/// A full rolling series is divided into so many stretches of its window.
const GRAINS: i64 = 64;

/// One of the things that a metric counts apart; all `None`: it counts everything together.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Group {
    /// Of this offer.
    pub offer: Option<OfferKey>,
    /// Of offers in this category.
    pub category: Option<CategoryKey>,
    /// On this channel.
    pub channel: Option<ChannelKey>,
    /// With this value of a property.
    pub property: Option<Box<str>>,
}

/// What happened, as one metric counts it: everything that `apply` needs to know of the metric.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Feed {
    /// When it counts.
    pub trigger: Trigger,
    /// Which metric.
    pub metric: MetricKey,
    /// Which of its meanings: another one begins anew.
    pub generation: u32,
    /// Of what.
    pub group: Group,
    /// The number that is aggregated; 0 for a count.
    pub number: Micros,
    /// The window it looks back on, around the command's time.
    pub window: Window,
}

/// What of a command makes a feed count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Trigger {
    /// The proposition of this rank (0 in a respond) counts as shown.
    Impression(u16),
    /// The outcome or event itself is counted.
    Itself,
}

/// Numbers put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// Their sum, in micro-units.
    pub sum: i128,
    /// The smallest.
    pub least: Micros,
    /// The largest.
    pub most: Micros,
}

impl Tally {
    fn of(number: Micros) -> Self {
        Tally { count: 1, sum: i128::from(number.0), least: number, most: number }
    }

    fn with(self, other: Tally) -> Self {
        Tally {
            count: self.count.saturating_add(other.count),
            sum: self.sum.saturating_add(other.sum),
            least: self.least.min(other.least),
            most: self.most.max(other.most),
        }
    }
}

/// What an aggregation makes of a tally. Means are rounded to the micro-unit, halves away from 0. Of nothing, count and sum are
/// 0 and everything else is null.
pub fn aggregate(aggregation: Aggregation, tally: Option<Tally>) -> Value {
    let units = |micros: i128| Value::Number(micros as f64 / 1e6);
    match (aggregation, tally) {
        (Aggregation::Count, tally) => Value::Number(tally.map_or(0, |tally| tally.count) as f64),
        (Aggregation::Sum, tally) => units(tally.map_or(0, |tally| tally.sum)),
        (Aggregation::Avg | Aggregation::Min | Aggregation::Max, None) => Value::Null,
        (Aggregation::Avg, Some(tally)) => {
            let (count, size) = (i128::from(tally.count), tally.sum.saturating_abs());
            let rounded = size / count + i128::from(size % count >= count - size % count);
            units(rounded * tally.sum.signum())
        }
        (Aggregation::Min, Some(tally)) => units(i128::from(tally.least.0)),
        (Aggregation::Max, Some(tally)) => units(i128::from(tally.most.0)),
    }
}

/// What one metric counted for one group.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Series {
    /// Which metric.
    pub metric: MetricKey,
    /// Of what.
    pub group: Group,
    /// Which of the metric's meanings.
    pub generation: u32,
    /// When it was last fed.
    pub fed_at: Timestamp,
    /// By its window.
    pub kept: Kept,
}

/// Tallies as a window needs them.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Kept {
    /// Of everything, ever.
    Ever(Tally),
    /// Of one calendar period.
    Period(Span, Tally),
    /// By time, oldest first; each counts for so many milliseconds.
    Rolling(i64, Vec<(Timestamp, Tally)>),
}

impl Kept {
    fn of(window: Window, number: Micros, now: Timestamp) -> Self {
        let tally = Tally::of(number);
        match window {
            Window::Lifetime => Kept::Ever(tally),
            Window::Calendar(span) => Kept::Period(span, tally),
            Window::Rolling { ms } => Kept::Rolling(ms, vec![(now, tally)]),
        }
    }

    /// Counts one more; `false` if this is of another window.
    fn add(&mut self, window: Window, number: Micros, now: Timestamp) -> bool {
        let tally = Tally::of(number);
        match (self, window) {
            (Kept::Ever(all), Window::Lifetime) => *all = all.with(tally),
            (Kept::Period(span, all), Window::Calendar(around)) => {
                if now < span.until {
                    *all = all.with(tally);
                } else {
                    (*span, *all) = (around, tally);
                }
            }
            (Kept::Rolling(length, buckets), Window::Rolling { ms }) if *length == ms => {
                match buckets.last_mut() {
                    Some((at, all)) if *at == now => *all = all.with(tally),
                    Some(_) | None => buckets.push((now, tally)),
                }
                if buckets.len() > METRIC_BUCKETS_PER_SERIES {
                    coarsen(buckets, (ms / GRAINS).max(1));
                }
            }
            (Kept::Ever(_) | Kept::Period(..) | Kept::Rolling(..), _) => return false,
        }
        true
    }

    /// What is in the window at `now`.
    fn at(&self, now: Timestamp) -> Option<Tally> {
        match self {
            Kept::Ever(all) => Some(*all),
            Kept::Period(span, all) => (now < span.until).then_some(*all),
            Kept::Rolling(ms, buckets) => {
                let inside = buckets.iter().rev().take_while(|(at, _)| now.since_ms(*at) < *ms);
                inside.map(|(_, tally)| *tally).reduce(Tally::with)
            }
        }
    }

    /// Takes out what no window sees again; `false` if nothing is left.
    fn lapse(&mut self, now: Timestamp) -> bool {
        match self {
            Kept::Ever(_) => true,
            Kept::Period(span, _) => now < span.until,
            Kept::Rolling(ms, buckets) => {
                let gone = buckets.partition_point(|(at, _)| now.since_ms(*at) >= *ms);
                buckets.drain(..gone);
                !buckets.is_empty()
            }
        }
    }

    fn is_sound(&self) -> bool {
        match self {
            Kept::Ever(all) | Kept::Period(_, all) => all.count > 0,
            Kept::Rolling(_, buckets) => {
                buckets.iter().all(|(_, tally)| tally.count > 0)
                    && buckets.windows(2).all(|pair| pair[0].0 < pair[1].0)
                    && buckets.len() <= METRIC_BUCKETS_PER_SERIES
            }
        }
    }
}

/// Counts what lies in one stretch of a fixed division of time together, at the time of its last.
fn coarsen(buckets: &mut Vec<(Timestamp, Tally)>, grain: i64) {
    let mut fewer: Vec<(Timestamp, Tally)> = Vec::with_capacity(buckets.len());
    for (at, tally) in buckets.drain(..) {
        match fewer.last_mut() {
            Some((last, all)) if last.0.div_euclid(grain) == at.0.div_euclid(grain) => {
                (*last, *all) = (at, all.with(tally));
            }
            Some(_) | None => fewer.push((at, tally)),
        }
    }
    *buckets = fewer;
}

/// All series of a profile, by metric and group. They are stored beside the rest of the profile: see `profile/stored.rs`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics(Vec<Series>);

impl Metrics {
    /// The series as they were stored; `None` if they are none that ever were.
    pub(crate) fn restored(series: Vec<Series>) -> Option<Self> {
        let is_sound = series.len() <= METRIC_SERIES_PER_PROFILE
            && series.iter().all(|series| series.kept.is_sound())
            && series.windows(2).all(|pair| key(&pair[0]) < key(&pair[1]));
        is_sound.then_some(Metrics(series))
    }

    /// By metric and group.
    pub fn series(&self) -> &[Series] {
        &self.0
    }

    /// What `metric`, with its meaning `generation`, counted for a group, as far as its window sees it at `now`. O(log series +
    /// buckets).
    pub fn tally(&self, metric: MetricKey, generation: u32, group: &GroupRef<'_>, now: Timestamp) -> Option<Tally> {
        let place =
            self.0.binary_search_by(|series| (series.metric, GroupRef::of(&series.group)).cmp(&(metric, *group)));
        let series = &self.0[place.ok()?];
        (series.generation == generation).then(|| series.kept.at(now)).flatten()
    }

    /// Counts what happened. O(series + buckets).
    pub(crate) fn feed(&mut self, feed: &Feed, now: Timestamp) {
        if self.0.iter().any(|series| series.metric == feed.metric && series.generation > feed.generation) {
            // Counted by what the metric meant before: that is over.
            return;
        }
        self.0.retain(|series| series.metric != feed.metric || series.generation == feed.generation);
        match self.0.binary_search_by(|series| key(series).cmp(&(feed.metric, &feed.group))) {
            Ok(place) => {
                let series = &mut self.0[place];
                series.fed_at = now;
                if !series.kept.add(feed.window, feed.number, now) {
                    series.kept = Kept::of(feed.window, feed.number, now);
                }
            }
            Err(place) => {
                self.0.insert(
                    place,
                    Series {
                        metric: feed.metric,
                        group: feed.group.clone(),
                        generation: feed.generation,
                        fed_at: now,
                        kept: Kept::of(feed.window, feed.number, now),
                    },
                );
                if self.0.len() > METRIC_SERIES_PER_PROFILE {
                    self.drop_stalest();
                }
            }
        }
    }

    /// Takes out, of the metric with the most groups, the group that was fed least recently: a metric whose groups have no end costs no
    /// other its counts. Series of metrics that do not count apart stay: there are fewer of them than there is room.
    fn drop_stalest(&mut self) {
        let grouped = || self.0.iter().enumerate().filter(|(_, series)| series.group != Group::default());
        let mut groups = BTreeMap::<MetricKey, usize>::new();
        grouped().for_each(|(_, series)| *groups.entry(series.metric).or_default() += 1);
        let largest = groups.into_iter().max_by_key(|(_, count)| *count).map(|(metric, _)| metric);
        let its = grouped().filter(|(_, series)| Some(series.metric) == largest);
        let stalest = its.min_by_key(|(place, series)| (series.fed_at, *place)).map(|(place, _)| place);
        self.0.remove(stalest.unwrap_or(0));
    }

    /// Takes out what metrics counted that are gone.
    pub(crate) fn forget(&mut self, gone: &[MetricKey]) {
        if !gone.is_empty() {
            self.0.retain(|series| !gone.contains(&series.metric));
        }
    }

    /// Takes out what no window sees again.
    pub(crate) fn lapse(&mut self, now: Timestamp) {
        self.0.retain_mut(|series| series.kept.lapse(now));
    }

    pub(crate) fn shrink_to_fit(&mut self) {
        self.0.shrink_to_fit();
    }

    /// Bytes that reading them claims, no less.
    pub(crate) fn weight(&self) -> usize {
        let beyond = |series: &Series| {
            let buckets = match &series.kept {
                Kept::Ever(_) | Kept::Period(..) => 0,
                Kept::Rolling(_, buckets) => size_of_val(buckets.as_slice()),
            };
            buckets + series.group.property.as_ref().map_or(0, |name| name.len())
        };
        size_of_val(self.0.as_slice()) + self.0.iter().map(beyond).sum::<usize>()
    }
}

fn key(series: &Series) -> (MetricKey, &Group) {
    (series.metric, &series.group)
}

/// A [`Group`] to look for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupRef<'a> {
    /// See [`Group::offer`].
    pub offer: Option<OfferKey>,
    /// See [`Group::category`].
    pub category: Option<CategoryKey>,
    /// See [`Group::channel`].
    pub channel: Option<ChannelKey>,
    /// See [`Group::property`].
    pub property: Option<&'a str>,
}

impl<'a> GroupRef<'a> {
    /// The group as a key.
    pub fn of(group: &'a Group) -> Self {
        let Group { offer, category, channel, property } = group;
        GroupRef { offer: *offer, category: *category, channel: *channel, property: property.as_deref() }
    }
}

// Kept out of the bytes of dealings, which are as they were before there were metrics.
impl Encode for Metrics {
    fn encode<E: Encoder>(&self, _: &mut E) -> Result<(), EncodeError> {
        Ok(())
    }
}

impl<C> Decode<C> for Metrics {
    fn decode<D: Decoder<Context = C>>(_: &mut D) -> Result<Self, DecodeError> {
        Ok(Metrics::default())
    }
}
bincode::impl_borrow_decode!(Metrics);
