//! What is promised of agents' processes: who asks for one, who starts it, when it is started again, and why an agent is
//! taken out.

use std::collections::VecDeque;

use swarm_events::{
    AgentId, Body, Recorded, Timestamp,
    agent::{
        CrashLooping, Failed, HostFailed, LivenessRule, Removed, SpawnReason, SpawnRequested,
        StopThen,
    },
    swarm::Scaled,
};

use super::{
    Checker,
    swarm::Swarm,
    wishes::{Ended, Order, Phase, Stop, Turn},
};
use crate::Invariant;

type Outcome = Result<(), &'static str>;

/// Steps of the log's time that are kept to tell what time it was at a decision's cause: decisions are stored within
/// seconds of it, and a claim is at most 50,000 events back.
const TIMES_KEPT_MAX: usize = 65_536;
/// How long after its time something may still be under way at rest, in milliseconds: a takeover takes two seconds.
pub(super) const LATE_MS: u64 = 5_000;

/// The highest store time by sequence.
#[derive(Debug, Default)]
pub(super) struct Times(VecDeque<(u64, Timestamp)>);
impl Times {
    pub(super) fn note(&mut self, sequence: u64, time: Timestamp) {
        if self.0.back().is_none_or(|(_, last)| time > *last) {
            if self.0.len() == TIMES_KEPT_MAX {
                self.0.pop_front();
            }
            self.0.push_back((sequence, time));
        }
    }
    /// The latest that anybody could hold it to be who had met nothing behind `sequence`; `None`: too long ago to tell.
    pub(super) fn at(&self, sequence: u64) -> Option<Timestamp> {
        let before = self.0.partition_point(|(at, _)| *at <= sequence);
        Some(self.0[before.checked_sub(1)?].1)
    }
}

fn cause(recorded: &Recorded) -> u64 {
    recorded.event.decided.map_or(0, |d| d.cause_sequence)
}

impl Checker {
    /// What happens to what is wanted of an agent, and to its processes. `None`: the event is about its membership.
    pub(super) fn process_event(
        &mut self,
        number: usize,
        id: AgentId,
        recorded: &Recorded,
    ) -> Option<Outcome> {
        let (sequence, at) = (recorded.sequence, recorded.time);
        let member = self.swarms[number].is_member(id);
        let wish = self.swarms[number].wishes.entry(id).or_default();
        let held = |holds: bool, why| if holds { Ok(()) } else { Err(why) };
        Some(match &recorded.event.body {
            Body::AgentAdded(added) => {
                self.added_for_the_minimum(number, recorded, added);
                let wish = self.swarms[number].wishes.entry(id).or_default();
                if wish.order.is_some() {
                    return Some(Err("agent-exists"));
                }
                wish.added(Order::of(&added.spec, sequence), at);
                Ok(())
            }
            Body::AgentSpawnRequested(request) => {
                self.spawn_requested(number, id, recorded, request)
            }
            Body::AgentSpawnClaimed(claim) => held(
                wish.claimed(claim.spawn, claim.host.instance, sequence),
                "claimed-or-over",
            ),
            Body::AgentSpawnDeclined(declined) => {
                let current = declined.spawn == wish.now.spawn;
                wish.declined |= current;
                held(current, "other-spawn")
            }
            Body::AgentLaunched(launched) => {
                let by = launched.host.instance;
                let claimant = wish.claimant(launched.spawn);
                let holds = wish.launched(launched.spawn, by, sequence);
                self.hosts.insert(by);
                self.notes.checked(Invariant::LaunchedByTheClaimant);
                let wrong = match claimant {
                    Ok(host) if host == by => None,
                    Ok(host) => Some(format!("the claim of {host} was met first")),
                    Err(true) => None,
                    // It started in good faith what others know to be void; the process is refused when it joins.
                    Err(false) if wish.may_be_believed(launched.spawn) => None,
                    Err(false) => Some("it has no claim that held".to_owned()),
                };
                if let Some(wrong) = wrong {
                    self.notes
                        .broken(Invariant::LaunchedByTheClaimant, sequence, || {
                            format!(
                                "host {by} starts process {} of agent {id}: {wrong}",
                                launched.spawn
                            )
                        });
                }
                held(holds, "no-claim")
            }
            Body::AgentExited(exited) => held(wish.exited(exited, sequence, at), "other-spawn"),
            Body::AgentHostFailed(failed) => self.host_failed(number, id, recorded, failed),
            Body::AgentCrashLooping(looping) => self.crash_looping(number, id, recorded, looping),
            // Nothing of it is there: it is done, and one that is started by hand may come again.
            Body::AgentStopping(stopping)
                if (stopping.incarnation, stopping.spawn) == (0, 0)
                    && stopping.then == StopThen::Remove
                    && !member =>
            {
                wish.nothing_to_stop(sequence, at);
                Ok(())
            }
            Body::AgentStopping(stopping) => {
                wish.stopping(stopping, sequence, at);
                if let Some(agent) = self.swarms[number].agents.get_mut(&id) {
                    agent.told_to_go(stopping.incarnation, sequence);
                }
                Ok(())
            }
            _ => return None,
        })
    }

