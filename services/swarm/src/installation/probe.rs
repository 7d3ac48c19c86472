//! Asking a service whether it is ready.

use std::time::Duration;

use serde_json::Value;

/// A service answers its own probe from memory: a second is long.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a probe said.
#[derive(Clone, Debug)]
pub struct Readiness {
    /// Whether it is ready.
    pub ready: bool,
    /// What that rests on, or why there was no answer.
    pub detail: Value,
}

/// `GET <base>/readyz`
pub async fn readyz(base: &str) -> Readiness {
    ask(base, "/readyz").await
}

/// `GET <base><path>`
pub async fn ask(base: &str, path: &str) -> Readiness {
    let ask = async {
        let response = reqwest::Client::new()
            .get(format!("{base}{path}"))
            .timeout(PATIENCE)
            .send()
            .await?;
        let ready = response.status().is_success();
        let text = response.text().await?;
        let detail = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok::<_, reqwest::Error>(Readiness { ready, detail })
    };
    ask.await.unwrap_or_else(|error| Readiness {
        ready: false,
        detail: Value::String(if error.is_connect() {
            "does not answer".to_owned()
        } else {
            error.to_string()
        }),
    })
}
