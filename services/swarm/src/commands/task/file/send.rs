//! One chunk on its way to the gateway, with the patience that a full queue and a restart of a service ask for.

use std::time::Duration;

use bytes::Bytes;
use reqwest::StatusCode;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{
    check::Wrong,
    display::Display,
    lines::{Chunk, Line},
};
use crate::{
    api::{Answer, Api},
    exit::{Code, Failure, Outcome},
};

/// Wait after a refusal for load that names none; the gateway's figures are a second old at the most.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Longest wait that is taken from an answer: a gateway that names more is asked in between.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// First and last wait after no answer, doubled each time.
const AWAY_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How long the gateway may stay away: a restart of the whole installation takes less.
const AWAY_MAX: Duration = Duration::from_secs(120);

/// Where chunks go.
pub struct Target<'a> {
    /// The gateways.
    pub api: &'a Api,
    /// `/v1/swarms/{id}/tasks/bulk`
    pub path: &'a str,
    /// Lines that the gateway refuses are left out and reported; else the first one is an error.
    pub leave_out: bool,
    /// Where waits are shown.
    pub display: &'a Display,
}

/// A chunk that is stored, but for what was left out.
#[derive(Debug)]
pub struct Stored {
    /// The chunk without its texts.
    pub chunk: Chunk,
    /// Ids of its tasks, in their order.
    pub ids: Vec<String>,
}

/// `{"tasks":[…]}` of the lines as they are.
fn body(tasks: &[Line]) -> Bytes {
    let bytes = tasks.iter().map(|line| line.text.len() + 1).sum::<usize>();
    let mut body = Vec::with_capacity(bytes + 16);
    body.extend_from_slice(b"{\"tasks\":[");
    for (at, line) in tasks.iter().enumerate() {
        if at > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&line.text);
    }
    body.extend_from_slice(b"]}");
    body.into()
}

impl Target<'_> {
    /// Sends a chunk until it is stored.
    ///
    /// # Errors
    /// The gateway refuses it, or stays away.
    pub async fn send(&self, mut chunk: Chunk, key: String) -> Outcome<Stored> {
        let mut away: Option<(Instant, Duration)> = None;
        let mut text = body(&chunk.tasks);
        while !chunk.tasks.is_empty() {
            let failure = match self.api.post_text(self.path, text.clone(), &key).await {
                Ok(answer) if answer.status.is_success() => {
                    let ids = ids(&answer, chunk.tasks.len())?;
                    return Ok(Stored { chunk, ids });
                }
                Ok(answer) if answer.status == StatusCode::TOO_MANY_REQUESTS => {
                    away = None;
                    let wait = answer.retry_after.unwrap_or(RETRY_AFTER);
                    self.wait(wait.min(RETRY_AFTER_MAX), &answer.refusal().message)
                        .await;
                    continue;
                }
                // Whether it was stored is not known; the key makes sending it again safe.
                Ok(answer) if answer.status.is_server_error() => answer.refusal(),
                Ok(answer) => {
                    let Some((at, wrong)) = wrong_line(&answer, chunk.tasks.len()) else {
                        return Err(whole(&chunk, &answer));
                    };
                    if !self.leave_out {
                        return Err(refused(chunk.tasks[at].number, &wrong));
                    }
                    // Nothing of it is stored yet, so under the same key it may be sent without this line.
                    let line = chunk.tasks.remove(at);
                    chunk.wrong.push((line, wrong));
                    text = body(&chunk.tasks);
                    continue;
                }
                Err(failure) => failure,
            };
            let (since, pause) = away.get_or_insert_with(|| (Instant::now(), AWAY_PAUSE.0));
            if since.elapsed() > AWAY_MAX {
                return Err(Failure {
                    code: Code::Timeout,
                    ..failure
                });
            }
            let wait = *pause;
            *pause = (*pause * 2).min(AWAY_PAUSE.1);
            self.display
                .notice(&format!("no answer, trying again: {}", failure.message));
            sleep(wait).await;
        }
        let ids = Vec::new();
        Ok(Stored { chunk, ids })
    }

    async fn wait(&self, wait: Duration, why: &str) {
        self.display
            .notice(&format!("waiting {} s: {why}", wait.as_secs_f64()));
        sleep(wait).await;
    }
}

