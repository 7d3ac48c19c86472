//! A command that also answers what other agents ask.

use std::sync::Arc;

use serde_json::Value;
use swarm_agent_sdk::{AgentBuilder, Handler, ReceivedQuestion, TaskError};
use swarm_events::Json;

use super::ExecAdapter;

impl ExecAdapter {
    /// Has the command answer questions, too, which is to be said of commands that know them only: each comes as a run of its
    /// own, whose `task_type` is `question` and whose `payload` says what is asked. See [`Self::serve`]. Also set by the agent's
    /// metadata, `{"exec": {"answers": true}}`.
    #[must_use]
    pub fn answer_questions(mut self) -> Self {
        self.answers = true;
        self
    }

    /// Gives an agent this command as its work: for its tasks, and for questions if it answers them. Of these `id` is the
    /// question's, `payload` is `{"from", "question", "choices", "default"}`, and `deadline` says until when an answer is
    /// waited for; SIGTERM means that none is wanted any more. The answer is the result, or one word or value on stdout;
    /// nothing at all, `null`, `declined` or an error leave the question to others.
    pub fn serve(self, agent: AgentBuilder) -> AgentBuilder {
        let work = Arc::new(self);
        let agent = agent.any_raw_handler(work.clone());
        if !work.answers {
            return agent;
        }
        agent.on_question(move |question: ReceivedQuestion| {
            let work = work.clone();
            async move {
                match work.handle(question.as_task()).await {
                    Ok(result) => Ok(answer(&result, &question.choices)),
                    Err(TaskError { declined: true, .. }) => Ok(None),
                    Err(error) => Err(error),
                }
            }
        })
    }
}

/// What a result answers.
fn answer(result: &Json, choices: &[String]) -> Option<Value> {
    let value = match result.to_value() {
        Value::Object(members) if members.len() == 1 => match members.get("stdout") {
            Some(Value::String(text)) => word(text.trim(), choices),
            _ => Value::Object(members),
        },
        other => other,
    };
    Some(value).filter(|value| !value.is_null())
}

/// What was printed: one of the choices, else a JSON value, else the text.
fn word(text: &str, choices: &[String]) -> Value {
    if text.is_empty() {
        return Value::Null;
    }
    let is_choice = choices.iter().any(|choice| choice == text);
    let read = serde_json::from_str(text).ok().filter(|_| !is_choice);
    read.unwrap_or_else(|| Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_result_is_an_answer_unless_it_is_nothing() {
        let choices = ["yes".to_owned(), "7".to_owned()];
        for (result, expected) in [
            (json!({"stdout": "yes\n"}), Some(json!("yes"))),
            (json!({"stdout": "7\n"}), Some(json!("7"))),
            (json!({"stdout": "8\n"}), Some(json!(8))),
            (json!({"stdout": "\"no\""}), Some(json!("no"))),
            (json!({"stdout": "so it is"}), Some(json!("so it is"))),
            (json!({"stdout": "null"}), None),
            (json!({"stdout": "\n"}), None),
            (json!({"stdout": 1}), Some(json!({"stdout": 1}))),
            (json!({"a": 1}), Some(json!({"a": 1}))),
            (json!([]), Some(json!([]))),
        ] {
            assert_eq!(
                answer(&result.clone().into(), &choices),
                expected,
                "{result}"
            );
        }
    }
}
