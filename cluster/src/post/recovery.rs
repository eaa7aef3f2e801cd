//! A shard whose majority is lost for good (docs/adr/0012): what is left of it is asked for, and the meta group is told to begin it anew
//! with the freshest of that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proffer_engine::profile::command::Position;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::message::ToMeta;
use super::{Answer, Message, Post, ToRecover};
use crate::error::Error;
use crate::group::Group;
use crate::handle::answered;
use crate::limits::{PLACE_LOOK_MS, REMAINS_MS};
use crate::meta::ask::MetaAsk;
use crate::meta::roster::{Recover, Roster};
use crate::raft::Remains;

/// What is left of a group, as far as nodes answer.
#[derive(Debug)]
struct Survey {
    group: Group,
    /// The nodes on which it has replicas, each with its own.
    placed: BTreeMap<u64, u64>,
    /// What nodes said; one that has nothing that runs said nothing.
    found: BTreeMap<u64, Remains>,
}

/// The replica to begin anew with.
#[derive(Debug, PartialEq, Eq)]
struct Survivor {
    node: u64,
    replica: u64,
    last: Position,
}

impl Post {
    /// Has a shard begun anew, wherever the meta group is led; what it comes to is told in words, and so is why it is refused.
    ///
    /// # Errors
    /// If it was not done, or is not known to be.
    pub(crate) async fn recover(&self, ask: ToRecover, deadline: Instant) -> Result<Answer, Error> {
        self.local.door(ask.shard)?;
        loop {
            let mut changes = self.directory.watch();
            let answer = if self.local.meta.is_up() {
                self.recover_here(ask.clone(), deadline).await
            } else {
                match self.leader_elsewhere(Group::Meta) {
                    Some(node) => self.ask(node, &Message::Recover(ask.clone()), deadline).await,
                    None => Err(super::not_led("the catalogue")),
                }
            };
            if !self.is_worth_another(&answer, &mut changes, deadline).await {
                return answer.map_err(without_meta);
            }
        }
    }

    /// As [`Post::recover`], where the meta group is led.
    pub(super) async fn recover_here(&self, ask: ToRecover, deadline: Instant) -> Result<Answer, Error> {
        if !self.local.meta.is_up() {
            return Err(super::not_led("the catalogue"));
        }
        let group = Group::Shard(ask.shard);
        let roster = self.local.roster.borrow().clone();
        if roster.group(group).is_none() {
            return Ok(Answer::Barred(format!("there is no {group}")));
        }
        if let Some((leader, _)) = self.leader(group) {
            return Ok(Answer::Barred(format!("{group} is led by node {leader}: it has its majority")));
        }
        let survey = self.survey(group, &roster, deadline).await;
        let (survivor, loss) = match survey.judge() {
            Ok(judged) => judged,
            Err(words) => return Ok(Answer::Barred(words)),
        };
        if !ask.accept_loss {
            return Ok(Answer::Barred(format!("{loss}. Nothing was done: accept that with --accept-loss")));
        }
        let Survivor { replica, last, .. } = survivor;
        let generation = roster.generation(group) + 1;
        let recover = Recover { group, generation, survivor: replica, last, by: ask.by };
        tracing::warn!(%group, by = recover.by, generation, %loss, "a shard is to begin anew");
        let (reply, answer) = oneshot::channel();
        self.local.meta.send(MetaAsk::Recover { recover, reply })?;
        let words = match answered(deadline, answer).await? {
            Ok(words) => words,
            Err(reason) => return Ok(Answer::Barred(reason)),
        };
        // It is done. When no node can decide without knowing of it any more, what is lost is as much as it ever will be.
        let revision = self.local.roster.borrow().recovery(group).map(|recovery| recovery.revision);
        let everywhere = async {
            match revision {
                Some(revision) => self.local.meta(ToMeta::Everywhere(revision), deadline).await.is_ok(),
                None => false,
            }
        };
        let soon = deadline.checked_sub(Duration::from_millis(PLACE_LOOK_MS)).unwrap_or(deadline);
        let is_fenced = timeout_at(soon, everywhere).await.unwrap_or(false);
        let later = if is_fenced {
            ""
        } else {
            "; a node that does not answer may decide by what was before for two seconds more"
        };
        Ok(Answer::Operated(format!("{words}. {loss}{later}")))
    }

    /// Who leads a group, of a generation that is not lost.
    pub(crate) fn leader(&self, group: Group) -> Option<(u64, u64)> {
        let Group::Shard(shard) = group else { return self.directory.leader(group) };
        let door = self.local.door(shard).ok()?;
        self.directory.leader(group).filter(|(_, term)| *term > door.term_floor() || door.term_floor() == 0)
    }

    async fn survey(&self, group: Group, roster: &Roster, deadline: Instant) -> Survey {
        let placed: BTreeMap<u64, u64> =
            roster.replicas().filter(|(_, of)| of.group == group).map(|(replica, of)| (of.node, replica)).collect();
        let until = deadline.min(Instant::now() + Duration::from_millis(REMAINS_MS));
        let mut asked = JoinSet::new();
        for (node, replica) in placed.clone() {
            let post = self.clone();
            asked.spawn(async move {
                let remains = if node == post.directory.own() {
                    post.local.groups.remains(group)
                } else {
                    match timeout_at(until, post.ask(node, &Message::Remains(group), until)).await {
                        Ok(Ok(Answer::Remains(remains))) => remains,
                        Ok(_) | Err(_) => None,
                    }
                };
                // One that left the group, and is not gone yet, is not asked for.
                remains.filter(|remains| remains.replica == replica).map(|remains| (node, remains))
            });
        }
        let found = asked.join_all().await.into_iter().flatten().collect();
        Survey { group, placed, found }
    }
}

