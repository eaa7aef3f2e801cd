//! The expression language: one for computed fields, expression rules, filters and ranking formulas (domain.md §3).
//!
//! [`parse`] makes an [`Ast`], [`check`] finds the type errors that can be known, [`compile()`] resolves names to slots and
//! folds constants into a [`Program`], which evaluates against an [`Environment`] without hashing a name or reading text.
//! [`compare`] holds the comparisons that rule conditions share with the language.
//!
//! Invariant: nothing here panics, recurses without bound or throws at decision time; what can not be computed is null.

mod ast;
mod check;
pub mod compare;
mod compile;
mod eval;
mod functions;
#[cfg(test)]
mod fuzz;
mod lexer;
pub mod limits;
mod names;
mod numbers;
mod parser;
mod pattern;
#[cfg(test)]
mod properties;

pub use ast::{Ast, BinaryOperator, Node, NodeId, NodeKind, Position, UnaryOperator};
pub use check::{Type, TypeError, check};
pub use compile::{Program, Resolver, Source, compile};
pub use eval::Environment;
pub use functions::Function;
pub use names::{Name, Namespace};
pub use numbers::readable;
pub use parser::{SyntaxError, parse};
pub use pattern::Pattern;
