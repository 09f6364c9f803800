//! Kept records made into batches again: exact for what the core wrote, harmless for everything else.

use std::time::Duration;

use kastor::{
    Anchor, Event, Histogram, MetricType, MockClock, Number, Process, Recording, Telemetry, Value, metric, scope,
};
use kastor_export::capture::{Kept, KeptRecords, KeptScope, KeptSeries, kept_histogram};

const LONG: Duration = Duration::from_secs(30);

/// Everything about an event that a getter tells.
fn everything(event: &Event<'_>) -> String {
    match event {
        Event::Timing(it) => {
            let points: Vec<_> = it
                .events()
                .map(|event| (event.name(), event.unix_ns(), event.attributes().collect::<Vec<_>>()))
                .collect();
            format!(
                "{it:?} {:?} {:?} {:x} {:x} {:?} {points:?} {:?} {} {}",
                it.parent_scope(),
                it.start_unix_ns(),
                it.trace_id(),
                it.span_id(),
                it.parent_span_id(),
                it.links().collect::<Vec<_>>(),
                it.dropped_items(),
                it.is_sampled(),
            )
        }
        Event::Metric(it) => format!("{it:?} {} {:?} {:?}", it.unix_ns(), it.trace_id(), it.parent_span_id()),
    }
}

/// What was kept of a batch, and its events in words.
struct Batch {
    records: Vec<u8>,
    flows: Vec<u8>,
    prefix: u64,
    anchor: Anchor,
    ns_per_tick: f64,
    names: Vec<(u32, &'static str)>,
    paths: Vec<(u32, Option<u32>, &'static str)>,
    words: Vec<String>,
}

impl Batch {
    fn records<'a>(&'a self, records: &'a [u8], flows: &'a [u8]) -> KeptRecords<'a> {
        let Batch { prefix, anchor, ns_per_tick, .. } = *self;
        KeptRecords { thread: 1, id_prefix: prefix, anchor, ns_per_tick, records, flows }
    }
}

/// The batches of ten events, which differ in all that records can differ in.
fn kept() -> Vec<Batch> {
    let clock = MockClock::new();
    let recording = Recording::new(1 << 20);
    let telemetry = Telemetry::builder().clock(clock.clone()).reporter(recording.clone()).build();
    {
        let _current = telemetry.override_current();
        for turn in 0..3_u64 {
            let job = scope!("job", turn = turn, text = "some text", raw = &[1_u8, 2, 3][..]);
            clock.advance(Duration::from_nanos(100));
            job.event_with("begun", &[("at", 0.5.into())]);
            let parse = scope!("parse");
            let remote = kastor::TraceParent::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
            parse.link(kastor::Carrier::from_trace_parent(&remote));
            parse.fail("bad");
            metric!("size", "large");
            clock.advance(Duration::from_secs(5));
        }
        let remote = kastor::TraceParent::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        let _attached = kastor::Carrier::from_trace_parent(&remote).attach();
        drop(scope!("serve"));
    }
    assert!(telemetry.flush(LONG).is_complete());
    let mut all = Vec::new();
    recording.for_each_batch(|batch| {
        all.push(Batch {
            records: batch.record_bytes().to_vec(),
            flows: batch.flow_bytes().to_vec(),
            prefix: batch.id_prefix(),
            anchor: batch.anchor(),
            ns_per_tick: batch.timeline().ns_per_tick(),
            names: batch.new_names(4).collect(),
            paths: batch.new_paths(0).collect(),
            words: batch.events().map(|event| everything(&event)).collect(),
        });
    });
    all
}

/// A replay that knows the names and paths under numbers that are not the process's own.
fn knowing(kept: &Batch) -> Kept {
    let mut replay = Kept::new(Process { id: 7, instance_id: 8 });
    for (number, text) in &kept.names {
        replay.name(*number, text);
    }
    for (number, above, name) in &kept.paths {
        replay.path(*number, above.unwrap_or(0), name);
    }
    replay.thread(1, 99, "worker");
    replay
}

