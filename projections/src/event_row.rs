//! A message of the stream as a row of `swarm_events`.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;
use swarm_events::{Body, Input, Subject, Timestamp, body::type_stem, subject::SwarmVerb};
use swarm_log::StoredMessage;
use uuid::Uuid;

use crate::{columns::columns, jsonb};

columns! {
    /// Rows of `swarm_events`.
    ///
    /// Inserted as arrays and not by COPY: the client sends the rows and the end of a COPY apart, without TCP_NODELAY, and
    /// the server's delayed acknowledgement then costs 40 ms for each batch (measured: 43 ms against 2 for 150 rows).
    Events {
        id: Uuid => "uuid", swarm_id: Uuid => "uuid", agent_id: Option<Uuid> => "uuid", event_type: String => "text",
        event_data: Option<String> => "jsonb", created_at: DateTime<Utc> => "timestamptz", seq: i64 => "bigint",
        organization_id: Option<Uuid> => "uuid", subject_id: Option<Uuid> => "uuid", r#type: Option<&'static str> => "text",
        causation_id: Option<Uuid> => "uuid", void: bool => "boolean", void_reason: Option<String> => "text",
    }
}

/// Namespace of the ids of messages that have none (RFC 9562 version 5).
const UNREADABLE_NAMESPACE: Uuid = Uuid::from_u128(0x2d3c_6a5e_0f0b_5b0c_8a41_9d0f_6c55_77e2);

impl Events {
    /// Adds the row of a message. `void`: the precondition that failed. Answers with about how many bytes it takes.
    pub(crate) fn message(
        &mut self,
        message: &StoredMessage,
        input: &Input,
        void: Option<&str>,
    ) -> usize {
        let (subject, data) = match input {
            Input::Event(recorded) => {
                let event = &recorded.event;
                let subject = &recorded.subject;
                self.id.push(event.id.0);
                self.agent_id.push(match &event.body {
                    Body::Join(_) | Body::Leave(_) | Body::RemoveAgent(_) => Some(event.about),
                    _ => subject.agent().map(|agent| agent.0),
                });
                self.subject_id
                    .push((!matches!(subject, Subject::Control(..))).then_some(event.about));
                self.r#type.push(Some(event.body.type_name()));
                self.causation_id.push(event.causation);
                (
                    Some(*subject),
                    data(&message.payload).map(|raw| jsonb::storable(raw.get()).into_owned()),
                )
            }
            Input::Unreadable(unreadable) => {
                let data = serde_json::json!({
                    "problem": unreadable.problem,
                    "subject": unreadable.subject_text,
                    "source": unreadable.source,
                    "id": unreadable.id,
                });
                let id = unreadable
                    .id
                    .map_or_else(|| id_of_sequence(message.sequence), |id| id.0);
                self.id.push(id);
                self.agent_id.push(
                    unreadable
                        .subject
                        .and_then(|subject| subject.agent())
                        .map(|agent| agent.0),
                );
                self.subject_id.push(None);
                self.r#type.push(None);
                self.causation_id.push(None);
                (
                    unreadable.subject,
                    Some(jsonb::storable(&data.to_string()).into_owned()),
                )
            }
        };
        let mut name = match input {
            Input::Event(recorded) => event_type(&recorded.subject),
            Input::Unreadable(_) => "unreadable".to_owned(),
        };
        if void.is_some() {
            name.push_str("_void");
        }
        let bytes = ROW_BYTES + data.as_ref().map_or(0, String::len);
        self.event_type.push(name);
        self.event_data.push(data);
        self.swarm_id.push(
            subject
                .and_then(|subject| subject.place())
                .map_or(Uuid::nil(), |place| place.swarm.0),
        );
        self.organization_id
            .push(subject.and_then(|subject| subject.org()).map(|org| org.0));
        self.created_at.push(
            Timestamp::from_micros(message.time_micros)
                .to_chrono()
                .unwrap_or_default(),
        );
        self.seq
            .push(i64::try_from(message.sequence).unwrap_or(i64::MAX));
        self.void.push(void.is_some());
        self.void_reason.push(void.map(str::to_owned));
        bytes
    }
}

