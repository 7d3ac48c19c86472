//! Who may connect to NATS, and what each may say: operator mode, so that every one of them
//! holds a standard `.creds` file which any NATS client can use.
//!
//! The operator signs two accounts, SWARM (the streams) and SYS (the server's own notices);
//! an account signs its users. The server is given the operator and both accounts in its
//! configuration and learns users from the tokens that they bring, so a new user, for an
//! agent say, needs no change of the server.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::{KeyPair, KeyPairType};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::ServerError;

/// What a user may publish and subscribe to. An empty list allows nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permissions {
    /// Subjects, wildcards allowed, that it may publish to.
    pub publish: Vec<String>,
    /// Subjects, wildcards allowed, that it may subscribe to.
    pub subscribe: Vec<String>,
    /// May it answer requests, at whatever reply subject they name?
    pub responses: bool,
}

impl Permissions {
    /// Everything in its account.
    pub fn all() -> Self {
        Self {
            publish: vec![">".into()],
            subscribe: vec![">".into()],
            responses: false,
        }
    }
}

/// The keys of an installation, kept in a folder of mode 0700.
#[derive(Clone)]
pub struct Authority {
    dir: PathBuf,
    operator: String,
    system: String,
    swarm: String,
}

impl Authority {
    /// Reads the keys in `dir`, or makes them there.
    pub fn load_or_create(dir: &Path) -> Result<Self, ServerError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(ServerError::io("create", dir))?;
        let seed = |name: &str, kind: KeyPairType| seed_in(&dir.join(name), kind);
        Ok(Self {
            dir: dir.to_path_buf(),
            operator: seed("operator.seed", KeyPairType::Operator)?,
            system: seed("system-account.seed", KeyPairType::Account)?,
            swarm: seed("swarm-account.seed", KeyPairType::Account)?,
        })
    }

    /// The seed that signs users of the SWARM account, for [`mint_user`] elsewhere. A secret.
    pub fn swarm_account_seed(&self) -> &str {
        &self.swarm
    }

    /// The credentials of a user of the SWARM account.
    pub fn mint(&self, name: &str, permissions: &Permissions) -> Result<String, ServerError> {
        mint_user(&self.swarm, name, permissions)
    }

    /// The credentials of a user of the SYS account, which hears `$SYS.ACCOUNT.*.DISCONNECT`.
    pub fn mint_system(&self) -> Result<String, ServerError> {
        mint_user(&self.system, "system", &Permissions::all())
    }

    /// Mints a user of the SWARM account and writes `<name>.creds` (mode 0600) into the folder.
    pub fn write_creds(&self, name: &str, may: &Permissions) -> Result<PathBuf, ServerError> {
        self.write(name, &self.mint(name, may)?)
    }

    /// Writes `admin.creds`: all rights in the SWARM account.
    pub fn write_admin_creds(&self) -> Result<PathBuf, ServerError> {
        self.write_creds("admin", &Permissions::all())
    }

    /// Writes `system.creds`, of the SYS account.
    pub fn write_system_creds(&self) -> Result<PathBuf, ServerError> {
        self.write("system", &self.mint_system()?)
    }

    fn write(&self, name: &str, creds: &str) -> Result<PathBuf, ServerError> {
        let path = self.dir.join(format!("{name}.creds"));
        write_secret(&path, creds)?;
        Ok(path)
    }

    /// The password that the servers of a cluster ask each other for. A secret, and the same wherever the operator's key is.
    pub fn cluster_password(&self) -> String {
        let mut digest = Sha256::new();
        digest.update(b"swarm: routes of the cluster\n");
        digest.update(self.operator.as_bytes());
        hex::encode(digest.finalize())
    }

    /// What nats-server has to be told: the part of its configuration that names the operator
    /// and the accounts. Holds no secret.
    pub fn server_config(&self) -> Result<String, ServerError> {
        let operator = pair(&self.operator)?;
        let (system, swarm) = (pair(&self.system)?, pair(&self.swarm)?);
        let system_key = system.public_key();
        let operator_token = token(
            &operator,
            "swarm",
            &operator.public_key(),
            json!({"type": "operator", "version": 2, "system_account": system_key}),
        )?;
        let account = |name: &str, keys: &KeyPair, storage: i64| {
            token(
                &operator,
                name,
                &keys.public_key(),
                json!({
                    "type": "account",
                    "version": 2,
                    "limits": {
                        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1,
                        "wildcards": true, "conn": -1, "leaf": -1,
                        "mem_storage": storage, "disk_storage": storage,
                        "streams": storage, "consumer": storage, "max_ack_pending": storage,
                    },
                    "default_permissions": {"pub": {}, "sub": {}},
                }),
            )
        };
        Ok(format!(
            "operator: {operator_token}\nsystem_account: {system_key}\nresolver: MEMORY\nresolver_preload {{\n  {system_key}: {}\n  {}: {}\n}}\n",
            account("SYS", &system, 0)?,
            swarm.public_key(),
            account("SWARM", &swarm, -1)?,
        ))
    }
}

