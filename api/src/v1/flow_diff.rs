//! `GET /decision-flows/{id}/diff`: what differs between two versions of a flow, or a version and the draft.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::StatusCode;
use proffer_engine::catalog::{EntityKind, TenantCatalog};
use proffer_engine::keys::FlowKey;
use proffer_engine::value::Value;

use crate::asked::Asked;
use crate::problem::Problem;
use crate::routes::Answered;
use crate::v1::{entities, json};
use crate::wire::value::Json;

/// What differs, place by place.
#[derive(serde::Serialize)]
struct Diff<'a> {
    from: &'a str,
    to: &'a str,
    changes: Vec<Change<'a>>,
}

/// One place. Items of a list that have ids, as nodes do, are compared by id, and the pointer names it.
#[derive(serde::Serialize)]
struct Change<'a> {
    pointer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Json<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Json<'a>>,
}

/// `GET /decision-flows/{id}/diff?from&to`: each a version's number or `draft`.
pub async fn diff(asked: Arc<Asked>) -> Answered {
    asked.query.only(&["from", "to"])?;
    let catalog = &*asked.view.catalog;
    let id = asked.param("id");
    let flow = catalog.find(EntityKind::Flow, id).and_then(|id| catalog.flows().key_of(&id));
    let flow = flow.ok_or_else(|| entities::unknown(EntityKind::Flow, id))?;
    let side = |name: &'static str| {
        let pointer = format!("/query/{name}");
        let which = asked.query.get(name).ok_or_else(|| Problem::invalid(&pointer, "is required"))?;
        let found = config(catalog, flow, which);
        let why = || Problem::invalid(&pointer, format!("is neither a version of the flow nor draft: {which:?}"));
        found.map(|found| (which, found)).ok_or_else(why)
    };
    let (from, before) = side("from")?;
    let (to, after) = side("to")?;
    let mut changes = Vec::new();
    compare(&mut String::new(), Some(before), Some(after), &mut changes);
    Ok(json(StatusCode::OK, &Diff { from, to, changes }))
}

/// A version as it was written, or the draft.
fn config<'a>(catalog: &'a TenantCatalog, flow: FlowKey, which: &str) -> Option<&'a Value> {
    if which == "draft" {
        return catalog.flows().get(flow).map(|row| &row.body.draft_config);
    }
    let number: u32 = which.parse().ok()?;
    catalog.flow_versions(flow).iter().find(|version| version.number == number).map(|version| &version.source)
}

fn compare<'a>(at: &mut String, before: Option<&'a Value>, after: Option<&'a Value>, changes: &mut Vec<Change<'a>>) {
    if before == after {
        return;
    }
    let parts = before.and_then(parts).zip(after.and_then(parts));
    let Some((old, new)) = parts else {
        changes.push(Change { pointer: at.clone(), before: before.map(Json), after: after.map(Json) });
        return;
    };
    let mut names: Vec<&str> = old.keys().chain(new.keys()).copied().collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let length = at.len();
        at.push('/');
        at.push_str(&name.replace('~', "~0").replace('/', "~1"));
        compare(at, old.get(name).copied(), new.get(name).copied(), changes);
        at.truncate(length);
    }
}

/// What is compared by name: members of an object, and items of a list that all have different ids.
fn parts(value: &Value) -> Option<BTreeMap<&str, &Value>> {
    match value {
        Value::Map(members) => Some(members.iter().map(|(name, value)| (&**name, value)).collect()),
        Value::List(items) => {
            let id = |item: &'_ Value| {
                item.as_map().and_then(|members| members.get("id")).is_some_and(|id| id.as_text().is_some())
            };
            if items.is_empty() || !items.iter().all(id) {
                return None;
            }
            let named = items.iter().filter_map(|item| Some((item.as_map()?.get("id")?.as_text()?, item)));
            let named: BTreeMap<&str, &Value> = named.collect();
            (named.len() == items.len()).then_some(named)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => None,
    }
}
