-- Topologies with their options, who sits where and who leads, templates, questions, and tasks that are split into parts or
-- handed to other swarms.

-- Rows made by older rules are made anew in any case; without them a new column needs no value from here.
TRUNCATE swarms, swarm_agents, swarm_tasks, task_attempts;
DELETE FROM projection_checkpoint;

ALTER TABLE swarms ADD COLUMN topology_generation BIGINT NOT NULL; -- rises with each change of the topology, from 1

-- Its seat in the topology that is in force; all NULL: it has none.
ALTER TABLE swarm_agents
  ADD COLUMN level           INTEGER, -- 0 at the top of a tree and at the hub of a star
  ADD COLUMN parent_agent_id UUID,    -- in a tree
  ADD COLUMN place           BIGINT,  -- in the order in which agents came: the circle of a ring, nearness in a mesh
  ADD COLUMN standby         BOOLEAN, -- it takes the hub's place at once if that is lost
  ADD COLUMN works           BOOLEAN; -- it is given tasks that ask for no role

-- A part of a task that was split has the sequence of the split for its submission: the number of the part tells them apart
-- in lists. `parts` and the two `handed_` columns are those of the present generation.
ALTER TABLE swarm_tasks
  ADD COLUMN required_role     VARCHAR(30),
  ADD COLUMN part              INTEGER,     -- its number among the parts of its parent, from 0; NULL: it is none
  ADD COLUMN parts             INTEGER,     -- into how many it was split; NULL: it was not
  ADD COLUMN hand_to           UUID,        -- the swarm that is to do it
  ADD COLUMN handed_task_id    UUID,        -- its id there, once it is handed over
  ADD COLUMN handed_at         TIMESTAMPTZ,
  ADD COLUMN origin_swarm_id   UUID,        -- the task of another swarm that it is done for
  ADD COLUMN origin_task_id    UUID,
  ADD COLUMN origin_generation INTEGER,
  ADD COLUMN part_order INTEGER NOT NULL GENERATED ALWAYS AS (COALESCE(part, 0)) STORED;

DROP INDEX swarm_tasks_by_submission, swarm_tasks_by_stage, swarm_tasks_by_type, swarm_tasks_by_agent, swarm_tasks_by_graph,
  swarm_tasks_by_parent, swarm_tasks_dead_lettered;
CREATE INDEX swarm_tasks_by_submission ON swarm_tasks (organization_id, swarm_id, submitted_seq, part_order)
  WHERE priority <> 0;
CREATE INDEX swarm_tasks_by_stage ON swarm_tasks (organization_id, swarm_id, stage, submitted_seq, part_order)
  WHERE priority <> -1;
CREATE INDEX swarm_tasks_by_type ON swarm_tasks (organization_id, swarm_id, task_type, submitted_seq, part_order)
  WHERE priority <> -2;
CREATE INDEX swarm_tasks_by_agent ON swarm_tasks (organization_id, swarm_id, assigned_agent_id, submitted_seq, part_order)
  WHERE assigned_agent_id IS NOT NULL;
CREATE INDEX swarm_tasks_by_graph ON swarm_tasks (organization_id, swarm_id, graph_id, submitted_seq, part_order)
  WHERE graph_id IS NOT NULL;
CREATE INDEX swarm_tasks_by_parent ON swarm_tasks (organization_id, swarm_id, parent_task_id, submitted_seq, part_order)
  WHERE parent_task_id IS NOT NULL;
CREATE INDEX swarm_tasks_dead_lettered ON swarm_tasks (organization_id, swarm_id, submitted_seq, part_order)
  WHERE dead_lettered;

-- `outcome` may be `split` too: its agent handed the task on in parts.
ALTER TABLE task_attempts
  ADD COLUMN step VARCHAR(10) NOT NULL, -- work, reduce
  ADD COLUMN path UUID[] NOT NULL,      -- in a tree: by whom it was handed down, from the top
  ADD COLUMN turn BIGINT;               -- in a ring: the number of the token's turn

-- Topologies under a name: the system's own, which every organization has, and those that it saved. Ids derive from
-- organization and name.
CREATE TABLE swarm_topologies (
  id              UUID PRIMARY KEY,
  organization_id UUID, -- NULL: the system's
  name            VARCHAR(50) NOT NULL,
  description     TEXT,
  best_for        TEXT,
  topology_type   VARCHAR(30) NOT NULL, -- star, mesh, hierarchical, ring
  configuration   JSONB NOT NULL,
  is_system       BOOLEAN NOT NULL,
  created_at      TIMESTAMPTZ, -- NULL of the system's: no event made them
  updated_at      TIMESTAMPTZ,
  last_seq        BIGINT NOT NULL
);
CREATE UNIQUE INDEX swarm_topologies_by_name ON swarm_topologies (organization_id, name);

-- What agents asked, and what became of it.
CREATE TABLE swarm_questions (
  id              UUID NOT NULL, -- that of the command that asked
  organization_id UUID NOT NULL,
  swarm_id        UUID NOT NULL,
  agent_id        UUID NOT NULL,
  incarnation     BIGINT NOT NULL,
  assignment      BIGINT,               -- the one that it is about
  task_id         UUID,                 -- whose that was when it was asked
  answerer        VARCHAR(20) NOT NULL, -- anybody, leader, worker, supervisor, coordinator
  question        TEXT NOT NULL,
  choices         JSONB NOT NULL,
  fallback        JSONB,                -- the answer if nobody gives one in time
  status          VARCHAR(20) NOT NULL, -- open, answered, fell_back, unanswered
  answer          JSONB,
  answered_by     VARCHAR(10),          -- person, agent
  answered_by_id  UUID,                 -- of the user or the agent
  reason          TEXT,                 -- why it went unanswered
  asked_at        TIMESTAMPTZ NOT NULL,
  due_at          TIMESTAMPTZ NOT NULL,
  ended_at        TIMESTAMPTZ,
  asked_seq       BIGINT NOT NULL,
  last_seq        BIGINT NOT NULL,
  PRIMARY KEY (organization_id, swarm_id, id)
) WITH (fillfactor = 80);
CREATE INDEX swarm_questions_by_asking ON swarm_questions (organization_id, swarm_id, asked_seq) WHERE asked_seq >= 0;
CREATE INDEX swarm_questions_open ON swarm_questions (organization_id, swarm_id, asked_seq) WHERE status = 'open';
