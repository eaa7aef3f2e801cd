//! `POST /events`.

use std::sync::Arc;

use axum::http::StatusCode;
use proffer_cluster::calls::Call;
use proffer_engine::keys::CustomerId;
use proffer_engine::model::fault::Faults;
use proffer_engine::profile::measuring::{EventRequest, NUMBER_MAX};

use crate::asked::{Asked, typed};
use crate::idempotency;
use crate::problem::Problem;
use crate::resolve;
use crate::routes::Answered;
use crate::v1::json;
use crate::v1::respond::check_timestamp;
use crate::wire::event::Event;

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
    let offer = body.offer_id.as_ref();
    let offer = offer.and_then(|name| resolve::find(catalog.offers(), "offerId", "offer", name, &mut faults));
    let channel = resolve::channel(catalog, body.channel.as_ref(), body.channel_id.as_ref(), &mut faults);
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
