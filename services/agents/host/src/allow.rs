//! What a host may run: patterns of programs, and of the variables that it passes on.

use std::path::{Path, PathBuf};

use swarm_events::{
    agent::{Adapter, AgentSpec},
    problem::Problem,
};

/// The name under which agents that call a URL are allowed: they run no program but this one.
pub const WEBHOOK: &str = "webhook";
/// Variables with this start are Swarm's own, and its secrets are among them.
const OWN_VARIABLES: &str = "SWARM_";

/// Whether `text` is what `pattern` says: `?` stands for one character and `*` for any number, neither for a slash; `**` for
/// any number of all characters.
pub fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    // reached[t]: the pattern so far stands for the first t characters.
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    let mut p = 0;
    while p < pattern.len() {
        let any = pattern[p] == '*';
        let all = any && pattern.get(p + 1) == Some(&'*');
        let mut next = vec![false; text.len() + 1];
        for t in 0..=text.len() {
            next[t] = if any {
                reached[t] || (t > 0 && next[t - 1] && (all || text[t - 1] != '/'))
            } else {
                let fits = |c: char| pattern[p] == c || (pattern[p] == '?' && c != '/');
                t > 0 && reached[t - 1] && fits(text[t - 1])
            };
        }
        reached = next;
        p += if all { 2 } else { 1 };
    }
    reached[text.len()]
}

/// Patterns from a comma-separated list; empty ones are left out.
pub fn patterns(list: &str) -> Vec<String> {
    let parts = list.split(',').map(str::trim);
    parts
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

/// What a host may run and pass on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allow {
    /// Patterns of programs. One with a slash is held against a program's path, symbolic links resolved; one without
    /// against the bare name of a program that is found in `PATH`. `*` alone allows everything; nothing allows nothing.
    pub programs: Vec<String>,
    /// Patterns of variables that agents may have from the host's own environment. Never one that starts with `SWARM_`.
    pub variables: Vec<String>,
}

impl Allow {
    /// From two comma-separated lists.
    pub fn new(programs: &str, variables: &str) -> Self {
        Self {
            programs: patterns(programs),
            variables: patterns(variables),
        }
    }

    /// Whether the host may start this agent.
    ///
    /// # Errors
    /// Which field is not allowed, and the cure.
    pub fn check(&self, spec: &AgentSpec) -> Result<(), Problem> {
        let everything = self.programs.iter().any(|pattern| pattern == "*");
        match spec.adapter {
            None => {
                return Err(Problem::new(
                    "no-adapter",
                    "it has no adapter: its process is started by hand",
                )
                .field("adapter"));
            }
            Some(Adapter::Webhook) => {
                if !everything && !self.programs.iter().any(|pattern| pattern == WEBHOOK) {
                    return Err(Problem::new(
                        "not-allowed",
                        "this host may run no agents that call a URL",
                    )
                    .field("adapter")
                    .cure(format!("add {WEBHOOK} to SWARM_HOST_ALLOW on the host")));
                }
            }
            Some(Adapter::Exec | Adapter::Process) => {
                let program = spec.command.first().map_or("", String::as_str);
                if program.is_empty() {
                    return Err(
                        Problem::new("no-command", "there is no command to start").field("command")
                    );
                }
                if !everything && !self.program(program, spec.working_dir.as_deref()) {
                    return Err(Problem::new(
                        "not-allowed",
                        format!("this host may not run {program}"),
                    )
                    .field("command")
                    .cure("add it to SWARM_HOST_ALLOW on the host"));
                }
            }
        }
        match spec.pass_env.iter().find(|name| !self.variable(name)) {
            None => Ok(()),
            Some(name) => Err(Problem::new(
                "variable-not-allowed",
                format!("this host does not pass its variable {name} on"),
            )
            .field("pass_env")
            .cure("add it to SWARM_HOST_PASS_ENV on the host; variables that start with SWARM_ are never passed on")),
        }
    }

    fn program(&self, program: &str, working_dir: Option<&str>) -> bool {
        if !program.contains('/') {
            let bare = self
                .programs
                .iter()
                .filter(|pattern| !pattern.contains('/'));
            if bare.into_iter().any(|pattern| matches(pattern, program)) {
                return true;
            }
        }
        // Only what is there can be compared: a path through `..` or a link is what it leads to.
        let path = match program.contains('/') {
            true => Some(
                working_dir
                    .map_or_else(PathBuf::new, PathBuf::from)
                    .join(program),
            ),
            false => in_path(program),
        };
        let Some(real) = path.and_then(|path| path.canonicalize().ok()) else {
            return false;
        };
        let real = real.to_string_lossy();
        self.programs
            .iter()
            .any(|pattern| pattern.contains('/') && matches(pattern, &real))
    }

