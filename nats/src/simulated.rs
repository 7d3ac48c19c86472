//! The simulated log.
