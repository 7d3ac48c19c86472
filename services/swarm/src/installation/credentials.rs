//! Who may say what on the bus: one `.creds` file for each service, with only the subjects that it needs.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context;
use swarm_agent_host::Mint;
use swarm_events::{AgentId, Place, permissions::User, subject::Service};
use swarm_servers::{Authority, Permissions, ServerError, mint_user};

use super::{DataDir, ServiceName};

/// Makes the credentials of a service and answers with their file.
pub fn of_service(authority: &Authority, service: ServiceName) -> Result<PathBuf, ServerError> {
    let user = match service {
        ServiceName::Coordinator => User::Service(Service::Coordinator),
        ServiceName::Distributor => User::Service(Service::Distributor),
        ServiceName::Health => User::Service(Service::Health),
        ServiceName::Projector => User::Projector,
        ServiceName::Gateway => User::Gateway,
        ServiceName::AgentHost => User::Host,
    };
    authority.write_creds(service.as_str(), &permissions(user))
}

/// Makes the credentials of the command line.
pub fn of_operator(authority: &Authority) -> Result<PathBuf, ServerError> {
    authority.write_creds("operator", &permissions(User::Operator))
}

/// The file in the folder of keys that signs users of the SWARM account.
pub const ACCOUNT_SEED: &str = "swarm-account.seed";

/// What an agent host makes its agents' credentials with: the seed in `file`. Without one its agents get none, as its own
/// nats-server asks for none.
pub fn minter(file: Option<PathBuf>) -> anyhow::Result<Mint> {
    let Some(file) = file else {
        return Ok(Arc::new(|_, _| Ok(None)));
    };
    let seed = std::fs::read_to_string(&file)
        .with_context(|| format!("cannot read {} (SWARM_HOST_ACCOUNT_SEED)", file.display()))?;
    Ok(Arc::new(move |place, agent| {
        let may = permissions(User::Agent(place, agent));
        let minted = mint_user(seed.trim(), &format!("agent {agent}"), &may);
        minted.map(Some).map_err(|error| error.to_string())
    }))
}

/// The text of the credentials of one agent, made from the keys in `data`; `None` where there are none (the installation
/// is elsewhere, or its nats-server is not ours).
pub fn of_agent(
    data: &DataDir,
    place: Place,
    agent: AgentId,
) -> Result<Option<String>, ServerError> {
    if !data.keys().join(ACCOUNT_SEED).is_file() {
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
