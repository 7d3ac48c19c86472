use super::super::workload::Kind as Made;
use super::*;

const SCALE: u32 = 5;

#[test]
fn each_task_is_started_and_ends_once_and_the_agents_worked_for_just_that_long()
-> anyhow::Result<()> {
    for made in Made::ALL {
        let workload = made.make(3, SCALE);
        for algorithm in Algorithm::ALL {
            for stealing in [false, true] {
                let name = format!("{made:?} {algorithm:?} {stealing}");
                let outcome = run(&workload, algorithm, stealing).context(name.clone())?;
                for track in &outcome.tasks {
                    assert_eq!((track.starts, track.ends), (1, 1), "{name}");
                    assert!(track.submitted < track.started, "{name}");
                    assert!(track.started < track.ended, "{name}");
                }
                let done = |of: fn(&Done) -> u64| outcome.agents.iter().map(of).sum::<u64>();
                assert_eq!(done(|d| d.tasks), workload.tasks.len() as u64, "{name}");
                let cold = workload.header.cache.map_or(0, |cache| cache.cold_micros);
                let cold = cold * done(|d| d.cold);
                assert_eq!(done(|d| d.busy), workload.work() + cold, "{name}");
            }
        }
    }
    Ok(())
}

#[test]
fn the_same_seed_gives_the_same_figures() -> anyhow::Result<()> {
    for made in [Made::Keys, Made::Burst] {
        let workload = made.make(3, SCALE);
        for algorithm in [Algorithm::RoundRobin, Algorithm::Affinity] {
            let (one, two) = (
                run(&workload, algorithm, true)?,
                run(&workload, algorithm, true)?,
            );
            assert_eq!(one, two);
        }
    }
    Ok(())
}

#[test]
fn a_task_that_finds_a_free_agent_waits_for_two_round_trips() -> anyhow::Result<()> {
    let mut workload = Made::Short.make(3, 1);
    workload.tasks.truncate(1);
    let outcome = run(&workload, Algorithm::LeastLoaded, true)?;
    let track = outcome.tasks[0];
    // Submission delivered, decision stored and delivered, start stored.
    let wait = 2 * (STORE_MICROS + DELIVER_MICROS);
    assert_eq!(track.started - track.submitted, wait);
    // The start's answer, the run, the result.
    let run = i64::try_from(workload.tasks[0].run)?;
    let ended = track.started + DELIVER_MICROS + run + STORE_MICROS;
    assert_eq!(track.ended, ended);
    Ok(())
}
