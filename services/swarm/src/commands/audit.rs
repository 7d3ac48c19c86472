//! `swarm audit`: the promises, held against the log as it is.

mod report;

use std::time::Instant;

use futures::StreamExt;
use swarm_audit::Checker;
use swarm_events::{Input, Service, Subject, SwarmId, Timestamp, read, subject::filter};
use swarm_log::{Log, Tailed};
use swarm_projections::verify::verify;

use self::report::Report;
use crate::{
    connection::{ServerArgs, Target},
    exit::{Failure, Outcome},
    output::Format,
    progress,
};

/// Arguments of `swarm audit`.
///
/// The state of the log at the beginning of a range follows from all that lies before it: the log is read from its
/// beginning in any case, and only what is broken within the range is reported.
#[derive(clap::Args, Debug, Default)]
pub struct Args {
    /// First stream sequence to report on; the log is read from its beginning in any case
    #[arg(long, value_name = "SEQUENCE", conflicts_with = "since")]
    pub from: Option<u64>,
    /// Last stream sequence [default: the last one now]
    #[arg(long, value_name = "SEQUENCE", conflicts_with = "until")]
    pub to: Option<u64>,
    /// First store time to report on, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub since: Option<Timestamp>,
    /// Last store time, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub until: Option<Timestamp>,
    /// Only this swarm's events and commands
    #[arg(long, value_name = "ID")]
    pub swarm: Option<SwarmId>,
    /// The log has come to rest: a task without an end and a command without an answer break a promise
    #[arg(long)]
    pub settled: bool,
    /// Make the rows of the read models a second time from the log, and compare the tables with them
    #[arg(long)]
    pub read_model: bool,
    /// Measure how long this service decided nothing while work was waiting
    #[arg(long, value_name = "SERVICE", value_parser = parse_service)]
    pub gaps: Option<Service>,
    /// List the promises and end
    #[arg(long)]
    pub list: bool,
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text)
        .map_err(|error| format!("{error}; give RFC 3339, such as 2026-01-31T12:00:00Z"))
}

fn parse_service(text: &str) -> Result<Service, String> {
    // The scaler decides nothing yet.
    let services = [Service::Coordinator, Service::Distributor, Service::Health];
    services
        .into_iter()
        .find(|service| service.as_str() == text)
        .ok_or_else(|| format!("give one of {}", services.map(Service::as_str).join(", ")))
}

impl Args {
    fn reports(&self, input: &Input) -> bool {
        self.from.is_none_or(|from| input.sequence() >= from)
            && self.since.is_none_or(|since| input.time() >= since)
    }

    /// Whether a message lies behind the range.
    fn is_past(&self, sequence: u64, time: Timestamp) -> bool {
        self.to.is_some_and(|to| sequence > to) || self.until.is_some_and(|until| time > until)
    }

    /// Whether the checker is to meet a message.
    fn concerns(&self, input: &Input) -> bool {
        let Some(swarm) = self.swarm else {
            return true;
        };
        let subject = match input {
            Input::Event(recorded) => Some(&recorded.subject),
            Input::Unreadable(unreadable) => unreadable.subject.as_ref(),
        };
        match subject {
            Some(Subject::Control(_, partition, _)) => {
                *partition == swarm_events::Partition::of(swarm.0)
            }
            Some(subject) => subject.place().is_some_and(|place| place.swarm == swarm),
            None => false,
        }
    }
}

