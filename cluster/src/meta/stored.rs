//! The meta group's state as bytes: a head, the roster and the ledger's accounts in pieces of bounded size, then the catalogue's records.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};
use proffer_engine::budget::ledger::{Account, Ledger};
use proffer_engine::catalog::Catalog;
use proffer_engine::codec::{self, DecodeError};
use proffer_engine::keys::{Revision, TenantId};
use proffer_engine::limits::PIECE_BYTES;
use proffer_engine::profile::command::AccountId;
use proffer_engine::time::Timestamp;

use crate::meta::command::Founding;
use crate::meta::roster::Roster;
use crate::meta::state::MetaState;

/// What is small, by format version, and how many accounts come after it.
#[derive(Debug, PartialEq, Encode, Decode)]
enum StoredHead {
    /// Held the whole ledger, so that a large one could not be stored. Never released, and not read.
    V1,
    /// Knew neither nodes nor the fence. Never released, and not read.
    V2,
    V3 {
        founding: Option<Founding>,
        log_time: Timestamp,
        revision: Revision,
        fence: Revision,
        numbers: BTreeMap<TenantId, u32>,
        accounts: u64,
        /// Highest id that the roster has given, and its parts.
        last_id: u64,
        parts: u64,
    },
}

/// A piece of the ledger, by format version: accounts by id, those of the next piece after these.
#[derive(Encode, Decode)]
enum StoredAccounts {
    V1(Vec<(AccountId, Account)>),
}

impl MetaState {
    /// The state in pieces, to be read in order; equal states give equal pieces. None grows with the number of accounts or
    /// of things in the catalogue.
    pub fn encode_chunks(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        let numbers = self.numbers().map(|(tenant, number)| (tenant.clone(), number)).collect();
        let head = StoredHead::V3 {
            founding: self.founding(),
            log_time: self.log_time(),
            revision: self.revision(),
            fence: self.fence(),
            numbers,
            accounts: self.ledger().accounts().len() as u64,
            last_id: self.roster().last_id(),
            parts: self.roster().len(),
        };
        std::iter::once(codec::encode_stored("meta state", &head))
            .chain(self.roster().encode_pieces())
            .chain(pieces_of(self.ledger()))
            .chain(self.catalog().records())
    }

    /// The state that was encoded into these pieces.
    ///
    /// # Errors
    /// If they are no such pieces.
    pub fn decode_chunks(mut pieces: impl Iterator<Item = Vec<u8>>) -> Result<Self, DecodeError> {
        let head = pieces.next().unwrap_or_default();
        let head = codec::decode("meta state", &head)?;
        let StoredHead::V3 { founding, log_time, revision, fence, numbers, accounts, last_id, parts } = head else {
            return Err(DecodeError::new("meta state", "format versions 1 and 2 are not read".to_owned()));
        };
        let roster = Roster::decode_pieces(parts, last_id, &mut pieces)?;
        let mut ledger = Ledger::default();
        while (ledger.accounts().len() as u64) < accounts {
            let StoredAccounts::V1(piece) = codec::decode("ledger", &pieces.next().unwrap_or_default())?;
            if piece.is_empty() {
                return Err(DecodeError::new("ledger", "a piece of it is empty".to_owned()));
            }
            for (id, account) in piece {
                let restored = ledger.restore(id, account);
                restored.map_err(|error| DecodeError::new("ledger", error.to_string()))?;
            }
        }
        let catalog = Catalog::from_records(pieces)?;
        Ok(MetaState::restored(founding, log_time, (revision, fence), numbers, ledger, roster, catalog))
    }
}

fn pieces_of(ledger: &Ledger) -> impl Iterator<Item = Vec<u8>> + '_ {
    let mut accounts = ledger.accounts().peekable();
    std::iter::from_fn(move || {
        let (mut piece, mut bytes) = (Vec::new(), 0);
        while bytes < PIECE_BYTES
            && let Some((id, account)) = accounts.next()
        {
            bytes += codec::claims(account);
            piece.push((id, account.clone()));
        }
        (!piece.is_empty()).then(|| codec::encode_stored("ledger", &StoredAccounts::V1(piece)))
    })
}

#[cfg(test)]
mod tests {
    use proffer_engine::budget::escrow::EscrowReport;
    use proffer_engine::budget::ledger::Terms;
    use proffer_engine::keys::{CapKey, ShardId};
    use proffer_engine::time::Span;

    use super::*;