fn ids(answer: &Answer, wanted: usize) -> Outcome<Vec<String>> {
    let read: Value = serde_json::from_str(&answer.text).unwrap_or_default();
    let items = read["items"].as_array().map_or(&[][..], Vec::as_slice);
    let ids: Vec<String> = items
        .iter()
        .filter_map(|item| item["id"].as_str().map(str::to_owned))
        .collect();
    if ids.len() == wanted {
        return Ok(ids);
    }
    Err(Failure::failed(format!(
        "the gateway names {} tasks of {wanted} that were sent: does it have the version of this program?",
        ids.len()
    )))
}

/// Which task the refusal is about, by `tasks[N]` in its field.
fn wrong_line(answer: &Answer, tasks: usize) -> Option<(usize, Wrong)> {
    let read: Value = serde_json::from_str(&answer.text).ok()?;
    let (number, below) = read["field"]
        .as_str()?
        .strip_prefix("tasks[")?
        .split_once(']')?;
    let at = number.parse().ok().filter(|at| *at < tasks)?;
    let below = below.trim_start_matches('.');
    let wrong = Wrong {
        field: (!below.is_empty()).then(|| below.to_owned()),
        problem: read["detail"].as_str().unwrap_or("refused").to_owned(),
        cure: read["cure"].as_str().map(str::to_owned),
    };
    Some((at, wrong))
}

/// A line that stops the submission.
pub fn refused(number: u64, wrong: &Wrong) -> Failure {
    Failure::failed(format!("line {number}: {wrong}"))
}

fn whole(chunk: &Chunk, answer: &Answer) -> Failure {
    let failure = answer.refusal();
    let (Some(first), Some(last)) = (chunk.tasks.first(), chunk.tasks.last()) else {
        return failure;
    };
    Failure {
        code: failure.code,
        message: format!(
            "lines {} to {}: {}",
            first.number, last.number, failure.message
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, text: &str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).expect("a status"),
            retry_after: None,
            text: text.to_owned(),
        }
    }

    #[test]
    fn a_refusal_is_about_the_line_that_its_field_names() {
        let wrong = |field: &str| {
            let text = format!(r#"{{"detail":"11 is outside","field":"{field}","cure":"less"}}"#);
            wrong_line(&answer(422, &text), 3)
        };
        let (at, problem) = wrong("tasks[2].priority").expect("a line");
        assert_eq!((at, problem.field.as_deref()), (2, Some("priority")));
        assert_eq!(
            refused(17, &problem).message,
            "line 17: priority: 11 is outside (less)"
        );
        assert_eq!(wrong("tasks[0]").expect("a line").1.field, None);
        assert_eq!(wrong("tasks[3].priority"), None, "there is no such line");
        assert_eq!(wrong("Idempotency-Key"), None);
        assert_eq!(wrong("tasks[x].a"), None);
    }

    #[test]
    fn an_answer_that_leaves_tasks_out_is_no_acknowledgement() {
        let two = r#"{"items":[{"id":"a","status":"queued"},{"id":"b","status":"queued"}]}"#;
        assert_eq!(ids(&answer(202, two), 2).expect("both"), ["a", "b"]);
        assert!(ids(&answer(202, two), 3).is_err());
        assert!(ids(&answer(202, "<html>"), 1).is_err());
    }

    #[test]
    fn the_body_holds_the_lines_as_they_are() {
        let line = |number, text: &str| Line {
            number,
            text: text.into(),
        };
        let tasks = [line(1, r#"{"a": 1.50}"#), line(3, r#"{"b":2}"#)];
        assert_eq!(&body(&tasks)[..], br#"{"tasks":[{"a": 1.50},{"b":2}]}"#);
    }
}
