//! Tasks that wait for an agent: what is before them, and what would get them assigned.

use std::{cmp::Reverse, collections::BTreeSet};

use swarm_events::{AgentId, TaskId, Timestamp};

use super::{
    AgentCounts, Condition, Count, ITEMS_MAX, Look, QUEUES_MAX, Queued, Reason, Standing, What,
    agents::{Pool, Seen},
    held::fails_first,
    release::{again, released},
    rivals::Rivals,
    token::Asked,
    words::{capital, count, duration, list, number},
};
use crate::{
    agent::{Agent, Bar, has},
    class::of_class,
    plan::ready::look::Queue,
    task::Task,
};

/// Running tasks that are looked at for the earliest end of a run limit: that of some is an upper bound for all.
const HELD_LOOKED_AT_MAX: usize = 10_000;

/// Agents with the same capabilities: the same tasks compete for them.
struct Kin<'p, 'a> {
    number: u32,
    ahead: Count,
    agents: Vec<&'p Seen<'a>>,
}

impl Look<'_> {
    pub(super) fn queued(&self, at: u32, task: &Task) -> (Reason, Vec<String>) {
        let required = self.required(task);
        let plan = self.plan.swarms.get(self.swarm.number as usize);
        let excluded = plan.map_or(&[][..], |plan| plan.excluded(task.class));
        let pool = self.pool(&required, excluded, (at, task.class));
        let rivals = self.rivals(at, task);
        let kinds: BTreeSet<u32> = pool
            .able
            .iter()
            .filter(|seen| seen.standing != Standing::Misplaced)
            .filter_map(|seen| self.kind(seen.number))
            .collect();
        let words = self.swarm.classes.get(task.class);
        let compete = |queue: &Queue<'_>| {
            queue.words == words || queue.kinds.iter().any(|kind| kinds.contains(kind))
        };
        let ring = self.before_in_ring(at, task);
        let ahead = ring.unwrap_or_else(|| rivals.ahead(compete));
        let room: u64 = pool
            .able
            .iter()
            .filter(|seen| seen.standing == Standing::Free)
            .map(|seen| u64::from(seen.room))
            .sum();
        // In a ring only those whose turn it is with this task are free.
        let assignable = match ring {
            Some(_) => room > 0,
            None => !ahead.at_least && room > ahead.count,
        };
        let step_ms = self.swarm.settings.priority_step_ms;
        let ageing_wins_at = (step_ms > 0).then(|| {
            let steps = 10u64.saturating_sub(u64::from(task.priority));
            task.queued_at.plus_millis(step_ms.saturating_mul(steps))
        });
        let asked = self.asked(task);
        let mut conditions = Vec::new();
        if let Some(ahead) = ring.filter(|_| !assignable) {
            conditions.extend(self.turn_condition(ahead));
            if pool.able.is_empty() {
                conditions.push(more_agents(&required, &asked, &pool, &rivals));
            }
        } else if !assignable {
            conditions.extend(self.places(task, &pool, &rivals, ahead, room));
            if !pool.able.is_empty() && ahead.count > 0 {
                conditions.extend(rivals.least_priority(compete).map(priority));
            }
            conditions.push(more_agents(&required, &asked, &pool, &rivals));
        }
        let queued = Queued {
            queued_at: task.queued_at,
            waited_ms: self.now().millis_since(task.queued_at),
            priority: task.priority,
            priority_step_ms: step_ms,
            rank: rivals.own.1.0,
            algorithm: self.swarm.settings.algorithm,
            ahead,
            assignable,
            required_role: asked.role,
            stands_in: asked.stands_in,
            within: asked.within,
            token: self.token(),
            agents: pool.counts,
            items: pool.items,
            lacking: pool.lacking,
            would_be_assigned_if: conditions,
            ageing_wins_at,
            queue_timeout_at: task.queue_timeout_at(&self.swarm.settings),
        };
        let mut sentences = self.sentences(&queued, &required);
        sentences.extend(task.declines().map(|declines| {
            let until = match declines.until {
                Timestamp::ZERO => String::new(),
                until => format!(", and not before {until}"),
            };
            format!(
                "It was declined {}, the last time with: {}. An agent that has declined it gets it again only if there is no \
                 other that could{until}.",
                number(u64::from(declines.count), "time", "times"),
                declines.reason
            )
        }));
        (Reason::Queued(Box::new(queued)), sentences)
    }

    fn kind(&self, agent: u32) -> Option<u32> {
        let plan = self.plan.swarms.get(self.swarm.number as usize)?;
        plan.kind_of(agent)
    }

    fn rivals(&self, at: u32, task: &Task) -> Rivals<'_> {
        let plan = self.plan.swarms.get(self.swarm.number as usize);
        let mut all = plan.into_iter().flat_map(|plan| plan.queues());
        let queues: Vec<Queue<'_>> = all.by_ref().take(QUEUES_MAX).collect();
        Rivals {
            queues,
            cut: all.next().is_some(),
            step_ms: self.swarm.settings.priority_step_ms,
            own: (
                at,
                (self.swarm.settings.rank(task), task.submitted),
                task.queued_at,
            ),
        }
    }

    /// What its able agents could do for it.
    fn places(
        &self,
        task: &Task,
        pool: &Pool<'_>,
        rivals: &Rivals<'_>,
        ahead: Count,
        room: u64,
    ) -> Vec<Condition> {
        let plan = self.plan.swarms.get(self.swarm.number as usize);
        let mut conditions = Vec::new();
        let with = |standing| {
            pool.able
                .iter()
                .filter(move |seen: &&Seen<'_>| seen.standing == standing)
        };
        if room > 0 {
            // Those before it take what is free now: what comes free after that is for it.
            let all: Vec<&Seen<'_>> = with(Standing::Free).chain(with(Standing::Full)).collect();
            let places = Count {
                count: (ahead.count + 1).saturating_sub(room).max(1),
                at_least: ahead.at_least,
            };
            conditions.push(place(&all, places));
        } else {
            let kin = self.kin(with(Standing::Full), rivals);
            if let Some(least) = kin.iter().map(|kin| kin.ahead).min_by_key(order) {
                let mut nearest: Vec<&Kin<'_, '_>> =
                    kin.iter().filter(|kin| kin.ahead == least).collect();
                if least.count > 0 || least.at_least {
                    // Other agents, other tasks before it: the numbers do not add up.
                    nearest.sort_by_key(|kin| Reverse(kin.agents.len()));
                    nearest.truncate(1);
                }
                let agents: Vec<&Seen<'_>> = nearest
                    .iter()
                    .flat_map(|kin| kin.agents.iter().copied())
                    .collect();
                let places = Count {
                    count: least.count + 1,
                    ..least
                };
                conditions.push(place(&agents, places));
                if places.count == 1 && !places.at_least {
                    conditions.extend(self.place_by(&agents));
                }
            }
        }
        let enough = |standing| -> Vec<&Seen<'_>> {
            self.kin(with(standing), rivals)
                .into_iter()
                .flat_map(|kin| {
                    let ahead = kin.ahead;
                    kin.agents
                        .into_iter()
                        .filter(move |seen| !ahead.at_least && u64::from(seen.room) > ahead.count)
                })
                .collect()
        };
        let well = enough(Standing::Unhealthy);
        if !well.is_empty() {
            conditions.push(Condition {
                sentence: match well.len() {
                    1 => format!(
                        "agent {}, which is suspected, were well again",
                        well[0].agent.id
                    ),
                    n => format!(
                        "one of the {n} suspected agents with a place for it were well again"
                    ),
                },
                what: What::Well {
                    agents: well.len() as u32,
                    agent_ids: ids(&well),
                },
            });
        }
        conditions.extend(self.back(&enough(Standing::Unresponsive)));
        let mut resting = enough(Standing::Quarantined);
        resting.extend(enough(Standing::FailedFast));
        conditions.extend(released(&resting));
        let for_now = plan.map_or(&[][..], |plan| plan.excluded_for_now(task.class));
        if !for_now.is_empty() && !enough(Standing::Declined).is_empty() {
            conditions.extend(task.declines().map(|declines| again(declines.until)));
        }
        conditions
    }

    /// Agents by their capabilities, with what is before the task at each.
    fn kin<'p, 'a>(
        &self,
        agents: impl Iterator<Item = &'p Seen<'a>>,
        rivals: &Rivals<'_>,
    ) -> Vec<Kin<'p, 'a>> {
        let mut kin: Vec<Kin<'p, 'a>> = Vec::new();
        for seen in agents {
            let Some(number) = self.kind(seen.number) else {
                continue;
            };
            let full = kin.len() == ITEMS_MAX;
            match kin.iter_mut().find(|kin| kin.number == number) {
                Some(known) => known.agents.push(seen),
                // More sets of capabilities than agents are named: what holds at these is enough.
                None if full => {}
                None => kin.push(Kin {
                    number,
                    ahead: rivals.ahead(|queue| queue.kinds.contains(&number)),
                    agents: vec![seen],
                }),
            }
        }
        kin
    }

    /// The first of these that is given work again by itself.
    fn back(&self, barred: &[&Seen<'_>]) -> Option<Condition> {
        let numbers: BTreeSet<u32> = barred.iter().map(|seen| seen.number).collect();
        let &(at, _, number, _) = self.state.barred.iter().find(|(_, swarm, agent, bar)| {
            *bar == Bar::Lapses && *swarm == self.swarm.number && numbers.contains(agent)
        })?;
        let agent_id = self.swarm.agents.get(number as usize)?.id;
        Some(Condition {
            sentence: format!(
                "agent {agent_id}, which let assignments lapse, is given work again: at {at}, or once it writes anything"
            ),
            what: What::Back { agent_id, at },
        })
    }

    /// When a place comes free at one of these agents at the latest.
    fn place_by(&self, agents: &[&Seen<'_>]) -> Option<Condition> {
        let running = |agent: &Agent| {
            agent
                .running
                .iter()
                .map(|&(_, task)| task)
                .collect::<Vec<_>>()
        };
        let (at, agent_id, task_id): (Timestamp, AgentId, TaskId) = agents
            .iter()
            .flat_map(|seen| {
                running(seen.agent)
                    .into_iter()
                    .map(|task| (seen.agent.id, task))
            })
            .take(HELD_LOOKED_AT_MAX)
            .filter_map(|(agent, task)| {
                let task = self.swarm.tasks.get(task)?;
                Some((task.run_timeout_at()?, agent, task.id))
            })
            .min()?;
        Some(Condition {
            sentence: format!(
                "the run limit of task {task_id} ends at agent {agent_id}: at {at} a place comes free there at the latest"
            ),
            what: What::PlaceBy {
                at,
                agent_id,
                task_id,
            },
        })
    }

    fn sentences(&self, queued: &Queued, required: &[String]) -> Vec<String> {
        let waited = duration(queued.waited_ms);
        let first = if queued.assignable {
            format!(
                "It has waited {waited} and can be assigned as things are: only the decision is under way."
            )
        } else {
            format!(
                "It has waited {waited} for {}.",
                waits_for(&queued.agents, required)
            )
        };
        let mut sentences = vec![first];
        if queued.assignable {
            sentences.push(
                "If this answer stays, no distributor decides for this swarm: see `swarm status`."
                    .to_owned(),
            );
        }
        sentences.extend(queued.lacking.as_ref().and_then(|lacking| {
            let words: Vec<String> = lacking
                .capabilities
                .iter()
                .filter(|word| word.agents > 0)
                .map(|word| {
                    format!(
                        "{} lack{} {}",
                        word.agents,
                        if word.agents == 1 { "s" } else { "" },
                        word.capability
                    )
                })
                .collect();
            let of = number(u64::from(queued.agents.members), "agent", "agents");
            (!words.is_empty()).then(|| format!("Of the {of}, {}.", list(&words, "and")))
        }));
        let ahead = &queued.ahead;
        sentences.push(if ahead.count == 0 && !ahead.at_least {
            "No task before it competes for the same agents: it is next.".to_owned()
        } else if queued.token.is_some() {
            let rest = match ahead.count {
                1 => "was submitted before it, and gets its turn first",
                _ => "were submitted before it, and get their turns first",
            };
            capital(&format!("{} {rest}.", count(*ahead, "task", "tasks")))
        } else {
            let verb = if ahead.count == 1 {
                "competes"
            } else {
                "compete"
            };
            capital(&format!(
                "{} before it {verb} for the same agents.",
                count(*ahead, "task", "tasks")
            ))
        });
        sentences.extend(self.topology_sentences(queued));
        sentences.extend(
            queued
                .would_be_assigned_if
                .iter()
                .map(|condition| format!("It would be assigned if {}.", condition.sentence)),
        );
        if let Some(at) = queued.ageing_wins_at.filter(|_| queued.token.is_none()) {
            sentences.push(if at <= self.now() {
                "It has waited so long that no task that is queued from now on goes before it."
                    .to_owned()
            } else {
                format!("From {at} on no newly queued task goes before it, whatever its priority.")
            });
        }
        sentences.extend(queued.queue_timeout_at.map(fails_first));
        sentences
    }
}

fn order(count: &Count) -> (bool, u64) {
    (count.at_least, count.count)
}

fn ids(agents: &[&Seen<'_>]) -> Vec<AgentId> {
    agents
        .iter()
        .take(ITEMS_MAX)
        .map(|seen| seen.agent.id)
        .collect()
}

fn waits_for(agents: &AgentCounts, required: &[String]) -> String {
    let with = match required {
        [] => String::new(),
        words => format!(" with {}", list(words, "and")),
    };
    if agents.members == 0 {
        return format!("an agent{with}: the swarm has none");
    }
    let able = agents.members - agents.missing_capability;
    if able == 0 {
        let none = match agents.members {
            1 => "the one that there is has not all of that".to_owned(),
            n => format!("none of the {n} that there are has all of that"),
        };
        return format!("an agent{with}: {none}");
    }
    let states: Vec<String> = [
        (agents.free, "will be taken by tasks before it"),
        (agents.full, "full"),
        (agents.unhealthy, "suspected or failed"),
        (agents.unresponsive, "let assignments lapse"),
        (agents.draining, "about to go"),
        (agents.quarantined, "in quarantine"),
        (agents.failed_fast, "barred for fast failures"),
        (agents.declined, "declined it"),
        (agents.misplaced, "another place in the topology"),
        (agents.not_its_turn, "not on turn"),
    ]
    .into_iter()
    .filter(|(n, _)| *n > 0)
    .map(|(n, what)| match what {
        "full"
        | "suspected or failed"
        | "about to go"
        | "in quarantine"
        | "barred for fast failures"
        | "not on turn" => {
            format!("{n} {} {what}", if n == 1 { "is" } else { "are" })
        }
        "another place in the topology" => {
            format!("{n} {} {what}", if n == 1 { "has" } else { "have" })
        }
        _ => format!("{n} {what}"),
    })
    .collect();
    let able = match able {
        1 => "the one that could take it".to_owned(),
        n => format!("the {n} that could take it"),
    };
    format!(
        "a place at an agent{with}: of {able}, {}",
        list(&states, "and")
    )
}

fn place(agents: &[&Seen<'_>], places: Count) -> Condition {
    let at = match agents {
        [one] => format!("agent {}", one.agent.id),
        many => format!("one of the {} agents that could take it", many.len()),
    };
    let sentence = if places.count == 1 && !places.at_least {
        format!("a place came free at {at}")
    } else {
        let at = match agents {
            [_] => at,
            many => format!("the {} agents that could take it", many.len()),
        };
        format!(
            "{} came free at {at}: the tasks before it get theirs first",
            count(places, "place", "places")
        )
    };
    Condition {
        sentence,
        what: What::Place {
            agents: agents.len() as u32,
            agent_ids: ids(agents),
            places,
        },
    }
}

fn priority(least: u8) -> Condition {
    let more = if least == 10 { "" } else { " or more" };
    Condition {
        sentence: format!("it had priority {least}{more}: it would be the next to get a place"),
        what: What::Priority { least },
    }
}

/// More agents with what it needs: those tasks before it that they could take, too, come first.
fn more_agents(
    required: &[String],
    asked: &Asked,
    pool: &Pool<'_>,
    rivals: &Rivals<'_>,
) -> Condition {
    let words: Vec<Box<str>> = required.iter().map(|word| word.as_str().into()).collect();
    let ahead = rivals.ahead(|queue| of_class(queue.words).all(|word| has(&words, word)));
    let slots = Count {
        count: ahead.count + 1,
        ..ahead
    };
    let with = match required {
        [] => String::new(),
        words => format!(" with {}", list(words, "and")),
    };
    let who = asked.who();
    let mut sentence = if slots.count == 1 && !slots.at_least {
        format!("one more agent{with}{who} had a free slot")
    } else {
        let slots = count(slots, "free slot", "free slots");
        let who = who.replacen(" that is a", " with the role of a", 1);
        format!("more agents{with}{who} brought {slots}: the tasks before it get theirs first")
    };
    if pool.able.is_empty() && !pool.nearest_missing.is_empty() {
        sentence.push_str(&format!(
            " (the nearest agent lacks only {})",
            list(&pool.nearest_missing, "and")
        ));
    }
    Condition {
        sentence,
        what: What::Agents {
            capabilities: required.to_vec(),
            missing: pool.nearest_missing.clone(),
            slots,
        },
    }
}
