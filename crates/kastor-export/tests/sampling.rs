//! Tail sampling: whole traces are kept or left out, within bounds, and nothing is lost from the counts.

use std::{collections::HashMap, time::Duration};

use kastor_export::{SpanFacts, TailSampler, TailSampling, is_in_ratio};
use proptest::prelude::*;

const NONE: f64 = 0.0;

fn child(trace_id: u128) -> SpanFacts {
    SpanFacts { trace_id, is_local_root: false, duration_ns: 10, is_failed: false, path_id: 2 }
}

fn root(trace_id: u128) -> SpanFacts {
    SpanFacts { is_local_root: true, duration_ns: 1_000, path_id: 1, ..child(trace_id) }
}

/// A sampler, and what it has kept.
struct Kept {
    sampler: TailSampler,
    kept: Vec<String>,
}

impl Kept {
    fn new(config: TailSampling) -> Self {
        Self { sampler: TailSampler::new(config), kept: Vec::new() }
    }
    fn offer(&mut self, span: SpanFacts, payload: &str) {
        let kept = &mut self.kept;
        self.sampler
            .offer(span, payload.as_bytes(), &mut |bytes| kept.push(String::from_utf8(bytes.to_vec()).unwrap()));
    }
    fn expire(&mut self, now: Duration) {
        let kept = &mut self.kept;
        self.sampler.expire(now.as_nanos() as u64, &mut |bytes| {
            kept.push(String::from_utf8(bytes.to_vec()).unwrap());
        });
    }
}

#[test]
fn a_failed_child_keeps_its_whole_trace_in_order_and_others_go() {
    let mut traces = Kept::new(TailSampling::ratio_only(NONE).keep_failed(true));
    traces.offer(child(1), "1a");
    traces.offer(child(2), "2a");
    traces.offer(SpanFacts { is_failed: true, ..child(1) }, "1b");
    assert_eq!((traces.sampler.waiting_spans(), traces.sampler.waiting_traces(), traces.kept.len()), (3, 2, 0));
    traces.offer(root(2), "2r");
    traces.offer(root(1), "1r");
    assert_eq!(traces.kept, ["1a", "1b", "1r"]);
    assert_eq!((traces.sampler.kept(), traces.sampler.sampled_out(), traces.sampler.waiting_spans()), (3, 2, 0));
    assert_eq!(traces.sampler.waiting_bytes(), 0);
}

#[test]
fn late_children_follow_the_decision() {
    let mut traces = Kept::new(TailSampling::ratio_only(NONE).keep_failed(true));
    traces.offer(SpanFacts { is_failed: true, ..root(1) }, "1r");
    traces.offer(root(2), "2r");
    traces.offer(child(1), "1late");
    traces.offer(SpanFacts { is_failed: true, ..child(2) }, "2late");
    traces.offer(root(1), "1again");
    assert_eq!(traces.kept, ["1r", "1late", "1again"]);
    assert_eq!((traces.sampler.sampled_out(), traces.sampler.waiting_spans()), (2, 0));
}

#[test]
fn slow_roots_are_kept_and_slow_children_alone_are_not() {
    let mut traces = Kept::new(TailSampling::ratio_only(NONE).slower_than(Duration::from_micros(1)));
    traces.offer(SpanFacts { duration_ns: 5_000, ..child(1) }, "slow child");
    traces.offer(root(1), "as long as the limit");
    traces.offer(SpanFacts { duration_ns: 1_001, ..root(2) }, "slow");
    assert_eq!(traces.kept, ["slow"]);
}

