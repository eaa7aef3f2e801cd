//! Deleting: what hangs on a thing decides whether it may go, and what goes with it.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::catalog::apply::{Stamp, not_found, put};
use crate::catalog::command::EntityKind;
use crate::catalog::entity::{Authored, for_kind};
use crate::catalog::index::Thing;
use crate::catalog::refusal::{Changed, Refusal, Touched};
use crate::catalog::tenant::TenantCatalog;
use crate::catalog::validate::{algorithm, fallback, metric, scope};
use crate::model::category::{Category, SubCategory};
use crate::model::collection::Collection;
use crate::model::fault::Faults;
use crate::model::offer::Offer;
use crate::model::policy::{ContactPolicy, MutualExclusion, PolicyConfig};
use crate::model::record::Field;
use crate::model::rule::{QualificationRule, Scope};
use crate::model::{Entity, Ref, Status};

/// How a delete is meant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) force: bool,
    pub(crate) has_history: bool,
}

/// Deletes an entity, if nothing that stays needs it.
pub(crate) fn delete<T: Authored>(
    tenant: &mut TenantCatalog,
    id: &str,
    wish: Wish,
    stamp: &Stamp<'_>,
) -> Result<Changed, Refusal> {
    let row = Arc::clone(T::table(tenant).by_id(id).ok_or_else(|| not_found::<T>(id))?);
    let target = Thing::new(T::KIND, row.key);
    let cascade = plan(tenant, target, wish, stamp)?;
    let mut done = Done { also: Vec::new(), effect: Vec::new() };
    // What refers goes before what it refers to, so that every reference still resolves: kinds are declared in that order.
    for (user, targets) in &cascade.unlinked {
        unlink(tenant, *user, targets, stamp, &mut done);
    }
    for user in cascade.gone.iter().rev() {
        for_kind!(user.kind, Body => remove::<Body>(tenant, *user, &mut done));
    }
    remove::<T>(tenant, target, &mut done);
    done.also.retain(|(kind, other)| (*kind, other.as_str()) != (T::KIND, id));
    let (also, effect) = (done.also, Touched::normalise(done.effect));
    Ok(Changed { id: id.to_owned(), kind: Some(T::KIND), also, new_caps: Vec::new(), effect })
}

/// What a deletion takes along.
#[derive(Default)]
struct Cascade {
    /// Deleted with the target.
    gone: BTreeSet<Thing>,
    /// Changed so that they no longer name these.
    unlinked: std::collections::BTreeMap<Thing, BTreeSet<Thing>>,
}

struct Done {
    also: Vec<(EntityKind, String)>,
    effect: Vec<Touched>,
}

/// What becomes of each user of what is deleted.
enum Fate {
    /// It forbids the deletion.
    Blocks,
    /// It forbids the deletion unless forced, and is then deleted or unlinked.
    Yields,
    /// It is deleted too.
    Follows,
    /// It forgets what is deleted.
    Forgets,
}

fn fate(target: EntityKind, user: EntityKind) -> Fate {
    use EntityKind::{Category, Collection, Creative, Offer, Policy, Rule, SubCategory};
    match (target, user) {
        (Category, SubCategory) => Fate::Follows,
        (Category | SubCategory, Offer) => Fate::Forgets,
        (Offer, Creative | Collection) => Fate::Yields,
        (_, Rule | Policy) => Fate::Yields,
        _ => Fate::Blocks,
    }
}

fn plan(tenant: &TenantCatalog, target: Thing, wish: Wish, stamp: &Stamp<'_>) -> Result<Cascade, Refusal> {
    let mut cascade = Cascade::default();
    let mut conflicts = Faults::new();
    check_target(tenant, target, wish, stamp, &mut conflicts)?;
    let mut pending = vec![target];
    while let Some(thing) = pending.pop() {
        for user in tenant.index.users(thing) {
            match fate(thing.kind, user.kind) {
                Fate::Forgets => {
                    cascade.unlinked.entry(user).or_default().insert(thing);
                }
                Fate::Follows => {
                    if cascade.gone.insert(user) {
                        pending.push(user);
                    }
                }
                Fate::Yields if wish.force => {
                    if user.kind == EntityKind::Creative && cascade.gone.insert(user) {
                        pending.push(user);
                    } else if user.kind != EntityKind::Creative {
                        cascade.unlinked.entry(user).or_default().insert(thing);
                    }
                }
                Fate::Yields | Fate::Blocks => {
                    conflicts.add(format!("{} {} refers to it", user.kind.noun(), id_of(tenant, user)));
                }
            }
        }
    }
    // What loses everything that it was about goes instead of turning global.
    let unlinked = std::mem::take(&mut cascade.unlinked);
    for (user, targets) in unlinked {
        if cascade.gone.contains(&user) {
            continue;
        }
        if !is_only_about(tenant, user, &targets) {
            cascade.unlinked.insert(user, targets);
            continue;
        }
        // What names it does not lose everything with it, and a flow in force cannot be changed.
        for other in tenant.index.users(user) {
            let (what, who) = (id_of(tenant, user), id_of(tenant, other));
            conflicts.add(format!(
                "{} {who} refers to {} {what}, which goes with it",
                other.kind.noun(),
                user.kind.noun()
            ));
        }
        cascade.gone.insert(user);
    }
    Refusal::from_findings(Faults::new(), conflicts)?;
    Ok(cascade)
}

