//! Ways to other nodes: ordered bytes, nothing more.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

use super::propose::Pending;

/// Bytes both ways. See [`Network`].
pub trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// One connection.
pub type Stream = Box<dyn Bytes>;

/// What a node reaches other nodes through, and is reached.
///
/// Contract:
/// * Bytes arrive in the order they were written, each once, or not at all: there are no gaps. A connection may end at any
///   moment, with an error or as if the other side had closed it, and what was written and not yet read is then lost.
/// * It may also fall silent: nothing arrives, nothing fails. Whoever needs to know sets a time.
/// * What is written waits in a buffer of bounded size; once that is full, writing waits for the reader. Bytes are on their way
///   after a flush.
/// * `shutdown` ends one direction: the other side reads what was written, then the end. Dropping a stream ends both.
/// * Both calls may be dropped before they are done: no connection that was accepted is lost by it.
///
/// Who the other side is, is the business of the adapter (certificates) and of what is said first ([`peers`](crate::peers)).
pub trait Network: Send + Sync + 'static {
    /// Connects to `address`, which is what the adapter understands: `host:port` for real ones. May take for ever.
    ///
    /// # Errors
    /// Nobody listens there, or there is no way.
    fn dial<'a>(&'a self, address: &'a str) -> Pending<'a, io::Result<Stream>>;

    /// The next connection that another node made, and its address in words, for logs. At most one caller waits at a time.
    ///
    /// # Errors
    /// One connection failed, or resources ran short: the caller waits a little and goes on.
    fn accept(&self) -> Pending<'_, io::Result<(Stream, String)>>;
}
