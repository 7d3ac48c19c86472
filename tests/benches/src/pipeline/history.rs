//! A long past: a log full of messages of the agents' subjects, so that each check and each republish has to look up an old
//! one. The distributor finds all of it void (there was no such swarm yet), the projector shows it as such.

use anyhow::Context;
use bytes::Bytes;
use swarm_events::{
    AgentId, Body, Event, EventId, InstanceId, Json, Place, Subject, Timestamp,
    configuration::Algorithm,
    envelope::{Decided, Source},
    subject::{Service, TaskVerb},
    task::{Assigned, Carried, Completed, Started, Then, WithdrawReason, Withdrawn},
};
use swarm_log::{Log, Message, jetstream::JetStreamLog};
use uuid::Uuid;

/// What a message of the past carries, so that 2 GiB are half a million messages and not three.
pub const PAYLOAD_BYTES: usize = 3_200;
/// What it is with its envelope, about.
pub const MESSAGE_BYTES: usize = 4_000;
/// Messages in one atomic batch: 2 MB, written at once whatever the durability.
const BATCH: usize = 500;

/// The agent of message `number` of `count`. Those below the message's place in the log have had their last one: agent
/// 0 first, the last agent at the end.
pub fn agent_at(number: u64, count: u64, agents: u64) -> u64 {
    let retired = retired_at(number, count, agents);
    // A prime, so that neighbours in the log are not neighbours in the list.
    retired + (number * 7_919) % (agents - retired)
}

fn retired_at(number: u64, count: u64, agents: u64) -> u64 {
    (number * agents / count).min(agents - 1)
}

/// Fills the log with about `bytes` bytes for `agents` of the swarm at `place`; answers with the number of messages.
///
/// # Errors
/// The log refuses.
pub async fn fill(
    log: &JetStreamLog,
    place: Place,
    agents: &[AgentId],
    bytes: u64,
) -> anyhow::Result<u64> {
    let past = Past {
        place,
        payload: Json::from_value(&"h".repeat(PAYLOAD_BYTES))?,
    };
    let count = bytes / MESSAGE_BYTES as u64;
    let many = agents.len() as u64;
    let agent = |index: u64| -> anyhow::Result<AgentId> {
        let found = usize::try_from(index)
            .ok()
            .and_then(|index| agents.get(index));
        found.copied().context("an agent is missing")
    };
    let mut batch = Vec::with_capacity(BATCH);
    let mut retired = 0;
    for number in 0..count {
        let now_retired = retired_at(number, count, many);
        while retired < now_retired {
            batch.push(past.message(TaskVerb::Withdrawn, agent(retired)?)?);
            retired += 1;
        }
        let verb =
            [TaskVerb::Assigned, TaskVerb::Started, TaskVerb::Completed][(number % 3) as usize];
        batch.push(past.message(verb, agent(agent_at(number, count, many))?)?);
        if batch.len() >= BATCH || number + 1 == count {
            log.append_atomic(std::mem::take(&mut batch)).await?;
        }
    }
    Ok(count + retired)
}

struct Past {
    place: Place,
    payload: Json,
}

impl Past {
    fn message(&self, verb: TaskVerb, agent: AgentId) -> anyhow::Result<Message> {
        let incarnation = 1;
        // No claim was ever stored at this sequence.
        let assignment = 0;
        let body: Body = match verb {
            TaskVerb::Assigned => Assigned {
                path: Vec::new(),
                step: swarm_events::task::Step::Work,
                turn: None,
                task_type: "past".to_owned(),
                payload: Carried::Inline(self.payload.clone()),
                inputs: None,
                attempt: 1,
                generation: 1,
                incarnation,
                priority: 5,
                timeout_ms: 1_000,
                algorithm: Algorithm::default(),
                candidates: Vec::new(),
                passed_over: Default::default(),
                affinity: None,
                stolen_from: None,
                queued_at: None,
            }
            .into(),
            TaskVerb::Started => Started {
                assignment,
                incarnation,
            }
            .into(),
            TaskVerb::Withdrawn => Withdrawn {
                assignment,
                incarnation,
                reason: WithdrawReason::AgentLeft,
                force: true,
                then: Then::Queue,
                thief: None,
            }
            .into(),
            _ => Completed {
                assignment,
                incarnation,
                result: Carried::Inline(self.payload.clone()),
            }
            .into(),
        };
        let decided = !verb.by_agent();
        let source = if decided {
            Source::Service(Service::Distributor, InstanceId(Uuid::from_u128(1)))
        } else {
            Source::Agent(agent)
        };
        let subject = Subject::Task(self.place, verb, Some(agent));
        let id = EventId(Uuid::now_v7());
        let mut event = Event::new(id, source, Timestamp::ZERO, &subject, Uuid::now_v7(), body);
        event.decided = decided.then_some(Decided {
            cause_sequence: 0,
            epoch: 0,
            ordinal: 0,
            decider_version: 1,
        });
        let mut payload = event.to_json()?;
        if verb == TaskVerb::Started || verb == TaskVerb::Withdrawn {
            // Blanks behind JSON are JSON: every message has the same weight, and the past its size.
            payload.resize(payload.len().max(MESSAGE_BYTES), b' ');
        }
        Ok(Message {
            subject: subject.to_string(),
            payload: Bytes::from(payload),
            message_id: None,
            fence: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_agents_last_messages_are_spread_over_the_log() {
        let (count, agents) = (100_000, 200);
        let mut last = BTreeMap::new();
        for number in 0..count {
            last.insert(agent_at(number, count, agents), number);
        }
        assert_eq!(last.len() as u64, agents);
        for (agent, number) in last {
            let end = (agent + 1) * count / agents;
            assert!(
                number < end && number + count / 10 > end,
                "agent {agent}: {number} of {end}"
            );
        }
    }
}
