//! The one suite that every [`Disk`] passes. Power cuts are not part of it: no real disk can be cut in a test.

use super::disk::{Disk, DiskError, read_all};

/// Checks an adapter against the contract of [`Disk`]. `make` gives an empty disk each time.
///
/// # Panics
/// On the first breach, naming it.
pub fn disk_conformance<D: Disk>(make: impl Fn() -> D) {
    bytes_are_appended_and_read_back(&make());
    reads_end_at_the_end(&make());
    truncation_cuts_and_appends_go_on_from_there(&make());
    renames_replace(&make());
    removed_files_are_gone(&make());
    mistakes_are_told_apart(&make());
    names_are_listed_in_order(&make());
    files_are_used_from_several_threads(&make());
}

const WORKS: &str = "the call succeeds";

fn contents(disk: &dyn Disk, name: &str) -> Vec<u8> {
    read_all(disk, name, 1 << 24).expect(WORKS)
}

fn bytes_are_appended_and_read_back(disk: &dyn Disk) {
    disk.create("a").expect(WORKS);
    disk.sync_dir().expect(WORKS);
    assert_eq!(disk.len("a"), Ok(0), "a new file is empty");
    disk.append("a", b"hello ").expect(WORKS);
    disk.append("a", b"").expect(WORKS);
    disk.append("a", b"world").expect(WORKS);
    assert_eq!(contents(disk, "a"), b"hello world", "unsynced bytes can be read");
    disk.sync_data("a").expect(WORKS);
    assert_eq!(disk.len("a"), Ok(11));
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
    disk.create("large").expect(WORKS);
    disk.append("large", &large).expect(WORKS);
    assert_eq!(contents(disk, "large"), large, "one append of any size is whole");
}

fn reads_end_at_the_end(disk: &dyn Disk) {
    disk.create("a").expect(WORKS);
    disk.append("a", b"0123456789").expect(WORKS);
    let mut buffer = [0; 4];
    assert_eq!(disk.read_at("a", 3, &mut buffer), Ok(4));
    assert_eq!(&buffer, b"3456");
    assert_eq!(disk.read_at("a", 8, &mut buffer), Ok(2), "short only at the end");
    assert_eq!(&buffer[..2], b"89");
    assert_eq!(disk.read_at("a", 10, &mut buffer), Ok(0));
    assert_eq!(disk.read_at("a", 1 << 40, &mut buffer), Ok(0));
}

fn truncation_cuts_and_appends_go_on_from_there(disk: &dyn Disk) {
    disk.create("a").expect(WORKS);
    disk.append("a", b"0123456789").expect(WORKS);
    disk.truncate("a", 4).expect(WORKS);
    disk.append("a", b"xy").expect(WORKS);
    assert_eq!(contents(disk, "a"), b"0123xy");
    disk.truncate("a", 7).expect_err("a file is never lengthened by truncating");
    assert_eq!(contents(disk, "a"), b"0123xy");
    disk.truncate("a", 0).expect(WORKS);
    assert_eq!(disk.len("a"), Ok(0));
}

fn renames_replace(disk: &dyn Disk) {
    for name in ["old", "new"] {
        disk.create(name).expect(WORKS);
        disk.append(name, name.as_bytes()).expect(WORKS);
    }
    disk.rename("new", "old").expect(WORKS);
    disk.sync_dir().expect(WORKS);
    assert_eq!(disk.list().expect(WORKS), ["old"]);
    assert_eq!(contents(disk, "old"), b"new");
    disk.append("old", b"er").expect(WORKS);
    assert_eq!(contents(disk, "old"), b"newer", "the renamed file is the one that is written");
}

fn removed_files_are_gone(disk: &dyn Disk) {
    disk.create("a").expect(WORKS);
    disk.append("a", b"first").expect(WORKS);
    disk.remove("a").expect(WORKS);
    disk.sync_dir().expect(WORKS);
    assert_eq!(disk.list().expect(WORKS), [""; 0]);
    disk.create("a").expect(WORKS);
    assert_eq!(disk.len("a"), Ok(0), "a name used again starts empty");
}

fn mistakes_are_told_apart(disk: &dyn Disk) {
    let missing = Some(DiskError::NotFound { name: "b".to_owned() });
    assert_eq!(disk.append("b", b"x").err(), missing);
    assert_eq!(disk.len("b").err(), missing);
    assert_eq!(disk.read_at("b", 0, &mut [0]).err(), missing);
    assert_eq!(disk.truncate("b", 0).err(), missing);
    assert_eq!(disk.sync_data("b").err(), missing);
    assert_eq!(disk.rename("b", "c").err(), missing);
    assert_eq!(disk.remove("b").err(), missing);
    disk.create("a").expect(WORKS);
    assert_eq!(disk.create("a"), Err(DiskError::Exists { name: "a".to_owned() }));
    for name in ["", "..", "a/b", ".lock", "A"] {
        assert_eq!(disk.create(name), Err(DiskError::Name { name: name.to_owned() }), "{name:?}");
        assert_eq!(disk.rename("a", name), Err(DiskError::Name { name: name.to_owned() }), "{name:?}");
    }
    assert_eq!(disk.list().expect(WORKS), ["a"]);
}

fn names_are_listed_in_order(disk: &dyn Disk) {
    for name in ["wal-2", "snap-1", "wal-10", "a.tmp"] {
        disk.create(name).expect(WORKS);
    }
    assert_eq!(disk.list().expect(WORKS), ["a.tmp", "snap-1", "wal-10", "wal-2"]);
}

fn files_are_used_from_several_threads(disk: &dyn Disk) {
    std::thread::scope(|scope| {
        for name in ["a", "b", "c"] {
            scope.spawn(move || {
                disk.create(name).expect(WORKS);
                for _ in 0..50 {
                    disk.append(name, name.as_bytes()).expect(WORKS);
                }
            });
        }
    });
    for name in ["a", "b", "c"] {
        assert_eq!(contents(disk, name), name.repeat(50).into_bytes());
    }
}
