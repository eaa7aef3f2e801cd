//! A small world to write to, and what must hold of every write.

mod deletion;
mod format;
mod guardrails;
mod invariants;
mod metrics;
mod models;
mod offers;
mod publishing;
mod reads;
mod refusals;
mod tutorial;

use crate::catalog::{Actor, Catalog, Changed, Command, CommandV1, EntityKind, Op, Refusal, TenantCatalog};
use crate::keys::{Revision, TenantId};
use crate::model::fault::Fault;
use crate::time::Timestamp;
use crate::value::Value;

/// Reads JSON text.
pub(crate) fn json(text: &str) -> Value {
    convert(serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}")))
}

pub(super) fn convert(value: serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(flag) => Value::Bool(flag),
        serde_json::Value::Number(number) => Value::Number(number.as_f64().unwrap()),
        serde_json::Value::String(text) => Value::text(text),
        serde_json::Value::Array(items) => Value::list(items.into_iter().map(convert)),
        serde_json::Value::Object(members) => {
            Value::map(members.into_iter().map(|(name, value)| (name, convert(value))))
        }
    }
}

/// A catalogue with the tenant `t`, and the commands that made it.
pub(crate) struct World {
    pub(super) catalog: Catalog,
    pub(super) history: Vec<(Revision, Command)>,
    pub(super) admin: bool,
    revision: u64,
}

impl World {
    pub(crate) fn empty() -> Self {
        let mut world = World { catalog: Catalog::new(), history: Vec::new(), admin: false, revision: 0 };
        world.apply(Op::CreateTenant).unwrap();
        world
    }

    /// One of everything, from the golden fixture.
    pub(crate) fn furnished() -> Self {
        let mut world = World::empty();
        for line in include_str!("../../../tests/golden/catalog_fixture.ndjson").lines() {
            let case = json(line);
            let member = |name: &str| case.as_map().unwrap().get(name).cloned();
            let kind = EntityKind::parse(member("kind").unwrap().as_text().unwrap()).unwrap();
            let id = member("id").unwrap();
            let body = member("body").unwrap();
            world.create(kind, id.as_text().unwrap(), body).unwrap_or_else(|refusal| panic!("{line}: {refusal}"));
        }
        world
    }

    pub(crate) fn apply(&mut self, op: Op) -> Result<Changed, Refusal> {
        self.revision += 1;
        let command = Command::V1(CommandV1 {
            tenant: TenantId::new("t"),
            actor: Actor { name: "test".to_owned(), admin: self.admin },
            at: Timestamp(1_700_000_000_000 + self.revision as i64),
            op,
        });
        self.history.push((Revision(self.revision), command.clone()));
        self.catalog.apply(Revision(self.revision), &command)
    }

    pub(crate) fn tenant(&self) -> &TenantCatalog {
        self.catalog.tenant(&TenantId::new("t")).unwrap()
    }

    pub(crate) fn create(&mut self, kind: EntityKind, id: &str, body: Value) -> Result<Changed, Refusal> {
        self.apply(Op::Create { kind, id: id.to_owned(), body })
    }

    pub(crate) fn update(&mut self, kind: EntityKind, id: &str, patch: &str) -> Result<Changed, Refusal> {
        self.apply(Op::Update { kind, id: id.to_owned(), patch: json(patch), expected: None })
    }

    pub(crate) fn delete(&mut self, kind: EntityKind, id: &str, force: bool) -> Result<Changed, Refusal> {
        self.apply(Op::Delete { kind, id: id.to_owned(), force, has_history: false })
    }

    /// A member of the object as reads show it.
    pub(super) fn member(&self, kind: EntityKind, id: &str, name: &str) -> Value {
        let shown = self.tenant().get(kind, id).unwrap();
        shown.as_map().unwrap().get(name).cloned().unwrap()
    }
}

/// The kind of a refusal and the pointers it names, sorted.
pub(super) fn summary(refusal: &Refusal) -> (&'static str, Vec<String>) {
    let pointers = |faults: &[Fault]| {
        let mut pointers: Vec<String> = faults.iter().map(|fault| fault.pointer.clone()).collect();
        pointers.sort();
        pointers
    };
    match refusal {
        Refusal::Invalid(faults) => ("invalid", pointers(faults)),
        Refusal::Forbidden(_) => ("forbidden", Vec::new()),
        Refusal::NotFound(_) => ("not found", Vec::new()),
        Refusal::Conflict { faults, .. } => ("conflict", pointers(faults)),
        Refusal::RevisionMismatch { .. } => ("revision mismatch", Vec::new()),
    }
}
