//! Reads one segment's bytes and tells a torn end from corruption. Pure: it looks at bytes and allocates nothing but the
//! list of what it found.

use super::format::{self, Frame, HEADER_BYTES, Header, MARK_BYTES, RECORD_HEADER_BYTES, RecordHeader, VERSION};

/// What a segment holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scan {
    /// `None` if the head was never written whole; the segment was then never in use and holds nothing.
    pub(super) header: Option<Header>,
    /// The records, in the order in which they were written.
    pub(super) records: Vec<Record>,
    /// Where the sound part ends: what follows is a torn end (or corruption whose extent is not known).
    pub(super) end: u64,
    /// Bad bytes below the highest mark whose extent is not known; nothing after them was read.
    pub(super) unreadable: Option<Unreadable>,
}

/// Bad bytes that were synced once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    pub(super) offset: u64,
    pub(super) what: &'static str,
}

/// A record and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) offset: u64,
    pub(super) header: RecordHeader,
    /// Whether the payload is what was written. A rotten one is listed only below the highest mark.
    pub(super) sound: bool,
}

/// The segment is from a later version of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    Version(u32),
    Kind(u8),
}

/// Scans a segment. `sealed`: a later segment exists, so all of this one was synced before that one was begun.
pub(super) fn scan(bytes: &[u8], segment: u64, sealed: bool) -> Result<Scan, Unknown> {
    let mut found = Scan { header: None, records: Vec::new(), end: 0, unreadable: None };
    let Some(header) = Header::read(bytes, segment) else {
        if sealed || format::highest_mark(bytes, segment, None) > 0 {
            found.unreadable = Some(Unreadable { offset: 0, what: "the segment's header is not what was written" });
        }
        return Ok(found);
    };
    if header.version != VERSION {
        return Err(Unknown::Version(header.version));
    }
    found.header = Some(header);
    let home = header.home;
    // The search for the highest mark looks at every byte, so it waits until something is wrong.
    let mut highest = None;
    let mut was_synced = |offset: usize| {
        sealed
            || *highest.get_or_insert_with(|| format::highest_mark(bytes, segment, Some(home.log_id))) > offset as u64
    };
    let mut at = HEADER_BYTES;
    while at < bytes.len() {
        let frame = format::read_frame(bytes, home, at);
        let next = match frame {
            Frame::Mark => at + MARK_BYTES,
            Frame::Record(header) => {
                found.records.push(Record { offset: at as u64, header, sound: true });
                at + RECORD_HEADER_BYTES + header.payload_bytes
            }
            Frame::BadPayload(header) if was_synced(at) => {
                let next = at + RECORD_HEADER_BYTES + header.payload_bytes;
                if next > bytes.len() {
                    let what = "the segment is shorter than what was written";
                    found.unreadable = Some(Unreadable { offset: at as u64, what });
                    break;
                }
                found.records.push(Record { offset: at as u64, header, sound: false });
                next
            }
            Frame::UnknownKind(kind) => return Err(Unknown::Kind(kind)),
            Frame::Bad if was_synced(at) => {
                found.unreadable = Some(Unreadable { offset: at as u64, what: "a frame is not what was written" });
                break;
            }
            Frame::BadPayload(_) | Frame::Bad => break,
        };
        at = next;
    }
    found.end = at.min(bytes.len()) as u64;
    if found.end < header.head_bytes && found.unreadable.is_none() {
        found = Scan { header: None, records: Vec::new(), end: 0, unreadable: None };
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::GroupId;
    use super::super::format::{Home, Kind, write_mark, write_record};
    use super::*;

    const HOME: Home = Home { log_id: 77, segment: 3 };

    /// A segment with two batches of two records; returns the offsets of its frames too.
    fn segment() -> (Vec<u8>, Vec<usize>) {
        let mut bytes = Vec::new();
        Header { version: VERSION, home: HOME, previous_len: 0, head_bytes: HEADER_BYTES as u64 }.write(&mut bytes);
        let mut frames = Vec::new();
        for batch in 0..2_u64 {
            let synced = bytes.len() as u64;
            frames.push(bytes.len());
            write_mark(&mut bytes, HOME, synced, synced);
            for record in 0..2 {
                frames.push(bytes.len());
                let offset = bytes.len() as u64;
                write_record(&mut bytes, HOME, offset, (GroupId(record), batch, Kind::Entry), b"payload");
            }
        }
        (bytes, frames)
    }

    fn indices(scan: &Scan) -> Vec<(u64, u64, bool)> {
        scan.records.iter().map(|record| (record.header.group.0, record.header.index, record.sound)).collect()
    }

    #[test]
    fn bad_bytes_after_the_mark_end_the_log_even_if_good_ones_follow() {
        let (mut bytes, frames) = segment();
        bytes[frames[4] + 3] ^= 1;
        let scan = scan(&bytes, 3, false).unwrap();
        assert_eq!(indices(&scan), [(0, 0, true), (1, 0, true)]);
        assert_eq!((scan.end, scan.unreadable), (frames[4] as u64, None));
    }

    #[test]
    fn a_rotten_payload_below_the_mark_is_corruption_of_its_group() {
        let (mut bytes, frames) = segment();
        bytes[frames[1] + RECORD_HEADER_BYTES] ^= 1;
        let scan = scan(&bytes, 3, false).unwrap();
        assert_eq!(indices(&scan), [(0, 0, false), (1, 0, true), (0, 1, true), (1, 1, true)]);
        assert_eq!(scan.unreadable, None);
    }

    #[test]
    fn a_rotten_header_below_the_mark_is_corruption_of_nobody_knows_whom() {
        let (mut bytes, frames) = segment();
        bytes[frames[1] + 14] ^= 1;
        let scan = scan(&bytes, 3, false).unwrap();
        assert_eq!(scan.unreadable.map(|bad| bad.offset), Some(frames[1] as u64));
        let (mut bytes, _) = segment();
        bytes[9] ^= 1;
        let scan = super::scan(&bytes, 3, false).unwrap();
        assert_eq!(scan.unreadable.map(|bad| bad.offset), Some(0), "the segment's own header");
    }

    #[test]
    fn a_sealed_segment_has_no_torn_end() {
        let (mut bytes, frames) = segment();
        bytes.pop();
        assert_eq!(scan(&bytes, 3, false).unwrap().unreadable, None);
        let sealed = scan(&bytes, 3, true).unwrap();
        assert_eq!(sealed.unreadable.map(|bad| bad.offset), Some(frames[5] as u64));
    }

    #[test]
    fn a_later_version_is_said_to_be_one() {
        let mut bytes = Vec::new();
        Header { version: 2, home: HOME, previous_len: 0, head_bytes: 48 }.write(&mut bytes);
        assert_eq!(scan(&bytes, 3, false), Err(Unknown::Version(2)));
    }

    #[test]
    fn a_segment_cut_anywhere_gives_a_prefix() {
        let (bytes, frames) = segment();
        let whole = scan(&bytes, 3, false).unwrap();
        assert_eq!(whole.end, bytes.len() as u64);
        for len in 0..bytes.len() {
            let cut = scan(&bytes[..len], 3, false).unwrap();
            assert_eq!(cut.records[..], whole.records[..cut.records.len()], "cut to {len}");
            assert!(cut.unreadable.is_none() && cut.end <= len as u64);
            assert!(
                cut.end == 0 || cut.end == bytes.len() as u64 || frames.contains(&(cut.end as usize)) || cut.end == 40
            );
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), sealed: bool) {
            let _ = scan(&bytes, 3, sealed);
        }

        #[test]
        fn arbitrary_bytes_after_a_sound_start_never_panic_and_change_nothing_before(
            tail in prop::collection::vec(any::<u8>(), 1..300),
        ) {
            let (bytes, _) = segment();
            let whole = scan(&bytes, 3, false).unwrap();
            let longer = scan(&[bytes.clone(), tail].concat(), 3, false).unwrap();
            prop_assert_eq!(longer.records, whole.records);
            prop_assert_eq!(longer.end, bytes.len() as u64);
        }

        #[test]
        fn overwritten_bytes_never_panic_and_are_never_taken_for_sound(
            at in 0..400_usize, with in prop::collection::vec(any::<u8>(), 1..50), sealed: bool,
        ) {
            let (bytes, _) = segment();
            let whole = scan(&bytes, 3, false).unwrap();
            let mut rotten = bytes.clone();
            for (offset, byte) in with.into_iter().enumerate() {
                if let Some(place) = rotten.get_mut(at + offset) {
                    *place = byte;
                }
            }
            if let Ok(scan) = scan(&rotten, 3, sealed) {
                for record in scan.records.iter().filter(|record| record.sound) {
                    prop_assert!(whole.records.contains(record));
                }
                let complete = scan.records == whole.records && scan.unreadable.is_none();
                prop_assert!(!sealed || complete || scan.unreadable.is_some() || scan.records.iter().any(|r| !r.sound));
            }
        }
    }
}
