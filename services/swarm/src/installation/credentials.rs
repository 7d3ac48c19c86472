//! Who may say what on the bus: one `.creds` file for each service, with only the subjects that it needs.

use std::path::PathBuf;

use swarm_events::{AgentId, Place, permissions::User, subject::Service};
use swarm_servers::{Authority, Permissions, ServerError};

use super::{DataDir, ServiceName};

/// Makes the credentials of a service and answers with their file.
pub fn of_service(authority: &Authority, service: ServiceName) -> Result<PathBuf, ServerError> {
    let user = match service {
        ServiceName::Coordinator => User::Service(Service::Coordinator),
        ServiceName::Distributor => User::Service(Service::Distributor),
        ServiceName::Health => User::Service(Service::Health),
        ServiceName::Projector => User::Projector,
        ServiceName::Gateway => User::Gateway,
    };
    authority.write_creds(service.as_str(), &permissions(user))
}

/// Makes the credentials of the command line.
pub fn of_operator(authority: &Authority) -> Result<PathBuf, ServerError> {
    authority.write_creds("operator", &permissions(User::Operator))
}

/// The text of the credentials of one agent, made from the keys in `data`; `None` where there are none (the installation
/// is elsewhere, or its nats-server is not ours).
pub fn of_agent(
    data: &DataDir,
    place: Place,
    agent: AgentId,
) -> Result<Option<String>, ServerError> {
    if !data.keys().join("swarm-account.seed").is_file() {
        return Ok(None);
    }
    let authority = Authority::load_or_create(&data.keys())?;
    authority
        .mint(
            &format!("agent {agent}"),
            &permissions(User::Agent(place, agent)),
        )
        .map(Some)
}

fn permissions(user: User) -> Permissions {
    let swarm_events::permissions::Permissions {
        publish,
        subscribe,
        responses,
    } = user.permissions();
    Permissions {
        publish,
        subscribe,
        responses,
    }
}
