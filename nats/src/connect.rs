//! Connecting to nats-server, and learning of losses of the connection.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr, connection::State};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::LogError;

/// First pause before a reconnect; doubled from attempt to attempt.
pub const RECONNECT_DELAY_MIN: Duration = Duration::from_millis(50);
/// A server that comes back is found within a second, without a storm of attempts meanwhile.
pub const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(1);
/// A peer that vanished or hangs without closing the connection shows after two or three unanswered pings: about as long as a
/// cluster takes to do without it.
pub const PING_INTERVAL: Duration = Duration::from_secs(2);
/// Limit for one attempt to connect.
pub const CONNECT_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// Limit for one request (consumer creation, direct get) before it counts as lost.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between attempts while the first connection is being made.
const FIRST_CONNECT_PAUSE: Duration = Duration::from_millis(100);

/// Credentials of a NATS user (a JWT and its key).
#[derive(Clone)]
pub enum Credentials {
    /// A `.creds` file.
    File(PathBuf),
    /// The text of one.
    Text(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Text(_) => f.write_str("Text(..)"),
        }
    }
}

/// Hook that sees every event of the client library (slow consumers, server errors, lame duck mode and the like).
pub type EventHook = Arc<dyn Fn(&Event) + Send + Sync>;

/// How to reach nats-server.
#[derive(Clone)]
pub struct ConnectSettings {
    /// One or several addresses, separated by commas, each like `nats://127.0.0.1:7422` (user and password may be in it).
    pub url: String,
    /// Credentials, if the server asks for them.
    pub creds: Option<Credentials>,
    /// Shown by the server beside the connection: service and instance.
    pub name: String,
    /// How long the first connection is tried before giving up. Afterwards the client reconnects for ever.
    pub first_connect_wait: Duration,
    /// Prefix of reply subjects instead of `_INBOX`, for users that may only subscribe to their own.
    pub inbox_prefix: Option<String>,
    /// Sees every event of the client library.
    pub on_event: Option<EventHook>,
}

impl ConnectSettings {
    /// Settings for `url` under the connection name `name`, with a first wait of ten seconds.
    pub fn new(url: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            creds: None,
            name: name.into(),
            first_connect_wait: Duration::from_secs(10),
            inbox_prefix: None,
            on_event: None,
        }
    }
}

/// The connection as last heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionState {
    /// Whether it stands.
    pub connected: bool,
    /// How often it was lost since the start: a change means that requests may be lost, whatever `connected` says now.
    pub losses: u64,
}

/// A client that reconnects for ever, and the news of its connection.
#[derive(Clone, Debug)]
pub struct Connection {
    client: Client,
    state: watch::Receiver<ConnectionState>,
}

impl Connection {
    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Follows losses and returns of the connection.
    pub fn watch(&self) -> watch::Receiver<ConnectionState> {
        self.state.clone()
    }

    /// How often the connection was lost so far.
    pub fn losses(&self) -> u64 {
        self.state.borrow().losses
    }

    /// Whether a message published now would leave at once.
    pub fn is_connected(&self) -> bool {
        self.state.borrow().connected && self.client.connection_state() == State::Connected
    }
}

/// Connects, waiting up to `settings.first_connect_wait` for a server that is still starting.
///
/// # Errors
/// [`LogError::Unreachable`] with the address and the last cause; at once when the server refuses the credentials.
pub async fn connect(settings: ConnectSettings) -> Result<Connection, LogError> {
    let addresses = settings
        .url
        .split(',')
        .map(|url| url.trim().parse::<ServerAddr>())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| {
            LogError::Unreachable(format!("{} is not a NATS address: {error}", settings.url))
        })?;
    let (sender, state) = watch::channel(ConnectionState {
        connected: false,
        losses: 0,
    });
    let sender = Arc::new(sender);
    let deadline = Instant::now() + settings.first_connect_wait;
    loop {
        let error = match options(&settings, &sender)?.connect(&addresses[..]).await {
            Ok(client) => {
                // The client's own event may still be on its way.
                sender.send_modify(|state| {
                    state.connected = client.connection_state() == State::Connected
                });
                return Ok(Connection { client, state });
            }
            Err(error) => error,
        };
        let refused = matches!(
            error.kind(),
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication
        );
        if refused || Instant::now() + FIRST_CONNECT_PAUSE > deadline {
            return Err(LogError::Unreachable(format!(
                "cannot connect to nats-server at {}: {error}",
                settings.url
            )));
        }
        sleep(FIRST_CONNECT_PAUSE).await;
    }
}

fn options(
    settings: &ConnectSettings,
    state: &Arc<watch::Sender<ConnectionState>>,
) -> Result<ConnectOptions, LogError> {
    let state = state.clone();
    let hook = settings.on_event.clone();
    let mut options = ConnectOptions::new()
        .name(&settings.name)
        .ping_interval(PING_INTERVAL)
        .connection_timeout(CONNECT_ATTEMPT_TIMEOUT)
        .request_timeout(Some(REQUEST_TIMEOUT))
        .max_reconnects(None)
        .reconnect_delay_callback(reconnect_delay)
        .event_callback(move |event| {
            match &event {
                Event::Connected => state.send_modify(|state| state.connected = true),
                Event::Disconnected | Event::Closed => state.send_modify(|state| {
                    state.connected = false;
                    state.losses += 1;
                }),
                other => tracing::warn!(event = %other, "nats client"),
            }
            if let Some(hook) = &hook {
                hook(&event);
            }
            std::future::ready(())
        });
    if let Some(prefix) = &settings.inbox_prefix {
        options = options.custom_inbox_prefix(prefix);
    }
    match &settings.creds {
        None => Ok(options),
        Some(Credentials::Text(text)) => options.credentials(text).map_err(|error| {
            LogError::Unreachable(format!("the NATS credentials cannot be read: {error}"))
        }),
        Some(Credentials::File(path)) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                LogError::Unreachable(format!(
                    "cannot read NATS credentials {}: {error}",
                    path.display()
                ))
            })?;
            options.credentials(&text).map_err(|error| {
                LogError::Unreachable(format!(
                    "{} holds no NATS credentials: {error}",
                    path.display()
                ))
            })
        }
    }
}

/// Exponential from [`RECONNECT_DELAY_MIN`] to [`RECONNECT_DELAY_MAX`]; `attempt` starts at 1.
fn reconnect_delay(attempt: usize) -> Duration {
    let doublings = u32::try_from(attempt.saturating_sub(1))
        .unwrap_or(u32::MAX)
        .min(8);
    (RECONNECT_DELAY_MIN * 2u32.pow(doublings)).min(RECONNECT_DELAY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reconnects_back_off_to_a_second() {
        assert_eq!(reconnect_delay(1), RECONNECT_DELAY_MIN);
        assert_eq!(reconnect_delay(2), Duration::from_millis(100));
        assert_eq!(reconnect_delay(60), RECONNECT_DELAY_MAX);
    }
}
