//! One incarnation at work: the protocol's core, and around it what it hears, asks for and runs.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_nats::Message;
use futures::{
    FutureExt, Stream, StreamExt,
    future::BoxFuture,
    stream::{FuturesUnordered, SelectAll},
};
use swarm_events::{
    Body, Input,
    ids::EventId,
    subject::{self, AgentVerb, Subject, TaskVerb, filter},
    swarm::Heartbeat,
};
use swarm_log::{LogError, StoredMessage};
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::{Instant, Interval, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::{
    answer,
    blackboard::{Blackboard, OnBus},
    callback::Callbacks,
    ground::OnLog,
    handler::Handlers,
    io,
    join::{self, NotJoined},
    link::Link,
    live,
    messages::{self, Bus, Carrier, Messages, Trace},
    profile::{Ends, Profile, Wish},
    protocol::{Assignment, Do, Millis, Outcome, Over, Own, Protocol, Stop, Verdict, Via},
    swarm::SwarmSettings,
    wire::Identity,
    work::Work,
};

/// What a cancelled handler gets to stop by itself before it is dropped: above the exec adapter's own grace.
pub const CANCEL_GRACE: Duration = Duration::from_secs(8);
/// How long a leaving agent tries to say so.
const LEAVE_WAIT: Duration = Duration::from_secs(5);
/// Pause before the first reads after joining are tried again.
const READ_PAUSE: Duration = Duration::from_millis(250);
/// Pause before listening to messages is tried again.
const LISTEN_PAUSE: Duration = Duration::from_millis(500);
/// What is said when nobody else wanted it to leave.
const LEFT: &str = "stopped";
/// Longest grace that a clock can add: what a swarm's settings allow lies far below.
const GRACE_MAX_MS: u64 = 7 * 24 * 3_600_000;
/// Heartbeats are dropped rather than held back: an old one says nothing.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(1);

/// What stays the same over incarnations.
pub(crate) struct Settings {
    pub(crate) profile: Profile,
    pub(crate) handlers: Arc<Handlers>,
    pub(crate) callbacks: Option<Callbacks>,
    /// As the agent's author wants it; else the swarm's.
    pub(crate) heartbeat_interval: Option<Duration>,
    /// The same.
    pub(crate) drain_grace: Option<Duration>,
    /// Where a handle finds the running agent's voice.
    pub(crate) ends: Option<Arc<watch::Sender<Option<Ends>>>>,
}

/// How an incarnation ended.
pub(crate) enum Ended {
    Stopped,
    /// The swarm wanted it to go.
    Asked(Stop),
    Over(Over),
}

struct Session<'a> {
    link: &'a Link,
    me: Identity,
    settings: &'a Settings,
    incarnation: u64,
    protocol: Protocol,
    began: Instant,
    io: FuturesUnordered<BoxFuture<'static, io::Done>>,
    works: JoinSet<(u64, Outcome)>,
    cancels: BTreeMap<u64, (CancellationToken, AbortHandle)>,
    beats: u64,
    swarm: SwarmSettings,
    ground: Arc<OnLog>,
    /// Ends what listens to messages with the session, however that ends.
    _silence: DropGuard,
}

#[derive(Clone, Copy)]
enum Channel {
    Own(Own),
    Verdicts,
    Swarm,
    Callback,
}