    /// Whether agents may have this variable of the host.
    pub fn variable(&self, name: &str) -> bool {
        !name.starts_with(OWN_VARIABLES)
            && self.variables.iter().any(|pattern| matches(pattern, name))
    }
}

/// The `PATH` that agents get, and in which their programs are found: this process's.
pub(crate) fn search_path() -> String {
    std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned())
}

/// Where a program with a bare name is.
pub(crate) fn in_path(name: &str) -> Option<PathBuf> {
    let path = search_path();
    path.split(':')
        .filter(|dir| !dir.is_empty())
        .map(|dir| Path::new(dir).join(name))
        .find(|path| is_executable(path))
}

/// Whether it is a file that somebody may execute.
pub(crate) fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path)
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_for_what_they_say() {
        for (pattern, text, yes) in [
            ("*", "", true),
            ("*", "abc", true),
            ("*", "a/b", false),
            ("**", "a/b/c", true),
            ("python*", "python3.11", true),
            ("python?", "python", false),
            ("/usr/bin/*", "/usr/bin/wc", true),
            ("/usr/bin/*", "/usr/bin/x/y", false),
            ("/opt/**", "/opt/a/b", true),
            ("/opt/**/run", "/opt/a/b/run", true),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("", "", true),
            ("", "a", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
        ] {
            assert_eq!(matches(pattern, text), yes, "{pattern} and {text}");
        }
    }

    fn spec(adapter: Option<&str>, command: &[&str], pass_env: &[&str]) -> AgentSpec {
        let text = serde_json::json!({
            "agent_type": "t", "adapter": adapter, "command": command, "pass_env": pass_env,
        });
        serde_json::from_value(text).expect("a spec")
    }

    #[test]
    fn what_is_not_on_the_list_is_declined_by_field() {
        let field = |allow: &Allow, spec: &AgentSpec| {
            allow.check(spec).err().and_then(|problem| problem.field)
        };
        let sh = spec(Some("process"), &["sh", "-c", "true"], &[]);
        let field_of = |list: &str| field(&Allow::new(list, ""), &sh);
        assert_eq!(field_of(""), Some("command".to_owned()));
        assert_eq!(field_of("*"), None);
        assert_eq!(field_of("python3, s?"), None);
        assert_eq!(field_of("/nowhere/*"), Some("command".to_owned()));
        assert_eq!(field_of("webhook"), Some("command".to_owned()));
        let hook = spec(Some("webhook"), &[], &[]);
        assert_eq!(field(&Allow::new("webhook", ""), &hook), None);
        assert_eq!(
            field(&Allow::new("sh", ""), &hook),
            Some("adapter".to_owned())
        );
        let passes = spec(Some("exec"), &["sh"], &["TOKEN_A", "TOKEN_B"]);
        assert_eq!(field(&Allow::new("*", "TOKEN_*"), &passes), None);
        assert_eq!(
            field(&Allow::new("*", "TOKEN_A"), &passes),
            Some("pass_env".to_owned())
        );
        let secret = spec(Some("exec"), &["sh"], &["SWARM_NATS_CREDS"]);
        assert_eq!(
            field(&Allow::new("*", "*"), &secret),
            Some("pass_env".to_owned())
        );
    }

    #[test]
    fn a_path_is_what_it_leads_to() {
        let dir = tempfile::tempdir().expect("a folder");
        let dir = dir.path().canonicalize().expect("there");
        std::fs::create_dir(dir.join("good")).expect("made");
        std::os::unix::fs::symlink("/bin/sh", dir.join("good/link")).expect("made");
        std::fs::write(dir.join("good/own"), "").expect("made");
        std::fs::write(dir.join("bad"), "").expect("made");
        let allow = Allow::new(&format!("{}/good/*", dir.display()), "");
        let may = |path: &str| {
            let program = format!("{}/{path}", dir.display());
            allow
                .check(&spec(Some("process"), &[&program], &[]))
                .is_ok()
        };
        assert!(may("good/own"));
        assert!(!may("bad"));
        assert!(!may("good/../bad"));
        assert!(!may("good/link"), "a link leads out");
        assert!(!may("good/missing"));
    }
}
