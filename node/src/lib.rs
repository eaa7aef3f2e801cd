//! The `proffer` binary's parts: composition root, command line, adapters.

pub mod adapters;
