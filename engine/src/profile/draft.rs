//! A command at work: copies of what it touches, stored together once nothing can be refused any more.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::budget::escrow::EscrowAccount;
use crate::keys::{MetricKey, Revision, TenantId};
use crate::level::Level;
use crate::limits::{
    DEALINGS_PER_PROFILE, EVENT_KEYED_BYTES_PER_SHARD, EVENT_KEYS_PER_PROFILE, KEYED_BYTES_PER_PROFILE,
    KEYED_BYTES_PER_SHARD,
};
use crate::profile::cells::{Cells, Look, ProfileId};
use crate::profile::command::{AccountId, TakeAccount};
use crate::profile::evidence::Observation;
use crate::profile::keyed::{Keyed, KeyedAnswer};
use crate::profile::metrics::Feed;
use crate::profile::state::Profile;
use crate::profile::trials::Enrolment;
use crate::time::Timestamp;

/// What a command will have changed.
#[derive(Debug)]
pub(crate) struct Draft<'a, L> {
    look: &'a L,
    now: Timestamp,
    writes: Writes,
    /// What metrics make of the command.
    pub(crate) feeds: Vec<Feed>,
    /// Metrics that are no more.
    pub(crate) gone: Vec<MetricKey>,
    /// The place in an experiment that the command gives its customer.
    pub(crate) enrolment: Option<Enrolment>,
}

/// The changes themselves, free of the state they were read from.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    pub(crate) profiles: Vec<(ProfileId, Profile)>,
    accounts: BTreeMap<AccountId, EscrowAccount>,
    pub(crate) forgotten: Vec<AccountId>,
    pub(crate) names: Option<(TenantId, Vec<Arc<str>>)>,
    pub(crate) observed: Vec<(TenantId, Observation)>,
    pub(crate) fence: Option<Revision>,
    pub(crate) level: Option<Level>,
}

impl<'a, L: Look> Draft<'a, L> {
    pub(crate) fn new(look: &'a L, now: Timestamp) -> Self {
        Draft { look, now, writes: Writes::default(), feeds: Vec::new(), gone: Vec::new(), enrolment: None }
    }

    pub(crate) fn look(&self) -> &'a L {
        self.look
    }

    /// Log time of the command.
    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    pub(crate) fn writes(&mut self) -> &mut Writes {
        &mut self.writes
    }

    pub(crate) fn finish(self) -> Writes {
        self.writes
    }

    /// A copy of the profile (a new one for a customer never seen) with everything that is past taken out of it.
    pub(crate) fn open_profile(&mut self, id: &ProfileId) -> Profile {
        let mut profile = self.look.profile(id).cloned().unwrap_or_default();
        profile.lapse(self);
        profile
    }

    pub(crate) fn store_profile(&mut self, id: ProfileId, mut profile: Profile) {
        profile.make_room(self.now);
        self.writes.profiles.push((id, profile));
    }

    /// Whether profile and shard have room for one more answered key. Events leave room for what is more than counted.
    pub(crate) fn can_remember(&self, profile: &Profile, keyed: &Keyed) -> bool {
        let calls = profile.dealings.as_ref().map_or(0, |dealings| dealings.keyed.len());
        calls < DEALINGS_PER_PROFILE
            && profile.keyed_bytes() + keyed.bytes() <= KEYED_BYTES_PER_PROFILE
            && match keyed.answer {
                KeyedAnswer::Noted => {
                    let notes = profile.dealings.iter().flat_map(|dealings| dealings.keyed.iter());
                    let notes = notes.filter(|keyed| keyed.answer == KeyedAnswer::Noted).count();
                    notes < EVENT_KEYS_PER_PROFILE
                        && self.look.keyed_bytes() + keyed.bytes() <= EVENT_KEYED_BYTES_PER_SHARD
                }
                KeyedAnswer::Responded { .. } | KeyedAnswer::Took { .. } => {
                    self.look.keyed_bytes() + keyed.bytes() <= KEYED_BYTES_PER_SHARD
                }
            }
    }

    /// The account, settled up to now; `None` if this shard never heard of it.
    pub(crate) fn account(&mut self, id: AccountId) -> Option<&mut EscrowAccount> {
        if !self.writes.accounts.contains_key(&id) {
            let mut account = self.look.account(id)?.clone();
            account.settle(self.now);
            self.writes.accounts.insert(id, account);
        }
        self.writes.accounts.get_mut(&id)
    }

    pub(crate) fn open_account(&mut self, id: AccountId, account: EscrowAccount) {
        self.writes.accounts.insert(id, account);
    }

    pub(crate) fn forget_account(&mut self, id: AccountId) {
        self.writes.accounts.remove(&id);
        self.writes.forgotten.push(id);
    }

    /// Returns a held unit to where it came from. A profile's own needs nothing: it is gone with its reservation.
    pub(crate) fn give_back(&mut self, account: TakeAccount) {
        if let TakeAccount::Global { account, amount } = account {
            let now = self.now;
            if let Some(held) = self.account(account) {
                held.release(amount, now);
            }
        }
    }
}

impl Writes {
    /// Stores it all.
    pub(crate) fn commit<C: Cells>(self, cells: &mut C, now: Timestamp) {
        cells.advance(now);
        if let Some(fence) = self.fence {
            cells.raise_fence(fence);
        }
        if let Some(level) = self.level {
            cells.raise_level(level);
        }
        if let Some((tenant, names)) = &self.names {
            cells.intern(tenant, names);
        }
        for (id, mut profile) in self.profiles {
            profile.tidy();
            cells.put_profile(&id, profile);
        }
        for (id, account) in self.accounts {
            cells.put_account(id, account);
        }
        for id in self.forgotten {
            cells.forget_account(id);
        }
        for (tenant, seen) in &self.observed {
            cells.observe(tenant, seen);
        }
    }
}
