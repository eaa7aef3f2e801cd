//! `proffer bench`: full and half load on a node, beside the ceiling of this machine's HTTP stack.
//!
//! Full load: every client asks again as soon as it is answered; latencies are corrected for the requests that a stalled client
//! would have sent meanwhile. Half load: requests start on a fixed schedule, whether or not earlier ones are back, and latency
//! counts from the scheduled start. In both a stall shows in every request it delayed (no coordinated omission). The ceiling
//! is an axum handler in a process of its own that parses the same request and serialises an answer of the same size; both
//! are asked by the same bare HTTP/1.1 connections, one per client.

use std::fmt;
use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use clap::builder::RangedU64ValueParser;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::time::Instant;

use crate::cli::bench_cluster;
use crate::cli::serve::stop_signal;
use crate::client::{Client, Target};
use crate::compose::{DEV_KEY, DEV_TENANT};
use crate::demo::generated;
use crate::limits::{BENCH_CLIENTS_MAX, BENCH_OFFERS_MAX, BENCH_RATE_MAX, BENCH_SECONDS_MAX};
use crate::listen::{self, Server};

/// Arguments of `proffer bench`.
#[derive(Clone, Debug, clap::Args)]
pub struct BenchArgs {
    /// Start a node in memory with so many offers, and load that one in place of the one at --url.
    #[arg(long, value_name = "NUMBER", value_parser = RangedU64ValueParser::<usize>::new().range(1..=BENCH_OFFERS_MAX))]
    offers: Option<usize>,
    /// Start a cluster of three nodes on loopback in place of all that: writes, decisions that take, and changes of the catalogue.
    #[arg(long, conflicts_with = "rate")]
    cluster: bool,
    /// Requests a second at half load. Default: half of what the node reached at full load.
    #[arg(long, value_parser = RangedU64ValueParser::<u64>::new().range(1..=BENCH_RATE_MAX))]
    rate: Option<u64>,
    /// Seconds of each run.
    #[arg(long, default_value_t = 5, value_parser = RangedU64ValueParser::<u64>::new().range(1..=BENCH_SECONDS_MAX))]
    seconds: u64,
    /// Connections.
    #[arg(long, default_value_t = 16, value_parser = RangedU64ValueParser::<usize>::new().range(1..=BENCH_CLIENTS_MAX))]
    clients: usize,
    /// Body template; `{n}` becomes a number below `--customers`.
    #[arg(long, default_value = r#"{"customerId":"member-{n}","channel":"web","limit":5}"#)]
    body: String,
    /// Different customers.
    #[arg(long, default_value_t = 1_000, value_parser = RangedU64ValueParser::<u64>::new().range(1..))]
    customers: u64,
    /// Path under /api/v1.
    #[arg(long, default_value = "/recommend")]
    path: String,
    #[command(flatten)]
    target: Target,
}

/// Offers of the cluster that is measured.
const CLUSTER_OFFERS: usize = 10_000;

/// One run's result.
struct Measured {
    rate: f64,
    errors: u64,
    latency_us: Histogram<u64>,
}

/// Highest latency the histogram tells apart.
const LATENCY_US_MAX: u64 = 60_000_000;

pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(LATENCY_US_MAX, 3).expect("bounds are valid")
}

impl Measured {
    /// With the requests that clients would have sent while they waited, had they gone on at their usual pace.
    fn corrected(self, clients: usize) -> Measured {
        let pace_us = clients as f64 * 1e6 / self.rate.max(1.0);
        Measured { latency_us: self.latency_us.clone_correct(pace_us.max(1.0) as u64), ..self }
    }
}

/// Runs the command: full load on ceiling and node, then half of what the node reached on both, as one table.
///
/// # Errors
/// When the node cannot be reached or refuses the body.
pub async fn run(args: BenchArgs) -> anyhow::Result<()> {
    tokio::select! {
        biased;
        // The processes that it has started end with it.
        stopped = stop_signal() => stopped.and_then(|()| bail!("told to stop")),
        measured = measure(args) => measured,
    }
}