    /// A cluster with so many accounts, of the first of which every shard holds units.
    fn spread_out(shards: u16, accounts: u32) -> MetaState {
        let now = Timestamp(5);
        let account = |cap| AccountId { tenant: 0, cap: CapKey(cap), ordinal: 0 };
        let mut ledger = Ledger::default();
        for cap in 0..accounts {
            let terms = Terms { limit: 1_000_000, span: Span::ALWAYS, unit: 1, cooling_ms: 0, soft: false };
            ledger.open(account(cap), terms, shards).unwrap();
        }
        for shard in (0..shards).map(ShardId) {
            let granted = ledger.grant(account(0), shard, 0, u64::from(shards), now).unwrap().granted;
            let (account, granted_seen) = (account(0), granted);
            let report = EscrowReport {
                account,
                granted_seen,
                returned: 0,
                free: granted - 1,
                reserved: 0,
                spent: 1,
                wish: 0,
                minted: 0,
                version: 0,
                soft: None,
                as_of: now,
            };
            ledger.see(shard, report, now).unwrap();
        }
        let founding = Some(Founding { secret: [1; 16], shards });
        MetaState::restored(
            founding,
            now,
            (Revision(9), Revision(0)),
            BTreeMap::new(),
            ledger,
            Roster::default(),
            Catalog::new(),
        )
    }

    #[test]
    fn a_ledger_larger_than_anything_that_is_read_at_once_is_stored_in_pieces() {
        let state = spread_out(256, 240_000);
        let whole: Vec<_> = state.ledger().accounts().map(|(id, account)| (id, account.clone())).collect();
        assert!(codec::claims(&whole) > codec::MAX_ENCODED_BYTES);
        let pieces: Vec<Vec<u8>> = state.encode_chunks().collect();
        assert!(pieces.len() > 10 && pieces.iter().all(|piece| piece.len() <= PIECE_BYTES));
        let restored = MetaState::decode_chunks(pieces.into_iter()).unwrap();
        assert!(restored.ledger() == state.ledger());
    }

    #[test]
    fn pieces_that_are_cut_short_doubled_or_swapped_are_no_state() {
        let pieces: Vec<Vec<u8>> = spread_out(4, 40_000).encode_chunks().collect();
        assert!(pieces.len() > 3);
        let decode = |pieces: Vec<Vec<u8>>| MetaState::decode_chunks(pieces.into_iter());
        assert!(decode(pieces.clone()).is_ok());
        assert!(decode(pieces[1..].to_vec()).is_err(), "no head");
        assert!(decode(pieces[..2].to_vec()).is_err(), "accounts are missing");
        assert!(decode([&pieces[..2], &pieces[1..]].concat()).is_err(), "accounts come twice");
    }

    #[test]
    fn an_account_whose_actions_take_nothing_is_not_read() {
        let mut pieces: Vec<Vec<u8>> = spread_out(1, 1).encode_chunks().collect();
        let span_ends = pieces[1].windows(2).rposition(|pair| pair == [0xff, 0xff]).expect("a span without an end");
        let unit = &mut pieces[1][span_ends + 2..][..1];
        assert_eq!(unit, [1], "after the span");
        unit[0] = 0;
        assert!(MetaState::decode_chunks(pieces.into_iter()).is_err());
    }

    #[test]
    fn golden_bytes_of_the_head() {
        let head = StoredHead::V3 {
            founding: Some(Founding { secret: [7; 16], shards: 300 }),
            log_time: Timestamp(5),
            revision: Revision(9),
            fence: Revision(8),
            numbers: BTreeMap::from([(TenantId::new("t"), 1)]),
            accounts: 2,
            last_id: 4,
            parts: 3,
        };
        let mut bytes = vec![2, 1];
        bytes.extend([7; 16]);
        bytes.extend([251, 44, 1, 10, 9, 8, 1, 1, b't', 1, 2, 4, 3]);
        assert_eq!(codec::encode(&head), bytes);
        assert_eq!(codec::decode::<StoredHead>("meta state", &bytes).unwrap(), head);
        for unread in [0, 1, 3] {
            bytes[0] = unread;
            assert!(MetaState::decode_chunks(std::iter::once(bytes.clone())).is_err());
        }
    }

    #[test]
    fn golden_bytes_of_an_account() {
        let pieces: Vec<Vec<u8>> = spread_out(1, 1).encode_chunks().collect();
        let found: String = pieces[1].iter().map(|byte| format!("{byte:02x}")).collect();
        let (keys, terms) = ("0001000000", "fc40420f00fdfffffffffffffffffdfeffffffffffffff010000");
        let (shard, report) = ("0100fc90d003000000", "01000000fc90d0030000fc8fd003000001");
        let (wish_minted_version_soft, as_of) = ("00000000", "0a");
        let (is_loose, starving, is_soft, version) = ("00", "00", "00", "00");
        let rest = format!("{is_loose}{starving}{is_soft}{version}");
        assert_eq!(found, format!("{keys}{terms}{shard}{report}{wish_minted_version_soft}{as_of}{rest}"));
    }
}
