//! The HTTP face against a node in memory, called as a tower service: what a client sees.

mod access;
mod arbitrary;
mod crud;
mod decide;
mod node;
mod problems;
