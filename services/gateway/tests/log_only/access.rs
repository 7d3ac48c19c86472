//! Keys, roles, organizations.

use crate::support::Stage;
use serde_json::json;
use swarm_events::org::Role;
use swarm_gateway::{BootstrapError, admin_key, bootstrap};
use uuid::Uuid;

#[tokio::test]
async fn the_first_organization_is_made_once_and_a_lost_key_can_be_replaced() {
    let stage = Stage::without_database().await;
    let again = bootstrap(stage.log.clone(), "second").await;
    assert!(
        matches!(again, Err(BootstrapError::Exists { org_id }) if org_id == stage.org),
        "{again:?}"
    );
    let made = admin_key(stage.log.clone(), stage.org)
        .await
        .expect("another key");
    assert_ne!(made.api_key, stage.admin.key);
    stage
        .eventually(|app| app.fold.read().caller(&made.api_key).is_some())
        .await;
    let client = stage.client(&made.api_key);
    assert_eq!(
        client
            .post("/v1/swarms", &json!({"name": "a"}))
            .await
            .status,
        201
    );
}

#[tokio::test]
async fn requests_need_a_key_that_holds() {
    let stage = Stage::without_database().await;
    let response = stage
        .admin
        .http
        .get(format!("{}/v1/swarms", stage.url))
        .send()
        .await
        .expect("an answer");
    assert_eq!(response.status().as_u16(), 401);
    assert_eq!(
        response.headers()["www-authenticate"],
        "Bearer realm=\"swarm\""
    );
    stage.client("swk_wrong").get("/v1/swarms").await.refused(
        401,
        "unknown-key",
        Some("Authorization"),
    );
    let basic = stage
        .admin
        .http
        .get(format!("{}/swarms", stage.url))
        .header("Authorization", "Basic eDp5");
    stage
        .admin
        .send(basic)
        .await
        .refused(401, "bad-authorization", Some("Authorization"));
    for open in ["/livez", "/readyz", "/metrics", "/openapi.json"] {
        let response = stage
            .admin
            .http
            .get(format!("{}{open}", stage.url))
            .send()
            .await
            .expect("an answer");
        assert_eq!(response.status().as_u16(), 200, "{open}");
    }
}

#[tokio::test]
async fn roles_and_organizations_bound_what_a_key_may_do() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "mine"})).await;
    let swarm = format!("/v1/swarms/{}", place.swarm);
    let task = json!({"task_type": "count", "payload": {}});
    let missing = format!("{swarm}/tasks/{}", Uuid::now_v7());
    let agent = format!("{swarm}/agents/{}", Uuid::now_v7());
    for (role, submit, configure, direct, operate, administer) in [
        (Role::User, 202, 403, 403, 403, 403),
        (Role::Analyst, 403, 403, 403, 403, 403),
        (Role::Developer, 202, 200, 404, 403, 403),
        (Role::Operator, 202, 200, 404, 404, 403),
        (Role::Admin, 202, 200, 404, 404, 200),
    ] {
        let client = stage.with_role(role).await;
        assert_eq!(
            client.get(&format!("{swarm}/health")).await.status,
            200,
            "{role:?}"
        );
        assert_eq!(
            client.post(&format!("{swarm}/tasks"), &task).await.status,
            submit,
            "{role:?}"
        );
        assert_eq!(
            client
                .put(&swarm, &json!({"description": "d"}))
                .await
                .status,
            configure,
            "{role:?}"
        );
        assert_eq!(client.delete(&missing).await.status, direct, "{role:?}");
        for order in ["cancel", "retry", "discard"] {
            let one = format!("{missing}/{order}");
            assert_eq!(
                client.post(&one, &json!({})).await.status,
                direct,
                "{role:?} {one}"
            );
            let many = format!("{swarm}/tasks/{order}");
            let came = client
                .post(&many, &json!({"task_ids": [Uuid::now_v7()]}))
                .await;
            // Many are answered one by one.
            let expected = if direct == 404 { 200 } else { direct };
            assert_eq!(came.status, expected, "{role:?} {many}: {}", came.body);
        }
        assert_eq!(client.delete(&agent).await.status, operate, "{role:?}");
        let bulk = client
            .post(&format!("{swarm}/tasks/bulk"), &json!({"tasks": [task]}))
            .await;
        assert_eq!(bulk.status, submit, "{role:?}: {}", bulk.body);
        assert_eq!(client.get("/organization").await.status, 200, "{role:?}");
        let patch = json!({"queue_limit": null});
        let changed = client.put("/v1/organization", &patch).await;
        assert_eq!(changed.status, administer, "{role:?}: {}", changed.body);
    }
    let analyst = stage.with_role(Role::Analyst).await;
    let refused = analyst.post("/v1/swarms", &json!({"name": "x"})).await;
    refused.refused(403, "forbidden", Some("Authorization"));
    assert!(
        refused.text("cure").contains("developer"),
        "{}",
        refused.body
    );

    let (_, stranger) = stage.other_org().await;
    for (came, what) in [
        (stranger.get(&format!("{swarm}/health")).await, "health"),
        (stranger.get(&format!("{swarm}/events")).await, "events"),
        (
            stranger.post(&format!("{swarm}/tasks"), &task).await,
            "submit",
        ),
        (stranger.put(&swarm, &json!({"name": "x"})).await, "update"),
        (stranger.delete(&swarm).await, "delete"),
    ] {
        assert_eq!(came.status, 404, "{what}: {}", came.body);
        came.refused(404, "unknown-swarm", Some("id"));
    }
}
