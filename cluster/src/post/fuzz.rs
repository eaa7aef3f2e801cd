//! Any bytes as what nodes say to each other.

use super::message::{Answer, Message, decode_answer, encode_answer};
use super::{failure::Failure, gatekeeper, joining};
use crate::error::Error;
use crate::fuzz::read_beginnings;

proffer_fuzz::targets!(messages, answers, hellos);

/// As a message; one within one too.
fn messages(bytes: &[u8]) {
    read_beginnings::<Message>(bytes, |message| {
        if let Message::Pass { message, .. } = message {
            read_beginnings::<Message>(&message, drop);
        }
    });
}

/// As an answer: an error tells no more on its way back than it told here.
fn answers(bytes: &[u8]) {
    let _ = decode_answer(bytes);
    read_beginnings::<Result<Answer, Failure>>(bytes, |answer| {
        let answer: Result<Answer, Error> = answer.map_err(Error::from);
        let failed = answer.as_ref().err().cloned();
        let again = decode_answer(&encode_answer(answer));
        assert_eq!(again.err().map(|error| error.to_string()), failed.map(|error| error.to_string()));
    });
}

/// As what a newcomer asks, is answered, and what nodes say of themselves.
fn hellos(bytes: &[u8]) {
    read_beginnings::<joining::Request>(bytes, drop);
    read_beginnings::<joining::Reply>(bytes, drop);
    read_beginnings::<gatekeeper::About>(bytes, drop);
}
