//! Topologies under a name: the system's four, and an organization's own.

use crate::support::{Client, Stage};
use serde_json::{Value, json};
use swarm_events::org::Role;

async fn names(client: &Client, path: &str) -> (Vec<String>, Value) {
    let page = client.get(path).await;
    assert_eq!(page.status, 200, "{}", page.body);
    let items = page.body["items"].as_array().expect("items").clone();
    let names = items
        .iter()
        .map(|item| item["name"].as_str().expect("a name").to_owned());
    (names.collect(), page.body["next_cursor"].clone())
}

#[tokio::test]
async fn the_systems_four_are_there_and_nobodys_to_change() {
    let stage = Stage::without_database().await;
    let admin = &stage.admin;
    let (all, next) = names(admin, "/v1/topologies").await;
    assert_eq!(all, ["star", "mesh", "hierarchical", "ring"]);
    assert_eq!(next, Value::Null);
    let star = admin.get("/topologies/star").await;
    assert_eq!(
        star.body["description"],
        "Central coordinator with worker agents"
    );
    assert_eq!(
        star.body["best_for"],
        "Simple task distribution, centralized control"
    );
    assert_eq!(star.body["configuration"]["max_workers"], 50);
    assert_eq!(
        (&star.body["is_system"], &star.body["topology_type"]),
        (&json!(true), &json!("star"))
    );
    let before = stage.stored("swarm.cmd.>").await.len();
    let body = json!({"topology": "ring"});
    admin
        .put("/v1/topologies/star", &body)
        .await
        .refused(409, "reserved-name", Some("name"));
    admin
        .delete("/v1/topologies/ring")
        .await
        .refused(409, "reserved-name", Some("name"));
    let named = json!({"name": "mesh", "topology": "mesh"});
    admin
        .post("/v1/topologies", &named)
        .await
        .refused(409, "reserved-name", Some("name"));
    assert_eq!(stage.stored("swarm.cmd.>").await.len(), before);
}

#[tokio::test]
async fn one_of_its_own_is_saved_changed_used_and_deleted() {
    let stage = Stage::without_database().await;
    let admin = &stage.admin;
    let body = json!({"name": "Rechnungen / Q1", "description": "One after another", "best_for": "invoices",
        "topology": "ring", "configuration": {"token_timeout_ms": 9}});
    let saved = admin.post_keyed("/v1/topologies", &body, "k").await;
    assert_eq!(saved.status, 201, "{}", saved.body);
    let path = "/v1/topologies/Rechnungen%20%2F%20Q1";
    assert_eq!(saved.header("location"), path);
    assert_eq!(
        saved.body["configuration"],
        json!({"order": "sequential", "token_timeout_ms": 9, "skip_unhealthy": true})
    );
    let repeated = admin.post_keyed("/v1/topologies", &body, "k").await;
    assert_eq!(
        (repeated.status, &repeated.body),
        (201, &saved.body),
        "the same request"
    );
    admin
        .post("/v1/topologies", &body)
        .await
        .refused(409, "name-taken", Some("name"));
    let shown = admin.get(path).await;
    assert_eq!(shown.body, saved.body);

    let changed = admin
        .put(
            path,
            &json!({"description": null, "configuration": {"order": "load"}}),
        )
        .await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    assert_eq!(
        changed.body["configuration"],
        json!({"order": "load", "token_timeout_ms": 9, "skip_unhealthy": true})
    );
    assert_eq!(
        (&changed.body["description"], &changed.body["best_for"]),
        (&Value::Null, &json!("invoices"))
    );
    assert_eq!(
        (&changed.body["id"], &changed.body["created_at"]),
        (&saved.body["id"], &saved.body["created_at"])
    );
    assert!(changed.body["updated_at"].as_str() > saved.body["updated_at"].as_str());
    let other = admin.put(path, &json!({"topology_type": "mesh"})).await;
    assert_eq!(other.body["topology_type"], "mesh");
    assert_eq!(
        other.body["configuration"]["neighbours"], 4,
        "another topology has its defaults"
    );

    let swarm = admin
        .post("/v1/swarms", &json!({"name": "s", "template": "Rechnungen / Q1", "topology_configuration": {"neighbours": 6}}))
        .await;
    assert_eq!(
        (swarm.status, swarm.text("topology")),
        (201, "mesh"),
        "{}",
        swarm.body
    );
    assert_eq!(swarm.body["topology_configuration"]["neighbours"], 6);

    let deleted = admin.delete(path).await;
    assert_eq!(
        (deleted.status, deleted.text("topology_type")),
        (200, "mesh")
    );
    assert!(deleted.sequence() > other.sequence());
    admin
        .get(path)
        .await
        .refused(404, "unknown-template", Some("name"));
    admin
        .delete(path)
        .await
        .refused(404, "unknown-template", Some("name"));
    let late = json!({"name": "t", "template": "Rechnungen / Q1"});
    admin
        .post("/v1/swarms", &late)
        .await
        .refused(422, "unknown-template", Some("template"));
    let shape = admin
        .get(&format!("/v1/swarms/{}/topology", swarm.id()))
        .await;
    assert_eq!(
        shape.text("topology"),
        "mesh",
        "what was made from it stays"
    );
}