/// Joins, works until `stop` or a verdict, and cleans up.
pub(crate) async fn run(
    link: &Link,
    me: Identity,
    settings: &Settings,
    stop: &CancellationToken,
    wishes: &mut mpsc::Receiver<Wish>,
) -> Result<Ended, NotJoined> {
    // First the ears, then the word: nothing that follows the join can be missed silently.
    let mut doubts = link.doubts();
    doubts.mark_unchanged();
    let subscribed = async {
        let on = |subject: Subject| {
            let live = Subject::live(&subject.to_string()).unwrap_or_default();
            link.client().subscribe(live)
        };
        let assigned = on(me.task_subject(TaskVerb::Assigned)).await?;
        let withdrawn = on(me.task_subject(TaskVerb::Withdrawn)).await?;
        let verdicts = link
            .client()
            .subscribe(format!("swarm.live.evt.{}.agent.*.{}", me.place, me.agent))
            .await?;
        let swarm = link.client().subscribe(filter::settings(me.place)).await?;
        let callbacks = match &settings.callbacks {
            Some(_) => {
                let subject = subject::callback(me.place, me.agent);
                Some(link.client().subscribe(subject).await?)
            }
            None => None,
        };
        Ok::<_, async_nats::client::SubscribeError>((
            assigned, withdrawn, verdicts, swarm, callbacks,
        ))
    };
    let (assigned, withdrawn, mut verdicts, swarm, callbacks) = subscribed
        .await
        .map_err(|error| NotJoined::Log(LogError::Unreachable(error.to_string())))?;
    // Who handles messages hears what is said from its joining on, as soon as it can.
    let since = match settings.handlers.messages.is_empty() {
        true => None,
        false => messages::last_sequence(link).await,
    };
    let joined = tokio::select! {
        joined = join::join(link, &me, settings.profile.join(), &mut verdicts) => joined?,
        () = stop.cancelled() => return Ok(Ended::Stopped),
    };
    let last = tokio::select! {
        last = last_of_own(link, &me) => last,
        () = stop.cancelled() => {
            join::leave(link, &me, joined.data.incarnation, LEFT, LEAVE_WAIT).await;
            return Ok(Ended::Stopped);
        }
    };
    tracing::info!(
        agent.id = %me.agent, swarm.id = %me.place.swarm, agent.incarnation = joined.data.incarnation,
        "{} joined with {} slots", joined.data.profile.agent_name, joined.data.profile.slots
    );
    let slots = usize::try_from(joined.data.profile.slots).unwrap_or(1);
    let ids = Box::new(|| EventId(Uuid::now_v7()));
    let incarnation = joined.data.incarnation;
    let on_messages = settings.handlers.messages.clone();
    let listens = !on_messages.is_empty();
    let bus = Bus::new(link, me, incarnation, on_messages, since);
    let board = Arc::new(OnBus::new(link.clone(), me.place));
    if listens {
        tokio::spawn(listen(bus.clone()));
    }
    let session = Session {
        link,
        me,
        settings,
        incarnation: joined.data.incarnation,
        protocol: Protocol::new(slots, joined.data.incarnation, joined.sequence, last, ids),
        began: Instant::now(),
        io: FuturesUnordered::new(),
        works: JoinSet::new(),
        cancels: BTreeMap::new(),
        beats: 0,
        swarm: SwarmSettings::default(),
        _silence: bus.closed.clone().drop_guard(),
        ground: Arc::new(OnLog {
            link: link.clone(),
            me,
            incarnation,
            bus,
            board,
            hints: Arc::default(),
        }),
    };
    let mut live = SelectAll::from_iter([
        assigned
            .map(|message| (Channel::Own(Own::Assigned), message))
            .boxed(),
        withdrawn
            .map(|message| (Channel::Own(Own::Withdrawn), message))
            .boxed(),
        verdicts.map(|message| (Channel::Verdicts, message)).boxed(),
        swarm.map(|message| (Channel::Swarm, message)).boxed(),
    ]);
    live.extend(callbacks.map(|c| c.map(|message| (Channel::Callback, message)).boxed()));
    if let Some(ends) = &settings.ends {
        let messages = Messages {
            carrier: Some(session.ground.bus.clone()),
            trace: Trace::default(),
        };
        let board = Blackboard(Some(session.ground.board.clone()));
        ends.send_replace(Some(Ends {
            messages,
            board,
            ground: session.ground.clone(),
        }));
    }
    if let Some(handler) = settings.handlers.questions.clone() {
        tokio::spawn(answer::run(session.ground.clone(), handler));
    }
    let ended = session.work(live, doubts, stop, wishes).await;
    if let Some(ends) = &settings.ends {
        ends.send_replace(None);
    }
    Ok(ended)
}

