//! Global accounts as they are read: the ledger's side and the shards', put together (architecture.md §4).

use std::collections::{BTreeMap, BTreeSet};

use proffer_engine::budget::escrow::EscrowReport;
use proffer_engine::keys::ShardId;
use proffer_engine::profile::command::AccountId;

use crate::calls::{AccountReport, BudgetReport, ShardReport};
use crate::meta::ask::LedgerRow;
use crate::shard::ask::Held;

/// What ledger and shards say of some accounts, each at its own instant.
#[derive(Default)]
pub(crate) struct Sides {
    pub(crate) ledger: Vec<LedgerRow>,
    held: BTreeMap<(AccountId, ShardId), Held>,
}

impl Sides {
    pub(crate) fn put(&mut self, shard: ShardId, held: Vec<Held>) {
        self.held.retain(|(_, of), _| *of != shard);
        self.held.extend(held.into_iter().map(|held| ((held.account, shard), held)));
    }

    /// Of a shard that cannot be asked, its last report is what there is.
    pub(crate) fn put_reported(&mut self, shard: ShardId) {
        let reported = self.ledger.iter().filter_map(|row| {
            let EscrowReport { account, granted_seen, returned, minted, free, reserved, spent, as_of, .. } =
                *row.reports.get(&shard)?;
            Some(Held { account, granted_seen, returned, minted, free, reserved, spent, as_of })
        });
        let reported = reported.collect();
        self.put(shard, reported);
    }

    /// The shards with which the ledger does not fit together: the giver of a unit knows of it before the receiver does, so
    /// one side was read too early.
    pub(crate) fn torn(&self) -> BTreeSet<ShardId> {
        let pairs = self.ledger.iter().flat_map(|row| {
            let known = self.held.range((row.account, ShardId(0))..=(row.account, ShardId(u16::MAX)));
            let known =
                known.map(|((_, shard), held)| (*shard, row.totals.get(shard).copied().unwrap_or_default(), held));
            known.filter(|(_, seen, held)| {
                seen.granted < held.granted_seen || held.returned < seen.returned || held.minted < seen.minted
            })
        });
        pairs.map(|(shard, ..)| shard).collect()
    }

    pub(crate) fn report(self) -> BudgetReport {
        let accounts = self.ledger.iter().map(|row| {
            let (mut held_units, mut in_flight, mut untold) = (Vec::new(), 0, 0);
            let shards = row.totals.keys().copied();
            let known = self.held.range((row.account, ShardId(0))..=(row.account, ShardId(u16::MAX)));
            let shards: BTreeSet<ShardId> = shards.chain(known.map(|((_, shard), _)| *shard)).collect();
            for shard in shards {
                let seen = row.totals.get(&shard).copied().unwrap_or_default();
                let Some(held) = self.held.get(&(row.account, shard)) else {
                    in_flight += (seen.granted + seen.minted).saturating_sub(seen.returned);
                    continue;
                };
                in_flight += (seen.granted - held.granted_seen) + (held.returned - seen.returned);
                untold += held.minted - seen.minted;
                let Held { free, reserved, spent, as_of, .. } = *held;
                if free + reserved + spent > 0 {
                    held_units.push(ShardReport { shard, free, reserved, spent, as_of });
                }
            }
            // What a soft account counted is out of the pool at once, whether the ledger has heard of it or not.
            let pool = row.pool.saturating_sub(i64::try_from(untold).unwrap_or(i64::MAX));
            let (cap, ordinal, span, limit) = (row.account.cap, row.account.ordinal, row.span, row.limit);
            AccountReport { cap, ordinal, span, limit, pool, in_flight, shards: held_units }
        });
        BudgetReport { accounts: accounts.collect() }
    }
}

#[cfg(test)]
mod tests {
    use proffer_engine::budget::ledger::Totals;
    use proffer_engine::keys::CapKey;
    use proffer_engine::time::{Span, Timestamp};

    use super::*;

    const ACCOUNT: AccountId = AccountId { tenant: 0, cap: CapKey(4), ordinal: 0 };

