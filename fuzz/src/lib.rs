//! # proffer-fuzz
//!
//! What fuzz targets share: how one becomes a test ([`targets!`]), and how it reads decisions out of bytes ([`Choices`]).
//!
//! A target is a function of bytes that panics where something does not hold. It lies beside the code that it is for, in a file called
//! `fuzz.rs`, and is a plain test: for [`BUDGET_MS`], on bytes that are drawn (docs/testing.md, docs/adr/0017).
//!
//! Invariant: only tests depend on this.

mod choices;
mod runner;

pub use choices::Choices;
pub use runner::{BUDGET_MS, INPUT_BYTES_MAX, run};

/// Makes a test of each target, a function of bytes in the same module: `targets!(frame, hello)` gives `frame::holds` and `hello::holds`.
#[macro_export]
macro_rules! targets {
    ($($target:ident),+ $(,)?) => {$(
        mod $target {
            #[test]
            fn holds() {
                $crate::run(concat!(module_path!(), "::holds"), super::$target);
            }
        }
    )+};
}
