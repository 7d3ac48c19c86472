//! What the agent is in its swarm, and how that changes while it runs.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::StreamExt;
use serde::Serialize;
use serde_json::{Map, Value};
use swarm_events::{
    Body, Input, Json, Problem, agent,
    command::{self, UpdateAgent},
    ids::{CommandId, EventId},
    subject::{AgentVerb, CommandVerb, Subject, SwarmVerb},
};
use swarm_log::{Log, LogError, Tailed};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::sleep,
};
use uuid::Uuid;

use crate::{
    answer::AnswerError,
    blackboard::Blackboard,
    ground::OnLog,
    join::{self, RETRY_PAUSE},
    link::Link,
    live,
    messages::{Messages, Trace},
    schemas::TASK_TYPES,
    wire::Identity,
};

/// Changes that wait for an answer at the most, beyond those under way: then the asker waits.
const WISHES_MAX: usize = 16;

/// The agent as it joins, and joins again: with what was changed since.
pub(crate) struct Profile(Mutex<command::Join>);

impl Profile {
    pub(crate) const fn new(join: command::Join) -> Self {
        Self(Mutex::new(join))
    }

    fn locked(&self) -> MutexGuard<'_, command::Join> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn join(&self) -> command::Join {
        self.locked().clone()
    }

    /// The swarm says that the agent is this from here on.
    pub(crate) fn became(&self, profile: &agent::Profile) {
        let mut join = self.locked();
        let agent::Profile {
            agent_type,
            agent_name,
            capabilities,
            slots,
            waiting,
            metadata,
        } = profile.clone();
        *join = command::Join {
            instance: join.instance,
            spawn: join.spawn,
            agent_type,
            agent_name: Some(agent_name),
            capabilities,
            slots: Some(slots),
            waiting: Some(waiting),
            metadata,
        };
    }

    /// What heartbeats carry of its metadata: not the schemas, which the log has from joining.
    pub(crate) fn told(&self) -> Json {
        let metadata = self.locked().metadata.clone();
        if !metadata.as_str().contains(TASK_TYPES) {
            return metadata;
        }
        match metadata.to_value() {
            Value::Object(mut members) => {
                members.remove(TASK_TYPES);
                Value::Object(members).into()
            }
            other => other.into(),
        }
    }
}

/// What is to be different of a running agent. What is not named stays.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use = "a change is made by AgentHandle::update"]
pub struct AgentChange(Map<String, Value>);

impl AgentChange {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }
    fn set(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.0.insert(member.to_owned(), value.into());
        self
    }
    /// Another name.
    pub fn name(self, name: impl Into<String>) -> Self {
        self.set("agent_name", name.into())
    }
    /// All that it can do from here on.
    pub fn capabilities(self, capabilities: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let all: Vec<String> = capabilities.into_iter().map(Into::into).collect();
        self.set("capabilities", all)
    }
    /// Tasks that it runs at once. What runs goes on, also beyond a smaller number.
    pub fn slots(self, slots: u32) -> Self {
        self.set("slots", slots)
    }
    /// Tasks that may wait at it beyond its slots.
    pub fn waiting(self, waiting: u32) -> Self {
        self.set("waiting", waiting)
    }
    /// A merge patch (RFC 7396) over its metadata: absent members stay, `null` removes one.
    pub fn metadata(self, patch: &Json) -> Self {
        self.set("metadata", patch.to_value())
    }
}

/// Why a running agent was not changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UpdateError {
    /// The swarm refuses it: the problem names the field.
    #[error("the swarm refuses the change: {0}")]
    Refused(Problem),
    /// The log takes or gives nothing.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The agent does not run, or ended before the answer came.
    #[error("the agent does not run: the change was not made, or nobody knows of it")]
    NotRunning,
}

/// A wish to change the agent, and where its answer goes.
pub(crate) struct Wish {
    pub(crate) patch: Json,
    pub(crate) answer: oneshot::Sender<Result<agent::Profile, UpdateError>>,
}

/// What a running agent speaks with.
#[derive(Clone)]
pub(crate) struct Ends {
    pub(crate) messages: Messages,
    pub(crate) board: Blackboard,
    pub(crate) ground: Arc<OnLog>,
}
impl fmt::Debug for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ends").finish_non_exhaustive()
    }
}

/// Changes an agent of this process while it runs, and speaks for it. Clones speak to the same agent.
#[derive(Clone, Debug)]
pub struct AgentHandle {
    wish: mpsc::Sender<Wish>,
    ends: watch::Receiver<Option<Ends>>,
}

