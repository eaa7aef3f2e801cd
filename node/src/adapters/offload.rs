//! Threads for work that must not run on the async ones.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;

use proffer_cluster::ports::offload::{Lane, Offload, Running, Step};
use tokio::sync::oneshot;

struct Job {
    steps: Vec<Step>,
    done: oneshot::Sender<()>,
}

impl Job {
    fn run(self) {
        // A step that panics ends its job and not its thread; whoever waits sees that there is no result.
        let run = || self.steps.into_iter().map(|step| step()).find(std::ops::ControlFlow::is_break);
        let _panicked = catch_unwind(AssertUnwindSafe(run));
        let _gone = self.done.send(());
    }
}

/// One thread for the log, and tokio's blocking threads for everything else.
#[derive(Debug)]
pub struct Threads {
    log: mpsc::Sender<Job>,
    bulk: tokio::runtime::Handle,
}

impl Threads {
    /// Starts the log's thread; it ends when this is dropped. Bulk work runs on the blocking threads of `bulk`.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(bulk: tokio::runtime::Handle) -> io::Result<Threads> {
        let (log, jobs) = mpsc::channel::<Job>();
        std::thread::Builder::new().name("log-writer".to_owned()).spawn(move || jobs.into_iter().for_each(Job::run))?;
        Ok(Threads { log, bulk })
    }
}

impl Offload for Threads {
    fn run(&self, lane: Lane, steps: Vec<Step>) -> Running {
        let (done, ended) = oneshot::channel();
        let job = Job { steps, done };
        match lane {
            Lane::Log => {
                // If the thread is gone the job is dropped unrun, which ends the wait below.
                let _gone = self.log.send(job);
            }
            Lane::Bulk => {
                self.bulk.spawn_blocking(|| job.run());
            }
        }
        Box::pin(async move {
            let _ended = ended.await;
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proffer_cluster::ports::offload::{Lost, call, offload_conformance};

    use super::*;

    #[tokio::test]
    async fn threads_keep_the_contract() {
        offload_conformance(|| Arc::new(Threads::start(tokio::runtime::Handle::current()).unwrap())).await;
    }

    #[tokio::test]
    async fn a_panic_ends_its_job_and_no_other() {
        let threads = Threads::start(tokio::runtime::Handle::current()).unwrap();
        for lane in [Lane::Log, Lane::Bulk] {
            let panicked: Result<(), Lost> = call(&threads, lane, || panic!("on purpose")).await;
            assert_eq!(panicked, Err(Lost));
            assert_eq!(call(&threads, lane, || 7).await, Ok(7));
        }
    }
}
