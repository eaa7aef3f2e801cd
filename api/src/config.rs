//! What the composition root decides for the HTTP face.

use std::sync::Arc;
use std::time::Duration;

use proffer_cluster::ports::clock::Clock;
use proffer_cluster::ports::entropy::Entropy;
use proffer_cluster::ports::offload::Offload;

use crate::limits::REQUEST_TIMEOUT;
use crate::recommendation::TokenKeys;

/// Configuration of [`crate::router`].
#[derive(Clone)]
pub struct Config {
    /// Time of commands and of the expiry of ids.
    pub clock: Arc<dyn Clock>,
    /// Ids of new entities and of requests.
    pub entropy: Arc<dyn Entropy>,
    /// Runs the long work of bulk requests.
    pub offload: Arc<dyn Offload>,
    /// Sign `recommendationId`s; the same on every node, or one node does not accept what another one proposed.
    pub token_keys: TokenKeys,
    /// Time an ordinary request may take.
    pub request_timeout: Duration,
}

impl Config {
    /// The defaults around what has none.
    pub fn new(
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        offload: Arc<dyn Offload>,
        token_keys: TokenKeys,
    ) -> Self {
        Config { clock, entropy, offload, token_keys, request_timeout: REQUEST_TIMEOUT }
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("request_timeout", &self.request_timeout).finish_non_exhaustive()
    }
}
