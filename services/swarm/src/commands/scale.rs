//! `swarm scale`

use std::{fmt, str::FromStr, time::Duration};

use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use crate::{
    api::Api,
    connection::ServerArgs,
    exit::{Code, Failure, Outcome},
    output::{self, Format},
    progress::{self, parse_duration},
};

/// Arguments of `swarm scale`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Name or id of the swarm
    pub swarm: String,
    /// How many agents: N in all, +N more, -N fewer
    #[arg(value_name = "N|+N|-N", allow_hyphen_values = true)]
    pub amount: Amount,
    /// Only agents of this type are counted, added and taken out
    #[arg(long = "type", value_name = "TYPE")]
    pub agent_type: Option<String>,
    /// Why
    #[arg(long)]
    pub reason: Option<String>,
    /// Wait until so many are ready, and those that go have gone
    #[arg(long)]
    pub wait: bool,
    /// Longest wait; past it the exit code is 4
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "2m", requires = "wait")]
    pub timeout: Duration,
    /// A repeat with the same key scales nothing again
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
}

/// How many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// In all.
    Desired(u32),
    /// More, or fewer.
    Delta(i64),
}

impl FromStr for Amount {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no number of agents: give 5, +2 or -2");
        let digits = text.strip_prefix(['+', '-']);
        if !digits.unwrap_or(text).bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        if digits.is_some() {
            text.parse().map(Self::Delta).map_err(|_| wrong())
        } else {
            text.parse().map(Self::Desired).map_err(|_| wrong())
        }
    }
}

/// Looks again after this: agents take some tenths of a second to start.
const LOOK: Duration = Duration::from_millis(250);
/// How long the gateway may be away before waiting is given up.
const AWAY_MAX: Duration = Duration::from_secs(30);
/// Agents that are spoken of one by one when it took too long.
const SPOKEN_OF_MAX: usize = 5;

/// Scales a swarm, and waits until that is done if asked to.
pub async fn run(args: Args, server: &ServerArgs, output: Format) -> Outcome {
    let api = super::api(server)?;
    let id = api.swarm_id(&args.swarm).await?;
    let mut body = match args.amount {
        Amount::Desired(desired) => json!({ "desired": desired }),
        Amount::Delta(delta) => json!({ "delta": delta }),
    };
    for (name, value) in [("agent_type", &args.agent_type), ("reason", &args.reason)] {
        if let Some(value) = value {
            body[name] = json!(value);
        }
    }
    let key = args.idempotency_key.as_deref();
    let path = format!("/v1/swarms/{id}/scale");
    let scaled = api.post(&path, &body, key).await?;
    if output == Format::Table {
        output::line(&decided(&scaled))?;
    }
    if args.wait {
        let goal = Goal::of(&scaled, args.agent_type);
        until_done(&api, &id, &goal, args.timeout).await?;
        if output == Format::Table {
            output::line(&format!("{} agents are ready", goal.desired))?;
        }
    }
    api.settle().await;
    match output {
        Format::Json => output.object(&scaled),
        Format::Table => Ok(()),
    }
}

/// What was decided, for people.
fn decided(scaled: &Value) -> String {
    let count = |name: &str| scaled[name].as_array().map_or(0, Vec::len);
    let (before, desired) = (&scaled["before"], &scaled["desired"]);
    match (count("add"), count("remove")) {
        (0, 0) => format!("{before} agents, as many as wanted"),
        (added, 0) => format!("{before} agents, {desired} are wanted: {added} are added"),
        (0, removed) => {
            format!(
                "{before} agents, {desired} are wanted: {removed} go once they have finished what they have"
            )
        }
        (added, removed) => {
            format!("{before} agents, {desired} are wanted: {added} are added, {removed} go")
        }
    }
}

/// What is waited for.
struct Goal {
    desired: u64,
    agent_type: Option<String>,
    removed: Vec<String>,
}

