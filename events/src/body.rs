//! Every event and command type in one table: names, shapes, schemas. Code and wire cannot disagree.

use schemars::{Schema, SchemaGenerator};
use serde_json::value::RawValue;

use crate::{
    agent, command, control, message, org,
    subject::{AgentVerb, CommandVerb, ControlVerb, OrgVerb, Subject, SwarmVerb, TaskVerb},
    swarm, task, topology,
};

/// A type that the stream can hold.
pub struct EventType {
    /// CloudEvents `type`, with its version.
    pub name: &'static str,
    /// JSON Schema of its `data`.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
}

fn wrong_field<'de, T: serde::Deserialize<'de>>(text: &'de str) -> Option<String> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let error = serde_path_to_error::deserialize::<_, T>(&mut reader).err()?;
    let path = error.path().to_string();
    let within = (path != ".").then_some(path);
    // A member that is not there has no path of its own.
    let message = error.inner().to_string();
    let missing = message
        .strip_prefix("missing field `")
        .and_then(|rest| rest.split('`').next());
    match (within, missing) {
        (Some(within), Some(missing)) => Some(format!("{within}.{missing}")),
        (within, missing) => within.or(missing.map(str::to_owned)),
    }
}

macro_rules! bodies {
    ($($variant:ident($data:ty) => $name:literal),+ $(,)?) => {
        /// The `data` of an event or command, by its type.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "each variant is documented at its struct")]
        #[allow(clippy::large_enum_variant, reason = "bodies live in one place at a time and are moved seldom")]
        pub enum Body { $($variant($data)),+ }

        impl Body {
            /// All types, current versions only.
            pub const TYPES: &'static [EventType] = &[
                $(EventType { name: $name, schema: |g| g.subschema_for::<$data>() }),+
            ];
            /// CloudEvents `type`.
            pub const fn type_name(&self) -> &'static str {
                match self { $(Self::$variant(_) => $name),+ }
            }
            /// Reads `data` of the type `name`. `None`: no such type.
            pub fn parse(name: &str, data: &RawValue) -> Option<Result<Self, serde_json::Error>> {
                match name {
                    $($name => Some(serde_json::from_str::<$data>(data.get()).map(Self::$variant)),)+
                    _ => None,
                }
            }
            /// Where in `data` of the type `name` reading it fails: a path like `depends_on[0].task_id`. `None`: it is
            /// not JSON, or nowhere in particular. For messages: it reads everything again.
            pub(crate) fn wrong_field(name: &str, data: &RawValue) -> Option<String> {
                match name {
                    $($name => wrong_field::<$data>(data.get()),)+
                    _ => None,
                }
            }
            /// `data` as JSON.
            pub fn to_raw(&self) -> Result<Box<RawValue>, serde_json::Error> {
                match self { $(Self::$variant(data) => serde_json::value::to_raw_value(data)),+ }
            }
        }
        $(impl From<$data> for Body { fn from(data: $data) -> Self { Self::$variant(data) } })+
    };
}

