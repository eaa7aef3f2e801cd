//! How large an expression may be, and what it may produce (domain.md §3).

/// Longest source, in bytes.
pub const SOURCE_BYTES_MAX: usize = 4_096;

/// Deepest nesting: parentheses, calls, lists, unary operators and branches of `?:` around one operand. Chains of binary
/// operators do not nest.
pub const DEPTH_MAX: usize = 64;

/// Most nodes of a syntax tree.
pub const NODES_MAX: usize = 512;

/// Longest string that an expression may yield, in bytes; a longer one is null, a longer literal a syntax error.
pub const TEXT_BYTES_MAX: usize = 1_024;

/// Most values that a list may hold in all, those in lists and objects inside it counted, for an expression to yield it; a larger one is
/// null. Computed fields build on each other: without it a chain of them, each naming the one before twice, doubles with each.
pub const LIST_VALUES_MAX: usize = 1_024;

/// Deepest nesting of a list that an expression may yield, as of the bodies that values come in; a deeper one is null.
pub const LIST_DEPTH_MAX: usize = 32;
