//! What a behavioural metric is worth: everything it counted for the group at hand, looked at one by one.

use crate::catalog::TenantCatalog;
use crate::decide::request::Request;
use crate::keys::{CategoryKey, OfferKey};
use crate::model::Status;
use crate::model::metric::Dimension;
use crate::profile::metrics::{Kept, Tally, aggregate};
use crate::profile::state::Profile;
use crate::time::Timestamp;
use crate::value::Value;

/// The value of `metric.path` for a candidate, or where none is at hand.
pub(super) fn metric_value(
    catalog: &TenantCatalog,
    profile: &Profile,
    request: &Request,
    now: Timestamp,
    path: &str,
    candidate: Option<(OfferKey, Option<CategoryKey>)>,
) -> Value {
    let mut steps = path.splitn(2, '.');
    let (name, property) = (steps.next(), steps.next());
    let found = catalog.metrics().iter().find(|row| Some(row.body.name.as_str()) == name);
    let Some(metric) = found.filter(|row| row.body.status == Status::Active) else { return Value::Null };
    let by = |dimension: Dimension| metric.body.group_by.contains(&dimension);
    let offer = candidate.filter(|_| by(Dimension::Offer)).map(|(offer, _)| offer);
    let category = candidate.filter(|_| by(Dimension::Category)).and_then(|(_, category)| category);
    let channel = request.channel.filter(|_| by(Dimension::Channel));
    let series = profile.metrics().into_iter().flat_map(|metrics| metrics.series()).filter(|series| {
        let group = &series.group;
        (series.metric, series.generation) == (metric.key, metric.body.generation)
            && (group.offer, group.category, group.channel) == (offer, category, channel)
            && group.property.as_deref() == property
    });
    let mut all: Option<Tally> = None;
    for series in series {
        let counted: Vec<Tally> = match &series.kept {
            Kept::Ever(tally) => vec![*tally],
            Kept::Period(span, tally) if now < span.until => vec![*tally],
            Kept::Period(..) => Vec::new(),
            Kept::Rolling(ms, buckets) => {
                buckets.iter().filter(|(at, _)| now.since_ms(*at) < *ms).map(|(_, tally)| *tally).collect()
            }
        };
        for one in counted {
            all = Some(match all {
                None => one,
                Some(all) => Tally {
                    count: all.count + one.count,
                    sum: all.sum + one.sum,
                    least: all.least.min(one.least),
                    most: all.most.max(one.most),
                },
            });
        }
    }
    aggregate(metric.body.aggregation, all)
}
