//! `/cluster/…`: nodes, groups, and what operators do to them.

use std::sync::Arc;

use axum::http::StatusCode;
use bincode::{Decode, Encode};
use proffer_cluster::calls::{ClusterReport, GroupReport, NodeReport, Operation, RecoveryReport};
use proffer_cluster::group::Group;
use proffer_cluster::meta::roster::NodeStanding;
use proffer_engine::calendar::iso;
use proffer_engine::keys::{CustomerId, ShardId};
use proffer_engine::model::fault::Faults;
use proffer_engine::model::record::Field;
use proffer_engine::record;
use proffer_engine::value::Value;

use crate::asked::{Asked, typed};
use crate::problem::Problem;
use crate::routes::Answered;
use crate::v1::json;

/// A node as clients write it: `n3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NodeName(u64);

impl NodeName {
    fn parse(text: &str) -> Option<NodeName> {
        let number = text.strip_prefix('n')?;
        let is_plain = !number.starts_with('0') && number.bytes().all(|digit| digit.is_ascii_digit());
        if is_plain { number.parse().ok().map(NodeName) } else { None }
    }
}

impl std::fmt::Display for NodeName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "n{}", self.0)
    }
}

impl serde::Serialize for NodeName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Field for NodeName {
    fn read(value: &Value, faults: &mut Faults) -> Option<Self> {
        let name = value.as_text().and_then(NodeName::parse);
        if name.is_none() {
            faults.add(NO_NODE);
        }
        name
    }

    fn write(&self) -> Value {
        Value::text(self.to_string())
    }
}

const NO_NODE: &str = "must be a node's id, like n3";

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    cluster: String,
    /// The node that says all this.
    node: NodeName,
    is_ready: bool,
    reasons: Vec<String>,
    catalog_revision: u64,
    meta_leader: Option<NodeName>,
    shards: u16,
    redundancy: String,
    nodes: Vec<Node>,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    node: NodeName,
    peer_address: String,
    http_address: String,
    zone: String,
    standing: &'static str,
    is_up: bool,
    leads: usize,
    replicas: usize,
}

impl From<NodeReport> for Node {
    fn from(report: NodeReport) -> Self {
        Node {
            node: NodeName(report.node),
            peer_address: report.peer_address,
            http_address: report.http_address,
            zone: report.zone,
            standing: match report.standing {
                NodeStanding::Up => "up",
                NodeStanding::Draining => "draining",
                NodeStanding::Removing => "removing",
            },
            is_up: report.is_up,
            leads: report.leads,
            replicas: report.replicas,
        }
    }
}

#[derive(serde::Serialize)]
struct Shards {
    shards: Vec<Shard>,
}

#[derive(serde::Serialize)]
struct Shard {
    shard: ShardName,
    leader: Option<NodeName>,
    term: u64,
    voters: Vec<NodeName>,
    learners: Vec<NodeName>,
    /// Voters that get a new replica in place of one that was given up.
    renewing: Vec<NodeName>,
    /// What they are to become, while they are not.
    target: Option<Target>,
    /// How often it was begun anew, and the last time, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<Recovered>,
}

#[derive(serde::Serialize)]
struct Recovered {
    generation: u64,
    by: String,
    at: String,
}