/// Makes a user of the account whose seed is given, and returns the text of its `.creds` file.
pub fn mint_user(account_seed: &str, name: &str, may: &Permissions) -> Result<String, ServerError> {
    // To NATS an empty list means everything, to us nothing.
    let side = |allowed: &[String]| match allowed {
        [] => json!({"deny": [">"]}),
        some => json!({"allow": some}),
    };
    let mut claims = json!({
        "type": "user", "version": 2,
        "pub": side(&may.publish), "sub": side(&may.subscribe),
        "subs": -1, "data": -1, "payload": -1,
    });
    if may.responses {
        // 0: the server's own limit of two minutes to answer in.
        claims["resp"] = json!({"max": 1, "ttl": 0});
    }
    let user = KeyPair::new_user();
    let token = token(&pair(account_seed)?, name, &user.public_key(), claims)?;
    let seed = user.seed().map_err(key_error)?;
    Ok(format!(
        "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n************************* IMPORTANT *************************\nThis seed is a secret: whoever holds it is this user.\n\n-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n\n*************************************************************\n"
    ))
}

/// A token as NATS defines it: a JWT with the algorithm `ed25519-nkey` and claims under `nats`.
fn token(
    issuer: &KeyPair,
    name: &str,
    subject: &str,
    claims: Value,
) -> Result<String, ServerError> {
    let issued = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let mut body = json!({
        "iat": issued, "iss": issuer.public_key(), "name": name, "sub": subject, "nats": claims,
    });
    body["jti"] = json!(hex::encode(Sha256::digest(body.to_string())));
    let header = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(body.to_string())
    );
    let signature = issuer.sign(signed.as_bytes()).map_err(key_error)?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

fn pair(seed: &str) -> Result<KeyPair, ServerError> {
    KeyPair::from_seed(seed).map_err(key_error)
}

fn key_error(error: nkeys::error::Error) -> ServerError {
    ServerError::Keys {
        path: PathBuf::from("(in memory)"),
        problem: error.to_string(),
    }
}

fn seed_in(path: &Path, kind: KeyPairType) -> Result<String, ServerError> {
    let broken = |problem: String| ServerError::Keys {
        path: path.to_path_buf(),
        problem,
    };
    match fs::read_to_string(path) {
        Ok(text) => {
            let found = KeyPair::from_seed(text.trim()).map_err(|e| broken(e.to_string()))?;
            if found.key_pair_type() != kind {
                return Err(broken(format!("it is not the seed of an {kind:?}")));
            }
            Ok(text.trim().to_owned())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let seed = KeyPair::new(kind).seed().map_err(key_error)?;
            write_secret(path, &seed)?;
            Ok(seed)
        }
        Err(error) => Err(ServerError::io("read", path)(error)),
    }
}

/// Writes a file that only its owner may read, complete or not at all.
pub(crate) fn write_secret(path: &Path, text: &str) -> Result<(), ServerError> {
    let part = path.with_extension("part");
    let write = || {
        let mut file = fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, path)
    };
    write().map_err(ServerError::io("write", path))
}
