//! Tests of the whole product: `sim` is a cluster in one process under a seed (docs/adr/0015), `workload` its clients, `check` what must
//! hold of its replicas, `run` one run from its beginning to its verdict; `bin/simulate` runs many. Other tests lie in `it/` (one binary) and
//! `scripts/`.

pub mod check;
pub mod operator;
pub mod run;
pub mod sim;
pub mod workload;
