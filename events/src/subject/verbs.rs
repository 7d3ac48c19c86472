//! The fixed words of subjects: services, and the verbs of events, commands and control messages.

use std::{fmt, str::FromStr};

use serde::Serialize;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident => $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }
        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// The word as it stands in subjects and types.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.as_str()) }
        }
        impl FromStr for $name {
            type Err = ();
            fn from_str(text: &str) -> Result<Self, ()> {
                match text { $($word => Ok(Self::$variant),)+ _ => Err(()) }
            }
        }
    };
}

words! {
    /// A deciding service.
    Service {
        /// Swarms, membership, organizations.
        Coordinator => "coordinator",
        /// Tasks.
        Distributor => "distributor",
        /// Liveness.
        Health => "health",
        /// Scaling policies.
        Scaler => "scaler",
    }
}
impl Serialize for Service {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

words! {
    /// Verbs of swarm events.
    SwarmVerb {
        /// It exists.
        Created => "created",
        /// Its settings changed.
        Updated => "updated",
        /// It is being terminated.
        Stopping => "stopping",
        /// It has ended; it stays readable.
        Deleted => "deleted",
        /// A command or an unreadable message was refused.
        Refused => "refused",
        /// The distributor's figures.
        Measured => "measured",
        /// Health's sampled heartbeats.
        Sampled => "sampled",
        /// Agents are added or taken out until there are as many as wanted.
        Scaled => "scaled",
        /// Another topology is being prepared.
        TopologyPlanned => "topology_planned",
        /// It holds.
        TopologyChanged => "topology_changed",
        /// It could not be; the old one goes on.
        TopologyKept => "topology_kept",
        /// A rule says that another one would be better.
        TopologySuggested => "topology_suggested",
        /// Another agent leads.
        LeaderElected => "leader_elected",
    }
}
words! {
    /// Verbs of agent events.
    AgentVerb {
        /// A process of the agent joined.
        Joined => "joined",
        /// It left by its own word.
        Left => "left",
        /// It was removed.
        Removed => "removed",
        /// It has been silent for a while.
        Suspected => "suspected",
        /// It is heard again.
        Recovered => "recovered",
        /// It is held to be dead.
        Failed => "failed",
        /// It is wanted: what it is, and how its process is started.
        Added => "added",
        /// Its process is wanted: the first host that claims this starts it.
        SpawnRequested => "spawn_requested",
        /// A host takes it upon itself to start the process.
        SpawnClaimed => "spawn_claimed",
        /// A host says why it does not.
        SpawnDeclined => "spawn_declined",
        /// Its process runs.
        Launched => "launched",
        /// Its process ended, or could not be started.
        Exited => "exited",
        /// The host of its process is held to be dead.
        HostFailed => "host_failed",
        /// Its process ended so often that it is not started again.
        CrashLooping => "crash_looping",
        /// It gets no more work, finishes what it has and goes.
        Stopping => "stopping",
        /// What it can do changed while it runs.
        Updated => "updated",
        /// It gets no new work for a while.
        Quarantined => "quarantined",
        /// It may work again.
        Released => "released",
        /// It has another place in the topology, or none any more.
        Seated => "seated",
        /// It waits for an answer.
        Asked => "asked",
        /// There is one.
        Answered => "answered",
        /// There will be none.
        Unanswered => "unanswered",
    }
}
impl AgentVerb {
    /// Whether an agent host writes it.
    pub const fn by_host(self) -> bool {
        matches!(
            self,
            Self::SpawnClaimed | Self::SpawnDeclined | Self::Launched | Self::Exited
        )
    }
}
words! {
    /// Verbs of task events.
    TaskVerb {
        /// A client handed it in.
        Submitted => "submitted",
        /// All parts of a graph are there and valid.
        GraphAccepted => "graph_accepted",
        /// A graph is refused as a whole.
        GraphRejected => "graph_rejected",
        /// What has not ended of a graph is called off.
        GraphCancelled => "graph_cancelled",
        /// A dead letter is put away.
        Discarded => "discarded",
        /// The task ends at once, with a reason.
        Rejected => "rejected",
        /// Something about tasks was refused; no task is touched.
        Refused => "refused",
        /// It is an agent's.
        Assigned => "assigned",
        /// It is the agent's no more.
        Withdrawn => "withdrawn",
        /// The agent works on it.
        Started => "started",
        /// The agent reports progress.
        Progressed => "progressed",
        /// The agent has its result.
        Completed => "completed",
        /// The agent's attempt failed.
        AttemptFailed => "attempt_failed",
        /// The agent gives the task back: it is not for this one.
        Declined => "declined",
        /// There will be another attempt.
        Retried => "retried",
        /// It ended without a result.
        Failed => "failed",
        /// It was called off.
        Cancelled => "cancelled",
        /// The agent hands it on in parts.
        Split => "split",
        /// Another swarm does it.
        HandedOver => "handed_over",
        /// The other swarm completed it.
        HandedBack => "handed_back",
    }
}
impl TaskVerb {
    /// Whether the subject of such an event ends with an agent's id.
    pub const fn names_agent(self) -> bool {
        matches!(
            self,
            Self::Assigned
                | Self::Withdrawn
                | Self::Started
                | Self::Progressed
                | Self::Completed
                | Self::AttemptFailed
                | Self::Declined
                | Self::Split
        )
    }
    /// Whether the agent named by the subject is the one that writes it.
    pub const fn by_agent(self) -> bool {
        matches!(
            self,
            Self::Started
                | Self::Progressed
                | Self::Completed
                | Self::AttemptFailed
                | Self::Declined
                | Self::Split
        )
    }
}
words! {
    /// Verbs of organization events.
    OrgVerb {
        /// It exists.
        Created => "created",
        /// Its settings changed.
        Updated => "updated",
        /// A user was added.
        UserAdded => "user_added",
        /// An API key was made.
        KeyCreated => "key_created",
        /// An API key holds no more.
        KeyRevoked => "key_revoked",
        /// A command was refused.
        Refused => "refused",
        /// A topology has a name.
        TemplateSaved => "template_saved",
        /// The name is free again.
        TemplateDeleted => "template_deleted",
    }
}
words! {
    /// Verbs of commands.
    CommandVerb {
        /// Create a swarm.
        Create => "create",
        /// Change a swarm.
        Update => "update",
        /// Terminate a swarm.
        Delete => "delete",
        /// An agent process wants in.
        Join => "join",
        /// An agent process goes.
        Leave => "leave",
        /// Take an agent out.
        RemoveAgent => "remove_agent",
        /// Add an agent, whose process a host starts.
        AddAgent => "add_agent",
        /// Start an agent's process anew.
        RestartAgent => "restart_agent",
        /// Change what a running agent can do.
        UpdateAgent => "update_agent",
        /// Have as many agents as wanted.
        Scale => "scale",
        /// Call a task off.
        Cancel => "cancel",
        /// Give an ended task another generation.
        Retry => "retry",
        /// Call a graph off.
        CancelGraph => "cancel_graph",
        /// Put a dead letter away.
        Discard => "discard",
        /// Change an organization's settings.
        UpdateOrg => "update_org",
        /// Create an organization with its first admin and key.
        CreateOrg => "create_org",
        /// Make an API key.
        CreateKey => "create_key",
        /// Revoke an API key.
        RevokeKey => "revoke_key",
        /// Have another topology.
        ChangeTopology => "change_topology",
        /// Give a topology a name.
        SaveTemplate => "save_template",
        /// Free such a name.
        DeleteTemplate => "delete_template",
        /// An agent asks a person, or another agent.
        Ask => "ask",
        /// Answer it.
        Answer => "answer",
        /// Another swarm has done a task, or not.
        HandBack => "hand_back",
    }
}
impl CommandVerb {
    /// Whether it is about an organization and not about a swarm.
    pub const fn of_org(self) -> bool {
        matches!(
            self,
            Self::CreateOrg
                | Self::UpdateOrg
                | Self::CreateKey
                | Self::RevokeKey
                | Self::SaveTemplate
                | Self::DeleteTemplate
        )
    }
    /// The service that answers it.
    pub const fn service(self) -> Service {
        match self {
            Self::Cancel | Self::Retry | Self::CancelGraph | Self::Discard | Self::HandBack => {
                Service::Distributor
            }
            _ => Service::Coordinator,
        }
    }
}
words! {
    /// Verbs of control messages, by which a service speaks to its own log.
    ControlVerb {
        /// A replica took the partition over. The sequence is its epoch.
        Claimed => "claimed",
        /// Time went on: what is due is due.
        Woken => "woken",
        /// The shell saw something that the log does not hold.
        Observed => "observed",
    }
}
