//! Fault injection against real processes. Its checkers depend on nothing of ours, so that they serve simulation too.