#[test]
fn a_root_is_slow_for_its_own_path() {
    let mut traces = Kept::new(TailSampling::ratio_only(NONE).slower_than_quantile(Some(0.99)));
    for trace in 0..1_000_u128 {
        // One path takes 1 µs, another 1 ms, both within 3 %.
        let jitter = trace as u64 % 30;
        traces.offer(SpanFacts { duration_ns: 1_000 + jitter, path_id: 1, ..root(2 * trace + 1) }, "fast path");
        let slow_path = SpanFacts { duration_ns: (1_000 + jitter) * 1_000, path_id: 2, ..root(2 * trace + 2) };
        traces.offer(slow_path, "slow path");
    }
    assert_eq!(traces.kept.len(), 0, "an even stream has no slow ones");
    traces.offer(SpanFacts { duration_ns: 2_000, path_id: 1, ..root(1 << 60) }, "slow for the fast path");
    traces.offer(SpanFacts { duration_ns: 2_000, path_id: 2, ..root(1 << 61) }, "fast for the slow path");
    assert_eq!(traces.kept, ["slow for the fast path"]);
}

#[test]
fn a_quantile_keeps_about_its_share() {
    let mut sampler = TailSampler::new(TailSampling::ratio_only(NONE).slower_than_quantile(Some(0.9)));
    let mut kept = 0;
    for trace in 0..20_000_u128 {
        // A permutation of 0..1000, again and again.
        let duration_ns = 10_000 + (trace as u64 * 387 % 1_000) * 100;
        sampler.offer(SpanFacts { duration_ns, ..root(trace + 1) }, b"", &mut |_| kept += 1);
    }
    assert!((1_000..=2_000).contains(&kept), "{kept} of 20,000");
}

#[test]
fn the_first_traces_of_a_path_in_every_period_are_kept() {
    let mut traces = Kept::new(TailSampling::ratio_only(NONE).keep_rare(2, Duration::from_secs(60)));
    let mut id = 0;
    for (second, names) in [(0, ["a", "b", "c"]), (59, ["d", "e", "f"]), (60, ["g", "h", "i"])] {
        traces.expire(Duration::from_secs(second));
        for name in names {
            id += 1;
            traces.offer(root(id), name);
        }
    }
    traces.offer(SpanFacts { path_id: 9, ..root(100) }, "another path");
    assert_eq!(traces.kept, ["a", "b", "g", "h", "another path"]);
}

#[test]
fn a_trace_whose_root_does_not_close_is_decided_in_time() {
    let config = TailSampling::ratio_only(NONE).keep_failed(true).max_wait(Duration::from_secs(30));
    let mut traces = Kept::new(config);
    traces.offer(SpanFacts { is_failed: true, ..child(1) }, "failed");
    traces.offer(child(2), "plain");
    traces.expire(Duration::from_secs(1_000));
    traces.offer(child(3), "later");
    traces.expire(Duration::from_secs(1_029));
    assert_eq!(
        (traces.kept.len(), traces.sampler.waiting_traces()),
        (0, 3),
        "the time runs from the first look at a clock"
    );
    traces.expire(Duration::from_secs(1_030));
    assert_eq!((traces.kept.as_slice(), traces.sampler.sampled_out()), (["failed".to_owned()].as_slice(), 2));
    traces.offer(child(1), "follows");
    assert_eq!(traces.kept, ["failed", "follows"]);
}

#[test]
fn bounds_decide_the_oldest_early() {
    let mut traces = Kept::new(TailSampling::ratio_only(1.0).max_traces(2));
    for trace in 1..=3 {
        traces.offer(child(trace), &format!("{trace}"));
    }
    assert_eq!((traces.kept.as_slice(), traces.sampler.waiting_traces()), (["1".to_owned()].as_slice(), 2));

    let mut traces = Kept::new(TailSampling::ratio_only(1.0).max_bytes(4_000));
    let large = "x".repeat(3_000);
    traces.offer(child(1), &large);
    assert_eq!(traces.kept.len(), 0);
    traces.offer(child(2), &large);
    assert_eq!((traces.kept.len(), traces.sampler.waiting_traces()), (1, 1));
    traces.offer(child(2), &large);
    assert_eq!(
        (traces.kept.len(), traces.sampler.waiting_bytes()),
        (3, 0),
        "one that is too large alone is decided too"
    );
    traces.sampler.finish(&mut |_| {});
    assert_eq!(traces.sampler.kept(), 3);
}

