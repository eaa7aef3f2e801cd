//! The one place that names the binary format of log entries, snapshots and peer messages (bincode 2, docs/adr/0003).

use std::cell::Cell;

use bincode::Decode;
use bincode::config::{Configuration, Fixint, Limit, LittleEndian, Varint};
use bincode::enc::write::SizeWriter;
use bincode::enc::{Encode, EncoderImpl};

use crate::limits::DECODED_LEVELS_MAX;

/// Largest single encoded thing: one peer frame (architecture.md §2). [`decode`] counts what the value takes in memory
/// ([`claims`], and room for the items of lists before they are read), so a smaller encoding can be too large to read.
pub const MAX_ENCODED_BYTES: usize = 16 * 1024 * 1024;

const CONFIG: Configuration<LittleEndian, Varint, Limit<MAX_ENCODED_BYTES>> =
    bincode::config::standard().with_limit::<MAX_ENCODED_BYTES>();

/// Numbers, lengths and variants at full width: what [`decode`] counts them for.
const FULL_WIDTH: Configuration<LittleEndian, Fixint> = bincode::config::standard().with_fixed_int_encoding();

/// Items of a list take up to this many times what they claim once they are read (a `Value::Null` 24 bytes instead of 4).
const ITEM_GROWTH_MAX: usize = 8;

/// Why bytes could not be read as the type asked for.
#[derive(Debug, thiserror::Error)]
#[error("cannot decode {what}: {reason}")]
pub struct DecodeError {
    what: &'static str,
    reason: String,
}

impl DecodeError {
    /// Bytes that decode, but into parts that contradict each other.
    pub fn new(what: &'static str, reason: String) -> Self {
        DecodeError { what, reason }
    }
}

/// Encodes `value`. Infallible for our types: every one of them can be written.
pub fn encode<T: Encode>(value: &T) -> Vec<u8> {
    bincode::encode_to_vec(value, bincode::config::standard()).expect("all stored types are encodable")
}

/// Encodes a piece of stored state, which has to be readable on its own: nothing else holds what it says.
///
/// # Panics
/// If [`decode`] would refuse it. Whoever stores pieces keeps each far below the limit; should that fail, no snapshot is
/// better than one that ends the node at its next start, for as long as there is none the log is kept.
pub fn encode_stored<T: Encode + Decode<()>>(what: &'static str, value: &T) -> Vec<u8> {
    let bytes = encode(value);
    let claims = claims(value);
    assert!(claims <= MAX_ENCODED_BYTES, "{what} of {claims} bytes could not be read again");
    if claims > MAX_ENCODED_BYTES / ITEM_GROWTH_MAX
        && let Err(error) = decode::<T>(what, &bytes)
    {
        panic!("{error} again");
    }
    bytes
}

