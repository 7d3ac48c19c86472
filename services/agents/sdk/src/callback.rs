//! What is called back about an assignment: by whoever works on it elsewhere, through the gateway, with a token.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ring::{hmac, rand::SystemRandom};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use swarm_events::{Json, Problem};
use tokio::sync::mpsc;

/// Calls that wait to be heeded by their handler at the most; what comes beyond is refused with 503.
const CALLS_MAX: usize = 64;
/// Assignments that have ended and are still known as such. An older one is unknown.
const ENDED_MAX: usize = 10_000;

/// What the gateway asks the agent: the body of its request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallbackRequest {
    /// Stream sequence of the assignment.
    pub assignment: u64,
    /// The token that came with it.
    pub token: String,
    /// What is called back: `{"result"}`, `{"error", "retryable"?}`, `{"declined"}` or `{"progress": {"percent"?, "message"?}}`.
    pub body: Json,
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallbackAnswer {
    /// HTTP status: 200, or what the problem is answered with.
    pub status: u16,
    /// Why it was refused.
    #[serde(default)]
    pub problem: Option<Problem>,
}

/// What was called back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Called {
    /// The work is done.
    Result(Json),
    /// It failed.
    Error {
        /// What went wrong.
        error: String,
        /// Whether another attempt could help.
        retryable: bool,
    },
    /// It is given back.
    Declined(String),
    /// It goes on.
    Progress {
        /// Parts done, 0 to 100.
        percent: Option<u8>,
        /// In words.
        message: Option<String>,
    },
}

impl Called {
    /// Reads the body of a call.
    ///
    /// # Errors
    /// Names the field that is wrong.
    pub fn read(body: &Json) -> Result<Self, Problem> {
        let wrong = |field: &str, detail: &str| {
            Problem::new("bad-callback", detail).field(field).cure(
                "send {\"result\": …}, {\"error\": \"…\", \"retryable\": true}, {\"declined\": \"…\"} or {\"progress\": {\"percent\": 50, \"message\": \"…\"}}",
            )
        };
        let Value::Object(mut said) = body.to_value() else {
            return Err(wrong("body", "the body is no JSON object"));
        };
        let text = |said: &mut Map<String, Value>, name: &str| match said.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(wrong(name, "it is no string")),
        };
        let called = if let Some(result) = said.remove("result") {
            Self::Result(result.into())
        } else if let Some(error) = text(&mut said, "error")? {
            let retryable = match said.remove("retryable") {
                None => true,
                Some(Value::Bool(retryable)) => retryable,
                Some(_) => return Err(wrong("retryable", "it is neither true nor false")),
            };
            Self::Error { error, retryable }
        } else if let Some(reason) = text(&mut said, "declined")? {
            Self::Declined(reason)
        } else {
            match said.remove("progress") {
                Some(Value::Object(mut progress)) => {
                    let percent = match progress.remove("percent") {
                        None | Some(Value::Null) => None,
                        Some(percent) => {
                            match percent.as_u64().and_then(|p| u8::try_from(p).ok()) {
                                Some(percent) if percent <= 100 => Some(percent),
                                _ => {
                                    return Err(wrong(
                                        "progress.percent",
                                        "it is no whole number from 0 to 100",
                                    ));
                                }
                            }
                        }
                    };
                    let message = match progress.remove("message") {
                        None | Some(Value::Null) => None,
                        Some(Value::String(message)) => Some(message),
                        Some(_) => return Err(wrong("progress.message", "it is no string")),
                    };
                    if let Some(other) = progress.keys().next() {
                        return Err(wrong(
                            &format!("progress.{other}"),
                            "there is no such field",
                        ));
                    }
                    Self::Progress { percent, message }
                }
                Some(_) => return Err(wrong("progress", "it is no JSON object")),
                None => return Err(wrong("body", "it says nothing")),
            }
        };
        match said.keys().next() {
            Some(other) => Err(wrong(other, "there is no such field beside the others")),
            None => Ok(called),
        }
    }

    const fn is_end(&self) -> bool {
        !matches!(self, Self::Progress { .. })
    }
}

/// Where an agent's handlers wait for calls. Its secret is made anew with each process: a token holds as long as the process.
#[derive(Clone)]
pub struct Callbacks(Arc<Desk>);

