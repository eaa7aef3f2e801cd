//! A flow unrolled: its nodes with those of the flows it calls in their place, and of each conditional one choice.
//!
//! A call stands for the called flow's nodes of the phase it stands in and of later ones. The latter come before what the
//! caller says in those phases, which is therefore what counts where a node replaces another.

use crate::catalog::TenantCatalog;
use crate::keys::FlowKey;
use crate::limits;
use crate::model::branch::Conditional;
use crate::model::flow::{FlowConfig, FlowNode, Node};

/// The flows in force, one of which may be about to change.
#[derive(Clone, Copy)]
pub(crate) struct InForce<'a> {
    tenant: &'a TenantCatalog,
    /// What is about to be in force of a flow.
    next: Option<(FlowKey, &'a FlowConfig)>,
}

/// A node of an unrolled flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step<'a> {
    /// The flow it is written in.
    pub(crate) flow: FlowKey,
    /// Its place among all nodes of that flow.
    pub(crate) place: u16,
    /// What it does.
    pub(crate) node: &'a Node,
}

/// What comes of unrolling.
#[derive(Debug, Default)]
pub(crate) struct Unrolled<'a> {
    /// In the order in which they act.
    pub(crate) steps: Vec<Step<'a>>,
    /// Flows called on the way.
    pub(crate) called: Vec<FlowKey>,
    /// The first conditional that no choice was left for.
    pub(crate) open: Option<&'a Conditional>,
}

/// Why a flow cannot be unrolled.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Knot {
    /// Flows that call each other, the first one again at the end.
    Cycle(Vec<String>),
    /// More calls below each other than a flow may have.
    Deep(Vec<String>),
    /// It calls what was never published.
    Unknown(String),
    /// It comes to too many nodes.
    Long,
    /// Its conditionals come to too many ways through it.
    Wide,
}

impl<'a> InForce<'a> {
    /// As the catalogue has them.
    pub(crate) fn now(tenant: &'a TenantCatalog) -> Self {
        InForce { tenant, next: None }
    }

    /// As it will have them with this flow.
    pub(crate) fn with(tenant: &'a TenantCatalog, flow: FlowKey, config: &'a FlowConfig) -> Self {
        InForce { tenant, next: Some((flow, config)) }
    }

    /// What is in force of a flow.
    pub(crate) fn config(&self, flow: FlowKey) -> Option<&'a FlowConfig> {
        match self.next {
            Some((next, config)) if next == flow => Some(config),
            Some(_) | None => self.tenant.current_version(flow).map(|version| &version.config),
        }
    }

    fn called(&self, key: &str) -> Option<FlowKey> {
        self.tenant.flow_by_key(key).map(|row| row.key)
    }

    fn key_of(&self, flow: FlowKey) -> String {
        self.tenant.flows().get(flow).map(|row| row.body.key.clone()).unwrap_or_default()
    }

    /// Finds cycles and calls that go too deep, from `flow` on. O(calls).
    pub(crate) fn check_calls(&self, flow: FlowKey) -> Result<(), Knot> {
        let mut path = vec![flow];
        let mut fine = std::collections::BTreeMap::new();
        self.check_below(&mut path, &mut fine)
    }

    /// `fine` has how deep each flow was when everything below it was looked at.
    fn check_below(
        &self,
        path: &mut Vec<FlowKey>,
        fine: &mut std::collections::BTreeMap<FlowKey, usize>,
    ) -> Result<(), Knot> {
        let Some(flow) = path.last().copied() else { return Ok(()) };
        let Some(config) = self.config(flow) else { return Err(Knot::Unknown(self.key_of(flow))) };
        for key in config.calls() {
            let Some(called) = self.called(key) else { return Err(Knot::Unknown(key.to_owned())) };
            let named = |flows: &[FlowKey]| -> Vec<String> {
                flows.iter().chain([&called]).map(|flow| self.key_of(*flow)).collect()
            };
            if let Some(begin) = path.iter().position(|known| *known == called) {
                return Err(Knot::Cycle(named(&path[begin..])));
            }
            if path.len() > limits::FLOW_CALLS_DEPTH_MAX {
                return Err(Knot::Deep(named(path)));
            }
            if fine.get(&called).is_some_and(|depth| *depth >= path.len()) {
                continue;
            }
            path.push(called);
            self.check_below(path, fine)?;
            path.pop();
            fine.insert(called, path.len());
        }
        Ok(())
    }

    /// Unrolls `flow` by these choices, one for each conditional in the order they are met; those that are left open stand
    /// for nothing. The flow's calls were checked.
    pub(crate) fn unroll(&self, flow: FlowKey, choices: &[usize]) -> Result<Unrolled<'a>, Knot> {
        let mut unrolling = Unrolling {
            flows: *self,
            choices: choices.iter(),
            phases: Default::default(),
            called: Vec::new(),
            open: None,
            depth: 0,
        };
        unrolling.enter(flow, 1)?;
        let Unrolling { phases, called, open, .. } = unrolling;
        Ok(Unrolled { steps: phases.into_iter().flatten().collect(), called, open })
    }

    /// Checks that all ways through `flow` are few and short enough.
    pub(crate) fn check_size(&self, flow: FlowKey) -> Result<(), Knot> {
        self.visit_ways(flow, |_| {})
    }

    /// Visits all ways through `flow`, whose calls were checked; fails at the first that is too long, and when they are too many.
    pub(crate) fn visit_ways(&self, flow: FlowKey, mut visit: impl FnMut(&Unrolled<'a>)) -> Result<(), Knot> {
        let (mut open, mut ways) = (vec![Vec::new()], 0);
        while let Some(choices) = open.pop() {
            let unrolled = self.unroll(flow, &choices)?;
            let Some(conditional) = unrolled.open else {
                ways += 1;
                visit(&unrolled);
                continue;
            };
            open.extend((0..=conditional.branches.len()).map(|choice| [&choices[..], &[choice]].concat()));
            if open.len() + ways > limits::FLOW_WAYS_MAX {
                return Err(Knot::Wide);
            }
        }
        Ok(())
    }
}