impl Survey {
    /// The one to begin anew with, and what may be lost by that, in words.
    ///
    /// # Errors
    /// Why the group is not to be begun anew.
    fn judge(&self) -> Result<(Survivor, String), String> {
        let Survey { group, placed, found } = self;
        if let Some((node, _)) = found.iter().find(|(_, remains)| remains.leads) {
            return Err(format!("{group} is led by node {node}: it has its majority"));
        }
        let answer: BTreeSet<u64> = found.values().map(|remains| remains.replica).collect();
        let fresh = found.iter().filter_map(|(node, remains)| Some((remains.last?, *node, remains)));
        let Some((last, node, freshest)) = fresh.max_by_key(|(last, node, _)| (*last, *node)) else {
            let nodes = in_words(placed.keys());
            return Err(format!("nothing is left of {group}: none of {nodes} answers that has anything of it"));
        };
        let has_majority = |voters: &BTreeSet<u64>| 2 * voters.intersection(&answer).count() > voters.len();
        if freshest.voters.iter().all(has_majority) {
            let nodes = in_words(found.keys());
            return Err(format!(
                "a majority of the voters of {group} answers, on {nodes}: it elects a leader by itself, and loses nothing"
            ));
        }
        let silent: Vec<&u64> = placed.keys().filter(|node| !found.contains_key(node)).collect();
        let behind: Vec<&u64> = found.keys().filter(|found| **found != node).collect();
        let mut loss = format!(
            "{group} goes on from node {node}, whose log ends at entry {} of term {}; what was acknowledged after that and is only on {} is lost",
            last.index,
            last.leader.term,
            in_words(silent.into_iter()),
        );
        if !behind.is_empty() {
            loss.push_str(&format!(" ({} answer, and know no more)", in_words(behind.into_iter())));
        }
        Ok((Survivor { node, replica: freshest.replica, last }, loss))
    }
}

fn in_words<'a>(nodes: impl Iterator<Item = &'a u64>) -> String {
    let names: Vec<String> = nodes.map(|node| format!("n{node}")).collect();
    if names.is_empty() { "no node".to_owned() } else { names.join(", ") }
}

/// Without the catalogue nothing can be begun anew: it says who holds what, and what was granted.
fn without_meta(error: Error) -> Error {
    if !matches!(error, Error::NotLed { .. }) {
        return error;
    }
    let reason = "the catalogue, without which no shard is begun anew; if its majority too is lost for good, see \
                  recover-meta in docs/operations.md";
    Error::NotLed { reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use proffer_engine::keys::ShardId;
    use proffer_engine::profile::command::Leader;

    use super::*;

    fn remains(replica: u64, last: Option<(u64, u64)>, voters: &[&[u64]]) -> Remains {
        let last = last.map(|(term, index)| Position { leader: Leader { term, replica: 11 }, index });
        let voters = voters.iter().map(|voters| voters.iter().copied().collect()).collect();
        Remains { replica, last, term: 9, voters, leads: false }
    }

    /// Replicas 11, 12 and 13 on nodes 1, 2 and 3, of which these answer.
    fn survey(found: Vec<(u64, Remains)>) -> Survey {
        let placed = [(1, 11), (2, 12), (3, 13)].into();
        Survey { group: Group::Shard(ShardId(4)), placed, found: found.into_iter().collect() }
    }

    #[test]
    fn the_log_that_goes_furthest_is_gone_on_from_and_a_later_term_is_further_than_a_longer_log() {
        let voters: &[&[u64]] = &[&[11, 12, 13, 14, 15]];
        let found = vec![(1, remains(11, Some((3, 90)), voters)), (2, remains(12, Some((4, 80)), voters))];
        let (survivor, loss) = survey(found).judge().unwrap();
        assert_eq!((survivor.node, survivor.replica, survivor.last.index), (2, 12, 80));
        for part in ["shard-04", "node 2", "entry 80 of term 4", "only on n3 is lost", "n1 answer"] {
            assert!(loss.contains(part), "{part}: {loss}");
        }
    }

    #[test]
    fn a_group_with_a_majority_or_a_leader_is_left_alone_and_so_is_one_of_which_nothing_is_left() {
        let voters: &[&[u64]] = &[&[11, 12, 13]];
        let refused = |found| survey(found).judge().unwrap_err();
        let words = refused(vec![(1, remains(11, Some((3, 90)), voters)), (2, remains(12, Some((3, 80)), voters))]);
        assert!(words.contains("majority") && words.contains("n1, n2"), "{words}");
        let leads = Remains { leads: true, ..remains(11, Some((3, 90)), voters) };
        assert!(refused(vec![(1, leads)]).contains("led by node 1"));
        for nothing in [vec![], vec![(3, remains(13, None, &[]))]] {
            let words = refused(nothing);
            assert!(words.contains("nothing is left") && words.contains("n1, n2, n3"), "{words}");
        }
    }

    #[test]
    fn while_voters_change_both_sets_need_a_majority() {
        let joint: &[&[u64]] = &[&[11], &[11, 12, 13]];
        assert!(survey(vec![(1, remains(11, Some((3, 90)), joint))]).judge().is_ok(), "the new ones are lost");
        let joint: &[&[u64]] = &[&[11], &[11, 12, 13]];
        let both = vec![(1, remains(11, Some((3, 90)), joint)), (3, remains(13, Some((3, 9)), &[&[11]]))];
        assert!(survey(both).judge().is_err());
    }

    #[test]
    fn an_error_for_want_of_the_catalogues_majority_says_what_to_do() {
        let Error::NotLed { reason } = without_meta(super::super::not_led("the catalogue")) else { panic!() };
        assert!(reason.contains("docs/operations.md"), "{reason}");
    }
}
