//! The servers that Swarm stands on, for development, tests and small installations:
//! finds or fetches nats-server and PostgreSQL, configures, starts and stops them.
//!
//! [`NatsServer`] and [`Postgres`] own a server process each; [`Authority`] makes the
//! credentials of those who may connect; [`testing`] starts throw-away servers.

mod authority;
mod error;
mod find;
mod nats;
mod ports;
mod postgres;
mod process;
mod run_as;
pub mod testing;

pub use authority::{Authority, Permissions, mint_user};
pub use error::ServerError;
pub use find::{SETTING_NATS_BIN, SETTING_POSTGRES_BIN_DIR, cache_dir, find_nats, find_postgres};
pub use nats::{
    ClusterSettings, Durability, NatsServer, NatsSettings, SETTING_NATS_MONITOR_PORT,
    SETTING_NATS_PORT, SETTING_NATS_WS_PORT,
};
pub use postgres::{PgSettings, Postgres, SETTING_POSTGRES_PORT};
