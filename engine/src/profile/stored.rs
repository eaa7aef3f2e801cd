//! A shard as bytes: a header, then pieces of bounded size. The same state always gives the same pieces.

use std::collections::BTreeMap;
use std::sync::Arc;

use bincode::{Decode, Encode};
use xxhash_rust::xxh3::Xxh3;

use crate::budget::escrow::EscrowAccount;
use crate::codec::{DecodeError, decode, encode_stored};
use crate::keys::{CapKey, CategoryKey, OfferKey, Revision, Symbol, TenantId};
use crate::level::Level;
use crate::limits::PIECE_BYTES;
use crate::profile::command::AccountId;
use crate::profile::evidence::{Evidence, Tally};
use crate::profile::metrics::{Metrics, Series};
use crate::profile::shard::{CHUNKS, Entry, ShardState, Tenant};
use crate::profile::state::Profile;
use crate::profile::trials::{Participation, Trials};
use crate::time::Timestamp;

/// One piece of an encoded shard.
#[derive(Debug, Encode, Decode)]
enum StoredPiece {
    /// First version of the format.
    V1(PieceV1),
}

/// Pieces in the order they are written.
#[derive(Debug, Encode, Decode)]
enum PieceV1 {
    Header {
        log_time: Timestamp,
        fence: Revision,
    },
    /// With its counters over all offers. What follows names it by its number: tenants are numbered as they come.
    Tenant {
        id: TenantId,
        all: Tally,
    },
    /// More of its names, in symbol order.
    Names {
        tenant: u32,
        names: Vec<Arc<str>>,
    },
    OfferTallies {
        tenant: u32,
        tallies: Vec<(OfferKey, Tally)>,
    },
    CategoryTallies {
        tenant: u32,
        tallies: Vec<(CategoryKey, Tally)>,
    },
    Accounts(Vec<(AccountId, EscrowAccount)>),
    Closed(Vec<((u32, CapKey), u32)>),
    /// Tenant's number, customer, profile.
    Profiles(Vec<(u32, Box<str>, Profile)>),
    /// Without it the bytes were cut short.
    End {
        profiles: u64,
    },
    /// How often the shard was begun anew: after the header, unless it never was.
    Generation(u64),
    /// Right after the header, where it is not the first.
    Level(Level),
    /// What metrics counted for profiles that come after it: tenant's number, customer, series. Only where there are any.
    Metrics(Vec<(u32, Box<str>, Vec<Series>)>),
    /// The same of experiments.
    Trials(Vec<(u32, Box<str>, Vec<Participation>)>),
}

