//! `GET` and `PUT /settings`, `GET /tags`.

use std::sync::Arc;

use axum::http::StatusCode;
use proffer_engine::catalog::Op;

use crate::asked::Asked;
use crate::routes::Answered;
use crate::v1::{at_revision, json};
use crate::wire::value::Json;

/// `GET /settings`.
pub async fn get(asked: Arc<Asked>) -> Answered {
    asked.query.only(&[])?;
    Ok(json(StatusCode::OK, &Json(&asked.view.catalog.settings_value())))
}

/// `PUT /settings`: members given are replaced whole, null resets to the default.
pub async fn put(asked: Arc<Asked>) -> Answered {
    asked.query.only(&[])?;
    let patch = asked.json()?;
    let changed = asked.handle().change(asked.command(Op::UpdateSettings { patch }), asked.deadline).await?;
    // Tenants stay; were this one gone, the change would still have been made.
    let view = asked.handle().tenant(asked.tenant()).unwrap_or_else(|| Arc::clone(&asked.view));
    Ok(at_revision(json(StatusCode::OK, &Json(&view.catalog.settings_value())), changed.revision))
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Tags<'a> {
    items: Vec<Tag<'a>>,
    next_cursor: Option<&'a str>,
}

#[derive(serde::Serialize)]
struct Tag<'a> {
    name: &'a str,
    offers: usize,
}

/// `GET /tags`: the tags that offers carry.
pub async fn tags(asked: Arc<Asked>) -> Answered {
    asked.query.only(&[])?;
    let tags = asked.view.catalog.tags().map(|(name, offers)| Tag { name, offers });
    Ok(json(StatusCode::OK, &Tags { items: tags.collect(), next_cursor: None }))
}