fn check_target(
    tenant: &TenantCatalog,
    target: Thing,
    wish: Wish,
    stamp: &Stamp<'_>,
    conflicts: &mut Faults,
) -> Result<(), Refusal> {
    match target.kind {
        EntityKind::Offer => {
            let row = tenant.offers.get(target.key());
            if row.is_some_and(|row| row.body.mandatory) && !stamp.actor.admin {
                return Err(Refusal::Forbidden("only an admin may delete a mandatory offer".to_owned()));
            }
            if wish.has_history && !wish.force {
                conflicts.add("it has impressions or outcomes; archive it, or force the deletion");
            }
        }
        EntityKind::Creative => {
            let row = tenant.creatives.get(target.key());
            let lost = row.and_then(|row| fallback::activity_unserved(tenant, row.key, &row.body, None));
            if let Some(activity) = lost {
                conflicts.add(format!("activity {activity} would have no content for its fallback offer"));
            }
        }
        EntityKind::Channel | EntityKind::Placement => {
            let id = id_of(tenant, target);
            let routed = tenant.settings().routes.iter().any(|route| {
                route.channel_id.0 == id || route.placement_id.as_ref().is_some_and(|placement| placement.0 == id)
            });
            if routed {
                conflicts.add("a route of the settings refers to it");
            }
        }
        EntityKind::Flow => {
            if let Some(row) = tenant.flows.get(target.key()) {
                let settings = tenant.settings();
                let routed = settings.routes.iter().any(|route| route.decision_flow_key == row.body.key);
                if routed || settings.default_flow_key.as_ref() == Some(&row.body.key) {
                    conflicts.add("the settings refer to it");
                }
            }
        }
        EntityKind::Category
        | EntityKind::SubCategory
        | EntityKind::Collection
        | EntityKind::Activity
        | EntityKind::Rule
        | EntityKind::Policy
        | EntityKind::Schema
        | EntityKind::Guardrail => {}
        EntityKind::Metric => {
            let read = tenant.metrics.get(target.key()).is_some_and(|row| metric::is_read(tenant, &row.body));
            if read {
                conflicts.add("a rule, policy, guardrail, model, formula or flow in force reads it");
            }
        }
        EntityKind::Model => {
            let key = tenant.models.get(target.key()).and_then(|row| row.body.key.as_deref());
            key.into_iter().for_each(|key| algorithm::add_users(tenant, key, conflicts));
        }
    }
    Ok(())
}

fn id_of(tenant: &TenantCatalog, thing: Thing) -> String {
    for_kind!(thing.kind, Body => {
        Body::table(tenant).get(thing.key()).map(|row| row.id.clone()).unwrap_or_default()
    })
}

/// Removes a row and everything derived from it.
fn remove<T: Authored>(tenant: &mut TenantCatalog, thing: Thing, done: &mut Done) {
    let key: T::Key = thing.key();
    let Some(row) = T::table(tenant).get(key).cloned() else { return };
    // While everything is still in place: references resolve.
    T::touched(tenant, key, Some(&row.body), None, &mut done.effect);
    let references = row.body.references(tenant);
    T::reindex(tenant, key, Some(&row.body), None);
    T::settle(tenant, key, Some(&row.body), None);
    tenant.index.repoint(thing, &references, &[]);
    T::table_mut(tenant).remove(key, row.body.name());
    done.also.push((T::KIND, row.id.clone()));
}

