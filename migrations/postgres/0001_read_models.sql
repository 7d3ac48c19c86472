-- The read models: what the projector makes of the log, and nothing else. A row holds nothing that does not follow from
-- the log (no DEFAULT now(), no random ids), so that dropping it all and reading the log again gives the same tables.
--
-- There are no foreign keys and no CHECKs: the log decides what is, a fold that disagrees with a constraint would stop the
-- projector for ever, and a check of each of 20,000 rows a second is paid for nothing. Everything is keyed by organization
-- and swarm, since clients choose ids: a repeated id of a stranger touches no one else's row.
--
-- Indexes of lists are partial, with a predicate that always holds and that only list queries spell out: no other query can
-- take them. While a table has no statistics, an index on (organization_id, swarm_id, …) looks as good as the primary key,
-- and taking it for a single row reads the whole swarm (seen: 280 ms instead of 1 for 100 rows).
--
-- `last_seq` is the stream sequence of the last event that changed the row; `created_seq` the one that made it.

CREATE TABLE organizations (
  id          UUID PRIMARY KEY,
  name        TEXT NOT NULL,
  created_at  TIMESTAMPTZ NOT NULL,
  created_seq BIGINT NOT NULL
);

CREATE TABLE users (
  id              UUID NOT NULL,
  organization_id UUID NOT NULL,
  name            TEXT NOT NULL,
  role            VARCHAR(20) NOT NULL, -- admin, operator, developer, analyst, user
  created_at      TIMESTAMPTZ NOT NULL,
  created_seq     BIGINT NOT NULL,
  PRIMARY KEY (organization_id, id)
);

-- The key itself is nowhere: only its SHA-256.
CREATE TABLE api_keys (
  id              UUID NOT NULL,
  organization_id UUID NOT NULL,
  user_id         UUID NOT NULL,
  name            TEXT NOT NULL,
  role            VARCHAR(20) NOT NULL,
  sha256          TEXT NOT NULL,
  created_at      TIMESTAMPTZ NOT NULL,
  revoked_at      TIMESTAMPTZ,
  created_seq     BIGINT NOT NULL,
  PRIMARY KEY (organization_id, id)
);

CREATE TABLE swarms (
  id                     UUID NOT NULL,
  organization_id        UUID NOT NULL,
  name                   VARCHAR(100) NOT NULL,
  description            TEXT,
  topology               VARCHAR(30) NOT NULL, -- star, mesh, hierarchical, ring
  topology_configuration JSONB NOT NULL,
  configuration          JSONB NOT NULL,
  status                 VARCHAR(20) NOT NULL, -- inactive, starting, active, degraded, stopping
  leader_agent_id        UUID,
  agent_count            INTEGER NOT NULL,
  partition              SMALLINT NOT NULL,
  created_by             UUID,
  created_at             TIMESTAMPTZ NOT NULL,
  updated_at             TIMESTAMPTZ NOT NULL,
  deleted_at             TIMESTAMPTZ,
  created_seq            BIGINT NOT NULL,
  last_seq               BIGINT NOT NULL,
  PRIMARY KEY (organization_id, id)
);
CREATE INDEX swarms_by_creation ON swarms (organization_id, created_seq) WHERE created_seq >= 0;

CREATE TABLE swarm_agents (
  id                UUID NOT NULL,
  organization_id   UUID NOT NULL,
  swarm_id          UUID NOT NULL,
  agent_type        VARCHAR(50) NOT NULL,
  agent_name        VARCHAR(100),
  capabilities      TEXT[] NOT NULL,
  role              VARCHAR(30) NOT NULL, -- leader, coordinator, worker
  status            VARCHAR(20) NOT NULL, -- pending, starting, idle, busy, unhealthy, stopped
  current_task_id   UUID,
  tasks_completed   INTEGER NOT NULL,
  tasks_failed      INTEGER NOT NULL,
  last_heartbeat_at TIMESTAMPTZ,
  resource_usage    JSONB NOT NULL,
  metadata          JSONB NOT NULL,
  started_at        TIMESTAMPTZ,
  stopped_at        TIMESTAMPTZ,
  created_at        TIMESTAMPTZ NOT NULL,
  incarnation       BIGINT NOT NULL,
  instance_id       UUID NOT NULL,
  slots             INTEGER NOT NULL,
  waiting           INTEGER NOT NULL,
  stop_reason       TEXT,
  created_seq       BIGINT NOT NULL,
  last_seq          BIGINT NOT NULL,
  PRIMARY KEY (organization_id, swarm_id, id)
);
CREATE INDEX swarm_agents_by_creation ON swarm_agents (organization_id, swarm_id, created_seq) WHERE created_seq >= 0;

