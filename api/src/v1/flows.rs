//! What decision flows can beside being read and written: publish, versions, roll back.

use std::sync::Arc;

use axum::http::StatusCode;
use proffer_engine::catalog::{EntityKind, Op};
use proffer_engine::record;

use crate::asked::{Asked, typed};
use crate::routes::Answered;
use crate::v1::{entities, json};
use crate::wire::field::Name;
use crate::wire::value::Json;

record! {
    /// Body of `publish` without an id in the path.
    pub struct Publish {
        /// Id or key of the flow.
        pub id: Name => "id",
    }
}

record! {
    /// Body of `rollback`.
    pub struct RollBack {
        /// Number of the version to return to.
        pub version: u32 => "version",
    }
}

/// `POST /decision-flows/publish {id}`.
pub async fn publish_named(asked: Arc<Asked>) -> Answered {
    asked.query.only(&[])?;
    let body: Publish = typed(&asked.json()?)?;
    let id = body.id.0.to_string();
    entities::change(&asked, EntityKind::Flow, StatusCode::OK, Op::PublishFlow { id }).await
}

/// `POST /decision-flows/{id}/publish`.
pub async fn publish(asked: Arc<Asked>) -> Answered {
    asked.query.only(&[])?;
    let id = asked.param("id").to_owned();
    entities::change(&asked, EntityKind::Flow, StatusCode::OK, Op::PublishFlow { id }).await
}

/// `POST /decision-flows/{id}/rollback {version}`: appends that version as the newest.
pub async fn roll_back(asked: Arc<Asked>) -> Answered {
    asked.query.only(&[])?;
    let body: RollBack = typed(&asked.json()?)?;
    let op = Op::RollbackFlow { id: asked.param("id").to_owned(), version: body.version };
    entities::change(&asked, EntityKind::Flow, StatusCode::OK, op).await
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Versions<'a> {
    items: Json<'a>,
    next_cursor: Option<&'a str>,
}

/// `GET /decision-flows/{id}/versions`: oldest first; by id or key.
pub async fn versions(asked: Arc<Asked>) -> Answered {
    asked.query.only(&[])?;
    let catalog = &*asked.view.catalog;
    let id = asked.param("id");
    let flow = catalog.find(EntityKind::Flow, id);
    let versions = flow.and_then(|id| catalog.versions_value(&id));
    let versions = versions.ok_or_else(|| entities::unknown(EntityKind::Flow, id))?;
    Ok(json(StatusCode::OK, &Versions { items: Json(&versions), next_cursor: None }))
}
