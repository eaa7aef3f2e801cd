//! `POST /import` and `POST /import/{kind}`: entities, profiles and rows in bulk. All of it is tried on a copy of the catalogue
//! before the first write, kind by kind in the order in which they refer to each other; a line whose id or name exists updates
//! it, so that a rerun is harmless.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::http::StatusCode;
use proffer_cluster::calls::ProfileWrite;
use proffer_cluster::ports::offload::{self, Lane};
use proffer_engine::catalog::table::{Resolved, Table, TableKey};
use proffer_engine::catalog::{Catalog, Command, EntityKind, Op, Role, TenantCatalog};
use proffer_engine::keys::{CustomerId, Revision};
use proffer_engine::model::Ref;
use proffer_engine::model::fault::{Fault, Faults};
use proffer_engine::model::record::Field;
use proffer_engine::value::Value;

use crate::access::{Access, allows};
use crate::asked::{Accepted, Asked};
use crate::ids::entity_id;
use crate::limits::{BULK_LINES_MAX, CATALOGUE_DEPTH_MAX};
use crate::problem::Problem;
use crate::routes::Answered;
use crate::v1::{at_revision, json, profiles, rows};
use crate::wire::lines::{self, BadLines, Line};
use crate::wire::profile::PutProfile;
use crate::wire::value;

const AUTHORS: Access = Access::Roles(&[Role::Editor, Role::Admin]);

/// Every kind of entity, after those that it may refer to.
const REFERRED_FIRST: [EntityKind; 15] = [
    EntityKind::Channel,
    EntityKind::Placement,
    EntityKind::Metric,
    EntityKind::Model,
    EntityKind::Category,
    EntityKind::SubCategory,
    EntityKind::Schema,
    EntityKind::Offer,
    EntityKind::Creative,
    EntityKind::Collection,
    EntityKind::Rule,
    EntityKind::Policy,
    EntityKind::Guardrail,
    EntityKind::Flow,
    EntityKind::Activity,
];

/// What lines say.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Entity(EntityKind),
    Profiles,
    /// Rows of the schema of this id or name.
    Rows(String),
}

impl Kind {
    /// `offers`, `profiles`, `rows:customer`.
    fn parse(word: &str) -> Option<Kind> {
        match word.strip_prefix("rows:") {
            Some("") => None,
            Some(schema) => Some(Kind::Rows(schema.to_owned())),
            None if word == "profiles" => Some(Kind::Profiles),
            None => EntityKind::parse(word).map(Kind::Entity),
        }
    }

    /// Place in the order of writing.
    fn place(&self) -> usize {
        match self {
            Kind::Entity(kind) => REFERRED_FIRST.iter().position(|known| known == kind).unwrap_or(REFERRED_FIRST.len()),
            Kind::Profiles => REFERRED_FIRST.len() + 1,
            Kind::Rows(_) => REFERRED_FIRST.len() + 2,
        }
    }
}

/// Lines of one kind.
pub(crate) struct Batch {
    pub(crate) name: String,
    kind: Kind,
    pub(crate) lines: Vec<Line>,
}

#[derive(Debug, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Imported {
    kind: String,
    dry_run: bool,
    lines: usize,
    created: usize,
    updated: usize,
}

#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct ImportedCatalogue {
    dry_run: bool,
    kinds: Vec<Imported>,
}

/// `POST /api/v1/import/{kind}?dryRun=`: NDJSON of one kind.
pub async fn import(asked: Arc<Asked>) -> Answered {
    asked.query.only(&["dryRun"])?;
    let dry_run = asked.query.flag("dryRun")?;
    let name = asked.param("kind").to_owned();
    let kind = Kind::parse(&name).ok_or_else(|| Problem::not_found(format!("kind {name:?}")))?;
    check_role(&asked, std::slice::from_ref(&kind))?;
    let (asked, plan) = apart(asked, move |asked| {
        let mut bad = BadLines::default();
        let lines = lines::read(asked.bytes(Accepted::Lines)?, &mut bad);
        Plan::of(asked, vec![Batch { name, kind, lines }], Naming::Lines, bad)
    })
    .await?;
    let (mut imported, revision) = plan.carry_out(&asked, dry_run).await?;
    let imported = imported.pop().expect("one batch has one result");
    Ok(at_revision(json(StatusCode::OK, &imported), revision))
}

