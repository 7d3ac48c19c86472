//! The README's tour, pasted into a shell as a reader would.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Stdio, time::Duration};

use tokio::process::Command;

use crate::support::{folder, swarm};

/// Longest that the tour may take: it starts an installation and runs four tasks.
const TOUR: Duration = Duration::from_secs(150);

/// The shell blocks of the tour, in order.
fn tour() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let text = fs::read_to_string(path).expect("the README");
    let (_, tour) = text.split_once("## A five-minute tour").expect("the tour");
    let (tour, _) = tour.split_once("\n## ").expect("a section after it");
    let blocks: Vec<&str> = tour
        .split("```bash\n")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once("\n```")?.0))
        .collect();
    assert!(blocks.len() >= 5, "the tour has {} blocks", blocks.len());
    blocks.join("\n")
}

#[tokio::test]
async fn the_tour_of_the_readme_runs_as_it_stands() {
    let dir = folder();
    let data = dir.path().join("data");
    // Open enough that PostgreSQL, which runs as another user if this one is root, stays in the test's own folder.
    fs::create_dir(&data).expect("made");
    fs::set_permissions(&data, PermissionsExt::from_mode(0o711)).expect("ours");
    // Only what a machine decides is changed: where the data lie, which ports are free, and where the binary is.
    let binary = Path::new(env!("CARGO_BIN_EXE_swarm"))
        .parent()
        .expect("a folder");
    let path = format!(
        "{}:{}",
        binary.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let script = tour().replace("swarm up --detach", "swarm up --detach --any-ports");
    let child = Command::new("bash")
        // Job control, as in an interactive shell: the tour stops its agents as jobs.
        .args(["-eu", "-o", "pipefail", "-m", "-c", &script])
        .current_dir(dir.path())
        .env("PATH", path)
        .env("SWARM_DATA", &data)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("bash");
    let output = tokio::time::timeout(TOUR, child.wait_with_output()).await;
    let _ = swarm(&data).arg("down").output().await;
    let output = output.expect("the tour ends in time").expect("bash ran");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    for part in [
        "Swarm is ready",
        "HELLO it is",
        "completed",
        "anna",
        "task.assigned",
        "Stopped",
    ] {
        assert!(out.contains(part), "{part} is missing in:\n{out}\n{err}");
    }
}
