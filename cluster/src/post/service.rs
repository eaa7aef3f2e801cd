//! Answers what other nodes ask.

use std::sync::Arc;

use proffer_engine::codec;
use tokio::time::Instant;

use super::learning::room_on;
use super::message::encode_answer;
use super::{Admission, Answer, Message, Post, ToMeta};
use crate::error::Error;
use crate::groups::{Group, RaftGroups};
use crate::learning::Learning;
use crate::meta::hearing::Hearing;
use crate::peers::{Class, Hello, Request, Service};
use crate::ports::propose::Pending;
use crate::witness::Witness;

/// This node, as others see it.
pub(crate) struct PeerService {
    pub(crate) post: Post,
    pub(crate) groups: Arc<RaftGroups>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) hearing: Arc<Hearing>,
    pub(crate) witness: Arc<Witness>,
    pub(crate) learning: Arc<Learning>,
}

impl PeerService {
    /// A node that was started again may be reached elsewhere than before: who it is has been judged when it came.
    fn meet_again(&self, node: u64, address: &str) {
        if let Some(peers) = self.post.ways.load_full()
            && !address.is_empty()
        {
            peers.set_route(node, address);
        }
    }
}

impl Service for PeerService {
    fn serve(&self, from: &Hello, request: Request) -> Pending<'static, Vec<u8>> {
        let deadline = Instant::now() + request.within;
        let (node, post) = (from.node, self.post.clone());
        self.hearing.hear(node);
        if node != 0 && self.post.directory.hear_start(node, from.boots) {
            self.meet_again(node, &from.address);
        }
        let Request { class, lane, within, body } = request;
        if node == 0 {
            // Who is of no cluster yet has one thing to ask.
            let admission = Arc::clone(&self.admission);
            return Box::pin(async move { admission.answer(&body, deadline).await });
        }
        match class {
            Class::Raft => {
                let groups = Arc::clone(&self.groups);
                Box::pin(async move {
                    let answer = match codec::decode("a message between replicas", &body) {
                        Ok((to, message)) => groups.answer(to, message).await,
                        Err(error) => crate::raft::RaftAnswer::Failed(error.to_string()),
                    };
                    codec::encode(&answer)
                })
            }
            Class::Call => Box::pin(async move { post.answerer().await.answer(body, within).await }),
            Class::Own => {
                let (hearing, witness) = (Arc::clone(&self.hearing), Arc::clone(&self.witness));
                let learning = Arc::clone(&self.learning);
                Box::pin(async move {
                    let answer = match codec::decode("another node's request", &body) {
                        Ok(Message::Leading(claims)) => {
                            for claim in claims {
                                let of = claim.node;
                                if post.directory.hear(node, claim) {
                                    // It lives, though it may be heard by others only.
                                    hearing.hear(of);
                                }
                            }
                            Ok(Answer::Heard)
                        }
                        Ok(Message::Reached(reaches)) => {
                            witness.note(&reaches);
                            Ok(Answer::Heard)
                        }
                        Ok(Message::Learn(marks)) => {
                            let (told, has_more) = learning.later_than(&marks, room_on(lane));
                            Ok(Answer::Learned(told, has_more))
                        }
                        Ok(Message::Pass { to, message }) => {
                            post.pass_on(to, lane, message, deadline).await.map(Answer::Passed)
                        }
                        Ok(Message::Remains(group)) => Ok(Answer::Remains(post.local.groups.remains(group))),
                        Ok(Message::Recover(ask)) => post.recover_here(ask, deadline).await,
                        Ok(Message::Shard(shard, ask)) => post.local.shard(shard, ask, deadline).await,
                        Ok(Message::Meta(ask)) => hear(&post, ask, deadline).await,
                        Err(error) => Err(Error::Invalid(error.to_string())),
                    };
                    encode_answer(answer)
                })
            }
        }
    }
}

/// It is answered if the meta group is led here, and not passed on: who asked looks for the leader itself. Only a wish for a lease is,
/// once: who has none may not know who leads.
async fn hear(post: &Post, ask: ToMeta, deadline: Instant) -> Result<Answer, Error> {
    if let ToMeta::Renew { renew, relayed: false } = ask
        && !post.local.meta.is_up()
    {
        let message = Message::Meta(ToMeta::Renew { renew, relayed: true });
        return match post.leader_elsewhere(Group::Meta) {
            Some(leader) => post.ask_directly(leader, &message, deadline).await,
            None => Err(super::not_led("the catalogue")),
        };
    }
    post.local.meta(ask, deadline).await
}
