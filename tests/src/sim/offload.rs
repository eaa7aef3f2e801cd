//! Off-thread work on the host's own thread, each step after a drawn delay: a crash that falls into it loses the steps that had not
//! run.

use std::collections::VecDeque;
use std::future::Future;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proffer_cluster::ports::offload::{Lane, Offload, Running, Step};
use tokio::sync::{Notify, oneshot};

use super::seed::Draws;

/// How slow a host is. It outlives the processes.
#[derive(Debug, Default)]
pub struct Pace {
    /// Each step of the log usually takes so much more: its disk is slow.
    pub log_ms: AtomicU64,
    /// Each step of anything else does: its cores are busy.
    pub bulk_ms: AtomicU64,
}

struct Job {
    steps: Vec<Step>,
    done: oneshot::Sender<()>,
}

struct Shared {
    log: Mutex<VecDeque<Job>>,
    more: Notify,
    draws: Draws,
    pace: Arc<Pace>,
}

/// See the module.
pub struct SimOffload(Arc<Shared>);

impl SimOffload {
    /// Must be made inside the host's runtime: its log lane is a task there.
    pub fn new(draws: Draws, pace: Arc<Pace>) -> Self {
        let shared = Arc::new(Shared { log: Mutex::default(), more: Notify::new(), draws, pace });
        let own = Arc::clone(&shared);
        tokio::spawn(async move {
            loop {
                let job = own.log.lock().expect("no holder panics").pop_front();
                match job {
                    Some(job) => own.run(Lane::Log, job).await,
                    None => own.more.notified().await,
                }
            }
        });
        SimOffload(shared)
    }
}

impl Shared {
    /// One step in two is done before the next millisecond.
    fn delay_ms(&self, lane: Lane) -> u64 {
        let slow = match lane {
            Lane::Log => &self.pace.log_ms,
            Lane::Bulk => &self.pace.bulk_ms,
        };
        let slow = slow.load(Ordering::SeqCst);
        let slow = if slow == 0 { 0 } else { self.draws.heavy(slow, slow * 8) };
        slow + [0, 0, 0, 0, 0, 1, 1, 1, 1, 3][usize::try_from(self.draws.below(10)).unwrap_or(0)]
    }

    async fn run(&self, lane: Lane, job: Job) {
        for step in job.steps {
            let delay = self.delay_ms(lane);
            if delay > 0 {
                tokio::time::sleep(Duration::from_millis(delay)).await;
            }
            match catch_unwind(AssertUnwindSafe(step)) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) | Err(_) => break,
            }
        }
        let _ = job.done.send(());
    }
}

impl Offload for SimOffload {
    fn run(&self, lane: Lane, steps: Vec<Step>) -> Running {
        let (done, ended) = oneshot::channel();
        let job = Job { steps, done };
        match lane {
            Lane::Log => {
                self.0.log.lock().expect("no holder panics").push_back(job);
                self.0.more.notify_one();
            }
            Lane::Bulk => {
                let shared = Arc::clone(&self.0);
                let run: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> =
                    Box::pin(async move { shared.run(Lane::Bulk, job).await });
                tokio::spawn(run);
            }
        }
        Box::pin(async move {
            let _ = ended.await;
        })
    }
}

#[cfg(test)]
mod tests {
    use proffer_cluster::ports::offload::offload_conformance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_keeps_the_contract() {
        offload_conformance(|| Arc::new(SimOffload::new(Draws::new(1, "offload", 0), Arc::default()))).await;
    }
}
