//! `/profiles/{customerId}`.

use axum::http::StatusCode;
use proffer_cluster::calls::{ProfileView, ProfileWrite};
use proffer_engine::calendar::iso;
use proffer_engine::catalog::TenantCatalog;
use proffer_engine::keys::CustomerId;
use proffer_engine::limits::ATTRIBUTE_BYTES;
use proffer_engine::model::fault::Faults;
use proffer_engine::profile::apply::{are_segments_storable, are_values_storable};
use proffer_engine::profile::command::OptOut;
use proffer_engine::profile::measuring::values;
use proffer_engine::profile::metrics;
use proffer_engine::time::Timestamp;
use proffer_engine::value::Value;
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::time::Instant;

use crate::asked::{Asked, typed};
use crate::forwarding::Unanswered;
use crate::limits::{CUSTOMER_ID_BYTES_MAX, READ_BACK_TIMEOUT};
use crate::problem::Problem;
use crate::routes::Answered;
use crate::v1::{json, no_content};
use crate::wire::profile::PutProfile;
use crate::wire::value::Json;

/// The customer of the path, if their shard is led here.
fn customer(asked: &Asked) -> Result<CustomerId, Unanswered> {
    let id = asked.param("customerId");
    if !(1..=CUSTOMER_ID_BYTES_MAX).contains(&id.len()) {
        let message = format!("must be 1 to {CUSTOMER_ID_BYTES_MAX} bytes long");
        return Err(Problem::invalid("/path/customerId", message).into());
    }
    let customer = CustomerId::new(id);
    asked.at_home(&customer)?;
    Ok(customer)
}

/// `PUT`: the parts given are replaced whole.
pub async fn put(asked: Arc<Asked>) -> Answered {
    asked.query.only(&[])?;
    let customer = customer(&asked)?;
    let value = asked.json()?;
    let body: PutProfile = typed(&value)?;
    let write = profile_write(&asked, customer, &value, body)?;
    asked.handle().put_profile(write.clone(), asked.deadline).await?;
    // It is written: that it cannot be read now (a full shard, a deadline) makes that no failure.
    let patience = Instant::now() + READ_BACK_TIMEOUT.min(asked.deadline.saturating_duration_since(Instant::now()) / 2);
    let read = asked.handle().get_profile(asked.tenant(), &write.customer, patience).await;
    Ok(match read {
        Ok(Some(profile)) => json(StatusCode::OK, &describe(&asked, &write.customer, &profile)),
        // Nothing is stored of a customer of whom nothing is known, or it has been deleted since.
        Ok(None) => json(StatusCode::OK, &describe(&asked, &write.customer, &alone(&write))),
        Err(_) => json(StatusCode::OK, &Given::of(&write)),
    })
}

/// A profile of which only what was written is known to be there.
fn alone(write: &ProfileWrite) -> ProfileView {
    let attributes = write.attributes.iter().flatten();
    ProfileView {
        attributes: attributes.map(|(name, value)| (Arc::from(name.as_str()), value.clone())).collect(),
        segments: write.segments.iter().flatten().map(|name| Arc::from(name.as_str())).collect(),
        rows: Vec::new(),
        exposures: Vec::new(),
        dealings: None,
    }
}

/// The parts of a profile that a write gave: all that can be said of one that cannot be read back.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Given<'a> {
    customer_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    attributes: Option<BTreeMap<&'a str, Json<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    segments: Option<&'a [String]>,
}

impl<'a> Given<'a> {
    fn of(write: &'a ProfileWrite) -> Self {
        let attributes = write.attributes.as_deref();
        Given {
            customer_id: &write.customer.0,
            attributes: attributes.map(|of| of.iter().map(|(name, value)| (name.as_str(), Json(value))).collect()),
            segments: write.segments.as_deref(),
        }
    }
}

/// A member that is null empties its part; one that is absent leaves it alone.
pub fn profile_write(
    asked: &Asked,
    customer: CustomerId,
    value: &Value,
    body: PutProfile,
) -> Result<ProfileWrite, Problem> {
    if body.customer_id.is_some_and(|given| given.0 != customer.0) {
        return Err(Problem::invalid("/customerId", "differs from the path's"));
    }
    let mut faults = Faults::new();
    let given = |member: &str| value.as_map().is_some_and(|members| members.contains_key(member));
    let attributes = body.attributes.map(|attributes| attributes.0).unwrap_or_default();
    let segments = body.segments.map(|segments| segments.0).unwrap_or_default();
    let attributes: Option<Vec<_>> =
        given("attributes").then(|| attributes.into_iter().map(|(name, value)| (name.to_string(), value)).collect());
    let segments: Option<Vec<_>> = given("segments").then(|| segments.iter().map(ToString::to_string).collect());
    if !attributes.as_deref().is_none_or(are_values_storable) {
        faults.add_at("attributes", TOO_LARGE);
    }
    if !segments.as_deref().is_none_or(are_segments_storable) {
        faults.add_at("segments", TOO_LARGE);
    }
    if !faults.is_empty() {
        return Err(Problem::Invalid(faults.into_vec()));
    }
    Ok(ProfileWrite { tenant: asked.tenant().clone(), customer, attributes, segments })
}

/// What is said of attributes, segments or a row that a shard would refuse.
pub const TOO_LARGE: &str = "is larger than 64 KiB as stored";
const _: () = assert!(ATTRIBUTE_BYTES == 64 * 1024, "the sentence above says so");

/// `GET`.
pub async fn get(asked: Arc<Asked>) -> Answered {
    asked.query.only(&[])?;
    read(&asked).await
}

