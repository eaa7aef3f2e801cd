//! The one place that names the binary format of log entries, snapshots and peer messages (bincode 2, docs/adr/0003).

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::{Decode, Encode};

/// Largest single encoded thing: one peer frame (architecture.md §2).
pub const MAX_ENCODED_BYTES: usize = 16 * 1024 * 1024;

const CONFIG: Configuration<LittleEndian, Varint, Limit<MAX_ENCODED_BYTES>> =
    bincode::config::standard().with_limit::<MAX_ENCODED_BYTES>();

/// Why bytes could not be read as the type asked for.
#[derive(Debug, thiserror::Error)]
#[error("cannot decode {what}: {reason}")]
pub struct DecodeError {
    what: &'static str,
    reason: String,
}

impl DecodeError {
    /// Bytes that decode, but into parts that contradict each other.
    pub(crate) fn new(what: &'static str, reason: String) -> Self {
        DecodeError { what, reason }
    }
}

/// Encodes `value`. Infallible for our types: every one of them can be written.
pub fn encode<T: Encode>(value: &T) -> Vec<u8> {
    bincode::encode_to_vec(value, bincode::config::standard()).expect("all stored types are encodable")
}

/// Decodes a whole `T` from `bytes`; bytes left over are an error, as is anything over [`MAX_ENCODED_BYTES`].
///
/// # Errors
/// Names `what` was being read. Never panics on corrupt bytes.
pub fn decode<T: Decode<()>>(what: &'static str, bytes: &[u8]) -> Result<T, DecodeError> {
    let (value, used) = bincode::decode_from_slice::<T, _>(bytes, CONFIG)
        .map_err(|error| DecodeError { what, reason: error.to_string() })?;
    if used == bytes.len() {
        Ok(value)
    } else {
        Err(DecodeError { what, reason: format!("{} bytes left over", bytes.len() - used) })
    }
}

/// Hash of a value's encoding: replicas at the same position must agree on it.
pub fn state_hash<T: Encode>(value: &T) -> u64 {
    xxhash_rust::xxh3::xxh3_64(&encode(value))
}
