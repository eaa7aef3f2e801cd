//! `POST /events`.

use std::sync::Arc;

use axum::http::StatusCode;
use proffer_cluster::calls::Call;
use proffer_engine::catalog::TenantCatalog;
use proffer_engine::catalog::table::Resolved;
use proffer_engine::keys::{ChannelKey, CustomerId};
use proffer_engine::model::Ref;
use proffer_engine::model::fault::Faults;
use proffer_engine::profile::measuring::{EventRequest, NUMBER_MAX};

use crate::asked::{Asked, typed};
use crate::idempotency;
use crate::problem::Problem;
use crate::routes::Answered;
use crate::v1::json;
use crate::v1::respond::check_timestamp;
use crate::wire::event::Event;
use crate::wire::field::Name;

#[derive(serde::Serialize)]
struct EventAnswer {
    recorded: bool,
    duplicate: bool,
}

/// `POST /api/v1/events`.
pub async fn event(asked: Arc<Asked>) -> Answered {
    asked.query.only(&[])?;
    let value = asked.json()?;
    let body: Event = typed(&value)?;
    asked.at_home(&CustomerId(body.customer_id.0.clone()))?;
    let key = idempotency::required(&asked.headers, body.idempotency_key.as_ref())?;
    let request = read(&asked, body)?;
    let call = Call { idempotency: Some(idempotency::call_key("events", &key, &value)), ..Call::until(asked.deadline) };
    let duplicate = asked.handle().event(request, call).await?;
    Ok(json(StatusCode::OK, &EventAnswer { recorded: true, duplicate }))
}

fn read(asked: &Asked, body: Event) -> Result<EventRequest, Problem> {
    let catalog = &*asked.view.catalog;
    let mut faults = Faults::new();
    let offer = body.offer_id.as_ref().and_then(|name| match catalog.offers().resolve(&Ref(name.0.to_string())) {
        Resolved::Found(key) => Some(key),
        Resolved::Unknown | Resolved::Ambiguous => {
            faults.add_at("offerId", format!("{:?} does not exist", name.0));
            None
        }
    });
    let channel = channel(catalog, &body, &mut faults);
    if body.value.is_some_and(|value| value.abs() > NUMBER_MAX) {
        faults.add_at("value", format!("must be from {} to {NUMBER_MAX}", -NUMBER_MAX));
    }
    check_timestamp(body.timestamp.as_deref(), None, asked.now(), &mut faults);
    if !faults.is_empty() {
        return Err(Problem::Invalid(faults.into_vec()));
    }
    Ok(EventRequest {
        tenant: asked.tenant().clone(),
        customer: CustomerId(body.customer_id.0),
        event_type: body.event_type.0.to_string(),
        value: body.value,
        offer,
        channel,
        properties: body.properties.0.into_iter().collect(),
    })
}

fn channel(catalog: &TenantCatalog, body: &Event, faults: &mut Faults) -> Option<ChannelKey> {
    let find = |member: &str, name: &Name, faults: &mut Faults| {
        let found = match member {
            "channel" => catalog.channels().by_name(&name.0).map(|row| row.key),
            _ => match catalog.channels().resolve(&Ref(name.0.to_string())) {
                Resolved::Found(key) => Some(key),
                Resolved::Unknown | Resolved::Ambiguous => None,
            },
        };
        if found.is_none() {
            faults.add_at(member, format!("{:?} does not exist", name.0));
        }
        found
    };
    let by_name = body.channel.as_ref().and_then(|name| find("channel", name, faults));
    let by_id = body.channel_id.as_ref().and_then(|name| find("channelId", name, faults));
    if by_name.zip(by_id).is_some_and(|(one, other)| one != other) {
        faults.add_at("channelId", "is another channel than channel");
    }
    by_name.or(by_id)
}