async fn read(asked: &Asked) -> Answered {
    let customer = customer(asked)?;
    let profile = asked.handle().get_profile(asked.tenant(), &customer, asked.deadline).await?;
    let profile = profile.ok_or_else(|| Problem::not_found(format!("profile {:?}", customer.0)))?;
    Ok(json(StatusCode::OK, &describe(asked, &customer, &profile)))
}

/// `DELETE`: the profile with everything it owns. Harmless when repeated.
pub async fn delete(asked: Arc<Asked>) -> Answered {
    asked.query.only(&[])?;
    let customer = customer(&asked)?;
    asked.handle().delete_profile(asked.tenant(), &customer, asked.deadline).await?;
    asked.app.traces.forget(asked.tenant(), &customer);
    Ok(no_content())
}

/// `DELETE …/opt-outs`: the customer may be asked again.
pub async fn clear_opt_outs(asked: Arc<Asked>) -> Answered {
    asked.query.only(&[])?;
    let customer = customer(&asked)?;
    asked.handle().clear_opt_outs(asked.tenant(), &customer, asked.deadline).await?;
    Ok(no_content())
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Profile<'a> {
    customer_id: &'a str,
    attributes: Values<'a>,
    segments: &'a [Arc<str>],
    rows: Rows<'a>,
    opt_outs: Vec<OptOutEntry<'a>>,
    exposures: Exposures,
    metrics: Metrics<'a>,
}

/// What behavioural metrics are worth now, by name: a value, or a list of groups with theirs.
struct Metrics<'a> {
    catalog: &'a TenantCatalog,
    counted: Option<&'a metrics::Metrics>,
    now: Timestamp,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct MetricGroup<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    offer_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    category_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    property: Option<&'a str>,
    value: Json<'a>,
}

impl Serialize for Metrics<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let catalog = self.catalog;
        for (metric, groups) in values(catalog, self.counted, self.now) {
            if metric.group_by.is_empty() {
                let whole = groups.first().map(|(_, value)| Json(value));
                map.serialize_entry(&metric.name, &whole)?;
                continue;
            }
            let groups: Vec<MetricGroup<'_>> = groups
                .iter()
                .map(|(group, value)| MetricGroup {
                    offer_id: group.offer.and_then(|key| catalog.offers().get(key)).map(|row| row.id.as_str()),
                    category_id: group
                        .category
                        .and_then(|key| catalog.categories().get(key))
                        .map(|row| row.id.as_str()),
                    channel_id: group.channel.and_then(|key| catalog.channels().get(key)).map(|row| row.id.as_str()),
                    property: group.property.as_deref(),
                    value: Json(value),
                })
                .collect();
            map.serialize_entry(&metric.name, &groups)?;
        }
        map.end()
    }
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Exposures {
    count: usize,
    last_at: Option<String>,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct OptOutEntry<'a> {
    scope: &'static str,
    id: Option<&'a str>,
}

/// Named values as an object.
struct Values<'a>(&'a [(Arc<str>, Value)]);

impl Serialize for Values<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut named: Vec<_> = self.0.iter().collect();
        named.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut map = serializer.serialize_map(Some(named.len()))?;
        for (name, value) in named {
            map.serialize_entry(&**name, &Json(value))?;
        }
        map.end()
    }
}

/// Rows by the name of their schema.
struct Rows<'a>(Vec<(&'a str, Values<'a>)>);

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(schema, row)| (schema, row)))
    }
}

fn describe<'a>(asked: &'a Asked, customer: &'a CustomerId, profile: &'a ProfileView) -> Profile<'a> {
    let catalog = &*asked.view.catalog;
    let rows = profile
        .rows
        .iter()
        .filter_map(|(schema, row)| Some((catalog.schemas().get(*schema)?.body.name.as_str(), Values(row))));
    let opt_outs = profile.dealings.as_ref().map_or(&[][..], |dealings| &dealings.opt_outs);
    Profile {
        customer_id: &customer.0,
        attributes: Values(&profile.attributes),
        segments: &profile.segments,
        rows: Rows(rows.collect()),
        opt_outs: opt_outs.iter().map(|opt_out| describe_opt_out(*opt_out, catalog)).collect(),
        exposures: Exposures {
            count: profile.exposures.len(),
            last_at: profile.exposures.last().map(|seen| iso(seen.at())),
        },
        metrics: Metrics {
            catalog,
            counted: profile.dealings.as_ref().map(|dealings| &dealings.metrics),
            now: asked.now(),
        },
    }
}

fn describe_opt_out(opt_out: OptOut, catalog: &TenantCatalog) -> OptOutEntry<'_> {
    match opt_out {
        OptOut::Offer(key) => OptOutEntry { scope: "offer", id: catalog.offers().get(key).map(|offer| &*offer.id) },
        OptOut::Category(key) => {
            OptOutEntry { scope: "category", id: catalog.categories().get(key).map(|category| &*category.id) }
        }
        OptOut::Channel(key) => {
            OptOutEntry { scope: "channel", id: catalog.channels().get(key).map(|channel| &*channel.id) }
        }
        OptOut::All => OptOutEntry { scope: "all", id: None },
    }
}

#[cfg(test)]
mod tests {
    use proffer_engine::keys::TenantId;

    use super::*;

    #[test]
    fn of_a_profile_that_cannot_be_read_back_only_what_was_given_is_told() {
        let write = ProfileWrite {
            tenant: TenantId::new("default"),
            customer: CustomerId::new("c"),
            attributes: Some(vec![("b".to_owned(), Value::Number(1.0)), ("a".to_owned(), Value::Null)]),
            segments: None,
        };
        let told = serde_json::to_string(&Given::of(&write)).unwrap();
        assert_eq!(told, r#"{"customerId":"c","attributes":{"a":null,"b":1}}"#);
    }
}
