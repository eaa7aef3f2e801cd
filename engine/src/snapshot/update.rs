//! The next snapshot from the last one, at the cost of the change.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::bitset::{clear, count, put};
use super::compile::{self, is_live};
use super::policies::PolicyTable;
use super::shared::largest;
use super::{Part, Snapshot};
use crate::catalog::{TenantCatalog, Touched};
use crate::keys::{OfferKey, Revision};

/// A delta of more than one in so many of all offers asks for a rebuild.
const REBUILD_SHARE: usize = 50;
/// A delta of up to so many offers never does.
const DELTA_FREE: usize = 64;

impl Snapshot {
    /// The snapshot of `catalog`, which differs from the one this was made of by `touched`. O(touched offers + delta) unless
    /// something shared, a category or everything changed, then O(catalogue).
    #[must_use]
    pub fn update(&self, catalog: &TenantCatalog, touched: &[Touched], revision: Revision) -> Snapshot {
        let mut offers = BTreeSet::new();
        let mut overlays = BTreeSet::new();
        // A rule or formula that reads what an overlay changes has it in a column.
        let in_columns = self.names.reads_built_in(&["status", "emergencyExcluded"]);
        for part in touched {
            match part {
                Touched::Offer(key) => _ = offers.insert(*key),
                Touched::Overlay(key) if in_columns => _ = offers.insert(*key),
                Touched::Overlay(key) => _ = overlays.insert(*key),
                Touched::Shared | Touched::Everything => return Snapshot::compile(&self.tenant, catalog, revision),
            }
        }
        // Shares of the largest margin are part of every score that blends them.
        if largest(catalog) != self.shared.largest {
            return Snapshot::compile(&self.tenant, catalog, revision);
        }
        // Computed fields are compiled once per category, and offers of the base read them too.
        let categories = catalog.categories().iter();
        if !categories.map(Arc::as_ptr).eq(self.shared.categories.values().map(Arc::as_ptr)) {
            return Snapshot::compile(&self.tenant, catalog, revision);
        }
        let mut next = self.clone();
        next.revision = revision;
        if !offers.is_empty() {
            next.replace(catalog, offers);
        }
        for key in overlays {
            next.overlay(catalog, key);
        }
        next
    }

    /// Whether so much has changed since the base was compiled that compiling it anew pays.
    pub fn wants_rebuild(&self) -> bool {
        let (base, delta) = match &self.parts[..] {
            [base, delta] => (base.segment.len, delta.segment.len),
            _ => return false,
        };
        let replaced = base - count(&self.parts[0].present.0) as usize;
        replaced.max(delta) > DELTA_FREE.max(base / REBUILD_SHARE)
    }

    /// Compiles `offers` into the delta, which takes their place from now on.
    fn replace(&mut self, catalog: &TenantCatalog, mut offers: BTreeSet<OfferKey>) {
        if self.parts.len() > 1
            && let Some(delta) = self.parts.pop()
        {
            offers.extend(delta.segment.keys.iter().copied());
        }
        let base = &mut self.parts[0];
        for key in &offers {
            if let Some(position) = base.segment.position(*key) {
                clear(&mut base.present.0, position);
                clear(&mut base.live.0, position);
            }
        }
        let offset = base.range().end;
        let rows: Vec<_> = offers.iter().filter_map(|key| catalog.offers().get(*key)).cloned().collect();
        let mut names = (*self.names).clone();
        let policies = PolicyTable::new(catalog, &mut names);
        let delta = compile::compile(catalog, &self.shared, &mut names, rows);
        // The same names keep their identity, so that shards need not bind their symbols again.
        if names.counts() != self.names.counts() {
            self.names = Arc::new(names);
        }
        self.policies = Arc::new(policies);
        self.parts.push(Part::new(Arc::new(delta), offset));
    }

    /// Looks at status and exclusion of one offer again.
    fn overlay(&mut self, catalog: &TenantCatalog, key: OfferKey) {
        let Some(place) = self.place(key) else { return };
        let Some(offer) = catalog.offers().get(key) else { return };
        let part = &mut self.parts[place.part];
        put(&mut part.live.0, place.position, is_live(catalog, &offer.body));
        put(&mut part.excluded.0, place.position, offer.body.emergency_excluded);
    }
}
