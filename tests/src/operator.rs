//! The operator of a simulated cluster: does what was drawn for one to do, and sees a removal through.

use axum::body::Body;
use axum::http::Request;
use proffer_cluster::meta::roster::NodeStanding;
use serde_json::{Value, json};

use crate::sim::faults::Faults;
use crate::sim::host::{Host, KEY, Slot};
use crate::sim::seed::Draws;
use crate::sim::world::World;
use crate::tell;

/// A removal is looked after so often.
const REMOVAL_MS: u64 = 400;

/// See the module.
pub struct Operator {
    draws: Draws,
    calls: Vec<(Slot, usize)>,
}

impl Operator {
    /// One who has done nothing yet.
    pub fn new(seed: u64) -> Self {
        Operator { draws: Draws::new(seed, "operator", 0), calls: Vec::new() }
    }

    /// A millisecond passes for the operator.
    pub fn tick(&mut self, world: &mut World, faults: &mut Faults) {
        self.see_to_removal(world, faults);
        self.give_orders(world, faults);
    }

    fn give_orders(&mut self, world: &World, faults: &mut Faults) {
        for (path, body) in std::mem::take(&mut faults.orders) {
            // Whoever cannot do it says so; operators try things.
            if let Some(host) = self.draws.pick(&world.serving()).copied()
                && let Some(slot) = ask(world, host, "POST", &path, &body)
            {
                self.calls.push((slot, host));
            }
        }
        self.calls.retain(|(slot, host)| match slot.lock().expect("no holder panics").take() {
            Some(reply) => {
                tell!(world, "h{host} answers an operator: {} {}", reply.status, reply.body);
                false
            }
            None => true,
        });
    }

    /// Drains a node, removes it when it is empty, and takes the machine away when the others do not know it any more.
    fn see_to_removal(&self, world: &mut World, faults: &mut Faults) {
        let now = world.now_ms;
        let Some(removal) = faults.removing.as_mut().filter(|removal| removal.next_ms <= now) else { return };
        removal.next_ms = now + REMOVAL_MS;
        let (host, node) = (removal.host, removal.node);
        let others = world.hosts.iter().filter(|other| other.number != host);
        let report = |other: &Host| {
            let report = other.look(|handle| handle.status().ready.then(|| handle.report())).flatten()?;
            let standing = report.nodes.iter().find(|of| of.node == node).map(|of| of.standing);
            Some((other.number, standing))
        };
        let standings: Vec<(usize, Option<NodeStanding>)> = others.filter_map(report).collect();
        removal.knew.extend(standings.iter().filter(|(_, standing)| standing.is_some()).map(|(other, _)| *other));
        let is_known = standings.iter().any(|(_, standing)| standing.is_some());
        if !is_known && standings.iter().any(|(other, _)| removal.knew.contains(other)) {
            tell!(world, "n{node} is removed, and h{host} switched off for good");
            faults.removing = None;
            faults.gone.insert(host);
            world.crash(host, false, &self.draws);
            return;
        }
        match standings.first().and_then(|(_, standing)| *standing) {
            Some(NodeStanding::Up) => faults.orders.push((format!("/cluster/nodes/n{node}/drain"), json!({}))),
            Some(NodeStanding::Draining) => {
                faults.orders.push((format!("/cluster/nodes/n{node}/remove"), json!({"reduceRedundancy": true})));
            }
            Some(NodeStanding::Removing) | None => {}
        }
    }
}

/// Asks a host something by HTTP; `None` if it does not serve.
pub fn ask(world: &World, host: usize, method: &str, path: &str, body: &Value) -> Option<Slot> {
    // The cluster's own routes lie beside the product's.
    let path = if path.starts_with("/cluster") { path.to_owned() } else { format!("/api/v1{path}") };
    let request = Request::builder().method(method).uri(path);
    let request = request.header("x-api-key", KEY).header("content-type", "application/json");
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    world.host(host).call(request.body(body).expect("it is well-formed"))
}
