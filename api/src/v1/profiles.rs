//! `/profiles/{customerId}`.

use axum::http::StatusCode;
use proffer_cluster::calls::{ProfileView, ProfileWrite};
use proffer_engine::calendar::iso;
use proffer_engine::catalog::TenantCatalog;
use proffer_engine::keys::CustomerId;
use proffer_engine::profile::command::OptOut;
use proffer_engine::value::Value;
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::sync::Arc;

use crate::asked::{Asked, typed};
use crate::limits::CUSTOMER_ID_BYTES_MAX;
use crate::problem::Problem;
use crate::routes::Answered;
use crate::v1::{json, no_content};
use crate::wire::profile::PutProfile;
use crate::wire::value::Json;

fn customer(asked: &Asked) -> Result<CustomerId, Problem> {
    let id = asked.param("customerId");
    if (1..=CUSTOMER_ID_BYTES_MAX).contains(&id.len()) {
        return Ok(CustomerId::new(id));
    }
    Err(Problem::invalid("/path/customerId", format!("must be 1 to {CUSTOMER_ID_BYTES_MAX} bytes long")))
}

/// `PUT`: the parts given are replaced whole.
pub async fn put(asked: Asked) -> Answered {
    asked.query.only(&[])?;
    let customer = customer(&asked)?;
    let value = asked.json()?;
    let body: PutProfile = typed(&value)?;
    let write = profile_write(&asked, customer, &value, body)?;
    asked.handle().put_profile(write, asked.deadline).await?;
    read(&asked).await
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
    let given = |member: &str| value.as_map().is_some_and(|members| members.contains_key(member));
    let attributes = body.attributes.map(|attributes| attributes.0).unwrap_or_default();
    let segments = body.segments.map(|segments| segments.0).unwrap_or_default();
    Ok(ProfileWrite {
        tenant: asked.tenant().clone(),
        customer,
        attributes: given("attributes")
            .then(|| attributes.into_iter().map(|(name, value)| (name.to_string(), value)).collect()),
        segments: given("segments").then(|| segments.iter().map(ToString::to_string).collect()),
    })
}

/// `GET`.
pub async fn get(asked: Asked) -> Answered {
    asked.query.only(&[])?;
    read(&asked).await
}

async fn read(asked: &Asked) -> Answered {
    let customer = customer(asked)?;
    let profile = asked.handle().get_profile(asked.tenant(), &customer, asked.deadline).await?;
    let profile = profile.ok_or_else(|| Problem::not_found(format!("profile {:?}", customer.0)))?;
    Ok(json(StatusCode::OK, &describe(&customer, &profile, &asked.view.catalog)))
}

/// `DELETE`: the profile with everything it owns. Harmless when repeated.
pub async fn delete(asked: Asked) -> Answered {
    asked.query.only(&[])?;
    let customer = customer(&asked)?;
    asked.handle().delete_profile(asked.tenant(), &customer, asked.deadline).await?;
    Ok(no_content())
}

/// `DELETE …/opt-outs`: the customer may be asked again.
pub async fn clear_opt_outs(asked: Asked) -> Answered {
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

fn describe<'a>(customer: &'a CustomerId, profile: &'a ProfileView, catalog: &'a TenantCatalog) -> Profile<'a> {
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
