//! What a node keeps of itself on its disk while it runs, beside log and snapshots: changed rarely, and durable before anything
//! rests on it.

use std::sync::Arc;

use tokio::sync::Mutex;

use crate::identity::{self, Belonging, Identity, IdentityError};
use crate::ports::disk::Disk;
use crate::ports::offload::{self, Lane, Offload};

/// See the module.
pub(crate) struct Home {
    // Held while the disk is written to, so that a later change never lies under an earlier one.
    identity: Mutex<Identity>,
    disk: Arc<dyn Disk>,
    offload: Arc<dyn Offload>,
}

impl Home {
    /// Of a disk that says this of itself.
    pub(crate) fn new(identity: Identity, disk: Arc<dyn Disk>, offload: Arc<dyn Offload>) -> Self {
        Home { identity: Mutex::new(identity), disk, offload }
    }

    /// What the disk says.
    pub(crate) async fn identity(&self) -> Identity {
        self.identity.lock().await.clone()
    }

    /// Changes what the disk says, if that is a change; it is durable when this returns.
    ///
    /// # Errors
    /// The disk failed: it says what it said before.
    pub(crate) async fn change(&self, change: impl FnOnce(&mut Identity)) -> Result<(), IdentityError> {
        let mut held = self.identity.lock().await;
        let mut next = held.clone();
        change(&mut next);
        if next == *held {
            return Ok(());
        }
        let (disk, kept) = (Arc::clone(&self.disk), next.clone());
        let written = offload::call(&*self.offload, Lane::Bulk, move || identity::remember(&*disk, &kept)).await;
        written.map_err(|lost| IdentityError::Lost(lost.to_string()))??;
        *held = next;
        Ok(())
    }

    /// As [`Home::change`], of what the disk is in its cluster.
    ///
    /// # Errors
    /// As [`Home::change`].
    pub(crate) async fn settle(&self, change: impl FnOnce(&mut Belonging)) -> Result<(), IdentityError> {
        self.change(|identity| {
            if let Some(belonging) = &mut identity.cluster {
                change(belonging);
            }
        })
        .await
    }
}
