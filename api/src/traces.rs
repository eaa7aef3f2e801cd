//! Traces in the hands of clients, and those that this node keeps: the last ones it made, as many as there is room for.
//!
//! Layout before base64url: format (1 byte), [`Trace`] by `engine`, MAC: a trace is replayed only where it is known to be one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proffer_engine::decide::trace::Trace;
use proffer_engine::keys::{CustomerId, Revision, TenantId};
use proffer_engine::time::Timestamp;

use crate::limits::{TRACE_BYTES_KEPT, TRACES_KEPT};
use crate::recommendation::TokenKeys;

const FORMAT: u8 = 1;

/// The text of a trace.
pub fn seal(keys: &TokenKeys, trace: &Trace) -> String {
    let mut bytes = vec![FORMAT];
    bytes.extend(trace.encode());
    URL_SAFE_NO_PAD.encode(keys.seal_bytes(&bytes))
}

/// The trace of a text; `None` for one that no node of this cluster made.
pub fn open(keys: &TokenKeys, text: &str) -> Option<Trace> {
    let bytes = URL_SAFE_NO_PAD.decode(text.trim()).ok()?;
    let (format, trace) = keys.open_bytes(&bytes)?.split_first()?;
    (*format == FORMAT).then(|| Trace::decode(trace).ok())?
}

/// A trace that is kept.
#[derive(Clone, Debug)]
pub struct Kept {
    /// What it is asked for by.
    pub id: String,
    /// Whose.
    pub tenant: TenantId,
    /// Whom it is about.
    pub customer: CustomerId,
    /// When it was decided.
    pub at: Timestamp,
    /// Under which catalogue.
    pub revision: Revision,
    /// The trace.
    pub text: Arc<str>,
}

/// The traces of a node, oldest first. Gone when it stops.
#[derive(Debug, Default)]
pub struct Traces {
    kept: Mutex<(VecDeque<Kept>, usize)>,
}

impl Traces {
    /// Keeps one more, in place of the oldest ones if there is no room.
    pub fn keep(&self, trace: Kept) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (list, bytes) = &mut *kept;
        *bytes += trace.text.len();
        list.push_back(trace);
        while list.len() > TRACES_KEPT || *bytes > TRACE_BYTES_KEPT {
            let Some(oldest) = list.pop_front() else { break };
            *bytes -= oldest.text.len();
        }
    }

    /// Forgets those about a customer.
    pub fn forget(&self, tenant: &TenantId, customer: &CustomerId) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (list, bytes) = &mut *kept;
        list.retain(|trace| trace.tenant != *tenant || trace.customer != *customer);
        *bytes = list.iter().map(|trace| trace.text.len()).sum();
    }

    /// Those of a tenant, newest first.
    pub fn of(&self, tenant: &TenantId) -> Vec<Kept> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.0.iter().rev().filter(|trace| trace.tenant == *tenant).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(id: usize, bytes: usize) -> Kept {
        Kept {
            id: id.to_string(),
            tenant: TenantId::new(if id.is_multiple_of(2) { "even" } else { "odd" }),
            customer: CustomerId::new("c"),
            at: Timestamp(id as i64),
            revision: Revision(1),
            text: "x".repeat(bytes).into(),
        }
    }

    #[test]
    fn the_oldest_go_where_there_are_too_many_or_they_are_too_large() {
        let traces = Traces::default();
        (0..TRACES_KEPT + 10).for_each(|id| traces.keep(kept(id, 10)));
        let (even, odd) = (traces.of(&TenantId::new("even")), traces.of(&TenantId::new("odd")));
        assert_eq!(even.len() + odd.len(), TRACES_KEPT);
        assert_eq!(even.last().map(|oldest| oldest.id.as_str()), Some("10"));
        assert!(even.is_sorted_by(|newer, older| newer.at > older.at));
        (0..3).for_each(|id| traces.keep(kept(2 * id, TRACE_BYTES_KEPT / 2 - 10)));
        assert_eq!(traces.of(&TenantId::new("even")).len() + traces.of(&TenantId::new("odd")).len(), 2);
        traces.keep(kept(1, TRACE_BYTES_KEPT + 1));
        assert!(traces.of(&TenantId::new("odd")).is_empty(), "one that is larger than all there is room for");
    }
}
