//! What the shards have spent of an account, all together, is never more than the largest limit it ever had (promise 1). Spent units
//! stay spent while their account is open, so that the newest that was seen of each shard may be added up, from whatever moment it is. Limits
//! are seen now and then only: where one came and went between two looks, or a shard has heard of a newer one, nothing is said.

use std::collections::BTreeMap;

use proffer_cluster::group::Group;
use proffer_engine::profile::cells::Look;
use proffer_engine::profile::command::AccountId;

use crate::check::{Invariant, Seen, State};

#[derive(Default)]
struct Account {
    limit: Option<u64>,
    /// Edits of its terms that the ledger has shown, …
    version: u32,
    /// … and that a shard has.
    told: u32,
    /// There was a limit that was not seen.
    is_unsure: bool,
    is_soft: bool,
    /// By shard: at which entry, and how much.
    spent: BTreeMap<Group, (u64, u64)>,
}

/// See the module.
#[derive(Default)]
pub struct CapsHold {
    accounts: BTreeMap<AccountId, Account>,
}

impl Invariant for CapsHold {
    fn sentence(&self) -> &'static str {
        "no account is overspent"
    }

    fn look(&mut self, seen: &Seen) -> Result<(), String> {
        match &*seen.state {
            State::Meta(state) => {
                for (id, known) in state.ledger().accounts() {
                    let account = self.accounts.entry(id).or_default();
                    account.is_unsure |= known.version() > account.version + 1;
                    account.version = account.version.max(known.version());
                    account.limit = account.limit.max(Some(known.limit()));
                    account.is_soft |= known.is_soft();
                }
                Ok(())
            }
            State::Shard(state) => {
                for (id, held) in state.accounts() {
                    let account = self.accounts.entry(id).or_default();
                    account.told = account.told.max(held.report(id, state.log_time()).version);
                    let newest = account.spent.entry(seen.group).or_default();
                    *newest = (*newest).max((seen.position.index, held.spent()));
                    let spent: u64 = account.spent.values().map(|(_, spent)| spent).sum();
                    if let Some(limit) = account.limit
                        && spent > limit
                        && !account.is_soft
                        && !account.is_unsure
                        && account.told <= account.version
                    {
                        return Err(format!("{spent} of {limit} units of {id:?} are spent: {:?}", account.spent));
                    }
                }
                Ok(())
            }
        }
    }
}