    /// A decision that another one overtook is void to the services. Hosts read requests alone, and cannot know.
    pub(super) fn void_request(&mut self, recorded: &Recorded) {
        let (Body::AgentSpawnRequested(request), Some(id), Some(number)) = (
            &recorded.event.body,
            recorded.subject.agent(),
            self.swarm_of(recorded),
        ) else {
            return;
        };
        let wish = self.swarms[number].wishes.entry(id).or_default();
        wish.void_request(request.spawn, recorded.sequence, recorded.time);
    }

    /// Judges a request for a process by what the coordinator had met, and takes note of it.
    fn spawn_requested(
        &mut self,
        number: usize,
        id: AgentId,
        recorded: &Recorded,
        request: &SpawnRequested,
    ) -> Outcome {
        let (sequence, cause) = (recorded.sequence, cause(recorded));
        let ordered = recorded.event.causation.is_some_and(|id| {
            let key = recorded.subject.place().map(|p| (p.org, Some(p.swarm)));
            key.and_then(|key| self.commands_seen.get(&key)?.get(id))
                .is_some()
        });
        let swarm = &self.swarms[number];
        let time = self.times.at(cause);
        let Some(wish) = swarm.wishes.get(&id) else {
            return Err("unknown-agent");
        };
        if let Some(seen) = wish.at(cause) {
            // An incarnation that an earlier request made lives on beside the process that was lost, and is none of its.
            let alive = swarm.agents.get(&id).and_then(|a| a.seen_at(cause));
            let living = alive
                .is_some_and(|alive| alive.living && wish.born_of(alive.incarnation) == seen.spawn);
            let found = [
                (Invariant::SpawnsRise, out_of_number(&seen, request)),
                (
                    Invariant::OnlyTheWantedStart,
                    unwanted(&seen, request, ordered),
                ),
                (
                    Invariant::OneProcessWanted,
                    second_process(&seen, request, time, living),
                ),
                (
                    Invariant::RestartsByPolicy,
                    wish.order
                        .as_ref()
                        .and_then(|order| against_policy(&seen, order, request, time, ordered)),
                ),
            ];
            for (invariant, wrong) in found {
                self.notes.checked(invariant);
                if let Some(wrong) = wrong {
                    self.notes.broken(invariant, sequence, || {
                        format!(
                            "process {} of agent {id} is asked for: {wrong}",
                            request.spawn
                        )
                    });
                }
            }
        }
        let wish = self.swarms[number].wishes.entry(id).or_default();
        if request.spawn != wish.now.spawn + 1 {
            return Err("other-spawn");
        }
        wish.requested(request.spawn, request.crashes, sequence, recorded.time);
        Ok(())
    }