async fn measure(args: BenchArgs) -> anyhow::Result<()> {
    if args.cluster {
        return bench_cluster::run(args.offers.unwrap_or(CLUSTER_OFFERS), args.seconds).await;
    }
    let sample = serde_json::from_slice(&body(&args, 0)).context("--body is no JSON once {n} is a number")?;
    let own = match args.offers {
        Some(offers) => Some(OwnNode::start(offers).await?),
        None => None,
    };
    let target = own.as_ref().map_or(args.target.clone(), |own| own.target.clone());
    let args = BenchArgs { target, ..args };
    let client = Client::new(args.target.clone())?;
    let sample = client.post(&args.path, &sample).await?;
    let answer = serde_json::to_string(&sample)?;

    let mut ceiling_process = tokio::process::Command::new(std::env::current_exe()?)
        .args(["ceiling", &answer])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let stdout = ceiling_process.stdout.take().context("stdout is piped")?;
    let ceiling_url = BufReader::new(stdout).lines().next_line().await?.context("the ceiling did not start")?;

    let ceiling_target = Target { url: ceiling_url, ..args.target.clone() };
    closed_loop(&ceiling_target, &args, 1).await?;
    closed_loop(&args.target, &args, 1).await?;
    let full_ceiling = closed_loop(&ceiling_target, &args, args.seconds).await?;
    let full_node = closed_loop(&args.target, &args, args.seconds).await?;
    let rate = args.rate.unwrap_or((full_node.rate / 2.0) as u64).max(1);
    let half_ceiling = open_loop(&ceiling_target, &args, rate).await?;
    let half_node = open_loop(&args.target, &args, rate).await?;
    ceiling_process.kill().await?;
    let runs = Runs {
        full: [full_ceiling.corrected(args.clients), full_node.corrected(args.clients)],
        half: [half_ceiling, half_node],
        rate,
    };
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{} clients, {} s each, body of {} B, answer of {} B, latencies in µs",
        args.clients,
        args.seconds,
        args.body.len(),
        answer.len()
    )?;
    write!(out, "{runs}")?;
    if let Some(own) = own {
        own.stop().await?;
    }
    Ok(())
}

/// Everything measured: ceiling and node each.
struct Runs {
    full: [Measured; 2],
    half: [Measured; 2],
    /// Requests a second asked for at half load.
    rate: u64,
}

impl fmt::Display for Runs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [full_ceiling, full_node] = &self.full;
        let [half_ceiling, half_node] = &self.half;
        let half = format!("half load, {}/s", self.rate);
        writeln!(
            f,
            "{:34} {:>10} {:>8} {:>8} {:>8} {:>8} {:>8}",
            "run", "req/s", "p50", "p99", "p99.9", "max", "errors"
        )?;
        for (load, who, run) in [
            ("full load", "ceiling", full_ceiling),
            ("full load", "node", full_node),
            (&half, "ceiling", half_ceiling),
            (&half, "node", half_node),
        ] {
            let at = |quantile| run.latency_us.value_at_quantile(quantile);
            writeln!(
                f,
                "{:34} {:>10.0} {:>8} {:>8} {:>8} {:>8} {:>8}",
                format!("{load}: {who}"),
                run.rate,
                at(0.5),
                at(0.99),
                at(0.999),
                run.latency_us.max(),
                run.errors
            )?;
        }
        let times = |quantile| {
            let of = |run: &Measured| run.latency_us.value_at_quantile(quantile).max(1) as f64;
            of(half_node) / of(half_ceiling)
        };
        writeln!(f, "full load: node / ceiling = {:.0} % of the requests", 100.0 * full_node.rate / full_ceiling.rate)?;
        writeln!(f, "half load: node / ceiling = {:.2} × p50, {:.2} × p99", times(0.5), times(0.99))
    }
}

/// A node in a process of its own, with a generated catalogue.
struct OwnNode {
    process: Child,
    target: Target,
}

impl OwnNode {
    async fn start(offers: usize) -> anyhow::Result<Self> {
        let mut process = tokio::process::Command::new(std::env::current_exe()?)
            .args(["serve", "--dev", "--ephemeral", "--listen", "127.0.0.1:0"])
            .env_remove("PROFFER_ADMIN_KEY_FILE")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = process.stdout.take().context("stdout is piped")?;
        let line = BufReader::new(stdout).lines().next_line().await?.context("the node did not start")?;
        let url = line.strip_prefix("listening on ").context("the node says where it listens")?.to_owned();
        let target = Target { url, key: DEV_KEY.to_owned(), tenant: DEV_TENANT.to_owned() };
        let client = Client::new(target.clone())?;
        let begin = Instant::now();
        generated::load(&client, offers).await?;
        eprintln!("{offers} offers loaded in {:.1} s", begin.elapsed().as_secs_f64());
        Ok(OwnNode { process, target })
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        Ok(self.process.kill().await?)
    }
}

