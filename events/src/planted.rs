//! Known defects that the simulation plants to show that it would find them: a test of the test.
//!
//! Without the feature `planted` every question is answered `false` at compile time, so that a production build holds
//! none of them. With it a defect is in force only on the thread that planted it.

/// A known defect. Each is what a mistake in that place would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// Decisions are appended without the fence of their epoch.
    NoFence,
    /// An agent starts without the check on its last withdrawal.
    NoStartCheck,
    /// A new owner does not look at what the state shows undone.
    RepairSkipped,
    /// A result counts although its assignment does not stand.
    StaleResultAccepted,
    /// The end of a dependency counts twice.
    DependencyResolvedTwice,
    /// An owner applies its decisions when it makes them instead of when it meets them.
    AppliedAtCause,
    /// A decision whose outcome is unknown is sent again without a new claim.
    ResendWithoutClaim,
    /// A decision that is met twice counts twice.
    RepeatedDecisionCounts,
    /// A command that is met twice counts twice.
    RepeatedCommandCounts,
    /// What was under way stays so across a claim.
    PlanKeptAtClaim,
    /// A replica takes another's claim for its own.
    DecidesUnderAnothersClaim,
    /// A withdrawal without force takes away what has started.
    WithdrawsTheStarted,
    /// Nobody wakes the core when a deadline has passed.
    NeverWakes,
    /// A snapshot says that it is further than it is.
    SnapshotAhead,
    /// A projector's checkpoint is not written together with its rows.
    CheckpointApart,
    /// An agent starts what it has started before.
    StartsTwice,
    /// What a newer version wrote is skipped by an older one, which goes on.
    NewerSkipped,
    /// The task that was queued last comes next.
    PriorityIgnored,
    /// An agent is held to have one place more than it has.
    PlacesExceeded,
    /// Nobody's turn is remembered.
    CircleBroken,
    /// What was assigned just now is taken over.
    StealsTooSoon,
    /// A steal takes away what has started.
    StealsWithForce,
    /// Nothing ever waits too long.
    QueueTimeoutNever,
    /// What an agent tells of its progress is not heard.
    ProgressIgnored,
    /// A failure does not tell how it came.
    FailurePathLost,
    /// A graph that was called off goes on.
    CalledOffGoesOn,
    /// What was put away can still be retried.
    DiscardedRetried,
    /// Tasks wait at agents under an algorithm that keeps nothing waiting there.
    WaitsUnderPriorityQueue,
    /// Nobody remembers which agent had the last task of a key.
    HomesForgotten,
    /// An agent in quarantine gets work.
    QuarantinedGetsWork,
    /// An agent that has been told to go gets work.
    DrainingGetsWork,
    /// What an agent declined is handed to it again.
    DeclineGoesBackToSame,
    /// What was declined costs an attempt.
    DeclineCountsAttempt,
    /// What an agent can do stays what it said when it joined.
    UpdateNotHeard,
    /// A host starts a process although another's claim was met first.
    SecondClaimStarts,
    /// The end of an older process counts as that of the current one.
    OldSpawnExitCounts,
    /// A claim holds although its host was lost.
    HostFailedKeepsClaim,
    /// However often a process crashes in a row, it is started again.
    CrashLoopForever,
    /// A process that crashed is started again at once.
    BackoffSkipped,
    /// A process that ended is started again whatever its policy says.
    PolicyIgnored,
    /// An agent that is not wanted any more is started again.
    StoppedRespawns,
    /// An agent that has been told to go is waited for past its grace.
    RemovedStillDrains,
    /// Nobody keeps the least number of agents.
    MinAgentsForgotten,
    /// More agents are added than the answer to a scaling says.
    ScaleAddsTwice,
    /// Health does not hear that a process ended.
    ExitNotJudged,
    /// A verdict on an older incarnation counts for the current one.
    OldIncarnationFailed,
    /// A quarantine is never over.
    QuarantineNeverEnds,
    /// Another leader is elected although the one before is there.
    ElectsAnyway,
    /// Who has gone keeps its seat.
    GoneKeepsSeat,
    /// A topology holds before everybody has a seat in it.
    ChangedTooSoon,
    /// Work goes to agents whose seats give them none.
    SeatsIgnored,
    /// A task that asks for a role goes to whoever is free.
    RoleIgnored,
    /// Parts go to agents that are not below the one that made them.
    WithinIgnored,
    /// Agents take over from others that their topology keeps apart.
    StealsFromStrangers,
    /// In a ring it is the turn of whoever has the least to do, wherever the token was.
    TurnToAnybody,
    /// In a ring the next turn begins while the one before is under way.
    TurnTooSoon,
    /// In a ring the task that was submitted last comes next.
    TurnsOutOfOrder,
    /// A change of the topology takes away what has started.
    ChangeTakesTheStarted,
    /// What a change of the topology takes away is not queued again.
    ChangeLosesTasks,
    /// The end of a part counts twice.
    PartCountsTwice,
    /// The parts of a task go on although one of them has failed.
    PartsOutliveFailure,
    /// What another swarm is to do is done here as well.
    HandedOverStaysHere,
    /// What failed in another swarm comes back as done.
    HandedBackAsDone,
    /// What comes back from another swarm counts although it is not there any more.
    HandBackCountsAlways,
    /// A new owner does not say again what other swarms have not been told.
    LettersForgotten,
    /// The second answer to a question counts, too.
    AnsweredTwice,
    /// What an agent declined may go back to it before its wait is over.
    DeclineWaitSkipped,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 67] = [
        Self::NoFence,
        Self::NoStartCheck,
        Self::RepairSkipped,
        Self::StaleResultAccepted,
        Self::DependencyResolvedTwice,
        Self::AppliedAtCause,
        Self::ResendWithoutClaim,
        Self::RepeatedDecisionCounts,
        Self::RepeatedCommandCounts,
        Self::PlanKeptAtClaim,
        Self::DecidesUnderAnothersClaim,
        Self::WithdrawsTheStarted,
        Self::NeverWakes,
        Self::SnapshotAhead,
        Self::CheckpointApart,
        Self::StartsTwice,
        Self::NewerSkipped,
        Self::PriorityIgnored,
        Self::PlacesExceeded,
        Self::CircleBroken,
        Self::StealsTooSoon,
        Self::StealsWithForce,
        Self::QueueTimeoutNever,
        Self::ProgressIgnored,
        Self::FailurePathLost,
        Self::CalledOffGoesOn,
        Self::DiscardedRetried,
        Self::WaitsUnderPriorityQueue,
        Self::HomesForgotten,
        Self::QuarantinedGetsWork,
        Self::DrainingGetsWork,
        Self::DeclineGoesBackToSame,
        Self::DeclineCountsAttempt,
        Self::UpdateNotHeard,
        Self::SecondClaimStarts,
        Self::OldSpawnExitCounts,
        Self::HostFailedKeepsClaim,
        Self::CrashLoopForever,
        Self::BackoffSkipped,
        Self::PolicyIgnored,
        Self::StoppedRespawns,
        Self::RemovedStillDrains,
        Self::MinAgentsForgotten,
        Self::ScaleAddsTwice,
        Self::ExitNotJudged,
        Self::OldIncarnationFailed,
        Self::QuarantineNeverEnds,
        Self::ElectsAnyway,
        Self::GoneKeepsSeat,
        Self::ChangedTooSoon,
        Self::SeatsIgnored,
        Self::RoleIgnored,
        Self::WithinIgnored,
        Self::StealsFromStrangers,
        Self::TurnToAnybody,
        Self::TurnTooSoon,
        Self::TurnsOutOfOrder,
        Self::ChangeTakesTheStarted,
        Self::ChangeLosesTasks,
        Self::PartCountsTwice,
        Self::PartsOutliveFailure,
        Self::HandedOverStaysHere,
        Self::HandedBackAsDone,
        Self::HandBackCountsAlways,
        Self::LettersForgotten,
        Self::AnsweredTwice,
        Self::DeclineWaitSkipped,
    ];
}

#[cfg(feature = "planted")]
mod switch {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Plants a defect on this thread, or takes it out.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    /// Whether `bug` is planted on this thread.
    pub fn is(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}
#[cfg(feature = "planted")]
pub use switch::{is, plant};

/// Whether `bug` is planted: never.
#[cfg(not(feature = "planted"))]
pub const fn is(_bug: Bug) -> bool {
    false
}
