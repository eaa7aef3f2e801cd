//! Which disk this is and how often it was started: with it, a wiped, doubled or older copy of a disk is told apart.

use std::collections::{BTreeMap, BTreeSet};

use bincode::{Decode, Encode};
use proffer_engine::codec::{self, DecodeError};
use proffer_engine::keys::ShardId;
use proffer_engine::profile::command::Position;

use crate::groups::Group;
use crate::limits::SHARDS_MAX;
use crate::meta::command::Founding;
use crate::ports::disk::{Disk, DiskError, read_all};
use crate::ports::entropy::Entropy;

const NAME: &str = "identity";
const TEMPORARY: &str = "identity.tmp";
const BYTES_MAX: u64 = 1_024 * 1_024;
/// The checksum that the encoded identity follows.
const CRC_BYTES: usize = 4;

/// A disk's identity after a start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Drawn when the disk was first used; no two disks have the same.
    pub disk_id: u128,
    /// Starts so far, this one included. Synced before the start goes on, so no two starts of a disk have the same.
    pub boots: u64,
    /// The write-ahead log that lies here, once there is one.
    pub log: Option<u64>,
    /// The cluster that the disk is of, once it is of one.
    pub cluster: Option<Belonging>,
    /// What is to be known of it at the next start.
    pub notes: Notes,
}

/// What a run of a node leaves to the next one, so that no replica votes that has forgotten what it promised.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Notes {
    /// What was acknowledged may not have been synced: replicas that share a group with others begin again under new ids.
    pub unsynced: bool,
    /// Groups that had no other voter when that was last looked at: what lies here of them lies nowhere else.
    pub alone: BTreeSet<Group>,
    /// How far replicas elsewhere had come, as they said when that was last written down.
    pub seen: BTreeMap<u64, Reach>,
}

/// How far a replica has come: what of it is on its disk for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Reach {
    /// The highest term that it has heard of.
    pub term: u64,
    /// Its last entry.
    pub last: Option<Position>,
}

/// What a disk is in its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Belonging {
    /// What was fixed when the cluster was created.
    pub founding: Founding,
    /// The node that it is.
    pub node: u64,
    /// The replicas that lie here, by group.
    pub seats: BTreeMap<Group, u64>,
    /// The newest replica of each group that has left: none as old as it begins here again, whatever an older roster says.
    pub left: BTreeMap<Group, u64>,
    /// Replicas that have left, and of which something may lie here still.
    pub leaving: BTreeSet<u64>,
    /// The other nodes and where they were reached last: whom to ask when nothing else is known.
    pub peers: BTreeMap<u64, String>,
}

impl Belonging {
    /// The node that founds a cluster: it holds the first replica of every group.
    pub fn founder(founding: Founding) -> Self {
        Belonging {
            founding,
            node: FOUNDER,
            seats: first_replicas(founding.shards).collect(),
            left: BTreeMap::new(),
            leaving: BTreeSet::new(),
            peers: BTreeMap::new(),
        }
    }
}

/// The node that founds a cluster. Later ones have ids of entries that admit them, which are larger.
pub const FOUNDER: u64 = 1;

/// The founder's replica of the meta group.
pub const FIRST_REPLICA: u64 = 1;

/// Replicas with ids up to this one begin their groups; those placed later have ids of entries, which are larger.
pub const FIRST_REPLICAS: u64 = FIRST_REPLICA + SHARDS_MAX as u64;

/// The replicas that a cluster of so many shards begins with, one of each group. Those placed later have ids of entries.
pub fn first_replicas(shards: u16) -> impl Iterator<Item = (Group, u64)> {
    std::iter::once(Group::Meta).chain((0..shards).map(ShardId).map(Group::Shard)).zip(FIRST_REPLICA..)
}

#[derive(Debug, PartialEq, Eq, Encode, Decode)]
enum Stored {
    V1 { disk_id: u128, boots: u64 },
    V2 { disk_id: u128, boots: u64, log: Option<u64> },
    V3 { disk_id: u128, boots: u64, log: Option<u64>, cluster: Option<Founding> },
    V4 { disk_id: u128, boots: u64, log: Option<u64>, cluster: Option<Belonging> },
    V5 { disk_id: u128, boots: u64, log: Option<u64>, cluster: Option<Belonging>, notes: Notes },
}

