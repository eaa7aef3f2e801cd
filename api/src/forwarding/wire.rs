//! Calls and answers on their way between two nodes: a head, encoded by the codec, and the body as it is.
//!
//! Layout: length of the head (u32, little endian), head, body.

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::Response;
use bincode::{Decode, Encode};
use proffer_engine::codec;
use proffer_engine::keys::Revision;

use crate::limits::{FORWARDED_BYTES_MAX, FORWARDED_HEAD_BYTES_MAX, FORWARDED_HEADERS_MAX};

/// Bytes of a head's length.
const LENGTH_BYTES: usize = 4;

/// Why bytes are no call or answer, or why one cannot travel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(String);

impl Unreadable {
    fn new(why: impl std::fmt::Display) -> Self {
        Unreadable(why.to_string())
    }
}

/// A call, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardedCall {
    /// How often it has been forwarded, this time included.
    pub forwards: u8,
    /// The catalogue revision that it is to be answered by at least.
    pub least_revision: Revision,
    /// Its method.
    pub method: Method,
    /// Path and query.
    pub target: Uri,
    /// The headers that matter.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// What one node asks another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forwarding {
    /// To answer this call.
    Call(Box<ForwardedCall>),
    /// For an answer that it keeps under this number.
    Fetch(u64),
}

/// What the other node makes of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardedAnswer {
    /// The answer for the client.
    Answered {
        /// Its status.
        status: StatusCode,
        /// Its headers.
        headers: HeaderMap,
        /// Its body.
        body: Bytes,
    },
    /// It does not lead what the call is about: nothing was begun.
    NotLed(String),
    /// It was begun, and what became of it is not known.
    Lost,
    /// It was answered, with more than the lane takes: so much is kept under this number, for a while.
    Kept(u64),
    /// It was answered, with more than a node sends another.
    TooLarge,
}

#[derive(Encode, Decode)]
enum CallHead {
    V1(CallHeadV1),
    FetchV1(u64),
}

#[derive(Encode, Decode)]
struct CallHeadV1 {
    forwards: u8,
    least_revision: u64,
    method: String,
    target: String,
    headers: Vec<(String, Vec<u8>)>,
}

#[derive(Encode, Decode)]
enum AnswerHead {
    V1(AnswerHeadV1),
}

#[derive(Encode, Decode)]
enum AnswerHeadV1 {
    Answered { status: u16, headers: Vec<(String, Vec<u8>)> },
    NotLed(String),
    Lost,
    Kept(u64),
    TooLarge,
}

impl Forwarding {
    /// Reads what is asked. O(bytes), whatever they are.
    ///
    /// # Errors
    /// They ask for nothing.
    pub fn decode(bytes: Vec<u8>) -> Result<Self, Unreadable> {
        let (head, body) = split(bytes)?;
        match codec::decode("a forwarded call", &head).map_err(Unreadable::new)? {
            CallHead::V1(head) => ForwardedCall::read(head, body).map(|call| Forwarding::Call(Box::new(call))),
            CallHead::FetchV1(number) => Ok(Forwarding::Fetch(number)),
        }
    }
}

/// The bytes that ask for an answer that is kept.
pub fn fetch(number: u64) -> Vec<u8> {
    join(&codec::encode(&CallHead::FetchV1(number)), &[]).expect("a number is small")
}

impl ForwardedCall {
    /// The bytes of it. O(bytes).
    ///
    /// # Errors
    /// Larger than what is read again.
    pub fn encode(&self) -> Result<Vec<u8>, Unreadable> {
        let head = CallHead::V1(CallHeadV1 {
            forwards: self.forwards,
            least_revision: self.least_revision.0,
            method: self.method.to_string(),
            target: self.target.to_string(),
            headers: write_headers(&self.headers),
        });
        join(&codec::encode(&head), &self.body)
    }

    fn read(head: CallHeadV1, body: Bytes) -> Result<Self, Unreadable> {
        let target: Uri = head.target.parse().map_err(Unreadable::new)?;
        if target.authority().is_some() || !target.path().starts_with('/') {
            return Err(Unreadable::new("the target of the call is no path"));
        }
        Ok(ForwardedCall {
            forwards: head.forwards,
            least_revision: Revision(head.least_revision),
            method: head.method.parse().map_err(Unreadable::new)?,
            target,
            headers: read_headers(head.headers)?,
            body,
        })
    }