/// `POST /api/v1/import?dryRun=`: an object of lists by kind, which may refer to each other.
pub async fn import_catalogue(asked: Arc<Asked>) -> Answered {
    asked.query.only(&["dryRun"])?;
    let dry_run = asked.query.flag("dryRun")?;
    let (asked, plan) = apart(asked, |asked| {
        let mut bad = BadLines::default();
        let batches = read_catalogue(asked.bytes(Accepted::Json)?, &mut bad)?;
        check_role(asked, batches.iter().map(|batch| &batch.kind))?;
        Plan::of(asked, batches, Naming::KindsAndLines, bad)
    })
    .await?;
    let (kinds, revision) = plan.carry_out(&asked, dry_run).await?;
    Ok(at_revision(json(StatusCode::OK, &ImportedCatalogue { dry_run, kinds }), revision))
}

/// Runs long work apart from the threads that answer requests.
async fn apart<T: Send + 'static>(
    asked: Arc<Asked>,
    work: impl FnOnce(&Asked) -> Result<T, Problem> + Send + 'static,
) -> Result<(Arc<Asked>, T), Problem> {
    let offload = Arc::clone(&asked.app.config.offload);
    let working = offload::call(&*offload, Lane::Bulk, move || {
        let result = work(&asked);
        (asked, result)
    });
    let (asked, result) = working.await.map_err(|lost| {
        tracing::error!(%lost, "an import could not be tried");
        Problem::Internal
    })?;
    Ok((asked, result?))
}

fn check_role<'a>(asked: &Asked, kinds: impl IntoIterator<Item = &'a Kind>) -> Result<(), Problem> {
    let is_authored = |kind: &Kind| matches!(kind, Kind::Entity(_));
    if kinds.into_iter().any(is_authored) && !allows(AUTHORS, &asked.identity.roles) {
        return Err(Problem::Forbidden("importing what is authored needs the role editor or admin".to_owned()));
    }
    Ok(())
}

/// The batches of a body, in the order of writing.
pub(crate) fn read_catalogue(body: &[u8], bad: &mut BadLines) -> Result<Vec<Batch>, Problem> {
    let body = value::read_nested(body, CATALOGUE_DEPTH_MAX)?;
    let Value::Map(members) = &body else {
        return Err(Problem::invalid("", format!("must be an object of lists by kind, not {}", body.kind())));
    };
    let mut faults = Faults::new();
    let mut batches = Vec::with_capacity(members.len());
    for (name, items) in members.iter() {
        match (Kind::parse(name), items) {
            (Some(kind), Value::List(items)) => {
                bad.of_kind(name);
                batches.push(Batch { name: name.to_string(), kind, lines: read_items(items, bad) });
            }
            (Some(_), other) => faults.add_at(name, format!("must be a list, not {}", other.kind())),
            (None, _) => faults.add_at(name, "unknown kind"),
        }
    }
    if batches.iter().map(|batch| batch.lines.len()).sum::<usize>() > BULK_LINES_MAX {
        faults.add(format!("must have at most {BULK_LINES_MAX} lines"));
    }
    batches.sort_by_key(|batch| batch.kind.place());
    if faults.is_empty() { Ok(batches) } else { Err(Problem::Invalid(faults.into_vec())) }
}

fn read_items(items: &[Value], bad: &mut BadLines) -> Vec<Line> {
    let mut lines = Vec::with_capacity(items.len());
    for (item, number) in items.iter().zip(1..) {
        if item.as_map().is_some() {
            lines.push(Line { number, value: item.clone() });
        } else {
            bad.add(number, vec![whole(&format!("must be an object, not {}", item.kind()))]);
        }
    }
    lines
}

/// What a batch will write.
enum Writes {
    Entities(Vec<Command>),
    Profiles(Vec<ProfileWrite>),
    /// Of this schema; checked again when it is written, because the schema may just have been made.
    Rows(String),
}

/// How places in the body are named.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Naming {
    Lines,
    KindsAndLines,
}

/// What was tried and found good.
struct Plan {
    batches: Vec<(Batch, Writes)>,
    imported: Vec<Imported>,
    naming: Naming,
}

impl Plan {
    /// Tries all of it.
    fn of(asked: &Asked, batches: Vec<Batch>, naming: Naming, mut bad: BadLines) -> Result<Plan, Problem> {
        let mut trial = Trial::of(asked);
        let mut plan = Plan { batches: Vec::with_capacity(batches.len()), imported: Vec::new(), naming };
        for batch in batches {
            if naming == Naming::KindsAndLines {
                bad.of_kind(&batch.name);
            }
            let (writes, created) = trial.plan(&batch, &mut bad)?;
            let lines = batch.lines.len();
            let updated = lines.saturating_sub(created);
            plan.imported.push(Imported { kind: batch.name.clone(), dry_run: false, lines, created, updated });
            plan.batches.push((batch, writes));
        }
        bad.into_result()?;
        Ok(plan)
    }

