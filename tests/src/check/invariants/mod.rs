//! One invariant a file.

pub mod caps_hold;
pub mod never_back;
pub mod none_made;
pub mod nothing_forgotten;
pub mod nothing_taken;
pub mod on_time;
pub mod one_history;
pub mod terms_rise;
