//! The one way to change the catalogue.

use std::sync::Arc;

use crate::catalog::Catalog;
use crate::catalog::caps::CapDefinition;
use crate::catalog::command::{Actor, Command, CommandV1, EntityKind, Op};
use crate::catalog::entity::{Authored, Context, Findings, NewCategory, for_kind};
use crate::catalog::index::Thing;
use crate::catalog::refusal::{Changed, Refusal, Touched};
use crate::catalog::slug::slug;
use crate::catalog::tenant::TenantCatalog;
use crate::catalog::validate::text;
use crate::catalog::{delete, publish, tenancy};
use crate::keys::Revision;
use crate::model::Entity;
use crate::model::category::Category;
use crate::model::fault::{Fault, Faults};
use crate::model::record::Field;
use crate::model::rest::Rest;
use crate::time::Timestamp;
use crate::value::{Members, Value};

/// Who makes a change, when, and as which revision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp<'a> {
    pub(crate) actor: &'a Actor,
    pub(crate) at: Timestamp,
    pub(crate) revision: Revision,
}

impl Catalog {
    /// Applies one command at `revision` (its log index). O(log n + size of what it touches).
    ///
    /// # Errors
    /// A refusal says why, with every fault found, and has changed nothing.
    pub fn apply(&mut self, revision: Revision, command: &Command) -> Result<Changed, Refusal> {
        let Command::V1(CommandV1 { tenant: tenant_id, actor, at, op }) = command;
        let stamp = Stamp { actor, at: *at, revision };
        let changed = match op {
            Op::CreateTenant => return self.create_tenant(tenant_id, &stamp),
            Op::PutApiKey { id, hash, roles, name } => self.put_api_key(tenant_id, id, hash, roles, name, &stamp)?,
            Op::RevokeApiKey { id } => self.revoke_api_key(tenant_id, id)?,
            Op::Create { kind, id, body } => {
                let tenant = self.tenant_mut(tenant_id)?;
                for_kind!(*kind, Body => create::<Body>(tenant, id, body, &stamp))?
            }
            Op::Update { kind, id, patch, expected } => {
                let tenant = self.tenant_mut(tenant_id)?;
                for_kind!(*kind, Body => update::<Body>(tenant, id, patch, *expected, &stamp))?
            }
            Op::Delete { kind, id, force, has_history } => {
                let tenant = self.tenant_mut(tenant_id)?;
                let wish = delete::Wish { force: *force, has_history: *has_history };
                for_kind!(*kind, Body => delete::delete::<Body>(tenant, id, wish, &stamp))?
            }
            Op::PublishFlow { id } => publish::publish(self.tenant_mut(tenant_id)?, id, &stamp)?,
            Op::RollbackFlow { id, version } => publish::roll_back(self.tenant_mut(tenant_id)?, id, *version, &stamp)?,
            Op::UpdateSettings { patch } => tenancy::update_settings(self.tenant_mut(tenant_id)?, patch, &stamp)?,
        };
        self.tenant_mut(tenant_id)?.state.revision = revision;
        Ok(changed)
    }
}

/// Members that reads add to every entity and writes ignore.
const READ_ONLY: [&str; 4] = ["id", "createdAt", "updatedAt", "revision"];

/// The members of a write, without the read-only ones.
fn writable<T: Authored>(body: &Value) -> Result<Members, Refusal> {
    text::check_body(body)?;
    let Value::Map(members) = body else {
        return Err(Refusal::invalid("", format!("must be an object, not {}", body.kind())));
    };
    let mut members = Members::clone(members);
    members.retain(|name, _| !READ_ONLY.contains(&&**name) && !T::READ_ONLY.contains(&&**name));
    Ok(members)
}

