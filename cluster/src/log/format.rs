//! The bytes of a segment. All numbers are little endian.
//!
//! ```text
//! segment = header, frame*
//! header  = magic "PROFFWAL", version u32, log id u64, segment u64, length of the segment before it u64,
//!           length of the head u64, crc u32
//! frame   = mark | record
//! mark    = magic u32, crc u32, log id u64, segment u64, offset u64, synced u64
//! record  = length u32, header crc u32, payload crc u32, group u64, index u64, kind u8, payload
//! ```
//!
//! The head is the header and the checkpoint records after it; it is synced before anything follows, so a segment with less
//! than its head was never in use.
//!
//! A mark is the header of a batch: it says how many of the segment's bytes were synced when it was written. The mark's
//! magic is larger than any record's length, so one word tells the two frames apart, and since a batch states no length of
//! its own a segment may be cut at the end of any frame.
//!
//! The checksums (crc32c) of marks and record headers begin from the log's random id, the segment and the frame's own
//! offset: bytes that a client sent, or that belong somewhere else, are never taken for a frame. A record's header and
//! payload have a checksum each, so that a rotten payload still says whose it was.

use super::GroupId;
use crate::limits::LOG_RECORD_BYTES_MAX;

const HEADER_MAGIC: [u8; 8] = *b"PROFFWAL";
/// The version written. Readers refuse any they do not know.
pub(super) const VERSION: u32 = 1;
const MARK_MAGIC: u32 = u32::from_le_bytes(*b"MARK");
const _: () = assert!(LOG_RECORD_BYTES_MAX < MARK_MAGIC as usize, "a length must never look like a mark");

pub(super) const HEADER_BYTES: usize = 48;
pub(super) const MARK_BYTES: usize = 40;
pub(super) const RECORD_HEADER_BYTES: usize = 29;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The group's entry at the index.
    Entry,
    /// The group's state, in place of any before it.
    State,
    /// The group's entries from the index on are gone.
    Truncate,
    /// The group's entries below the index are not needed any more.
    Purge,
    /// The group is gone.
    Destroy,
    /// At the head of a segment: where the group stands, its entries below the index being purged.
    Checkpoint,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Kind::Entry => 1,
            Kind::State => 2,
            Kind::Truncate => 3,
            Kind::Purge => 4,
            Kind::Destroy => 5,
            Kind::Checkpoint => 6,
        }
    }

    fn from_byte(byte: u8) -> Option<Kind> {
        [Kind::Entry, Kind::State, Kind::Truncate, Kind::Purge, Kind::Destroy, Kind::Checkpoint]
            .into_iter()
            .find(|kind| kind.byte() == byte)
    }
}

/// Which log and which of its segments: part of every frame's checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Home {
    pub(super) log_id: u64,
    pub(super) segment: u64,
}

impl Home {
    fn seed(self, offset: u64) -> u32 {
        let crc = crc32c::crc32c(&self.log_id.to_le_bytes());
        let crc = crc32c::crc32c_append(crc, &self.segment.to_le_bytes());
        crc32c::crc32c_append(crc, &offset.to_le_bytes())
    }
}

/// A segment's first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) home: Home,
    /// How long the segment before it is: it never changes after that.
    pub(super) previous_len: u64,
    /// How long the head is.
    pub(super) head_bytes: u64,
}

impl Header {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&HEADER_MAGIC);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&self.home.log_id.to_le_bytes());
        out.extend_from_slice(&self.home.segment.to_le_bytes());
        out.extend_from_slice(&self.previous_len.to_le_bytes());
        out.extend_from_slice(&self.head_bytes.to_le_bytes());
        let crc = crc32c::crc32c(&out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
    }

    /// `None` if the bytes are no header, or not one of `segment`. The version is the caller's to judge.
    pub(super) fn read(bytes: &[u8], segment: u64) -> Option<Header> {
        let crc = u32_at(bytes, 44)?;
        if bytes[..8] != HEADER_MAGIC || crc != crc32c::crc32c(&bytes[..44]) || u64_at(bytes, 20)? != segment {
            return None;
        }
        let home = Home { log_id: u64_at(bytes, 12)?, segment };
        Some(Header {
            version: u32_at(bytes, 8)?,
            home,
            previous_len: u64_at(bytes, 28)?,
            head_bytes: u64_at(bytes, 36)?,
        })
    }
}