#[test]
fn what_the_core_wrote_comes_back_exactly() {
    let mut events = 0;
    for kept in kept() {
        let mut replay = knowing(&kept);
        let batch = replay.batch(&kept.records(&kept.records, &kept.flows));
        assert_eq!(batch.events().map(|event| everything(&event)).collect::<Vec<_>>(), kept.words);
        assert_eq!(batch.len(), kept.words.len() as u64);
        assert_eq!((batch.process().id, batch.thread().os_id(), batch.thread().name()), (7, 99, "worker"));
        events += batch.len();
    }
    assert_eq!(events, 10);
}

#[test]
fn without_the_tables_everything_is_unknown_and_nothing_breaks() {
    for kept in kept() {
        let mut replay = Kept::default();
        let batch = replay.batch(&kept.records(&kept.records, &[]));
        assert_eq!(batch.len(), kept.words.len() as u64);
        assert!(batch.timings().all(|timing| timing.scope() == "(unknown)"));
    }
}

#[test]
fn bytes_from_anywhere_are_read_as_far_as_they_mean_something() {
    let all = kept();
    let mut replay = knowing(&all[0]);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for round in 0..20_000 {
        let kept = &all[round % all.len()];
        let mut records = kept.records.clone();
        let mut flows = kept.flows.clone();
        for _ in 0..=round % 4 {
            let at = next() as usize % records.len();
            records[at] = next() as u8;
            let at = next() as usize % flows.len().max(1);
            flows.get_mut(at).into_iter().for_each(|byte| *byte = next() as u8);
        }
        records.truncate(records.len() - next() as usize % 64);
        let mut parts = kept.records(&records, &flows);
        if round % 3 == 0 {
            parts.ns_per_tick = f64::from_bits(next());
            parts.anchor = Anchor { ticks: next(), monotonic_ns: next(), unix_ns: next() };
        }
        let batch = replay.batch(&parts);
        let words: usize = batch.events().map(|event| everything(&event).len()).sum();
        assert!(batch.record_bytes().len() <= records.len() && words < 1 << 20);
    }
}

#[test]
fn counts_of_what_was_left_out_are_added_up_without_an_overflow() {
    // A timing with two items that each say that as much as possible was left out (tag 19, one word).
    let item = [19 << 32 | 8 << 40, u64::MAX];
    let words = [1 | 32 << 32 | 1 << 40 | 8 << 48, 1, 1 << 32, 0, item[0], item[1], item[0], item[1]];
    let records: Vec<u8> = words.iter().flat_map(|word: &u64| word.to_le_bytes()).collect();
    let kept = KeptRecords {
        thread: 1,
        id_prefix: 1,
        anchor: Anchor { ticks: 0, monotonic_ns: 0, unix_ns: 0 },
        ns_per_tick: 1.0,
        records: &records,
        flows: &[],
    };
    let mut replay = Kept::default();
    let batch = replay.batch(&kept);
    assert_eq!(batch.timings().map(|timing| timing.dropped_items()).collect::<Vec<_>>(), [u64::MAX]);
}

#[test]
fn items_beyond_the_limit_are_left_out() {
    let mut records = Vec::new();
    let items = 60_000_u64;
    let words = [1 | 32 << 32 | 1 << 40 | (4 + items) << 48, 1, 1 << 32, 0];
    words.iter().for_each(|word: &u64| records.extend_from_slice(&word.to_le_bytes()));
    (0..items).for_each(|key| records.extend_from_slice(&(key + 4).to_le_bytes()));
    let kept = KeptRecords {
        thread: 1,
        id_prefix: 1,
        anchor: Anchor { ticks: 0, monotonic_ns: 0, unix_ns: 0 },
        ns_per_tick: 1.0,
        records: &records,
        flows: &[],
    };
    let mut replay = Kept::default();
    (0..items).for_each(|number| replay.name(number as u32 + 4, &format!("k{}", number % 300)));
    let batch = replay.batch(&kept);
    assert_eq!(batch.timings().next().unwrap().attributes().count(), 256);
}

