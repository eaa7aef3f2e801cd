//! `proffer bench --cluster`: three real nodes on loopback with synced logs, 64 clients that ask all of them.
//!
//! The ceiling is the smallest write that takes the same road (a profile of one attribute: HTTP, perhaps another node, the shard's log on
//! two disks); what a decision that takes costs more is the ratio. How long this machine's disk takes to sync stands beside it.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::cli::bench::{Connection, histogram};
use crate::cli::demo_cluster::Directory;
use crate::client::{Client, Target};
use crate::demo::generated;
use crate::limits::CLUSTER_READY_MAX;
use crate::processes::{NodeProcess, addresses, wait_whole};

const NODES: u16 = 3;
const CLIENTS: usize = 64;
const CUSTOMERS: u64 = 20_000;
/// Of them, those that are read: written before, whatever the machine.
const READ: u64 = 500;
const CATALOGUE_WRITES: usize = 100;
/// Units of the pool whose last ones are raced for.
const POOL: u64 = 100;
/// Leaders killed, one after the other.
const FAILOVERS: usize = 9;
/// How soon it is asked again whether a dead leader's customer is served.
const ASK_AGAIN: Duration = Duration::from_millis(5);
/// How long that race goes on at most: shorter than units are reserved for.
const RACE_MAX: Duration = Duration::from_secs(60);
const SYNCS: usize = 200;

/// What a client does with its connection again and again; whether it was done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// A profile of one attribute.
    Put,
    /// The same profile is read: no log has a part in it.
    Get,
    /// A recommend that reserves a unit.
    Take,
    /// A recommend that reserves a unit, and the impression that confirms it.
    TakeAndRespond,
}

/// One row of the table.
struct Row {
    what: String,
    per_second: f64,
    latency_us: Histogram<u64>,
    errors: u64,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |quantile| self.latency_us.value_at_quantile(quantile) as f64 / 1e3;
        let (p50, p99, worst) = (at(0.5), at(0.99), self.latency_us.max() as f64 / 1e3);
        write!(f, "{:52} {:>9.0} {p50:>8.2} {p99:>8.2} {worst:>8.1} {:>7}", self.what, self.per_second, self.errors)
    }
}

/// Runs the command.
///
/// # Errors
/// When a node does not start or refuses what it is given.
pub(super) async fn run(offers: usize, seconds: u64) -> anyhow::Result<()> {
    let directory = Directory::new()?;
    let synced = syncs(directory.path())?;
    let mut nodes = Vec::new();
    let addresses = addresses(0, NODES).await?;
    let first = addresses.first().map(|[_, peer]| *peer);
    for (number, pair) in (1..).zip(&addresses) {
        let join = first.filter(|_| number > 1);
        nodes.push(NodeProcess::start(number, *pair, join, directory.path()).await?);
    }
    let targets: Vec<Target> =
        nodes.iter().map(|node| Ok(node.client()?.target().clone())).collect::<anyhow::Result<_>>()?;
    let targets: Arc<[Target]> = targets.into();
    let client = nodes.first().context("there are three")?.client()?;
    wait_whole(&client, usize::from(NODES), CLUSTER_READY_MAX).await?;
    let begun = Instant::now();
    generated::load(&client, offers).await?;
    eprintln!("{offers} offers loaded in {:.1} s", begun.elapsed().as_secs_f64());
    let caps = json!([{"scope": "profile", "limit": 1_000, "reservationSeconds": 3_600}]);
    client.post("/channels", &json!({"name": "taking"})).await?;
    let body = json!({"name": "taken", "status": "active", "priority": 100, "businessValue": 100, "caps": caps});
    let taken = client.post("/offers?wait=all", &body).await?;

    let mut out = std::io::stdout().lock();
    let sync = |quantile| synced.value_at_quantile(quantile) as f64 / 1e3;
    writeln!(
        out,
        "{NODES} nodes, {CLIENTS} clients, {offers} offers, {seconds} s each; fdatasync of 4 KiB here: p50 {:.2} ms, p99 {:.2} ms",
        sync(0.5),
        sync(0.99)
    )?;
    writeln!(out, "{:52} {:>9} {:>8} {:>8} {:>8} {:>7}", "run", "per s", "p50 ms", "p99 ms", "max ms", "errors")?;
    drive(&targets, Deed::Put, 1).await?;
    let put = drive(&targets, Deed::Put, seconds).await?;
    writeln!(out, "{put}\n{}", drive(&targets, Deed::Get, seconds).await?)?;
    for deed in [Deed::Take, Deed::TakeAndRespond] {
        let row = drive(&targets, deed, seconds).await?;
        writeln!(out, "{row}\n    = {:.0} % of the smallest write", 100.0 * row.per_second / put.per_second)?;
    }
    let id = taken["id"].as_str().context("an offer has an id")?;
    writeln!(out, "{}", catalogue_writes(&client, id).await?)?;
    client.put(&format!("/offers/{id}"), &json!({"name": "taken", "status": "archived"})).await?;
    writeln!(out, "{}", last_units(&client, &targets).await?)?;
    writeln!(out, "{}", failovers(&mut nodes, &addresses, directory.path()).await?)?;
    out.flush()?;
    for node in &nodes {
        node.terminate();
    }
    for node in nodes {
        node.wait().await?;
    }
    Ok(())
}

