//! A refusal in words that help: what, which field, and the cure.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why something was refused. Becomes an RFC 9457 problem at the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// A stable kebab-case name, such as `unknown-dependency`.
    pub code: String,
    /// The field it is about, as a path in the submitted document (`depends_on[2].task_id`).
    #[serde(default)]
    pub field: Option<String>,
    /// What is wrong.
    pub detail: String,
    /// What to do about it.
    #[serde(default)]
    pub cure: Option<String>,
}

impl Problem {
    /// A problem without a field.
    pub fn new(code: &str, detail: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            field: None,
            detail: detail.into(),
            cure: None,
        }
    }
    /// Names the field.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }
    /// Names the cure.
    #[must_use]
    pub fn cure(mut self, cure: impl Into<String>) -> Self {
        self.cure = Some(cure.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.detail)?;
        if let Some(cure) = &self.cure {
            write!(f, " ({cure})")?;
        }
        Ok(())
    }
}
impl std::error::Error for Problem {}