fn create<T: Authored>(
    tenant: &mut TenantCatalog,
    id: &str,
    body: &Value,
    stamp: &Stamp<'_>,
) -> Result<Changed, Refusal> {
    let members = writable::<T>(body)?;
    let table = T::table(tenant);
    let (body, new_category) = check::<T>(tenant, None, members, stamp.actor)?;
    if table.len() >= T::ROWS_MAX {
        return Err(Refusal::conflict(format!("a tenant has at most {} of this kind", T::ROWS_MAX)));
    }
    let Some(key) = table.next_key() else {
        return Err(Refusal::conflict("all keys of this kind were given"));
    };
    let category_slug = (T::KIND == EntityKind::Category).then(|| slug(body.name(), '_'));
    let id = match &category_slug {
        Some(slug) => derive_category_id(tenant, slug),
        None => {
            text::check_id(id)?;
            if table.is_id_used(id) {
                return Err(Refusal::conflict(format!("the id {id:?} is or was in use")));
            }
            id.to_owned()
        }
    };
    if let Some(slug) = category_slug {
        count_slug(tenant, slug);
    }
    let row = Entity { key, id, created_at: stamp.at, updated_at: stamp.at, revision: stamp.revision, body };
    Ok(store(tenant, row, None, new_category, stamp))
}

fn update<T: Authored>(
    tenant: &mut TenantCatalog,
    id: &str,
    patch: &Value,
    expected: Option<Revision>,
    stamp: &Stamp<'_>,
) -> Result<Changed, Refusal> {
    let before = Arc::clone(T::table(tenant).by_id(id).ok_or_else(|| not_found::<T>(id))?);
    if let Some(expected) = expected.filter(|expected| *expected != before.revision) {
        return Err(Refusal::RevisionMismatch { expected, actual: before.revision });
    }
    let patch = writable::<T>(patch)?;
    let members = T::merge(&before.body, &patch);
    let (body, new_category) = check::<T>(tenant, Some(&before), members, stamp.actor)?;
    let row = Entity {
        key: before.key,
        id: before.id.clone(),
        created_at: before.created_at,
        updated_at: stamp.at,
        revision: stamp.revision,
        body,
    };
    let offer = tenant.offers.key_of(id).filter(|_| T::KIND == EntityKind::Offer);
    let caps = |tenant: &TenantCatalog| offer.map_or(Vec::new(), |offer| tenant.caps(offer).to_vec());
    let old = caps(tenant);
    let mut changed = store(tenant, row, Some(&before.body), new_category, stamp);
    let is_new = |cap: &CapDefinition| !old.iter().any(|old| old.cap == cap.cap);
    changed.new_caps = caps(tenant).into_iter().filter(is_new).map(|cap| cap.key).collect();
    Ok(changed)
}

pub(crate) fn not_found<T: Authored>(id: &str) -> Refusal {
    Refusal::NotFound(format!("{} {:?}", T::KIND.noun(), crate::catalog::entity::shown(id)))
}

/// Reads and checks a whole body. Members that cannot be read do not hide what is wrong with the others.
fn check<T: Authored>(
    tenant: &TenantCatalog,
    before: Option<&Entity<T::Key, T>>,
    members: Members,
    actor: &Actor,
) -> Result<(T, Option<NewCategory>), Refusal> {
    let context = Context { tenant, actor, before };
    let value = Value::Map(Arc::new(members));
    let mut unreadable = Faults::new();
    let read = T::read(&value, &mut unreadable);
    if let Some(mut body) = read {
        // Readable, but perhaps with unknown members.
        let mut findings = Findings { faults: unreadable, ..Findings::default() };
        body.check(&context, &mut findings);
        check_name(&body, &context, &mut findings);
        if let Some(reason) = findings.forbidden {
            return Err(Refusal::Forbidden(reason));
        }
        Refusal::from_findings(findings.faults, findings.conflicts)?;
        return Ok((body, findings.new_category));
    }
    let mut faults = unreadable.into_vec();
    if let Some((mut body, rest)) = mend::<T>(&value, &faults) {
        let mut findings = Findings::default();
        body.check(&context, &mut findings);
        if let Some(reason) = findings.forbidden {
            return Err(Refusal::Forbidden(reason));
        }
        faults.extend(rest.relevant(findings.faults.into_vec()));
    }
    Err(Refusal::Invalid(faults))
}