#[test]
fn finishing_decides_all_and_clearing_forgets_all() {
    let mut traces = Kept::new(TailSampling::ratio_only(1.0));
    traces.offer(child(1), "a");
    traces.offer(child(2), "b");
    let mut kept = 0;
    traces.sampler.finish(&mut |_| kept += 1);
    assert_eq!((kept, traces.sampler.waiting_spans(), traces.sampler.waiting_bytes()), (2, 0, 0));
    traces.offer(child(3), "c");
    traces.sampler.clear();
    assert_eq!((traces.sampler.kept(), traces.sampler.waiting_spans(), traces.sampler.waiting_bytes()), (0, 0, 0));
}

#[test]
fn the_ratio_looks_at_the_lower_56_bits_alone_and_at_exact_bounds() {
    let half = 1_u128 << 55;
    assert!(is_in_ratio(half, 0.5));
    assert!(!is_in_ratio(half - 1, 0.5));
    assert!(is_in_ratio(u128::MAX, f64::MIN_POSITIVE * 1e300) && !is_in_ratio(0, 0.999_999));
    assert!(!is_in_ratio(u128::MAX << 56, 0.5), "higher bits do not count");
    for ratio in [0.0, -1.0, f64::NAN] {
        assert!(!is_in_ratio(u128::MAX, ratio), "{ratio}");
    }
    for ratio in [1.0, 2.0, f64::INFINITY] {
        assert!(is_in_ratio(0, ratio), "{ratio}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_a_smaller_ratio_keeps_a_larger_one_keeps(id: u128, a in 0.0..=1.0_f64, b in 0.0..=1.0_f64) {
        prop_assert!(!is_in_ratio(id, a.min(b)) || is_in_ratio(id, a.max(b)));
    }

    #[test]
    fn every_span_is_kept_left_out_or_waits_and_no_trace_is_split_within_the_bounds(
        spans in prop::collection::vec((0_u128..40, any::<bool>(), any::<bool>(), 0_usize..200), 0..400),
        ratio in prop_oneof![Just(0.0), Just(1.0), 0.0..1.0_f64],
    ) {
        let mut sampler = TailSampler::new(TailSampling::default().ratio(ratio));
        let mut kept: HashMap<u128, u64> = HashMap::new();
        let mut offered: HashMap<u128, u64> = HashMap::new();
        for (trace, is_local_root, is_failed, bytes) in spans.iter().copied() {
            let trace_id = trace.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834);
            let mut payload = trace.to_le_bytes().to_vec();
            payload.resize(16 + bytes, 7);
            let span = SpanFacts { is_local_root, is_failed, ..child(trace_id) };
            *offered.entry(trace).or_default() += 1;
            sampler.offer(span, &payload, &mut |kept_payload| {
                let trace = u128::from_le_bytes(kept_payload[..16].try_into().unwrap());
                *kept.entry(trace).or_default() += 1;
            });
        }
        let count = spans.len() as u64;
        prop_assert_eq!(sampler.kept() + sampler.sampled_out() + sampler.waiting_spans(), count);
        prop_assert_eq!(kept.values().sum::<u64>(), sampler.kept());
        sampler.finish(&mut |payload| {
            *kept.entry(u128::from_le_bytes(payload[..16].try_into().unwrap())).or_default() += 1;
        });
        prop_assert_eq!((sampler.kept() + sampler.sampled_out(), sampler.waiting_bytes()), (count, 0));
        for (trace, spans) in kept {
            prop_assert_eq!(spans, offered[&trace], "trace {} is whole", trace);
        }
    }

    #[test]
    fn memory_stays_within_the_bounds(
        spans in prop::collection::vec((0_u128..1_000, 0_usize..2_000), 0..500),
        max_bytes in 0_usize..50_000,
        max_traces in 1_usize..50,
    ) {
        let config = TailSampling::ratio_only(0.5).max_bytes(max_bytes).max_traces(max_traces);
        let mut sampler = TailSampler::new(config);
        for (trace, bytes) in spans {
            sampler.offer(child(trace << 50), &vec![0; bytes], &mut |_| {});
            prop_assert!(sampler.waiting_bytes() <= max_bytes && sampler.waiting_traces() <= max_traces);
        }
    }
}