bodies! {
    OrgCreated(org::Created) => "swarm.org.created.v1",
    OrgUpdated(org::Updated) => "swarm.org.updated.v1",
    OrgUserAdded(org::UserAdded) => "swarm.org.user_added.v1",
    OrgKeyCreated(org::KeyCreated) => "swarm.org.key_created.v1",
    OrgKeyRevoked(org::KeyRevoked) => "swarm.org.key_revoked.v1",
    OrgTemplateSaved(org::TemplateSaved) => "swarm.org.template_saved.v1",
    OrgTemplateDeleted(org::TemplateDeleted) => "swarm.org.template_deleted.v1",
    OrgRefused(org::Refused) => "swarm.org.refused.v1",
    SwarmCreated(swarm::Created) => "swarm.swarm.created.v4",
    SwarmUpdated(swarm::Updated) => "swarm.swarm.updated.v4",
    SwarmStopping(swarm::Stopping) => "swarm.swarm.stopping.v1",
    SwarmDeleted(swarm::Deleted) => "swarm.swarm.deleted.v1",
    SwarmRefused(swarm::Refused) => "swarm.swarm.refused.v1",
    SwarmMeasured(swarm::Measured) => "swarm.swarm.measured.v2",
    SwarmSampled(swarm::Sampled) => "swarm.swarm.sampled.v2",
    SwarmScaled(swarm::Scaled) => "swarm.swarm.scaled.v1",
    SwarmTopologyPlanned(topology::TopologyPlanned) => "swarm.swarm.topology_planned.v1",
    SwarmTopologyChanged(topology::TopologyChanged) => "swarm.swarm.topology_changed.v1",
    SwarmTopologyKept(topology::TopologyKept) => "swarm.swarm.topology_kept.v1",
    SwarmTopologySuggested(topology::TopologySuggested) => "swarm.swarm.topology_suggested.v1",
    SwarmLeaderElected(topology::LeaderElected) => "swarm.swarm.leader_elected.v1",
    AgentJoined(agent::Joined) => "swarm.agent.joined.v1",
    AgentLeft(agent::Left) => "swarm.agent.left.v1",
    AgentRemoved(agent::Removed) => "swarm.agent.removed.v1",
    AgentSuspected(agent::Suspected) => "swarm.agent.suspected.v1",
    AgentRecovered(agent::Recovered) => "swarm.agent.recovered.v1",
    AgentFailed(agent::Failed) => "swarm.agent.failed.v2",
    AgentAdded(agent::Added) => "swarm.agent.added.v1",
    AgentSpawnRequested(agent::SpawnRequested) => "swarm.agent.spawn_requested.v1",
    AgentSpawnClaimed(agent::SpawnClaimed) => "swarm.agent.spawn_claimed.v1",
    AgentSpawnDeclined(agent::SpawnDeclined) => "swarm.agent.spawn_declined.v1",
    AgentLaunched(agent::Launched) => "swarm.agent.launched.v1",
    AgentExited(agent::Exited) => "swarm.agent.exited.v1",
    AgentHostFailed(agent::HostFailed) => "swarm.agent.host_failed.v1",
    AgentCrashLooping(agent::CrashLooping) => "swarm.agent.crash_looping.v1",
    AgentStopping(agent::Stopping) => "swarm.agent.stopping.v1",
    AgentUpdated(agent::Updated) => "swarm.agent.updated.v1",
    AgentQuarantined(agent::Quarantined) => "swarm.agent.quarantined.v1",
    AgentReleased(agent::Released) => "swarm.agent.released.v1",
    AgentSeated(topology::Seated) => "swarm.agent.seated.v1",
    AgentAsked(message::Asked) => "swarm.agent.asked.v1",
    AgentAnswered(message::Answered) => "swarm.agent.answered.v1",
    AgentUnanswered(message::Unanswered) => "swarm.agent.unanswered.v1",
    TaskSubmitted(task::Submitted) => "swarm.task.submitted.v2",
    TaskGraphAccepted(task::GraphAccepted) => "swarm.task.graph_accepted.v1",
    TaskGraphRejected(task::GraphRejected) => "swarm.task.graph_rejected.v1",
    TaskGraphCancelled(task::GraphCancelled) => "swarm.task.graph_cancelled.v1",
    TaskDiscarded(task::Discarded) => "swarm.task.discarded.v1",
    TaskRejected(task::Rejected) => "swarm.task.rejected.v1",
    TaskRefused(task::Refused) => "swarm.task.refused.v1",
    TaskAssigned(task::Assigned) => "swarm.task.assigned.v4",
    TaskWithdrawn(task::Withdrawn) => "swarm.task.withdrawn.v2",
    TaskStarted(task::Started) => "swarm.task.started.v1",
    TaskProgressed(task::Progressed) => "swarm.task.progressed.v1",
    TaskCompleted(task::Completed) => "swarm.task.completed.v1",
    TaskAttemptFailed(task::AttemptFailed) => "swarm.task.attempt_failed.v1",
    TaskDeclined(task::Declined) => "swarm.task.declined.v1",
    TaskRetried(task::Retried) => "swarm.task.retried.v1",
    TaskFailed(task::Failed) => "swarm.task.failed.v1",
    TaskCancelled(task::Cancelled) => "swarm.task.cancelled.v1",
    TaskSplit(task::Split) => "swarm.task.split.v1",
    TaskHandedOver(task::HandedOver) => "swarm.task.handed_over.v1",
    TaskHandedBack(task::HandedBack) => "swarm.task.handed_back.v1",
    MessageSent(message::Sent) => "swarm.message.sent.v1",
    Create(command::Create) => "swarm.cmd.create.v2",
    Update(command::Update) => "swarm.cmd.update.v1",
    Delete(command::Delete) => "swarm.cmd.delete.v1",
    Join(command::Join) => "swarm.cmd.join.v2",
    Leave(command::Leave) => "swarm.cmd.leave.v1",
    RemoveAgent(command::RemoveAgent) => "swarm.cmd.remove_agent.v2",
    AddAgent(command::AddAgent) => "swarm.cmd.add_agent.v1",
    RestartAgent(command::RestartAgent) => "swarm.cmd.restart_agent.v1",
    UpdateAgent(command::UpdateAgent) => "swarm.cmd.update_agent.v1",
    Scale(command::Scale) => "swarm.cmd.scale.v1",
    ChangeTopology(command::ChangeTopology) => "swarm.cmd.change_topology.v1",
    SaveTemplate(command::SaveTemplate) => "swarm.cmd.save_template.v1",
    DeleteTemplate(command::DeleteTemplate) => "swarm.cmd.delete_template.v1",
    Ask(message::Ask) => "swarm.cmd.ask.v1",
    Answer(message::Answer) => "swarm.cmd.answer.v1",
    HandBack(command::HandBack) => "swarm.cmd.hand_back.v1",
    Cancel(command::Cancel) => "swarm.cmd.cancel.v1",
    Retry(command::Retry) => "swarm.cmd.retry.v1",
    CancelGraph(command::CancelGraph) => "swarm.cmd.cancel_graph.v1",
    Discard(command::Discard) => "swarm.cmd.discard.v1",
    UpdateOrg(command::UpdateOrg) => "swarm.cmd.update_org.v1",
    CreateOrg(command::CreateOrg) => "swarm.cmd.create_org.v1",
    CreateKey(command::CreateKey) => "swarm.cmd.create_key.v1",
    RevokeKey(command::RevokeKey) => "swarm.cmd.revoke_key.v1",
    Claimed(control::Claimed) => "swarm.ctl.claimed.v1",
    Woken(control::Woken) => "swarm.ctl.woken.v1",
    Observed(control::Observed) => "swarm.ctl.observed.v3",
}