    /// Writes it, unless it was only to be tried.
    async fn carry_out(self, asked: &Asked, dry_run: bool) -> Result<(Vec<Imported>, Revision), Problem> {
        let Plan { batches, mut imported, naming } = self;
        imported.iter_mut().for_each(|of| of.dry_run = dry_run);
        let mut revision = asked.handle().revision();
        if dry_run {
            return Ok((imported, revision));
        }
        let asked_for = imported.iter().map(|of| of.lines).sum();
        let mut applied = 0;
        for (Batch { name, lines, .. }, writes) in batches {
            let kind = (naming == Naming::KindsAndLines).then_some(name.as_str());
            let written = match writes {
                Writes::Entities(commands) => write_entities(asked, commands, kind, &lines, &mut revision).await,
                Writes::Profiles(writes) => {
                    let written = asked.handle().put_profiles(asked.tenant(), writes, asked.deadline).await;
                    written.map_err(|error| part_written(error, kind, &lines))
                }
                Writes::Rows(schema) => write_rows(asked, &schema, kind, &lines).await,
            };
            match written {
                Ok(count) => applied += count,
                Err(Problem::Partial { cause, applied: part, lines, .. }) => {
                    return Err(Problem::Partial { cause, applied: applied + part, asked: asked_for, lines });
                }
                Err(cause) if applied > 0 => {
                    let lines = Vec::new();
                    return Err(Problem::Partial { cause: Box::new(cause), applied, asked: asked_for, lines });
                }
                Err(problem) => return Err(problem),
            }
        }
        Ok((imported, revision))
    }
}

/// Writes what was tried. Somebody else may have written in between: then a line may be refused, and those after it are not.
async fn write_entities(
    asked: &Asked,
    commands: Vec<Command>,
    kind: Option<&str>,
    lines: &[Line],
    revision: &mut Revision,
) -> Result<usize, Problem> {
    let asked_for = commands.len();
    let mut applied = 0;
    let (mut refused, mut cause) = (Vec::new(), None);
    for (index, change) in asked.handle().change_many(commands, asked.deadline).await?.into_iter().enumerate() {
        match change {
            Ok(changed) => {
                applied += 1;
                *revision = (*revision).max(changed.revision);
            }
            Err(error) => {
                let is_better = |known: &proffer_cluster::Error| !known.retryable() && error.retryable();
                if cause.as_ref().is_none_or(is_better) {
                    cause = Some(error.clone());
                }
                refused.push((index, error));
            }
        }
    }
    match cause {
        None => Ok(applied),
        Some(cause) => {
            let error = proffer_cluster::Error::Partial { applied, asked: asked_for, refused, cause: Box::new(cause) };
            Err(part_written(error, kind, lines))
        }
    }
}

async fn write_rows(asked: &Asked, schema: &str, kind: Option<&str>, lines: &[Line]) -> Result<usize, Problem> {
    let view = asked.handle().tenant(asked.tenant());
    let catalog = &view.as_ref().unwrap_or(&asked.view).catalog;
    let schema = rows::schema(catalog, schema)?;
    let mut bad = BadLines::default();
    let rows = rows::check(catalog, schema, lines, &mut bad);
    bad.into_result()?;
    let written = asked.handle().put_rows(asked.tenant(), schema, rows, asked.deadline).await;
    written.map_err(|error| part_written(error, kind, lines))
}

/// What is said of a bulk write that failed, with the lines that were refused.
pub fn part_written(error: proffer_cluster::Error, kind: Option<&str>, lines: &[Line]) -> Problem {
    let proffer_cluster::Error::Partial { applied, asked, refused, cause } = error else { return error.into() };
    let mut bad = BadLines::default();
    if let Some(kind) = kind {
        bad.of_kind(kind);
    }
    for (index, error) in refused {
        bad.add(lines.get(index).map_or(index + 1, |line| line.number), Problem::from(error).into_faults());
    }
    Problem::Partial { cause: Box::new((*cause).into()), applied, asked, lines: bad.into_listed() }
}