    fn host_failed(
        &mut self,
        number: usize,
        id: AgentId,
        recorded: &Recorded,
        failed: &HostFailed,
    ) -> Outcome {
        let wish = self.swarms[number].wishes.entry(id).or_default();
        let host = failed.host.instance;
        let holds = wish.host_failed(failed.spawn, host, recorded.sequence, recorded.time);
        self.hosts.remove(&host);
        if holds { Ok(()) } else { Err("no-such-claim") }
    }

    fn crash_looping(
        &mut self,
        number: usize,
        id: AgentId,
        recorded: &Recorded,
        looping: &CrashLooping,
    ) -> Outcome {
        let wish = self.swarms[number].wishes.entry(id).or_default();
        let limit = wish
            .order
            .as_ref()
            .map_or(0, |order| order.restart.crash_limit);
        self.notes.checked(Invariant::RestartsByPolicy);
        let seen = wish.at(cause(recorded));
        let wrong = if limit == 0 || looping.crashes < limit {
            Some(format!(
                "{} crashes, and its limit is {limit}",
                looping.crashes
            ))
        } else {
            seen.and_then(|turn| turn.crashes)
                .filter(|crashes| *crashes != looping.crashes)
                .map(|crashes| {
                    format!("{} crashes are told, and it had {crashes}", looping.crashes)
                })
        };
        if let Some(wrong) = wrong {
            self.notes
                .broken(Invariant::RestartsByPolicy, recorded.sequence, || {
                    format!("agent {id} is given up: {wrong}")
                });
        }
        if looping.spawn != wish.now.spawn || wish.has_process() {
            return Err("other-spawn");
        }
        wish.turn(recorded.sequence, |turn| turn.given_up = true);
        Ok(())
    }

    /// Agents are wanted, or are not wanted any more, by one answer to an order.
    pub(super) fn scaled_agents(&mut self, number: usize, recorded: &Recorded, scaled: &Scaled) {
        let swarm = &mut self.swarms[number];
        let like = scaled
            .like
            .and_then(|id| swarm.wishes.get(&id)?.order.clone());
        for id in &scaled.add {
            let wish = swarm.wishes.entry(*id).or_default();
            if let Some(like) = like.as_ref().filter(|_| wish.order.is_none()) {
                wish.added(Order::like(like, recorded.sequence), recorded.time);
            }
        }
        for id in &scaled.remove {
            let wish = swarm.wishes.entry(*id).or_default();
            wish.since = recorded.time;
            wish.turn(recorded.sequence, |turn| {
                (turn.wanted, turn.scaled_away) = (false, true);
            });
        }
    }

    /// Judges why an incarnation is taken out.
    pub(super) fn removed(
        &mut self,
        number: usize,
        id: AgentId,
        recorded: &Recorded,
        removed: &Removed,
    ) {
        let cause = cause(recorded);
        let ordered = recorded.event.causation.is_some_and(|id| {
            let key = recorded.subject.place().map(|p| (p.org, Some(p.swarm)));
            key.and_then(|key| self.commands_seen.get(&key)?.get(id))
                .is_some()
        });
        let swarm = &self.swarms[number];
        let Some(time) = self.times.at(cause) else {
            return;
        };
        let Some(seen) = swarm.agents.get(&id).and_then(|agent| agent.seen_at(cause)) else {
            return;
        };
        if seen.incarnation != removed.incarnation {
            // A repeat, or one that came back meanwhile: void for the other.
            return;
        }
        self.notes.checked(Invariant::RemovalsHaveCauses);
        let stop = swarm.wishes.get(&id).and_then(|wish| wish.at(cause)?.stop);
        let stopped = stop.is_some_and(|stop| {
            stop.over <= time && [0, removed.incarnation].contains(&stop.incarnation)
        });
        let unfit = seen.quarantined_since != Timestamp::ZERO;
        let exited = swarm.wishes.get(&id).and_then(|wish| {
            let born = wish.born_of(removed.incarnation);
            wish.exit_of(born)
                .filter(|exit| born != 0 && *exit <= cause)
        });
        let by_rule = stopped || seen.failed || unfit || exited.is_some();
        if !(ordered || by_rule || swarm.stopping_by(cause)) {
            let wrong = match stop {
                Some(stop) => format!("its grace lasts until {}, and it was {time}", stop.over),
                None => "no verdict, order or rule demanded it".to_owned(),
            };
            self.notes
                .broken(Invariant::RemovalsHaveCauses, recorded.sequence, || {
                    format!(
                        "incarnation {} of agent {id} is taken out: {wrong}",
                        removed.incarnation
                    )
                });
        }
    }