/// The `type` that belongs on a subject, without its version: `swarm.<aggregate>.<verb>`.
pub fn type_stem(subject: &Subject) -> &'static str {
    macro_rules! stems {
        ($verb:expr, $kind:ident, $prefix:literal, [$($variant:ident $word:literal),+ $(,)?]) => {
            match $verb { $($kind::$variant => concat!($prefix, $word)),+ }
        };
    }
    match subject {
        Subject::Swarm(_, verb) => stems!(verb, SwarmVerb, "swarm.swarm.", [
            Created "created", Updated "updated", Stopping "stopping", Deleted "deleted", Refused "refused",
            Measured "measured", Sampled "sampled", Scaled "scaled", TopologyPlanned "topology_planned",
            TopologyChanged "topology_changed", TopologyKept "topology_kept", TopologySuggested "topology_suggested",
            LeaderElected "leader_elected"
        ]),
        Subject::Agent(_, verb, _) => stems!(verb, AgentVerb, "swarm.agent.", [
            Joined "joined", Left "left", Removed "removed", Suspected "suspected", Recovered "recovered",
            Failed "failed", Added "added", SpawnRequested "spawn_requested", SpawnClaimed "spawn_claimed",
            SpawnDeclined "spawn_declined", Launched "launched", Exited "exited", HostFailed "host_failed",
            CrashLooping "crash_looping", Stopping "stopping", Updated "updated", Quarantined "quarantined",
            Released "released", Seated "seated", Asked "asked", Answered "answered", Unanswered "unanswered"
        ]),
        Subject::Task(_, verb, _) => stems!(verb, TaskVerb, "swarm.task.", [
            Submitted "submitted", GraphAccepted "graph_accepted", GraphRejected "graph_rejected",
            GraphCancelled "graph_cancelled", Discarded "discarded",
            Rejected "rejected", Refused "refused", Assigned "assigned", Withdrawn "withdrawn", Started "started",
            Progressed "progressed", Completed "completed", AttemptFailed "attempt_failed",
            Declined "declined", Retried "retried",
            Failed "failed", Cancelled "cancelled", Split "split", HandedOver "handed_over", HandedBack "handed_back"
        ]),
        Subject::Org(_, _, verb) => stems!(verb, OrgVerb, "swarm.org.", [
            Created "created", Updated "updated", UserAdded "user_added", KeyCreated "key_created", KeyRevoked "key_revoked",
            Refused "refused", TemplateSaved "template_saved", TemplateDeleted "template_deleted"
        ]),
        Subject::Command(_, verb) | Subject::OrgCommand(_, _, verb) => {
            stems!(verb, CommandVerb, "swarm.cmd.", [
                Create "create", Update "update", Delete "delete", Join "join", Leave "leave",
                RemoveAgent "remove_agent", AddAgent "add_agent", RestartAgent "restart_agent",
                UpdateAgent "update_agent", Scale "scale", Cancel "cancel", Retry "retry", CancelGraph "cancel_graph",
                Discard "discard", UpdateOrg "update_org", CreateOrg "create_org",
                CreateKey "create_key", RevokeKey "revoke_key", ChangeTopology "change_topology",
                SaveTemplate "save_template", DeleteTemplate "delete_template", Ask "ask", Answer "answer",
                HandBack "hand_back"
            ])
        }
        Subject::Control(_, _, verb) => stems!(verb, ControlVerb, "swarm.ctl.", [
            Claimed "claimed", Woken "woken", Observed "observed"
        ]),
        Subject::Heartbeat(..) => "swarm.hb",
        Subject::Message(..) => "swarm.message.sent",
    }
}
