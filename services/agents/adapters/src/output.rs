//! What a command's stdout means.

use serde::Deserialize;
use serde_json::{Value, json};
use swarm_events::Json;

/// Most bytes of stdout, control lines not counted. A command that prints more is killed.
pub const STDOUT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A JSON line with nothing but these: it speaks to the swarm and is no result.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Control {
    pub(crate) progress: Option<Value>,
    pub(crate) message: Option<Value>,
    pub(crate) ask: Option<Value>,
}

impl Control {
    fn read(line: &[u8]) -> Option<Self> {
        if line.trim_ascii_start().first() != Some(&b'{') {
            return None;
        }
        let control: Self = serde_json::from_slice(line).ok()?;
        let says = control.progress.is_some() || control.message.is_some() || control.ask.is_some();
        says.then_some(control)
    }

    /// Parts done, 0 to 100.
    pub(crate) fn percent(&self) -> Option<u8> {
        // Saturates: what is below 0 or above 100 is 0 or 100.
        self.progress
            .as_ref()?
            .as_f64()
            .map(|percent| percent.min(100.0) as u8)
    }

    /// Words beside the progress. An object that says to whom it goes is no such words.
    pub(crate) fn words(&self) -> Option<String> {
        let message = self.message.as_ref().filter(|_| self.said().is_none())?;
        let text = message.as_str();
        Some(text.map_or_else(|| message.to_string(), str::to_owned))
    }

    /// A message to others.
    pub(crate) fn said(&self) -> Option<&Value> {
        let message = self.message.as_ref()?;
        (message.get("to").is_some() || message.get("topic").is_some()).then_some(message)
    }
}

/// More was printed than is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMuch;

/// Stdout as it comes.
#[derive(Default)]
pub(crate) struct Output {
    /// Whole lines that are not control, then the unfinished line from `line` on.
    text: Vec<u8>,
    line: usize,
    result: Option<Json>,
}

impl Output {
    /// Takes the next bytes; `control` hears of control lines.
    pub(crate) fn push(
        &mut self,
        bytes: &[u8],
        mut control: impl FnMut(Control),
    ) -> Result<(), TooMuch> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.text.extend_from_slice(part);
            if part.ends_with(b"\n") {
                self.end_line(&mut control);
            }
        }
        if self.text.len() > STDOUT_BYTES_MAX {
            Err(TooMuch)
        } else {
            Ok(())
        }
    }

    fn end_line(&mut self, control: &mut impl FnMut(Control)) {
        let line = &self.text[self.line..];
        if let Some(said) = Control::read(line) {
            control(said);
            self.text.truncate(self.line);
        } else if let Some(json) = structure(line) {
            self.result = Some(json);
        }
        self.line = self.text.len();
    }

    /// The result: the last JSON line; else all of it, if it is JSON; else the text.
    pub(crate) fn finish(mut self, mut control: impl FnMut(Control)) -> Json {
        if self.line < self.text.len() {
            self.end_line(&mut control);
        }
        if let Some(json) = self.result.or_else(|| structure(&self.text)) {
            return json;
        }
        json!({ "stdout": String::from_utf8_lossy(&self.text) }).into()
    }
}

/// What a command that failed says of it: the last JSON line, if that is an object with `error`, `retryable` or `declined`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Confession {
    pub(crate) error: Option<String>,
    pub(crate) retryable: Option<bool>,
    /// It gives the task back, for this reason.
    pub(crate) declined: Option<String>,
}

impl Confession {
    /// Reads it from what would be the result, had the command succeeded. Other members do not matter.
    pub(crate) fn read(result: &Json) -> Self {
        let said = result.to_value();
        let words = |error: &Value| {
            error
                .as_str()
                .map_or_else(|| error.to_string(), str::to_owned)
        };
        let said_of = |name| said.get(name).filter(|said| !said.is_null()).map(words);
        Self {
            error: said_of("error"),
            declined: said_of("declined"),
            retryable: said.get("retryable").and_then(Value::as_bool),
        }
    }
}

