//! The HTTP face against a node in memory, called as a tower service: what a client sees.

#![expect(clippy::unwrap_used, reason = "tests")]

mod access;
mod adobe;
mod arbitrary;
mod cluster;
mod crud;
mod decide;
mod domain;
mod forwarding;
mod imports;
mod metrics;
mod node;
mod problems;
mod retries;
mod tutorial;
mod writes;
