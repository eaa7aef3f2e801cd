//! Scopes of rules and policies.

use crate::catalog::entity::{Authored, resolve, thing_of};
use crate::catalog::index::Thing;
use crate::catalog::refusal::Touched;
use crate::catalog::tenant::TenantCatalog;
use crate::catalog::validate::text;
use crate::limits;
use crate::model::Ref;
use crate::model::category::{Category, SubCategory};
use crate::model::channel::Channel;
use crate::model::creative::Creative;
use crate::model::fault::Faults;
use crate::model::offer::Offer;
use crate::model::placement::Placement;
use crate::model::rule::{Scope, ScopeKind};

/// Checks `scope`/`scopeId` or `scopes`, and turns what they name into ids.
pub(crate) fn check(
    tenant: &TenantCatalog,
    scope: Option<ScopeKind>,
    scope_id: &mut Option<Ref>,
    scopes: &mut [Scope],
    faults: &mut Faults,
) {
    if !scopes.is_empty() && (scope.is_some() || scope_id.is_some()) {
        faults.add_at("scopes", "give either scope and scopeId or scopes");
    }
    if scopes.is_empty() {
        check_one(tenant, scope.unwrap_or(ScopeKind::Global), scope_id, faults);
    }
    text::check_count("scopes", scopes, limits::SCOPES_MAX, faults);
    faults.within("scopes", |faults| {
        for (index, one) in scopes.iter_mut().enumerate().take(limits::SCOPES_MAX) {
            faults.within(&index.to_string(), |faults| check_one(tenant, one.scope, &mut one.scope_id, faults));
        }
    });
}

fn check_one(tenant: &TenantCatalog, kind: ScopeKind, id: &mut Option<Ref>, faults: &mut Faults) {
    let Some(reference) = id else {
        if kind != ScopeKind::Global {
            faults.add_at("scopeId", format!("is required for scope {}", kind.as_str()));
        }
        return;
    };
    faults.within("scopeId", |faults| match kind {
        ScopeKind::Global => faults.add("the global scope has no id"),
        ScopeKind::Segment => {
            if reference.0.trim().is_empty() || reference.0.chars().count() > limits::WORD_CHARS_MAX {
                faults.add("must be the name of a segment");
            }
        }
        ScopeKind::Channel => drop(resolve::<Channel>(tenant, reference, faults)),
        ScopeKind::Category => drop(resolve::<Category>(tenant, reference, faults)),
        ScopeKind::Subcategory => drop(resolve::<SubCategory>(tenant, reference, faults)),
        ScopeKind::Offer => drop(resolve::<Offer>(tenant, reference, faults)),
        ScopeKind::Creative => drop(resolve::<Creative>(tenant, reference, faults)),
        ScopeKind::Placement => drop(resolve::<Placement>(tenant, reference, faults)),
    });
}

/// The things that stored scopes name.
pub(crate) fn references(tenant: &TenantCatalog, scopes: &[Scope]) -> Vec<Thing> {
    scopes.iter().filter_map(|scope| target(tenant, scope)).collect()
}

/// The thing that a stored scope names.
pub(crate) fn target(tenant: &TenantCatalog, scope: &Scope) -> Option<Thing> {
    let id = scope.scope_id.as_ref()?;
    match scope.scope {
        ScopeKind::Global | ScopeKind::Segment => None,
        ScopeKind::Channel => thing_of::<Channel>(tenant, id),
        ScopeKind::Category => thing_of::<Category>(tenant, id),
        ScopeKind::Subcategory => thing_of::<SubCategory>(tenant, id),
        ScopeKind::Offer => thing_of::<Offer>(tenant, id),
        ScopeKind::Creative => thing_of::<Creative>(tenant, id),
        ScopeKind::Placement => thing_of::<Placement>(tenant, id),
    }
}

/// Whether a scope of this kind binds more than an offer or a creative.
pub(crate) fn is_wide(kind: ScopeKind) -> bool {
    match kind {
        ScopeKind::Offer | ScopeKind::Creative => false,
        ScopeKind::Global
        | ScopeKind::Segment
        | ScopeKind::Channel
        | ScopeKind::Category
        | ScopeKind::Subcategory
        | ScopeKind::Placement => true,
    }
}

/// What a change of a rule with these scopes makes stale: the offers it names, and what belongs to no offer.
pub(crate) fn touched(tenant: &TenantCatalog, scopes: &[Scope], effect: &mut Vec<Touched>) {
    for scope in scopes {
        let id = scope.scope_id.as_ref();
        let offer = match scope.scope {
            ScopeKind::Offer => id.and_then(|id| Offer::table(tenant).key_of(&id.0)),
            ScopeKind::Creative => {
                let creative = id.and_then(|id| Creative::table(tenant).by_id(&id.0));
                creative.and_then(|row| Offer::table(tenant).key_of(&row.body.offer_id.0))
            }
            ScopeKind::Global
            | ScopeKind::Segment
            | ScopeKind::Channel
            | ScopeKind::Category
            | ScopeKind::Subcategory
            | ScopeKind::Placement => None,
        };
        effect.push(match offer {
            Some(offer) => Touched::Offer(offer),
            None if is_wide(scope.scope) => Touched::Shared,
            None => continue,
        });
    }
}
