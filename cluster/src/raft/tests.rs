//! Groups of replicas in one process, over carriers and disks in memory, on a paused clock.

mod conformance;
mod groups;
mod reconciled;
mod refusals;
mod world;
