//! Create, read, update, delete and list: the same for every kind of entity (domain.md §1).

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use proffer_cluster::calls::Changed;
use proffer_engine::catalog::{EntityKind, Filter, Op};
use proffer_engine::keys::Revision;
use proffer_engine::model::Status;
use proffer_engine::value::Value;

use crate::asked::Asked;
use crate::ids::entity_id;
use crate::limits::{PAGE_DEFAULT, PAGE_MAX};
use crate::problem::Problem;
use crate::routes::{Answered, Routes};
use crate::v1::{at_revision, json, no_content};
use crate::wire::value::Json;

/// The seven routes of a kind.
pub fn serve(routes: Routes, kind: EntityKind) -> Routes {
    let all = format!("/api/v1/{}", kind.as_str());
    let one = format!("{all}/{{id}}");
    routes
        .on(Method::GET, &all, move |asked| list(asked, kind))
        .on(Method::POST, &all, move |asked| create(asked, kind))
        .on(Method::PUT, &all, move |asked| update(asked, kind))
        .on(Method::DELETE, &all, move |asked| delete_named(asked, kind))
        .on(Method::GET, &one, move |asked| get(asked, kind))
        .on(Method::PUT, &one, move |asked| update(asked, kind))
        .on(Method::DELETE, &one, move |asked| delete(asked, kind))
}

async fn create(asked: Arc<Asked>, kind: EntityKind) -> Answered {
    asked.query.only(&[])?;
    let body = asked.json()?;
    let id = entity_id(kind.id_prefix(), asked.now(), &*asked.app.config.entropy);
    change(&asked, kind, StatusCode::CREATED, Op::Create { kind, id, body }).await
}

async fn update(asked: Arc<Asked>, kind: EntityKind) -> Answered {
    asked.query.only(&[])?;
    let patch = asked.json()?;
    let id = id_of_write(asked.param("id"), &patch)?;
    let expected = if_match(&asked.headers)?;
    change(&asked, kind, StatusCode::OK, Op::Update { kind, id, patch, expected }).await
}

async fn get(asked: Arc<Asked>, kind: EntityKind) -> Answered {
    asked.query.only(&[])?;
    let id = asked.param("id");
    let entity = asked.view.catalog.get(kind, id).ok_or_else(|| unknown(kind, id))?;
    Ok(entity_response(StatusCode::OK, &entity))
}

async fn delete_named(asked: Arc<Asked>, kind: EntityKind) -> Answered {
    asked.query.only(&["id", "force"])?;
    let id = asked.query.get("id").ok_or_else(|| Problem::invalid("/query/id", "is required"))?.to_owned();
    delete_one(&asked, kind, id).await
}

async fn delete(asked: Arc<Asked>, kind: EntityKind) -> Answered {
    asked.query.only(&["force"])?;
    let id = asked.param("id").to_owned();
    delete_one(&asked, kind, id).await
}

/// Deletes; whether an offer has history is asked of all shards first.
pub async fn delete_one(asked: &Asked, kind: EntityKind, id: String) -> Answered {
    let force = asked.query.flag("force")?;
    let offer = asked.view.catalog.offers().key_of(&id);
    let has_history = match offer {
        Some(offer) if kind == EntityKind::Offer && !force => {
            asked.handle().has_history(asked.tenant(), offer, asked.deadline).await?
        }
        Some(_) | None => false,
    };
    let command = asked.command(Op::Delete { kind, id, force, has_history });
    let changed = asked.handle().change(command, asked.deadline).await?;
    Ok(at_revision(no_content(), changed.revision))
}

async fn list(asked: Arc<Asked>, kind: EntityKind) -> Answered {
    asked.query.only(&["status", "categoryId", "tags", "limit", "cursor"])?;
    page(&asked, kind, asked.query.get("categoryId"))
}

/// A page of a list.
pub fn page(asked: &Asked, kind: EntityKind, category: Option<&str>) -> Answered {
    let status = match asked.query.get("status") {
        None => None,
        Some(word) => Some(Status::parse(word).ok_or_else(|| {
            let words = Status::ALL.iter().map(|status| status.as_str()).collect::<Vec<_>>().join(" ");
            Problem::invalid("/query/status", format!("must be one of {words}"))
        })?),
    };
    let limit = match asked.query.get("limit") {
        None => PAGE_DEFAULT,
        Some(text) => match text.parse() {
            Ok(limit) if (1..=PAGE_MAX).contains(&limit) => limit,
            _ => {
                let message = format!("must be a whole number from 1 to {PAGE_MAX}");
                return Err(Problem::invalid("/query/limit", message).into());
            }
        },
    };
    let tags = asked.query.get("tags").into_iter().flat_map(|tags| tags.split(',')).map(str::trim);
    let filter = Filter {
        status,
        category_id: category.map(str::to_owned),
        tags: tags.filter(|tag| !tag.is_empty()).map(str::to_owned).collect(),
        limit: Some(limit),
        cursor: asked.query.get("cursor").map(str::to_owned),
    };
    let page = asked.view.catalog.list(kind, &filter);
    let page = page.map_err(|bad| Problem::invalid("/query/cursor", bad.to_string()))?;
    let answer = List { items: page.items.iter().map(Json).collect(), next_cursor: page.next_cursor };
    Ok(json(StatusCode::OK, &answer))
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct List<'a> {
    items: Vec<Json<'a>>,
    next_cursor: Option<String>,
}

