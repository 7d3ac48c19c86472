//! Write agents in Rust.
pub mod protocol;