    /// The request that a router answers.
    pub fn into_request(self) -> Request {
        let mut request = Request::new(Body::from(self.body));
        *request.method_mut() = self.method;
        *request.uri_mut() = self.target;
        *request.headers_mut() = self.headers;
        request
    }
}

impl ForwardedAnswer {
    /// The bytes of it; of one that is too large: that it is. O(bytes).
    pub fn encode(&self) -> Vec<u8> {
        let (head, body) = match self {
            ForwardedAnswer::Answered { status, headers, body } => {
                (AnswerHeadV1::Answered { status: status.as_u16(), headers: write_headers(headers) }, &body[..])
            }
            ForwardedAnswer::NotLed(reason) => (AnswerHeadV1::NotLed(reason.clone()), &[][..]),
            ForwardedAnswer::Lost => (AnswerHeadV1::Lost, &[][..]),
            ForwardedAnswer::Kept(number) => (AnswerHeadV1::Kept(*number), &[][..]),
            ForwardedAnswer::TooLarge => (AnswerHeadV1::TooLarge, &[][..]),
        };
        join(&codec::encode(&AnswerHead::V1(head)), body).unwrap_or_else(|_| ForwardedAnswer::TooLarge.encode())
    }

    /// Reads an answer. O(bytes), whatever they are.
    ///
    /// # Errors
    /// They are no answer.
    pub fn decode(bytes: Vec<u8>) -> Result<Self, Unreadable> {
        let (head, body) = split(bytes)?;
        let AnswerHead::V1(head) = codec::decode("a forwarded answer", &head).map_err(Unreadable::new)?;
        Ok(match head {
            AnswerHeadV1::Answered { status, headers } => ForwardedAnswer::Answered {
                status: StatusCode::from_u16(status).map_err(Unreadable::new)?,
                headers: read_headers(headers)?,
                body,
            },
            AnswerHeadV1::NotLed(reason) => ForwardedAnswer::NotLed(reason),
            AnswerHeadV1::Lost => ForwardedAnswer::Lost,
            AnswerHeadV1::Kept(number) => ForwardedAnswer::Kept(number),
            AnswerHeadV1::TooLarge => ForwardedAnswer::TooLarge,
        })
    }
}

