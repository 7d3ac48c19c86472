//! `swarm demo`, the main job on real input.

use std::process::Stdio;

use tokio::process::Command;

use crate::support::{folder, said};

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_kills_an_agent_and_its_report_is_right() {
    let input = folder();
    for folder in ["a", "b", "b/c"] {
        std::fs::create_dir_all(input.path().join(folder)).expect("made");
        for n in 0..12 {
            let text = format!("fn f{n}() {{}}\n").repeat(n + 1);
            std::fs::write(input.path().join(folder).join(format!("f{n}.rs")), text)
                .expect("written");
        }
    }
    let output = Command::new(env!("CARGO_BIN_EXE_swarm"))
        .args(["demo", "--agents", "3", "--pace", "60ms", "--dir"])
        .arg(input.path())
        .stdin(Stdio::null())
        .output()
        .await
        .expect("runs");
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    // 3 folders of 1 + 2 + … + 12 lines.
    assert!(text.contains("| **all** | 36 | 234 | "), "{text}");
    assert!(text.contains("was killed while it ran task"), "{text}");
    assert!(
        text.contains("was made to hang while it ran task"),
        "{text}"
    );
    assert!(text.contains("demo-broken ended 3 times"), "{text}");
    assert!(
        text.contains("40 tasks in"),
        "36 files, 3 folders, 1 report: {text}"
    );
    assert!(
        text.contains("equal a direct sequential computation"),
        "{text}"
    );
}