/// The body without its unreadable parts, stand-ins in place of what it needs.
fn mend<T: Authored>(value: &Value, faults: &[Fault]) -> Option<(T, Rest)> {
    let Value::Map(stand_in) = T::stand_in() else { return None };
    let mut rest = Rest::of(value.as_map()?, faults, |member| T::DEPENDENT.contains(&(member, member)));
    let body = rest.read(&stand_in)?;
    for (cause, consequence) in T::DEPENDENT {
        if rest.lacks(cause) {
            rest.distrust(consequence);
        }
    }
    Some((body, rest))
}

fn check_name<T: Authored>(body: &T, context: &Context<'_, T>, findings: &mut Findings) {
    if T::UNIQUE_NAME && T::table(context.tenant).is_name_taken(body.name(), context.key()) {
        let message = format!("another {} is named {:?}", T::KIND.noun(), body.name());
        findings.conflicts.add_at("name", message);
    }
}

/// Stores a checked body. Cannot fail.
fn store<T: Authored>(
    tenant: &mut TenantCatalog,
    row: Entity<T::Key, T>,
    before: Option<&T>,
    new_category: Option<NewCategory>,
    stamp: &Stamp<'_>,
) -> Changed {
    let mut also = Vec::new();
    let mut effect = Vec::new();
    if let Some(category) = new_category {
        also.push((EntityKind::Category, category.id.clone()));
        make_category(tenant, category, stamp, &mut effect);
    }
    let id = row.id.clone();
    put(tenant, row, before, &mut effect);
    Changed { id, kind: Some(T::KIND), also, new_caps: Vec::new(), effect: Touched::normalise(effect) }
}

/// Puts a row and brings everything derived from it up to date.
pub(crate) fn put<T: Authored>(
    tenant: &mut TenantCatalog,
    row: Entity<T::Key, T>,
    before: Option<&T>,
    effect: &mut Vec<Touched>,
) {
    let key = row.key;
    let old_references = before.map(|body| body.references(tenant)).unwrap_or_default();
    let name = row.body.name().to_owned();
    let body = row.body.clone();
    T::table_mut(tenant).put(row, &name, before.map(T::name));
    let new_references = body.references(tenant);
    tenant.index.repoint(Thing::new(T::KIND, key), &old_references, &new_references);
    T::reindex(tenant, key, before, Some(&body));
    T::settle(tenant, key, before, Some(&body));
    if before != Some(&body) {
        T::touched(tenant, key, before, Some(&body), effect);
    }
}

fn make_category(tenant: &mut TenantCatalog, new: NewCategory, stamp: &Stamp<'_>, effect: &mut Vec<Touched>) {
    let body = Value::map([("name", Value::text(&new.name))]);
    let body = Category::read(&body, &mut Faults::new()).expect("a category needs a name only");
    let key = tenant.categories.next_key().expect("the check left room for a category");
    count_slug(tenant, new.slug);
    let row = Entity { key, id: new.id, created_at: stamp.at, updated_at: stamp.at, revision: stamp.revision, body };
    put(tenant, row, None, effect);
}

/// `cat_` + slug, suffixed if that is or was in use.
pub(crate) fn derive_category_id(tenant: &TenantCatalog, slug: &str) -> String {
    let mut number = tenant.state.category_slugs.get(slug).copied().unwrap_or(0) + 1;
    loop {
        let id = if number == 1 { format!("cat_{slug}") } else { format!("cat_{slug}_{number}") };
        if !tenant.categories.is_id_used(&id) {
            return id;
        }
        number += 1;
    }
}

fn count_slug(tenant: &mut TenantCatalog, slug: String) {
    *tenant.state.category_slugs.entry(slug).or_insert(0) += 1;
}
