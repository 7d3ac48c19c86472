//! What nats-server tells of the connections of others, over its system account: the quickest way to learn of an end.
//!
//! A notice is a hint. Servers send it once, nobody stores it, and none comes from a server that is killed itself; whoever
//! follows them must find the lost by their silence too.

use std::time::Duration;

use futures::{StreamExt, future, stream, stream::BoxStream};
use serde::Deserialize;
use tokio::time::sleep;

use crate::{
    LogError,
    connect::{ConnectSettings, Connection, connect},
};

/// Notices of connections in whatever account end in one of the two tokens below. One subscription for both: two would lose
/// the order of a close and the open that follows it.
const NOTICES: &str = "$SYS.ACCOUNT.*.*";
const CLOSED: &str = ".DISCONNECT";
const OPENED: &str = ".CONNECT";
/// Pause before the system account is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Something that a server said about the connection with this name ([`ConnectSettings::name`] of its process).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It has ended, whatever the reason.
    Closed(String),
    /// It stands.
    Opened(String),
}

/// Names of the connections that nats-server says are closed. `settings` must hold credentials of the system account.
/// Never ends: what cannot be reached is warned of once and tried again.
pub fn follow(settings: ConnectSettings) -> BoxStream<'static, String> {
    watch(settings)
        .filter_map(|notice| {
            future::ready(match notice {
                Notice::Closed(name) => Some(name),
                Notice::Opened(_) => None,
            })
        })
        .boxed()
}

/// Both kinds of notices, in the order in which a server sent them.
pub fn watch(settings: ConnectSettings) -> BoxStream<'static, Notice> {
    let state = State {
        settings,
        source: None,
        warned: false,
    };
    stream::unfold(state, |mut state| async move {
        let notice = state.next().await;
        Some((notice, state))
    })
    .boxed()
}

struct State {
    settings: ConnectSettings,
    source: Option<Source>,
    warned: bool,
}

/// Kept together: without its connection the subscription ends.
struct Source {
    _connection: Connection,
    notices: async_nats::Subscriber,
}

impl State {
    async fn next(&mut self) -> Notice {
        loop {
            let source = match &mut self.source {
                Some(source) => source,
                empty => match subscribe(self.settings.clone()).await {
                    Ok(source) => {
                        tracing::info!("following the server's notices of connections");
                        self.warned = false;
                        empty.insert(source)
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut self.warned, true) {
                            tracing::warn!(%error, "no disconnect notices: who is lost is found by silence, which takes longer");
                        }
                        sleep(AGAIN).await;
                        continue;
                    }
                },
            };
            match source.notices.next().await {
                Some(message) => {
                    if let Some(notice) = read(&message.subject, &message.payload) {
                        return notice;
                    }
                }
                None => self.source = None,
            }
        }
    }
}

async fn subscribe(settings: ConnectSettings) -> Result<Source, LogError> {
    let connection = connect(settings).await?;
    let notices = connection
        .client()
        .subscribe(NOTICES)
        .await
        .map_err(|error| LogError::Unreachable(error.to_string()))?;
    Ok(Source {
        _connection: connection,
        notices,
    })
}

/// `None` for other notices, and for what cannot be read.
fn read(subject: &str, payload: &[u8]) -> Option<Notice> {
    #[derive(Deserialize)]
    struct Body {
        client: Client,
    }
    #[derive(Deserialize)]
    struct Client {
        #[serde(default)]
        name: String,
    }
    let closed = subject.ends_with(CLOSED);
    if !closed && !subject.ends_with(OPENED) {
        return None;
    }
    match serde_json::from_slice::<Body>(payload) {
        Ok(Body { client }) if closed => Some(Notice::Closed(client.name)),
        Ok(Body { client }) => Some(Notice::Opened(client.name)),
        Err(error) => {
            tracing::debug!(subject, %error, "a notice that cannot be read");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_notices_of_connections_are_read() {
        let body = br#"{"type":"x","client":{"id":7,"name":"health-1"},"reason":"Client Closed"}"#;
        let named = || "health-1".to_owned();
        assert_eq!(
            read("$SYS.ACCOUNT.A.DISCONNECT", body),
            Some(Notice::Closed(named()))
        );
        assert_eq!(
            read("$SYS.ACCOUNT.A.CONNECT", body),
            Some(Notice::Opened(named()))
        );
        assert_eq!(read("$SYS.ACCOUNT.A.CLAIMS", body), None);
        assert_eq!(read("$SYS.ACCOUNT.A.DISCONNECT", b"{}"), None);
        assert_eq!(
            read("$SYS.ACCOUNT.A.DISCONNECT", br#"{"client":{}}"#),
            Some(Notice::Closed(String::new()))
        );
    }
}