/// Whether nothing is left of a rule, policy or collection once `targets` are gone.
fn is_only_about(tenant: &TenantCatalog, user: Thing, targets: &BTreeSet<Thing>) -> bool {
    let all_gone = |scopes: &[Scope]| {
        scopes.iter().all(|one| scope::target(tenant, one).is_some_and(|thing| targets.contains(&thing)))
    };
    match user.kind {
        EntityKind::Rule => tenant.rules.get(user.key()).is_some_and(|row| all_gone(&row.body.all_scopes())),
        EntityKind::Policy => tenant.policies.get(user.key()).is_some_and(|row| {
            let offers = match tenant.policy_config(row.key).map(AsRef::as_ref) {
                Some(PolicyConfig::MutualExclusion(config)) => remaining(tenant, config, targets).len() < 2,
                _ => false,
            };
            offers || all_gone(&row.body.all_scopes())
        }),
        EntityKind::Category
        | EntityKind::SubCategory
        | EntityKind::Offer
        | EntityKind::Creative
        | EntityKind::Channel
        | EntityKind::Placement
        | EntityKind::Collection
        | EntityKind::Activity
        | EntityKind::Schema
        | EntityKind::Flow
        | EntityKind::Guardrail
        | EntityKind::Metric
        | EntityKind::Model => false,
    }
}

fn remaining(tenant: &TenantCatalog, config: &MutualExclusion, targets: &BTreeSet<Thing>) -> Vec<Ref> {
    let stays = |offer: &&Ref| {
        let key = tenant.offers.key_of(&offer.0);
        key.is_some_and(|key| !targets.contains(&Thing::new(EntityKind::Offer, key)))
    };
    config.offer_ids.iter().filter(stays).cloned().collect()
}

/// Makes `user` forget `targets`.
fn unlink(tenant: &mut TenantCatalog, user: Thing, targets: &BTreeSet<Thing>, stamp: &Stamp<'_>, done: &mut Done) {
    match user.kind {
        EntityKind::Offer => rewrite::<Offer>(tenant, user, stamp, done, |tenant, offer| {
            let named = |thing: Option<Thing>| thing.is_some_and(|thing| targets.contains(&thing));
            let category = offer.category_id.as_ref().and_then(|id| tenant.categories.key_of(&id.0));
            if named(category.map(|key| Thing::new(Category::KIND, key))) {
                offer.category_id = None;
                offer.sub_category_id = None;
            }
            let sub_category = offer.sub_category_id.as_ref().and_then(|id| tenant.sub_categories.key_of(&id.0));
            if named(sub_category.map(|key| Thing::new(SubCategory::KIND, key))) {
                offer.sub_category_id = None;
            }
        }),
        EntityKind::Collection => rewrite::<Collection>(tenant, user, stamp, done, |tenant, collection| {
            collection.offer_ids.retain(|id| {
                let key = tenant.offers.key_of(&id.0);
                key.is_some_and(|key| !targets.contains(&Thing::new(Offer::KIND, key)))
            });
            // Without explicit members its tags, or nothing at all, would suddenly choose: out of force until looked at.
            if collection.offer_ids.is_empty() && collection.status == Status::Active {
                collection.status = Status::Paused;
            }
        }),
        EntityKind::Rule => rewrite::<QualificationRule>(tenant, user, stamp, done, |tenant, rule| {
            rule.scopes.retain(|one| scope::target(tenant, one).is_none_or(|thing| !targets.contains(&thing)));
        }),
        EntityKind::Policy => rewrite::<ContactPolicy>(tenant, user, stamp, done, |tenant, policy| {
            policy.scopes.retain(|one| scope::target(tenant, one).is_none_or(|thing| !targets.contains(&thing)));
            let config = PolicyConfig::read(policy.rule_type, &policy.config, &mut Faults::new());
            if let Some(PolicyConfig::MutualExclusion(mut config)) = config {
                config.offer_ids = remaining(tenant, &config, targets);
                policy.config = config.write();
            }
        }),
        EntityKind::Category
        | EntityKind::SubCategory
        | EntityKind::Creative
        | EntityKind::Channel
        | EntityKind::Placement
        | EntityKind::Activity
        | EntityKind::Schema
        | EntityKind::Flow
        | EntityKind::Guardrail
        | EntityKind::Metric
        | EntityKind::Model => {}
    }
}

fn rewrite<T: Authored>(
    tenant: &mut TenantCatalog,
    thing: Thing,
    stamp: &Stamp<'_>,
    done: &mut Done,
    change: impl FnOnce(&TenantCatalog, &mut T),
) {
    let Some(row) = T::table(tenant).get(thing.key::<T::Key>()).cloned() else { return };
    let mut body = row.body.clone();
    change(tenant, &mut body);
    let changed = Entity {
        key: row.key,
        id: row.id.clone(),
        created_at: row.created_at,
        updated_at: stamp.at,
        revision: stamp.revision,
        body,
    };
    put(tenant, changed, Some(&row.body), &mut done.effect);
    done.also.push((T::KIND, row.id.clone()));
}