/// Why pieces are no shard.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A piece could not be read.
    #[error(transparent)]
    Piece(#[from] DecodeError),
    /// Pieces are missing, doubled or contradict each other.
    #[error("stored shard is not whole: {0}")]
    Broken(&'static str),
}

impl ShardState {
    /// The state in pieces of about [`PIECE_BYTES`], to be written and read in order. Works on a clone while the state
    /// moves on; one chunk is in memory at a time.
    pub fn encode_chunks(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        let header = PieceV1::Header { log_time: self.log_time, fence: self.fence };
        let tenants = self.tenants.iter().zip(0..).flat_map(|(tenant, number)| pieces_of(tenant, number));
        let accounts: Vec<(AccountId, EscrowAccount)> =
            self.accounts().map(|(id, account)| (id, account.clone())).collect();
        let accounts = accounts.chunks(ITEMS_PER_PIECE).map(<[_]>::to_vec).map(PieceV1::Accounts).collect::<Vec<_>>();
        let closed: Vec<((u32, CapKey), u32)> =
            self.escrow.closed_below.iter().map(|(cap, ordinal)| (*cap, *ordinal)).collect();
        let closed = closed.chunks(ITEMS_PER_PIECE).map(<[_]>::to_vec).map(PieceV1::Closed).collect::<Vec<_>>();
        let generation = (self.generation > 0).then_some(PieceV1::Generation(self.generation));
        let level = (self.level > Level::FIRST).then_some(PieceV1::Level(self.level));
        let head = std::iter::once(header).chain(generation).chain(level).chain(tenants).chain(accounts).chain(closed);
        let profiles = (0..CHUNKS).flat_map(|chunk| self.encode_profiles(chunk));
        let end = std::iter::once(PieceV1::End { profiles: self.profile_count() });
        head.map(write).chain(profiles).chain(end.map(write))
    }

    /// The state that was encoded into these pieces.
    ///
    /// # Errors
    /// If a piece cannot be read, is of an unknown version, or one is missing. Never panics on corrupt bytes.
    pub fn decode_chunks<B: AsRef<[u8]>>(pieces: impl IntoIterator<Item = B>) -> Result<Self, RestoreError> {
        let mut state = ShardState::new();
        let mut pieces = pieces.into_iter();
        let first = pieces.next().ok_or(RestoreError::Broken("no header"))?;
        let PieceV1::Header { log_time, fence } = read(first.as_ref())? else {
            return Err(RestoreError::Broken("does not start with a header"));
        };
        (state.log_time, state.fence) = (log_time, fence);
        let mut ended = false;
        let mut measured = BTreeMap::new();
        let mut tried = BTreeMap::new();
        for piece in pieces {
            if ended {
                return Err(RestoreError::Broken("goes on after its end"));
            }
            match read(piece.as_ref())? {
                PieceV1::Header { .. } => return Err(RestoreError::Broken("two headers")),
                PieceV1::Generation(generation) => {
                    if state.generation > 0 || generation == 0 || !state.tenants.is_empty() {
                        return Err(RestoreError::Broken("its generation stands where none does"));
                    }
                    state.generation = generation;
                }
                PieceV1::Level(level) => state.level = level,
                PieceV1::Tenant { id, all } => {
                    let before = state.tenants.len();
                    let number = state.number_of(&id) as usize;
                    if number != before {
                        return Err(RestoreError::Broken("a tenant twice"));
                    }
                    state.tenants[number].evidence = Arc::new(Evidence::of_all(all));
                }
                PieceV1::Names { tenant, names } => {
                    let symbols = Arc::make_mut(&mut state.restored(tenant)?.symbols);
                    let expected = symbols.len() + names.len();
                    for name in &names {
                        symbols.intern(name);
                    }
                    if symbols.len() != expected {
                        return Err(RestoreError::Broken("a name twice"));
                    }
                }
                PieceV1::OfferTallies { tenant, tallies } => {
                    Arc::make_mut(&mut state.restored(tenant)?.evidence).add_offers(tallies);
                }
                PieceV1::CategoryTallies { tenant, tallies } => {
                    Arc::make_mut(&mut state.restored(tenant)?.evidence).add_categories(tallies);
                }
                PieceV1::Accounts(accounts) => {
                    for (id, account) in accounts {
                        if !account.is_sound() {
                            return Err(RestoreError::Broken("an account spent more than it was granted"));
                        }
                        Arc::make_mut(&mut state.escrow).put(id, account);
                    }
                }
                PieceV1::Closed(closed) => Arc::make_mut(&mut state.escrow).closed_below.extend(closed),
                PieceV1::Profiles(profiles) => {
                    for (tenant, customer, mut profile) in profiles {
                        let known = state.tenants.get(tenant as usize).map(|tenant| tenant.symbols.len());
                        let names = known.ok_or(RestoreError::Broken("a profile of an unknown tenant"))?;
                        if profile.is_empty() || symbols_of(&profile).any(|symbol| symbol.0 as usize >= names) {
                            return Err(RestoreError::Broken("a profile names what has no name"));
                        }
                        if let Some(metrics) = measured.remove(&(tenant, customer.clone())) {
                            profile.dealings.get_or_insert_default().metrics = metrics;
                        }
                        if let Some(trials) = tried.remove(&(tenant, customer.clone())) {
                            profile.dealings.get_or_insert_default().trials = trials;
                        }
                        profile.tidy();
                        state.put_entry(tenant, &customer, profile);
                    }
                }
                PieceV1::Metrics(of) => {
                    for (tenant, customer, series) in of {
                        let metrics = Metrics::restored(series);
                        let metrics = metrics.ok_or(RestoreError::Broken("series that no metric counted"))?;
                        if measured.insert((tenant, customer), metrics).is_some() {
                            return Err(RestoreError::Broken("a profile's metrics twice"));
                        }
                    }
                }
                PieceV1::Trials(of) => {
                    for (tenant, customer, participations) in of {
                        let trials = Trials::restored(participations);
                        let trials =
                            trials.ok_or(RestoreError::Broken("a part in an experiment that none can have"))?;
                        if tried.insert((tenant, customer), trials).is_some() {
                            return Err(RestoreError::Broken("a profile's experiments twice"));
                        }
                    }
                }
                PieceV1::End { profiles } => {
                    if !tried.is_empty() {
                        return Err(RestoreError::Broken("experiments of a profile that is missing"));
                    }
                    if !measured.is_empty() {
                        return Err(RestoreError::Broken("metrics of a profile that is missing"));
                    }
                    if profiles != state.profile_count() {
                        return Err(RestoreError::Broken("profiles are missing"));
                    }
                    ended = true;
                }
            }
        }
        if !ended {
            return Err(RestoreError::Broken("ends early"));
        }
        state.shrink();
        Ok(state)
    }

    /// Hash of the encoded state: replicas at the same position agree on it.
    pub fn hash(&self) -> u64 {
        let mut hasher = Xxh3::new();
        for piece in self.encode_chunks() {
            hasher.update(&piece);
        }
        hasher.digest()
    }

    fn restored(&mut self, tenant: u32) -> Result<&mut Tenant, RestoreError> {
        self.tenants.get_mut(tenant as usize).ok_or(RestoreError::Broken("a piece of an unknown tenant"))
    }

    fn encode_profiles(&self, chunk: usize) -> Vec<Vec<u8>> {
        let entries = self.sorted_chunk(chunk);
        let mut pieces = encode_metrics(&entries);
        pieces.extend(encode_trials(&entries));
        let mut open = Vec::new();
        let mut bytes = 0;
        for entry in entries {
            let size = size_of::<(u32, Box<str>, Profile)>() + entry.customer.len() + entry.profile.weight();
            if bytes + size > PIECE_BYTES && !open.is_empty() {
                pieces.push(write(PieceV1::Profiles(std::mem::take(&mut open))));
                bytes = 0;
            }
            bytes += size;
            open.push((entry.tenant, entry.customer.clone(), entry.profile.clone()));
        }
        if !open.is_empty() {
            pieces.push(write(PieceV1::Profiles(open)));
        }
        pieces
    }
}

/// What metrics counted for these profiles.
fn encode_metrics(entries: &[&Entry]) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let mut open = Vec::new();
    let mut bytes = 0;
    for entry in entries {
        let Some(metrics) = entry.profile.metrics().filter(|metrics| !metrics.series().is_empty()) else { continue };
        let size = size_of::<(u32, Box<str>, Vec<Series>)>() + entry.customer.len() + metrics.weight();
        if bytes + size > PIECE_BYTES && !open.is_empty() {
            pieces.push(write(PieceV1::Metrics(std::mem::take(&mut open))));
            bytes = 0;
        }
        bytes += size;
        open.push((entry.tenant, entry.customer.clone(), metrics.series().to_vec()));
    }
    if !open.is_empty() {
        pieces.push(write(PieceV1::Metrics(open)));
    }
    pieces
}

