-- One row for each message of the stream, whatever it is: `seq` is its stream sequence.
--
-- The key is (seq, created_at) and not (id, created_at): clients choose ids and may repeat one, the stream never repeats a
-- sequence. `created_at` is the server's store time and stands in the key since partitions need it. What belongs to no
-- swarm (organizations, control messages, the unreadable) has the swarm id 00000000-0000-0000-0000-000000000000.
--
-- Without TimescaleDB: native range partitions, one for each day, made by the projector when a day's first event comes.
-- timescale/ has the same migration for databases with the extension.
CREATE TABLE swarm_events (
  id              UUID NOT NULL,
  swarm_id        UUID NOT NULL,
  agent_id        UUID,
  event_type      VARCHAR(50) NOT NULL, -- aggregate_verb, with `_void` behind it if it changed nothing
  event_data      JSONB,
  created_at      TIMESTAMPTZ NOT NULL,
  seq             BIGINT NOT NULL,
  organization_id UUID,
  subject_id      UUID,                 -- what it is about: the CloudEvents subject
  type            TEXT,                 -- CloudEvents type with its version; NULL if unreadable
  causation_id    UUID,
  void            BOOLEAN NOT NULL,
  void_reason     TEXT,
  PRIMARY KEY (seq, created_at)
) PARTITION BY RANGE (created_at);
CREATE INDEX swarm_events_by_swarm ON swarm_events (swarm_id, seq);
