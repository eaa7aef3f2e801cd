//! What nodes say of themselves at one instant, held against each other (promises 5 and 6). Leases are of instants: what a client would
//! have to be lucky to see is seen here.

use std::collections::BTreeMap;

use proffer_cluster::group::Group;

use crate::sim::world::World;

/// See the module.
#[derive(Default)]
pub struct Claims {
    told: bool,
}

/// What one node says.
struct Claim {
    host: usize,
    /// Groups of which it answers reads without asking, with its term.
    reads: Vec<(Group, u64)>,
    /// The catalogue under which it decides, if it may.
    decides_under: Option<u64>,
}

impl Claims {
    /// Asks all hosts whose process runs just now, those that do not serve yet, too: other nodes send them calls. `excluded`: the newest revision with an exclusion that was acknowledged. What does not
    /// hold, in words, once.
    pub fn hear(&mut self, world: &World, excluded: u64) -> Vec<String> {
        let awake = world.hosts.iter().filter(|host| !host.is_paused(world.now_ms));
        let claims = awake.filter_map(|host| {
            host.look_early(|handle| Claim {
                host: host.number,
                reads: handle.answers_reads(),
                decides_under: handle.verify_api_key(&[0; 32]).ok().map(|_| handle.revision().0),
            })
        });
        let claims: Vec<Claim> = claims.collect();
        let mut wrong = two_readers(&claims);
        wrong.extend(late_deciders(&claims, excluded));
        if self.told {
            wrong.clear();
        }
        self.told |= !wrong.is_empty();
        wrong
    }
}

/// Nodes that answer reads of a group while another one does, too.
fn two_readers(claims: &[Claim]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut readers: BTreeMap<Group, (usize, u64)> = BTreeMap::new();
    for (claim, (group, term)) in claims.iter().flat_map(|claim| claim.reads.iter().map(move |read| (claim, read))) {
        if let Some((other, other_term)) = readers.insert(*group, (claim.host, *term)) {
            wrong.push(format!(
                "one node at most answers reads of a group: {group} is read at h{other} in term {other_term} and at h{} in term {term}",
                claim.host
            ));
        }
    }
    wrong
}

/// Nodes that decide without an exclusion that was acknowledged.
fn late_deciders(claims: &[Claim], excluded: u64) -> Vec<String> {
    let late = claims.iter().filter_map(|claim| {
        let under = claim.decides_under.filter(|under| *under < excluded)?;
        Some(format!(
            "nobody decides without an acknowledged exclusion: h{} decides under revision {under}, it was at {excluded}",
            claim.host
        ))
    });
    late.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(host: usize, reads: &[(Group, u64)], decides_under: Option<u64>) -> Claim {
        Claim { host, reads: reads.to_vec(), decides_under }
    }

    #[test]
    fn two_who_read_one_group_are_told() {
        let shard = Group::Shard(proffer_engine::keys::ShardId(0));
        assert!(two_readers(&[claim(1, &[(Group::Meta, 3)], None), claim(2, &[(shard, 3)], None)]).is_empty());
        let both = [claim(1, &[(Group::Meta, 3)], None), claim(2, &[(shard, 1), (Group::Meta, 4)], None)];
        assert_eq!(two_readers(&both).len(), 1);
    }

    #[test]
    fn who_decides_without_an_acknowledged_exclusion_is_told() {
        let claims = [claim(1, &[], Some(7)), claim(2, &[], None), claim(3, &[], Some(6))];
        assert!(late_deciders(&claims, 6).is_empty());
        assert_eq!(late_deciders(&claims, 7).len(), 1);
    }
}
