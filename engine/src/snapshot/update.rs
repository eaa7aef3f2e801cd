//! The next snapshot from the last one, at the cost of the change.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::bitset::{clear, count, has, ones, put};
use super::compile::{self, is_live};
use super::policies::PolicyTable;
use super::shared::Shared;
use super::slots::{FACTS_MAX, Names};
use super::{Compiled, Part, Snapshot};
use crate::catalog::{TenantCatalog, Touched};
use crate::keys::{OfferKey, Revision};

/// A delta of more than one in so many of all offers asks for a rebuild.
const REBUILD_SHARE: usize = 50;
/// A delta of up to so many offers never does.
const DELTA_FREE: usize = 64;
/// Up to so many names that nothing may read any more never do.
const NAMES_FREE: usize = 1_000;

impl Snapshot {
    /// The snapshot of `catalog`, which differs from the one this was made of by `touched`. O(touched offers + delta), and
    /// O(what belongs to no offer + columns that follow from what changed of it) if that was touched; O(catalogue) only
    /// where everything was.
    #[must_use]
    pub fn update(&self, catalog: &TenantCatalog, touched: &[Touched], revision: Revision) -> Snapshot {
        let mut offers = BTreeSet::new();
        let mut overlays = BTreeSet::new();
        // A rule or formula that reads what an overlay changes has it in a column.
        let in_columns = self.names.reads_built_in(&["status", "emergencyExcluded"]);
        let mut is_shared_stale = false;
        for part in touched {
            match part {
                Touched::Offer(key) => _ = offers.insert(*key),
                Touched::Overlay(key) if in_columns => _ = offers.insert(*key),
                Touched::Overlay(key) => _ = overlays.insert(*key),
                Touched::Shared => is_shared_stale = true,
                Touched::Everything => return Snapshot::compile(&self.tenant, catalog, revision),
            }
        }
        let mut next = self.clone();
        next.revision = revision;
        let mut names = Names::clone(&self.names);
        if is_shared_stale {
            let shared = Shared::new(catalog, &mut names);
            // What read a prefix before any flow loaded rows under it was compiled as null.
            if names.namespace_count() != self.names.namespace_count() {
                return Snapshot::compile(&self.tenant, catalog, revision);
            }
            next.policies = Arc::new(PolicyTable::new(catalog, &mut names));
            next.follow(catalog, &names, shared);
        } else if catalog.largest_values() != self.shared.largest {
            // Shares of the largest margin are part of every score that blends them.
            let shared = Shared { largest: catalog.largest_values(), ..Shared::clone(&self.shared) };
            next.follow(catalog, &names, shared);
        }
        if !offers.is_empty() {
            next.replace(catalog, &mut names, offers);
        }
        for key in overlays {
            next.overlay(catalog, key);
        }
        // The same names keep their identity, so that shards need not bind their symbols again.
        if names.count() != self.names.count() || !names.agree_on_metrics(&self.names) {
            next.names = Arc::new(names);
        }
        next
    }

    /// Whether so much has changed since all of it was compiled that compiling it anew pays.
    pub fn wants_rebuild(&self) -> bool {
        if let [base, delta] = &self.parts[..] {
            let all = base.segment.len;
            let replaced = all - count(&base.present.0) as usize;
            if replaced.max(delta.segment.len) > DELTA_FREE.max(all / REBUILD_SHARE) {
                return true;
            }
        }
        let Compiled { names, facts, order } = &*self.compiled;
        let facts_left = (FACTS_MAX - facts) / 2;
        // Names that are long gone are still bound, and would in the end keep new ones out.
        self.names.count() - names > NAMES_FREE.max(*names)
            || self.names.fact_count() - facts > facts_left
            || order != self.shared.default_plan()
    }

    /// Makes all parts follow what belongs to no offer.
    fn follow(&mut self, catalog: &TenantCatalog, names: &Names, shared: Shared) {
        for part in &mut self.parts {
            let mut segment = part.segment.as_ref().clone();
            segment.derive(catalog, names, &shared, Some(&self.shared));
            part.segment = Arc::new(segment);
            part.follow_statuses(catalog, &self.shared, &shared);
        }
        self.shared = Arc::new(shared);
    }

    /// Compiles `offers` into the delta, which takes their place from now on.
    fn replace(&mut self, catalog: &TenantCatalog, names: &mut Names, mut offers: BTreeSet<OfferKey>) {
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
        let delta = compile::compile(catalog, &self.shared, names, &rows);
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

impl Part {
    /// Looks again at the offers of categories and sub-categories that were switched on or off.
    fn follow_statuses(&mut self, catalog: &TenantCatalog, was: &Shared, shared: &Shared) {
        let Part { segment, present, live, .. } = self;
        let categories = segment.by_category.iter().filter(|(key, _)| {
            let is_active = |shared: &Shared| shared.categories.get(key).map(|category| category.body.status);
            is_active(was) != is_active(shared)
        });
        let sub_categories = segment
            .by_sub_category
            .iter()
            .filter(|(key, _)| was.sub_categories.get(key) != shared.sub_categories.get(key));
        let switched = categories.map(|(_, members)| members).chain(sub_categories.map(|(_, members)| members));
        let mut stale = vec![0; present.0.len()];
        switched.for_each(|members| members.or_into(&mut stale));
        for position in ones(&stale).filter(|position| has(&present.0, *position)) {
            let offer = catalog.offers().get(segment.keys[position as usize]);
            put(&mut live.0, position, offer.is_some_and(|offer| is_live(catalog, &offer.body)));
        }
    }
}