#[test]
fn counts_of_what_was_dropped_stop_at_the_largest_number() {
    // Two items that say how much was dropped, which only an enemy writes.
    let words = [1 | 32 << 32 | 1 << 40 | 8 << 48, 1, 1 << 32, 0, 19 << 32 | 8 << 40, u64::MAX, 19 << 32 | 8 << 40, 2];
    let records: Vec<u8> = words.iter().flat_map(|word: &u64| word.to_le_bytes()).collect();
    let anchor = Anchor { ticks: 0, monotonic_ns: 0, unix_ns: 0 };
    let kept = KeptRecords { thread: 1, id_prefix: 1, anchor, ns_per_tick: 1.0, records: &records, flows: &[] };
    let mut replay = Kept::default();
    let batch = replay.batch(&kept);
    assert_eq!(batch.timings().map(|timing| timing.dropped_items()).collect::<Vec<_>>(), [u64::MAX]);
}

#[test]
fn sums_come_back_as_a_snapshot() {
    let mut durations = Histogram::default();
    [100.0, 200.0].iter().for_each(|value| durations.record(*value));
    let mut replay = Kept::new(Process { id: 7, instance_id: 8 });
    replay.path(1, 0, "a.b");
    replay.path(2, 1, "c");
    let scope = KeptScope {
        path: "a.b.c",
        calls: 2,
        errors: 1,
        total_ns: 300,
        self_ns: 250,
        durations_ns: durations.clone(),
        exemplar: None,
    };
    let series = KeptSeries {
        path: "a.b.rows",
        labels: vec![("kind", Value::Str("csv"))],
        metric_type: MetricType::Counter,
        calls: 3,
        sum: Number::Integer(7),
        is_monotonic: true,
        last: None,
        extremes: (None, None),
        values: Histogram::default(),
        unit: Some("row"),
        help: None,
    };
    let snapshot = replay.snapshot((5, 9), [scope], [series]);
    let scope = &snapshot.scopes()[0];
    assert_eq!((scope.path(), scope.depth(), scope.parent(), scope.name()), ("a.b.c", 1, Some("a.b"), "c"));
    assert_eq!((scope.calls(), scope.errors(), scope.durations_ns()), (2, 1, &durations));
    let series = &snapshot.series()[0];
    assert_eq!((series.path(), series.sum(), series.unit()), ("a.b.rows", Number::Integer(7), Some("row")));
    assert_eq!(series.labels().collect::<Vec<_>>(), [("kind", Value::Str("csv"))]);
    assert_eq!((snapshot.start_unix_ns(), snapshot.unix_ns()), (5, 9));
}

#[test]
fn kept_histograms_are_what_they_were_and_never_overflow() {
    let mut histogram = Histogram::default();
    [-3.0, 0.0, 1.5, 1e9, f64::NAN].iter().for_each(|value| histogram.record(*value));
    let side = |buckets: &kastor::Buckets| (buckets.offset(), buckets.counts().to_vec());
    let again = kept_histogram(
        [side(histogram.positive()), side(histogram.negative())],
        (histogram.zeros(), histogram.not_finite()),
        histogram.sum(),
        histogram.min().zip(histogram.max()),
    );
    assert_eq!(again, histogram);
    for (offset, extremes) in [(i32::MAX, (0.0, f64::NAN)), (i32::MIN, (2.0, 1.0)), (-7, (f64::NEG_INFINITY, 3.0))] {
        let hostile = (offset, vec![u64::MAX; 5000]);
        let mut merged =
            kept_histogram([hostile.clone(), hostile], (u64::MAX, u64::MAX), f64::INFINITY, Some(extremes));
        for _ in 0..100 {
            let other = merged.clone();
            merged = kept_histogram([(0, vec![1]), (0, vec![])], (0, 0), 1.0, Some((1.0, 1.0)));
            merged.merge(&other);
            merged.record(1e300);
            let _ = [0.0, 0.5, 1.0].map(|q| merged.quantile(q));
        }
    }
}