/// The response to the client.
pub fn response(status: StatusCode, headers: HeaderMap, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn write_headers(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect()
}

fn read_headers(pairs: Vec<(String, Vec<u8>)>) -> Result<HeaderMap, Unreadable> {
    if pairs.len() > FORWARDED_HEADERS_MAX {
        return Err(Unreadable::new(format!("more than {FORWARDED_HEADERS_MAX} headers")));
    }
    let mut headers = HeaderMap::with_capacity(pairs.len());
    for (name, value) in pairs {
        let name: HeaderName = name.parse().map_err(Unreadable::new)?;
        headers.append(name, HeaderValue::from_bytes(&value).map_err(Unreadable::new)?);
    }
    Ok(headers)
}

fn join(head: &[u8], body: &[u8]) -> Result<Vec<u8>, Unreadable> {
    if head.len() > FORWARDED_HEAD_BYTES_MAX || LENGTH_BYTES + head.len() + body.len() > FORWARDED_BYTES_MAX {
        return Err(Unreadable::new("it is too large to be sent to another node"));
    }
    let length = u32::try_from(head.len()).expect("bounded above").to_le_bytes();
    Ok([&length[..], head, body].concat())
}

/// Head and body.
fn split(bytes: Vec<u8>) -> Result<(Bytes, Bytes), Unreadable> {
    let cut_off = || Unreadable::new("it is cut off");
    let mut rest = Bytes::from(bytes);
    let length = rest.first_chunk::<LENGTH_BYTES>().ok_or_else(cut_off)?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > FORWARDED_HEAD_BYTES_MAX {
        return Err(Unreadable::new(format!("a head of {length} bytes")));
    }
    drop(rest.split_to(LENGTH_BYTES));
    if rest.len() < length {
        return Err(cut_off());
    }
    let head = rest.split_to(length);
    Ok((head, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn call() -> ForwardedCall {
        ForwardedCall {
            forwards: 1,
            least_revision: Revision(300),
            method: Method::POST,
            target: Uri::from_static("/api/v1/recommend?explain=true"),
            headers: HeaderMap::from_iter([(HeaderName::from_static("x-api-key"), HeaderValue::from_static("key"))]),
            body: Bytes::from_static(b"{}"),
        }
    }

    fn not_led() -> ForwardedAnswer {
        ForwardedAnswer::NotLed("no".to_owned())
    }

    #[test]
    fn what_travels_has_the_bytes_it_always_had() {
        let golden =
            b"\x38\0\0\0\0\x01\xfb\x2c\x01\x04POST\x1e/api/v1/recommend?explain=true\x01\x09x-api-key\x03key{}";
        assert_eq!(call().encode().unwrap(), golden);
        assert_eq!(not_led().encode(), b"\x05\0\0\0\0\x01\x02no");
        assert_eq!(ForwardedAnswer::Lost.encode(), b"\x02\0\0\0\0\x02");
        assert_eq!(ForwardedAnswer::Kept(7).encode(), b"\x03\0\0\0\0\x03\x07");
        assert_eq!(ForwardedAnswer::TooLarge.encode(), b"\x02\0\0\0\0\x04");
        assert_eq!(fetch(7), b"\x02\0\0\0\x01\x07");
        assert_eq!(Forwarding::decode(fetch(7)), Ok(Forwarding::Fetch(7)));
        let headers = HeaderMap::from_iter([(HeaderName::from_static("etag"), HeaderValue::from_static("1"))]);
        let answer = ForwardedAnswer::Answered { status: StatusCode::OK, headers, body: Bytes::from_static(b"yes") };
        assert_eq!(answer.encode(), b"\x0b\0\0\0\0\0\xc8\x01\x04etag\x011yes");
    }

    #[test]
    fn a_call_that_is_too_large_is_refused_and_an_answer_says_that_it_is() {
        let body = Bytes::from(vec![b' '; FORWARDED_BYTES_MAX]);
        assert!(ForwardedCall { body: body.clone(), ..call() }.encode().is_err());
        let answer = ForwardedAnswer::Answered { status: StatusCode::OK, headers: HeaderMap::new(), body };
        assert_eq!(ForwardedAnswer::decode(answer.encode()), Ok(ForwardedAnswer::TooLarge));
    }

    #[test]
    fn a_call_names_a_path_and_nothing_else() {
        for target in ["http://elsewhere/api/v1/offers", "elsewhere:80", "*"] {
            let bytes = ForwardedCall { target: target.parse().unwrap(), ..call() }.encode().unwrap();
            assert!(Forwarding::decode(bytes).is_err(), "{target}");
        }
    }

    fn any_headers() -> impl Strategy<Value = HeaderMap> {
        proptest::collection::vec(("[a-z][a-z0-9-]{0,20}", "[ -~]{0,40}"), 0..FORWARDED_HEADERS_MAX).prop_map(|pairs| {
            pairs
                .into_iter()
                .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
                .collect()
        })
    }

    proptest! {
        #[test]
        fn what_is_sent_arrives(
            forwards: u8, revision: u64, path in "/[a-z/]{0,40}", status in 100_u16..1_000, headers in any_headers(),
            body: Vec<u8>,
        ) {
            let call = ForwardedCall {
                forwards, least_revision: Revision(revision), method: Method::PUT, target: path.parse().unwrap(),
                headers: headers.clone(), body: body.clone().into(),
            };
            prop_assert_eq!(Forwarding::decode(call.encode().unwrap()), Ok(Forwarding::Call(Box::new(call))));
            let status = StatusCode::from_u16(status).unwrap();
            let answer = ForwardedAnswer::Answered { status, headers, body: body.into() };
            prop_assert_eq!(&ForwardedAnswer::decode(answer.encode()).unwrap(), &answer);
        }

        #[test]
        fn whatever_comes_is_read_or_refused(bytes: Vec<u8>) {
            drop(Forwarding::decode(bytes.clone()));
            drop(ForwardedAnswer::decode(bytes));
        }

        #[test]
        fn whatever_is_made_of_what_was_sent_is_read_or_refused(at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
            let mut bytes = call().encode().unwrap();
            let index = at.index(bytes.len());
            bytes[index] = byte;
            bytes.truncate(cut.index(bytes.len() + 1));
            drop(Forwarding::decode(bytes));
        }
    }
}