/// What these customers are and did in experiments.
fn encode_trials(entries: &[&Entry]) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let mut open = Vec::new();
    let mut bytes = 0;
    for entry in entries {
        let Some(trials) = entry.profile.trials().filter(|of| !of.participations().is_empty()) else { continue };
        let size = size_of::<(u32, Box<str>, Vec<Participation>)>() + entry.customer.len() + trials.weight();
        if bytes + size > PIECE_BYTES && !open.is_empty() {
            pieces.push(write(PieceV1::Trials(std::mem::take(&mut open))));
            bytes = 0;
        }
        bytes += size;
        open.push((entry.tenant, entry.customer.clone(), trials.participations().to_vec()));
    }
    if !open.is_empty() {
        pieces.push(write(PieceV1::Trials(open)));
    }
    pieces
}

/// Accounts, counters and the like.
const ITEMS_PER_PIECE: usize = 4_096;

fn pieces_of(tenant: &Tenant, number: u32) -> impl Iterator<Item = PieceV1> {
    let (offers, categories) = tenant.evidence.parts();
    let mut pieces = vec![PieceV1::Tenant { id: tenant.id.clone(), all: tenant.evidence.all() }];
    let mut names = Vec::new();
    let mut bytes = 0;
    for name in tenant.symbols.names() {
        let size = size_of_val(name) + name.len();
        if bytes + size > PIECE_BYTES {
            pieces.push(PieceV1::Names { tenant: number, names: std::mem::take(&mut names) });
            bytes = 0;
        }
        bytes += size;
        names.push(Arc::clone(name));
    }
    if !names.is_empty() {
        pieces.push(PieceV1::Names { tenant: number, names });
    }
    let offers: Vec<_> = offers.iter().map(|(offer, tally)| (*offer, *tally)).collect();
    let offers = offers.chunks(ITEMS_PER_PIECE).map(<[_]>::to_vec);
    pieces.extend(offers.map(|tallies| PieceV1::OfferTallies { tenant: number, tallies }));
    let categories: Vec<_> = categories.iter().map(|(category, tally)| (*category, *tally)).collect();
    let categories = categories.chunks(ITEMS_PER_PIECE).map(<[_]>::to_vec);
    pieces.extend(categories.map(|tallies| PieceV1::CategoryTallies { tenant: number, tallies }));
    pieces.into_iter()
}

const WHAT: &str = "a piece of a shard";

fn write(piece: PieceV1) -> Vec<u8> {
    encode_stored(WHAT, &StoredPiece::V1(piece))
}

fn read(bytes: &[u8]) -> Result<PieceV1, DecodeError> {
    let StoredPiece::V1(piece) = decode(WHAT, bytes)?;
    Ok(piece)
}

fn symbols_of(profile: &Profile) -> impl Iterator<Item = Symbol> {
    let rows = profile.rows.iter().flat_map(|(_, row)| row.iter());
    profile.attributes.iter().chain(rows).map(|(symbol, _)| *symbol).chain(profile.segments.iter().copied())
}