    fn row(limit: u64, totals: [(u16, u64, u64, u64); 2]) -> LedgerRow {
        let totals =
            totals.map(|(shard, granted, returned, minted)| (ShardId(shard), Totals { granted, returned, minted }));
        let out: u64 = totals.iter().map(|(_, totals)| totals.granted + totals.minted - totals.returned).sum();
        let pool = i64::try_from(limit).unwrap() - i64::try_from(out).unwrap();
        LedgerRow { account: ACCOUNT, span: Span::ALWAYS, limit, pool, totals: totals.into(), reports: BTreeMap::new() }
    }

    fn held(granted_seen: u64, returned: u64, minted: u64, spent: u64) -> Held {
        let free = granted_seen + minted - returned - spent;
        Held { account: ACCOUNT, granted_seen, returned, minted, free, reserved: 0, spent, as_of: Timestamp(1) }
    }

    fn sides(ledger: LedgerRow, shards: [Held; 2]) -> Sides {
        let mut sides = Sides { ledger: vec![ledger], ..Sides::default() };
        for (shard, held) in (0..).map(ShardId).zip(shards) {
            sides.put(shard, vec![held]);
        }
        sides
    }

    fn total(report: &BudgetReport) -> i64 {
        let account = &report.accounts[0];
        let held: u64 = account.shards.iter().map(|shard| shard.free + shard.reserved + shard.spent).sum();
        account.pool + i64::try_from(account.in_flight + held).unwrap()
    }

    #[test]
    fn a_pair_of_which_one_side_was_read_too_early_is_torn_though_another_makes_up_for_it() {
        // Shard 0 has units that the ledger was read too early to know of; to shard 1 as many are on their way.
        let torn = sides(row(10, [(0, 2, 0, 0), (1, 5, 0, 0)]), [held(4, 0, 0, 1), held(3, 0, 0, 0)]);
        assert_eq!(torn.torn(), BTreeSet::from([ShardId(0)]));
        // The ledger knows of a return, and of a count, that the shard was read too early to show.
        let torn = sides(row(10, [(0, 4, 1, 0), (1, 0, 0, 2)]), [held(4, 0, 0, 1), held(0, 0, 1, 1)]);
        assert_eq!(torn.torn(), BTreeSet::from([ShardId(0), ShardId(1)]));
    }

    #[test]
    fn what_fits_together_adds_up_to_the_limit() {
        let whole = sides(row(10, [(0, 4, 1, 0), (1, 5, 0, 0)]), [held(4, 2, 0, 1), held(3, 0, 0, 0)]);
        assert!(whole.torn().is_empty());
        let report = whole.report();
        assert_eq!((report.accounts[0].pool, report.accounts[0].in_flight), (2, 3));
        assert_eq!(total(&report), 10);
    }

    #[test]
    fn a_shard_that_cannot_be_asked_is_told_of_by_its_last_report_and_the_sum_holds() {
        let mut row = row(10, [(0, 4, 1, 0), (1, 5, 0, 0)]);
        let report = EscrowReport {
            account: ACCOUNT,
            granted_seen: 3,
            returned: 1,
            free: 1,
            reserved: 0,
            spent: 1,
            wish: 0,
            minted: 0,
            version: 0,
            soft: None,
            as_of: Timestamp(7),
        };
        row.reports.insert(ShardId(0), report);
        let mut sides = Sides { ledger: vec![row], ..Sides::default() };
        sides.put(ShardId(1), vec![held(5, 0, 0, 2)]);
        sides.put_reported(ShardId(0));
        assert!(sides.torn().is_empty());
        let report = sides.report();
        assert_eq!((report.accounts[0].shards[0].as_of, report.accounts[0].in_flight), (Timestamp(7), 1));
        assert_eq!(total(&report), 10);
    }

    #[test]
    fn a_shard_that_has_forgotten_a_closed_account_holds_nothing_of_it() {
        let report = Sides { ledger: vec![row(3, [(0, 0, 5, 5), (1, 0, 0, 0)])], ..Sides::default() }.report();
        assert_eq!((report.accounts[0].in_flight, total(&report)), (0, 3));
    }

    #[test]
    fn what_a_soft_cap_counted_is_out_of_the_pool_before_the_ledger_hears_of_it() {
        let soft = sides(row(3, [(0, 0, 0, 1), (1, 0, 0, 2)]), [held(0, 0, 1, 1), held(0, 0, 3, 3)]);
        assert!(soft.torn().is_empty());
        let report = soft.report();
        assert_eq!((report.accounts[0].pool, report.accounts[0].in_flight, total(&report)), (-1, 0, 3));
    }
}
