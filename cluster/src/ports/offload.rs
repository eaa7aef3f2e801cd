//! Work that must not run on the async threads: disk calls and long computations.

use std::future::Future;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

/// Where a job runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// The log's writes and syncs: one dedicated thread, jobs strictly in the order in which they were submitted. Nothing
    /// else runs there, so that no snapshot and no compile ever delays an acknowledgement.
    Log,
    /// Everything else (snapshots, log reads, compiles): several at a time, in no order.
    Bulk,
}

/// One part of a job; breaking skips the parts after it.
pub type Step = Box<dyn FnOnce() -> ControlFlow<()> + Send>;

/// A job under way.
pub type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs jobs made of blocking steps.
///
/// Contract:
/// * the steps of a job run one after the other; the future resolves after the last one that runs;
/// * a job may start before its future is polled, and runs to its end although the future is dropped, as long as the
///   process (in simulation: the host's runtime) lives: never drop one to cancel it;
/// * a step that panics ends its job: the future resolves, the later steps are dropped unrun;
/// * steps may block; they never wait for another job.
///
/// Adapters: the real one (`node`) has a thread for [`Lane::Log`] and a pool for [`Lane::Bulk`], and runs the steps back to
/// back, so that a batch costs one hop between threads. A simulated one sleeps a drawn time (`tokio::time`, paused) **before
/// each step**, then runs it inline on the host's own thread: a crash that falls into such a sleep drops the future, and
/// with it the steps that had not run. This is why append and sync are two steps: between them the bytes are written but
/// not synced, and a power cut there loses them.
pub trait Offload: Send + Sync + 'static {
    /// Submits a job.
    fn run(&self, lane: Lane, steps: Vec<Step>) -> Running;
}

/// The job did not run to its end: it panicked, or its thread is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("off-thread work ended without a result")]
pub struct Lost;

/// Runs one closure on a lane and hands back what it returned.
///
/// # Errors
/// [`Lost`] if it panicked or its thread is gone.
pub async fn call<T: Send + 'static>(
    offload: &dyn Offload,
    lane: Lane,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Lost> {
    let slot = Arc::new(Mutex::new(None));
    let filled = Arc::clone(&slot);
    let step: Step = Box::new(move || {
        let result = work();
        *filled.lock().expect("no holder panics") = Some(result);
        ControlFlow::Continue(())
    });
    offload.run(lane, vec![step]).await;
    slot.lock().expect("no holder panics").take().ok_or(Lost)
}

/// Runs every job at once on the caller's thread, when its future is first polled. For tests, and for a simulator that
/// draws no delays.
#[derive(Clone, Copy, Debug, Default)]
pub struct InlineOffload;

impl Offload for InlineOffload {
    fn run(&self, _lane: Lane, steps: Vec<Step>) -> Running {
        Box::pin(async move {
            for step in steps {
                if step().is_break() {
                    break;
                }
            }
        })
    }
}

/// What every adapter must pass: `make` gives a fresh one. Call it inside a tokio runtime.
///
/// # Panics
/// On the first breach of the contract.
pub async fn offload_conformance(make: impl Fn() -> Arc<dyn Offload>) {
    let offload = make();
    assert_eq!(call(&*offload, Lane::Bulk, || 6 * 7).await, Ok(42), "a job's result comes back");

    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = |what: u32, flow: ControlFlow<()>| -> Step {
        let seen = Arc::clone(&seen);
        Box::new(move || {
            seen.lock().expect("no holder panics").push(what);
            flow
        })
    };
    let (go, stop) = (ControlFlow::Continue(()), ControlFlow::Break(()));
    offload.run(Lane::Log, vec![note(1, go), note(2, stop), note(3, go)]).await;
    assert_eq!(*seen.lock().expect("no holder panics"), [1, 2], "steps run in order up to the one that breaks");

    seen.lock().expect("no holder panics").clear();
    let jobs: Vec<Running> = (0..100).map(|n| offload.run(Lane::Log, vec![note(n, go)])).collect();
    for job in jobs {
        job.await;
    }
    assert_eq!(*seen.lock().expect("no holder panics"), (0..100).collect::<Vec<_>>(), "the log lane keeps its order");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_inline_adapter_keeps_the_contract() {
        offload_conformance(|| Arc::new(InlineOffload)).await;
    }
}
