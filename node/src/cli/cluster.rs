//! `proffer cluster …`: what operators ask of a cluster and have it do, over HTTP through any of its nodes.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::Context;
use clap::{Subcommand, ValueEnum};
use reqwest::{Method, Url};
use serde_json::{Value, json};

use crate::cli::table;
use crate::client::{Client, Target};

/// Arguments of `proffer cluster`.
#[derive(Debug, clap::Args)]
pub struct ClusterArgs {
    #[command(subcommand)]
    command: ClusterCommand,
    /// How answers are written.
    #[arg(long, value_enum, default_value = "table", global = true)]
    output: Output,
    #[command(flatten)]
    target: Target,
}

/// How answers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// As the node sent them.
    Json,
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Nodes, and how many of them may be lost.
    Status,
    /// Groups: who leads them, their members, and what is to become of them.
    Shards,
    /// Where a customer's profile lives.
    Locate {
        /// Its id.
        customer: String,
    },
    /// Empty a node: leaderships first, then replicas. It goes on serving clients.
    Drain {
        /// Like n3.
        #[arg(value_parser = node_id)]
        node: String,
    },
    /// Take a drain back.
    Undrain {
        /// Like n3.
        #[arg(value_parser = node_id)]
        node: String,
    },
    /// Take an empty or dead node out of the cluster for ever.
    Remove {
        /// Like n3.
        #[arg(value_parser = node_id)]
        node: String,
        /// Accept fewer replicas than before.
        #[arg(long)]
        reduce_redundancy: bool,
    },
    /// Have another node lead a shard.
    Transfer {
        /// Its number, or `meta`: the catalogue.
        #[arg(value_parser = shard_id)]
        shard: String,
        /// Like n3; it must have a replica that votes.
        #[arg(value_parser = node_id)]
        node: String,
    },
    /// Begin a shard anew whose majority is lost for good, with the freshest replica that is left.
    Recover {
        /// Its number.
        #[arg(long)]
        shard: u16,
        /// What only the lost replicas knew may be lost. Without it nothing is done but telling what that may be.
        #[arg(long)]
        accept_loss: bool,
    },
    /// Spread leaderships and replicas evenly.
    Rebalance,
}

/// `n3` or `3`, as `n3`.
fn node_id(text: &str) -> Result<String, String> {
    match text.strip_prefix('n').unwrap_or(text).parse::<u64>() {
        Ok(number) if number > 0 => Ok(format!("n{number}")),
        Ok(_) | Err(_) => Err("must be a node's id, like n3".to_owned()),
    }
}

fn shard_id(text: &str) -> Result<String, String> {
    match text {
        "meta" => Ok(text.to_owned()),
        number => number
            .parse::<u16>()
            .map(|number| number.to_string())
            .map_err(|_| "must be a shard's number, or meta".to_owned()),
    }
}

impl ClusterCommand {
    /// Method, path and body of the call.
    fn call(&self) -> anyhow::Result<(Method, String, Value)> {
        let change = |path: String, body: Value| Ok((Method::POST, path, body));
        let none = || json!({});
        match self {
            ClusterCommand::Status => Ok((Method::GET, "/cluster/status".to_owned(), Value::Null)),
            ClusterCommand::Shards => Ok((Method::GET, "/cluster/shards".to_owned(), Value::Null)),
            ClusterCommand::Locate { customer } => {
                let url = Url::parse_with_params("http://node/cluster/locate", [("customerId", customer)])?;
                Ok((Method::GET, format!("{}?{}", url.path(), url.query().unwrap_or_default()), Value::Null))
            }
            ClusterCommand::Drain { node } => change(format!("/cluster/nodes/{node}/drain"), none()),
            ClusterCommand::Undrain { node } => change(format!("/cluster/nodes/{node}/undrain"), none()),
            ClusterCommand::Remove { node, reduce_redundancy } => {
                change(format!("/cluster/nodes/{node}/remove"), json!({"reduceRedundancy": reduce_redundancy}))
            }
            ClusterCommand::Transfer { shard, node } => {
                change(format!("/cluster/shards/{shard}/transfer"), json!({"node": node}))
            }
            ClusterCommand::Recover { shard, accept_loss } => {
                change(format!("/cluster/shards/{shard}/recover"), json!({"acceptLoss": accept_loss}))
            }
            ClusterCommand::Rebalance => change("/cluster/rebalance".to_owned(), none()),
        }
    }

