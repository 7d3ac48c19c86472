//! Building an agent and keeping it in its swarm.

use std::{future::Future, marker::PhantomData, sync::Arc, time::Duration};

use futures::FutureExt;
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use swarm_events::{
    Json, Problem,
    agent::StopThen,
    command::Join,
    ids::{AgentId, InstanceId, OrgId, SwarmId},
    subject::{Place, connection_name},
};
use swarm_log::LogError;
use tokio::{
    sync::{Mutex, mpsc, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    answer::ReceivedQuestion,
    callback::Callbacks,
    environment::{self, EnvironmentError},
    handler::{Handler, Handlers, TaskContext, TaskError, Typed},
    join::NotJoined,
    link::{Link, LinkSettings},
    messages::{ReceivedMessage, desk::OnMessage},
    profile::{AgentHandle, Ends, Profile, Wish},
    protocol::Over,
    schemas::{self, Types},
    session::{self, Ended, Settings},
    swarm::HEARTBEAT_INTERVAL_MIN,
    wire::Identity,
};

/// Code of the refusal to join that says that another process has the agent's place.
const SUPERSEDED: &str = "superseded";
/// Pause before joining again after having been held to be dead: doubled each time up to the second value, so that an agent on an
/// overloaded machine does not flap.
const REJOIN_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How an agent's life ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It was told to stop, finished what ran within its grace, and left.
    Left,
    /// The swarm wanted it to go: it finished what ran within the grace that it was given, and left.
    Asked {
        /// Why.
        reason: String,
        /// What comes after.
        then: StopThen,
    },
    /// It was removed from the swarm.
    Removed {
        /// Why.
        reason: String,
    },
}

/// Why an agent cannot go on.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AgentError {
    /// The bus or the log is not what is needed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// What it says of itself is no object, or too large.
    #[error("{0}")]
    Metadata(String),
    /// The swarm refused it.
    #[error("the swarm refuses this agent: {0}")]
    Refused(Problem),
    /// The swarm has put another process in the place of this one, or wants none any more.
    #[error("this process is not the agent {agent} any more: {problem}")]
    Replaced {
        /// The id.
        agent: AgentId,
        /// Why.
        problem: Problem,
    },
    /// Another process joined under the same id.
    #[error(
        "two agents with one identity: process {instance} joined as agent {agent} with incarnation {incarnation}; \
         give each process an id of its own"
    )]
    Superseded {
        /// The id.
        agent: AgentId,
        /// The other process.
        instance: InstanceId,
        /// Its incarnation.
        incarnation: u64,
    },
}

/// An agent of a swarm.
pub struct Agent;

impl Agent {
    /// An agent as the environment of this process says, which is how an agent host starts one ([`crate::ENVIRONMENT`]).
    ///
    /// # Errors
    /// Names every variable that is missing or cannot be read, all at once.
    pub fn from_env() -> Result<AgentBuilder, EnvironmentError> {
        AgentBuilder::from_env()
    }

    /// An agent of `swarm`, reached as `link` says.
    pub fn builder(link: LinkSettings, org: OrgId, swarm: SwarmId) -> AgentBuilder {
        AgentBuilder {
            link,
            place: Place::new(org, swarm),
            id: AgentId(Uuid::now_v7()),
            profile: Join {
                instance: InstanceId(Uuid::nil()),
                agent_type: "rust".to_owned(),
                agent_name: None,
                capabilities: Vec::new(),
                slots: None,
                waiting: None,
                metadata: Json::object(),
                spawn: None,
            },
            handlers: Handlers::default(),
            schemas: true,
            callbacks: None,
            wishes: None,
            ends: None,
            heartbeat_interval: None,
            drain_grace: None,
        }
    }
}