/// How long the disk under `directory` takes to make 4 KiB durable.
fn syncs(directory: &Path) -> anyhow::Result<Histogram<u64>> {
    let mut file = OpenOptions::new().create(true).append(true).open(directory.join("sync"))?;
    let mut latency = histogram();
    for _ in 0..SYNCS {
        file.write_all(&[7; 4_096])?;
        let begun = Instant::now();
        file.sync_data()?;
        latency.saturating_record(begun.elapsed().as_micros() as u64);
    }
    Ok(latency)
}

/// All clients do the same for some seconds, each at one node, spread over all.
async fn drive(targets: &Arc<[Target]>, deed: Deed, seconds: u64) -> anyhow::Result<Row> {
    let numbers = Arc::new(AtomicU64::new(0));
    let until = Instant::now() + Duration::from_secs(seconds);
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for client in 0..CLIENTS {
        let (target, numbers) = (targets[client % targets.len()].clone(), Arc::clone(&numbers));
        let mut connection = Connection::open(&target).await?;
        tasks.spawn(async move {
            let (mut latency, mut errors) = (histogram(), 0_u64);
            while Instant::now() < until {
                let number = numbers.fetch_add(1, Ordering::Relaxed);
                let begun = Instant::now();
                errors += u64::from(!perform(&mut connection, &target, deed, number).await?);
                latency.saturating_record(begun.elapsed().as_micros() as u64);
            }
            anyhow::Ok((latency, errors))
        });
    }
    let (mut latency_us, mut errors) = (histogram(), 0);
    while let Some(part) = tasks.join_next().await {
        let (latency, failed) = part??;
        latency_us.add(latency).context("histograms share bounds")?;
        errors += failed;
    }
    let what = match deed {
        Deed::Put => "smallest write: a profile of one attribute",
        Deed::Get => "its read, which no log has a part in",
        Deed::Take => "recommend that reserves",
        Deed::TakeAndRespond => "recommend that reserves + respond (pairs)",
    };
    let per_second = latency_us.len() as f64 / begun.elapsed().as_secs_f64();
    Ok(Row { what: what.to_owned(), per_second, latency_us, errors })
}

async fn perform(connection: &mut Connection, target: &Target, deed: Deed, number: u64) -> anyhow::Result<bool> {
    let customer = format!("taker-{}", number % if deed == Deed::Get { READ } else { CUSTOMERS });
    if deed == Deed::Put {
        let body = json!({"attributes": {"age": number % 90}}).to_string().into_bytes();
        let (status, _) = connection.send(target, Method::PUT, &format!("/profiles/{customer}"), body).await?;
        return Ok(status.is_success());
    }
    if deed == Deed::Get {
        let (status, _) = connection.send(target, Method::GET, &format!("/profiles/{customer}"), Vec::new()).await?;
        return Ok(status.is_success());
    }
    let Some(answer) = take(connection, target, &customer, "taking").await? else { return Ok(false) };
    if deed == Deed::Take {
        return Ok(is_of(&answer, "taken"));
    }
    let body = json!({"customerId": customer, "recommendationId": answer["recommendationId"], "rank": 1,
        "outcome": "impression", "idempotencyKey": format!("i-{number}")});
    let (status, _) = connection.send(target, Method::POST, "/respond", body.to_string().into_bytes()).await?;
    Ok(status.is_success())
}

/// A decision of one offer, if it was made.
async fn take(
    connection: &mut Connection,
    target: &Target,
    customer: &str,
    channel: &str,
) -> anyhow::Result<Option<Value>> {
    let body = json!({"customerId": customer, "channel": channel, "limit": 1}).to_string().into_bytes();
    let (status, answer) = connection.send(target, Method::POST, "/recommend", body).await?;
    Ok(if status.is_success() { Some(serde_json::from_slice(&answer)?) } else { None })
}

/// Whether an answer proposes the offer of this name.
fn is_of(answer: &Value, offer: &str) -> bool {
    answer["decisions"][0]["offerName"] == offer
}

