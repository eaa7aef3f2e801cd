//! The way to the granter for a node that leads the meta group itself.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Grant, Grantor, Renew, Report};
use crate::meta::ask::LeaseAsk;
use crate::meta::door::MetaDoor;
use crate::ports::propose::Pending;

/// See the module.
pub(crate) struct LocalGrantor(pub(crate) Arc<MetaDoor>);

impl Grantor for LocalGrantor {
    fn renew(&self, renew: Renew) -> Pending<'_, Option<Grant>> {
        let (reply, answer) = oneshot::channel();
        self.0.ask_lease(LeaseAsk::Renew { renew, reply });
        Box::pin(async move { answer.await.ok() })
    }

    fn report(&self, report: Report) {
        self.0.ask_lease(LeaseAsk::Report(report));
    }
}
