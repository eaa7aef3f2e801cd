//! Once the fence of an exclusion is in a shard's log, no entry after it takes a unit of the excluded offer (promise 6): what is reserved
//! there only becomes less. That an offer is excluded may be seen later than what is done about it, so what was reserved is remembered for a while.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use proffer_cluster::group::Group;
use proffer_engine::profile::cells::Look;
use proffer_engine::profile::command::AccountId;

use crate::check::{Invariant, Seen, State};

/// Entries of a shard at which it is remembered what was reserved of an account.
const REMEMBERED_MAX: usize = 64;

/// What a shard had reserved of an account, and the fence in its log, by entry.
type Reserved = BTreeMap<u64, (u64, u64)>;

/// See the module.
#[derive(Default)]
pub struct NothingTaken {
    /// Accounts of excluded offers, each with a fence that is not older than the exclusion.
    excluded: BTreeMap<AccountId, u64>,
    reserved: BTreeMap<(AccountId, Group), Reserved>,
}

impl NothingTaken {
    /// Whether less and less was reserved of an account behind the fence of its exclusion.
    fn judge(&self, id: AccountId, group: Group) -> Result<(), String> {
        let (Some(fence), Some(reserved)) = (self.excluded.get(&id), self.reserved.get(&(id, group))) else {
            return Ok(());
        };
        let behind: Vec<_> = reserved.iter().filter(|(_, (fenced, _))| fenced >= fence).collect();
        for pair in behind.windows(2) {
            let [(earlier, (_, before)), (later, (_, after))] = pair else { continue };
            if after > before {
                return Err(format!(
                    "{group} behind fence {fence}: {before} units of {id:?} were reserved at entry {earlier}, and {after} at entry {later}"
                ));
            }
        }
        Ok(())
    }
}

impl Invariant for NothingTaken {
    fn sentence(&self) -> &'static str {
        "nothing is taken of an excluded offer"
    }

    fn look(&mut self, seen: &Seen) -> Result<(), String> {
        match &*seen.state {
            State::Meta(state) => {
                let mut newly = Vec::new();
                for (tenant, number) in state.numbers() {
                    let Some(catalog) = state.catalog().tenant(tenant) else { continue };
                    for offer in catalog.offers().iter().filter(|offer| offer.body.emergency_excluded) {
                        let caps = catalog.caps(offer.key).iter();
                        for (account, _) in caps.flat_map(|cap| state.ledger().accounts_of(number, cap.cap)) {
                            if let Entry::Vacant(new) = self.excluded.entry(account) {
                                new.insert(state.fence().0);
                                newly.push(account);
                            }
                        }
                    }
                }
                let groups = |id| self.reserved.range((id, Group::Meta)..).take_while(move |((of, _), _)| *of == id);
                newly.into_iter().flat_map(groups).try_for_each(|((id, group), _)| self.judge(*id, *group))
            }
            State::Shard(state) => {
                for (id, held) in state.accounts() {
                    let reserved = self.reserved.entry((id, seen.group)).or_default();
                    reserved.insert(seen.position.index, (state.fence().0, held.reserved()));
                    if reserved.len() > REMEMBERED_MAX {
                        reserved.pop_first();
                    }
                    self.judge(id, seen.group)?;
                }
                Ok(())
            }
        }
    }
}
