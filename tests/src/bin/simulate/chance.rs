//! Takes chance out of the process itself: the standard library asks `getrandom` for the keys of its hash maps, and tokio takes from
//! those which of several waiters is woken first. The library refers to it weakly, so that it can be replaced as it is here. One
//! process per seed follows: the second run in a process would find other keys.
#![expect(unsafe_code, reason = "a symbol of the C library is replaced, in this binary only")]

use std::ffi::{c_uint, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

static STATE: AtomicU64 = AtomicU64::new(0x5EED);

/// As the C library's, and the same at every start.
///
/// # Safety
/// `buffer` must be valid for writes of `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, _flags: c_uint) -> isize {
    // SAFETY: the caller says that so many bytes may be written there.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    for byte in bytes {
        let word = STATE.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        *byte = (word ^ (word >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9).to_le_bytes()[7];
    }
    isize::try_from(length).unwrap_or(isize::MAX)
}
