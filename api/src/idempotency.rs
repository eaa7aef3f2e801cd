//! Idempotency keys: from header or body to the two hashes that a shard remembers.

use axum::http::HeaderMap;
use proffer_cluster::calls::CallKey;
use proffer_engine::value::Value;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::limits::IDEMPOTENCY_KEY_BYTES_MAX;
use crate::problem::Problem;
use crate::wire::field::Name;
use crate::wire::value::Json;

/// Member of a body that may carry the key; not part of what the key stands for.
pub const MEMBER: &str = "idempotencyKey";

/// The key in the header `Idempotency-Key`.
///
/// # Errors
/// One that is empty, too long or no text.
pub fn header(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(given) = headers.get("idempotency-key") else { return Ok(None) };
    match given.to_str() {
        Ok(key) if (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()) => Ok(Some(key)),
        Ok(_) | Err(_) => Err(Problem::invalid(
            "/headers/Idempotency-Key",
            format!("must be 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible characters"),
        )),
    }
}

/// The key of a call that needs one: in the header, or in the body.
///
/// # Errors
/// None, a bad one, or two that differ.
pub fn required(headers: &HeaderMap, member: Option<&Name>) -> Result<String, Problem> {
    let pointer = "/idempotencyKey";
    match (header(headers)?, member) {
        (None, None) => Err(Problem::invalid(pointer, "is required, here or in the header Idempotency-Key")),
        (Some(header), Some(member)) if *header != *member.0 => {
            Err(Problem::invalid(pointer, "differs from the header Idempotency-Key"))
        }
        (Some(key), _) => Ok(key.to_owned()),
        (None, Some(key)) => Ok(key.0.to_string()),
    }
}

/// Hashes of `key` (within `route`, so that routes do not share keys) and of the canonical `body`: members in name order.
pub fn call_key(route: &str, key: &str, body: &Value) -> CallKey {
    let canonical = match body {
        Value::Map(members) if members.contains_key(MEMBER) => {
            let mut rest = (**members).clone();
            rest.remove(MEMBER);
            Value::Map(rest.into())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
            body.clone()
        }
    };
    let written = serde_json::to_vec(&Json(&canonical)).expect("values can be written");
    CallKey { key: xxh3_128(format!("{route}\0{key}").as_bytes()), body: xxh3_64(&written) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::value;

    fn key_of(body: &str) -> CallKey {
        call_key("respond", "k", &value::read(body.as_bytes()).unwrap())
    }

    #[test]
    fn order_and_space_do_not_make_another_body() {
        assert_eq!(key_of(r#"{"a": 1, "b": 2.0}"#), key_of(r#"{"b":2,"a":1}"#));
        assert_ne!(key_of(r#"{"a": 1}"#), key_of(r#"{"a": 2}"#));
    }

    #[test]
    fn a_key_in_the_body_is_the_same_as_one_in_the_header() {
        assert_eq!(key_of(r#"{"a": 1, "idempotencyKey": "k"}"#), key_of(r#"{"a": 1}"#));
    }

    #[test]
    fn routes_do_not_share_keys() {
        assert_ne!(call_key("respond", "k", &Value::Null).key, call_key("recommend", "k", &Value::Null).key);
    }
}
