//! Nodes that stand for others: conditionals and calls of flows (domain.md §4).

use crate::model::flow::{FlowConfig, FlowNode, Node};
use crate::model::record::record;

record! {
    /// Some nodes or others, by a condition on customer and request.
    pub struct Conditional {
        /// The first whose condition is true is taken.
        pub branches: Vec<Branch> => "branches",
        /// Taken if none is.
        pub otherwise: Vec<FlowNode> => "else" = Vec::new(),
    }
}

record! {
    /// Nodes that act under a condition.
    pub struct Branch {
        /// An expression that reads no offer.
        pub when: String => "when",
        /// What acts.
        pub nodes: Vec<FlowNode> => "nodes",
    }
}

record! {
    /// The nodes of another flow.
    pub struct CallFlow {
        /// Which flow.
        pub flow_key: String => "flowKey",
    }
}

impl Conditional {
    /// The nodes of choice `number`: a branch, or after them all what is taken otherwise.
    pub fn nodes_of(&self, number: usize) -> &[FlowNode] {
        self.branches.get(number).map_or(&self.otherwise, |branch| &branch.nodes)
    }
}

impl FlowConfig {
    /// All nodes in the order they are written, those of branches after their conditional.
    pub fn all_nodes(&self) -> Vec<&FlowNode> {
        let mut found = Vec::new();
        let mut open: Vec<&FlowNode> = self.nodes.iter().rev().collect();
        while let Some(node) = open.pop() {
            found.push(node);
            if let Node::Conditional(conditional) = &node.node {
                for number in (0..=conditional.branches.len()).rev() {
                    open.extend(conditional.nodes_of(number).iter().rev());
                }
            }
        }
        found
    }

    /// The place of the node with this id among all nodes.
    pub fn place_of(&self, id: &str) -> u16 {
        self.all_nodes().iter().zip(0..).find(|(node, _)| node.id == id).map_or(u16::MAX, |(_, place)| place)
    }

    /// The keys of the flows that it calls.
    pub fn calls(&self) -> std::collections::BTreeSet<&str> {
        let called = self.all_nodes().into_iter().filter_map(|node| match &node.node {
            Node::CallFlow(call) => Some(call.flow_key.as_str()),
            Node::Inventory(_)
            | Node::MatchCreatives(_)
            | Node::Enrich(_)
            | Node::Qualify(_)
            | Node::ContactPolicy(_)
            | Node::Filter(_)
            | Node::Conditional(_)
            | Node::Score(_)
            | Node::Rank(_)
            | Node::Group(_)
            | Node::Compute(_)
            | Node::SetProperties(_)
            | Node::Optimize(_)
            | Node::ScoreByExpression(_)
            | Node::Response(_) => None,
        });
        called.collect()
    }
}