-- fillfactor: a task's row is rewritten about four times in its life; room on its page keeps the rewrites from touching
-- the indexes (heap-only tuples).
CREATE TABLE swarm_tasks (
  id                    UUID NOT NULL,
  organization_id       UUID NOT NULL,
  swarm_id              UUID NOT NULL,
  parent_task_id        UUID,
  task_type             VARCHAR(50) NOT NULL,
  payload               JSONB NOT NULL,
  priority              INTEGER NOT NULL,
  required_capabilities TEXT[] NOT NULL,
  assigned_agent_id     UUID,
  status                VARCHAR(20) NOT NULL, -- pending, queued, assigned, running, completed, failed, cancelled
  attempt_count         INTEGER NOT NULL,
  max_attempts          INTEGER NOT NULL,
  result                JSONB,
  error_message         TEXT,
  queued_at             TIMESTAMPTZ,
  started_at            TIMESTAMPTZ,
  completed_at          TIMESTAMPTZ, -- when it ended, whichever way
  timeout_at            TIMESTAMPTZ,
  created_at            TIMESTAMPTZ NOT NULL,
  key                   TEXT,
  graph_id              UUID,
  affinity_key          TEXT,
  timeout_ms            BIGINT,
  body_sha256           TEXT,
  accepted              BOOLEAN NOT NULL, -- false: a part of a graph that is not (or never was) accepted
  rejected              BOOLEAN NOT NULL, -- it failed without ever being queued
  dead_lettered         BOOLEAN NOT NULL,
  because_of            UUID,
  generation            INTEGER NOT NULL,
  progress_percent      SMALLINT,
  progress_message      TEXT,
  submitted_seq         BIGINT NOT NULL,
  last_seq              BIGINT NOT NULL,
  PRIMARY KEY (organization_id, swarm_id, id)
) WITH (fillfactor = 70);
CREATE INDEX swarm_tasks_by_id ON swarm_tasks (organization_id, id);
CREATE INDEX swarm_tasks_by_submission ON swarm_tasks (organization_id, swarm_id, submitted_seq) WHERE submitted_seq >= 0;
-- Dead letters are few and looked for often. No index on status: it would rewrite an index entry with every step of every task.
CREATE INDEX swarm_tasks_dead_lettered ON swarm_tasks (organization_id, swarm_id, submitted_seq) WHERE dead_lettered;

CREATE TABLE task_dependencies (
  organization_id    UUID NOT NULL,
  swarm_id           UUID NOT NULL,
  task_id            UUID NOT NULL,
  depends_on_task_id UUID NOT NULL,
  dependency_type    VARCHAR(20) NOT NULL, -- completion, success, data
  alias              TEXT,
  PRIMARY KEY (organization_id, swarm_id, task_id, depends_on_task_id)
);
CREATE INDEX task_dependencies_reverse ON task_dependencies (depends_on_task_id, swarm_id, organization_id);

-- Up to where the log is in the tables. Written in the transaction that writes the rows.
CREATE TABLE projection_checkpoint (
  name           TEXT PRIMARY KEY,
  sequence       BIGINT NOT NULL,      -- last stream sequence that is in the tables
  stream_created TIMESTAMPTZ NOT NULL, -- creation time of the stream: names its incarnation
  log_time       TIMESTAMPTZ NOT NULL, -- store time of that sequence's message
  fold_version   INTEGER NOT NULL      -- version of the rules by which rows are made; another one is a rebuild
);