/// Arguments of the hidden `proffer ceiling`: the process that a bench compares the node with.
#[derive(Debug, clap::Args)]
pub struct CeilingArgs {
    /// The JSON answer to give.
    answer: String,
}

/// Serves the ceiling on a free port, prints its base URL, and runs until killed.
///
/// # Errors
/// When no port can be had or the answer is no JSON.
pub async fn serve_ceiling(args: CeilingArgs) -> anyhow::Result<()> {
    let answer: Arc<Value> = Arc::new(serde_json::from_str(&args.answer)?);
    let handler = move |axum::Json(request): axum::Json<Value>| {
        let answer = Arc::clone(&answer);
        async move {
            // The parsed request must not be optimised away.
            std::hint::black_box(&request);
            let bytes = serde_json::to_vec(&*answer).expect("a JSON value serialises");
            ([("content-type", "application/json")], bytes)
        }
    };
    let router = Router::new().route("/api/v1/{*path}", post(handler));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    writeln!(std::io::stdout(), "http://{}", listener.local_addr()?)?;
    // Accepted as the node's are, so that only what answers differs.
    let Server { drain: _never, ended } = listen::serve(listener, router);
    Ok(ended.await?)
}

/// One keep-alive connection.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    authority: String,
}

impl Connection {
    /// Connects.
    pub(super) async fn open(target: &Target) -> anyhow::Result<Self> {
        let authority = target.url.strip_prefix("http://").context("bench speaks plain http://")?;
        let authority = authority.trim_end_matches('/').to_owned();
        let stream = TcpStream::connect(&authority).await.with_context(|| format!("cannot reach {authority}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Connection { sender, authority })
    }

    /// Sends request `number`; whether it was answered 2xx.
    async fn call(&mut self, args: &BenchArgs, number: u64) -> anyhow::Result<bool> {
        let (status, _) = self.send(&args.target, Method::POST, &args.path, body(args, number)).await?;
        Ok(status.is_success())
    }

    /// Sends a JSON body under `/api/v1`, and gives status and body of the answer.
    pub(super) async fn send(
        &mut self,
        target: &Target,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let request = hyper::Request::builder()
            .method(method)
            .uri(format!("/api/v1{path}"))
            .header("Host", &self.authority)
            .header("X-API-Key", &target.key)
            .header("X-Tenant-Id", &target.tenant)
            .header("Content-Type", "application/json")
            .body(Full::new(Bytes::from(body)))?;
        self.sender.ready().await?;
        let answer = self.sender.send_request(request).await?;
        let status = answer.status();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }
}

fn body(args: &BenchArgs, number: u64) -> Vec<u8> {
    args.body.replace("{n}", &(number % args.customers.max(1)).to_string()).into_bytes()
}

/// Every client asks again as soon as it is answered: finds the highest rate.
async fn closed_loop(target: &Target, args: &BenchArgs, seconds: u64) -> anyhow::Result<Measured> {
    let numbers = Arc::new(AtomicU64::new(0));
    run_workers(target, args, args.clients, move |begin| {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        (begin.elapsed() < Duration::from_secs(seconds)).then(|| (number, Instant::now()))
    })
    .await
}

/// Requests start on schedule; latency counts from the schedule.
async fn open_loop(target: &Target, args: &BenchArgs, rate: u64) -> anyhow::Result<Measured> {
    let total = rate * args.seconds;
    let next = Arc::new(AtomicU64::new(0));
    // More workers than clients, so that the schedule is kept while some wait.
    run_workers(target, args, args.clients * 4, move |begin| {
        let number = next.fetch_add(1, Ordering::Relaxed);
        (number < total).then(|| (number, begin + Duration::from_nanos(number * 1_000_000_000 / rate)))
    })
    .await
}

/// `workers` connections that each ask `schedule` for their next request (number and start) until it gives none.
async fn run_workers(
    target: &Target,
    args: &BenchArgs,
    workers: usize,
    schedule: impl Fn(Instant) -> Option<(u64, Instant)> + Clone + Send + 'static,
) -> anyhow::Result<Measured> {
    ensure!(workers > 0, "at least one client is needed");
    let mut connections = Vec::with_capacity(workers);
    for _ in 0..workers {
        connections.push(Connection::open(target).await?);
    }
    let begin = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for mut connection in connections {
        let (args, schedule) = (args.clone(), schedule.clone());
        tasks.spawn(async move {
            let (mut latency, mut errors) = (histogram(), 0);
            while let Some((number, start)) = schedule(begin) {
                tokio::time::sleep_until(start).await;
                errors += u64::from(!connection.call(&args, number).await?);
                latency.saturating_record(start.elapsed().as_micros() as u64);
            }
            anyhow::Ok((latency, errors))
        });
    }
    let mut parts = Vec::new();
    while let Some(part) = tasks.join_next().await {
        parts.push(part??);
    }
    collect(parts, begin)
}

fn collect(parts: Vec<(Histogram<u64>, u64)>, begin: Instant) -> anyhow::Result<Measured> {
    let elapsed = begin.elapsed().as_secs_f64();
    let (mut latency_us, mut errors) = (histogram(), 0);
    for (latency, failed) in parts {
        latency_us.add(latency).context("histograms share bounds")?;
        errors += failed;
    }
    Ok(Measured { rate: latency_us.len() as f64 / elapsed, errors, latency_us })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rates_and_counts_that_mean_nothing_are_refused_by_name() {
        use clap::CommandFactory;
        for (option, value) in [
            ("--rate", "0"),
            ("--rate", "18446744073709551615"),
            ("--rate", "-5"),
            ("--seconds", "0"),
            ("--seconds", "100000"),
            ("--clients", "0"),
            ("--customers", "0"),
            ("--offers", "0"),
        ] {
            let given = format!("{option}={value}");
            let refused = crate::cli::Cli::command().try_get_matches_from(["proffer", "bench", &given]);
            let said = refused.expect_err(&given).to_string();
            assert!(said.contains(option) && said.contains(value), "{said}");
        }
    }

    #[test]
    fn the_template_numbers_customers_within_bounds() {
        use clap::Parser;
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            args: BenchArgs,
        }
        let args = Line::parse_from(["bench", "--body", r#"{"customerId":"c{n}"}"#, "--customers", "10"]).args;
        assert_eq!(body(&args, 23), br#"{"customerId":"c3"}"#);
        assert_eq!(serde_json::from_slice::<Value>(&body(&args, 5)).unwrap(), json!({"customerId": "c5"}));
    }

    fn measured(rate: f64, latencies_us: &[u64]) -> Measured {
        let mut latency_us = histogram();
        for latency in latencies_us {
            latency_us.saturating_record(*latency);
        }
        Measured { rate, errors: 0, latency_us }
    }

    #[test]
    fn latencies_are_kept_to_three_digits_and_no_stall_is_cut_off() {
        let run = measured(1.0, &[1, 1_500, 5_000_000, 2 * LATENCY_US_MAX]);
        let recorded: Vec<u64> = run.latency_us.iter_recorded().map(|at| at.value_iterated_to()).collect();
        let near = |value: u64, wanted: u64| value.abs_diff(wanted) * 500 <= wanted;
        assert!(near(recorded[1], 1_500) && near(recorded[2], 5_000_000), "{recorded:?}");
        assert!(recorded[0] == 1 && recorded[3] >= LATENCY_US_MAX, "{recorded:?}");
    }

    #[test]
    fn a_stall_of_a_closed_loop_counts_for_every_request_it_held_up() {
        // Two clients at 1,000 requests a second: one each 2 ms.
        let run = measured(1_000.0, &[[1_000; 99].as_slice(), &[200_000]].concat()).corrected(2);
        assert_eq!(run.latency_us.len(), 99 + 100);
        assert!(run.latency_us.value_at_quantile(0.9) > 100_000);
    }

    #[test]
    fn the_table_has_both_loads_and_their_ratios() {
        let runs = Runs {
            full: [measured(4_000.0, &[100]), measured(1_000.0, &[400])],
            half: [measured(500.0, &[100]), measured(500.0, &[150])],
            rate: 500,
        };
        let table = runs.to_string();
        assert!(table.contains("full load: node / ceiling = 25 % of the requests"), "{table}");
        assert!(table.contains("half load: node / ceiling = 1.50 × p50, 1.50 × p99"), "{table}");
        assert_eq!(table.lines().count(), 7);
    }
}
