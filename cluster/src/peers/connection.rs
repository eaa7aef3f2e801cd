//! One connection between nodes that know each other: frames both ways until it ends.

use tokio::time::sleep;

use super::Lane;
use super::framing::{Ended, FrameReader, FrameWriter};
use super::greet::Met;
use super::outbox::Outbox;
use super::wire::{Frame, Message, pack, unpack};
use crate::limits::PEER_TOGETHER_BYTES_MAX;

/// A side says that it is alive when it had nothing else to say for this part of the silence that ends a connection.
const ALIVE_DIVISOR: u32 = 3;

/// Writes what is in `outbox` and gives what comes to `hear`, until the connection ends. Nothing of it goes on once this is dropped.
pub(super) async fn converse(
    met: Met,
    silence: std::time::Duration,
    outbox: &Outbox,
    hear: impl FnMut(Message, Vec<u8>) -> Result<(), Ended>,
) -> Ended {
    let Met { hello, mut reader, mut writer, ticket } = met;
    tokio::select! {
        biased;
        () = ticket.replaced() => Ended::Replaced,
        ended = listen(&mut reader, hello.lane, hear) => ended,
        ended = speak(&mut writer, silence, outbox) => ended,
    }
}

async fn listen(
    reader: &mut FrameReader,
    lane: Lane,
    mut hear: impl FnMut(Message, Vec<u8>) -> Result<(), Ended>,
) -> Ended {
    loop {
        let frame = match reader.next(lane.frame_bytes_max()).await {
            Ok(frame) => frame,
            Err(ended) => return ended,
        };
        let heard = match unpack(frame) {
            Ok((Frame::V1(message), body)) => hear(message, body),
            Err(error) => Err(Ended::Breach(error.to_string())),
        };
        if let Err(ended) = heard {
            return ended;
        }
    }
}

async fn speak(writer: &mut FrameWriter, silence: std::time::Duration, outbox: &Outbox) -> Ended {
    loop {
        let mut frames = tokio::select! {
            biased;
            frame = outbox.next() => frame,
            () = sleep(silence / ALIVE_DIVISOR) => pack(&Frame::V1(Message::Alive), &[]),
        };
        loop {
            while let Some(room) = PEER_TOGETHER_BYTES_MAX.checked_sub(frames.len())
                && let Some(frame) = outbox.next_within(room)
            {
                frames.extend_from_slice(&frame);
            }
            if let Err(ended) = writer.write(&frames).await {
                return ended;
            }
            match outbox.next_within(usize::MAX) {
                Some(frame) => frames = frame,
                None => break,
            }
        }
        if let Err(ended) = writer.flush().await {
            return ended;
        }
    }
}