    /// Judges a verdict that goes by the end of a process, or does not although it might.
    pub(super) fn failed(
        &mut self,
        number: usize,
        id: AgentId,
        recorded: &Recorded,
        failed: &Failed,
    ) {
        let cause = cause(recorded);
        let swarm = &self.swarms[number];
        let Some(agent) = swarm.agents.get(&id) else {
            return;
        };
        let wish = swarm.wishes.get(&id);
        let born = wish.map_or(0, |wish| wish.born_of(failed.incarnation));
        let exit = wish
            .filter(|_| born != 0)
            .and_then(|wish| wish.exit_of(born));
        let gone = agent.gone_seen(failed.incarnation);
        let wrong = match (failed.evidence.rule, exit) {
            (LivenessRule::Exited, None) if wish.is_some_and(|w| w.claimant(born) == Err(true)) => {
                None
            }
            (LivenessRule::Exited, Some(exit)) if exit <= cause => None,
            (LivenessRule::Exited, _) => {
                Some("no host had reported that its process ended".to_owned())
            }
            // Whichever was there first may be what it goes by.
            (_, Some(exit)) if exit <= cause && gone.is_none_or(|gone| gone > exit) => Some(
                format!("its process had ended at {exit}, and that was not heeded"),
            ),
            _ => None,
        };
        self.notes.checked(Invariant::ExitsJudged);
        if let Some(wrong) = wrong {
            self.notes
                .broken(Invariant::ExitsJudged, recorded.sequence, || {
                    format!(
                        "incarnation {} of agent {id} has failed: {wrong}",
                        failed.incarnation
                    )
                });
        }
    }
}

fn out_of_number(seen: &Turn, request: &SpawnRequested) -> Option<String> {
    (request.spawn != seen.spawn + 1).then(|| format!("the last request was number {}", seen.spawn))
}

/// Why no process of it should be asked for.
fn unwanted(seen: &Turn, request: &SpawnRequested, ordered: bool) -> Option<String> {
    let by_order = request.reason == SpawnReason::Restart && ordered;
    if by_order {
        return None;
    }
    if let Some(stop) = seen.stop.filter(|stop| stop.then == StopThen::Remove) {
        return Some(format!("it had been told to go by {}", stop.over));
    }
    if seen.scaled_away {
        return Some("fewer agents were wanted".to_owned());
    }
    let restarts = seen.stop.is_some_and(|stop| stop.then == StopThen::Restart);
    if seen.given_up && !restarts {
        return Some("it had been given up".to_owned());
    }
    (!seen.wanted && !restarts).then(|| "nobody wanted it".to_owned())
}

/// Why the process before it may still run.
fn second_process(
    seen: &Turn,
    request: &SpawnRequested,
    time: Option<Timestamp>,
    living: bool,
) -> Option<String> {
    let late =
        |stop: &Stop| stop.then == StopThen::Restart && time.is_none_or(|time| stop.over <= time);
    if seen.stop.as_ref().is_some_and(late) {
        // Its grace is over: the request itself makes its host kill it.
        return None;
    }
    match seen.phase {
        Phase::Requested => Some(format!("number {} is still open", seen.spawn)),
        Phase::Claimed(host) | Phase::Running(host) => Some(format!(
            "number {} is in the hands of host {host}",
            seen.spawn
        )),
        // The host was lost; the process may have outlived it.
        Phase::Idle
            if living
                && request.reason == SpawnReason::HostLost
                && seen.ended == Some(Ended::HostLost) =>
        {
            Some("its host was lost, and its process is alive and well".to_owned())
        }
        Phase::Idle => None,
    }
}

