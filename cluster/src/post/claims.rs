//! Telling every node what this one leads: at once when that changes, and again a few times a second.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Message, Post};
use crate::groups::RaftGroups;
use crate::limits::{CLAIMS_LOOK_MS, CLAIMS_TELL_MS};

/// Runs for ever: stop it by dropping its task.
pub(crate) async fn tell_claims(post: Post, groups: Arc<RaftGroups>) {
    let own = post.directory.own();
    let (mut told, mut told_at) = (None, Instant::now());
    loop {
        let claims = groups.led();
        let is_news = told.as_ref() != Some(&claims);
        if is_news || told_at.elapsed() >= Duration::from_millis(CLAIMS_TELL_MS) {
            let takes_leads = post.directory.takes_leads();
            post.directory.hear(own, claims.clone(), takes_leads);
            let claimed = claims.iter().map(|(group, term)| (*group, *term)).collect();
            let message = Message::Leading { claims: claimed, takes_leads };
            post.tell_all(&message, Duration::from_millis(CLAIMS_TELL_MS));
            (told, told_at) = (Some(claims), Instant::now());
            post.directory.lose_silent();
        }
        tokio::time::sleep(Duration::from_millis(CLAIMS_LOOK_MS)).await;
    }
}
