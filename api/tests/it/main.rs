//! The HTTP face against a node in memory, called as a tower service: what a client sees.

#![expect(clippy::unwrap_used, reason = "tests")]

mod access;
mod activities;
mod adobe;
mod arbitrary;
mod batch;
mod cluster;
mod crud;
mod decide;
mod domain;
mod experiments;
mod fields;
mod forwarding;
mod hierarchy;
mod imports;
mod learning;
mod metrics;
mod models;
mod node;
mod offers;
mod problems;
mod retries;
mod traces;
mod tutorial;
mod writes;
