//! The authored state machine: everything that people write, checked whole before anything is stored.
//!
//! [`Catalog::apply`] takes a [`Command`] and either changes the state and says what is stale for deciding
//! ([`Changed`]), or refuses and changes nothing ([`Refusal`]). Time and ids come in the command; numbers (keys) are
//! counted up per tenant and never reused; so the same commands give the same state on every replica.
//!
//! Invariant: every stored body is valid, every stored reference is the id of an existing entity, and nothing outside
//! `apply` changes state.
//!
//! Map: `command` and `refusal` are the protocol; `tenant` is the state and what can be looked up in it, `table` one kind
//! (`by_key` its rows), `index` the reverse references; `apply`, `delete`, `publish`, `tenancy` the transitions; `entity` what the kinds
//! differ in; `validate` the rules; `caps`, `outcomes`, `rows` derived lists; `list` what reads answer; `stored` the bytes.

mod apply;
mod by_key;
pub mod caps;
pub mod command;
mod delete;
mod entity;
mod index;
pub mod list;
pub mod outcomes;
mod publish;
pub mod refusal;
pub mod rows;
mod slug;
mod stored;
pub mod table;
mod tenancy;
pub mod tenant;
pub(crate) mod unroll;
mod validate;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;

pub use caps::{CapDefinition, CapOrigin};
pub use command::{Actor, Command, CommandV1, EntityKind, Op, Role};
pub use list::{Filter, Page};
pub use outcomes::{OutcomeType, Outcomes};
pub use refusal::{Changed, Refusal, Touched};
pub use rows::Row;
pub use table::Table;
pub use tenant::{ApiKey, TenantCatalog};
pub(crate) use validate::formula::is_of_offer;

use crate::keys::TenantId;

/// The catalogues of all tenants.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    tenants: BTreeMap<TenantId, TenantCatalog>,
    /// Whose key has this hash: a secret names its tenant.
    keys_by_hash: BTreeMap<[u8; 32], (TenantId, String)>,
}

impl Catalog {
    /// No tenants.
    pub fn new() -> Self {
        Self::default()
    }

    /// A catalogue of one tenant to try commands on: it says what the whole would, API keys aside.
    pub fn trial(tenant: TenantId, catalog: TenantCatalog) -> Self {
        Catalog { tenants: BTreeMap::from([(tenant, catalog)]), keys_by_hash: BTreeMap::new() }
    }

    /// A tenant's catalogue.
    pub fn tenant(&self, id: &TenantId) -> Option<&TenantCatalog> {
        self.tenants.get(id)
    }

    /// All tenants by id.
    pub fn tenants(&self) -> impl Iterator<Item = (&TenantId, &TenantCatalog)> {
        self.tenants.iter()
    }

    /// The API key whose secret has this SHA-256, with its tenant. O(log n).
    pub fn authenticate(&self, hash: &[u8; 32]) -> Option<(&TenantId, &ApiKey)> {
        let (tenant, id) = self.keys_by_hash.get(hash)?;
        Some((tenant, self.tenants.get(tenant)?.api_key(id)?))
    }
}
