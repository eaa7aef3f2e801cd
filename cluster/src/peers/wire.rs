//! What is said between two nodes, byte by byte.
//!
//! A connection begins with [`MAGIC`] each way; then come frames: length (u32, little endian, of all that follows), length of the head
//! (one byte), head, body. Heads are encoded by the codec and hold nothing that is allocated; what varies in length is the body.

use bincode::{Decode, Encode};
use proffer_engine::codec::{self, DecodeError};

use super::{Class, Hello, Lane};
use crate::limits::PEER_REASON_BYTES_MAX;

/// The first bytes of each connection, both ways.
pub(super) const MAGIC: [u8; 8] = *b"proffer\n";
/// Bytes of a frame's length.
pub(super) const LENGTH_BYTES: usize = 4;
/// The protocol versions that this build speaks.
pub(crate) const PROTOCOLS: (u16, u16) = (1, 1);

/// Heads of the frames with which two nodes make themselves known: the same in all versions of the protocol.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum Greeting {
    /// Who I am. Body: address, then what the layer above says.
    Hello(Introduction),
    /// I take you for what you say.
    Accepted,
    /// I do not, and close. Body: why, as text.
    Refused,
}

/// See [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Introduction {
    pub(super) lowest: u16,
    pub(super) highest: u16,
    pub(super) cluster: Option<u128>,
    pub(super) node: u64,
    pub(super) disk: u128,
    pub(super) boots: u64,
    pub(super) nonce: u64,
    pub(super) lane: Lane,
    pub(super) address_bytes: u16,
}

/// Heads of all further frames.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum Frame {
    /// Protocol 1.
    V1(Message),
}

/// See [`Frame`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum Message {
    /// Answer this, within so many milliseconds. Body: the layer above's.
    Request { id: u64, class: Class, within_ms: u32 },
    /// The answer to one.
    Answer { id: u64 },
    /// There is none.
    Failed { id: u64, why: Failure },
    /// Nobody waits for it any more.
    Cancel { id: u64 },
    /// I am here, and have nothing to say.
    Alive,
}

/// Why a request was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum Failure {
    /// Too much is under way; this was not begun.
    Busy,
    /// Its time ran out.
    Late,
    /// The answer does not fit into a frame of the lane.
    TooLarge,
    /// The work ended without an answer.
    Lost,
}

/// A whole frame.
///
/// # Panics
/// If there are more bytes than a length can tell, or the head is longer than a byte can tell: none of ours is.
pub(super) fn pack<H: Encode>(head: &H, body: &[u8]) -> Vec<u8> {
    let head = codec::encode(head);
    let head_bytes = u8::try_from(head.len()).expect("heads are short");
    let length = u32::try_from(1 + head.len() + body.len()).expect("frames are bounded");
    let mut frame = Vec::with_capacity(LENGTH_BYTES + 1 + head.len() + body.len());
    frame.extend_from_slice(&length.to_le_bytes());
    frame.push(head_bytes);
    frame.extend_from_slice(&head);
    frame.extend_from_slice(body);
    frame
}

/// Head and body of what follows a frame's length.
pub(super) fn unpack<H: Decode<()>>(mut frame: Vec<u8>) -> Result<(H, Vec<u8>), DecodeError> {
    const WHAT: &str = "a frame of another node";
    let short = || DecodeError::new(WHAT, "it ends in its head".to_owned());
    let end = 1 + usize::from(*frame.first().ok_or_else(short)?);
    let head = codec::decode(WHAT, frame.get(1..end).ok_or_else(short)?)?;
    frame.drain(..end);
    Ok((head, frame))
}

impl Hello {
    /// The frame that says it.
    pub(super) fn pack(&self) -> Vec<u8> {
        let introduction = Introduction {
            lowest: self.lowest,
            highest: self.highest,
            cluster: self.cluster,
            node: self.node,
            disk: self.disk,
            boots: self.boots,
            nonce: self.nonce,
            lane: self.lane,
            address_bytes: u16::try_from(self.address.len()).expect("addresses are bounded"),
        };
        pack(&Greeting::Hello(introduction), &[self.address.as_bytes(), &self.about].concat())
    }

