//! From the files to the index: what a start finds, what it repairs, and what it refuses.

use std::collections::BTreeMap;

use super::format::{self, Frame, Home, Kind, RECORD_HEADER_BYTES};
use super::index::{Checkpoint, Index, Place};
use super::scan::{Record, Scan, Unknown, Unreadable, scan};
use super::{Corruption, DroppedEnd, LogError, OnCorruption, OpenError};
use crate::limits::LOG_SEGMENT_BYTES_MAX;
use crate::ports::disk::{Disk, read_all};

/// What lies on the disk.
pub(super) struct Recovered {
    pub(super) index: Index,
    /// Length of each segment.
    pub(super) segments: BTreeMap<u64, u64>,
    /// `None` on an empty disk.
    pub(super) log_id: Option<u64>,
    /// How long the last segment's head is.
    pub(super) head_bytes: u64,
    pub(super) corruptions: Vec<Corruption>,
    pub(super) dropped: Option<DroppedEnd>,
}

pub(super) fn segment_name(segment: u64) -> String {
    format!("wal-{segment:020}.log")
}

fn segment_number(name: &str) -> Option<u64> {
    let number = name.strip_prefix("wal-")?.strip_suffix(".log")?.parse().ok()?;
    (segment_name(number) == name).then_some(number)
}

/// Reads all segments; cuts a torn end off and makes what it then stands on durable. Changes nothing if it finds corruption
/// that it may not accept.
pub(super) fn recover(disk: &dyn Disk, on_corruption: OnCorruption) -> Result<Recovered, OpenError> {
    let numbers: Vec<u64> = disk.list()?.iter().filter_map(|name| segment_number(name)).collect();
    let mut found = Recovered {
        index: Index::default(),
        segments: BTreeMap::new(),
        log_id: None,
        head_bytes: 0,
        corruptions: Vec::new(),
        dropped: None,
    };
    let mut unfinished = None;
    for (position, &segment) in numbers.iter().enumerate() {
        let sealed = position + 1 < numbers.len();
        let bytes = read_all(disk, &segment_name(segment), LOG_SEGMENT_BYTES_MAX)?;
        let scan = scan(&bytes, segment, sealed).map_err(|unknown| match unknown {
            Unknown::Version(version) => OpenError::Version { segment, version },
            Unknown::Kind(kind) => OpenError::Kind { segment, kind },
        })?;
        if let Some(Unreadable { offset, what }) = scan.unreadable {
            found.everyone(segment, offset, what);
        }
        found.check_sequence(segment, &scan);
        if scan.header.is_none() && scan.unreadable.is_none() {
            // A segment that was being begun. Alone it can only be the first: older ones go after a newer one's mark.
            if position == 0 && segment != 1 {
                found.everyone(segment, 0, "the only segment has no header");
            }
            unfinished = Some(segment);
        } else {
            found.replay(segment, &bytes, &scan);
            found.segments.insert(segment, scan.end);
            if scan.end < bytes.len() as u64 {
                found.dropped = Some(DroppedEnd { segment, offset: scan.end, bytes: bytes.len() as u64 - scan.end });
            }
        }
        if found.corruptions.iter().any(|corruption| corruption.group.is_none()) {
            break;
        }
    }
    found.corruptions.extend(found.index.corruptions());
    let acceptable = match on_corruption {
        OnCorruption::Refuse => found.corruptions.is_empty(),
        OnCorruption::Isolate => found.corruptions.iter().all(|corruption| corruption.group.is_some()),
    };
    if !acceptable {
        return Err(OpenError::Corrupt(found.corruptions));
    }
    found.repair(disk, unfinished)?;
    Ok(found)
}

impl Recovered {
    /// Notes a corruption whose groups cannot be told.
    fn everyone(&mut self, segment: u64, offset: u64, what: &str) {
        self.corruptions.push(Corruption { segment, offset, group: None, what: what.to_owned() });
    }