/// Reads the log, prints what it holds and what is broken. Exit code 1 if anything is.
pub async fn run(args: Args, server: &ServerArgs, output: Format) -> Outcome {
    if args.list {
        return report::list(output);
    }
    let target = server.resolve()?;
    let began = Instant::now();
    let log = target.log("audit").await?;
    let info = log.info().await?;
    let mut checker = Checker::default();
    if let Some(service) = args.gaps {
        checker = checker.with_gaps(service);
    }
    let to = args
        .to
        .map_or(info.last_sequence, |to| to.min(info.last_sequence));
    let bar = progress::bar(to, "events");
    let mut reached = 0;
    if info.first_sequence <= to {
        let mut tail = log.tail(filter::all(), info.first_sequence);
        while let Some(item) = tail.next().await {
            let message = match item? {
                Tailed::Message(message) => message,
                Tailed::CaughtUp => break,
                Tailed::Interrupted | Tailed::Resumed => continue,
            };
            let time = Timestamp::from_micros(message.time_micros);
            if message.sequence > to || args.is_past(message.sequence, time) {
                break;
            }
            let input = read(message.sequence, time, &message.subject, &message.payload);
            if args.concerns(&input) {
                checker.meet_reported(&input, args.reports(&input));
            }
            reached = message.sequence;
            if reached.is_multiple_of(BAR_EVERY) {
                bar.set_position(reached);
            }
            if reached == to {
                break;
            }
        }
    }
    bar.finish_and_clear();
    let open = checker.open();
    if args.settled {
        checker.finish(reached);
    }
    let read_model = match args.read_model {
        true => Some(
            verify(&log, database_url(&target)?)
                .await
                .map_err(|error| Failure::failed(error.to_string()))?,
        ),
        false => None,
    };
    let report = Report::new(&args, &info, reached, &checker, &open, read_model, began);
    report.print(output)?;
    let broken = report.broken();
    if broken.is_empty() {
        return Ok(());
    }
    Err(Failure::failed(format!("broken: {}", broken.join(", "))))
}

/// How often the bar moves, in messages.
const BAR_EVERY: u64 = 4_096;

fn database_url(target: &Target) -> Outcome<&str> {
    target
        .database_url
        .as_deref()
        .ok_or_else(|| target.missing("PostgreSQL", "--database-url", "SWARM_DATABASE_URL"))
}

#[cfg(test)]
mod tests {
    use swarm_events::{OrgId, Place, subject::TaskVerb};
    use uuid::Uuid;

    use super::*;

    fn input(swarm: u128, sequence: u64, micros: i64) -> Input {
        let place = Place::new(OrgId(Uuid::from_u128(1)), SwarmId(Uuid::from_u128(swarm)));
        let subject = Subject::Task(place, TaskVerb::Submitted, None);
        read(
            sequence,
            Timestamp::from_micros(micros),
            &subject.to_string(),
            b"{}",
        )
    }

    #[test]
    fn a_range_of_sequences_has_both_its_ends() {
        let args = Args {
            from: Some(5),
            to: Some(6),
            ..Args::default()
        };
        let reported = [4, 5, 6].map(|n| args.reports(&input(1, n, 0)));
        assert_eq!(reported, [false, true, true]);
        let past = [6, 7].map(|n| args.is_past(n, Timestamp::ZERO));
        assert_eq!(past, [false, true]);
    }

    #[test]
    fn a_range_of_times_has_both_its_ends() {
        let args = Args {
            since: Some(Timestamp::from_micros(5)),
            until: Some(Timestamp::from_micros(6)),
            ..Args::default()
        };
        let reported = [4, 5].map(|t| args.reports(&input(1, 1, t)));
        assert_eq!(reported, [false, true]);
        let past = [6, 7].map(|t| args.is_past(1, Timestamp::from_micros(t)));
        assert_eq!(past, [false, true]);
    }

    #[test]
    fn one_swarm_is_what_stands_under_it_and_its_owners_claims() {
        let swarm = SwarmId(Uuid::from_u128(2));
        let args = Args {
            swarm: Some(swarm),
            ..Args::default()
        };
        assert!(args.concerns(&input(2, 1, 0)));
        assert!(!args.concerns(&input(3, 1, 0)));
        let claim = |partition: swarm_events::Partition| {
            let subject = Subject::Control(
                Service::Health,
                partition,
                swarm_events::subject::ControlVerb::Claimed,
            );
            read(1, Timestamp::ZERO, &subject.to_string(), b"{}")
        };
        let own = swarm_events::Partition::of(swarm.0);
        let other = swarm_events::Partition::all()
            .find(|p| *p != own)
            .expect("there are 64");
        assert!(args.concerns(&claim(own)));
        assert!(!args.concerns(&claim(other)));
    }
}
