//! `POST /import/{kind}`: NDJSON of entities or profiles. The whole file is validated on a clone of the catalogue before the
//! first write; a line whose id or name exists updates it, so that a rerun is harmless.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use proffer_cluster::calls::ProfileWrite;
use proffer_engine::catalog::table::{Resolved, Table, TableKey};
use proffer_engine::catalog::{Command, EntityKind, Op, Role, TenantCatalog};
use proffer_engine::keys::CustomerId;
use proffer_engine::model::Ref;
use proffer_engine::model::fault::{Fault, Faults};
use proffer_engine::model::record::Field;

use crate::access::{Access, allows};
use crate::asked::{Accepted, Asked};
use crate::ids::entity_id;
use crate::problem::Problem;
use crate::routes::Answered;
use crate::v1::{at_revision, json, profiles};
use crate::wire::lines::{self, BadLines, Line};
use crate::wire::profile::PutProfile;

const AUTHORS: Access = Access::Roles(&[Role::Editor, Role::Admin]);

#[derive(Debug, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Imported {
    kind: String,
    dry_run: bool,
    lines: usize,
    created: usize,
    updated: usize,
}

/// `POST /api/v1/import/{kind}?dryRun=`.
pub async fn import(asked: Asked) -> Answered {
    asked.query.only(&["dryRun"])?;
    let dry_run = asked.query.flag("dryRun")?;
    let kind = asked.param("kind").to_owned();
    if kind == "profiles" {
        return import_profiles(asked, kind, dry_run).await;
    }
    let Some(entity) = EntityKind::parse(&kind) else {
        return Err(Problem::not_found(format!("kind {kind:?}")));
    };
    if !allows(AUTHORS, &asked.identity.roles) {
        return Err(Problem::Forbidden("importing what is authored needs the role editor or admin".to_owned()));
    }
    let body = asked.bytes(Accepted::Lines)?;
    let mut bad = BadLines::default();
    let lines = lines::read(body, &mut bad);
    let (commands, imported) = plan(&asked, entity, &lines, &mut bad);
    bad.into_result()?;
    let imported = Imported { kind, dry_run, lines: lines.len(), ..imported };
    let mut bad = BadLines::default();
    let verdicts = asked.handle().validate(commands.clone(), asked.deadline).await?;
    for (line, verdict) in lines.iter().zip(verdicts) {
        if let Err(refusal) = verdict {
            bad.add(line.number, faults_of(refusal.into()));
        }
    }
    bad.into_result()?;
    if dry_run {
        return Ok(json(StatusCode::OK, &imported));
    }
    let mut revision = asked.handle().revision();
    let asked_for = commands.len();
    for (applied, change) in asked.handle().change_many(commands, asked.deadline).await?.into_iter().enumerate() {
        match change {
            Ok(changed) => revision = revision.max(changed.revision),
            // Somebody else wrote between the check and the write.
            Err(error) => {
                let message = format!("line {}: {error}", lines[applied].number);
                return Err(Problem::Partial { message, applied, asked: asked_for, retry_after_ms: 1_000 });
            }
        }
    }
    Ok(at_revision(json(StatusCode::OK, &imported), revision))
}

/// What of a problem is to be said of its line.
fn faults_of(problem: Problem) -> Vec<Fault> {
    let detail = problem.detail();
    if let Problem::Invalid(faults) | Problem::Conflict { faults, .. } = problem
        && !faults.is_empty()
    {
        return faults;
    }
    vec![whole(detail)]
}