    /// What an introduction and the body behind it say.
    pub(super) fn read(introduction: Introduction, mut body: Vec<u8>) -> Result<Hello, DecodeError> {
        let wrong = |reason: &str| DecodeError::new("a hello", reason.to_owned());
        let address_bytes = usize::from(introduction.address_bytes);
        let address = body.get(..address_bytes).ok_or_else(|| wrong("it ends in its address"))?;
        let address = str::from_utf8(address).map_err(|_| wrong("its address is no text"))?.to_owned();
        body.drain(..address_bytes);
        Ok(Hello {
            lowest: introduction.lowest,
            highest: introduction.highest,
            cluster: introduction.cluster,
            node: introduction.node,
            disk: introduction.disk,
            boots: introduction.boots,
            nonce: introduction.nonce,
            lane: introduction.lane,
            address,
            about: body,
        })
    }
}

/// The frame that refuses.
pub(super) fn refusal(reason: &str) -> Vec<u8> {
    let end = reason.floor_char_boundary(PEER_REASON_BYTES_MAX);
    pack(&Greeting::Refused, &reason.as_bytes()[..end])
}

/// A reason as the other side gave it, fit for a log: one line, of bounded length.
pub(super) fn reason_of(body: &[u8]) -> String {
    let body = &body[..body.len().min(PEER_REASON_BYTES_MAX)];
    String::from_utf8_lossy(body).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hello() -> Hello {
        Hello {
            lowest: 1,
            highest: 2,
            cluster: Some(3),
            node: 4,
            disk: 5,
            boots: 300,
            nonce: 7,
            lane: Lane::Bulk,
            address: "n4:1".to_owned(),
            about: vec![8, 9],
        }
    }

    #[test]
    fn golden_bytes_of_the_hello() {
        let bytes = hello().pack();
        let golden = [&[20, 0, 0, 0, 13][..], &[0, 1, 2, 1, 3, 4, 5, 251, 44, 1, 7, 1, 4], b"n4:1\x08\x09"].concat();
        assert_eq!(bytes, golden);
        let (greeting, body) = unpack::<Greeting>(bytes[LENGTH_BYTES..].to_vec()).unwrap();
        let Greeting::Hello(introduction) = greeting else { panic!("{greeting:?}") };
        assert_eq!(Hello::read(introduction, body).unwrap(), hello());
        assert_eq!(pack(&Greeting::Accepted, &[]), [2, 0, 0, 0, 1, 1]);
        assert_eq!(refusal("no"), [4, 0, 0, 0, 1, 2, b'n', b'o']);
    }

    #[test]
    fn golden_bytes_of_messages() {
        let golden: [(Message, &[u8]); 7] = [
            (Message::Request { id: 9, class: Class::Raft, within_ms: 200 }, &[0, 0, 9, 0, 200]),
            (Message::Request { id: 9, class: Class::Own, within_ms: 300 }, &[0, 0, 9, 1, 251, 44, 1]),
            (Message::Request { id: 9, class: Class::Call, within_ms: 0 }, &[0, 0, 9, 2, 0]),
            (Message::Answer { id: 9 }, &[0, 1, 9]),
            (Message::Failed { id: 9, why: Failure::Lost }, &[0, 2, 9, 3]),
            (Message::Cancel { id: 9 }, &[0, 3, 9]),
            (Message::Alive, &[0, 4]),
        ];
        for (message, head) in golden {
            let bytes = pack(&Frame::V1(message.clone()), b"body");
            let length = u8::try_from(1 + head.len() + 4).unwrap();
            let head_bytes = u8::try_from(head.len()).unwrap();
            assert_eq!(bytes, [&[length, 0, 0, 0, head_bytes], head, b"body"].concat(), "{message:?}");
            let read = unpack::<Frame>(bytes[LENGTH_BYTES..].to_vec()).unwrap();
            assert_eq!(read, (Frame::V1(message), b"body".to_vec()));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = unpack::<Frame>(bytes.clone());
            if let Ok((Greeting::Hello(introduction), body)) = unpack(bytes.clone()) {
                let _ = Hello::read(introduction, body);
            }
            prop_assert!(!reason_of(&bytes).contains('\n'));
        }
    }
}