/// A fault of a whole line.
pub fn whole(message: &str) -> Fault {
    Fault { pointer: String::new(), message: message.to_owned() }
}

/// A copy of the tenant's catalogue that takes every line first: what refers to an earlier line finds it there.
struct Trial<'a> {
    asked: &'a Asked,
    catalog: Catalog,
    revision: Revision,
}

impl<'a> Trial<'a> {
    fn of(asked: &'a Asked) -> Self {
        let view = &asked.view;
        let catalog = Catalog::trial(view.tenant.clone(), TenantCatalog::clone(&view.catalog));
        Trial { asked, catalog, revision: Revision(view.revision.0 + 1) }
    }

    fn tenant(&self) -> &TenantCatalog {
        self.catalog.tenant(self.asked.tenant()).expect("the trial is of this tenant")
    }

    /// What a batch writes, and how many entities it makes.
    fn plan(&mut self, batch: &Batch, bad: &mut BadLines) -> Result<(Writes, usize), Problem> {
        Ok(match &batch.kind {
            Kind::Entity(kind) => {
                let (commands, created) = self.plan_entities(*kind, &batch.lines, bad);
                (Writes::Entities(commands), created)
            }
            Kind::Profiles => (Writes::Profiles(plan_profiles(self.asked, &batch.lines, bad)), 0),
            Kind::Rows(schema) => {
                let key = rows::schema(self.tenant(), schema)?;
                rows::check(self.tenant(), key, &batch.lines, bad);
                (Writes::Rows(schema.clone()), 0)
            }
        })
    }

    /// One command a line: an update of what has the line's id or name, else a create.
    fn plan_entities(&mut self, kind: EntityKind, lines: &[Line], bad: &mut BadLines) -> (Vec<Command>, usize) {
        let mut commands = Vec::with_capacity(lines.len());
        let mut created = 0;
        let mut seen = BTreeSet::new();
        for line in lines {
            let text = |member: &str| line.members().get(member).and_then(|value| value.as_text());
            let (id, name) = (text("id"), text(if kind == EntityKind::Flow { "key" } else { "name" }));
            if let Some(identity) = id.or(name)
                && !seen.insert((id.is_some(), identity.to_owned()))
            {
                bad.add(line.number, vec![whole(&format!("{identity:?} appears twice"))]);
                continue;
            }
            let existing = match existing(self.tenant(), kind, id, name) {
                Ok(existing) => existing,
                Err(message) => {
                    bad.add(line.number, vec![whole(&message)]);
                    continue;
                }
            };
            let op = match existing {
                Some(id) => Op::Update { kind, id, patch: line.value.clone(), expected: None },
                None => {
                    created += 1;
                    let fresh = || entity_id(kind.id_prefix(), self.asked.now(), &*self.asked.app.config.entropy);
                    Op::Create { kind, id: id.map_or_else(fresh, str::to_owned), body: line.value.clone() }
                }
            };
            let command = self.asked.command(op);
            match self.catalog.apply(self.revision, &command) {
                Ok(_) => commands.push(command),
                Err(refusal) => bad.add(line.number, Problem::from(refusal).into_faults()),
            }
        }
        (commands, created)
    }
}

fn plan_profiles(asked: &Asked, lines: &[Line], bad: &mut BadLines) -> Vec<ProfileWrite> {
    let mut writes = Vec::with_capacity(lines.len());
    for line in lines {
        let body = bad.check(line.number, |faults: &mut Faults| {
            if !line.members().contains_key("customerId") {
                faults.add_at("customerId", "is required");
            }
            PutProfile::read(&line.value, faults)
        });
        let Some(body) = body else { continue };
        let Some(customer) = body.customer_id.clone() else {
            bad.add(line.number, vec![whole("customerId must not be null")]);
            continue;
        };
        match profiles::profile_write(asked, CustomerId(customer.0), &line.value, body) {
            Ok(write) => writes.push(write),
            Err(problem) => bad.add(line.number, problem.into_faults()),
        }
    }
    writes
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
        EntityKind::Guardrail => named(catalog.guardrails(), id, name),
        EntityKind::Metric => named(catalog.metrics(), id, name),
        EntityKind::Model => named(catalog.models(), id, name),
        EntityKind::Flow => {
            let by_id = id.and_then(|id| catalog.flows().by_id(id));
            let found = by_id.or_else(|| catalog.flow_by_key(name?));
            Ok(found.map(|flow| flow.id.clone()))
        }
    }
}