/// Begins to listen to messages, as soon as that can be.
async fn listen(bus: Arc<Bus>) {
    while let Err(error) = bus.listen().await {
        tracing::warn!(%error, "messages cannot be listened to yet");
        tokio::select! {
            () = sleep(LISTEN_PAUSE) => {}
            () = bus.closed.cancelled() => return,
        }
    }
}

/// Last sequences of `assigned` and `withdrawn`, read after subscribing.
async fn last_of_own(link: &Link, me: &Identity) -> (u64, u64) {
    loop {
        match io::last_of_own(link, me, true).await {
            Ok((assigned, withdrawn)) => return (assigned.unwrap_or(0), withdrawn),
            Err(error) => tracing::debug!(%error, "cannot read the own subjects yet"),
        }
        sleep(READ_PAUSE).await;
    }
}

impl Session<'_> {
    fn now(&self) -> Millis {
        Millis::try_from(self.began.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }

    async fn work(
        mut self,
        mut live: impl Stream<Item = (Channel, Message)> + Unpin,
        mut doubts: watch::Receiver<u64>,
        stop: &CancellationToken,
        wishes: &mut mpsc::Receiver<Wish>,
    ) -> Ended {
        self.read_settings();
        let mut every = self.heartbeat_interval();
        let mut beat = heartbeat(every);
        let mut draining_until: Option<Instant> = None;
        let mut asked: Option<Stop> = None;
        loop {
            for action in self.protocol.next(self.now()) {
                self.perform(action);
            }
            if let Some(over) = self.protocol.over().cloned() {
                tracing::warn!(agent.id = %self.me.agent, agent.incarnation = self.incarnation, ?over, "this incarnation is over");
                self.end_works().await;
                return Ended::Over(over);
            }
            if self.protocol.stop() != asked.as_ref() {
                asked = self.protocol.stop().cloned();
                let grace = asked.as_ref().map_or(0, |stop| stop.grace_ms);
                let until = Instant::now() + Duration::from_millis(grace.min(GRACE_MAX_MS));
                draining_until = Some(draining_until.map_or(until, |before| before.min(until)));
                self.say_draining("the swarm wants this agent to go");
            }
            if self.heartbeat_interval() != every {
                every = self.heartbeat_interval();
                tracing::info!(agent.id = %self.me.agent, interval_ms = every.as_millis(), "heartbeats have another interval");
                beat = heartbeat(every);
            }
            if let Some(until) = draining_until
                && (self.protocol.is_idle() || Instant::now() >= until)
            {
                self.end_works().await;
                let reason = asked.as_ref().map_or(LEFT, |stop| stop.reason.as_str());
                join::leave(self.link, &self.me, self.incarnation, reason, LEAVE_WAIT).await;
                return asked.map_or(Ended::Stopped, Ended::Asked);
            }
            let wake = self.began
                + Duration::from_millis(self.protocol.wake_at().min(Millis::from(u32::MAX)));
            let wake = draining_until.map_or(wake, |until| until.min(wake));
            tokio::select! {
                Some((channel, message)) = live.next() => self.hear(channel, &message),
                Some(done) = self.io.next() => self.done(done),
                Some(ended) = self.works.join_next() => {
                    // An aborted one is wanted by nobody; a panic is caught inside.
                    if let Ok((assignment, outcome)) = ended {
                        self.cancels.remove(&assignment);
                        self.protocol.finished(assignment, outcome);
                    }
                }
                Some(wish) = wishes.recv() => self
                    .io
                    .push(io::update(self.link.clone(), self.me, self.incarnation, wish).boxed()),
                _ = beat.tick() => self.beat(),
                Ok(()) = doubts.changed() => {
                    self.protocol.doubt(self.now());
                    self.read_settings();
                }
                () = sleep_until(wake) => {}
                () = stop.cancelled(), if draining_until.is_none() => {
                    self.protocol.drain();
                    draining_until = Some(Instant::now() + self.drain_grace());
                    self.say_draining("told to stop");
                }
            }
        }
    }

    fn hear(&mut self, channel: Channel, message: &Message) {
        if matches!(channel, Channel::Callback) {
            return self.answer(message);
        }
        let Some((message, previous)) = live::republished(message) else {
            tracing::warn!(subject = %message.subject, "a live message without its place in the log is ignored");
            return;
        };
        match channel {
            Channel::Own(own) => {
                self.protocol.heard(
                    own,
                    message.sequence,
                    Via::Live { previous },
                    live::fact(&message),
                );
            }
            Channel::Verdicts => self.judge(&message),
            Channel::Swarm => self.heed(&message),
            Channel::Callback => {}
        }
    }

    /// The swarm has other settings.
    fn heed(&mut self, message: &StoredMessage) {
        self.swarm.meet(message);
        self.ground.bus.desk().limit(self.swarm.messages());
    }

    /// Somebody calls back through the gateway.
    fn answer(&mut self, message: &Message) {
        let (Some(callbacks), Some(reply)) = (&self.settings.callbacks, message.reply.clone())
        else {
            return;
        };
        let answer = callbacks.answer(&message.payload);
        if let Ok(payload) = serde_json::to_vec(&answer) {
            let client = self.link.client().clone();
            tokio::spawn(async move {
                if let Err(error) = client.publish(reply, payload.into()).await {
                    tracing::warn!(%error, "a call back could not be answered");
                }
            });
        }
    }

    /// Also after the connection was lost: a change may have been missed.
    fn read_settings(&mut self) {
        self.io
            .push(io::settings(self.link.clone(), self.me.place).boxed());
    }

    fn heartbeat_interval(&self) -> Duration {
        self.settings
            .heartbeat_interval
            .unwrap_or_else(|| self.swarm.heartbeat_interval())
    }

    fn drain_grace(&self) -> Duration {
        let grace = self.settings.drain_grace;
        grace.unwrap_or_else(|| self.swarm.drain_grace())
    }

    fn say_draining(&self, why: &str) {
        let (running, waiting) = self.protocol.load();
        tracing::info!(agent.id = %self.me.agent, running = running.len(), waiting, "draining: {why}");
    }

    fn judge(&mut self, message: &StoredMessage) {
        if let Input::Event(recorded) = live::read(message) {
            match &recorded.event.body {
                Body::AgentUpdated(updated) if updated.incarnation == self.incarnation => {
                    self.settings.profile.became(&updated.profile);
                }
                Body::AgentAnswered(_) | Body::AgentUnanswered(_) => self.ground.hints.came(),
                _ => {}
            }
        }
        match live::verdict(message) {
            // Health's judgement may have been missed; then this is not a person's wish, and a new incarnation may join.
            Some(Verdict::Removed {
                incarnation,
                reason,
            }) if incarnation == self.incarnation => {
                self.io
                    .push(io::removed(self.link.clone(), self.me, incarnation, reason).boxed());
            }
            Some(verdict) => self.protocol.verdict(verdict),
            None => {}
        }
    }

    fn done(&mut self, done: io::Done) {
        let now = self.now();
        match done {
            io::Done::Written(outcomes) => self.protocol.written(now, outcomes),
            io::Done::LookedUp(assignment, found) => {
                self.protocol.looked_up(now, assignment, found)
            }
            io::Done::CaughtUp(own, messages, complete) => {
                for message in messages {
                    self.protocol
                        .heard(own, message.sequence, Via::CatchUp, live::fact(&message));
                }
                self.protocol.caught_up(now, own, complete);
            }
            io::Done::Checked(found, verdicts) => {
                for message in verdicts {
                    self.judge(&message);
                }
                self.protocol.checked(now, found);
            }
            io::Done::Verdict(verdict) => self.protocol.verdict(verdict),
            io::Done::Updated => {}
            io::Done::Settings(messages) => {
                for message in messages {
                    self.heed(&message);
                }
                // Where there are none, the defaults hold.
                self.ground.bus.desk().limit(self.swarm.messages());
            }
        }
    }

    fn perform(&mut self, action: Do) {
        let (link, me) = (self.link.clone(), self.me);
        match action {
            Do::CatchUp { own, from } => {
                tracing::debug!(agent.id = %me.agent, ?own, from, "catching up");
                self.io.push(io::catch_up(link, me, own, from).boxed());
            }
            Do::Check { assigned, verdicts } => self
                .io
                .push(io::check(link, me, assigned, verdicts).boxed()),
            // The append itself happens here and now; only its outcome is awaited.
            Do::Append(writes) => self
                .io
                .push(io::append(&link, me, self.incarnation, writes)),
            Do::LookUp(write) => self.io.push(io::look_up(link, me, write).boxed()),
            Do::Run(assignment) => self.start(assignment),
            Do::Kill { assignment } => {
                if let Some((token, abort)) = self.cancels.get(&assignment) {
                    tracing::info!(agent.id = %me.agent, assignment, "stopping what was taken away");
                    token.cancel();
                    let abort = abort.clone();
                    tokio::spawn(async move {
                        sleep(CANCEL_GRACE).await;
                        abort.abort();
                    });
                }
            }
        }
    }

    fn start(&mut self, assignment: Arc<Assignment>) {
        let sequence = assignment.sequence;
        let cancelled = CancellationToken::new();
        let work = Work {
            ground: self.ground.clone(),
            assignment,
            handlers: self.settings.handlers.clone(),
            cancelled: cancelled.clone(),
        };
        let abort = self.works.spawn(work.run());
        self.cancels.insert(sequence, (cancelled, abort));
    }

    /// Cancels what runs, waits for it, and drops what does not stop.
    async fn end_works(&mut self) {
        for (token, _) in self.cancels.values() {
            token.cancel();
        }
        let all = async { while self.works.join_next().await.is_some() {} };
        if timeout(CANCEL_GRACE, all).await.is_err() {
            self.works.shutdown().await;
        }
        self.cancels.clear();
        self.ground.bus.close().await;
    }

    fn beat(&mut self) {
        self.beats += 1;
        if !self.link.connection().is_connected() {
            return; // it would be sent after the reconnect, as if it were news
        }
        let (running, waiting) = self.protocol.load();
        let (messages_sent, messages_read) = self.ground.bus.desk().counts();
        let heartbeat = Heartbeat {
            messages_read,
            messages_sent,
            instance: self.me.instance,
            incarnation: self.incarnation,
            counter: self.beats,
            status: if running.is_empty() { "idle" } else { "busy" }.to_owned(),
            cpu_centipercent: 0,
            memory_kib: 0,
            active_connections: 0,
            queue_depth: waiting,
            current_tasks: running,
            metadata: self.settings.profile.told(),
        };
        let subject = Subject::Heartbeat(self.me.place, self.me.agent).to_string();
        let (link, meter) = (self.link.clone(), self.link.meter().clone());
        tokio::spawn(async move {
            let figures = tokio::task::spawn_blocking(move || meter.figures())
                .await
                .unwrap_or_default();
            let heartbeat = Heartbeat {
                cpu_centipercent: figures.cpu_centipercent,
                memory_kib: figures.memory_kib,
                active_connections: figures.sockets,
                ..heartbeat
            };
            if let Ok(payload) = serde_json::to_vec(&heartbeat) {
                let _ = timeout(
                    HEARTBEAT_TIMEOUT,
                    link.client().publish(subject, payload.into()),
                )
                .await;
            }
        });
    }
}

fn heartbeat(every: Duration) -> Interval {
    let mut beat = interval(every);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat
}

/// The verbs that an agent must not miss about itself: by the first ones its incarnation can end.
pub(crate) const JUDGING: [AgentVerb; 6] = [
    AgentVerb::Failed,
    AgentVerb::Joined,
    AgentVerb::Removed,
    AgentVerb::Left,
    AgentVerb::Stopping,
    AgentVerb::Updated,
];