/// What its policy says against it.
fn against_policy(
    seen: &Turn,
    order: &Order,
    request: &SpawnRequested,
    time: Option<Timestamp>,
    ordered: bool,
) -> Option<String> {
    let told = request.crashes;
    if request.reason == SpawnReason::Restart || seen.stop.is_some() || ordered {
        return None;
    }
    if seen.due > time? {
        return Some(format!(
            "it has to wait until {}, and it was {}",
            seen.due, time?
        ));
    }
    let limit = order.restart.crash_limit;
    let crashes = seen.crashes?;
    if limit > 0 && crashes >= limit {
        return Some(format!(
            "it crashed {crashes} times, and its limit is {limit}"
        ));
    }
    (told != crashes).then(|| format!("{told} crashes are told, and it had {crashes}"))
}

/// How far a wish is from being fulfilled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lack {
    /// Somebody has to act, since this time.
    Open(Timestamp),
    /// It has to wait for its time.
    Waits,
    /// Nobody can.
    Hopeless,
}

/// A wish that is not fulfilled.
#[derive(Debug)]
pub(super) struct Unfulfilled {
    pub(super) invariant: Invariant,
    pub(super) lack: Lack,
    pub(super) what: String,
}

impl Swarm {
    /// Agents that are wanted and do not run, or were told to go and are there. `hosts`: there is a host.
    pub(super) fn unfulfilled(&self, now: Timestamp, hosts: bool) -> Vec<Unfulfilled> {
        let mut found = Vec::new();
        if self.stopping() {
            return found;
        }
        let mut note = |invariant, lack, what| {
            found.push(Unfulfilled {
                invariant,
                lack,
                what,
            });
        };
        for (id, wish) in &self.wishes {
            let turn = wish.now;
            if let Some(stop) = turn.stop {
                let member = self.agents.get(id).is_some_and(|agent| {
                    agent.is_member() && [0, agent.incarnation].contains(&stop.incarnation)
                });
                if member || (wish.has_process() && stop.spawn == turn.spawn) {
                    let lack = if stop.over > now {
                        Lack::Waits
                    } else {
                        Lack::Open(stop.over)
                    };
                    let what = format!("agent {id} was to be gone by {}, and is there", stop.over);
                    note(Invariant::GraceKept, lack, what);
                    continue;
                }
            }
            if turn.scaled_away && (wish.has_process() || self.is_member(*id)) {
                let what = format!(
                    "agent {id} is too many since {}, and was not told",
                    wish.since
                );
                note(Invariant::GraceKept, Lack::Open(wish.since), what);
                continue;
            }
            let restarts = turn.stop.is_some_and(|stop| stop.then == StopThen::Restart);
            let managed = wish.order.as_ref().is_some_and(|order| order.adapter);
            if !managed || !(turn.wanted || restarts) || turn.given_up {
                continue;
            }
            let lack = match turn.phase {
                Phase::Running(_) if self.is_member(*id) => continue,
                Phase::Idle if turn.due > now => Lack::Waits,
                Phase::Requested if wish.declined || !hosts => Lack::Hopeless,
                _ => Lack::Open(wish.since),
            };
            let what = format!("agent {id} is wanted, and its process is {:?}", turn.phase);
            note(Invariant::WantedAgentsRun, lack, what);
        }
        if let Some(what) = self.too_few() {
            note(Invariant::MinAgentsKept, Lack::Open(self.changed), what);
        }
        found
    }

    fn is_member(&self, id: AgentId) -> bool {
        self.agents
            .get(&id)
            .is_some_and(super::swarm::Agent::is_member)
    }
}