/// What an agent is and can do, before it runs.
#[derive(Clone)]
#[must_use = "an agent does nothing until it runs"]
pub struct AgentBuilder {
    link: LinkSettings,
    place: Place,
    id: AgentId,
    profile: Join,
    handlers: Handlers,
    schemas: bool,
    callbacks: Option<Callbacks>,
    wishes: Option<Arc<Mutex<mpsc::Receiver<Wish>>>>,
    ends: Option<Arc<watch::Sender<Option<Ends>>>>,
    heartbeat_interval: Option<Duration>,
    drain_grace: Option<Duration>,
}

impl AgentBuilder {
    /// As [`Agent::from_env`].
    ///
    /// # Errors
    /// As [`Agent::from_env`].
    pub fn from_env() -> Result<Self, EnvironmentError> {
        environment::builder(|name| std::env::var(name).ok())
    }
    /// Its id, kept over restarts; a new one if not given.
    pub fn id(mut self, id: AgentId) -> Self {
        self.id = id;
        self
    }
    /// Its name, unique among the swarm's live agents; derived from the id if not given.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.profile.agent_name = Some(name.into());
        self
    }
    /// Its type, `rust` if not given.
    pub fn agent_type(mut self, agent_type: impl Into<String>) -> Self {
        self.profile.agent_type = agent_type.into();
        self
    }
    /// What it can do.
    pub fn capabilities(
        mut self,
        capabilities: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        self.profile.capabilities = capabilities.into_iter().map(Into::into).collect();
        self.profile.capabilities.sort();
        self.profile.capabilities.dedup();
        self
    }
    /// Tasks that it runs at once; the swarm's setting if not given.
    pub fn slots(mut self, slots: u32) -> Self {
        self.profile.slots = Some(slots);
        self
    }
    /// Tasks that may wait at it beyond its slots; the swarm's setting if not given.
    pub fn waiting(mut self, waiting: u32) -> Self {
        self.profile.waiting = Some(waiting);
        self
    }
    /// The number of the spawn request that started this process, for agents that a host runs.
    pub fn spawn(mut self, spawn: u64) -> Self {
        self.profile.spawn = Some(spawn);
        self
    }
    /// Anything; shown with the agent.
    pub fn metadata(mut self, metadata: Json) -> Self {
        self.profile.metadata = metadata;
        self
    }
    /// How often it sends heartbeats. If not given, the swarm's `heartbeat_interval_ms` holds, also when it changes; another
    /// interval than health expects makes it a suspect, or hides that it hangs.
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.heartbeat_interval = Some(interval.max(HEARTBEAT_INTERVAL_MIN));
        self
    }
    /// How long running work may go on after a stop; the swarm's `drain_grace_ms` if not given.
    pub fn drain_grace(mut self, grace: Duration) -> Self {
        self.drain_grace = Some(grace);
        self
    }

    /// Works on tasks of type `task_type` with a function from payload to result. A payload that `In` does not take fails the
    /// attempt for good and names the field; the JSON Schemas of both types show under the agent's `metadata.task_types`.
    pub fn handler<In, Out, F, Fut>(self, task_type: impl Into<String>, function: F) -> Self
    where
        F: Fn(TaskContext, In) -> Fut + Send + Sync + 'static,
        In: DeserializeOwned + JsonSchema + Send + 'static,
        Out: Serialize + JsonSchema + 'static,
        Fut: Future<Output = Result<Out, TaskError>> + Send + 'static,
    {
        let task_type = task_type.into();
        let typed = Typed {
            function,
            input: PhantomData,
        };
        let mut agent = self.raw_handler(task_type.clone(), typed);
        let types = Types::of::<In, Out>();
        agent.handlers.types.insert(task_type, types);
        agent
    }
    /// Works on tasks of every type that no other handler names.
    pub fn any_handler<In, Out, F, Fut>(self, function: F) -> Self
    where
        F: Fn(TaskContext, In) -> Fut + Send + Sync + 'static,
        In: DeserializeOwned + Send + 'static,
        Out: Serialize + 'static,
        Fut: Future<Output = Result<Out, TaskError>> + Send + 'static,
    {
        self.any_raw_handler(Typed {
            function,
            input: PhantomData,
        })
    }
    /// Works on tasks of type `task_type` on their JSON as it is.
    pub fn raw_handler(mut self, task_type: impl Into<String>, handler: impl Handler) -> Self {
        let task_type = task_type.into();
        self.handlers.types.remove(&task_type);
        self.handlers.by_type.insert(task_type, Arc::new(handler));
        self
    }
    /// Works on tasks of every type that no other handler names, on their JSON as it is.
    pub fn any_raw_handler(mut self, handler: impl Handler) -> Self {
        self.handlers.other = Some(Arc::new(handler));
        self
    }

    /// Handles the messages that no handler of a topic takes: those said to this agent, to its role, the leader or all. They
    /// come at least once, also those that were said while the agent was away (for a day), each sender's in order and the
    /// senders in turns. A request is answered by [`ReceivedMessage::reply`].
    pub fn on_message<F, Fut>(mut self, function: F) -> Self
    where
        F: Fn(ReceivedMessage) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        self.handlers.messages.other = Some(Arc::new(move |message| function(message).boxed()));
        self
    }
    /// Handles what is said on a topic, and what is said to this agent about it. As [`Self::on_message`].
    pub fn on_topic<F, Fut>(mut self, topic: impl Into<String>, function: F) -> Self
    where
        F: Fn(ReceivedMessage) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        let handler: OnMessage = Arc::new(move |message| function(message).boxed());
        self.handlers.messages.topics.insert(topic.into(), handler);
        self
    }

    /// Answers questions of other agents ([`TaskContext::ask`]): each open one that is for anybody, for the leader while this
    /// agent leads, or for a role while it has that. What is open when it joins, becomes the leader or gets the role is told to
    /// it then, the oldest first. `None` leaves a question to others; people may always answer, and the first answer counts. An
    /// error or a panic leaves it open, too, and it is not told again before the agent joins anew or gets that part once more.
    ///
    /// At most [`crate::ANSWERS_MAX`] run at a time, beside the tasks. See [`ReceivedQuestion::over`].
    pub fn on_question<Out, F, Fut>(mut self, function: F) -> Self
    where
        F: Fn(ReceivedQuestion) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Option<Out>, TaskError>> + Send + 'static,
        Out: Serialize,
    {
        self.handlers.questions = Some(Arc::new(move |question| {
            let answer = function(question);
            async move {
                let Some(answer) = answer.await? else {
                    return Ok(None);
                };
                let answer = Json::from_value(&answer).map_err(|error| {
                    TaskError::permanent(format!("the answer is no JSON: {error}"))
                })?;
                Ok(Some(answer))
            }
            .boxed()
        }));
        self
    }

    /// Keeps the JSON Schemas of typed handlers out of the agent's metadata, where they are too large for it.
    pub fn without_schemas(mut self) -> Self {
        self.schemas = false;
        self
    }

    /// Answers the gateway's requests about assignments that are worked on elsewhere.
    pub fn callbacks(mut self, callbacks: Callbacks) -> Self {
        self.callbacks = Some(callbacks);
        self
    }

    /// Also a handle with which the agent is changed while it runs: what it can do, how much at once.
    pub fn with_handle(mut self) -> (Self, AgentHandle) {
        let (handle, wishes, ends) = AgentHandle::new();
        self.wishes = Some(Arc::new(Mutex::new(wishes)));
        self.ends = Some(Arc::new(ends));
        (self, handle)
    }

    /// What a test's swarm needs of it.
    pub(crate) fn into_member(self) -> (Join, Handlers) {
        (self.profile, self.handlers)
    }

    #[cfg(test)]
    pub(crate) fn parts(&self) -> (&LinkSettings, Place, &Join, Option<Duration>) {
        (&self.link, self.place, &self.profile, self.drain_grace)
    }

    /// Its swarm.
    pub const fn swarm_id(&self) -> SwarmId {
        self.place.swarm
    }

    /// The id that it has or will have.
    pub const fn agent_id(&self) -> AgentId {
        self.id
    }

    /// Joins the swarm over a connection of its own and works until `stop`, a removal, or an error that time does not cure.
    /// Held to be dead by mistake, it stops all work and joins again as a new incarnation. Dropping the future stops at once,
    /// without drain or farewell.
    ///
    /// # Errors
    /// The first connection fails, the swarm refuses the agent, or another process has its identity.
    pub async fn run(self, stop: CancellationToken) -> Result<Stopped, AgentError> {
        self.live(None, stop).await
    }

    /// As [`Self::run`], over a connection shared with other agents of this process.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn run_on(self, link: &Link, stop: CancellationToken) -> Result<Stopped, AgentError> {
        self.live(Some(link), stop).await
    }

    async fn live(
        self,
        shared: Option<&Link>,
        stop: CancellationToken,
    ) -> Result<Stopped, AgentError> {
        let mut profile = self.profile;
        if self.schemas {
            profile.metadata = schemas::described(&profile.metadata, &self.handlers.types)
                .map_err(AgentError::Metadata)?;
        }
        let mut wishes = match &self.wishes {
            Some(wishes) => Arc::clone(wishes).lock_owned().await,
            // Nobody has the other end: nothing ever comes.
            None => {
                let (_, none, _) = AgentHandle::new();
                Arc::new(Mutex::new(none)).lock_owned().await
            }
        };
        let settings = Settings {
            profile: Profile::new(profile),
            handlers: Arc::new(self.handlers),
            callbacks: self.callbacks,
            heartbeat_interval: self.heartbeat_interval,
            drain_grace: self.drain_grace,
            ends: self.ends,
        };
        let mut first = true;
        let mut pause = REJOIN_PAUSE.0;
        while !stop.is_cancelled() {
            let me = Identity {
                place: self.place,
                agent: self.id,
                instance: InstanceId(Uuid::now_v7()),
            };
            let opened = match shared {
                Some(link) => Ok(link.clone()),
                // A connection for each incarnation: its name tells which one a lost connection is about.
                None => {
                    let name = connection_name(self.place.swarm, self.id, me.instance);
                    tokio::select! {
                        opened = Link::open(&self.link, name) => opened,
                        () = stop.cancelled() => break,
                    }
                }
            };
            let ended = match opened {
                Ok(link) => session::run(&link, me, &settings, &stop, &mut wishes).await,
                Err(error) => Err(NotJoined::Log(error)),
            };
            match ended {
                Ok(Ended::Stopped) => break,
                Ok(Ended::Asked(asked)) => {
                    return Ok(Stopped::Asked {
                        reason: asked.reason,
                        then: asked.then,
                    });
                }
                Ok(Ended::Over(Over::Removed { reason })) => {
                    return Ok(Stopped::Removed { reason });
                }
                Ok(Ended::Over(Over::Superseded {
                    incarnation,
                    instance,
                })) => {
                    return Err(AgentError::Superseded {
                        agent: self.id,
                        instance,
                        incarnation,
                    });
                }
                Ok(Ended::Over(Over::Failed)) => {
                    tracing::warn!(agent.id = %self.id, "held to be dead: joining again");
                    first = false;
                }
                Err(NotJoined::Refused(problem)) if problem.code == SUPERSEDED => {
                    return Err(AgentError::Replaced {
                        agent: self.id,
                        problem,
                    });
                }
                Err(NotJoined::Refused(problem)) => return Err(AgentError::Refused(problem)),
                Err(NotJoined::Log(error)) if first => return Err(error.into()),
                Err(NotJoined::Log(error)) => tracing::warn!(%error, "cannot join again yet"),
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = stop.cancelled() => {}
            }
            pause = (pause * 2).min(REJOIN_PAUSE.1);
        }
        Ok(Stopped::Left)
    }
}
