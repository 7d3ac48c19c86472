//! Write agents in Rust: say what you can do and what to do, the rest is the protocol.
//!
//! ```no_run
//! # use swarm_agent_sdk::{Agent, LinkSettings, TaskContext, TaskError};
//! # async fn example(org: swarm_events::OrgId, swarm: swarm_events::SwarmId) -> Result<(), swarm_agent_sdk::AgentError> {
//! let stop = tokio_util::sync::CancellationToken::new();
//! Agent::builder(LinkSettings::new("nats://127.0.0.1:7422"), org, swarm)
//!     .agent_type("analyzer")
//!     .capabilities(["count"])
//!     .handler("count", |_: TaskContext, text: String| async move { Ok::<_, TaskError>(text.split(' ').count()) })
//!     .run(stop)
//!     .await?;
//! # Ok(()) }
//! ```
//!
//! A handler runs at least once for each attempt that the swarm makes; of all attempts exactly one result is taken. A side
//! effect that must not happen twice is guarded by [`TaskContext::fencing_token`], which rises from assignment to assignment.

mod agent;
mod answer;
mod ask;
mod blackboard;
mod callback;
mod environment;
mod ground;
mod handler;
mod io;
mod join;
mod link;
mod live;
mod messages;
mod profile;
pub mod protocol;
mod resources;
mod schemas;
mod session;
mod swarm;
pub mod testing;
mod wire;
mod work;

pub use agent::{Agent, AgentBuilder, AgentError, Stopped};
pub use answer::{ANSWERS_MAX, AnswerError, QUESTION_TYPE, ReceivedQuestion};
pub use ask::{AskError, QUESTION_WAIT_DEFAULT, Question};
pub use blackboard::{Blackboard, BoardChange, BoardError, Entry};
pub use callback::{Awaited, CallbackAnswer, CallbackRequest, Callbacks, Called};
pub use environment::{ENVIRONMENT, EnvironmentError};
pub use handler::{Handler, Progress, Report, SPLIT_BYTES_MAX, TaskContext, TaskError};
pub use link::{Link, LinkSettings};
pub use messages::{
    Draft, Messages, Receipt, ReceivedMessage, RequestError, SUBSCRIPTION_MAX, SendError,
    SentMessage, Speaker, Subscription, To, desk::HANDLERS_MAX,
};
pub use profile::{AgentChange, AgentHandle, UpdateError};
pub use resources::{Figures, Meter};
pub use schemas::{METADATA_BYTES_MAX, TASK_TYPES};
pub use session::CANCEL_GRACE;
pub use work::{DEADLINE_SLACK, PROGRESS_INTERVAL, RESULT_OBJECT_BYTES_MAX};

pub use schemars;
pub use swarm_events::{
    message::{Answered, AnsweredBy, Answerer, Stage},
    task::{Part, Step},
    topology::Role,
};
pub use swarm_log::{connect::Credentials, jetstream::Durability};
pub use swarm_topology::MissingEdge;
