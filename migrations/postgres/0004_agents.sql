-- Agents that are wanted before a process of them has joined, their processes on hosts, quarantine, and error rates by type.

-- Rows made by older rules are made anew in any case; without them a new column needs no value from here.
TRUNCATE swarms, swarm_agents, swarm_tasks;
DELETE FROM projection_checkpoint;

-- Agents that belong to it or are to, without those that are to go: what `scale` counts from.
ALTER TABLE swarms ADD COLUMN desired_agents INTEGER NOT NULL;

-- What hosts and the order to add it say is NULL for an agent that was started by hand. The whole row is written only when
-- the agent itself changes; what its tasks move (status to sample above all) is updated in place, and room on its page keeps
-- that from touching the indexes.
ALTER TABLE swarm_agents ALTER COLUMN instance_id DROP NOT NULL; -- NULL: none has joined
ALTER TABLE swarm_agents
  ADD COLUMN status_reason     TEXT,             -- why the status is what it is
  ADD COLUMN adapter           VARCHAR(10),      -- exec, process, webhook
  ADD COLUMN spec              JSONB,            -- as it was added, with what changed since
  ADD COLUMN restart_policy    JSONB,
  ADD COLUMN spawn             BIGINT,           -- number of the last request for a process
  ADD COLUMN host              JSONB,            -- {instance, name}: who has its process
  ADD COLUMN pid               BIGINT,
  ADD COLUMN limited_by        VARCHAR(10),      -- how its limits are held: cgroup, rlimit, nothing
  ADD COLUMN unlimited         TEXT[] NOT NULL,  -- limits that could not be set there
  ADD COLUMN restarts          BIGINT NOT NULL,  -- requests after the first
  ADD COLUMN crashes           INTEGER NOT NULL, -- in a row
  ADD COLUMN restart_due       TIMESTAMPTZ,      -- when the next process is requested, if that must wait
  ADD COLUMN last_exit         JSONB,            -- {at, code, signal, out_of_memory, error, uptime_ms, last_output}
  ADD COLUMN draining          JSONB,            -- {since, grace_ms, due, then, reason}; NULL: it was not told to go
  ADD COLUMN quarantine        JSONB NOT NULL,   -- [{cause, since, until, figures}]
  ADD COLUMN quarantined_since TIMESTAMPTZ;      -- without a break
ALTER TABLE swarm_agents SET (fillfactor = 50);

-- One event can make a thousand agents: the sequence alone is no order.
DROP INDEX swarm_agents_by_creation;
CREATE INDEX swarm_agents_by_creation ON swarm_agents (organization_id, swarm_id, created_seq, id) WHERE created_seq >= 0;

ALTER TABLE swarm_tasks ADD COLUMN declines INTEGER NOT NULL; -- how often an agent has given it back, in this generation

-- Attempts by task type and by required capability over the swarm's life, as the distributor last measured them.
CREATE TABLE swarm_outcomes (
  organization_id UUID NOT NULL,
  swarm_id        UUID NOT NULL,
  dimension       VARCHAR(20) NOT NULL, -- task_type, capability
  name            TEXT NOT NULL,
  completed       BIGINT NOT NULL,
  failed          BIGINT NOT NULL,
  measured_at     TIMESTAMPTZ NOT NULL,
  last_seq        BIGINT NOT NULL,
  PRIMARY KEY (organization_id, swarm_id, dimension, name)
) WITH (fillfactor = 50);