/// How far it is.
#[derive(Debug, Default, PartialEq, Eq)]
struct Progress {
    ready: u64,
    starting: u64,
    leaving: u64,
    /// Given up: they need somebody's word.
    given_up: Vec<String>,
    /// What is not there yet, and why.
    waiting: Vec<String>,
}

impl Goal {
    fn of(scaled: &Value, agent_type: Option<String>) -> Self {
        let removed = scaled["remove"].as_array().map_or(&[][..], Vec::as_slice);
        Self {
            desired: scaled["desired"].as_u64().unwrap_or(0),
            agent_type,
            removed: removed
                .iter()
                .filter_map(|id| Some(id.as_str()?.to_owned()))
                .collect(),
        }
    }

    /// What the swarm's health says of it.
    fn progress(&self, health: &Value) -> Progress {
        let mut progress = Progress::default();
        for agent in health["items"].as_array().map_or(&[][..], Vec::as_slice) {
            let text = |name: &str| agent[name].as_str().unwrap_or_default();
            if self
                .agent_type
                .as_ref()
                .is_some_and(|of| of != text("agent_type"))
            {
                continue;
            }
            let goes = agent["draining"]["then"] == "remove"
                || self.removed.iter().any(|id| id == text("id"));
            let named = || format!("{}: {}", text("agent_name"), text("status_reason"));
            match text("status") {
                "stopped" => {}
                _ if goes => {
                    progress.leaving += 1;
                    progress.waiting.push(named());
                }
                "idle" | "busy" => progress.ready += 1,
                "unhealthy" if agent["incarnation"] == 0 || is_given_up(agent) => {
                    progress.given_up.push(named())
                }
                _ => {
                    progress.starting += 1;
                    progress.waiting.push(named());
                }
            }
        }
        progress
    }

    fn is_reached(&self, progress: &Progress) -> bool {
        progress.ready >= self.desired && progress.leaving == 0
    }

    /// Agents were given up, so that there will not be enough.
    fn is_hopeless(&self, progress: &Progress) -> bool {
        !progress.given_up.is_empty() && progress.ready + progress.starting < self.desired
    }
}

/// No host has a process of it, and none is going to be asked.
fn is_given_up(agent: &Value) -> bool {
    agent["host"].is_null()
        && agent["crashes"].as_u64() > Some(0)
        && agent["restart_due"].is_null()
        && agent["adapter"].is_string()
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ready", self.ready)?;
        for (count, what) in [(self.starting, "starting"), (self.leaving, "leaving")] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        if !self.given_up.is_empty() {
            write!(f, ", {} given up", self.given_up.len())?;
        }
        Ok(())
    }
}

async fn until_done(api: &Api, swarm: &str, goal: &Goal, timeout: Duration) -> Outcome {
    let deadline = Instant::now() + timeout;
    let bar = progress::bar(goal.desired, "agents");
    let mut away: Option<Instant> = None;
    let mut last = Progress::default();
    let ended = loop {
        match api.get(&format!("/v1/swarms/{swarm}/health"), &[]).await {
            Ok(health) => {
                away = None;
                last = goal.progress(&health);
                bar.set_position(last.ready.min(goal.desired));
                bar.set_message(format!("{last} of {}", goal.desired));
                if goal.is_reached(&last) {
                    break Ok(());
                }
                if goal.is_hopeless(&last) {
                    break Err(Failure::failed(format!(
                        "{last} of {} agents: {}; `swarm agent logs` shows why, `swarm agent restart` tries again",
                        goal.desired,
                        some(&last.given_up)
                    )));
                }
            }
            Err(failure) if failure.code == Code::Failed => {
                let since = *away.get_or_insert_with(Instant::now);
                if since.elapsed() > AWAY_MAX {
                    break Err(failure);
                }
            }
            Err(failure) => break Err(failure),
        }
        let now = Instant::now();
        if now >= deadline {
            break Err(Failure::timeout(format!(
                "{last} of {} agents after {timeout:?}: {}",
                goal.desired,
                some(&last.waiting)
            )));
        }
        sleep_until(deadline.min(now + LOOK)).await;
    };
    match &ended {
        Ok(()) => bar.finish_and_clear(),
        Err(_) => bar.abandon(),
    }
    ended
}