/// What [`decode`] counts a value for, once it is read. O(size), without memory.
pub fn claims<T: Encode>(value: &T) -> usize {
    let mut encoder = EncoderImpl::new(SizeWriter::default(), FULL_WIDTH);
    value.encode(&mut encoder).expect("all stored types are encodable");
    encoder.into_writer().bytes_written
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

thread_local! {
    static LEVELS: Cell<usize> = const { Cell::new(0) };
}

/// One level of what may hold its like, while it is read: reading takes the stack, and bytes can open a level with very few of them.
/// Decoders cannot be told how deep they are, so the thread keeps count; where nothing is being read it is at zero.
pub(crate) struct Level(());

impl Level {
    /// Goes one level deeper, until the result is dropped.
    ///
    /// # Errors
    /// Past [`DECODED_LEVELS_MAX`].
    pub(crate) fn enter() -> Result<Level, bincode::error::DecodeError> {
        let levels = LEVELS.get();
        if levels == DECODED_LEVELS_MAX {
            return Err(bincode::error::DecodeError::Other("nested too deep"));
        }
        LEVELS.set(levels + 1);
        Ok(Level(()))
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        LEVELS.set(LEVELS.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::branch::{CallFlow, Conditional};
    use crate::model::filter::{Combinator, FilterGroup, FilterTerm};
    use crate::model::flow::{FlowNode, Node};
    use crate::value::Value;

    #[test]
    fn claims_are_what_reading_counts() {
        // A list of one-byte numbers is counted item by item, so the largest readable one tells what is counted.
        let length = size_of::<u64>();
        let largest = vec![7_u8; MAX_ENCODED_BYTES - length];
        assert_eq!(claims(&largest), MAX_ENCODED_BYTES);
        assert!(decode::<Vec<u8>>("bytes", &encode(&largest)).is_ok());
        let larger = vec![7_u8; largest.len() + 1];
        assert!(decode::<Vec<u8>>("bytes", &encode(&larger)).is_err());
        let numbers = vec![(1_u64, 2_u32, Some(3_u16)); 5];
        assert_eq!(claims(&numbers), length + 5 * (8 + 4 + 1 + 2));
    }

    #[test]
    fn values_nested_deeper_than_any_that_is_written_are_refused_before_they_take_the_stack() {
        let nested = |depth| (0..depth).fold(Value::Null, |inner, _| Value::list([inner]));
        let deepest = nested(DECODED_LEVELS_MAX);
        assert_eq!(decode::<Value>("value", &encode(&deepest)).unwrap(), deepest);
        assert!(decode::<Value>("value", &encode(&nested(DECODED_LEVELS_MAX + 1))).is_err());
        let list_of_one: &[u8] = &[4, 1];
        let map_of_one: &[u8] = &[5, 1, 0];
        for open in [list_of_one, map_of_one] {
            assert!(decode::<Value>("value", &open.repeat(1_000_000)).is_err());
        }
    }

    #[test]
    fn filters_nested_deeper_than_any_that_is_written_are_refused_before_they_take_the_stack() {
        let group = |conditions| FilterGroup { combinator: Combinator::Or, conditions };
        let nested = |depth| (0..depth).fold(group(Vec::new()), |inner, _| group(vec![FilterTerm::Group(inner)]));
        let deepest = nested(DECODED_LEVELS_MAX);
        assert_eq!(decode::<FilterGroup>("filter", &encode(&deepest)).unwrap(), deepest);
        assert!(decode::<FilterGroup>("filter", &encode(&nested(DECODED_LEVELS_MAX + 1))).is_err());
        let group_of_one: &[u8] = &[1, 1, 1];
        assert!(decode::<FilterTerm>("filter", &group_of_one.repeat(1_000_000)).is_err());
    }

    #[test]
    fn flows_nested_deeper_than_any_that_is_written_are_refused_before_they_take_the_stack() {
        let node = |node| FlowNode { id: "n".to_owned(), phase: 1, position: 0, node };
        let call = node(Node::CallFlow(CallFlow { flow_key: "other".to_owned() }));
        let conditional = |inner| Node::Conditional(Conditional { branches: Vec::new(), otherwise: vec![inner] });
        let nested = |depth| (1..depth).fold(call.clone(), |inner, _| node(conditional(inner)));
        let deepest = nested(DECODED_LEVELS_MAX);
        assert_eq!(decode::<FlowNode>("flow", &encode(&deepest)).unwrap(), deepest);
        assert!(decode::<FlowNode>("flow", &encode(&nested(DECODED_LEVELS_MAX + 1))).is_err());
        let node_with_one: &[u8] = &[0, 1, 0, 11, 0, 1];
        let shallow = [node_with_one, &encode(&call)].concat();
        assert_eq!(decode::<FlowNode>("flow", &shallow).unwrap().node, conditional(call));
        assert!(decode::<FlowNode>("flow", &node_with_one.repeat(1_000_000)).is_err());
    }

    #[test]
    #[should_panic(expected = "again")]
    fn what_could_not_be_read_again_is_not_stored() {
        // 1 MB encoded, 4 MB read, and 24 MB of room before that.
        let nulls = Value::list(vec![Value::Null; 1_000_000]);
        encode_stored("nulls", &nulls);
    }

    #[test]
    fn what_can_be_read_again_is_stored_as_it_is() {
        let nulls = Value::list(vec![Value::Null; 500_000]);
        assert_eq!(encode_stored("nulls", &nulls), encode(&nulls));
    }
}
