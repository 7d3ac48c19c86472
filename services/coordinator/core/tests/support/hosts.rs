//! Hosts, orders about agents, and the ways in which an owner can come to its decisions.

use std::cell::Cell;

use swarm_coordinator_core::{Managed, Phase};
use swarm_events::{
    Body, Event, EventId, Json, Service, Subject,
    agent::{
        Adapter, AgentSpec, Cause, Exit, Exited, Figures, HostFailed, HostName, Launched,
        LimitedBy, Quarantined, Released, SpawnClaimed, SpawnDeclined, SpawnRequested,
    },
    command::{AddAgent, RemoveAgent, RestartAgent, Scale, UpdateAgent},
    control::Woken,
    decider::Verdict,
    envelope::Source,
    subject::{AgentVerb, CommandVerb, ControlVerb},
};
use uuid::Uuid;

use super::{Given, agent, evidence, instance, join, place};

/// What happens while an owner decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Nothing; and a plan made anew would decide the same.
    Smoothly,
    /// What it decided first is lost, and another owner goes on.
    TakenOver,
    /// The first of it is stored, the rest is lost.
    Halfway,
}

thread_local! {
    static WAY: Cell<Way> = const { Cell::new(Way::Smoothly) };
}

/// Runs a scene with and without takeovers in the middle of every decision: what it says must hold in each.
pub fn each_way(scene: impl Fn()) {
    for way in [Way::Smoothly, Way::TakenOver, Way::Halfway] {
        WAY.set(way);
        println!("{way:?}");
        scene();
    }
}

