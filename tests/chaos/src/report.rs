//! The kill matrix: a row for each scene, for people and for programs.

use std::{fmt, path::Path, time::Duration};

use serde::Serialize;

/// How a scene went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything held.
    Passed,
    /// Something did not; the reason is in the row.
    Failed,
    /// It cannot be played here; the reason is in the row.
    Skipped,
}
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::Skipped => "skipped",
        })
    }
}

/// One scene.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub scene: String,
    /// How it went.
    pub verdict: Verdict,
    /// Why it did not pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Tasks whose submission was acknowledged.
    pub tasks: usize,
    /// Those of them that never ended.
    pub lost: usize,
    /// Decisions about tasks that had ended already.
    pub doubled: usize,
    /// Tasks that were called off, as clients wished.
    pub cancelled: usize,
    /// The longest time in which work waited, an agent had room, and the distributor decided nothing, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without_decisions_ms: Option<u64>,
    /// The same by `swarm audit --gaps distributor`, which reads the log by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audited_gap_ms: Option<u64>,
    /// What `swarm audit` said: `passed`, or what it found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<String>,
    /// What the scene has to say beside its figures.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// How long the scene took, in milliseconds.
    pub took_ms: u64,
}

impl Row {
    /// A scene that is still to be played.
    pub fn new(scene: &str) -> Self {
        Self {
            scene: scene.to_owned(),
            verdict: Verdict::Passed,
            reason: None,
            tasks: 0,
            lost: 0,
            doubled: 0,
            cancelled: 0,
            without_decisions_ms: None,
            audited_gap_ms: None,
            audit: None,
            notes: Vec::new(),
            took_ms: 0,
        }
    }
    /// It failed. The first reason stays.
    pub fn fail(&mut self, reason: impl Into<String>) {
        self.verdict = Verdict::Failed;
        self.reason.get_or_insert(reason.into());
    }
    fn cells(&self) -> [String; 8] {
        let played = self.verdict != Verdict::Skipped;
        let number = |number: usize| match played {
            true => number.to_string(),
            false => "–".to_owned(),
        };
        [
            self.scene.clone(),
            number(self.tasks),
            number(self.lost),
            number(self.doubled),
            self.without_decisions_ms
                .map_or("–".to_owned(), |ms| format!("{ms} ms")),
            match self.audit.as_deref() {
                None => "–".to_owned(),
                Some("passed") => "passed".to_owned(),
                Some(_) => "FAILED".to_owned(),
            },
            self.verdict.to_string(),
            format!("{:.1} s", Duration::from_millis(self.took_ms).as_secs_f64()),
        ]
    }
}

const HEAD: [&str; 8] = [
    "scene",
    "tasks",
    "lost",
    "doubled",
    "without decisions",
    "audit",
    "verdict",
    "took",
];

/// A whole run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Matrix {
    /// The command that plays the same again.
    pub again: String,
    /// The program that was tested.
    pub program: String,
    /// Every scene, in the order in which they were played.
    pub rows: Vec<Row>,
}

impl Matrix {
    /// Whether no scene failed.
    pub fn passed(&self) -> bool {
        self.rows.iter().all(|row| row.verdict != Verdict::Failed)
    }

    /// As a Markdown table, with the reasons below it.
    pub fn markdown(&self) -> String {
        let rows: Vec<[String; 8]> = self.rows.iter().map(Row::cells).collect();
        let mut width = HEAD.map(|head| head.chars().count());
        for row in &rows {
            for (width, cell) in width.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let line = |cells: &[String; 8]| {
            let mut text = String::from("|");
            for (index, (cell, width)) in cells.iter().zip(width).enumerate() {
                // Names to the left, figures to the right.
                text.push_str(&match index {
                    0 | 5 | 6 => format!(" {cell:<width$} |"),
                    _ => format!(" {cell:>width$} |"),
                });
            }
            text.push('\n');
            text
        };
        let mut text = line(&HEAD.map(str::to_owned));
        text.push('|');
        for (index, width) in width.into_iter().enumerate() {
            let dashes = "-".repeat(width);
            text.push_str(&match index {
                0 | 5 | 6 => format!(" {dashes} |"),
                _ => format!(" {}: |", &dashes[1..]),
            });
        }
        text.push('\n');
        for row in &rows {
            text.push_str(&line(row));
        }
        let mut reasons = String::new();
        for row in &self.rows {
            if let Some(reason) = &row.reason {
                reasons.push_str(&format!("- {} {}: {reason}\n", row.scene, row.verdict));
            }
        }
        if !reasons.is_empty() {
            text.push('\n');
            text.push_str(&reasons);
        }
        text
    }

    /// Writes all of it as JSON.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        std::fs::write(path, serde_json::to_vec_pretty(self)?)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_for_each_scene_and_a_reason_for_each_that_did_not_pass() {
        let mut failed = Row::new("kill-a");
        failed.fail("first");
        failed.fail("second");
        let mut skipped = Row::new("disk-full");
        skipped.verdict = Verdict::Skipped;
        skipped.reason = Some("not root".to_owned());
        let mut matrix = Matrix {
            rows: vec![Row::new("kill-b"), skipped.clone()],
            ..Matrix::default()
        };
        assert!(matrix.passed(), "a skipped scene has not failed");
        matrix.rows.push(failed);
        assert!(!matrix.passed());
        let text = matrix.markdown();
        assert_eq!(text.lines().filter(|line| line.starts_with('|')).count(), 5);
        assert!(text.contains("- kill-a FAILED: first"), "{text}");
        assert!(text.contains("- disk-full skipped: not root"), "{text}");
        let widths: Vec<usize> = text
            .lines()
            .filter(|line| line.starts_with('|'))
            .map(|line| line.chars().count())
            .collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{text}");
    }
}
