//! Telling every node what this one leads: at once when that changes, and again a few times a second.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Message, Post};
use crate::directory::Claim;
use crate::groups::RaftGroups;
use crate::limits::{CLAIMS_LOOK_MS, CLAIMS_TELL_MS};
use crate::view::Views;

/// Tells it of a node in its so-manieth start. Runs for ever: stop it by dropping its task.
pub(crate) async fn tell_claims(post: Post, groups: Arc<RaftGroups>, views: Arc<Views>, boots: u64) {
    let own = post.directory.own();
    let (mut told, mut told_at, mut words) = (None, Instant::now(), 0);
    loop {
        let claims = groups.led();
        let is_news = told.as_ref() != Some(&claims);
        if is_news || told_at.elapsed() >= Duration::from_millis(CLAIMS_TELL_MS) {
            words += 1;
            let claim = Claim {
                node: own,
                word: (boots, words),
                leads: claims.iter().map(|(group, term)| (*group, *term)).collect(),
                takes_leads: post.directory.takes_leads(),
                in_force: views.revision(),
                age_ms: 0,
            };
            post.directory.hear(own, claim.clone());
            post.directory.lose_silent();
            let heard = [claim].into_iter().chain(post.directory.rumours()).collect();
            post.tell_all(&Message::Leading(heard), Duration::from_millis(CLAIMS_TELL_MS));
            (told, told_at) = (Some(claims), Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(CLAIMS_LOOK_MS)).await;
    }
}
