//! What agents and people say to each other, on `swarm.msg.…` in the stream `swarm_messages`, and the questions that agents
//! ask of people, which the coordinator keeps in the log.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    ids::{AgentId, CommandId, SwarmId, UserId},
    json::Json,
    topology::Role,
};

/// Largest body of a message, in bytes: large things go by the blackboard or the object store.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Longest name of a topic, in bytes.
pub const TOPIC_BYTES_MAX: usize = 200;
/// Longest question, in bytes.
pub const QUESTION_BYTES_MAX: usize = 8 * 1024;
/// Most answers that a question offers.
pub const CHOICES_MAX: usize = 32;
/// Most questions of a swarm that are open at a time: people answer them one by one.
pub const QUESTIONS_OPEN_MAX: usize = 1_000;
/// Longest that a question may wait for its answer, in milliseconds: 30 days.
pub const QUESTION_TIMEOUT_MS_MAX: u64 = 30 * 24 * 3_600 * 1_000;

/// What a receipt proves.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// A process of the recipient has read it. It may die before it does anything.
    Delivered,
    /// The recipient's handler came to its end without an error.
    Handled,
    /// The recipient's handler came to its end with an error.
    Failed,
    /// The recipient did not take it: it has no edge to the sender, or nothing that handles it.
    Refused,
}

/// Why a message is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// To say something.
    Tell,
    /// To ask something: a `reply` is expected.
    Request,
    /// The answer to a message.
    Reply {
        /// Which.
        to: Uuid,
    },
    /// What became of a message.
    Receipt {
        /// Which.
        of: Uuid,
        /// What became of it.
        stage: Stage,
        /// In words, where it was not taken or failed.
        detail: Option<String>,
    },
}

/// The other end in another swarm of the organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Abroad {
    /// The other swarm.
    pub swarm_id: SwarmId,
    /// The agent there; its leader if absent.
    #[serde(default)]
    pub agent_id: Option<AgentId>,
}

/// `swarm.message.sent.v1`; the CloudEvents subject is the sender (the swarm, if people send it).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sent {
    /// The sender's incarnation; 0 for people.
    #[serde(default)]
    pub incarnation: u64,
    /// Why.
    pub purpose: Purpose,
    /// The topic, if it is sent to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The receipt that is wanted: `delivered` or `handled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Stage>,
    /// After so many milliseconds from its storing nobody is to handle it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// In a message that goes to, or came from, another swarm: the other end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abroad: Option<Abroad>,
    /// What it says, at most [`MESSAGE_BYTES_MAX`] bytes.
    #[serde(default)]
    pub body: Json,
}

/// Who is to answer a question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Answerer {
    /// A person, by API, CLI or dashboard. Agents may too.
    #[default]
    Anybody,
    /// The swarm's leader. People may too.
    Leader,
    /// An agent with that role. People may too.
    Role(Role),
}

/// `swarm.agent.asked.v1`: an agent waits for an answer. The question's id is that of the command that asked it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Asked {
    /// The question's id.
    pub question_id: CommandId,
    /// The incarnation that asks.
    pub incarnation: u64,
    /// The assignment that it is about; absent if none.
    #[serde(default)]
    pub assignment: Option<u64>,
    /// Who is to answer.
    pub answerer: Answerer,
    /// In words.
    pub question: String,
    /// The answers to choose from; without any, any JSON is one.
    #[serde(default)]
    pub choices: Vec<String>,
    /// The answer if there is none in time; without it the question ends unanswered.
    #[serde(default)]
    pub default: Option<Json>,
    /// How long it waits, in milliseconds.
    pub timeout_ms: u64,
}

/// Who answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AnsweredBy {
    /// A person, by the key's user; absent if the answer was published directly.
    Person(Option<UserId>),
    /// An agent.
    Agent(AgentId),
    /// Nobody in time: it is the question's default.
    Default,
}

/// `swarm.agent.answered.v1`: the first answer counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Answered {
    /// The question.
    pub question_id: CommandId,
    /// The answer.
    pub answer: Json,
    /// By whom.
    pub by: AnsweredBy,
}

/// `swarm.agent.unanswered.v1`: nobody answered in time and there is no default, or the agent that asked is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unanswered {
    /// The question.
    pub question_id: CommandId,
    /// Why.
    pub reason: String,
}

/// `swarm.cmd.ask.v1`: sent by an agent; the CloudEvents subject is the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// The incarnation that asks.
    pub incarnation: u64,
    /// The assignment that it is about.
    #[serde(default)]
    pub assignment: Option<u64>,
    /// Who is to answer.
    #[serde(default)]
    pub answerer: Answerer,
    /// In words, at most [`QUESTION_BYTES_MAX`] bytes.
    pub question: String,
    /// The answers to choose from, at most [`CHOICES_MAX`].
    #[serde(default)]
    pub choices: Vec<String>,
    /// The answer if there is none in time.
    #[serde(default)]
    pub default: Option<Json>,
    /// How long it waits, in milliseconds, at most [`QUESTION_TIMEOUT_MS_MAX`].
    pub timeout_ms: u64,
}

/// `swarm.cmd.answer.v1`: by a person or an agent; the CloudEvents subject is the swarm, or the agent that answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The question.
    pub question_id: CommandId,
    /// The answer.
    pub answer: Json,
    /// Whose key it was.
    #[serde(default)]
    pub user_id: Option<UserId>,
    /// The agent that answers, with its incarnation; absent for a person.
    #[serde(default)]
    pub agent: Option<(AgentId, u64)>,
}