    /// An answer to it, for people.
    fn render(&self, answer: &Value) -> String {
        match self {
            ClusterCommand::Status => status(answer),
            ClusterCommand::Shards => shards(answer),
            ClusterCommand::Locate { .. } => location(answer),
            ClusterCommand::Drain { .. }
            | ClusterCommand::Undrain { .. }
            | ClusterCommand::Remove { .. }
            | ClusterCommand::Transfer { .. }
            | ClusterCommand::Recover { .. }
            | ClusterCommand::Rebalance => format!("{}\n", table::text(&answer["message"])),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// When the node refuses or cannot be reached.
pub async fn run(args: ClusterArgs) -> anyhow::Result<()> {
    let client = Client::new(args.target)?;
    let (method, path, body) = args.command.call()?;
    let answer = client.call(method, &path, &body).await?;
    let mut out = std::io::stdout().lock();
    match args.output {
        Output::Table => write!(out, "{}", args.command.render(&answer)),
        Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&answer)?),
    }
    .context("cannot write the answer")
}

/// The nodes of an answer to `status`.
pub fn status(answer: &Value) -> String {
    let mut nodes = table::new_table(&["node", "zone", "clients", "nodes", "state", "leads", "replicas"]);
    let listed = answer["nodes"].as_array().into_iter().flatten();
    for node in listed {
        let standing = table::text(&node["standing"]);
        let state = match (node["isUp"] == true, standing.as_str()) {
            (true, _) => standing,
            (false, "up") => "down".to_owned(),
            (false, _) => format!("{standing}, down"),
        };
        nodes.add_row([
            table::text(&node["node"]),
            table::text(&node["zone"]),
            table::text(&node["httpAddress"]),
            table::text(&node["peerAddress"]),
            state,
            table::text(&node["leads"]),
            table::text(&node["replicas"]),
        ]);
    }
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "cluster {} · {} shards · redundancy: {} · catalogue: revision {}, led by {}",
        table::text(&answer["cluster"]),
        table::text(&answer["shards"]),
        table::text(&answer["redundancy"]),
        table::text(&answer["catalogRevision"]),
        answer["metaLeader"].as_str().unwrap_or("nobody"),
    );
    let _ = writeln!(out, "{nodes}");
    for reason in answer["reasons"].as_array().into_iter().flatten() {
        let _ = writeln!(out, "{} says: {}", table::text(&answer["node"]), table::text(reason));
    }
    out
}

fn shards(answer: &Value) -> String {
    let mut shards = table::new_table(&["shard", "led by", "term", "voters", "learners", "becoming"]);
    let names = |list: &Value| {
        let names: Vec<_> = list.as_array().into_iter().flatten().map(table::text).collect();
        names.join(" ")
    };
    for shard in answer["shards"].as_array().into_iter().flatten() {
        let target = &shard["target"];
        let becoming = match (target.is_null(), names(&target["learners"]).as_str()) {
            (true, _) => String::new(),
            (false, "") => names(&target["voters"]),
            (false, learners) => format!("{} + {learners}", names(&target["voters"])),
        };
        shards.add_row([
            table::text(&shard["shard"]),
            shard["leader"].as_str().unwrap_or("nobody").to_owned(),
            table::text(&shard["term"]),
            names(&shard["voters"]),
            names(&shard["learners"]),
            becoming,
        ]);
    }
    let mut out = format!("{shards}\n");
    for shard in answer["shards"].as_array().into_iter().flatten().filter(|shard| !shard["recovered"].is_null()) {
        let recovered = &shard["recovered"];
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "shard {} was begun anew by {} at {}: generation {}",
            table::text(&shard["shard"]),
            table::text(&recovered["by"]),
            table::text(&recovered["at"]),
            table::text(&recovered["generation"]),
        );
    }
    out
}

