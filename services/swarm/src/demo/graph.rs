//! Files into a graph of tasks: one per file, one per folder with its files' results, one final report.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use swarm_events::task::GRAPH_TASKS_MAX;

/// Type of the task that counts a file, or several.
pub const COUNT: &str = "count";
/// Type of the task that folds a folder's files.
pub const FOLD: &str = "fold-folder";
/// Type of the task that makes the report.
pub const REPORT: &str = "report";
/// Capability that all of them ask for.
pub const CAPABILITY: &str = "text";
/// Folders that get a task of their own; deeper ones are counted with their parent. Leaves most of a graph for files.
const FOLDERS_MAX: usize = 300;

/// A graph, ready to be submitted.
pub struct Graph {
    /// `{"tasks": […]}`
    pub body: Value,
    /// How many tasks.
    pub tasks: usize,
    /// How many of them count files.
    pub counting: usize,
    /// How many files one of them counts at the most.
    pub files_per_task: usize,
    /// Files by folder, as they are folded.
    pub folders: BTreeMap<String, Vec<String>>,
}

/// Makes the graph of `files` below `root`.
pub fn of(root: &str, title: &str, files: &[String]) -> Graph {
    sized(root, title, files, GRAPH_TASKS_MAX as usize, FOLDERS_MAX)
}

fn sized(root: &str, title: &str, files: &[String], tasks_max: usize, folders_max: usize) -> Graph {
    let folders = by_folder(files, folders_max);
    // What the folders and the report leave; groups never mix folders.
    let room = tasks_max - 1 - folders.len();
    let counting = |per_task: usize| {
        folders
            .values()
            .map(|files| files.len().div_ceil(per_task))
            .sum::<usize>()
    };
    let files_per_task = (1..=files.len().max(1))
        .find(|n| counting(*n) <= room)
        .unwrap_or(files.len());
    let mut tasks = Vec::new();
    let mut folder_keys = Vec::new();
    for (number, (folder, files)) in folders.iter().enumerate() {
        let mut parts = Vec::new();
        for group in files.chunks(files_per_task) {
            let key = format!("c{}", tasks.len());
            let payload = match group {
                [path] => json!({"root": root, "path": path}),
                paths => json!({"root": root, "paths": paths}),
            };
            tasks.push(task(&key, COUNT, &payload, &[]));
            parts.push(key);
        }
        let key = format!("f{number}");
        tasks.push(task(&key, FOLD, &json!({ "folder": folder }), &parts));
        folder_keys.push(key);
    }
    tasks.push(task(
        "report",
        REPORT,
        &json!({ "title": title }),
        &folder_keys,
    ));
    Graph {
        tasks: tasks.len(),
        counting: counting(files_per_task),
        files_per_task,
        body: json!({ "tasks": tasks }),
        folders,
    }
}

fn task(key: &str, kind: &str, payload: &Value, inputs: &[String]) -> Value {
    let depends_on: Vec<Value> = inputs
        .iter()
        .map(|input| json!({"key": input, "dependency_type": "data", "as": input}))
        .collect();
    json!({
        "key": key, "task_type": kind, "payload": payload, "required_capabilities": [CAPABILITY],
        "depends_on": depends_on,
    })
}

/// Files by folder; folders so deep that there would be more than `max` count as their ancestor.
fn by_folder(files: &[String], max: usize) -> BTreeMap<String, Vec<String>> {
    let deepest = files
        .iter()
        .map(|file| file.matches('/').count())
        .max()
        .unwrap_or(0);
    let at_depth = |depth: usize| {
        let mut folders: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for file in files {
            let mut parts: Vec<&str> = file.split('/').collect();
            parts.pop();
            parts.truncate(depth);
            let folder = if parts.is_empty() {
                ".".to_owned()
            } else {
                parts.join("/")
            };
            folders.entry(folder).or_default().push(file.clone());
        }
        folders
    };
    (0..=deepest)
        .rev()
        .map(at_depth)
        .find(|folders| folders.len() <= max)
        .unwrap_or_else(|| at_depth(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn one_task_per_file_and_folder_and_one_report() {
        let graph = of(
            "/r",
            "t",
            &files(&["README.md", "a/x.rs", "a/y.rs", "a/b/z.rs"]),
        );
        assert_eq!(
            (graph.tasks, graph.counting, graph.files_per_task),
            (4 + 3 + 1, 4, 1)
        );
        let tasks = graph.body["tasks"].as_array().expect("tasks");
        let report = tasks.last().expect("one");
        assert_eq!(report["depends_on"].as_array().map(Vec::len), Some(3));
        let fold = tasks
            .iter()
            .find(|task| task["payload"]["folder"] == "a")
            .expect("folder a");
        assert_eq!(
            fold["depends_on"].as_array().map(Vec::len),
            Some(2),
            "its own files, not those below"
        );
        assert_eq!(fold["depends_on"][0]["dependency_type"], "data");
    }

    #[test]
    fn the_limit_of_a_graph_is_kept_by_grouping() {
        let names: Vec<String> = (0..20).map(|n| format!("d{}/f{n}", n % 2)).collect();
        let at_limit = sized("/r", "t", &names, 23, 10);
        assert_eq!(
            (at_limit.tasks, at_limit.files_per_task),
            (23, 1),
            "exactly at the limit"
        );
        let above = sized("/r", "t", &names, 22, 10);
        assert_eq!(
            (above.tasks, above.files_per_task),
            (10 + 2 + 1, 2),
            "one less makes groups"
        );
        let payload = &above.body["tasks"][0]["payload"];
        assert_eq!(payload["paths"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn too_many_folders_are_folded_into_their_parents() {
        let names: Vec<String> = (0..10).map(|n| format!("a/b{n}/c/f")).collect();
        assert_eq!(by_folder(&names, 10).len(), 10);
        let folded = by_folder(&names, 9);
        assert_eq!(folded.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(folded["a"].len(), 10);
    }

    #[test]
    fn a_thousand_files_in_a_folder_stay_within_the_real_limit() {
        let names: Vec<String> = (0..5_000).map(|n| format!("src/f{n}.rs")).collect();
        let graph = of("/r", "t", &names);
        assert!(graph.tasks <= GRAPH_TASKS_MAX as usize, "{}", graph.tasks);
        assert_eq!(graph.folders["src"].len(), 5_000);
    }
}