/// What a row takes beside its data, roughly.
const ROW_BYTES: usize = 200;

/// `aggregate_verb`, with the PRD's names where they differ.
pub(crate) fn event_type(subject: &Subject) -> String {
    match subject {
        Subject::Swarm(_, SwarmVerb::TopologyChanged) => return "topology_changed".to_owned(),
        Subject::Swarm(_, SwarmVerb::LeaderElected) => return "leader_election".to_owned(),
        _ => {}
    }
    // The verbs of its other names are the log's own: agent_joined, agent_left, agent_failed, task_assigned,
    // task_completed, task_failed.
    let stem = type_stem(subject);
    stem.strip_prefix("swarm.")
        .unwrap_or(stem)
        .replace('.', "_")
}

/// `data` as it came, not as it was understood: what a later version adds is in the table too.
fn data(payload: &[u8]) -> Option<&RawValue> {
    #[derive(Deserialize)]
    struct Wire<'a> {
        #[serde(borrow)]
        data: Option<&'a RawValue>,
    }
    serde_json::from_slice::<Wire<'_>>(payload).ok()?.data
}

/// The id of the row of a message that has none.
fn id_of_sequence(sequence: u64) -> Uuid {
    Uuid::new_v5(&UNREADABLE_NAMESPACE, &sequence.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_events::{
        OrgId, Place, SwarmId,
        subject::{AgentVerb, CommandVerb, TaskVerb},
    };

    #[test]
    fn types_are_aggregate_and_verb() {
        let place = Place::new(OrgId(Uuid::from_u128(1)), SwarmId(Uuid::from_u128(2)));
        let agent = swarm_events::AgentId(Uuid::from_u128(3));
        let names = [
            (Subject::Swarm(place, SwarmVerb::Created), "swarm_created"),
            (
                Subject::Agent(place, AgentVerb::Joined, agent),
                "agent_joined",
            ),
            (
                Subject::Task(place, TaskVerb::AttemptFailed, Some(agent)),
                "task_attempt_failed",
            ),
            (
                Subject::Command(place, CommandVerb::RemoveAgent),
                "cmd_remove_agent",
            ),
            (
                Subject::Swarm(place, SwarmVerb::TopologyChanged),
                "topology_changed",
            ),
            (
                Subject::Swarm(place, SwarmVerb::TopologyPlanned),
                "swarm_topology_planned",
            ),
            (
                Subject::Swarm(place, SwarmVerb::LeaderElected),
                "leader_election",
            ),
        ];
        for (subject, name) in names {
            assert_eq!(event_type(&subject), name);
        }
    }

    #[test]
    fn every_message_has_a_whole_row() {
        let message = StoredMessage {
            sequence: 7,
            time_micros: 1_704_067_200_000_001,
            subject: "swarm.evt.nonsense".into(),
            payload: "{\"source\":\"a\\u0000b\"}".into(),
            message_id: None,
        };
        let time = Timestamp::from_micros(message.time_micros);
        let input = swarm_events::read(7, time, &message.subject, &message.payload);
        let mut rows = Events::default();
        rows.message(&message, &input, Some("why"));
        rows.assert_whole();
        assert_eq!(
            (rows.id[0], rows.seq[0], rows.swarm_id[0]),
            (id_of_sequence(7), 7, Uuid::nil())
        );
        assert_eq!(
            (rows.event_type[0].as_str(), rows.void_reason[0].as_deref()),
            ("unreadable_void", Some("why"))
        );
        let data = rows.event_data[0].as_deref().unwrap_or_default();
        assert!(data.contains("a\u{FFFD}b"), "{data}");
    }
}