pub fn spec(kind: &str) -> AgentSpec {
    let text = format!(r#"{{"agent_type": "{kind}", "adapter": "exec", "command": ["wc", "-l"]}}"#);
    serde_json::from_str(&text).expect("a spec")
}
pub fn slot(kind: &str) -> AgentSpec {
    AgentSpec {
        adapter: None,
        command: Vec::new(),
        ..spec(kind)
    }
}
/// Another adapter than [`spec`]'s.
pub fn webhook() -> AgentSpec {
    AgentSpec {
        adapter: Some(Adapter::Webhook),
        command: Vec::new(),
        url: Some("https://example.org/work".into()),
        ..spec("hook")
    }
}
pub fn host(n: u128) -> HostName {
    HostName {
        instance: instance(0x100 + n),
        name: format!("host{n}"),
    }
}
pub fn code(code: i32) -> Exit {
    Exit {
        code: Some(code),
        ..Exit::default()
    }
}
pub fn exited(spawn: u64, h: u128, exit: Exit, uptime_ms: u64) -> Exited {
    Exited {
        spawn,
        host: host(h),
        exit,
        uptime_ms,
        host_leaving: false,
        left_behind: 0,
        last_output: "bye".into(),
    }
}

impl Given {
    pub fn settle(&mut self) {
        match WAY.get() {
            Way::Smoothly => {
                while self.0.decide_twice(64).expect("the plan is in step") > 0 {}
                return;
            }
            Way::TakenOver => {
                if self.0.decide(64) > 0 {
                    self.0.claim();
                }
            }
            Way::Halfway => {
                if self.0.decide(64) > 0 {
                    self.0.deliver();
                    self.0.claim();
                }
            }
        }
        self.0.settle();
    }
    pub fn later(&mut self, millis: u64) {
        self.0.now = self.0.now.plus_millis(millis);
        self.0
            .control(Service::Coordinator, ControlVerb::Woken, Woken {});
        self.settle();
    }
    pub fn order(&mut self, a: u128, verb: CommandVerb, body: impl Into<Body>) -> Uuid {
        let id = self.send(1, verb, agent(a).0, body);
        self.settle();
        id
    }
    pub fn add(&mut self, a: u128, spec: AgentSpec) -> Uuid {
        let order = AddAgent {
            spec,
            body_sha256: None,
        };
        self.order(a, CommandVerb::AddAgent, order)
    }
    pub fn restart(&mut self, a: u128, force: bool) -> Uuid {
        let order = RestartAgent {
            reason: None,
            force,
            grace_ms: None,
        };
        self.order(a, CommandVerb::RestartAgent, order)
    }
    pub fn drain(&mut self, a: u128, grace_ms: u64) -> Uuid {
        let order = RemoveAgent {
            reason: Some("enough".into()),
            force: false,
            grace_ms: Some(grace_ms),
        };
        self.order(a, CommandVerb::RemoveAgent, order)
    }
    pub fn force(&mut self, a: u128) -> Uuid {
        let order = RemoveAgent {
            reason: Some("now".into()),
            force: true,
            grace_ms: None,
        };
        self.order(a, CommandVerb::RemoveAgent, order)
    }
    pub fn patch(&mut self, a: u128, patch: &str) -> Uuid {
        let order = UpdateAgent {
            incarnation: None,
            patch: Json::parse(patch).expect("JSON"),
        };
        self.order(a, CommandVerb::UpdateAgent, order)
    }
    pub fn scale(&mut self, desired: Option<u32>, delta: Option<i64>, kind: Option<&str>) -> Uuid {
        let order = Scale {
            desired,
            delta,
            agent_type: kind.map(Into::into),
            reason: None,
        };
        self.order_swarm(CommandVerb::Scale, order)
    }
    pub fn order_swarm(&mut self, verb: CommandVerb, body: impl Into<Body>) -> Uuid {
        let id = self.send(1, verb, place(1).swarm.0, body);
        self.settle();
        id
    }
    /// The agent's process joins, as incarnation `spawn` if all the earlier ones have, too.
    pub fn join_as(&mut self, a: u128, process: u128, spawn: Option<u64>) -> Uuid {
        let mut order = join(process, None);
        order.agent_type = "worker".into();
        order.spawn = spawn;
        self.order(a, CommandVerb::Join, order)
    }

    /// Stores a host's word without letting the owner answer.
    pub fn host_says(
        &mut self,
        a: u128,
        h: u128,
        verb: AgentVerb,
        body: impl Into<Body>,
    ) -> Verdict {
        let subject = Subject::Agent(place(1), verb, agent(a));
        let id = EventId(self.0.id());
        let source = Source::Host(host(h).instance);
        let event = Event::new(id, source, self.0.now, &subject, agent(a).0, body);
        self.0.event(&subject, &event)
    }
    pub fn claim(&mut self, a: u128, h: u128, spawn: u64) -> Verdict {
        let claimed = SpawnClaimed {
            spawn,
            host: host(h),
        };
        let verdict = self.host_says(a, h, AgentVerb::SpawnClaimed, claimed);
        self.settle();
        verdict
    }
    pub fn decline(&mut self, a: u128, h: u128, spawn: u64) -> Verdict {
        let declined = SpawnDeclined {
            spawn,
            host: host(h),
            problem: swarm_events::Problem::new("not-allowed", "wc is not on the list"),
        };
        let verdict = self.host_says(a, h, AgentVerb::SpawnDeclined, declined);
        self.settle();
        verdict
    }
    pub fn launch(&mut self, a: u128, h: u128, spawn: u64) -> Verdict {
        let launched = Launched {
            spawn,
            host: host(h),
            pid: 4_000 + u32::try_from(spawn).expect("small"),
            limited_by: LimitedBy::Nothing,
            unlimited: Vec::new(),
        };
        let verdict = self.host_says(a, h, AgentVerb::Launched, launched);
        self.settle();
        verdict
    }
    pub fn exit(&mut self, a: u128, h: u128, spawn: u64, exit: Exit, uptime_ms: u64) -> Verdict {
        let exited = exited(spawn, h, exit, uptime_ms);
        let verdict = self.host_says(a, h, AgentVerb::Exited, exited);
        self.settle();
        verdict
    }
    pub fn host_gone(&mut self, a: u128, h: u128, spawn: u64) {
        let failed = HostFailed {
            spawn,
            host: host(h),
            evidence: evidence(4_000, 4_000),
        };
        self.verdict(a, AgentVerb::HostFailed, failed);
    }
    pub fn verdict(&mut self, a: u128, verb: AgentVerb, body: impl Into<Body>) {
        let epoch = self.0.claim_of(Service::Health);
        let subject = Subject::Agent(place(1), verb, agent(a));
        self.0
            .other(Service::Health, subject, agent(a).0, body, epoch, 1);
        self.settle();
    }
    pub fn fails(&mut self, a: u128, incarnation: u64) {
        let failed = swarm_events::agent::Failed {
            incarnation,
            evidence: evidence(4_100, 4_000),
        };
        self.verdict(a, AgentVerb::Failed, failed);
    }
    pub fn quarantine(&mut self, a: u128, incarnation: u64, cause: Cause) {
        let quarantined = Quarantined {
            incarnation,
            cause,
            figures: figures(),
            until: None,
        };
        self.verdict(a, AgentVerb::Quarantined, quarantined);
    }
    pub fn release(&mut self, a: u128, incarnation: u64, cause: Cause) {
        let released = Released {
            incarnation,
            cause,
            figures: figures(),
        };
        self.verdict(a, AgentVerb::Released, released);
    }
    /// An agent whose process runs on host 1 and has joined.
    pub fn running(&mut self, a: u128) {
        self.add(a, spec("worker"));
        self.runs(a);
    }
    /// The current request is claimed and launched by host 1, and its process joins.
    pub fn runs(&mut self, a: u128) {
        let spawn = self.managed(a).spawn;
        self.claim(a, 1, spawn);
        self.launch(a, 1, spawn);
        let process = a * 0x1000 + u128::from(spawn);
        let id = self.join_as(a, process, Some(spawn));
        assert_eq!(self.answered_by(id), "swarm.agent.joined.v1");
    }

    pub fn managed(&self, a: u128) -> &Managed {
        self.agent(a).managed.as_ref().expect("it was added")
    }
    pub fn is_requested(&self, a: u128) -> bool {
        matches!(self.managed(a).phase, Phase::Requested { .. })
    }
    /// All valid requests for processes of the agent so far.
    pub fn requests(&self, a: u128) -> Vec<SpawnRequested> {
        let about = agent(a);
        self.valid(|subject, body| match (subject, body) {
            (Subject::Agent(_, _, of), Body::AgentSpawnRequested(r)) if *of == about => {
                Some(r.clone())
            }
            _ => None,
        })
    }
    /// The types of all valid events about the agent so far, from the `from`th on, without `swarm.agent.`.
    pub fn story(&self, a: u128, from: usize) -> Vec<String> {
        let about = agent(a);
        // Its places in the topology are another story.
        let mut all = self.valid(|subject, _| match subject {
            Subject::Agent(_, AgentVerb::Seated, _) => None,
            Subject::Agent(_, verb, of) if *of == about => Some(verb.to_string()),
            _ => None,
        });
        all.drain(..from.min(all.len()));
        all
    }
    pub fn valid<T>(&self, mut pick: impl FnMut(&Subject, &Body) -> Option<T>) -> Vec<T> {
        let all = self.0.log.iter().zip(&self.0.verdicts);
        all.filter(|(_, verdict)| matches!(verdict, Verdict::Applied))
            .filter_map(|(stored, _)| match stored.input() {
                swarm_events::Input::Event(r) => pick(&r.subject, &r.event.body),
                swarm_events::Input::Unreadable(_) => None,
            })
            .collect()
    }
}

pub fn figures() -> Figures {
    Figures {
        value: 7,
        limit: 5,
        attempts: 7,
    }
}
