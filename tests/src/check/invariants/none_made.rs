//! A unit is given away before it is had: no shard has seen more granted than the ledger has committed, nor has the ledger seen more
//! returned than the shard has (docs/adr/0002). What a shard showed is held against the ledger of a replica that leads, and was asked
//! later: all that was committed before is in it. Returns are looked at the other way round, in the next round.

use std::collections::BTreeMap;

use proffer_cluster::group::Group;
use proffer_engine::keys::ShardId;
use proffer_engine::profile::command::AccountId;

use crate::check::{Invariant, Seen, State};

/// See the module.
#[derive(Default)]
pub struct NoneMade {
    granted_seen: BTreeMap<(AccountId, ShardId), (u64, usize)>,
    returned_seen: BTreeMap<(AccountId, ShardId), (u64, usize)>,
    newest_terms: BTreeMap<Group, u64>,
}

impl Invariant for NoneMade {
    fn sentence(&self) -> &'static str {
        "no unit is had before it was given"
    }

    fn look(&mut self, seen: &Seen) -> Result<(), String> {
        let newest = self.newest_terms.entry(seen.group).or_default();
        *newest = (*newest).max(seen.position.leader.term).max(seen.leads_in_term.unwrap_or(0));
        let is_newest = seen.leads_in_term.is_some_and(|term| term >= *newest);
        match (&*seen.state, seen.group) {
            (State::Meta(state), _) => {
                for (id, account) in state.ledger().accounts() {
                    for (shard, totals) in account.totals() {
                        let returned = self.returned_seen.entry((id, shard)).or_default();
                        *returned = (*returned).max((totals.returned, seen.host));
                        if let Some((had, host)) = self.granted_seen.get(&(id, shard))
                            && is_newest
                            && *had > totals.granted
                        {
                            let granted = totals.granted;
                            return Err(format!("{id:?}: {shard:?} on h{host} had {had} units of {granted} granted"));
                        }
                    }
                }
            }
            (State::Shard(state), Group::Shard(shard)) => {
                for (id, account) in state.accounts() {
                    let granted = self.granted_seen.entry((id, shard)).or_default();
                    *granted = (*granted).max((account.granted_seen(), seen.host));
                    if let Some((had, host)) = self.returned_seen.get(&(id, shard))
                        && is_newest
                        && *had > account.returned()
                    {
                        let returned = account.returned();
                        return Err(format!(
                            "{id:?}: the ledger on h{host} had {had} of {returned} that {shard:?} returned"
                        ));
                    }
                }
            }
            (State::Shard(_), Group::Meta) => {}
        }
        Ok(())
    }
}