#[derive(serde::Serialize)]
#[serde(untagged)]
enum ShardName {
    Number(u16),
    Meta(&'static str),
}

const META: &str = "meta";

#[derive(serde::Serialize)]
struct Target {
    voters: Vec<NodeName>,
    learners: Vec<NodeName>,
}

impl From<GroupReport> for Shard {
    fn from(report: GroupReport) -> Self {
        let target =
            report.target.map(|(voters, learners)| Target { voters: names(voters), learners: names(learners) });
        Shard {
            shard: report.shard.map_or(ShardName::Meta(META), |shard| ShardName::Number(shard.0)),
            leader: report.leader.map(NodeName),
            term: report.term,
            voters: names(report.voters),
            learners: names(report.learners),
            renewing: names(report.renewing),
            target,
            recovered: report.recovery.map(|RecoveryReport { generation, by, at }| Recovered {
                generation,
                by,
                at: iso(at),
            }),
        }
    }
}

fn names(nodes: Vec<u64>) -> Vec<NodeName> {
    nodes.into_iter().map(NodeName).collect()
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Location<'a> {
    customer_id: &'a str,
    shard: u16,
    leader: Option<NodeName>,
    http_address: Option<String>,
}

#[derive(serde::Serialize)]
struct Done {
    message: String,
}

record! {
    /// Body of `remove`.
    pub struct Remove {
        /// Shards may have fewer replicas than now.
        pub reduce_redundancy: bool => "reduceRedundancy" = false,
    }
}

record! {
    /// Body of `recover`.
    pub struct Recover {
        /// What only the lost replicas knew may be lost.
        pub accept_loss: bool => "acceptLoss" = false,
    }
}

record! {
    /// Body of `transfer`.
    pub struct Transfer {
        /// Which node is to lead.
        pub node: NodeName => "node",
    }
}

/// `GET /cluster/status`.
pub async fn status(asked: Arc<Asked>) -> Answered {
    asked.query.only(&[])?;
    let (report, health) = (asked.handle().report(), asked.handle().status());
    let answer = Status {
        cluster: format!("{:032x}", report.cluster),
        node: NodeName(report.node),
        is_ready: health.ready,
        reasons: health.reasons,
        catalog_revision: health.revision.0,
        meta_leader: report.meta_leader.map(NodeName),
        shards: health.shards,
        redundancy: in_words(spare_nodes(&report)),
        nodes: report.nodes.into_iter().map(Node::from).collect(),
    };
    Ok(json(StatusCode::OK, &answer))
}

/// `GET /cluster/shards`.
pub async fn shards(asked: Arc<Asked>) -> Answered {
    asked.query.only(&[])?;
    let shards = asked.handle().report().groups.into_iter().map(Shard::from).collect();
    Ok(json(StatusCode::OK, &Shards { shards }))
}

/// `GET /cluster/locate?customerId=`: of the caller's tenant.
pub async fn locate(asked: Arc<Asked>) -> Answered {
    asked.query.only(&["customerId"])?;
    let customer_id = asked.query.get("customerId");
    let customer_id = customer_id.ok_or_else(|| Problem::invalid("/query/customerId", "is required"))?;
    let shard = asked.handle().shard_number(asked.tenant(), &CustomerId::new(customer_id));
    let ClusterReport { groups, nodes, .. } = asked.handle().report();
    let leader = groups.into_iter().find(|group| group.shard == Some(shard)).and_then(|group| group.leader);
    let address = nodes.into_iter().find(|node| Some(node.node) == leader).map(|node| node.http_address);
    let location = Location { customer_id, shard: shard.0, leader: leader.map(NodeName), http_address: address };
    Ok(json(StatusCode::OK, &location))
}

/// `POST /cluster/nodes/{node}/drain`.
pub async fn drain(asked: Arc<Asked>) -> Answered {
    let node = node(&asked)?;
    operate(&asked, Operation::Drain { node }).await
}

/// `POST /cluster/nodes/{node}/undrain`.
pub async fn undrain(asked: Arc<Asked>) -> Answered {
    let node = node(&asked)?;
    operate(&asked, Operation::Undrain { node }).await
}

/// `POST /cluster/nodes/{node}/remove {"reduceRedundancy": …}`.
pub async fn remove(asked: Arc<Asked>) -> Answered {
    let node = node(&asked)?;
    let reduce_redundancy = !asked.body.is_empty() && typed::<Remove>(&asked.json()?)?.reduce_redundancy;
    operate(&asked, Operation::Remove { node, reduce_redundancy }).await
}

/// `POST /cluster/shards/{shard}/transfer {"node": "n2"}`.
pub async fn transfer(asked: Arc<Asked>) -> Answered {
    let name = asked.param("shard");
    let group = match (name, name.parse()) {
        (META, _) => Group::Meta,
        (_, Ok(shard)) => Group::Shard(ShardId(shard)),
        (_, Err(_)) => return Err(Problem::invalid("/path/shard", "must be a shard's number, or meta").into()),
    };
    let body: Transfer = typed(&asked.json()?)?;
    operate(&asked, Operation::Transfer { group, node: body.node.0 }).await
}

/// `POST /cluster/shards/{shard}/recover {"acceptLoss": true}`: begins a shard anew whose majority is lost for good.
pub async fn recover(asked: Arc<Asked>) -> Answered {
    asked.query.only(&[])?;
    let shard = asked.param("shard").parse().map(ShardId);
    let shard = shard.map_err(|_| Problem::invalid("/path/shard", "must be a shard's number"))?;
    let accept_loss = !asked.body.is_empty() && typed::<Recover>(&asked.json()?)?.accept_loss;
    let by = format!("{} of {}", asked.identity.id, asked.identity.tenant);
    told(asked.handle().recover(shard, accept_loss, by, asked.deadline).await?)
}

/// `POST /cluster/rebalance`.
pub async fn rebalance(asked: Arc<Asked>) -> Answered {
    operate(&asked, Operation::Rebalance).await
}

fn node(asked: &Asked) -> Result<u64, Problem> {
    NodeName::parse(asked.param("node")).map(|name| name.0).ok_or_else(|| Problem::invalid("/path/node", NO_NODE))
}

async fn operate(asked: &Asked, operation: Operation) -> Answered {
    asked.query.only(&[])?;
    told(asked.handle().operate(operation, asked.deadline).await?)
}

/// What was done, or why it was not.
fn told(done: Result<String, String>) -> Answered {
    match done {
        Ok(message) => Ok(json(StatusCode::OK, &Done { message })),
        Err(message) => Err(Problem::Conflict { message, faults: Vec::new() }.into()),
    }
}

/// How many nodes, whichever they are, the cluster can lose now and have a majority of each group left.
fn spare_nodes(report: &ClusterReport) -> usize {
    let is_up = |node: &&u64| report.nodes.iter().any(|known| known.node == **node && known.is_up);
    let spare = |group: &GroupReport| {
        let majority = group.voters.len() / 2 + 1;
        let votes = |node: &&u64| is_up(node) && !group.renewing.contains(*node);
        group.voters.iter().filter(votes).count().saturating_sub(majority)
    };
    report.groups.iter().map(spare).min().unwrap_or(0)
}

fn in_words(spare: usize) -> String {
    match spare {
        0 => "none".to_owned(),
        1 => "one node".to_owned(),
        2 => "two nodes".to_owned(),
        more => format!("{more} nodes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(up: &[bool], groups: &[&[u64]]) -> ClusterReport {
        let nodes = (1..).zip(up).map(|(node, is_up)| NodeReport {
            node,
            peer_address: String::new(),
            http_address: String::new(),
            zone: String::new(),
            standing: NodeStanding::Up,
            is_up: *is_up,
            leads: 0,
            replicas: 0,
        });
        let groups = groups.iter().map(|voters| GroupReport {
            shard: None,
            leader: None,
            term: 0,
            voters: voters.to_vec(),
            learners: Vec::new(),
            renewing: Vec::new(),
            target: None,
            recovery: None,
        });
        ClusterReport { cluster: 1, node: 1, meta_leader: None, nodes: nodes.collect(), groups: groups.collect() }
    }

    #[test]
    fn a_voter_that_is_being_renewed_is_none_to_spare() {
        let mut report = report(&[true; 3], &[&[1, 2, 3]]);
        report.groups[0].renewing = vec![2];
        assert_eq!(spare_nodes(&report), 0);
    }

    #[test]
    fn redundancy_is_what_the_weakest_group_can_lose() {
        for (up, groups, words) in [
            (&[true][..], &[&[1][..]][..], "none"),
            (&[true; 2], &[&[1], &[1, 2]], "none"),
            (&[true; 3], &[&[1, 2, 3], &[1, 2, 3]], "one node"),
            (&[true; 3], &[&[1, 2, 3], &[2]], "none"),
            (&[true, true, false], &[&[1, 2, 3]], "none"),
            (&[true, false, false], &[&[1, 2, 3]], "none"),
            (&[true; 5], &[&[1, 2, 3, 4, 5]], "two nodes"),
            (&[true; 7], &[&[1, 2, 3, 4, 5, 6, 7]], "3 nodes"),
            (&[true], &[], "none"),
        ] {
            assert_eq!(in_words(spare_nodes(&report(up, groups))), words, "{up:?} {groups:?}");
        }
    }

    #[test]
    fn a_node_has_one_name() {
        assert_eq!(NodeName::parse("n3"), Some(NodeName(3)));
        for text in ["", "n", "3", "n0", "n03", "n-3", "n+3", "N3", "n3 ", "n99999999999999999999"] {
            assert_eq!(NodeName::parse(text), None, "{text:?}");
        }
    }
}
