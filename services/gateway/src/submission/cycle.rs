//! Cycles among the tasks of a submission. Other tasks exist already and cannot depend on new ones, so a cycle runs through
//! keys only.

use std::collections::BTreeMap;

use swarm_events::Problem;

use super::TaskInput;
use crate::problem::Answer;

/// Most keys that the description of a cycle names: a longer one is cut in the middle.
const NAMED_MAX: usize = 12;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    No,
    OnPath,
    Done,
}

/// Refuses a cycle, naming its tasks in order.
///
/// # Errors
/// 422 with the edge that closes the cycle as its field.
pub(super) fn refuse(inputs: &[TaskInput], keys: &BTreeMap<String, usize>) -> Answer<()> {
    let edges: Vec<Vec<(usize, usize)>> = inputs
        .iter()
        .map(|input| {
            let dependencies = input.depends_on.iter().flatten().enumerate();
            dependencies
                .filter_map(|(at, d)| Some((at, *keys.get(d.key.as_ref()?)?)))
                .collect()
        })
        .collect();
    let mut seen = vec![Seen::No; inputs.len()];
    for start in 0..inputs.len() {
        if seen[start] == Seen::No
            && let Some((path, closing)) = walk(start, &edges, &mut seen)
        {
            return Err(describe(inputs, &path, closing).into());
        }
    }
    Ok(())
}

/// Walks in depth with a stack of its own (a chain of 10,000 tasks must not need 10,000 frames). Answers with the tasks of a
/// cycle and the number of the dependency that closes it. An edge from a task to itself is told elsewhere, better.
fn walk(
    start: usize,
    edges: &[Vec<(usize, usize)>],
    seen: &mut [Seen],
) -> Option<(Vec<usize>, usize)> {
    let mut path = vec![(start, 0)];
    seen[start] = Seen::OnPath;
    while let Some((task, next)) = path.last_mut() {
        let task = *task;
        let Some((dependency, to)) = edges[task].get(*next).copied() else {
            seen[task] = Seen::Done;
            path.pop();
            continue;
        };
        *next += 1;
        match seen[to] {
            Seen::No => {
                seen[to] = Seen::OnPath;
                path.push((to, 0));
            }
            Seen::OnPath if to != task => {
                let from = path
                    .iter()
                    .position(|(on_path, _)| *on_path == to)
                    .unwrap_or(0);
                return Some((
                    path[from..].iter().map(|(task, _)| *task).collect(),
                    dependency,
                ));
            }
            Seen::OnPath | Seen::Done => {}
        }
    }
    None
}

fn describe(inputs: &[TaskInput], path: &[usize], closing: usize) -> Problem {
    let name = |at: usize| {
        inputs[at]
            .key
            .clone()
            .unwrap_or_else(|| format!("tasks[{at}]"))
    };
    let mut names: Vec<String> = path.iter().map(|at| name(*at)).collect();
    names.push(names[0].clone());
    if names.len() > NAMED_MAX {
        let left_out = names.len() - NAMED_MAX;
        names.splice(
            NAMED_MAX - 3..names.len() - 3,
            [format!("({left_out} more)")],
        );
    }
    let last = path.last().copied().unwrap_or_default();
    Problem::new(
        "cycle",
        format!(
            "tasks wait for each other in a circle: {}",
            names.join(" → ")
        ),
    )
    .field(format!("tasks[{last}].depends_on[{closing}].key"))
    .cure("take one of these dependencies out")
}
