//! The HTTP server: accepts connections, bounds how many there are and how long each may take to say what it wants, and drains.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinHandle;

use crate::limits::{ACCEPT_PAUSE, CONNECTIONS_MAX, HEAD_TIMEOUT};

/// A server under way. It stops taking connections, and ends when those it has are done, once told to (or once whoever
/// could tell it is gone).
pub(crate) struct Server {
    pub(crate) drain: oneshot::Sender<()>,
    pub(crate) ended: JoinHandle<()>,
}

/// Serves `router` to whoever connects.
pub(crate) fn serve(listener: TcpListener, router: Router) -> Server {
    serve_within(listener, router, HEAD_TIMEOUT)
}

fn serve_within(listener: TcpListener, router: Router, head_timeout: Duration) -> Server {
    let (drain, mut drained) = oneshot::channel::<()>();
    let ended = tokio::spawn(async move {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(head_timeout);
        let (connections, places) = (GracefulShutdown::new(), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
        loop {
            let (stream, place) = tokio::select! {
                biased;
                _ = &mut drained => break,
                accepted = accept(&listener, &places) => accepted,
            };
            let service = TowerToHyperService::new(router.clone());
            let connection = connections.watch(http.serve_connection(TokioIo::new(stream), service));
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    // Clients come and go as they please.
                    tracing::debug!(%error, "a connection ended early");
                }
                drop(place);
            });
        }
        drop(listener);
        connections.shutdown().await;
    });
    Server { drain, ended }
}

/// The next connection, once there is a place for it.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    let place = Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Without it an answer waits for the acknowledgement of the one before; a failure is the connection's own.
                let _ = stream.set_nodelay(true);
                return (stream, place);
            }
            Err(error) if is_of_the_client(&error) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_the_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    [ConnectionAborted, ConnectionRefused, ConnectionReset].contains(&error.kind())
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::{Instant, sleep, timeout};

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(300);

    async fn start() -> (Server, std::net::SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let slow = || async {
            sleep(3 * PATIENCE).await;
            "late"
        };
        let router = Router::new().route("/", get(|| async { "hello" })).route("/slow", get(slow));
        (serve_within(listener, router, PATIENCE), address)
    }

    #[tokio::test]
    async fn a_client_that_never_ends_its_head_is_cut_off_however_it_drips() {
        let (_server, address) = start().await;
        for drip in [Duration::from_secs(60), PATIENCE / 10] {
            let begin = Instant::now();
            let (mut read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
            write.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ").await.unwrap();
            let dripping = tokio::spawn(async move {
                loop {
                    sleep(drip).await;
                    if write.write_all(b"x").await.is_err() {
                        break;
                    }
                }
            });
            let cut = timeout(Duration::from_secs(10), read.read_to_end(&mut Vec::new())).await;
            // A reset is an end as well.
            assert!(cut.is_ok(), "the connection is still open");
            assert!(begin.elapsed() >= PATIENCE);
            dripping.abort();
        }
    }

    #[tokio::test]
    async fn a_quick_head_may_wait_long_for_its_answer_and_one_under_way_is_finished_when_the_server_drains() {
        let (server, address) = start().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut seen = vec![0; 1_000];
        let count = stream.read(&mut seen).await.unwrap();
        assert!(seen[..count].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&seen));
        stream.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        sleep(PATIENCE / 3).await;
        server.drain.send(()).unwrap();
        let mut late = String::new();
        stream.read_to_string(&mut late).await.unwrap();
        assert!(late.starts_with("HTTP/1.1 200") && late.ends_with("late"), "{late}");
        timeout(Duration::from_secs(10), server.ended).await.expect("the server ends").unwrap();
        assert!(TcpStream::connect(address).await.is_err(), "it takes no new connections");
    }
}
