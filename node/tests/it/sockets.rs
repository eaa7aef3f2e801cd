//! What a client sees that writes its request to the end before it reads the answer.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::process::Node;

/// Writes head and body, then reads to the end.
fn ask(node: &Node, head: &str, body: &[u8]) -> String {
    let mut stream =
        TcpStream::connect(node.url.strip_prefix("http://").expect("an http address")).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout can be set");
    stream.write_all(format!("{head}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).expect("the head is taken");
    stream.write_all(body).expect("the body is taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the answer is read");
    answer
}

fn chunked(body: &[u8]) -> Vec<u8> {
    let mut chunks = Vec::new();
    for chunk in body.chunks(64 * 1024) {
        chunks.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        chunks.extend_from_slice(chunk);
        chunks.extend(b"\r\n");
    }
    chunks.extend(b"0\r\n\r\n");
    chunks
}

#[test]
fn a_refusal_is_read_by_who_is_still_writing_a_large_body() {
    let node = Node::start(None);
    let body = vec![b' '; 20 * 1024 * 1024];
    let length = format!("Content-Length: {}", body.len());
    let key = "X-API-Key: proffer-dev-key";
    for (status, kind, head) in [
        (413, "too-large", format!("POST /api/v1/offers HTTP/1.1\r\n{key}\r\n{length}")),
        (401, "unauthenticated", format!("POST /api/v1/offers HTTP/1.1\r\n{length}")),
        (404, "not-found", format!("POST /nowhere HTTP/1.1\r\n{key}\r\n{length}")),
        (405, "method-not-allowed", format!("PATCH /api/v1/offers HTTP/1.1\r\n{key}\r\n{length}")),
    ] {
        let answer = ask(&node, &head, &body);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains("application/problem+json") && answer.contains(kind), "{answer}");
    }
    let head = format!("POST /api/v1/offers HTTP/1.1\r\n{key}\r\nTransfer-Encoding: chunked");
    let answer = ask(&node, &head, &chunked(&body));
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("too-large"), "{answer}");
}

#[test]
fn who_asks_before_it_sends_a_large_body_is_refused_without_it() {
    let node = Node::start(None);
    let head = "POST /api/v1/offers HTTP/1.1\r\nX-API-Key: proffer-dev-key\r\nExpect: 100-continue\r\nContent-Length: 99999999";
    let answer = ask(&node, head, b"");
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}