/// Appends a mark that will lie at `offset`.
pub(super) fn write_mark(out: &mut Vec<u8>, home: Home, offset: u64, synced: u64) {
    let mut body = [0; MARK_BYTES - 8];
    body[..8].copy_from_slice(&home.log_id.to_le_bytes());
    body[8..16].copy_from_slice(&home.segment.to_le_bytes());
    body[16..24].copy_from_slice(&offset.to_le_bytes());
    body[24..].copy_from_slice(&synced.to_le_bytes());
    out.extend_from_slice(&MARK_MAGIC.to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c_append(home.seed(offset), &body).to_le_bytes());
    out.extend_from_slice(&body);
}

/// How many bytes the mark that `bytes` begin with, lying at `offset`, says are synced. `log_id`: if known, only that log's
/// marks count.
fn parse_mark(bytes: &[u8], segment: u64, log_id: Option<u64>, offset: u64) -> Option<u64> {
    let mark = bytes.get(..MARK_BYTES)?;
    let home = Home { log_id: u64_at(mark, 8)?, segment };
    let synced = u64_at(mark, 32)?;
    let sound = u32_at(mark, 0)? == MARK_MAGIC
        && log_id.is_none_or(|known| known == home.log_id)
        && u64_at(mark, 16)? == segment
        && u64_at(mark, 24)? == offset
        && u32_at(mark, 4)? == crc32c::crc32c_append(home.seed(offset), &mark[8..])
        && synced <= offset;
    sound.then_some(synced)
}

/// The largest number of bytes that any sound mark of the segment, wherever it lies, says are synced.
pub(super) fn highest_mark(bytes: &[u8], segment: u64, log_id: Option<u64>) -> u64 {
    let magic = MARK_MAGIC.to_le_bytes();
    (0..bytes.len().saturating_sub(MARK_BYTES - 1))
        .filter(|&at| bytes[at] == magic[0] && bytes[at..at + 4] == magic)
        .filter_map(|at| parse_mark(&bytes[at..], segment, log_id, at as u64))
        .max()
        .unwrap_or(0)
}

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) group: GroupId,
    pub(super) index: u64,
    pub(super) kind: Kind,
    pub(super) payload_bytes: usize,
    payload_crc: u32,
}

/// Appends a record that will lie at `offset`.
pub(super) fn write_record(out: &mut Vec<u8>, home: Home, offset: u64, record: (GroupId, u64, Kind), payload: &[u8]) {
    let (group, index, kind) = record;
    let length = u32::try_from(payload.len()).expect("payloads are checked against LOG_RECORD_BYTES_MAX");
    let mut body = [0; RECORD_HEADER_BYTES - 8];
    body[..4].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    body[4..12].copy_from_slice(&group.0.to_le_bytes());
    body[12..20].copy_from_slice(&index.to_le_bytes());
    body[20] = kind.byte();
    out.extend_from_slice(&length.to_le_bytes());
    let crc = crc32c::crc32c_append(home.seed(offset), &length.to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c_append(crc, &body).to_le_bytes());
    out.extend_from_slice(&body);
    out.extend_from_slice(payload);
}

/// What lies at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A sound mark.
    Mark,
    /// A sound record.
    Record(RecordHeader),
    /// A record whose payload is not what was written, or not all there.
    BadPayload(RecordHeader),
    /// A sound record header of a kind that this version does not know.
    UnknownKind(u8),
    /// Nothing that can be read: also the place of the next frame is unknown.
    Bad,
}

/// Reads the frame at `offset` of a segment. Never allocates.
pub(super) fn read_frame(segment: &[u8], home: Home, offset: usize) -> Frame {
    segment.get(offset..).map_or(Frame::Bad, |rest| parse_frame(rest, home, offset as u64))
}

/// Reads the frame that `bytes` begin with and that lies at `offset` of its segment.
pub(super) fn parse_frame(bytes: &[u8], home: Home, offset: u64) -> Frame {
    let Some(header) = bytes.get(..RECORD_HEADER_BYTES) else { return Frame::Bad };
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if word(0) == MARK_MAGIC {
        let mark = parse_mark(bytes, home.segment, Some(home.log_id), offset);
        return mark.map_or(Frame::Bad, |_| Frame::Mark);
    }
    let crc = crc32c::crc32c_append(home.seed(offset), &header[..4]);
    if word(4) != crc32c::crc32c_append(crc, &header[8..]) || word(0) as usize > LOG_RECORD_BYTES_MAX {
        return Frame::Bad;
    }
    let (Some(group), Some(index)) = (u64_at(header, 12), u64_at(header, 20)) else { return Frame::Bad };
    let Some(kind) = Kind::from_byte(header[28]) else { return Frame::UnknownKind(header[28]) };
    let record =
        RecordHeader { group: GroupId(group), index, kind, payload_bytes: word(0) as usize, payload_crc: word(8) };
    match payload(bytes, 0, &record) {
        Some(payload) if crc32c::crc32c(payload) == record.payload_crc => Frame::Record(record),
        Some(_) | None => Frame::BadPayload(record),
    }
}

