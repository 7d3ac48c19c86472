-- One row for each message of the stream, whatever it is: `seq` is its stream sequence.
--
-- The same table as in postgres/, as a hypertable with a chunk for each day. Takes the place of the migration of the same
-- number there.
CREATE EXTENSION IF NOT EXISTS timescaledb;
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
);
SELECT create_hypertable('swarm_events', 'created_at', chunk_time_interval => INTERVAL '1 day', create_default_indexes => FALSE);
CREATE INDEX swarm_events_by_swarm ON swarm_events (swarm_id, seq);
