//! PostgreSQL refuses to run as root, so root runs it as somebody else.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The user that a process is started as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunAs {
    pub uid: u32,
    pub gid: u32,
}

impl RunAs {
    /// For root: the owner of what is there already, else `postgres`, else `nobody`. Nobody
    /// else needs another user.
    pub fn for_data(existing: &Path) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        if let Ok(found) = fs::metadata(existing)
            && found.uid() != 0
        {
            return Some(Self {
                uid: found.uid(),
                gid: found.gid(),
            });
        }
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| in_passwd(&users, name))
            // What Linux maps everybody unknown to.
            .or(Some(Self {
                uid: 65_534,
                gid: 65_534,
            }))
    }

    /// Can this user pass through every folder down to `path`?
    pub fn reaches(&self, path: &Path) -> bool {
        let Ok(path) = path.canonicalize() else {
            return false;
        };
        path.ancestors().all(|folder| {
            fs::metadata(folder).is_ok_and(|found| {
                let bit = if found.uid() == self.uid {
                    0o100
                } else if found.gid() == self.gid {
                    0o010
                } else {
                    0o001
                };
                found.mode() & bit != 0
            })
        })
    }
}

fn in_passwd(users: &str, name: &str) -> Option<RunAs> {
    users.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        match fields[..] {
            [found, _, uid, gid, ..] if found == name => Some(RunAs {
                uid: uid.parse().ok()?,
                gid: gid.parse().ok()?,
            }),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let users = "postgres2:x:7:7::/:/bin/sh\npostgres:x:101:104:PostgreSQL:/var:/bin/sh\n";
        assert_eq!(
            in_passwd(users, "postgres"),
            Some(RunAs { uid: 101, gid: 104 })
        );
        assert_eq!(in_passwd(users, "nobody"), None);
    }
}
