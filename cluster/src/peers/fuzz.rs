//! What strangers and bad links may send: any bytes, and hellos and frames with faults.

use std::time::Duration;

use proffer_fuzz::Choices;
use tokio::io::AsyncWriteExt;

use super::framing::FrameReader;
use super::wire::{Failure, Frame, Greeting, LENGTH_BYTES, Message, pack, reason_of, refusal, unpack};
use super::{Class, Hello, Lane};
use crate::limits::PEER_REASON_BYTES_MAX;

proffer_fuzz::targets!(any_bytes, damaged_frames, stream);

/// Bytes of nobody's making, as what follows a frame's length.
fn any_bytes(bytes: &[u8]) {
    understand(bytes);
    let reason = reason_of(bytes);
    assert!(reason.len() <= 3 * PEER_REASON_BYTES_MAX && !reason.contains(char::is_control));
}

/// A hello, a message or a refusal, with faults.
fn damaged_frames(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut frame = frame(&mut choices);
    frame.drain(..LENGTH_BYTES);
    understand(&frame);
    choices.damage(&mut frame);
    understand(&frame);
}

/// Frames one after the other, cut into any pieces, and then anything: what was sent whole arrives whole, in order.
fn stream(bytes: &[u8]) {
    const FRAME_BYTES_MAX: usize = 200;
    let mut choices = Choices::new(bytes);
    let sent: Vec<Vec<u8>> = (0..choices.below(5)).map(|_| frame(&mut choices)).collect();
    let fit = sent.iter().take_while(|frame| frame.len() - LENGTH_BYTES <= FRAME_BYTES_MAX).count();
    let pieces = 1 + choices.below(64);
    let all = [sent.concat(), choices.rest().to_vec()].concat();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let read = runtime.expect("it needs nothing").block_on(async {
        let (mut here, there) = tokio::io::duplex(64);
        let writer = tokio::spawn(async move {
            for piece in all.chunks(pieces) {
                // The reader ends at the first frame that is too long.
                if here.write_all(piece).await.is_err() {
                    return;
                }
            }
        });
        let (half, _other) = tokio::io::split(Box::new(there) as crate::ports::network::Stream);
        let mut reader = FrameReader::new(half, Duration::from_secs(1));
        let mut read = Vec::new();
        while let Ok(frame) = reader.next(FRAME_BYTES_MAX).await {
            assert!(frame.len() <= FRAME_BYTES_MAX);
            read.push(frame);
        }
        writer.abort();
        read
    });
    for frame in &read {
        understand(frame);
    }
    assert!(read.len() >= fit, "{} of {fit}", read.len());
    assert!(read.iter().zip(&sent[..fit]).all(|(read, sent)| read[..] == sent[LENGTH_BYTES..]));
}

/// A frame is refused, or says what it says again when it is written.
fn understand(frame: &[u8]) {
    if let Ok((head, body)) = unpack::<Frame>(frame.to_vec()) {
        let again = pack(&head, &body);
        assert_eq!(unpack::<Frame>(again[LENGTH_BYTES..].to_vec()).expect("what is written is read"), (head, body));
    }
    let Ok((greeting, body)) = unpack::<Greeting>(frame.to_vec()) else { return };
    match greeting {
        Greeting::Hello(introduction) => {
            let Ok(hello) = Hello::read(introduction, body) else { return };
            let (again, body) = unpack(hello.pack()[LENGTH_BYTES..].to_vec()).expect("what is written is read");
            let Greeting::Hello(introduction) = again else { panic!("{again:?}") };
            assert_eq!(Hello::read(introduction, body).expect("what is written is read"), hello);
        }
        Greeting::Accepted => {}
        Greeting::Refused => assert!(!reason_of(&body).contains('\n')),
    }
}

/// One that a node sends.
fn frame(choices: &mut Choices<'_>) -> Vec<u8> {
    let id = choices.number();
    let body: Vec<u8> = (0..choices.below(300)).map(|_| choices.byte()).collect();
    let message = match choices.below(8) {
        0 => {
            let hello = Hello {
                lowest: 1,
                highest: 2,
                cluster: choices.flag().then_some(u128::from(id) << 64),
                node: id,
                disk: u128::from(id),
                boots: id >> 32,
                nonce: id,
                lane: if choices.flag() { Lane::Bulk } else { Lane::Control },
                address: "größe:1".repeat(choices.below(9)),
                about: body,
            };
            return hello.pack();
        }
        1 => return refusal(&String::from_utf8_lossy(&body)),
        2 => return pack(&Greeting::Accepted, &[]),
        3 => Message::Request { id, class: Class::Own, within_ms: 300 },
        4 => Message::Answer { id },
        5 => Message::Failed { id, why: Failure::Late },
        6 => Message::Cancel { id },
        _ => Message::Alive,
    };
    pack(&Frame::V1(message), &body)
}