/// One offer is changed again and again; each answer says that every node decides by it.
async fn catalogue_writes(client: &Client, offer: &str) -> anyhow::Result<Row> {
    let (mut latency_us, begun) = (histogram(), Instant::now());
    for number in 0..CATALOGUE_WRITES {
        let body = json!({"shortDesc": format!("changed {number} times")});
        let begun = Instant::now();
        client.put(&format!("/offers/{offer}?wait=all"), &body).await.context("a catalogue write")?;
        latency_us.saturating_record(begun.elapsed().as_micros() as u64);
    }
    let per_second = CATALOGUE_WRITES as f64 / begun.elapsed().as_secs_f64();
    Ok(Row { what: "catalogue write in force on all nodes (one by one)".to_owned(), per_second, latency_us, errors: 0 })
}

/// All clients want the units of one small pool, in all shards, until every one is taken.
async fn last_units(client: &Client, targets: &Arc<[Target]>) -> anyhow::Result<String> {
    let cap = json!({"scope": "global", "limit": POOL, "reservationSeconds": 2 * RACE_MAX.as_secs()});
    let body = json!({"name": "scarce", "status": "active", "priority": 100, "businessValue": 100, "caps": [cap]});
    let scarce = client.post("/offers?wait=all", &body).await?;
    let (taken, asked) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..CLIENTS {
        let target = targets[number % targets.len()].clone();
        let (taken, asked) = (Arc::clone(&taken), Arc::clone(&asked));
        let mut connection = Connection::open(&target).await?;
        tasks.spawn(async move {
            while taken.load(Ordering::Relaxed) < POOL && begun.elapsed() < RACE_MAX {
                let customer = format!("last-{}", asked.fetch_add(1, Ordering::Relaxed));
                let answer = take(&mut connection, &target, &customer, "taking").await?;
                // Offers that are not scarce take its place where it is not to be had.
                let is_scarce = answer.is_some_and(|answer| is_of(&answer, "scarce"));
                taken.fetch_add(u64::from(is_scarce), Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    let took = begun.elapsed();
    let id = scarce["id"].as_str().context("an offer has an id")?;
    let budget = client.get(&format!("/offers/{id}/budget")).await?;
    let ended = client.put(&format!("/offers/{id}"), &json!({"name": "scarce", "status": "archived"})).await?;
    // A revision is the place of its entry in the log of the meta group: between two of them lie the ledger's.
    let revision = |offer: &Value| offer["revision"].as_u64().context("an offer has a revision");
    let commits = revision(&ended)? - revision(&scarce)? - 1;
    let (taken, asked) = (taken.load(Ordering::Relaxed), asked.load(Ordering::Relaxed));
    ensure!(taken == POOL, "{taken} units of a pool of {POOL} were taken in {} s: {budget}", took.as_secs());
    Ok(format!(
        "last units: {taken} of {POOL} taken in {:.2} s, by {asked} requests; {:.1} meta commits a unit",
        took.as_secs_f64(),
        commits as f64 / taken.max(1) as f64
    ))
}

/// Again and again the node is killed that leads a customer's shard; how long it takes until another serves the customer.
async fn failovers(
    nodes: &mut Vec<NodeProcess>,
    addresses: &[[SocketAddr; 2]],
    directory: &Path,
) -> anyhow::Result<String> {
    let mut latency_us = histogram();
    for round in 0..FAILOVERS {
        let customer = format!("taker-{round}");
        let client = nodes.first().context("there are three")?.client()?;
        let path = format!("/cluster/locate?customerId={customer}");
        let there = client.call(Method::GET, &path, &Value::Null).await?;
        let leads = |pair: &[SocketAddr; 2]| there["httpAddress"] == pair[0].to_string();
        let leader = addresses.iter().position(leads).context("a node of this cluster leads")?;
        let other = nodes[(leader + 1) % nodes.len()].client()?;
        let begun = Instant::now();
        nodes.remove(leader).kill().await?;
        let write = json!({"attributes": {"age": round}});
        while let Err(error) = other.put(&format!("/profiles/{customer}"), &write).await {
            ensure!(begun.elapsed() < CLUSTER_READY_MAX, "customer {customer} is not served: {error:#}");
            sleep(ASK_AGAIN).await;
        }
        latency_us.saturating_record(begun.elapsed().as_micros() as u64);
        let join = addresses.iter().enumerate().find(|(number, _)| *number != leader).map(|(_, [_, peer])| *peer);
        let number = u16::try_from(leader + 1)?;
        nodes.insert(leader, NodeProcess::start(number, addresses[leader], join, directory).await?);
        wait_whole(&other, usize::from(NODES), CLUSTER_READY_MAX).await?;
    }
    let ms = |us: u64| us as f64 / 1e3;
    Ok(format!(
        "failover of a shard (SIGKILL of its leader): worst of {FAILOVERS} {:.0} ms, median {:.0} ms",
        ms(latency_us.max()),
        ms(latency_us.value_at_quantile(0.5))
    ))
}
