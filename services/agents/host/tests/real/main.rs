//! Hosts on a real nats-server with real processes.

mod ground;

mod claims;
mod ends;
mod host_killed;
mod limits;
mod output;
mod surroundings;