    /// Each segment follows the one before it, whole, and is of the same log.
    fn check_sequence(&mut self, segment: u64, scan: &Scan) {
        let Some(header) = scan.header else { return };
        if self.log_id.is_some_and(|id| id != header.home.log_id) {
            self.everyone(segment, 0, "the segment belongs to another log");
        }
        self.log_id = Some(header.home.log_id);
        self.head_bytes = header.head_bytes;
        if let Some((&previous, &len)) = self.segments.last_key_value() {
            if previous + 1 != segment {
                self.everyone(segment, 0, &format!("the segments after {previous} are missing"));
            } else if len != header.previous_len {
                let what = format!("it is {len} bytes long, the next segment says {}", header.previous_len);
                self.everyone(previous, len, &what);
            }
        }
    }

    fn replay(&mut self, segment: u64, bytes: &[u8], scan: &Scan) {
        for record in &scan.records {
            if let Err(reason) = self.replay_record(segment, bytes, record) {
                // Sound records that contradict each other: no byte is bad, and yet one of them is not ours.
                let group = Some(record.header.group);
                let corruption = Corruption { segment, offset: record.offset, group, what: reason.to_string() };
                self.index.note_rotten_checkpoint(record.header.group, corruption);
            }
        }
    }

    fn replay_record(&mut self, segment: u64, bytes: &[u8], record: &Record) -> Result<(), LogError> {
        let Record { offset, header, sound } = *record;
        let (group, index) = (header.group, header.index);
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        let payload = format::payload(bytes, at, &header).unwrap_or_default();
        let frame_bytes = u32::try_from(RECORD_HEADER_BYTES + header.payload_bytes).unwrap_or(u32::MAX);
        let place = Place { segment, offset, frame_bytes };
        let rot = |what: String| Corruption { segment, offset, group: Some(group), what };
        match header.kind {
            Kind::Entry if sound => self.index.append(group, index, place)?,
            Kind::Entry => {
                let rot = rot(format!("entry {index} is not what was written"));
                self.index.note_rotten_entry(group, index, place, rot)?;
            }
            Kind::State if sound => self.index.set_state(group, payload.to_vec()),
            Kind::State => self.index.note_rotten_state(group, rot("the state is not what was written".to_owned())),
            Kind::Truncate => self.index.truncate(group, index)?,
            Kind::Purge => self.index.purge(group, index),
            Kind::Destroy => self.index.destroy(group),
            Kind::Checkpoint if sound => match Checkpoint::read(payload) {
                Ok(checkpoint) => {
                    if !self.index.check_in(group, index, checkpoint) {
                        let what = "the segments before tell otherwise than this checkpoint".to_owned();
                        self.index.note_rotten_checkpoint(group, rot(what));
                    }
                }
                Err(error) => self.index.note_rotten_checkpoint(group, rot(error.to_string())),
            },
            Kind::Checkpoint => {
                self.index.note_rotten_checkpoint(group, rot("a checkpoint is not what was written".to_owned()));
            }
        }
        Ok(())
    }

    /// Cuts the torn end, removes the unfinished segment, and syncs: what was read may have been written and never synced.
    fn repair(&mut self, disk: &dyn Disk, unfinished: Option<u64>) -> Result<(), OpenError> {
        if let Some(dropped) = &self.dropped {
            disk.truncate(&segment_name(dropped.segment), dropped.offset)?;
        }
        if let Some((&last, _)) = self.segments.last_key_value() {
            disk.sync_data(&segment_name(last))?;
        }
        if let Some(segment) = unfinished {
            disk.remove(&segment_name(segment))?;
        }
        disk.sync_dir()?;
        Ok(())
    }
}

/// Reads one entry's payload back, checking that it is still what was written.
pub(super) fn read_entry(
    disk: &dyn Disk,
    log_id: u64,
    place: Place,
    expected: (super::GroupId, u64),
) -> Result<Vec<u8>, LogError> {
    let name = segment_name(place.segment);
    let mut frame = vec![0; place.frame_bytes as usize];
    let read = disk.read_at(&name, place.offset, &mut frame).map_err(LogError::Read)?;
    let home = Home { log_id, segment: place.segment };
    if let Frame::Record(header) = format::parse_frame(&frame[..read], home, place.offset)
        && (header.group, header.index) == expected
    {
        return Ok(frame.split_off(RECORD_HEADER_BYTES));
    }
    let what = format!("entry {} is not what was written", expected.1);
    let group = Some(expected.0);
    Err(LogError::Corrupt(Corruption { segment: place.segment, offset: place.offset, group, what }))
}
