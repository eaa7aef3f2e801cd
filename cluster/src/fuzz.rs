//! What the fuzz targets of this crate's codecs have in common.

use bincode::{Decode, Encode};
use proffer_engine::codec::{decode, encode};

/// Longest beginning that is tried as a whole.
const BEGINNING_BYTES_MAX: usize = 64;

/// Whether bytes are a `T`; one that they are is written and read again, to the same bytes.
pub(crate) fn reads<T: Encode + Decode<()>>(bytes: &[u8]) -> Option<T> {
    let read: T = decode("fuzzed bytes", bytes).ok()?;
    let written = encode(&read);
    let again: T = decode("fuzzed bytes", &written).expect("what is written is read");
    assert_eq!(encode(&again), written);
    Some(read)
}

/// All beginnings of `bytes` that are a `T`, also with numbers made small: those are variants and lengths that there are.
pub(crate) fn read_beginnings<T: Encode + Decode<()>>(bytes: &[u8], mut then: impl FnMut(T)) {
    let small: Vec<u8> = bytes.iter().map(|byte| if *byte < 232 { byte % 8 } else { *byte }).collect();
    for bytes in [bytes, &small] {
        for end in 0..=bytes.len().min(BEGINNING_BYTES_MAX) {
            if let Some(read) = reads::<T>(&bytes[..end]) {
                then(read);
            }
        }
    }
}