/// Makes a change and answers with the entity as it is then.
pub async fn change(asked: &Asked, kind: EntityKind, status: StatusCode, op: Op) -> Answered {
    let changed = asked.handle().change(asked.command(op), asked.deadline).await?;
    let in_force = asked.handle().revision();
    let view = asked.handle().tenant(asked.tenant());
    let entity = view.and_then(|view| view.catalog.get(kind, &changed.id));
    Ok(describe_changed(&changed, in_force, entity, status))
}

/// The answer to a change that was made, whatever has become of the entity since: it may be deleted again. Of a node that is cut off from the catalogue's
/// leader the entity is as it was *before*: that would be no answer.
fn describe_changed(changed: &Changed, in_force: Revision, entity: Option<Value>, status: StatusCode) -> Response {
    let entity = entity.filter(|_| in_force >= changed.revision).unwrap_or_else(|| {
        let revision = Value::Number(changed.revision.0 as f64);
        Value::map([("id", Value::text(&changed.id)), ("revision", revision)])
    });
    let over_by = (changed.over_by > 0).then(|| ("overBy".to_owned(), Value::Number(changed.over_by as f64)));
    let new_caps = &changed.change.new_caps;
    let new_caps =
        (!new_caps.is_empty()).then(|| ("newCaps".to_owned(), Value::list(new_caps.iter().map(Value::text))));
    let entity = with_news(entity, over_by.into_iter().chain(new_caps));
    let status = if changed.over_by > 0 { StatusCode::ACCEPTED } else { status };
    at_revision(entity_response(status, &entity), changed.revision)
}

/// The entity with what the write says beside it: `overBy`, of a lowered limit that shards still hold more of (accepted, in
/// force when they have given back); `newCaps`, the keys of caps that count from 0 from now on.
fn with_news(entity: Value, news: impl Iterator<Item = (String, Value)>) -> Value {
    let mut news = news.peekable();
    if news.peek().is_none() {
        return entity;
    }
    let members = entity.as_map().into_iter().flatten();
    Value::map(members.map(|(name, value)| (name.to_string(), value.clone())).chain(news))
}

/// No such entity.
pub fn unknown(kind: EntityKind, id: &str) -> Problem {
    Problem::not_found(format!("{} {id:?}", kind.noun()))
}

/// An entity with the tag that guards its updates.
pub fn entity_response(status: StatusCode, entity: &Value) -> Response {
    let mut response = json(status, &Json(entity));
    let revision = entity.as_map().and_then(|members| members.get("revision")?.as_number());
    if let Some(revision) = revision {
        let tag = HeaderValue::from_str(&format!("\"{revision}\"")).expect("a number in quotes is visible");
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// The id of a write: in the path, the body, or both if they agree.
pub fn id_of_write(path: &str, body: &Value) -> Result<String, Problem> {
    let member = body.as_map().and_then(|members| members.get("id"));
    match (path, member) {
        ("", None) => Err(Problem::invalid("/id", "is required, here or in the path")),
        (path, None) => Ok(path.to_owned()),
        (path, Some(Value::Text(id))) if path.is_empty() || path == &**id => Ok(id.to_string()),
        (_, Some(Value::Text(_))) => Err(Problem::invalid("/id", "differs from the path's")),
        (_, Some(other)) => Err(Problem::invalid("/id", format!("must be a string, not {}", other.kind()))),
    }
}

/// The revision that `If-Match` asks for; `*` asks for none.
pub fn if_match(headers: &HeaderMap) -> Result<Option<Revision>, Problem> {
    let Some(given) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = given.to_str().unwrap_or("").trim();
    if text == "*" {
        return Ok(None);
    }
    let revision = text.trim_matches('"').parse().map(Revision);
    revision.map(Some).map_err(|_| Problem::invalid("/headers/If-Match", "must be the revision that ETag gave"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed() -> Changed {
        let change = proffer_engine::catalog::Changed {
            id: "chn_1".to_owned(),
            kind: Some(EntityKind::Channel),
            also: Vec::new(),
            new_caps: Vec::new(),
            effect: Vec::new(),
        };
        Changed { revision: Revision(7), id: "chn_1".to_owned(), change, over_by: 0 }
    }

    #[test]
    fn a_change_that_was_made_is_told_as_made_though_the_entity_is_gone_again() {
        let answer = describe_changed(&changed(), Revision(9), None, StatusCode::CREATED);
        assert_eq!(answer.status(), StatusCode::CREATED);
        assert_eq!(
            (&answer.headers()["etag"], &answer.headers()["x-catalog-revision"]),
            (&"\"7\"".parse().unwrap(), &"7".parse().unwrap())
        );
    }

    #[tokio::test]
    async fn a_change_is_not_answered_with_what_was_before_it() {
        let before =
            Value::map([("id", Value::text("chn_1")), ("name", Value::text("old")), ("revision", Value::Number(5.0))]);
        let told = async |in_force: u64| {
            let answer = describe_changed(&changed(), Revision(in_force), Some(before.clone()), StatusCode::OK);
            let body = axum::body::to_bytes(answer.into_body(), 1_000).await.unwrap();
            String::from_utf8(body.to_vec()).unwrap()
        };
        assert!(told(7).await.contains("old"));
        assert_eq!(told(6).await, r#"{"id":"chn_1","revision":7}"#);
    }
}
