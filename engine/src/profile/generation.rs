//! A shard that is begun anew, because the majority of its replicas was lost for good: one survivor's state goes on, and what the
//! lost may have done with units of global accounts counts as done (docs/adr/0012).

use std::sync::Arc;

use crate::budget::escrow::EscrowAccount;
use crate::budget::ledger::Ledger;
use crate::keys::{Revision, ShardId};
use crate::profile::command::TakeAccount;
use crate::profile::shard::ShardState;
use crate::time::Timestamp;

impl ShardState {
    /// Makes a survivor's state, with all of its log applied, the one that generation `generation` of `shard` begins with. `ledger` is
    /// as the entry left it that began the generation, or later, as long as nothing was granted to the shard since. Nothing that the
    /// generation before took was taken after `spent_by`. O(profiles + accounts).
    ///
    /// Per account, all that the ledger does not know to have come back is spent; of units that profiles hold, settling one takes none
    /// and letting it go gives none back. Accounts that the ledger has closed are forgotten.
    pub fn begin_generation(
        &mut self,
        generation: u64,
        (ledger, shard): (&Ledger, ShardId),
        fence: Revision,
        spent_by: Timestamp,
    ) {
        self.generation = generation;
        self.fence = self.fence.max(fence);
        self.change_reservations(|held| {
            if let TakeAccount::Global { amount, .. } = &mut held.account {
                *amount = 0;
            }
        });
        let known = std::mem::take(&mut Arc::make_mut(&mut self.escrow).accounts);
        let closed_below = self.escrow.closed_below.clone();
        *Arc::make_mut(&mut self.escrow) = Default::default();
        let escrow = Arc::make_mut(&mut self.escrow);
        escrow.closed_below = closed_below;
        let is_open = |id| ledger.message(id, shard, spent_by).filter(|message| !message.closed);
        for id in known.keys().filter(|id| is_open(**id).is_none()) {
            escrow.forget(*id);
        }
        for (id, account) in ledger.accounts() {
            let was_given = account.totals().any(|(of, _)| of == shard);
            let (Some(message), Some(given)) = (is_open(id), ledger.given(id, shard)) else { continue };
            if was_given || known.contains_key(&id) {
                escrow.put(id, EscrowAccount::inherit(&message, given, known.get(&id), spent_by));
            }
        }
    }
}
