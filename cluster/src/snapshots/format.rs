//! The bytes of a snapshot file. All numbers are little endian.

use std::sync::Arc;

use bincode::{Decode, Encode};
use proffer_engine::codec;
use xxhash_rust::xxh3::Xxh3;

use super::{SnapshotError, check_size};
use crate::limits::{SNAPSHOT_CHUNK_BYTES_MAX, SNAPSHOT_META_BYTES_MAX};
use crate::ports::disk::Disk;

const MAGIC: [u8; 8] = *b"PROFSNAP";
/// Before the header, and before each chunk: a length and a checksum.
const PREFIX_BYTES: usize = 8;
const FOOTER_BYTES: usize = 4 + 8 + HASH_BYTES;
const HASH_BYTES: usize = 16;
/// The header beside what the caller wants kept.
const HEADER_BYTES_MAX: usize = SNAPSHOT_META_BYTES_MAX + 64;
const READ_BYTES: usize = 1024 * 1024;

/// What a file is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) group: u64,
    pub(super) last_index: u64,
    pub(super) meta: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq, Encode, Decode)]
enum StoredHeader {
    V1 { group: u64, last_index: u64, meta: Vec<u8> },
}

/// A file being written, hashed as it grows.
pub(super) struct Hashing {
    disk: Arc<dyn Disk>,
    name: String,
    hash: Xxh3,
    chunks: u64,
    bytes: u64,
}

impl Hashing {
    pub(super) fn begin(disk: Arc<dyn Disk>, name: String, header: &Header) -> Result<Hashing, SnapshotError> {
        let mut file = Hashing { disk, name, hash: Xxh3::new(), chunks: 0, bytes: 0 };
        let Header { group, last_index, meta } = header.clone();
        file.append(&MAGIC)?;
        file.append(&prefixed(&codec::encode(&StoredHeader::V1 { group, last_index, meta })))?;
        Ok(file)
    }

    /// Empty chunks are left out: they say nothing.
    pub(super) fn push(&mut self, chunk: &[u8]) -> Result<(), SnapshotError> {
        check_size("a chunk", chunk.len(), SNAPSHOT_CHUNK_BYTES_MAX)?;
        if chunk.is_empty() {
            return Ok(());
        }
        self.chunks += 1;
        self.append(&prefixed(chunk))
    }

    /// Writes the footer; the file's length.
    pub(super) fn finish(mut self) -> Result<u64, SnapshotError> {
        self.append(&[&[0; 4][..], &self.chunks.to_le_bytes()].concat())?;
        let hash = self.hash.digest128().to_le_bytes();
        self.append(&hash)?;
        Ok(self.bytes)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.disk.append(&self.name, bytes)?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

fn prefixed(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("sizes are checked against far smaller limits");
    [&length.to_le_bytes()[..], &crc32c::crc32c(bytes).to_le_bytes(), bytes].concat()
}

/// Checks a whole file and reads its header; its chunks are read as they are asked for.
pub(super) fn open(disk: &Arc<dyn Disk>, name: &str) -> Result<(Header, Chunks, u64), SnapshotError> {
    let corrupt = |what: &str| SnapshotError::Corrupt { name: name.to_owned(), what: what.to_owned() };
    let bytes = disk.len(name)?;
    let hashed = bytes.checked_sub(HASH_BYTES as u64).ok_or_else(|| corrupt("it is too short"))?;
    let mut stated = [0; HASH_BYTES];
    disk.read_at(name, hashed, &mut stated)?;
    if hash(&**disk, name, hashed)? != u128::from_le_bytes(stated) {
        return Err(corrupt("its hash is not the one it states"));
    }
    let mut magic = [0; MAGIC.len()];
    disk.read_at(name, 0, &mut magic)?;
    if magic != MAGIC {
        return Err(corrupt("it does not begin as a snapshot does"));
    }
    let end = bytes.saturating_sub(FOOTER_BYTES as u64);
    let mut chunks = Chunks { disk: Arc::clone(disk), name: name.to_owned(), at: MAGIC.len() as u64, end };
    let header = chunks.next_block(HEADER_BYTES_MAX)?;
    let StoredHeader::V1 { group, last_index, meta } =
        codec::decode("a snapshot's header", &header).map_err(|error| corrupt(&error.to_string()))?;
    Ok((Header { group, last_index, meta }, chunks, bytes))
}

fn hash(disk: &dyn Disk, name: &str, until: u64) -> Result<u128, SnapshotError> {
    let mut hash = Xxh3::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut at = 0;
    while at < until {
        let wanted = usize::try_from(until - at).map_or(READ_BYTES, |left| left.min(READ_BYTES));
        let read = disk.read_at(name, at, &mut buffer[..wanted])?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        at += read as u64;
    }
    Ok(hash.digest128())
}

/// The chunks of a checked snapshot file, in the order in which they were written. Each is checked once more as it is read;
/// after an error there are no more.
pub struct Chunks {
    disk: Arc<dyn Disk>,
    name: String,
    at: u64,
    end: u64,
}

impl std::fmt::Debug for Chunks {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Chunks { name, at, end, disk: _ } = self;
        formatter.debug_struct("Chunks").field("name", name).field("at", at).field("end", end).finish_non_exhaustive()
    }
}

impl Chunks {
    fn next_block(&mut self, bytes_max: usize) -> Result<Vec<u8>, SnapshotError> {
        let corrupt = |what: &str| SnapshotError::Corrupt { name: self.name.clone(), what: what.to_owned() };
        let mut prefix = [0; PREFIX_BYTES];
        let read = self.disk.read_at(&self.name, self.at, &mut prefix)?;
        let [a, b, c, d, crc @ ..] = prefix;
        let length = u32::from_le_bytes([a, b, c, d]);
        let start = self.at + PREFIX_BYTES as u64;
        if read < PREFIX_BYTES || length as usize > bytes_max || start + u64::from(length) > self.end {
            return Err(corrupt("a block is longer than what is there"));
        }
        let mut block = vec![0; length as usize];
        let read = self.disk.read_at(&self.name, start, &mut block)?;
        if read < block.len() || crc32c::crc32c(&block) != u32::from_le_bytes(crc) {
            return Err(corrupt("a block is not what was written"));
        }
        self.at = start + u64::from(length);
        Ok(block)
    }
}

impl Iterator for Chunks {
    type Item = Result<Vec<u8>, SnapshotError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        let block = self.next_block(SNAPSHOT_CHUNK_BYTES_MAX);
        if block.is_err() {
            self.at = self.end;
        }
        Some(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::disk::read_all;
    use crate::ports::memory_disk::MemoryDisk;

    #[test]
    fn golden_bytes_of_version_1() {
        let disk = Arc::new(MemoryDisk::new());
        disk.create("a").unwrap();
        let header = Header { group: 3, last_index: 500, meta: b"m".to_vec() };
        let mut file = Hashing::begin(Arc::<MemoryDisk>::clone(&disk), "a".to_owned(), &header).unwrap();
        file.push(b"state").unwrap();
        file.push(b"").unwrap();
        let bytes = file.finish().unwrap();
        let hex: String = read_all(&*disk, "a", bytes).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, GOLDEN.concat().replace(' ', ""));
    }

    const GOLDEN: [&str; 3] = [
        "50524f46534e4150 07000000 81a6c71b 00 03 fbf401 01 6d",
        "05000000 df68db66 7374617465",
        "00000000 0100000000000000 bc8fa0476c53f3ace117e0d712c597be",
    ];
}
