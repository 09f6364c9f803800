//! A process with a spool is killed again and again while it sends, and an observer outside remembers what it said was
//! durable, and what arrived.
//!
//! A few rounds by default, 1,000 with `KASTOR_DEEP=1`.
#![cfg(all(unix, feature = "otlp"))]

mod other_side;
mod support;

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader},
    sync::{Arc, Mutex},
    time::Duration,
};

use kastor::{Telemetry, scope};
use kastor_export::{Otlp, OtlpConfig, OtlpReplay, Retry, SpoolConfig};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use other_side::{
    LONG,
    server::{Received, Reply, Server},
};
use support::{again, child_of};

/// Events of a request.
const BATCH: u64 = 20;
/// Rounds have numbers of their own.
const OF_ROUND: u64 = 1 << 20;

#[test]
fn nothing_that_was_durable_is_lost_and_at_most_one_batch_comes_twice_for_each_time_it_is_killed() {
    const NAME: &str = "nothing_that_was_durable_is_lost_and_at_most_one_batch_comes_twice_for_each_time_it_is_killed";
    if let Some(orders) = child_of(NAME) {
        let words: Vec<&str> = orders.split('|').collect();
        return record_for_ever(words[0], words[1], words[2].parse().unwrap());
    }
    let rounds: u64 = if std::env::var_os("KASTOR_DEEP").is_some_and(|set| set == "1") { 1_000 } else { 12 };
    let folder = tempfile::tempdir().unwrap();
    let arrived: Arc<Mutex<HashMap<u64, u32>>> = Arc::default();
    let counted = Arc::clone(&arrived);
    let server = Server::scripted(move |received, before| {
        // Each fourth request finds it busy, so that something is always waiting on the disk.
        if before % 4 == 3 {
            return Reply::status(503);
        }
        let mut arrived = counted.lock().unwrap();
        numbers(received).for_each(|number| *arrived.entry(number).or_default() += 1);
        Reply::Ok
    });

    let mut kept = Vec::new();
    for round in 0..rounds {
        let orders = format!("{}|{}|{}", server.url(), folder.path().display(), round * OF_ROUND);
        let mut child = again(NAME, &orders).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = 0;
        // What it wrote to the pipe before it died is still read.
        for line in lines.by_ref() {
            let line = line.unwrap();
            let Some(next) = line.strip_prefix("kept ") else { continue };
            said += 1;
            let next: u64 = next.parse().unwrap();
            kept.retain(|(first, _)| *first != round * OF_ROUND);
            kept.push((round * OF_ROUND, next));
            if said == 1 + round % 7 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(said > round % 7, "it ended by itself in round {round}");
    }
    // What is left on the disk.
    server.script(|_, _| Reply::Ok);
    let before = server.received().len();
    let replay = OtlpReplay::new(OtlpConfig::new(server.url())).unwrap();
    let sent = replay.spool(&SpoolConfig::new(folder.path())).unwrap();
    assert_eq!((sent.corrupt, sent.left, sent.refused), (0, 0, 0), "{sent:?}");
    let mut arrived = arrived.lock().unwrap();
    for received in server.received_since(before) {
        numbers(&received).for_each(|number| *arrived.entry(number).or_default() += 1);
    }

    assert_eq!(kept.len() as u64, rounds);
    let owed: Vec<u64> = kept.iter().flat_map(|(first, next)| *first..*next).collect();
    let lost: Vec<u64> = owed.iter().copied().filter(|number| !arrived.contains_key(number)).collect();
    assert_eq!(lost, Vec::<u64>::new(), "{} of {} durable events are lost", lost.len(), owed.len());
    let twice: u64 = arrived.values().map(|times| u64::from(times - 1)).sum();
    assert!(twice <= rounds * BATCH, "{twice} events came twice in {rounds} rounds of {BATCH} each");
    println!("{rounds} times killed: {} durable events, 0 lost, {twice} came twice", owed.len());
}

/// The process that is killed: says up to which number everything is durable.
fn record_for_ever(url: &str, folder: &str, first: u64) {
    let retry = Retry { initial: Duration::from_millis(1), longest: Duration::from_millis(4), ..Retry::default() };
    let config = OtlpConfig::new(url).retry(retry).without_metrics().linger(Duration::from_millis(1));
    let spool = SpoolConfig::new(folder).max_segment_bytes(16 << 10);
    let otlp = Otlp::new(config.max_request_events(BATCH).spool(spool)).unwrap();
    let tele = Telemetry::builder().reporter(otlp).build();
    let _current = tele.override_current();
    for next in (first..).step_by(50).skip(1) {
        (next - 50..next).for_each(|number| drop(scope!("step", number = number)));
        assert!(tele.persist(LONG).is_complete());
        println!("kept {next}");
    }
}

fn numbers(received: &Received) -> impl Iterator<Item = u64> {
    let spans = received.traces().into_iter().flat_map(|request| request.resource_spans);
    let spans = spans.flat_map(|it| it.scope_spans).flat_map(|it| it.spans);
    spans.map(|span| {
        let number = span.attributes.iter().find(|attribute| attribute.key == "number");
        match number.and_then(|number| number.value.as_ref()?.value.clone()) {
            Some(Value::IntValue(number)) => number as u64,
            other => panic!("{other:?} as a number"),
        }
    })
}
