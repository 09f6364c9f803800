//! emit: spans are attributes on functions; completing one makes an event that goes to an emitter inline.

use super::{Arrivals, some_text};
use crate::case::{Case, Endless, OpenLevels, Peer, busy};
use std::hint::black_box;

/// All configurations of emit.
pub fn peers() -> Vec<Box<dyn Peer>> {
    vec![Box::new(Off), Box::new(On)]
}

#[emit::span("scope0")]
fn scope0(index: u64) {
    black_box(index);
}

#[inline(always)]
fn scope2(index: u64) {
    scope2_with(index, some_text());
}

#[emit::span("scope2 {index} {text}")]
fn scope2_with(index: u64, text: &str) {
    black_box(index);
}

#[emit::span("n1")]
fn first(index: u64) {
    second(index);
}
#[emit::span("n2")]
fn second(index: u64) {
    third(index);
}
#[emit::span("n3")]
fn third(index: u64) {
    fourth(index);
}
#[emit::span("n4")]
fn fourth(index: u64) {
    fifth(index);
}
#[emit::span("n5")]
fn fifth(index: u64) {
    black_box(index);
}

#[emit::span("body")]
fn body(index: u64) {
    busy(index);
}

#[emit::span("poll")]
async fn polled(future: Endless) {
    future.await;
}

#[emit::span("deep")]
fn deep(depth: usize, mark: &mut dyn FnMut()) {
    if depth <= 1 {
        mark()
    } else {
        deep(depth - 1, mark)
    }
    // Work after the call, or the levels could become a loop.
    black_box(depth);
}

struct Off;
impl Peer for Off {
    fn name(&self) -> &'static str {
        "emit/off"
    }
    fn note(&self) -> &'static str {
        "set up with a filter that refuses everything"
    }
    fn set_up(&self) {
        let _ = emit::setup().emit_when(emit::filter::from_fn(|_| false)).emit_to(count()).init();
    }
    fn cases(&self) -> Vec<Case> {
        vec![
            Case::new("off_scope0", scope0).verify(|_| ARRIVALS.expect(0)),
            Case::new("off_scope2", scope2).verify(|_| ARRIVALS.expect(0)),
        ]
    }
}

struct On;
impl Peer for On {
    fn name(&self) -> &'static str {
        "emit/on"
    }
    fn note(&self) -> &'static str {
        "the emitter counts span events inline: no aggregates, nothing kept; on_inline is the same configuration"
    }
    fn set_up(&self) {
        let _ = emit::setup().emit_to(count()).init();
    }
    fn cases(&self) -> Vec<Case> {
        let one = |case: Case| case.verify(|ran| ARRIVALS.expect(ran.iterations));
        vec![
            one(Case::new("on_scope0", scope0)),
            one(Case::new("on_scope2", scope2)),
            Case::new("on_nest5", first).operations(5).verify(|ran| ARRIVALS.expect(ran.iterations * 5)),
            one(Case::new("on_inline", scope0)),
            one(Case::new("on_metric_event", |index| emit::emit!("metric {value}", value: index as f64))),
            one(Case::new(
                "on_metric_event2",
                |index| emit::emit!("metric {value}", value: index as f64, index, text: some_text()),
            )),
            // One span per timing loop, completed when the future is dropped.
            Case::poll(polled).verify(|ran| ARRIVALS.expect(ran.loops)),
            one(Case::two_threads(scope0)),
            one(Case::busy_body(body)),
            one(Case::fresh_threads(scope0)),
        ]
    }
    fn sustains(&self) -> bool {
        true
    }
    fn open_levels(&self) -> Option<OpenLevels> {
        // Its guards borrow, so levels can only be opened by recursion; its stack is not in the figure.
        Some(|depth, mark| {
            mark();
            deep(depth, mark);
        })
    }
}

static ARRIVALS: Arrivals = Arrivals::new();

fn count() -> impl emit::Emitter + Send + Sync + 'static {
    emit::emitter::from_fn(|event| {
        black_box(&event);
        ARRIVALS.add(1);
    })
}
