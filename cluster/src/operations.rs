//! What operators see of the cluster, and do to it.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::calls::Operation;
use crate::error::Error;
use crate::handle::{Handle, answered};
use crate::meta::ask::MetaAsk;
use crate::meta::roster::Roster;

impl Handle {
    /// Who is where, as far as this node has applied it.
    pub fn roster(&self) -> Arc<Roster> {
        Arc::clone(&self.inner.roster.borrow())
    }

    /// Does what an operator wants, where the catalogue is led here. What it comes to is told in words, and so is why it is refused.
    ///
    /// # Errors
    /// If it was not done, or is not known to be: not led here, too late.
    pub async fn operate(&self, operation: Operation, deadline: Instant) -> Result<Result<String, String>, Error> {
        self.open()?;
        let (reply, answer) = oneshot::channel();
        self.inner.meta.send(MetaAsk::Operate { operation, reply })?;
        answered(deadline, answer).await
    }
}
