//! What comes in on the heartbeat subjects, as read.

use swarm_events::{
    AgentId, Place, Subject,
    subject::parse_host_beat,
    swarm::{Heartbeat, HostBeat},
};

/// Who speaks on a subject of heartbeats. Cheap: what another replica cares for is not parsed any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// An agent.
    Agent(Place, AgentId),
    /// An agent host.
    Host(swarm_events::InstanceId),
}
impl Speaker {
    /// By the subject; `None` if it is nobody's, or names another partition than the swarm's own.
    pub fn of(subject: &str) -> Option<Self> {
        if let Some(host) = parse_host_beat(subject) {
            return Some(Self::Host(host));
        }
        match Subject::parse(subject) {
            Ok(Subject::Heartbeat(place, agent)) if place == Place::new(place.org, place.swarm) => {
                Some(Self::Agent(place, agent))
            }
            _ => None,
        }
    }
}

/// Reads an agent's heartbeat; `None` if it is none.
pub fn agent_beat(payload: &[u8]) -> Option<Heartbeat> {
    serde_json::from_slice(payload).ok()
}

/// Reads a host's beat; `None` if it is none, or if it speaks for another host than its subject names.
pub fn host_beat(host: swarm_events::InstanceId, payload: &[u8]) -> Option<HostBeat> {
    let beat: HostBeat = serde_json::from_slice(payload).ok()?;
    (beat.host == host).then_some(beat)
}
