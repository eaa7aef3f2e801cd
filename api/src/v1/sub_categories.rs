//! `/categories/{id}/sub-categories[/{subId}]`: entities below their parent.

use std::sync::Arc;

use axum::http::StatusCode;
use proffer_engine::catalog::{EntityKind, Op};
use proffer_engine::value::Value;

use crate::asked::Asked;
use crate::ids::entity_id;
use crate::problem::Problem;
use crate::routes::Answered;
use crate::v1::entities::{change, delete_one, entity_response, id_of_write, if_match, page, unknown};

const KIND: EntityKind = EntityKind::SubCategory;

/// The parent named by the path.
fn parent(asked: &Asked) -> Result<String, Problem> {
    let id = asked.param("id");
    match asked.view.catalog.categories().by_id(id) {
        Some(category) => Ok(category.id.clone()),
        None => Err(unknown(EntityKind::Category, id)),
    }
}

/// Refuses a sub-category that is not the parent's.
fn check_parent(asked: &Asked, parent: &str, id: &str) -> Result<(), Problem> {
    let found = asked.view.catalog.sub_categories().by_id(id);
    match found.is_some_and(|found| found.body.category_id.0 == parent) {
        true => Ok(()),
        false => Err(unknown(KIND, id)),
    }
}

/// `GET` all of a category.
pub async fn list(asked: Arc<Asked>) -> Answered {
    asked.query.only(&["status", "limit", "cursor"])?;
    let parent = parent(&asked)?;
    page(&asked, KIND, Some(&parent))
}

/// `GET` one.
pub async fn get(asked: Arc<Asked>) -> Answered {
    asked.query.only(&[])?;
    let id = asked.param("subId");
    check_parent(&asked, &parent(&asked)?, id)?;
    let entity = asked.view.catalog.get(KIND, id).ok_or_else(|| unknown(KIND, id))?;
    Ok(entity_response(StatusCode::OK, &entity))
}

/// `POST`: the path names the parent.
pub async fn create(asked: Arc<Asked>) -> Answered {
    asked.query.only(&[])?;
    let parent = parent(&asked)?;
    let body = below(&parent, asked.json()?)?;
    let id = entity_id(KIND.id_prefix(), asked.now(), &*asked.app.config.entropy);
    change(&asked, KIND, StatusCode::CREATED, Op::Create { kind: KIND, id, body }).await
}

/// `PUT`: it stays where it is.
pub async fn update(asked: Arc<Asked>) -> Answered {
    asked.query.only(&[])?;
    let parent = parent(&asked)?;
    let patch = below(&parent, asked.json()?)?;
    let id = id_of_write(asked.param("subId"), &patch)?;
    check_parent(&asked, &parent, &id)?;
    let expected = if_match(&asked.headers)?;
    change(&asked, KIND, StatusCode::OK, Op::Update { kind: KIND, id, patch, expected }).await
}

/// `DELETE /{subId}` or `?id=`.
pub async fn delete(asked: Arc<Asked>) -> Answered {
    asked.query.only(&["id", "force"])?;
    let parent = parent(&asked)?;
    let id = match (asked.param("subId"), asked.query.get("id")) {
        ("", Some(id)) => id.to_owned(),
        ("", None) => return Err(Problem::invalid("/query/id", "is required").into()),
        (id, None) => id.to_owned(),
        (_, Some(_)) => return Err(Problem::invalid("/query/id", "the path names it already").into()),
    };
    check_parent(&asked, &parent, &id)?;
    delete_one(&asked, KIND, id).await
}

/// The body with its parent; one that names another parent is refused.
fn below(parent: &str, body: Value) -> Result<Value, Problem> {
    let Some(members) = body.as_map() else {
        return Err(Problem::invalid("", format!("must be an object, not {}", body.kind())));
    };
    match members.get("categoryId") {
        None | Some(Value::Null) => {}
        Some(given) if given.as_text() == Some(parent) => {}
        Some(_) => return Err(Problem::invalid("/categoryId", "differs from the path's category")),
    }
    let mut members = members.clone();
    members.insert("categoryId".into(), Value::text(parent));
    Ok(Value::Map(members.into()))
}
