//! The demo's own work, apart from running it: what is counted in a file, how counts are folded, which tasks that makes.

pub mod count;
pub mod fold;
pub mod graph;
pub mod input;