/// One command a line: an update of what has the line's id or name, else a create.
fn plan(asked: &Asked, kind: EntityKind, lines: &[Line], bad: &mut BadLines) -> (Vec<Command>, Imported) {
    let catalog = &*asked.view.catalog;
    let mut commands = Vec::with_capacity(lines.len());
    let mut imported = Imported::default();
    let mut seen = BTreeSet::new();
    for line in lines {
        let text = |member: &str| line.members().get(member).and_then(|value| value.as_text());
        let (id, name) = (text("id"), text(if kind == EntityKind::Flow { "key" } else { "name" }));
        if let Some(identity) = id.or(name)
            && !seen.insert((id.is_some(), identity.to_owned()))
        {
            bad.add(line.number, vec![whole(format!("{identity:?} appears twice in this file"))]);
            continue;
        }
        let existing = match existing(catalog, kind, id, name) {
            Ok(existing) => existing,
            Err(message) => {
                bad.add(line.number, vec![whole(message)]);
                continue;
            }
        };
        let op = match existing {
            Some(id) => {
                imported.updated += 1;
                Op::Update { kind, id, patch: line.value.clone(), expected: None }
            }
            None => {
                imported.created += 1;
                let fresh = || entity_id(kind.id_prefix(), asked.now(), &*asked.app.config.entropy);
                Op::Create { kind, id: id.map_or_else(fresh, str::to_owned), body: line.value.clone() }
            }
        };
        commands.push(asked.command(op));
    }
    (commands, imported)
}

fn whole(message: String) -> Fault {
    Fault { pointer: String::new(), message }
}

/// The id of the entity that a line means: by id, else by name (flows: by key).
fn existing(
    catalog: &TenantCatalog,
    kind: EntityKind,
    id: Option<&str>,
    name: Option<&str>,
) -> Result<Option<String>, String> {
    fn named<K: TableKey, T>(
        table: &Table<K, T>,
        id: Option<&str>,
        name: Option<&str>,
    ) -> Result<Option<String>, String> {
        if let Some(found) = id.and_then(|id| table.by_id(id)) {
            return Ok(Some(found.id.clone()));
        }
        let Some(name) = name else { return Ok(None) };
        match table.resolve(&Ref(name.to_owned())) {
            Resolved::Found(key) => Ok(table.get(key).map(|found| found.id.clone())),
            // A new id makes a new entity even where the name is not unique.
            Resolved::Ambiguous if id.is_none() => Err(format!("several things are named {name:?}: give the id")),
            Resolved::Ambiguous | Resolved::Unknown => Ok(None),
        }
    }
    match kind {
        EntityKind::Category => named(catalog.categories(), id, name),
        EntityKind::SubCategory => named(catalog.sub_categories(), id, name),
        EntityKind::Offer => named(catalog.offers(), id, name),
        EntityKind::Creative => named(catalog.creatives(), id, name),
        EntityKind::Channel => named(catalog.channels(), id, name),
        EntityKind::Placement => named(catalog.placements(), id, name),
        EntityKind::Collection => named(catalog.collections(), id, name),
        EntityKind::Activity => named(catalog.activities(), id, name),
        EntityKind::Rule => named(catalog.rules(), id, name),
        EntityKind::Policy => named(catalog.policies(), id, name),
        EntityKind::Schema => named(catalog.schemas(), id, name),
        EntityKind::Flow => {
            let by_id = id.and_then(|id| catalog.flows().by_id(id));
            let found = by_id.or_else(|| catalog.flow_by_key(name?));
            Ok(found.map(|flow| flow.id.clone()))
        }
    }
}

async fn import_profiles(asked: Asked, kind: String, dry_run: bool) -> Answered {
    let body = asked.bytes(Accepted::Lines)?;
    let mut bad = BadLines::default();
    let lines = lines::read(body, &mut bad);
    let mut writes: Vec<ProfileWrite> = Vec::with_capacity(lines.len());
    for line in &lines {
        let body = bad.check(line.number, |faults: &mut Faults| {
            if !line.members().contains_key("customerId") {
                faults.add_at("customerId", "is required");
            }
            PutProfile::read(&line.value, faults)
        });
        let Some(body) = body else { continue };
        let Some(customer) = body.customer_id.clone() else {
            bad.add(line.number, vec![whole("customerId must not be null".to_owned())]);
            continue;
        };
        match profiles::profile_write(&asked, CustomerId(customer.0), &line.value, body) {
            Ok(write) => writes.push(write),
            Err(problem) => bad.add(line.number, faults_of(problem)),
        }
    }
    bad.into_result()?;
    let updated = writes.len();
    if !dry_run {
        asked.handle().put_profiles(asked.tenant(), writes, asked.deadline).await?;
    }
    Ok(json(StatusCode::OK, &Imported { kind, dry_run, lines: lines.len(), created: 0, updated }))
}
