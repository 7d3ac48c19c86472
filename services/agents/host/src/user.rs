//! The user that agents run as, if it is not the host's own.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

/// A user and its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunUser {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl RunUser {
    /// From a name of `/etc/passwd`, or `<uid>:<gid>`.
    ///
    /// # Errors
    /// There is no such user, or this process may not become another one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let user = find(&users, text)
            .ok_or_else(|| format!("there is no user {text}: give a name, or <uid>:<gid>"))?;
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        let own = (uid.as_raw(), gid.as_raw()) == (user.uid, user.gid);
        if own || uid.is_root() {
            Ok(user)
        } else {
            Err(format!(
                "only root can start agents as {text}: start the host as root, or leave this out"
            ))
        }
    }

    /// Whether this user can pass through every folder down to `dir`.
    pub(crate) fn reaches(self, dir: &Path) -> io::Result<()> {
        for folder in dir.canonicalize()?.ancestors() {
            let found = fs::metadata(folder)?;
            let bit = if found.uid() == self.uid {
                0o100
            } else if found.gid() == self.gid {
                0o010
            } else {
                0o001
            };
            if self.uid != 0 && found.mode() & bit == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    format!(
                        "user {} cannot pass through {}: choose another folder with SWARM_HOST_DIR",
                        self.uid,
                        folder.display()
                    ),
                ));
            }
        }
        Ok(())
    }
}

fn find(users: &str, text: &str) -> Option<RunUser> {
    if let Some((uid, gid)) = text.split_once(':') {
        return Some(RunUser {
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
        });
    }
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != text {
            return None;
        }
        Some(RunUser {
            uid: fields.nth(1)?.parse().ok()?,
            gid: fields.next()?.parse().ok()?,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_name_or_two_numbers() {
        let users = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65533:nobody:/:/bin/false\n";
        let nobody = RunUser {
            uid: 65_534,
            gid: 65_533,
        };
        assert_eq!(find(users, "nobody"), Some(nobody));
        assert_eq!(find(users, "65534:65533"), Some(nobody));
        assert_eq!(find(users, "nobod"), None);
        assert_eq!(find(users, "1:x"), None);
    }
}