/// The first of these, and how many more there are.
fn some(all: &[String]) -> String {
    let shown = all.iter().take(SPOKEN_OF_MAX).cloned().collect::<Vec<_>>();
    let more = all.len() - shown.len();
    match (shown.is_empty(), more) {
        (true, _) => "`swarm health` shows why".to_owned(),
        (false, 0) => shown.join("; "),
        (false, more) => format!("{}; and {more} more", shown.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_a_number_or_a_change() {
        for (text, amount) in [
            ("5", Amount::Desired(5)),
            ("0", Amount::Desired(0)),
            ("+3", Amount::Delta(3)),
            ("-3", Amount::Delta(-3)),
        ] {
            assert_eq!(text.parse(), Ok(amount));
        }
        for bad in ["", "+", "-", "x", "1.5", "+-1", "--1", "5x", "99999999999"] {
            assert!(bad.parse::<Amount>().is_err(), "{bad}");
        }
    }

    fn agent(id: &str, status: &str, more: Value) -> Value {
        let mut agent = json!({"id": id, "agent_name": id, "agent_type": "t", "status": status, "status_reason": "because",
            "incarnation": 1, "draining": null, "adapter": "exec", "host": {"name": "h"}, "crashes": 0, "restart_due": null});
        for (name, value) in more.as_object().expect("an object") {
            agent[name] = value.clone();
        }
        agent
    }
    fn goal(desired: u64, removed: &[&str]) -> Goal {
        let scaled = json!({"desired": desired, "remove": removed});
        Goal::of(&scaled, Some("t".to_owned()))
    }

    #[test]
    fn ready_are_those_that_can_work_and_stay() {
        let health = json!({"items": [
            agent("a", "idle", json!({})),
            agent("b", "busy", json!({})),
            agent("c", "busy", json!({"draining": {"then": "remove"}})),
            agent("d", "idle", json!({})),
            agent("e", "starting", json!({})),
            agent("f", "idle", json!({"agent_type": "other"})),
            agent("g", "stopped", json!({})),
            agent("h", "pending", json!({"incarnation": 0, "host": null, "crashes": 2, "restart_due": "soon"})),
        ]});
        let goal = goal(3, &["d"]);
        let progress = goal.progress(&health);
        assert_eq!(
            (progress.ready, progress.starting, progress.leaving),
            (2, 2, 2)
        );
        assert!(!goal.is_reached(&progress) && !goal.is_hopeless(&progress));
        assert_eq!(progress.to_string(), "2 ready, 2 starting, 2 leaving");
        assert_eq!(progress.waiting.len(), 4);
    }

    #[test]
    fn it_is_done_when_so_many_are_ready_and_nobody_is_leaving() {
        let two = json!({"items": [agent("a", "idle", json!({})), agent("b", "busy", json!({}))]});
        let goal = goal(2, &["c"]);
        assert!(goal.is_reached(&goal.progress(&two)));
        let mut more = two.clone();
        more["items"]
            .as_array_mut()
            .expect("a list")
            .push(agent("c", "idle", json!({})));
        assert!(
            !goal.is_reached(&goal.progress(&more)),
            "it has not gone yet"
        );
    }

    #[test]
    fn what_was_given_up_is_not_waited_for() {
        let health = json!({"items": [
            agent("a", "idle", json!({})),
            agent("b", "unhealthy", json!({"incarnation": 0, "host": null, "crashes": 5})),
        ]});
        let goal = goal(2, &[]);
        let progress = goal.progress(&health);
        assert!(goal.is_hopeless(&progress));
        assert_eq!(progress.given_up, ["b: because"]);
        // A suspected one may come back.
        let health =
            json!({"items": [agent("a", "idle", json!({})), agent("b", "unhealthy", json!({}))]});
        let progress = goal.progress(&health);
        assert!(!goal.is_hopeless(&progress) && progress.starting == 1);
    }
}