struct Desk {
    key: hmac::Key,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    open: BTreeMap<u64, mpsc::Sender<Called>>,
    ended: BTreeSet<u64>,
}

/// An assignment that is waited for. Dropped, calls about it are late.
pub struct Awaited {
    desk: Arc<Desk>,
    assignment: u64,
    /// What whoever works on it needs to call back.
    pub token: String,
    calls: mpsc::Receiver<Called>,
}

impl Callbacks {
    /// A desk with a new secret.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn new() -> Result<Self, std::io::Error> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| std::io::Error::other("the system gives no random numbers"))?;
        let book = Mutex::default();
        Ok(Self(Arc::new(Desk { key, book })))
    }

    /// Waits for calls about `assignment` from now on.
    pub fn open(&self, assignment: u64) -> Awaited {
        let (sender, calls) = mpsc::channel(CALLS_MAX);
        self.0.locked().open.insert(assignment, sender);
        Awaited {
            desk: self.0.clone(),
            assignment,
            token: self.0.token(assignment),
            calls,
        }
    }

    /// Answers a request of the gateway.
    pub fn answer(&self, payload: &[u8]) -> CallbackAnswer {
        let (status, problem) = match self.0.take(payload) {
            Ok(()) => (200, None),
            Err((status, problem)) => (status, Some(problem)),
        };
        CallbackAnswer { status, problem }
    }
}

