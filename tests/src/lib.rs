//! Tests of the whole product live in `it/` (one binary) and `scripts/`; the simulator's modules will live here.
