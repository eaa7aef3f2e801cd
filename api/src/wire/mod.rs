//! What goes over the wire: readers of requests, writers of answers.

pub mod adobe;
pub mod answer;
pub mod batch;
pub mod event;
pub mod field;
pub mod lines;
pub mod profile;
pub mod recommend;
pub mod respond;
pub mod value;
