//! Tasks that another swarm does.

use swarm_events::{
    Place, Subject, SwarmId, TaskId,
    subject::{SwarmVerb, TaskVerb},
    task::{Carried, HandedBack, HandedOver, Origin, handed_id},
    topology::Topology,
};
use uuid::Uuid;

use super::super::scene::*;
use crate::{Checker, Invariant};

const AFAR: SwarmId = SwarmId(Uuid::from_u128(0xafa2));

impl Scene {
    fn submit_for(&mut self, id: TaskId) -> Origin {
        self.submit_with(id, |t| t.hand_to = Some(AFAR));
        Origin {
            swarm_id: self.place.swarm,
            task_id: id,
            generation: 1,
            hops: 1,
        }
    }
    fn hand_over(&mut self, id: TaskId, known_as: TaskId) -> u64 {
        let over = HandedOver {
            to: AFAR,
            task_id: known_as,
            generation: 1,
        };
        let subject = Subject::Task(self.place, TaskVerb::HandedOver, None);
        self.decide(DISTRIBUTOR, subject, id.0, over)
    }
    fn hand_back(&mut self, id: TaskId) -> u64 {
        let back = HandedBack {
            by: AFAR,
            generation: 1,
            result: Carried::Inline(swarm_events::Json::default()),
        };
        let subject = Subject::Task(self.place, TaskVerb::HandedBack, None);
        self.decide(DISTRIBUTOR, subject, id.0, back)
    }
}

/// A task that another swarm is to do.
fn handed() -> (Scene, Origin) {
    let mut scene = Scene::new(Checker::default());
    scene.join(agent(1), 1, 1);
    let origin = scene.submit_for(task(1));
    (scene, origin)
}

#[test]
fn handed_back_once() {
    let (mut scene, origin) = handed();
    scene.hand_over(task(1), handed_id(&origin));
    scene.clean();
    assert!(!scene.checker.quiet());
    scene.hand_back(task(1));
    scene.measure(1);
    scene.rest();
    scene.clean();
    let twice = scene.hand_back(task(1));
    scene.broken(Invariant::OneTerminal, twice);
}

#[test]
fn handed_back_once_means_nobody_here_does_it() {
    let (mut scene, _) = handed();
    let here = scene.assign(task(1), agent(1));
    scene.broken(Invariant::HandedBackOnce, here);
}

#[test]
fn handed_back_once_it_was_handed_over_once() {
    let (mut scene, _) = handed();
    let never = scene.hand_back(task(1));
    scene.broken(Invariant::HandedBackOnce, never);
    let (mut scene, origin) = handed();
    scene.hand_over(task(1), handed_id(&origin));
    let twice = scene.hand_over(task(1), handed_id(&origin));
    scene.broken(Invariant::HandedBackOnce, twice);
    let (mut scene, _) = handed();
    let unknown = scene.hand_over(task(1), task(77));
    scene.broken(Invariant::HandedBackOnce, unknown);
    let mut scene = Scene::new(Checker::default());
    scene.submit(task(1));
    let own = scene.hand_over(task(1), task(77));
    scene.broken(Invariant::HandedBackOnce, own);
}

#[test]
fn handed_back_once_it_is_done_there() {
    let there = |scene: &Scene| Place::new(scene.place.org, AFAR);
    let given = |done: bool| {
        let (mut scene, origin) = handed();
        let here = scene.place;
        let known_as = handed_id(&origin);
        scene.hand_over(task(1), known_as);
        scene.place = there(&scene);
        for service in [COORDINATOR, DISTRIBUTOR] {
            scene.epochs.remove(&service);
            scene.claim(service, OWNER);
        }
        let created = swarm_events::swarm::Created {
            name: "afar".to_owned(),
            description: None,
            topology: Topology::default(),
            configuration: scene.settings.clone(),
            partition: scene.place.partition.number(),
            created_by: None,
        };
        scene.swarm_decision(SwarmVerb::Created, created);
        scene.join(agent(2), 1, 1);
        scene.submit_with(known_as, |t| t.origin = Some(origin));
        let assignment = scene.assign(known_as, agent(2));
        scene.start(known_as, agent(2), assignment);
        if done {
            scene.complete(known_as, agent(2), assignment);
        }
        scene.place = here;
        // As its claims stand: that of the distributor was the second.
        scene.claim_after(DISTRIBUTOR, OWNER, 2);
        scene.clean();
        scene
    };
    let mut scene = given(true);
    scene.hand_back(task(1));
    scene.clean();
    let mut scene = given(false);
    let early = scene.hand_back(task(1));
    scene.broken(Invariant::HandedBackOnce, early);
}
