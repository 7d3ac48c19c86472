//! Swarm's one binary.
fn main() {}