/// A JSON object or array. A bare number or word is text: `wc -l` prints a number and means it for people.
fn structure(text: &[u8]) -> Option<Json> {
    if !matches!(text.trim_ascii_start().first(), Some(b'{' | b'[')) {
        return None;
    }
    Json::parse(std::str::from_utf8(text).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8], chunk: usize) -> (Value, Vec<Control>) {
        let (mut output, mut said) = (Output::default(), Vec::new());
        for bytes in text.chunks(chunk) {
            output
                .push(bytes, |control| said.push(control))
                .expect("short");
        }
        let result = output.finish(|control| said.push(control)).to_value();
        (result, said)
    }

    #[test]
    fn what_counts_as_the_result() {
        for (text, result) in [
            ("5\n", json!({"stdout": "5\n"})),
            ("", json!({"stdout": ""})),
            ("a\nb", json!({"stdout": "a\nb"})),
            ("log\n{\"a\":1}\nlog {\n", json!({"a": 1})),
            ("{\"a\":1}\n{\"a\":2}", json!({"a": 2})),
            ("[1,2]\n", json!([1, 2])),
            ("{\n  \"pretty\": true\n}\n", json!({"pretty": true})),
            ("{\"progress\":1}\ntext\n", json!({"stdout": "text\n"})),
            (
                "{\"message\":\"hi\",\"more\":1}\n",
                json!({"message": "hi", "more": 1}),
            ),
            ("{}\n", json!({})),
            ("true\n", json!({"stdout": "true\n"})),
            ("{broken\n", json!({"stdout": "{broken\n"})),
        ] {
            for chunk in [1, 3, 1_000] {
                assert_eq!(
                    read(text.as_bytes(), chunk).0,
                    result,
                    "{text:?} in parts of {chunk}"
                );
            }
        }
        assert_eq!(read(b"\xff\n", 1).0, json!({"stdout": "\u{fffd}\n"}));
    }

    #[test]
    fn a_failure_is_told_by_the_last_json_object() {
        for (text, error, retryable) in [
            (
                r#"{"error":"no such user","retryable":false}"#,
                Some("no such user"),
                Some(false),
            ),
            (r#"{"error":"busy"}"#, Some("busy"), None),
            (r#"{"retryable":true,"more":1}"#, None, Some(true)),
            (r#"{"error":{"code":7}}"#, Some(r#"{"code":7}"#), None),
            (r#"{"error":null,"retryable":"no"}"#, None, None),
            ("[1]", None, None),
            ("text", None, None),
            ("", None, None),
        ] {
            let mut output = Output::default();
            output.push(text.as_bytes(), |_| ()).expect("short");
            let said = Confession::read(&output.finish(|_| ()));
            assert_eq!(
                (said.error.as_deref(), said.retryable),
                (error, retryable),
                "{text}"
            );
        }
    }

    #[test]
    fn a_task_is_given_back_in_words() {
        for (text, declined) in [
            (r#"{"declined":"not here"}"#, Some("not here")),
            (r#"{"declined":null}"#, None),
            (r#"{"error":"x"}"#, None),
        ] {
            let mut output = Output::default();
            output.push(text.as_bytes(), |_| ()).expect("short");
            let said = Confession::read(&output.finish(|_| ()));
            assert_eq!(said.declined.as_deref(), declined, "{text}");
        }
    }

    #[test]
    fn control_lines_are_told_and_not_kept() {
        let (result, said) = read(
            b"{\"progress\":12.7}\n{\"progress\":300,\"message\":\"x\"}\n{\"ask\":{}}\nend\n",
            7,
        );
        assert_eq!(result, json!({"stdout": "end\n"}));
        let told: Vec<_> = said
            .iter()
            .map(|c| (c.percent(), c.words(), c.ask.is_some()))
            .collect();
        assert_eq!(
            told,
            [
                (Some(12), None, false),
                (Some(100), Some("x".to_owned()), false),
                (None, None, true)
            ]
        );
    }

    #[test]
    fn the_limit_counts_what_is_kept() {
        let mut output = Output::default();
        for _ in 0..3 {
            let line = format!("{{\"message\":\"{}\"}}\n", "x".repeat(STDOUT_BYTES_MAX / 2));
            assert_eq!(output.push(line.as_bytes(), |_| ()), Ok(()));
        }
        assert_eq!(output.push(&vec![b'x'; STDOUT_BYTES_MAX], |_| ()), Ok(()));
        assert_eq!(output.push(b"x", |_| ()), Err(TooMuch));
    }
}