impl AgentHandle {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Wish>, watch::Sender<Option<Ends>>) {
        let (wish, wishes) = mpsc::channel(WISHES_MAX);
        let (tell, ends) = watch::channel(None);
        (Self { wish, ends }, wishes, tell)
    }

    async fn ends(&self) -> Result<Ends, UpdateError> {
        let mut ends = self.ends.clone();
        let there = ends.wait_for(Option::is_some).await;
        there
            .ok()
            .and_then(|ends| ends.clone())
            .ok_or(UpdateError::NotRunning)
    }

    /// What the agent says beside its tasks. Waits until it has joined.
    ///
    /// # Errors
    /// [`UpdateError::NotRunning`]: it has ended.
    pub async fn messages(&self) -> Result<Messages, UpdateError> {
        self.ends().await.map(|ends| ends.messages)
    }

    /// The swarm's blackboard. Waits until the agent has joined.
    ///
    /// # Errors
    /// [`UpdateError::NotRunning`]: it has ended.
    pub async fn blackboard(&self) -> Result<Blackboard, UpdateError> {
        self.ends().await.map(|ends| ends.board)
    }

    /// Answers a question of another agent, one that a handler left open ([`crate::AgentBuilder::on_question`]) above all. `false`:
    /// there was an answer before, and the first one counts. Waits until the agent has joined, and until the swarm has decided.
    ///
    /// # Errors
    /// The answer cannot be one, the question is not this agent's to answer, or nobody knows of it; or the agent has ended.
    pub async fn answer(
        &self,
        question: CommandId,
        answer: impl Serialize,
    ) -> Result<bool, AnswerError> {
        let answer = Json::from_value(&answer)
            .map_err(|error| Problem::new("no-json", error.to_string()).field("answer"))
            .map_err(AnswerError::Refused)?;
        let ends = self.ends().await.map_err(|_| AnswerError::NotRunning)?;
        let trace = Trace::default();
        ends.ground.answer(question, answer, &trace).await
    }

    /// Asks the swarm for a change and waits until it holds: for as long as that takes, since the coordinator may be down.
    /// Answers with the whole new profile. An agent that joins again does so with what was changed.
    ///
    /// # Errors
    /// The swarm refuses it, by field; or the agent does not run.
    pub async fn update(&self, change: AgentChange) -> Result<agent::Profile, UpdateError> {
        let (answer, answered) = oneshot::channel();
        let patch = Json::from(Value::Object(change.0));
        let wish = Wish { patch, answer };
        self.wish
            .send(wish)
            .await
            .map_err(|_| UpdateError::NotRunning)?;
        answered.await.map_err(|_| UpdateError::NotRunning)?
    }
}

/// Sends the command and reads the log on until its answer.
pub(crate) async fn update(
    link: &Link,
    me: &Identity,
    incarnation: u64,
    patch: Json,
) -> Result<agent::Profile, UpdateError> {
    let command = CommandId(Uuid::now_v7());
    let subject = Subject::Command(me.place, CommandVerb::UpdateAgent);
    let body = UpdateAgent {
        incarnation: Some(incarnation),
        patch,
    };
    let message = me
        .message(EventId(command.0), &subject, me.agent.0, None, body.into())
        .map_err(|error| UpdateError::Refused(Problem::new("unwritable", error.to_string())))?;
    let sequence = join::append(link, message).await?;
    let filters = vec![
        Subject::Agent(me.place, AgentVerb::Updated, me.agent).to_string(),
        Subject::Swarm(me.place, SwarmVerb::Refused).to_string(),
    ];
    loop {
        let mut tail = link.log().tail(filters.clone(), sequence + 1);
        while let Some(tailed) = tail.next().await {
            let message = match tailed {
                Ok(Tailed::Message(message)) => message,
                Ok(_) => continue,
                Err(error @ LogError::Incompatible(_)) => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(%error, "cannot read the answer to a change of this agent");
                    continue;
                }
            };
            let Input::Event(recorded) = live::read(&message) else {
                continue;
            };
            if recorded.event.causation != Some(command.0) {
                continue;
            }
            match recorded.event.body {
                Body::AgentUpdated(updated) => return Ok(updated.profile),
                Body::SwarmRefused(refused) => return Err(UpdateError::Refused(refused.problem)),
                _ => {}
            }
        }
        sleep(RETRY_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use swarm_events::ids::InstanceId;

    use super::*;

    fn join(metadata: Value) -> command::Join {
        command::Join {
            instance: InstanceId(Uuid::nil()),
            agent_type: "t".to_owned(),
            agent_name: None,
            capabilities: Vec::new(),
            slots: None,
            waiting: None,
            metadata: metadata.into(),
            spawn: Some(4),
        }
    }

    #[test]
    fn a_change_is_a_merge_patch_with_only_what_was_named() {
        assert_eq!(AgentChange::new().0, Map::new());
        let all = AgentChange::new()
            .name("n")
            .capabilities(["b", "a"])
            .slots(3)
            .waiting(0)
            .metadata(&json!({"a": null}).into());
        let expected = json!({"agent_name": "n", "capabilities": ["b", "a"], "slots": 3, "waiting": 0, "metadata": {"a": null}});
        assert_eq!(Value::Object(all.0), expected);
    }

    #[test]
    fn it_joins_again_as_what_it_became_for_the_same_request() {
        let profile = Profile::new(join(json!({})));
        profile.became(&agent::Profile {
            agent_type: "t".to_owned(),
            agent_name: "n".to_owned(),
            capabilities: vec!["a".to_owned()],
            slots: 2,
            waiting: 1,
            metadata: json!({"b": 1}).into(),
        });
        let again = profile.join();
        assert_eq!(again.spawn, Some(4));
        assert_eq!((again.slots, again.waiting), (Some(2), Some(1)));
        assert_eq!(again.agent_name.as_deref(), Some("n"));
        assert_eq!(again.metadata.to_value(), json!({"b": 1}));
    }

    #[test]
    fn heartbeats_carry_no_schemas() {
        let told = |metadata| Profile::new(join(metadata)).told().to_value();
        assert_eq!(told(json!({"a": 1})), json!({"a": 1}));
        assert_eq!(
            told(json!({"a": 1, "task_types": {"t": {"input": {}}}})),
            json!({"a": 1})
        );
    }
}
