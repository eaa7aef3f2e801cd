//! Tests of the whole product, one file a subject.

mod layers;
mod simulation;