fn location(answer: &Value) -> String {
    let leader = match (answer["leader"].as_str(), answer["httpAddress"].as_str()) {
        (Some(node), Some(address)) => format!("{node} at {address}"),
        (Some(node), None) => node.to_owned(),
        (None, _) => "nobody at the moment".to_owned(),
    };
    format!("shard {}, led by {leader}\n", table::text(&answer["shard"]))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        cluster: ClusterArgs,
    }

    fn parse(line: &str) -> Result<ClusterArgs, clap::Error> {
        Ok(Line::try_parse_from(["cluster"].into_iter().chain(line.split_whitespace()))?.cluster)
    }

    #[test]
    fn each_command_is_one_call() {
        for (line, method, path, body) in [
            ("status", Method::GET, "/cluster/status", Value::Null),
            ("shards --output json", Method::GET, "/cluster/shards", Value::Null),
            ("locate a&b=%é", Method::GET, "/cluster/locate?customerId=a%26b%3D%25%C3%A9", Value::Null),
            ("drain n2", Method::POST, "/cluster/nodes/n2/drain", json!({})),
            ("undrain 2", Method::POST, "/cluster/nodes/n2/undrain", json!({})),
            ("remove n2", Method::POST, "/cluster/nodes/n2/remove", json!({"reduceRedundancy": false})),
            (
                "remove n2 --reduce-redundancy",
                Method::POST,
                "/cluster/nodes/n2/remove",
                json!({"reduceRedundancy": true}),
            ),
            ("transfer 07 n3", Method::POST, "/cluster/shards/7/transfer", json!({"node": "n3"})),
            ("transfer meta n3", Method::POST, "/cluster/shards/meta/transfer", json!({"node": "n3"})),
            ("recover --shard 7", Method::POST, "/cluster/shards/7/recover", json!({"acceptLoss": false})),
            ("recover --shard 7 --accept-loss", Method::POST, "/cluster/shards/7/recover", json!({"acceptLoss": true})),
            ("rebalance", Method::POST, "/cluster/rebalance", json!({})),
        ] {
            let call = parse(line).unwrap().command.call().unwrap();
            assert_eq!(call, (method, path.to_owned(), body), "{line}");
        }
    }

    #[test]
    fn what_is_no_node_or_shard_is_refused_before_a_call() {
        for line in [
            "drain",
            "drain n0",
            "drain web",
            "transfer n1 n2",
            "transfer 1",
            "transfer 70000 n1",
            "recover",
            "recover --shard meta",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn answers_are_tables() {
        let answer = json!({"cluster": "c0ffee", "node": "n1", "metaLeader": "n2", "catalogRevision": 9, "shards": 4,
            "redundancy": "one node", "reasons": ["nobody leads shard 3"], "nodes": [
            {"node": "n1", "zone": "a", "httpAddress": "h:1", "peerAddress": "h:2", "standing": "up", "isUp": true, "leads": 3, "replicas": 5},
            {"node": "n2", "zone": "b", "httpAddress": "i:1", "peerAddress": "i:2", "standing": "draining", "isUp": false, "leads": 0, "replicas": 2}]});
        let said = status(&answer);
        for part in ["one node", "led by n2", "draining, down", "h:1", "nobody leads shard 3"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let said = shards(&json!({"shards": [{"shard": "meta", "leader": null, "term": 4, "voters": ["n1"],
            "learners": ["n2"], "target": {"voters": ["n1", "n2", "n3"], "learners": ["n4"]},
            "recovered": {"generation": 2, "by": "admin of acme", "at": "2026-11-22T12:00:00Z"}}]}));
        for part in
            ["meta", "nobody", "n1 n2 n3 + n4", "begun anew by admin of acme at 2026-11-22T12:00:00Z: generation 2"]
        {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert_eq!(location(&json!({"shard": 3, "leader": "n1", "httpAddress": "h:1"})), "shard 3, led by n1 at h:1\n");
        assert_eq!(location(&json!({"shard": 3, "leader": null})), "shard 3, led by nobody at the moment\n");
    }
}