struct Unrolling<'a, 'c> {
    flows: InForce<'a>,
    choices: std::slice::Iter<'c, usize>,
    phases: [Vec<Step<'a>>; 3],
    called: Vec<FlowKey>,
    open: Option<&'a Conditional>,
    depth: usize,
}

impl<'a> Unrolling<'a, '_> {
    /// Takes the nodes of a flow of a phase and of those after it.
    fn enter(&mut self, flow: FlowKey, phase: u8) -> Result<(), Knot> {
        let Some(config) = self.flows.config(flow) else { return Err(Knot::Unknown(self.flows.key_of(flow))) };
        if self.depth > limits::FLOW_CALLS_DEPTH_MAX {
            return Err(Knot::Deep(vec![self.flows.key_of(flow)]));
        }
        self.depth += 1;
        self.take(flow, config, &config.nodes, phase)?;
        self.depth -= 1;
        Ok(())
    }

    fn take(&mut self, flow: FlowKey, config: &FlowConfig, nodes: &'a [FlowNode], phase: u8) -> Result<(), Knot> {
        let mut nodes: Vec<&FlowNode> = nodes.iter().filter(|node| node.phase >= phase).collect();
        nodes.sort_by_key(|node| (node.phase, node.position));
        for node in nodes {
            match &node.node {
                Node::Conditional(conditional) => match self.choices.next() {
                    Some(choice) => self.take(flow, config, conditional.nodes_of(*choice), phase)?,
                    None => self.open = self.open.or(Some(conditional)),
                },
                Node::CallFlow(call) => {
                    let called = self.flows.called(&call.flow_key);
                    let called = called.ok_or_else(|| Knot::Unknown(call.flow_key.clone()))?;
                    self.called.push(called);
                    if self.called.len() > limits::FLOW_STEPS_MAX {
                        return Err(Knot::Long);
                    }
                    self.enter(called, node.phase)?;
                }
                Node::Inventory(_)
                | Node::MatchCreatives(_)
                | Node::Enrich(_)
                | Node::Qualify(_)
                | Node::ContactPolicy(_)
                | Node::Filter(_)
                | Node::Score(_)
                | Node::Rank(_)
                | Node::Group(_)
                | Node::Compute(_)
                | Node::SetProperties(_)
                | Node::Optimize(_)
                | Node::ScoreByExpression(_)
                | Node::Response(_) => {
                    let step = Step { flow, place: config.place_of(&node.id), node: &node.node };
                    self.phases[usize::from(node.phase.clamp(1, 3)) - 1].push(step);
                    if self.phases.iter().map(Vec::len).sum::<usize>() > limits::FLOW_STEPS_MAX {
                        return Err(Knot::Long);
                    }
                }
            }
        }
        Ok(())
    }
}
