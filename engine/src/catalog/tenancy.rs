//! Tenants, their API keys and settings.

use crate::catalog::Catalog;
use crate::catalog::apply::Stamp;
use crate::catalog::command::Role;
use crate::catalog::refusal::{Changed, Refusal, Touched};
use crate::catalog::tenant::{ApiKey, TenantCatalog, TenantState};
use crate::catalog::validate::{settings, text};
use crate::keys::TenantId;
use crate::limits;
use crate::model::fault::Faults;
use crate::model::record::Field;
use crate::model::rest::Rest;
use crate::model::settings::Settings;
use crate::value::{Members, Value};

impl Catalog {
    pub(crate) fn tenant_mut(&mut self, id: &TenantId) -> Result<&mut TenantCatalog, Refusal> {
        self.tenants.get_mut(id).ok_or_else(|| Refusal::NotFound(format!("tenant {:?}", shown_tenant(id))))
    }

    pub(crate) fn create_tenant(&mut self, id: &TenantId, stamp: &Stamp<'_>) -> Result<Changed, Refusal> {
        let fits = (1..=limits::TENANT_ID_BYTES_MAX).contains(&id.0.len())
            && id.0.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte));
        if !fits {
            let most = limits::TENANT_ID_BYTES_MAX;
            let message = format!("must be 1 to {most} lower-case letters, digits, dashes or underscores");
            return Err(Refusal::invalid("/tenant", message));
        }
        if self.tenants.contains_key(id) {
            return Err(Refusal::conflict(format!("tenant {id} exists")));
        }
        if self.tenants.len() >= limits::TENANTS_MAX {
            return Err(Refusal::conflict(format!("there are at most {} tenants", limits::TENANTS_MAX)));
        }
        let state = TenantState {
            created_at: stamp.at,
            revision: stamp.revision,
            settings_revision: stamp.revision,
            settings_updated_at: stamp.at,
            ..TenantState::default()
        };
        self.tenants.insert(id.clone(), TenantCatalog { state, ..TenantCatalog::default() });
        Ok(plain(&id.0, vec![Touched::Everything]))
    }

    pub(crate) fn put_api_key(
        &mut self,
        tenant_id: &TenantId,
        id: &str,
        hash: &[u8; 32],
        roles: &[Role],
        name: &str,
        stamp: &Stamp<'_>,
    ) -> Result<Changed, Refusal> {
        let holder = self.keys_by_hash.get(hash);
        let taken = holder.is_some_and(|(tenant, key)| (tenant, key.as_str()) != (tenant_id, id));
        let tenant = self.tenant_mut(tenant_id)?;
        text::check_id(id)?;
        let mut faults = Faults::new();
        text::check_name("name", name, &mut faults);
        if roles.is_empty() {
            faults.add_at("roles", "must not be empty");
        }
        text::check_distinct("roles", roles, &mut faults);
        Refusal::from_findings(faults, Faults::new())?;
        if taken {
            return Err(Refusal::conflict("the secret is another key's"));
        }
        if !tenant.state.api_keys.contains_key(id) && tenant.state.api_keys.len() >= limits::API_KEYS_MAX {
            return Err(Refusal::conflict(format!("a tenant has at most {} API keys", limits::API_KEYS_MAX)));
        }
        let key = ApiKey {
            id: id.to_owned(),
            hash: *hash,
            roles: roles.to_vec(),
            name: name.to_owned(),
            created_at: stamp.at,
        };
        let replaced = tenant.state.api_keys.insert(id.to_owned(), key);
        if let Some(old) = replaced {
            self.keys_by_hash.remove(&old.hash);
        }
        self.keys_by_hash.insert(*hash, (tenant_id.clone(), id.to_owned()));
        Ok(plain(id, Vec::new()))
    }

    pub(crate) fn revoke_api_key(&mut self, tenant_id: &TenantId, id: &str) -> Result<Changed, Refusal> {
        let tenant = self.tenant_mut(tenant_id)?;
        let Some(key) = tenant.state.api_keys.remove(id) else {
            return Err(Refusal::NotFound(format!("API key {:?}", crate::catalog::entity::shown(id))));
        };
        self.keys_by_hash.remove(&key.hash);
        Ok(plain(id, Vec::new()))
    }
}

/// Replaces the members of the settings that `patch` gives.
pub(crate) fn update_settings(
    tenant: &mut TenantCatalog,
    patch: &Value,
    stamp: &Stamp<'_>,
) -> Result<Changed, Refusal> {
    text::check_body(patch)?;
    let Value::Map(patch) = patch else {
        return Err(Refusal::invalid("", format!("must be an object, not {}", patch.kind())));
    };
    let Value::Map(stored) = tenant.settings().write() else { unreachable!("records write maps") };
    let mut members = Members::clone(&stored);
    members.extend(patch.iter().map(|(name, value)| (name.clone(), value.clone())));
    members.retain(|name, _| !["revision", "updatedAt"].contains(&&**name));
    let (mut faults, mut conflicts) = (Faults::new(), Faults::new());
    let read = Settings::read(&Value::Map(std::sync::Arc::new(members.clone())), &mut faults);
    let Some(mut after) = read else {
        let mut faults = faults.into_vec();
        let rest = Rest::of(&members, &faults, |_| false);
        if let Some(mut readable) = rest.read::<Settings>(&Members::new()) {
            let mut found = Faults::new();
            settings::check(&mut readable, tenant, &mut found);
            faults.extend(rest.relevant(found.into_vec()));
        }
        return Err(Refusal::Invalid(faults));
    };
    settings::check(&mut after, tenant, &mut faults);
    settings::check_removed_outcomes(&after, tenant, &mut conflicts);
    Refusal::from_findings(faults, conflicts)?;
    let before = tenant.settings();
    let effect = if *before == after { Vec::new() } else { vec![Touched::Shared] };
    tenant.state.outcomes.set(&after.outcomes);
    tenant.state.settings = after;
    tenant.state.settings_revision = stamp.revision;
    tenant.state.settings_updated_at = stamp.at;
    Ok(plain("settings", effect))
}

fn shown_tenant(id: &TenantId) -> &str {
    crate::catalog::entity::shown(&id.0)
}

fn plain(id: &str, effect: Vec<Touched>) -> Changed {
    Changed { id: id.to_owned(), kind: None, also: Vec::new(), new_caps: Vec::new(), effect }
}
