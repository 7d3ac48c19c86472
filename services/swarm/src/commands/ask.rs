//! `swarm ask`: the questions of agents.

use clap::builder::PossibleValuesParser;
use serde_json::{Value, json};

use crate::{
    connection::ServerArgs,
    exit::Outcome,
    output::{Column, Format},
};

/// Commands on questions.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// List the questions that agents ask
    List(ListArgs),
    /// Show a question
    Show(QuestionArgs),
    /// Answer a question; the first answer counts
    Answer(AnswerArgs),
}

/// Arguments of `swarm ask list`.
#[derive(clap::Args, Debug)]
pub struct ListArgs {
    /// Name or id of the swarm
    pub swarm: String,
    /// Those that are in this state
    #[arg(long, default_value = "open", value_parser = PossibleValuesParser::new(["open", "answered", "unanswered", "all"]))]
    pub status: String,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub limit: usize,
}

/// A question.
#[derive(clap::Args, Debug)]
pub struct QuestionArgs {
    /// Name or id of the swarm
    pub swarm: String,
    /// Id of the question
    pub question: String,
}

/// Arguments of `swarm ask answer`.
#[derive(clap::Args, Debug)]
pub struct AnswerArgs {
    /// Which
    #[command(flatten)]
    pub which: QuestionArgs,
    /// One of its choices, plain text, JSON, @FILE with JSON, or - for JSON from stdin
    pub answer: String,
    /// A repeat with the same key is the same answer
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
}

const COLUMNS: [Column; 7] = [
    ("ID", "/id"),
    ("AGENT", "/agent_name"),
    ("STATUS", "/status"),
    ("QUESTION", "/question"),
    ("CHOICES", "/choices"),
    ("UNTIL", "/due_at"),
    ("ANSWER", "/answer"),
];

/// Runs a command on questions.
pub async fn run(command: Command, server: &ServerArgs, output: Format) -> Outcome {
    let api = super::api(server)?;
    match command {
        Command::List(args) => {
            let id = api.swarm_id(&args.swarm).await?;
            let query: Vec<_> = (args.status != "all")
                .then_some(("status", args.status))
                .into_iter()
                .collect();
            let path = format!("/v1/swarms/{id}/questions");
            let questions = api.list(&path, &query, Some(args.limit)).await?;
            output.list(&questions, &COLUMNS)
        }
        Command::Show(QuestionArgs { swarm, question }) => {
            let id = api.swarm_id(&swarm).await?;
            let path = format!("/v1/swarms/{id}/questions/{question}");
            output.object(&api.get(&path, &[]).await?)
        }
        Command::Answer(args) => {
            let id = api.swarm_id(&args.which.swarm).await?;
            let path = format!("/v1/swarms/{id}/questions/{}", args.which.question);
            let choices = api.get(&path, &[]).await?["choices"].take();
            let body = json!({ "answer": answer(&args.answer, &choices)? });
            let key = args.idempotency_key.as_deref();
            let answered = api.post(&format!("{path}/answer"), &body, key).await?;
            output.object(&answered)
        }
    }
}

/// A choice is a text, even one that reads as JSON (`1`, `true`).
fn answer(text: &str, choices: &Value) -> Outcome<Value> {
    let offered = choices.as_array().is_some_and(|all| !all.is_empty());
    if offered {
        Ok(json!(text))
    } else {
        super::text_or_json(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_a_text_and_any_other_answer_is_json_if_it_reads_as_such() {
        assert_eq!(answer("1", &json!(["1", "2"])).expect("good"), json!("1"));
        assert_eq!(answer("1", &json!([])).expect("good"), json!(1));
        assert_eq!(answer("go on", &json!([])).expect("good"), json!("go on"));
    }
}