/// The payload of the record at `offset`, as far as it is there at all.
pub(super) fn payload<'a>(bytes: &'a [u8], offset: usize, record: &RecordHeader) -> Option<&'a [u8]> {
    bytes.get(offset + RECORD_HEADER_BYTES..)?.get(..record.payload_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let word: [u8; 8] = bytes.get(at..at + 8)?.try_into().ok()?;
    Some(u64::from_le_bytes(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: Home = Home { log_id: 0x0102_0304_0506_0708, segment: 9 };

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn golden_bytes_of_version_1() {
        let mut bytes = Vec::new();
        Header { version: VERSION, home: HOME, previous_len: 0x1234, head_bytes: 48 }.write(&mut bytes);
        write_mark(&mut bytes, HOME, 48, 48);
        write_record(&mut bytes, HOME, 88, (GroupId(3), 17, Kind::Entry), b"offer");
        assert_eq!(bytes.len(), HEADER_BYTES + MARK_BYTES + RECORD_HEADER_BYTES + 5);
        assert_eq!(hex(&bytes), GOLDEN.concat().replace(' ', ""));
    }

    const GOLDEN: [&str; 3] = [
        "50524f464657414c 01000000 0807060504030201 0900000000000000 3412000000000000 3000000000000000 fe781d17",
        "4d41524b 31010829 0807060504030201 0900000000000000 3000000000000000 3000000000000000",
        "05000000 65324af1 8a80db06 0300000000000000 1100000000000000 01 6f66666572",
    ];

    #[test]
    fn a_frame_is_sound_only_where_it_was_written() {
        let mut bytes = vec![0; 10];
        write_record(&mut bytes, HOME, 10, (GroupId(3), 17, Kind::Entry), b"offer");
        let read = |home, offset| parse_frame(&bytes[10..], home, offset);
        assert!(matches!(read(HOME, 10), Frame::Record(header) if header.index == 17 && header.payload_bytes == 5));
        assert_eq!(read(HOME, 9), Frame::Bad, "another offset");
        assert_eq!(read(Home { segment: 8, ..HOME }, 10), Frame::Bad, "another segment");
        assert_eq!(read(Home { log_id: 1, ..HOME }, 10), Frame::Bad, "another log");
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let mut bytes = Vec::new();
        write_record(&mut bytes, HOME, 0, (GroupId(3), 17, Kind::Entry), b"offer");
        let mark_at = bytes.len();
        write_mark(&mut bytes, HOME, mark_at as u64, 0);
        for bit in 0..bytes.len() * 8 {
            let mut rotten = bytes.clone();
            rotten[bit / 8] ^= 1 << (bit % 8);
            let (record, mark) = (read_frame(&rotten, HOME, 0), read_frame(&rotten, HOME, mark_at));
            if bit / 8 < RECORD_HEADER_BYTES {
                assert_eq!(record, Frame::Bad, "bit {bit}");
            } else if bit / 8 < mark_at {
                assert!(matches!(record, Frame::BadPayload(header) if header.group == GroupId(3)), "bit {bit}");
            } else {
                assert_eq!(mark, Frame::Bad, "bit {bit}");
            }
        }
    }

    #[test]
    fn a_mark_inside_a_payload_is_not_believed() {
        let mut forged = Vec::new();
        write_mark(&mut forged, Home { log_id: 0, segment: 9 }, 48 + RECORD_HEADER_BYTES as u64, 48);
        let mut bytes = Vec::new();
        Header { version: VERSION, home: HOME, previous_len: 0, head_bytes: 48 }.write(&mut bytes);
        write_record(&mut bytes, HOME, 48, (GroupId(3), 17, Kind::Entry), &forged);
        assert_eq!(highest_mark(&bytes, 9, Some(HOME.log_id)), 0);
        let at = bytes.len() as u64;
        write_mark(&mut bytes, HOME, at, 77);
        assert_eq!(highest_mark(&bytes, 9, Some(HOME.log_id)), 77);
    }
}
