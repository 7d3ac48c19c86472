//! The faults of `./dev bench availability`: what is done, and when. The same script for everybody.

use std::{fmt, time::Duration};

/// What is done to the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL; a new process of the same name is started at once, as a supervisor does.
    Kill(&'static [&'static str]),
    /// SIGSTOP, and SIGCONT after [`PAUSE`].
    Pause(&'static str),
    /// SIGTERM; a new process of the same name is started when the old one has ended, as a rolling update does.
    Update(&'static str),
    /// A further replica is started.
    Add(&'static str),
    /// SIGTERM, and nothing comes in its place.
    Remove(&'static str),
    /// nats-server is killed and started again at once.
    CrashNats,
    /// PostgreSQL is killed and started again at once.
    CrashPostgres,
}

/// Long enough for a takeover, and for the paused process to come back as a zombie.
pub const PAUSE: Duration = Duration::from_secs(6);
/// From one fault to the next: the one before is over by then.
const INTERVAL: Duration = Duration::from_secs(25);
/// The first fault: some good probes come before it.
const FIRST: Duration = Duration::from_secs(5);
/// Nothing is done in the end, so that the last fault is seen through.
const QUIET_END: Duration = Duration::from_secs(15);

use Fault::{Add, CrashNats, CrashPostgres, Kill, Pause, Remove, Update};

/// One after another; then all over again. The order puts different services next to each other, so that a replica has time
/// to come back before its partner is hit.
const ROUND: &[Fault] = &[
    Kill(&["distributor"]),
    Pause("coordinator"),
    Kill(&["gateway"]),
    Update("distributor-2"),
    CrashNats,
    Kill(&["health-2"]),
    Pause("distributor"),
    CrashPostgres,
    Update("coordinator-2"),
    Add("distributor-3"),
    Kill(&["coordinator", "distributor-2"]),
    Remove("distributor-3"),
    Pause("health"),
    Kill(&["projector"]),
    Update("gateway-2"),
    Kill(&["distributor", "health"]),
    Pause("distributor-2"),
    Kill(&["coordinator-2"]),
    CrashNats,
    Update("health-2"),
    Pause("gateway"),
    Kill(&["distributor", "gateway-2"]),
    Update("coordinator"),
    Pause("projector-2"),
];

/// What is done when, for a measurement of `length`.
pub fn script(length: Duration) -> Vec<(Duration, Fault)> {
    let times = (0..).map(|number| FIRST + INTERVAL * number);
    times
        .zip(ROUND.iter().copied().cycle())
        .take_while(|(at, _)| *at + QUIET_END <= length)
        .collect()
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kill(names) => write!(f, "kill {}, restart at once", names.join(" and ")),
            Pause(name) => write!(f, "stop {name}, go on after {} s", PAUSE.as_secs()),
            Update(name) => write!(f, "end {name} by SIGTERM, then start it again"),
            Add(name) => write!(f, "add {name}"),
            Remove(name) => write!(f, "remove {name} by SIGTERM"),
            CrashNats => f.write_str("kill nats-server, restart at once"),
            CrashPostgres => f.write_str("kill PostgreSQL, restart at once"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_an_hour_has_every_fault() {
        let script = script(Duration::from_secs(15 * 60));
        for fault in ROUND {
            assert!(script.iter().any(|(_, done)| done == fault), "{fault}");
        }
        assert_eq!(script.len(), 36);
    }

    #[test]
    fn the_end_is_quiet_and_faults_come_one_by_one() {
        for minutes in 1..20 {
            let length = Duration::from_secs(minutes * 60);
            let script = script(length);
            assert!(script.iter().all(|(at, _)| *at + QUIET_END <= length));
            assert!(script.windows(2).all(|pair| matches!(pair,
                [(before, _), (after, _)] if *after >= *before + Duration::from_secs(20))));
        }
    }

    #[test]
    fn a_removed_replica_was_added_before_and_is_hit_by_nothing_else() {
        let mut there = false;
        for (_, fault) in script(Duration::from_secs(60 * 60)) {
            match fault {
                Add(_) => {
                    assert!(!there);
                    there = true;
                }
                Remove(_) => {
                    assert!(there);
                    there = false;
                }
                Kill(names) => assert!(!names.contains(&"distributor-3")),
                Pause(name) | Update(name) => assert_ne!(name, "distributor-3"),
                CrashNats | CrashPostgres => {}
            }
        }
    }
}