impl Awaited {
    /// The next call. Pending for ever once the last one was met.
    pub async fn next(&mut self) -> Called {
        match self.calls.recv().await {
            Some(called) => called,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.desk.locked().end(self.assignment);
    }
}

impl Book {
    fn end(&mut self, assignment: u64) {
        self.open.remove(&assignment);
        self.ended.insert(assignment);
        if self.ended.len() > ENDED_MAX {
            self.ended.pop_first();
        }
    }
}

impl Desk {
    fn locked(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn token(&self, assignment: u64) -> String {
        let tag = hmac::sign(&self.key, &assignment.to_be_bytes());
        tag.as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    fn is_token(&self, assignment: u64, token: &str) -> bool {
        let bytes: Option<Vec<u8>> = token
            .as_bytes()
            .chunks(2)
            .map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok())
            .collect();
        // In constant time.
        bytes.is_some_and(|tag| hmac::verify(&self.key, &assignment.to_be_bytes(), &tag).is_ok())
    }

    fn take(&self, payload: &[u8]) -> Result<(), (u16, Problem)> {
        let request: CallbackRequest = serde_json::from_slice(payload)
            .map_err(|error| (400, Problem::new("bad-callback", error.to_string())))?;
        let assignment = request.assignment;
        let mut book = self.locked();
        if !self.is_token(assignment, &request.token) {
            let known = book.open.contains_key(&assignment) || book.ended.contains(&assignment);
            return Err(if known {
                let problem =
                    Problem::new("wrong-token", "the token is not that of this assignment")
                        .field("Authorization")
                        .cure("send the token that came with the task");
                (401, problem)
            } else {
                let detail = format!("this agent has no assignment {assignment}");
                let cure = "the agent may have been started anew: the task is given out again";
                (
                    404,
                    Problem::new("unknown-assignment", detail)
                        .field("assignment")
                        .cure(cure),
                )
            });
        }
        let called = Called::read(&request.body).map_err(|problem| (422, problem))?;
        let late = || {
            let detail = format!("nobody waits for assignment {assignment} any more");
            let cure = "it was answered already, ran out of time, or was called off";
            (
                410,
                Problem::new("assignment-ended", detail)
                    .field("assignment")
                    .cure(cure),
            )
        };
        let ends = called.is_end();
        let Some(waiting) = book.open.get(&assignment) else {
            return Err(late());
        };
        match waiting.try_send(called) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(late()),
            Err(mpsc::error::TrySendError::Full(_)) => {
                let problem =
                    Problem::new("too-many-calls", "calls come faster than they are heeded");
                return Err((503, problem.cure("tell progress once a second at the most")));
            }
        }
        if ends {
            book.end(assignment); // the first end counts
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ask(desk: &Callbacks, assignment: u64, token: &str, body: Value) -> (u16, String) {
        let request = CallbackRequest {
            assignment,
            token: token.to_owned(),
            body: body.into(),
        };
        let answer = desk.answer(&serde_json::to_vec(&request).expect("JSON"));
        let code = answer.problem.map_or_else(String::new, |p| p.code);
        (answer.status, code)
    }

    #[tokio::test]
    async fn calls_reach_the_handler_until_the_first_end() {
        let desk = Callbacks::new().expect("random");
        let mut awaited = desk.open(7);
        let token = awaited.token.clone();
        let progress = json!({"progress": {"percent": 40, "message": "m"}});
        assert_eq!(ask(&desk, 7, &token, progress).0, 200);
        assert_eq!(ask(&desk, 7, &token, json!({"result": null})).0, 200);
        let late = (410, "assignment-ended".to_owned());
        assert_eq!(ask(&desk, 7, &token, json!({"result": 2})), late);
        let told = Called::Progress {
            percent: Some(40),
            message: Some("m".to_owned()),
        };
        assert_eq!(awaited.next().await, told);
        assert_eq!(awaited.next().await, Called::Result(Json::null()));
        drop(awaited);
        assert_eq!(ask(&desk, 7, &token, json!({"result": 3})), late);
    }

    #[tokio::test]
    async fn tokens_are_of_one_assignment_and_one_process() {
        let (desk, other) = (
            Callbacks::new().expect("random"),
            Callbacks::new().expect("random"),
        );
        let (first, second) = (desk.open(7), desk.open(8));
        let foreign = other.open(7);
        let result = || json!({"result": 1});
        for token in [
            "",
            "zz",
            "0",
            &second.token,
            &foreign.token,
            &first.token[2..],
        ] {
            assert_eq!(
                ask(&desk, 7, token, result()),
                (401, "wrong-token".to_owned()),
                "{token}"
            );
        }
        assert_eq!(ask(&desk, 9, &first.token, result()).0, 404);
        assert_eq!(ask(&desk, 7, &first.token, result()).0, 200);
    }

    #[tokio::test]
    async fn a_handler_that_is_gone_or_overrun_says_so() {
        let desk = Callbacks::new().expect("random");
        let awaited = desk.open(7);
        let token = awaited.token.clone();
        let progress = || json!({"progress": {}});
        for _ in 0..CALLS_MAX {
            assert_eq!(ask(&desk, 7, &token, progress()).0, 200);
        }
        assert_eq!(
            ask(&desk, 7, &token, progress()),
            (503, "too-many-calls".to_owned())
        );
        drop(awaited);
        assert_eq!(ask(&desk, 7, &token, progress()).0, 410);
        for assignment in 100..100 + ENDED_MAX as u64 {
            drop(desk.open(assignment));
        }
        assert_eq!(desk.0.locked().ended.len(), ENDED_MAX);
        assert_eq!(desk.answer(b"{").status, 400);
    }

    #[test]
    fn a_body_that_says_something_else_is_refused_by_field() {
        for (body, field) in [
            (json!([]), "body"),
            (json!({}), "body"),
            (json!({"error": 1}), "error"),
            (json!({"error": "x", "retryable": "no"}), "retryable"),
            (json!({"declined": false}), "declined"),
            (json!({"progress": 5}), "progress"),
            (json!({"progress": {"percent": 101}}), "progress.percent"),
            (json!({"progress": {"percent": 1.5}}), "progress.percent"),
            (json!({"progress": {"message": 1}}), "progress.message"),
            (json!({"progress": {"done": 1}}), "progress.done"),
            (json!({"result": 1, "error": "x"}), "error"),
            (json!({"result": 1, "more": 2}), "more"),
        ] {
            let refused = Called::read(&body.clone().into()).expect_err("refused");
            assert_eq!(refused.field.as_deref(), Some(field), "{body}");
        }
        let read = |body: Value| Called::read(&body.into()).expect("read");
        let error = |error: &str, retryable| Called::Error {
            error: error.to_owned(),
            retryable,
        };
        assert_eq!(read(json!({"error": "x"})), error("x", true));
        assert_eq!(
            read(json!({"error": "x", "retryable": false})),
            error("x", false)
        );
        assert_eq!(
            read(json!({"declined": "no"})),
            Called::Declined("no".to_owned())
        );
    }
}
