//! One scene of `./dev chaos` in every test run: SIGKILL of the distributor that owns a swarm at work.

use std::path::PathBuf;

use swarm_chaos::{Options, catalog, report::Verdict};

#[tokio::test(flavor = "multi_thread")]
async fn given_a_killed_owner_under_load_then_the_audit_finds_nothing_lost_and_nothing_doubled() {
    let scenes = catalog::chosen(&["kill-distributor".to_owned()]).expect("there is such a scene");
    assert_eq!(scenes.len(), 1);
    let evidence = tempfile::tempdir().expect("a folder").keep();
    let options = Options {
        program: PathBuf::from(env!("CARGO_BIN_EXE_swarm")),
        root: std::env::temp_dir(),
        evidence: evidence.clone(),
        replicas: 2,
        keep: false,
        fresh: false,
    };
    let rows = swarm_chaos::run(&scenes, &options, |_| ()).await;
    let row = &rows[0];
    assert_eq!(row.verdict, Verdict::Passed, "{row:#?}");
    assert_eq!((row.lost, row.doubled), (0, 0), "{row:#?}");
    assert_eq!(row.audit.as_deref(), Some("passed"), "{row:#?}");
    assert!(row.tasks > 0, "{row:#?}");
    // Only logs of a scene that failed are worth keeping.
    std::fs::remove_dir_all(evidence).expect("ours");
}
