//! Tests of the whole product, one file a subject.

mod coverage;
mod layers;
mod simulation;
