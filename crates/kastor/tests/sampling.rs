//! Head sampling: which traces batch reporters are to keep, while the aggregates stay exact.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use kastor::{Batch, Carrier, Error, Reporter, Sampler, Telemetry, TraceParent, background, scope};

const SECOND: Duration = Duration::from_secs(1);

/// Keeps (scope, whether it is sampled, trace id).
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<(String, bool, u128)>>>);

impl Kept {
    fn take(&self) -> Vec<(String, bool, u128)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Reporter for Kept {
    fn record_batch(&self, batch: &Batch<'_>) -> Result<(), Error> {
        let events = batch.timings().map(|it| (it.scope().to_owned(), it.is_sampled(), it.trace_id()));
        self.0.lock().unwrap().extend(events);
        Ok(())
    }
}

fn sampled_by(sampler: Sampler) -> (Telemetry, Kept) {
    let kept = Kept::default();
    (Telemetry::builder().reporter(background(kept.clone())).sampler(sampler).build(), kept)
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn a_share_keeps_whole_traces_and_leaves_the_aggregates_exact() {
    let (tele, kept) = sampled_by(Sampler::ratio(0.25));
    for _ in 0..4_000 {
        let _root = scope!(tele, "root");
        let _child = scope!(tele, "child");
    }
    assert!(tele.flush(SECOND * 10).is_complete());
    let events = kept.take();
    assert_eq!(events.len(), 8_000, "every event reaches the reporter, which is told what to leave out");
    let threshold = (1_u128 << 56) * 3 / 4;
    for (_, is_sampled, trace_id) in &events {
        assert_eq!(*is_sampled, trace_id % (1 << 56) >= threshold);
    }
    let sampled = events.iter().filter(|event| event.1).count();
    assert!((1_700..2_300).contains(&sampled), "{sampled} of 8000 at a quarter");
    assert_eq!(tele.report().scope("root.child").map(|child| child.calls()), Some(4_000));
}

#[test]
fn what_is_carried_elsewhere_carries_the_decision() {
    let (tele, kept) = sampled_by(Sampler::NEVER);
    let root = scope!(tele, "root");
    let carrier = root.carrier();
    assert!(!carrier.is_sampled() && !Carrier::current().is_sampled());
    assert!(!carrier.trace_parent().unwrap().is_sampled());
    let elsewhere = tele.clone();
    std::thread::spawn(move || {
        let _attached = carrier.attach();
        let _scope = scope!(elsewhere, "elsewhere");
    })
    .join()
    .unwrap();
    drop(root);
    assert!(tele.flush(SECOND * 10).is_complete());
    assert!(kept.take().iter().all(|(_, is_sampled, _)| !is_sampled));
}

#[test]
fn a_remote_parent_decides_unless_it_is_ignored() {
    let parent = |flags| TraceParent::parse(&format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}"));
    let sampled_under = |sampler, flags| {
        let (tele, kept) = sampled_by(sampler);
        let _attached = Carrier::from_trace_parent(&parent(flags).unwrap()).attach();
        drop(scope!(tele, "serve"));
        assert!(tele.flush(SECOND * 10).is_complete());
        kept.take()[0].1
    };
    assert!(sampled_under(Sampler::NEVER, "01") && !sampled_under(Sampler::ALWAYS, "00"));
    assert!(!sampled_under(Sampler::NEVER.ignoring_parents(), "01"));
    assert!(sampled_under(Sampler::ALWAYS.ignoring_parents(), "00"));
    assert!(sampled_under(Sampler::per_second(1e-9), "01"));
}

#[test]
fn a_rate_keeps_so_many_roots_with_all_that_is_below_them() {
    // One trace in 30 years: the first of them, whatever this machine's pace.
    let (tele, kept) = sampled_by(Sampler::per_second(1e-9));
    for _ in 0..50 {
        let root = scope!(tele, "root");
        let child = scope!(tele, "child", number = 1);
        let expected = child.carrier().is_sampled();
        assert_eq!(root.carrier().is_sampled(), expected);
    }
    assert!(tele.flush(SECOND * 10).is_complete());
    let sampled: Vec<_> = kept.take().into_iter().filter(|event| event.1).collect();
    assert_eq!(sampled.iter().map(|event| event.0.as_str()).collect::<Vec<_>>(), ["root.child", "root"]);
    assert_eq!(sampled[0].2, sampled[1].2, "one trace");
    assert_eq!(tele.report().scope("root.child").map(|child| child.calls()), Some(50));
}
