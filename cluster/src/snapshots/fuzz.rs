//! Any bytes as a snapshot file, and files with faults.

use std::sync::Arc;

use proffer_fuzz::Choices;

use super::{Snapshots, name};
use crate::log::GroupId;
use crate::ports::disk::{Disk, read_all};
use crate::ports::fatal::RecordedFatal;
use crate::ports::memory_disk::MemoryDisk;

proffer_fuzz::targets!(file);

const G: GroupId = GroupId(3);

/// A file with faults, or one of nobody's making, beside an older one: what is loaded is what was written, then or before.
fn file(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let disk = Arc::new(MemoryDisk::new());
    let open =
        || Snapshots::open(Arc::<MemoryDisk>::clone(&disk), Arc::new(RecordedFatal::default())).expect("it is there");
    let old = vec![vec![1; 10]];
    open().write(G, 10, b"old", old.clone()).expect("there is room");
    let new: Vec<Vec<u8>> = (0..choices.below(4)).map(|_| vec![choices.byte(); 1 + choices.below(40)]).collect();
    open().write(G, 20, b"new", new.clone()).expect("there is room");
    let newest = name(G, 20);
    let mut stored = read_all(&*disk, &newest, 1 << 20).expect("it is there");
    if choices.below(8) == 0 {
        stored = choices.clone().rest().to_vec();
    } else {
        choices.damage(&mut stored);
    }
    disk.remove(&newest).expect("it is there");
    disk.create(&newest).expect("it is gone");
    disk.append(&newest, &stored).expect("there is room");
    let loaded = open().load(G).expect("the disk is well");
    let snapshot = loaded.snapshot.expect("the older one is sound");
    let index = snapshot.info.last_index;
    let chunks: Vec<Vec<u8>> = snapshot.chunks.collect::<Result<_, _>>().expect("it was checked");
    assert!((index, &chunks) == (10, &old) || (index, &chunks) == (20, &new), "{index}: {chunks:?}");
    assert_eq!(loaded.rejected.len(), usize::from(index == 10));
}
