//! Frames in and out of a stream. Whatever takes too long, is too long or makes no sense ends the connection.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, ReadHalf, WriteHalf};
use tokio::time::timeout;

use super::wire::LENGTH_BYTES;
use crate::limits::PEER_STEP_BYTES;
use crate::ports::network::Stream;

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    /// The other side closed it.
    #[error("the other side closed the connection")]
    Closed,
    /// It broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    /// Nothing was heard or could be said for too long.
    #[error("nothing was heard for {0:?}")]
    Silent(Duration),
    /// A frame that no node of ours sends.
    #[error("broken protocol: {0}")]
    Breach(String),
    /// One of both does not want it.
    #[error("refused: {0}")]
    Refused(String),
    /// Another connection took its place, or the peer moved.
    #[error("replaced")]
    Replaced,
}

/// Reads frames.
pub(super) struct FrameReader {
    stream: BufReader<ReadHalf<Stream>>,
    silence: Duration,
}

impl FrameReader {
    pub(super) fn new(stream: ReadHalf<Stream>, silence: Duration) -> Self {
        FrameReader { stream: BufReader::new(stream), silence }
    }

    /// What follows a frame's length, which is at most `max`. The buffer grows with what arrives.
    pub(super) async fn next(&mut self, max: usize) -> Result<Vec<u8>, Ended> {
        let mut length = [0; LENGTH_BYTES];
        let mut filled = 0;
        while filled < LENGTH_BYTES {
            filled += self.read(&mut length[filled..]).await?;
        }
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if length > max {
            return Err(Ended::Breach(format!("a frame of {length} bytes where {max} are allowed")));
        }
        let mut frame = Vec::with_capacity(length.min(PEER_STEP_BYTES));
        while frame.len() < length {
            let step = (length - frame.len()).min(PEER_STEP_BYTES);
            frame.reserve(step);
            let limit = u64::try_from(step).unwrap_or(u64::MAX);
            let mut part = (&mut self.stream).take(limit);
            let reading = timeout(self.silence, part.read_buf(&mut frame)).await;
            if reading.map_err(|_| Ended::Silent(self.silence))?? == 0 {
                return Err(Ended::Closed);
            }
        }
        Ok(frame)
    }

    /// Exactly as many bytes as `buffer` takes.
    pub(super) async fn exactly(&mut self, buffer: &mut [u8]) -> Result<(), Ended> {
        let mut filled = 0;
        while filled < buffer.len() {
            filled += self.read(&mut buffer[filled..]).await?;
        }
        Ok(())
    }

    /// Reads on and forgets, up to `max` bytes.
    pub(super) async fn forget(&mut self, max: usize) {
        let mut scrap = [0; 1_024];
        let mut left = max;
        while let Ok(read @ 1..) = self.read(&mut scrap).await
            && left > read
        {
            left -= read;
        }
    }

    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Ended> {
        match timeout(self.silence, self.stream.read(buffer)).await {
            Err(_) => Err(Ended::Silent(self.silence)),
            Ok(Ok(0)) => Err(Ended::Closed),
            Ok(Ok(read)) => Ok(read),
            Ok(Err(error)) => Err(error.into()),
        }
    }
}

/// Writes frames.
pub(super) struct FrameWriter {
    stream: WriteHalf<Stream>,
    silence: Duration,
}

impl FrameWriter {
    pub(super) fn new(stream: WriteHalf<Stream>, silence: Duration) -> Self {
        FrameWriter { stream, silence }
    }

    /// Writes all of `bytes`, as long as the other side takes some of them in time.
    pub(super) async fn write(&mut self, mut bytes: &[u8]) -> Result<(), Ended> {
        while !bytes.is_empty() {
            let step = &bytes[..bytes.len().min(PEER_STEP_BYTES)];
            let written = in_time(self.silence, self.stream.write(step)).await?;
            if written == 0 {
                return Err(Ended::Closed);
            }
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Sees that what was written is on its way.
    pub(super) async fn flush(&mut self) -> Result<(), Ended> {
        in_time(self.silence, self.stream.flush()).await
    }

    /// Says that nothing follows.
    pub(super) async fn close(&mut self) -> Result<(), Ended> {
        in_time(self.silence, self.stream.shutdown()).await
    }
}

async fn in_time<T>(silence: Duration, deed: impl Future<Output = io::Result<T>>) -> Result<T, Ended> {
    match timeout(silence, deed).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Ended::Silent(silence)),
    }
}
