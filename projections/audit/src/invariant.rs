//! The registry: every promise by a name that does not change.

use std::fmt;

/// What can judge a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judge {
    /// The log alone, by [`crate::Checker`].
    Log,
    /// Who has several folds at hand: the simulation.
    Folds,
    /// Who has the tables at hand: `swarm audit --read-model`.
    Tables,
}

macro_rules! invariants {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $judge:ident, $design:literal, $meaning:literal;)+) => {
        /// A promise.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Invariant { $(#[doc = $meaning] $variant),+ }
        impl Invariant {
            /// All of them, in the order in which a report lists them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// Its name: stable, in kebab-case.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
            /// What it promises, in one line.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning),+ }
            }
            /// The part of the design that it stands for.
            pub const fn design(self) -> &'static str {
                match self { $(Self::$variant => $design),+ }
            }
            /// What it can be judged by.
            pub const fn judge(self) -> Judge {
                match self { $(Self::$variant => Judge::$judge),+ }
            }
        }
    };
}

invariants! {
    OneTerminal = "one-terminal-state", Log, "tasks: finish",
        "A task has one valid end in each generation, and nothing is decided on it after that.";
    EveryTaskEnds = "every-task-ends", Log, "promise 1",
        "Every accepted task ends (judged of a log that has come to rest).";
    ResultOfStandingAssignment = "result-of-standing-assignment", Log, "tasks: finish",
        "A result counts only under an assignment that stands: the distributor has counted and answered no other.";
    OneStandingAssignment = "one-standing-assignment", Log, "deciding: order",
        "No task is assigned while an assignment of it stands.";
    SlotsKept = "slots-kept", Log, "tasks: bounded queues of agents",
        "No agent holds more than its slots and waiting places.";
    AssignedToTheLiving = "assigned-to-the-living", Log, "deciding: validity",
        "Nothing is assigned to an incarnation that was, at the decision's causeseq, no healthy member.";
    AssignedToTheAble = "assigned-to-the-able", Log, "tasks: assign",
        "An agent that is given a task had all capabilities that it requires.";
    NothingToTheLeaving = "nothing-to-the-leaving", Log, "agents: draining",
        "Nothing is assigned to an agent that, at the decision's causeseq, had been told to go.";
    NothingToTheQuarantined = "nothing-to-the-quarantined", Log, "agents: quarantine",
        "Nothing is assigned to an agent that, at the decision's causeseq, was in quarantine.";
    DeclinesKept = "declines-kept", Log, "tasks: declined",
        "What an agent declined costs no attempt, and does not go back to it while another could take it.";
    DeclinesWait = "declines-wait", Log, "tasks: declined",
        "What was declined goes back to who declined it only after a wait, even if there is no other.";
    PriorityOrder = "priority-order", Log, "tasks: priority",
        "No queued task that the agent could take, and that nothing was under way on, comes before the one that it is given.";
    AlgorithmInForce = "algorithm-in-force", Log, "tasks: algorithms",
        "An assignment goes by the algorithm that was in force at its causeseq.";
    NothingWaitsUnderPriorityQueue = "nothing-waits-under-priority-queue", Log, "tasks: algorithms",
        "Under priority_queue a task is given to a free slot only.";
    CircleKept = "circle-kept", Log, "tasks: algorithms",
        "Under round_robin no agent gets another task while one that could take it, and has a place, had its last before.";
    AffinityTold = "affinity-told", Log, "tasks: algorithms",
        "Under affinity a hit goes to the agent of the task's key, and a key is new only if it had no agent able to take it.";
    StealsFair = "steals-fair", Log, "tasks: stealing",
        "A steal takes, without force, what waited 50 ms at an agent without a free slot, for one with a free slot that can take it, three times at the most.";
    TimeoutsDue = "timeouts-due", Log, "tasks: timeouts",
        "What is said to have waited too long, or to make no progress, had passed its limit by the log's time.";
    QueueLimitsKept = "queue-limits-kept", Log, "tasks: timeouts",
        "What has waited past its limit is decided on before anything is assigned.";
    FailurePaths = "failure-paths", Log, "tasks: dependencies",
        "The path of a failure leads along dependencies from a task that failed by itself.";
    GraphsCalledOff = "graphs-called-off", Log, "tasks: cancellation",
        "No task of a graph that was called off is assigned or retried in that generation, and all of them end.";
    DiscardedStays = "discarded-stays", Log, "tasks: dead letters",
        "Only a dead letter is put away, and it is not retried after that.";
    NoStartAfterWithdrawal = "no-start-after-withdrawal", Log, "tasks: start",
        "No start of an assignment is stored after its withdrawal.";
    OneStart = "one-start-per-assignment", Log, "tasks: start",
        "An agent starts an assignment once.";
    DependenciesRespected = "dependencies-respected", Log, "tasks: dependencies",
        "No task is assigned before, at the decision's causeseq, what it depends on had ended as it asks.";
    GraphsDecided = "graphs-decided", Log, "tasks: dependencies",
        "A graph is decided on once, accepted only when all its parts had been met, and not left undecided.";
    EpochsRise = "epochs-rise", Log, "deciding: partitions and replicas",
        "Each claim follows the one that it names, and no decision is stored under another claim than the last.";
    OrdinalsRise = "ordinals-rise", Log, "deciding: validity",
        "Within an epoch an ordinal stands for one decision, under the id that derives from it.";
    OneOwnerPerEpoch = "one-owner-per-epoch", Log, "deciding: partitions and replicas",
        "Every decision under an epoch is by the instance that claimed it.";
    CommandsAnswered = "commands-answered", Log, "deciding: open marks",
        "Every command is answered by an event that names it (judged of a log that has come to rest).";
    CommandsAnsweredOnce = "commands-answered-once", Log, "deciding: open marks",
        "A command is refused or carried out, once, however often it was sent.";
    SpawnsRise = "spawns-rise", Log, "agent host",
        "Each request for a process of an agent is numbered one above the last.";
    OneProcessWanted = "one-process-wanted", Log, "agent host",
        "No process is asked for while the one before is asked for, or in the hands of a host that is not lost.";
    OnlyTheWantedStart = "only-the-wanted-start", Log, "agent host",
        "A process is asked for only of an agent that was added, and was not told to go, given up or ended by its policy.";
    LaunchedByTheClaimant = "launched-by-the-claimant", Log, "agent host",
        "A process is started only by the host whose claim on its request was met first while it held.";
    RestartsByPolicy = "restarts-by-policy", Log, "agent host",
        "A process that ended is asked for again as its policy says: not before its wait is over, nor beyond the limit of crashes.";
    WantedAgentsRun = "wanted-agents-run", Log, "agent host",
        "An agent that is wanted has a process that joined, if a host takes it (judged of a log that has come to rest).";
    RemovalsHaveCauses = "removals-have-causes", Log, "health",
        "An incarnation is taken out for a verdict on it, by order, past its grace, or with its swarm.";
    ExitsJudged = "exits-judged", Log, "health",
        "A verdict by the end of a process rests on its host's report, and nobody waits for a silence once that is there.";
    GraceKept = "grace-kept", Log, "agents: draining",
        "An agent that was told to go is gone when its grace is over (judged of a log that has come to rest).";
    QuarantinesHaveFigures = "quarantines-have-figures", Log, "agents: quarantine",
        "A quarantine rests on a figure that the log holds, at or above the limit that was in force.";
    QuarantinesEnd = "quarantines-end", Log, "agents: quarantine",
        "A quarantine until a time ends then, and not before.";
    ScalesAddUp = "scales-add-up", Log, "agents: scaling",
        "A scaling adds or takes out as many agents as it says, within the swarm's limits.";
    MinAgentsKept = "min-agents-kept", Log, "agents: scaling",
        "Agents are added while there are fewer than the least number, and not beyond it.";
    OneLeader = "one-leader", Log, "topologies: roles and leader",
        "A swarm elects a leader from its members, and another one only when the one before is no member any more.";
    SeatsFollowTheRule = "seats-follow-the-rule", Log, "topologies",
        "Every member has a seat such as its topology knows, nobody else has one, and a changed topology begins with all seats given.";
    RoutesByTopology = "routes-by-topology", Log, "topologies",
        "A task goes to an agent whose seat, at the decision's causeseq, allowed it, and is taken over only from one that it may be taken from.";
    RingOrder = "ring-order", Log, "topologies: ring",
        "In a ring tasks go in the order of submission, each in a turn of its own, to the next in the circle once the turn before is over.";
    NoTaskLostByAChange = "no-task-lost-by-a-change", Log, "topologies: live change",
        "What a topology takes away had not started, goes back to the queue, and was at an agent that may not have it any more.";
    PartsEndOnce = "parts-end-once", Log, "topologies: hierarchical",
        "A task that was split goes on when all its parts have completed, and none of them once it has ended or another one failed.";
    HandedBackOnce = "handed-back-once", Log, "topologies: other swarms",
        "What another swarm is to do is assigned by nobody here, handed over once in a generation, and ends by what it came to there.";
    QuestionsEndOnce = "questions-end-once", Log, "agents that talk: questions",
        "A question that an agent asked ends once: with the first answer, or by itself when its time is over or who asked is gone.";
    CutOffsWellFormed = "cut-offs-well-formed", Log, "deciding: partitions and replicas",
        "An observation that a replica was cut off begins before it ends, is not from the future, and does not go back.";
    FoldsAgree = "folds-agree", Folds, "deciding: order",
        "Owner, standby, snapshot plus tail and cold fold have the same state at every sequence.";
    NoProcessLeftBehind = "no-process-left-behind", Folds, "agent host",
        "Once nothing goes wrong any more, no process runs of an older request, nor one that nobody wants.";
    OwnershipSettles = "ownership-settles", Folds, "deciding: partitions and replicas",
        "Once nothing goes wrong any more, no partition changes its owner.";
    ReadModelEqualsFold = "read-model-equals-fold", Tables, "read models",
        "The tables hold, at their committed sequence, exactly the rows that the log gives.";
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// Where in the log.
    pub sequence: u64,
    /// What.
    pub detail: String,
}
impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} at {}: {}",
            self.invariant, self.sequence, self.detail
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_in_kebab_case() {
        let names: BTreeSet<_> = Invariant::ALL.iter().map(|i| i.name()).collect();
        assert_eq!(names.len(), Invariant::ALL.len());
        for invariant in Invariant::ALL {
            let name = invariant.name();
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'),
                "{name}"
            );
            assert!(invariant.meaning().ends_with('.'), "{name}");
        }
    }
}
