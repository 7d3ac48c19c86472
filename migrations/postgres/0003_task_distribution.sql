-- What full task distribution shows: every assignment of every task, why it failed and by which path, what waits at each
-- agent, the last figures of each swarm, and lists by each filter without reading a whole swarm.

-- Rows made by older rules are made anew in any case; without them a new column needs no value from here.
TRUNCATE swarm_agents, swarm_tasks;
DELETE FROM projection_checkpoint;

ALTER TABLE organizations ADD COLUMN queue_limit BIGINT; -- tasks that may wait in all its swarms; NULL: no limit

ALTER TABLE swarm_agents RENAME COLUMN waiting TO waiting_limit;
ALTER TABLE swarm_agents
  ADD COLUMN running       INTEGER NOT NULL, -- tasks started at it
  ADD COLUMN queue_depth   INTEGER NOT NULL, -- tasks assigned to it and not started
  ADD COLUMN waiting_since TIMESTAMPTZ;                -- when the oldest of these was assigned

-- What no setting of the swarm moves; deadlines that one does are reckoned when they are read: changing it touches no task,
-- and a row must not depend on when it was written. `timeout_at` is the run limit of the running attempt.
--
-- `stage` is the status without the step from assigned to running. It is in an index, so each of its changes writes to all
-- indexes; what is assigned or running is little (slots and waiting places), and starts need not pay for a finer index.
ALTER TABLE swarm_tasks
  ADD COLUMN failure_path        UUID[] NOT NULL, -- first cause … because_of
  ADD COLUMN discarded           BOOLEAN NOT NULL,
  ADD COLUMN queue_timeout_ms    BIGINT,      -- its own limits; NULL: the swarm's, 0: none
  ADD COLUMN progress_timeout_ms BIGINT,
  ADD COLUMN waits_from          TIMESTAMPTZ, -- from when its queue limit counts, while it waits for its start
  ADD COLUMN progressed_at       TIMESTAMPTZ, -- last progress of the running attempt
  ADD COLUMN steals              INTEGER NOT NULL,
  ADD COLUMN stage VARCHAR(20) NOT NULL
    GENERATED ALWAYS AS (CASE WHEN status IN ('assigned', 'running') THEN 'held' ELSE status END) STORED;

-- The key in this order serves looks by id alone, too: one index less to write.
DROP INDEX swarm_tasks_by_id;
ALTER TABLE swarm_tasks DROP CONSTRAINT swarm_tasks_pkey, ADD PRIMARY KEY (organization_id, id, swarm_id);

-- For each filter of the list the rows in the list's order. Without statistics all indexes that begin with the swarm look
-- alike, and a wrong one reads the whole swarm. So each has a predicate that always holds (priorities are 1 to 10), and the
-- query spells out that of the index it is to take. Nullable columns are indexed where they are set: most tasks have
-- neither graph nor parent.
DROP INDEX swarm_tasks_by_submission;
CREATE INDEX swarm_tasks_by_submission ON swarm_tasks (organization_id, swarm_id, submitted_seq) WHERE priority <> 0;
CREATE INDEX swarm_tasks_by_stage ON swarm_tasks (organization_id, swarm_id, stage, submitted_seq) WHERE priority <> -1;
CREATE INDEX swarm_tasks_by_type ON swarm_tasks (organization_id, swarm_id, task_type, submitted_seq) WHERE priority <> -2;
CREATE INDEX swarm_tasks_by_agent ON swarm_tasks (organization_id, swarm_id, assigned_agent_id, submitted_seq)
  WHERE assigned_agent_id IS NOT NULL;
CREATE INDEX swarm_tasks_by_graph ON swarm_tasks (organization_id, swarm_id, graph_id, submitted_seq)
  WHERE graph_id IS NOT NULL;
CREATE INDEX swarm_tasks_by_parent ON swarm_tasks (organization_id, swarm_id, parent_task_id, submitted_seq)
  WHERE parent_task_id IS NOT NULL;

-- A row for each valid assignment. `assignment` is its stream sequence, which names it; within a task they rise with the
-- generation. It is an attempt once it has started: `attempt` is the number that it has from then on, so that what was
-- withdrawn unstarted (started_at is NULL) shares its number with the assignment after it, and counts for nothing.
CREATE TABLE task_attempts (
  organization_id UUID NOT NULL,
  swarm_id        UUID NOT NULL,
  task_id         UUID NOT NULL,
  assignment      BIGINT NOT NULL,
  generation      INTEGER NOT NULL,
  attempt         INTEGER NOT NULL,
  agent_id        UUID NOT NULL,
  incarnation     BIGINT NOT NULL,
  algorithm       VARCHAR(30) NOT NULL,
  affinity        VARCHAR(10),          -- hit, miss, new; NULL under other algorithms
  stolen_from     UUID,
  assigned_at     TIMESTAMPTZ NOT NULL,
  started_at      TIMESTAMPTZ,
  ended_at        TIMESTAMPTZ,
  outcome         VARCHAR(30),          -- completed, failed, withdrawn:<reason>; NULL while it waits or runs
  error           TEXT,
  retryable       BOOLEAN,              -- of a failed one, by its agent's word
  PRIMARY KEY (organization_id, swarm_id, task_id, assignment)
) WITH (fillfactor = 80);

-- The last figures of each swarm, as the distributor measured them.
CREATE TABLE swarm_figures (
  organization_id UUID NOT NULL,
  swarm_id        UUID NOT NULL,
  pending         BIGINT NOT NULL,
  queued          BIGINT NOT NULL,
  assigned        BIGINT NOT NULL,
  running         BIGINT NOT NULL,
  completed       BIGINT NOT NULL,
  failed          BIGINT NOT NULL,
  cancelled       BIGINT NOT NULL,
  oldest_wait_ms  BIGINT NOT NULL,
  unmet           BIGINT NOT NULL,
  affinity_hits   BIGINT NOT NULL,
  affinity_misses BIGINT NOT NULL,
  steals          BIGINT NOT NULL,
  retries         BIGINT NOT NULL,
  measured_at     TIMESTAMPTZ NOT NULL,
  last_seq        BIGINT NOT NULL,
  PRIMARY KEY (organization_id, swarm_id)
) WITH (fillfactor = 50);
