//! Once the fence of an exclusion is in a shard's log, no entry after it takes a unit of the excluded offer (promise 6): what is reserved
//! there only becomes less.

use std::collections::BTreeMap;

use proffer_cluster::group::Group;
use proffer_engine::profile::cells::Look;
use proffer_engine::profile::command::AccountId;

use crate::check::{Invariant, Seen, State};

/// See the module.
#[derive(Default)]
pub struct NothingTaken {
    /// Accounts of excluded offers, each with a fence that is not older than the exclusion.
    excluded: BTreeMap<AccountId, u64>,
    /// What was reserved, and at which entry, as of the newest state that was seen behind that fence.
    reserved: BTreeMap<(Group, AccountId), (u64, u64)>,
}

impl Invariant for NothingTaken {
    fn sentence(&self) -> &'static str {
        "nothing is taken of an excluded offer"
    }

    fn look(&mut self, seen: &Seen) -> Result<(), String> {
        match &*seen.state {
            State::Meta(state) => {
                for (tenant, number) in state.numbers() {
                    let Some(catalog) = state.catalog().tenant(tenant) else { continue };
                    for offer in catalog.offers().iter().filter(|offer| offer.body.emergency_excluded) {
                        let caps = catalog.caps(offer.key).iter();
                        for (account, _) in caps.flat_map(|cap| state.ledger().accounts_of(number, cap.cap)) {
                            self.excluded.entry(account).or_insert(state.fence().0);
                        }
                    }
                }
                Ok(())
            }
            State::Shard(state) => {
                let index = seen.position.index;
                for (id, held) in state.accounts() {
                    let Some(fence) = self.excluded.get(&id).filter(|fence| state.fence().0 >= **fence) else {
                        continue;
                    };
                    let now = (index, held.reserved());
                    let known = self.reserved.entry((seen.group, id)).or_insert(now);
                    let (earlier, later) = if known.0 <= index { (*known, now) } else { (now, *known) };
                    if later.1 > earlier.1 {
                        return Err(format!(
                            "{} behind fence {fence}: {} units of {id:?} were reserved at entry {}, and {} at entry {}",
                            seen.group, earlier.1, earlier.0, later.1, later.0
                        ));
                    }
                    *known = later;
                }
                Ok(())
            }
        }
    }
}