/// Why a disk's identity cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The disk failed.
    #[error("cannot keep the disk's identity: {0}")]
    Disk(#[from] DiskError),
    /// Nobody did the work.
    #[error("cannot keep the disk's identity: {0}")]
    Lost(String),
    /// The file is not what was written.
    #[error("the file {NAME} is corrupt: it does not say which disk this is")]
    Corrupt,
    /// The file is of another release, or not ours.
    #[error("the file {NAME} cannot be read: {0}")]
    Unreadable(#[from] DecodeError),
    /// There is a log of a build before 0.1.0, whose entries this one does not read. Nothing was changed.
    #[error("the data is of an earlier build, which 0.1.0 does not read: begin with an empty directory")]
    Older,
    /// There is data, and nothing says whose.
    #[error("the file {NAME} is missing although {0} is there: this is not a whole data directory")]
    Missing(String),
}

/// Counts a start of the disk, giving it an id if it is new. Blocking: call it before anything else uses the disk.
///
/// # Errors
/// See [`IdentityError`]; the disk must then not be used.
pub fn start(disk: &dyn Disk, entropy: &dyn Entropy) -> Result<Identity, IdentityError> {
    let names = disk.list()?;
    let identity = if names.iter().any(|name| name == NAME) {
        match read(disk)? {
            Stored::V1 { .. } | Stored::V2 { .. } | Stored::V3 { .. }
                if names.iter().any(|name| name != NAME && name != TEMPORARY) =>
            {
                return Err(IdentityError::Older);
            }
            Stored::V1 { disk_id, boots } => Identity { disk_id, boots: boots + 1, ..Identity::default() },
            Stored::V2 { disk_id, boots, log } | Stored::V3 { disk_id, boots, log, .. } => {
                Identity { disk_id, boots: boots + 1, log, ..Identity::default() }
            }
            Stored::V4 { disk_id, boots, log, cluster } => {
                // Whether others have what lies here was not written down: until that is known nothing of it is given up.
                let alone = cluster.iter().flat_map(|cluster| cluster.seats.keys().copied()).collect();
                Identity { disk_id, boots: boots + 1, log, cluster, notes: Notes { alone, ..Notes::default() } }
            }
            Stored::V5 { disk_id, boots, log, cluster, notes } => {
                Identity { disk_id, boots: boots + 1, log, cluster, notes }
            }
        }
    } else if let Some(data) = names.iter().find(|name| *name != TEMPORARY) {
        return Err(IdentityError::Missing(data.clone()));
    } else {
        let disk_id = u128::from(entropy.u64()) << 64 | u128::from(entropy.u64());
        Identity { disk_id, boots: 1, ..Identity::default() }
    };
    if names.iter().any(|name| name == TEMPORARY) {
        disk.remove(TEMPORARY)?;
    }
    remember(disk, &identity)?;
    Ok(identity)
}

/// Keeps what is known of the disk, durably: which log lies there, so that one that is gone is missed, and of which cluster it
/// is. Blocking.
///
/// # Errors
/// What the disk says.
pub fn remember(disk: &dyn Disk, identity: &Identity) -> Result<(), IdentityError> {
    let Identity { disk_id, boots, log, cluster, notes } = identity.clone();
    let encoded = codec::encode_stored("the disk's identity", &Stored::V5 { disk_id, boots, log, cluster, notes });
    let crc = crc32c::crc32c(&encoded).to_le_bytes();
    disk.create(TEMPORARY)?;
    disk.append(TEMPORARY, &[&crc[..], &encoded].concat())?;
    disk.sync_data(TEMPORARY)?;
    disk.rename(TEMPORARY, NAME)?;
    disk.sync_dir()?;
    Ok(())
}

/// What a disk says of itself, without counting a start; `None` if nothing was ever begun on it. Blocking.
///
/// # Errors
/// See [`IdentityError`].
pub(crate) fn look(disk: &dyn Disk) -> Result<Option<Identity>, IdentityError> {
    if !disk.list()?.iter().any(|name| name == NAME) {
        return Ok(None);
    }
    Ok(Some(match read(disk)? {
        Stored::V1 { .. } | Stored::V2 { .. } | Stored::V3 { .. } => return Err(IdentityError::Older),
        Stored::V4 { disk_id, boots, log, cluster } => {
            Identity { disk_id, boots, log, cluster, notes: Notes::default() }
        }
        Stored::V5 { disk_id, boots, log, cluster, notes } => Identity { disk_id, boots, log, cluster, notes },
    }))
}

/// What a disk says of itself, without counting a start.
#[cfg(test)]
pub(crate) fn peek(disk: &dyn Disk) -> Identity {
    let Stored::V5 { disk_id, boots, log, cluster, notes } = read(disk).expect("it was started") else {
        panic!("it was started by this build")
    };
    Identity { disk_id, boots, log, cluster, notes }
}

fn read(disk: &dyn Disk) -> Result<Stored, IdentityError> {
    let bytes = read_all(disk, NAME, BYTES_MAX)?;
    let (crc, encoded) = bytes.split_at_checked(CRC_BYTES).ok_or(IdentityError::Corrupt)?;
    if crc != crc32c::crc32c(encoded).to_le_bytes() {
        return Err(IdentityError::Corrupt);
    }
    Ok(codec::decode("the disk's identity", encoded)?)
}

#[cfg(test)]
mod tests {
    use proffer_engine::profile::command::Leader;

    use super::*;
    use crate::ports::entropy::SeededEntropy;
    use crate::ports::memory_disk::MemoryDisk;

    #[test]
    fn golden_bytes() {
        let bytes = codec::encode(&Stored::V1 { disk_id: 0x0102, boots: 7 });
        assert_eq!(bytes, [0, 251, 2, 1, 7]);
        assert_eq!(codec::decode::<Stored>("identity", &bytes).unwrap(), Stored::V1 { disk_id: 0x0102, boots: 7 });
        let stored = || Stored::V2 { disk_id: 0x0102, boots: 7, log: Some(300) };
        let bytes = codec::encode(&stored());
        assert_eq!(bytes, [1, 251, 2, 1, 7, 1, 251, 44, 1]);
        assert_eq!(codec::decode::<Stored>("identity", &bytes).unwrap(), stored());
        let cluster = Some(Founding { secret: [9; 16], shards: 3 });
        let stored = || Stored::V3 { disk_id: 0x0102, boots: 7, log: None, cluster };
        let bytes = codec::encode(&stored());
        assert_eq!(bytes, [&[2, 251, 2, 1, 7, 0, 1][..], &[9; 16], &[3]].concat());
        assert_eq!(codec::decode::<Stored>("identity", &bytes).unwrap(), stored());
        let founding = Founding { secret: [9; 16], shards: 1 };
        let belonging = Belonging { peers: [(2, "b".to_owned())].into(), ..Belonging::founder(founding) };
        let stored = || Stored::V4 { disk_id: 0x0102, boots: 7, log: None, cluster: Some(belonging.clone()) };
        let bytes = codec::encode(&stored());
        let belongs = [1, 2, 0, 1, 1, 0, 2, 0, 0, 1, 2, 1, b'b'];
        assert_eq!(bytes, [&[3, 251, 2, 1, 7, 0, 1][..], &[9; 16], &[1], &belongs].concat());
        assert_eq!(codec::decode::<Stored>("identity", &bytes).unwrap(), stored());
        let last = Some(Position { leader: Leader { term: 4, replica: 5 }, index: 6 });
        let seen = [(7, Reach { term: 8, last })].into();
        let notes = Notes { unsynced: true, alone: [Group::Meta].into(), seen };
        let stored = || Stored::V5 {
            disk_id: 0x0102,
            boots: 7,
            log: None,
            cluster: Some(belonging.clone()),
            notes: notes.clone(),
        };
        let bytes = codec::encode(&stored());
        let noted = [1, 1, 0, 1, 7, 8, 1, 4, 5, 6];
        assert_eq!(bytes, [&[4, 251, 2, 1, 7, 0, 1][..], &[9; 16], &[1], &belongs, &noted].concat());
        assert_eq!(codec::decode::<Stored>("identity", &bytes).unwrap(), stored());
    }

    #[test]
    fn what_was_not_written_down_before_is_taken_for_the_only_copy() {
        let disk = MemoryDisk::new();
        let belonging = Belonging::founder(Founding { secret: [9; 16], shards: 1 });
        let stored = Stored::V4 { disk_id: 5, boots: 7, log: Some(1), cluster: Some(belonging) };
        let encoded = codec::encode(&stored);
        disk.create(NAME).unwrap();
        disk.append(NAME, &[&crc32c::crc32c(&encoded).to_le_bytes()[..], &encoded].concat()).unwrap();
        let notes = start(&disk, &SeededEntropy::new(1)).unwrap().notes;
        let alone = [Group::Meta, Group::Shard(ShardId(0))].into();
        assert_eq!(notes, Notes { alone, ..Notes::default() });
    }

    #[test]
    fn log_and_cluster_are_remembered_from_start_to_start() {
        let disk = MemoryDisk::new();
        let entropy = SeededEntropy::new(1);
        let first = start(&disk, &entropy).unwrap();
        assert_eq!(first.log, None);
        let cluster = Some(Belonging::founder(Founding { secret: [7; 16], shards: 16 }));
        let known = Identity { log: Some(77), cluster, ..first };
        remember(&disk, &known).unwrap();
        disk.cut_power(|_, _| 0);
        for boots in 2..4 {
            assert_eq!(start(&disk, &entropy).unwrap(), Identity { boots, ..known.clone() });
        }
    }

    #[test]
    fn an_identity_of_an_earlier_build_is_read_and_its_data_refused_untouched() {
        let disk = MemoryDisk::new();
        let encoded = codec::encode(&Stored::V1 { disk_id: 5, boots: 7 });
        let bytes = [&crc32c::crc32c(&encoded).to_le_bytes()[..], &encoded].concat();
        disk.create(NAME).unwrap();
        disk.append(NAME, &bytes).unwrap();
        disk.create("wal-00000000000000000001.log").unwrap();
        assert!(matches!(start(&disk, &SeededEntropy::new(1)), Err(IdentityError::Older)));
        assert_eq!(read_all(&disk, NAME, BYTES_MAX).unwrap(), bytes);
        disk.remove("wal-00000000000000000001.log").unwrap();
        let identity = start(&disk, &SeededEntropy::new(1)).unwrap();
        assert_eq!(identity, Identity { disk_id: 5, boots: 8, ..Identity::default() });
    }

    #[test]
    fn the_id_stays_and_every_start_counts_even_if_the_power_goes() {
        let disk = MemoryDisk::new();
        let entropy = SeededEntropy::new(1);
        let first = start(&disk, &entropy).unwrap();
        assert_eq!(first.boots, 1);
        for boots in 2..5 {
            disk.cut_power(|_, _| 0);
            assert_eq!(start(&disk, &entropy).unwrap(), Identity { boots, ..first.clone() });
        }
        assert_ne!(start(&MemoryDisk::new(), &entropy).unwrap().disk_id, first.disk_id);
    }

    #[test]
    fn a_power_cut_anywhere_in_a_start_leaves_the_identity_whole() {
        for calls in 0..5 {
            for torn in [0, 3, usize::MAX] {
                let disk = MemoryDisk::new();
                let entropy = SeededEntropy::new(1);
                let first = start(&disk, &entropy).unwrap();
                disk.fail_after(calls);
                start(&disk, &entropy).unwrap_err();
                disk.cut_power(|_, unsynced| unsynced.min(torn));
                assert_eq!(start(&disk, &entropy).unwrap(), Identity { boots: 2, ..first });
            }
        }
    }

    #[test]
    fn a_corrupt_or_missing_identity_is_refused() {
        let disk = MemoryDisk::new();
        start(&disk, &SeededEntropy::new(1)).unwrap();
        disk.flip(NAME, 9, 1);
        assert!(matches!(start(&disk, &SeededEntropy::new(1)), Err(IdentityError::Corrupt)));
        disk.create("wal-00000000000000000001.log").unwrap();
        disk.remove(NAME).unwrap();
        let error = start(&disk, &SeededEntropy::new(1)).unwrap_err();
        assert!(error.to_string().contains("missing although wal-"), "{error}");
    }
}
