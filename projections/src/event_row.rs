//! A message of the stream as a line of `swarm_events`, in the text format of COPY.

use std::fmt::Write;

use serde::Deserialize;
use serde_json::value::RawValue;
use swarm_events::{Body, Input, Subject, Timestamp, body::type_stem};
use swarm_log::StoredMessage;
use uuid::Uuid;

use crate::jsonb;

/// What the lines hold, in their order.
pub(crate) const COPY: &str = "COPY swarm_events (id, swarm_id, agent_id, event_type, event_data, created_at, seq, \
     organization_id, subject_id, type, causation_id, void, void_reason) FROM STDIN";

/// Namespace of the ids of messages that have none (RFC 9562 version 5).
const UNREADABLE_NAMESPACE: Uuid = Uuid::from_u128(0x2d3c_6a5e_0f0b_5b0c_8a41_9d0f_6c55_77e2);

/// Adds the line of a message. `void`: the precondition that failed.
pub(crate) fn push(lines: &mut String, message: &StoredMessage, input: &Input, void: Option<&str>) {
    let row = match input {
        Input::Event(recorded) => {
            let event = &recorded.event;
            let subject = &recorded.subject;
            let about = (!matches!(subject, Subject::Control(..))).then_some(event.about);
            let agent = match &event.body {
                Body::Join(_) | Body::Leave(_) | Body::RemoveAgent(_) => Some(event.about),
                _ => subject.agent().map(|agent| agent.0),
            };
            Row {
                id: event.id.0,
                subject: Some(*subject),
                agent,
                event_type: event_type(subject),
                about,
                kind: Some(event.body.type_name()),
                causation: event.causation,
                data: data(&message.payload).map(|raw| raw.get().to_owned()),
            }
        }
        Input::Unreadable(unreadable) => {
            let data = serde_json::json!({
                "problem": unreadable.problem,
                "subject": unreadable.subject_text,
                "source": unreadable.source,
                "id": unreadable.id,
            });
            Row {
                id: unreadable
                    .id
                    .map_or_else(|| id_of_sequence(message.sequence), |id| id.0),
                subject: unreadable.subject,
                agent: unreadable
                    .subject
                    .and_then(|subject| subject.agent())
                    .map(|agent| agent.0),
                event_type: "unreadable".to_owned(),
                about: None,
                kind: None,
                causation: None,
                data: Some(data.to_string()),
            }
        }
    };
    row.push(lines, message, void);
}

struct Row {
    id: Uuid,
    subject: Option<Subject>,
    agent: Option<Uuid>,
    event_type: String,
    about: Option<Uuid>,
    kind: Option<&'static str>,
    causation: Option<Uuid>,
    data: Option<String>,
}
impl Row {
    fn push(&self, lines: &mut String, message: &StoredMessage, void: Option<&str>) {
        let place = self.subject.and_then(|subject| subject.place());
        let swarm = place.map_or(Uuid::nil(), |place| place.swarm.0);
        let org = self
            .subject
            .and_then(|subject| subject.org())
            .map(|org| org.0);
        let suffix = if void.is_some() { "_void" } else { "" };
        let time = Timestamp::from_micros(message.time_micros);
        // Writing to a String cannot fail.
        let _ = write!(lines, "{}\t{swarm}\t", self.id);
        optional(lines, self.agent);
        let _ = write!(lines, "{}{suffix}\t", self.event_type);
        match &self.data {
            Some(data) => escaped(lines, &jsonb::storable(data)),
            None => lines.push_str("\\N"),
        }
        let _ = write!(lines, "\t{time}\t{}\t", message.sequence);
        optional(lines, org);
        optional(lines, self.about);
        optional(lines, self.kind);
        optional(lines, self.causation);
        let _ = write!(lines, "{}\t", if void.is_some() { 't' } else { 'f' });
        escaped(lines, void.unwrap_or_default());
        if void.is_none() {
            lines.push_str("\\N");
        }
        lines.push('\n');
    }
}

fn optional(lines: &mut String, value: Option<impl std::fmt::Display>) {
    let _ = match value {
        Some(value) => write!(lines, "{value}\t"),
        None => write!(lines, "\\N\t"),
    };
}

/// COPY's own escapes.
fn escaped(lines: &mut String, text: &str) {
    let mut from = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'\\' => "\\\\",
            b'\t' => "\\t",
            b'\n' => "\\n",
            b'\r' => "\\r",
            _ => continue,
        };
        lines.push_str(&text[from..at]);
        lines.push_str(escape);
        from = at + 1;
    }
    lines.push_str(&text[from..]);
}

/// `aggregate_verb`.
pub(crate) fn event_type(subject: &Subject) -> String {
    // The verbs of the PRD's names are the log's own: agent_joined, agent_left, agent_failed, task_assigned,
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
        subject::{AgentVerb, CommandVerb, SwarmVerb, TaskVerb},
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
        ];
        for (subject, name) in names {
            assert_eq!(event_type(&subject), name);
        }
    }

    #[test]
    fn a_line_has_all_columns_whatever_is_in_it() {
        let message = StoredMessage {
            sequence: 7,
            time_micros: 1_704_067_200_000_001,
            subject: "swarm.evt.nonsense".into(),
            payload: "{\"source\":\"a\\tb\\\\\\n\"}".into(),
            message_id: None,
        };
        let time = Timestamp::from_micros(message.time_micros);
        let input = swarm_events::read(7, time, &message.subject, &message.payload);
        let mut lines = String::new();
        push(&mut lines, &message, &input, Some("why"));
        assert_eq!(lines.matches('\t').count(), 12, "{lines}");
        assert_eq!(lines.matches('\n').count(), 1, "{lines}");
        assert!(
            lines.contains("2024-01-01T00:00:00.000001Z\t7\t"),
            "{lines}"
        );
        assert!(lines.starts_with(&id_of_sequence(7).to_string()), "{lines}");
        assert!(lines.ends_with("\tt\twhy\n"), "{lines}");
    }
}
