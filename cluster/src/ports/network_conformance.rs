//! What every adapter of [`Network`] must pass.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::network::{Network, Stream};

const WORKS: &str = "the call succeeds";
/// Far beyond what any step takes.
const LONG: Duration = Duration::from_secs(20);
/// Long enough to say that something waits.
const WHILE: Duration = Duration::from_millis(300);

/// Checks an adapter against the contract of [`Network`]. `make` gives two nodes, each with the address it listens at.
///
/// # Panics
/// On the first breach, naming it.
pub async fn network_conformance<N: Network>(make: impl AsyncFn() -> [(String, N); 2]) {
    bytes_arrive_whole_and_in_order_both_ways(&make().await).await;
    what_was_written_is_read_before_the_end(&make().await).await;
    a_dropped_stream_ends_both_ways(&make().await).await;
    a_writer_waits_for_its_reader(&make().await).await;
    connections_are_apart(&make().await).await;
    an_abandoned_accept_loses_nothing(&make().await).await;
    nobody_is_not_reached(make().await).await;
}

async fn connected<N: Network>([(_, a), (address, b)]: &[(String, N); 2]) -> (Stream, Stream) {
    let (near, far) = tokio::join!(timeout(LONG, a.dial(address)), timeout(LONG, b.accept()));
    let (far, from) = far.expect(WORKS).expect(WORKS);
    assert!(!from.is_empty(), "a connection has an origin");
    (near.expect(WORKS).expect(WORKS), far)
}

async fn bytes_arrive_whole_and_in_order_both_ways<N: Network>(nodes: &[(String, N); 2]) {
    let (near, far) = connected(nodes).await;
    let sent = |salt: u32| (0..1_000_000_u32).map(move |n| n.wrapping_mul(salt).to_le_bytes()[2]).collect::<Vec<u8>>();
    let exchange = async |stream: Stream, write: Vec<u8>| {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut read = vec![0; write.len()];
        let writing = async {
            writer.write_all(&write).await.expect(WORKS);
            writer.flush().await.expect(WORKS);
        };
        let (_, got) = tokio::join!(writing, reader.read_exact(&mut read));
        got.expect(WORKS);
        read
    };
    let both = async { tokio::join!(exchange(near, sent(77)), exchange(far, sent(91))) };
    let (at_near, at_far) = timeout(LONG, both).await.expect("both directions move at once");
    assert!(at_near == sent(91) && at_far == sent(77), "bytes arrive as they were written");
}

async fn what_was_written_is_read_before_the_end<N: Network>(nodes: &[(String, N); 2]) {
    let (mut near, mut far) = connected(nodes).await;
    near.write_all(b"last words").await.expect(WORKS);
    near.shutdown().await.expect(WORKS);
    let mut read = Vec::new();
    timeout(LONG, far.read_to_end(&mut read)).await.expect("there is an end").expect(WORKS);
    assert_eq!(read, b"last words");
    far.write_all(b"answer").await.expect("the other direction is open");
    far.flush().await.expect(WORKS);
    drop(far);
    read.clear();
    timeout(LONG, near.read_to_end(&mut read)).await.expect("there is an end").expect(WORKS);
    assert_eq!(read, b"answer");
}

async fn a_dropped_stream_ends_both_ways<N: Network>(nodes: &[(String, N); 2]) {
    let (near, mut far) = connected(nodes).await;
    drop(near);
    let mut byte = [0];
    let read = timeout(LONG, far.read(&mut byte)).await.expect("the end is seen");
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    let writing = async {
        while far.write_all(&[0; 1024]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(LONG, writing).await.expect("writing to nobody fails in the end");
}

async fn a_writer_waits_for_its_reader<N: Network>(nodes: &[(String, N); 2]) {
    let (mut near, mut far) = connected(nodes).await;
    let plenty = vec![7; 64 * 1024 * 1024];
    {
        let writing = near.write_all(&plenty);
        timeout(WHILE, writing).await.expect_err("buffers are bounded");
    }
    let mut read = vec![0; 64 * 1024];
    timeout(LONG, far.read_exact(&mut read)).await.expect("what was written arrives").expect(WORKS);
}

async fn connections_are_apart<N: Network>(nodes: &[(String, N); 2]) {
    let (mut one, mut one_far) = connected(nodes).await;
    let (two, _two_far) = connected(nodes).await;
    drop(two);
    one.write_all(b"still here").await.expect(WORKS);
    one.flush().await.expect(WORKS);
    let mut read = [0; 10];
    timeout(LONG, one_far.read_exact(&mut read)).await.expect("it arrives").expect(WORKS);
    assert_eq!(&read, b"still here");
}

async fn an_abandoned_accept_loses_nothing<N: Network>(nodes: &[(String, N); 2]) {
    let [_, (_, b)] = nodes;
    timeout(WHILE, b.accept()).await.err().expect("nobody dials");
    let (mut near, mut far) = connected(nodes).await;
    near.write_all(b"!").await.expect(WORKS);
    near.flush().await.expect(WORKS);
    let mut read = [0];
    timeout(LONG, far.read_exact(&mut read)).await.expect("it arrives").expect(WORKS);
}

async fn nobody_is_not_reached<N: Network>([(_, a), (address, b)]: [(String, N); 2]) {
    drop(b);
    let dialled = timeout(LONG, a.dial(&address)).await.expect("a refusal is told");
    assert!(dialled.is_err(), "nobody listens there");
}
