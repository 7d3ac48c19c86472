//! PostgreSQL as this crate runs it, against the real binaries. As root these show that it
//! runs as somebody else.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use swarm_servers::{PgSettings, Postgres, ServerError, testing};

fn throw_away(data_dir: std::path::PathBuf) -> PgSettings {
    let mut settings = PgSettings::new(data_dir);
    settings.port = 0;
    settings.throw_away = true;
    settings
}

#[tokio::test]
async fn it_starts_stops_and_keeps_its_data() {
    let mut postgres = testing::postgres().await;
    let url = postgres.fresh_database("other").await;
    assert!(url.ends_with("/other"));
    let before = postgres.server().settings().port;
    postgres.restart().await;
    postgres.kill();
    postgres.restart().await;
    assert_eq!(postgres.server().settings().port, before);
    let again = postgres.server().create_database("other").await;
    let error = again.expect_err("it is still there").to_string();
    assert!(error.contains("already exists"), "{error}");
}

#[tokio::test]
async fn it_starts_in_a_folder_that_only_the_caller_may_enter() {
    let closed = tempfile::tempdir().expect("a folder");
    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).expect("closes it");
    let data = closed.path().join("postgres");

    let first = Postgres::start(throw_away(data.clone()))
        .await
        .expect("starts");
    first.create_database("kept").await.expect("makes it");
    first.stop().await;
    let second = Postgres::start(throw_away(data.clone()))
        .await
        .expect("starts again");
    let again = second.create_database("kept").await;
    assert!(
        again.is_err(),
        "the second start found the first one's data"
    );
    second.stop().await;

    let password = fs::metadata(data.join("password")).expect("is there");
    assert_eq!(password.permissions().mode() & 0o777, 0o600);
    if let Ok(place) = fs::read_to_string(data.join("place")) {
        fs::remove_dir_all(place.trim()).expect("removes what lay elsewhere");
    }
}

#[tokio::test]
async fn a_stale_pid_file_and_a_half_made_database_do_not_matter() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).expect("opens it");
    let data = dir.path().join("postgres");
    fs::create_dir_all(data.join("cluster.new")).expect("makes it");
    fs::write(data.join("cluster.new/PG_VERSION"), "15").expect("writes");
    let first = Postgres::start(throw_away(data.clone()))
        .await
        .expect("starts");
    let settings = first.settings().clone();
    first.stop().await;
    // The pid of a process that lives and is no server: PostgreSQL itself would refuse.
    let stale = format!(
        "{}\n{}\n",
        std::process::id(),
        data.join("cluster").display()
    );
    fs::write(data.join("cluster/postmaster.pid"), stale).expect("writes");
    let second = Postgres::start(settings.clone()).await.expect("starts");
    let Err(error) = Postgres::start(settings).await else {
        panic!("two servers on one folder")
    };
    assert!(matches!(error, ServerError::FolderInUse { .. }), "{error}");
    second.stop().await;
}

#[tokio::test]
async fn a_used_port_is_named_with_its_cure() {
    let first = testing::postgres().await;
    let mut settings = throw_away(first.dir().join("second"));
    settings.port = first.server().settings().port;
    let Err(error) = Postgres::start(settings).await else {
        panic!("two servers on one port")
    };
    assert!(matches!(error, ServerError::PortInUse { .. }), "{error}");
    assert!(error.to_string().contains("SWARM_POSTGRES_PORT"), "{error}");
}
