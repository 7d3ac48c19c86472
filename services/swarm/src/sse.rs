//! Server-sent events: lines into events, and a stream that comes back after a break.

use std::time::Duration;

use futures::StreamExt;
use tokio::sync::mpsc;

use crate::{
    api::Api,
    exit::{Code, Failure},
};

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SseEvent {
    /// `id:` the stream sequence.
    pub id: Option<u64>,
    /// `event:`
    pub event: Option<String>,
    /// `data:` lines, joined.
    pub data: String,
}

/// Splits bytes into events, however they are cut.
#[derive(Default)]
pub struct SseParser {
    rest: Vec<u8>,
    current: SseEvent,
    has_data: bool,
}

impl SseParser {
    /// Takes the next bytes and gives the events that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<SseEvent> {
        self.rest.extend_from_slice(bytes);
        let mut events = Vec::new();
        let mut from = 0;
        while let Some(length) = self.rest[from..].iter().position(|b| *b == b'\n') {
            let line = String::from_utf8_lossy(&self.rest[from..from + length]).into_owned();
            from += length + 1;
            if let Some(event) = self.line(line.trim_end_matches('\r')) {
                events.push(event);
            }
        }
        self.rest.drain(..from);
        events
    }

    fn line(&mut self, line: &str) -> Option<SseEvent> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.current);
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.current.id = value.parse().ok(),
            "event" => self.current.event = Some(value.to_owned()),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.current.data.push('\n');
                }
                self.current.data.push_str(value);
            }
            // Comments keep the connection alive; unknown fields are ignored by the specification.
            _ => {}
        }
        None
    }
}

/// Pause before a broken stream is opened again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(300);
/// How long a gateway may be away (it is restarted, for one) before following it is given up.
const AWAY_MAX: Duration = Duration::from_secs(60);
/// Events that wait for a slow reader; then the gateway's stream is read no further.
const BUFFER: usize = 1_024;

/// Follows the events at `path` after the sequence `from`, through restarts of the gateway.
/// The last item says why it ended, if it did.
pub fn follow(
    api: Api,
    path: String,
    from: Option<u64>,
) -> mpsc::Receiver<Result<SseEvent, Failure>> {
    let (sender, receiver) = mpsc::channel(BUFFER);
    tokio::spawn(async move {
        let mut last = from;
        let mut away: Option<tokio::time::Instant> = None;
        loop {
            match api.stream(&path, last).await {
                Ok(response) => {
                    away = None;
                    let mut parser = SseParser::default();
                    let mut bytes = response.bytes_stream();
                    while let Some(Ok(chunk)) = bytes.next().await {
                        for event in parser.push(&chunk) {
                            last = event.id.or(last);
                            if sender.send(Ok(event)).await.is_err() {
                                return;
                            }
                        }
                    }
                }
                Err(failure) => {
                    let since = *away.get_or_insert_with(tokio::time::Instant::now);
                    if failure.code == Code::NotFound || since.elapsed() > AWAY_MAX {
                        let _ = sender.send(Err(failure)).await;
                        return;
                    }
                }
            }
            if sender.is_closed() {
                return;
            }
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_however_the_bytes_are_cut() {
        let text = b": hello\n\nid: 7\nevent: swarm.task.started.v1\ndata: {\"a\":\r\ndata: 1}\n\nid: 8\ndata:x\n\n";
        let whole = SseParser::default().push(text);
        assert_eq!(whole.len(), 2);
        assert_eq!(
            (whole[0].id, whole[0].data.as_str()),
            (Some(7), "{\"a\":\n1}")
        );
        assert_eq!((whole[1].id, whole[1].data.as_str()), (Some(8), "x"));
        for size in 1..text.len() {
            let mut parser = SseParser::default();
            let cut: Vec<_> = text
                .chunks(size)
                .flat_map(|chunk| parser.push(chunk))
                .collect();
            assert_eq!(cut, whole, "chunks of {size}");
        }
    }

    #[test]
    fn an_event_without_data_is_none() {
        assert!(SseParser::default().push(b"id: 3\n\n: ping\n\n").is_empty());
    }
}
