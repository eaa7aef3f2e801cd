//! Who is cut off from whom.

use std::collections::BTreeSet;

use tokio::time::sleep;

use super::Nemesis;
use crate::proxy::Way;

/// Ways that are cut, and what that is called.
struct Cut {
    ways: BTreeSet<Way>,
    called: String,
}

impl Nemesis {
    /// Cuts ways between nodes, sometimes stops a node meanwhile, and heals.
    pub(super) async fn part(&mut self) -> anyhow::Result<String> {
        let victim = self.victim().await;
        let mut running = self.cluster.running();
        self.draw.shuffle(&mut running);
        let shape = self.draw.u8(..7);
        let Cut { ways, called } = cut(shape, victim, &running);
        let length = self.millis(400, 8_000);
        self.say(format!("cut {called} for {length:?}"));
        self.cluster.links().cut(ways);
        let mut told = format!("{called} cut for {} ms", length.as_millis());
        if self.draw.u8(..4) == 0 {
            let stopped = running[0];
            sleep(length / 4).await;
            self.say(format!("stop node {stopped} meanwhile"));
            self.cluster.pause(stopped)?;
            sleep(length / 2).await;
            self.cluster.resume(stopped)?;
            sleep(length / 4).await;
            told += &format!(", node {stopped} stopped for half of that");
        } else {
            sleep(length).await;
        }
        self.cluster.links().heal();
        Ok(told)
    }
}

fn cut(shape: u8, victim: usize, nodes: &[usize]) -> Cut {
    let others = || nodes.iter().copied().filter(move |node| *node != victim);
    let both = |one: usize, other: usize| [(one, other), (other, one)];
    let other = others().next().unwrap_or(victim);
    let (ways, called): (BTreeSet<Way>, String) = match shape {
        0 | 1 => (others().flat_map(|node| both(victim, node)).collect(), format!("node {victim} from all others")),
        2 => (others().map(|node| (victim, node)).collect(), format!("all that node {victim} says")),
        3 => (others().map(|node| (node, victim)).collect(), format!("all that node {victim} hears")),
        4 => (both(victim, other).into(), format!("nodes {victim} and {other} from each other")),
        5 => ([(victim, other)].into(), format!("what node {victim} says to node {other}")),
        _ => {
            // Without anybody to be with, nobody hears anybody.
            let half = nodes.len() / 2;
            let (left, right) = if nodes.len() > 3 { nodes.split_at(half) } else { (nodes, nodes) };
            let ways = left.iter().flat_map(|one| right.iter().map(|other| (*one, *other)));
            let ways = ways.filter(|(one, other)| one != other).flat_map(|(one, other)| both(one, other));
            (
                ways.collect(),
                if nodes.len() > 3 {
                    format!("nodes {left:?} from {right:?}")
                } else {
                    "everybody from everybody".to_owned()
                },
            )
        }
    };
    Cut { ways, called }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shape_cuts_what_it_says_and_nothing_is_cut_from_itself() {
        let nodes = [2, 0, 1];
        let count = |shape| cut(shape, 0, &nodes).ways.len();
        assert_eq!([0, 2, 3, 4, 5, 6].map(count), [4, 2, 2, 2, 1, 6]);
        assert_eq!(cut(2, 0, &nodes).ways, BTreeSet::from([(0, 1), (0, 2)]));
        assert_eq!(cut(3, 0, &nodes).ways, BTreeSet::from([(1, 0), (2, 0)]));
        assert_eq!(cut(5, 0, &nodes).ways, BTreeSet::from([(0, 2)]));
        let five = cut(6, 0, &[4, 3, 2, 1, 0]);
        assert_eq!((five.ways.len(), &*five.called), (12, "nodes [4, 3] from [2, 1, 0]"));
        for shape in 0..7 {
            assert!(cut(shape, 1, &nodes).ways.iter().all(|(one, other)| one != other), "{shape}");
        }
    }
}
