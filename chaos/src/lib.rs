//! Fault injection against real processes: a cluster of `proffer serve` behind proxies, load through all of its nodes, faults drawn from a
//! seed, and checks of what the clients saw.
//!
//! It knows the product from outside only: its command line and its HTTP interface. The history and its checkers depend on nothing of ours, so that
//! they serve simulation too; `bin/chaos.rs` puts the parts together.
//!
//! Map: [`history`] is what clients saw, [`checker`] what must hold of it; [`supervisor`] runs processes, [`proxy`] stands between them,
//! [`client`] calls them, [`load`] is what is called, [`nemesis`] what is done to them, [`run`] the order of it all; [`report`] and [`plot`] tell.

pub mod checker;
pub mod client;
pub mod history;
pub mod limits;
pub mod load;
pub mod nemesis;
pub mod plot;
pub mod proxy;
pub mod report;
pub mod run;
pub mod supervisor;
