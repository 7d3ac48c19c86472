//! The whole product through its one binary, as a user runs it: real nats-server, real PostgreSQL, real processes.

mod agents;
mod audit;
mod bulk;
mod cli;
mod cluster;
mod demo;
mod direct;
mod distribution;
mod kills;
mod main_job;
mod outages;
mod projection;
mod readme;
mod replicas;
mod support;
mod topologies;
