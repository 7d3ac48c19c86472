//! How the program ends.

use std::{fmt, process::ExitCode};

/// Exit codes that scripts can rely on. 0 is success; 2 is also what the argument parser ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// It was tried and did not work.
    Failed = 1,
    /// The request makes no sense as it was given.
    Usage = 2,
    /// What was named does not exist.
    NotFound = 3,
    /// It was not done in time; it may still be.
    Timeout = 4,
}

/// Why a command did not succeed: a code for programs and words for people.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: Code,
    /// What happened and what to do; empty if it has been said already.
    pub message: String,
}

/// What every command answers with.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// It was tried and did not work.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Code::Failed, message)
    }
    /// The arguments make no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, message)
    }
    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message)
    }
    /// Not in time.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(Code::Timeout, message)
    }
    fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// Says it on stderr and gives the process's exit code.
    pub fn report(self) -> ExitCode {
        if !self.message.is_empty() {
            eprintln!("swarm: {}", self.message);
        }
        ExitCode::from(self.code as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
impl std::error::Error for Failure {}

/// Anything without a code of its own has failed; the whole chain of causes is shown once.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(failure) => failure,
            Err(error) => Self::failed(format!("{error:#}")),
        }
    }
}
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        // The reader of a pipe has seen enough (`swarm replay | head`): no reason to complain.
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::failed("");
        }
        Self::failed(error.to_string())
    }
}
impl From<swarm_log::LogError> for Failure {
    fn from(error: swarm_log::LogError) -> Self {
        Self::failed(error.to_string())
    }
}
impl From<swarm_servers::ServerError> for Failure {
    fn from(error: swarm_servers::ServerError) -> Self {
        Self::failed(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_its_code_through_a_chain_of_causes() {
        let wrapped = anyhow::Error::from(Failure::not_found("no such swarm"));
        assert_eq!(Failure::from(wrapped).code, Code::NotFound);
        let other = anyhow::anyhow!("disk full").context("cannot write");
        let failure = Failure::from(other);
        assert_eq!(failure.code, Code::Failed);
        assert_eq!(failure.message, "cannot write: disk full");
    }

    #[test]
    fn codes_are_the_documented_numbers() {
        let codes = [Code::Failed, Code::Usage, Code::NotFound, Code::Timeout];
        assert_eq!(codes.map(|code| code as u8), [1, 2, 3, 4]);
    }
}
