//! # proffer-engine
//!
//! The pure decision engine: what people author ([`model`], [`catalog`]), that compiled for deciding ([`snapshot`]), what a
//! shard owns of its profiles ([`profile`], [`budget`]) and the decision itself ([`decide`]).
//!
//! Invariant: nothing here knows of tokio, clocks, randomness, files or sockets. Time, ids and seeds are arguments; maps
//! iterate in a fixed order; the same input gives the same bytes.

pub mod budget;
pub mod calendar;
pub mod catalog;
pub mod codec;
pub mod decide;
pub mod expr;
pub mod keys;
pub mod learn;
pub mod level;
pub mod limits;
pub mod model;
pub mod profile;
pub mod snapshot;
pub mod time;
pub mod value;