#[tokio::test]
async fn an_organization_sees_its_own_page_by_page() {
    let stage = Stage::without_database().await;
    for name in ["b", "a", "c"] {
        let saved = stage
            .admin
            .put(
                &format!("/v1/topologies/{name}"),
                &json!({"topology": "star"}),
            )
            .await;
        assert_eq!(saved.status, 201, "{}", saved.body);
    }
    let (first, next) = names(&stage.admin, "/v1/topologies?limit=5").await;
    assert_eq!(first, ["star", "mesh", "hierarchical", "ring", "a"]);
    let next = next.as_str().expect("more").to_owned();
    let (second, end) = names(
        &stage.admin,
        &format!("/v1/topologies?limit=5&cursor={next}"),
    )
    .await;
    assert_eq!(
        (second, end),
        (vec!["b".to_owned(), "c".to_owned()], Value::Null)
    );
    let (_, stranger) = stage.other_org().await;
    assert_eq!(names(&stranger, "/v1/topologies").await.0.len(), 4);
    stranger
        .get("/v1/topologies/a")
        .await
        .refused(404, "unknown-template", Some("name"));
    stage
        .admin
        .get("/v1/topologies?cursor=!")
        .await
        .refused(400, "bad-parameter", Some("?cursor"));
    stage
        .admin
        .get("/v1/topologies?colour=1")
        .await
        .refused(400, "bad-parameter", Some("?colour"));
}

#[tokio::test]
async fn what_cannot_be_saved_is_refused_by_its_field_and_nothing_is_stored() {
    let stage = Stage::without_database().await;
    let admin = &stage.admin;
    let reader = stage.with_role(Role::Analyst).await;
    let before = stage.last_sequence().await;
    let good = json!({"name": "n", "topology": "ring"});
    reader
        .post("/v1/topologies", &good)
        .await
        .refused(403, "forbidden", Some("Authorization"));
    reader
        .delete("/v1/topologies/n")
        .await
        .refused(403, "forbidden", Some("Authorization"));
    for (body, code, field) in [
        (json!({"name": "n"}), "missing-field", "topology"),
        (
            json!({"name": "n".repeat(51), "topology": "ring"}),
            "wrong-length",
            "name",
        ),
        (
            json!({"name": "n", "topology": "ring", "configuration": {"order": "down"}}),
            "bad-configuration",
            "configuration.order",
        ),
    ] {
        admin
            .post("/v1/topologies", &body)
            .await
            .refused(422, code, Some(field));
    }
    admin
        .put("/v1/topologies/n", &json!({}))
        .await
        .refused(422, "nothing-to-change", Some("body"));
    admin
        .put("/v1/topologies/n", &json!({"best_for": "b"}))
        .await
        .refused(422, "missing-field", Some("topology"));
    let long = format!("/v1/topologies/{}", "n".repeat(51));
    admin
        .put(&long, &json!({"topology": "ring"}))
        .await
        .refused(422, "wrong-length", Some("name"));
    stage.nothing_came_since(before).await;
}
