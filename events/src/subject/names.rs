//! Subjects outside the stream, and the names under which hosts and agents connect.

use super::Place;
use crate::ids::{AgentId, InstanceId, OrgId, SwarmId};

/// Subject on which an agent host says every second how it is, `swarm.hb.host.<instance>`; not stored in the event stream.
pub fn host_beat(host: InstanceId) -> String {
    format!("swarm.hb.host.{host}")
}
/// The host that speaks on this subject; `None` if it is no host's.
pub fn parse_host_beat(subject: &str) -> Option<InstanceId> {
    subject.strip_prefix("swarm.hb.host.")?.parse().ok()
}
/// Subject on which the gateway hands an agent what was called back, as a request: `swarm.callback.<org>.<swarm>.<agent>`.
pub fn callback(place: Place, agent: AgentId) -> String {
    format!("swarm.callback.{}.{}.{agent}", place.org, place.swarm)
}
/// Subject of the lines that an agent's process writes: `swarm.log.<org>.<swarm>.<agent>`, core NATS.
pub fn agent_log(org: OrgId, swarm: SwarmId, agent: AgentId) -> String {
    format!("swarm.log.{org}.{swarm}.{agent}")
}
/// Subject on which the host that keeps the last of these lines is asked for them.
pub fn agent_log_tail(org: OrgId, swarm: SwarmId, agent: AgentId) -> String {
    format!("swarm.log.{org}.{swarm}.{agent}.tail")
}
/// Takes the subject of [`agent_log_tail`] apart.
pub fn parse_agent_log_tail(subject: &str) -> Option<(OrgId, SwarmId, AgentId)> {
    let mut tokens = subject
        .strip_prefix("swarm.log.")?
        .strip_suffix(".tail")?
        .split('.');
    let ids = (
        tokens.next()?.parse().ok()?,
        tokens.next()?.parse().ok()?,
        tokens.next()?.parse().ok()?,
    );
    tokens.next().is_none().then_some(ids)
}

/// Start of the connection name of an agent host.
const HOST_CONNECTION_PREFIX: &str = "swarm-host";
/// The name under which an agent host connects to nats-server.
pub fn host_connection_name(host: InstanceId) -> String {
    format!("{HOST_CONNECTION_PREFIX}/{host}")
}
/// Takes the name of a host's connection apart; `None` for any other name.
pub fn parse_host_connection_name(name: &str) -> Option<InstanceId> {
    name.strip_prefix(HOST_CONNECTION_PREFIX)?
        .strip_prefix('/')?
        .parse()
        .ok()
}

/// Start of the connection name of an agent.
const CONNECTION_PREFIX: &str = "swarm-agent";

/// The name under which an agent's process connects to nats-server: by it health knows whose connection closed.
pub fn connection_name(swarm: SwarmId, agent: AgentId, instance: InstanceId) -> String {
    format!("{CONNECTION_PREFIX}/{swarm}/{agent}/{instance}")
}
/// Takes the name of an agent's connection apart; `None` for any other name.
pub fn parse_connection_name(name: &str) -> Option<(SwarmId, AgentId, InstanceId)> {
    let mut parts = name.split('/');
    if parts.next() != Some(CONNECTION_PREFIX) {
        return None;
    }
    let ids = (
        parts.next()?.parse().ok()?,
        parts.next()?.parse().ok()?,
        parts.next()?.parse().ok()?,
    );
    parts.next().is_none().then_some(ids)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_names_of_hosts_and_logs_are_read_as_they_were_built() {
        let id = Uuid::from_u128(5);
        let host = InstanceId(id);
        assert_eq!(parse_host_beat(&host_beat(host)), Some(host));
        assert_eq!(
            parse_host_connection_name(&host_connection_name(host)),
            Some(host)
        );
        let (org, swarm, agent) = (OrgId(id), SwarmId(id), AgentId(id));
        let tail = agent_log_tail(org, swarm, agent);
        assert_eq!(parse_agent_log_tail(&tail), Some((org, swarm, agent)));
        for other in ["", "swarm.log.a.b.c.tail", &agent_log(org, swarm, agent)] {
            assert_eq!(parse_agent_log_tail(other), None, "{other}");
            assert_eq!(parse_host_beat(other), None, "{other}");
            assert_eq!(parse_host_connection_name(other), None, "{other}");
        }
    }

    #[test]
    fn a_connection_name_is_read_as_it_was_built_and_no_other_is() {
        let (swarm, agent, instance) = (
            SwarmId(Uuid::from_u128(1)),
            AgentId(Uuid::from_u128(2)),
            InstanceId(Uuid::from_u128(3)),
        );
        let name = connection_name(swarm, agent, instance);
        assert_eq!(parse_connection_name(&name), Some((swarm, agent, instance)));
        for other in [
            "",
            "swarm-agent",
            "swarm-agent/a/b/c",
            &name[1..],
            &format!("{name}/"),
        ] {
            assert_eq!(parse_connection_name(other), None, "{other}");
        }
    }
}
