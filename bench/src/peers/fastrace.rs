//! fastrace: local spans under a root, collected by its background thread, a reporter that only counts.
//!
//! A local span without a local parent is nothing, and a root costs a message to the collector, so an iteration
//! is one root with 99 local spans, and figures are per span.

use super::{Arrivals, some_text};
use crate::case::{Case, Keeper, OpenLevels, Peer, busy, dynamic_names, owned_levels};
use crate::{eight_parents, sixty_four_callsites};
use fastrace::collector::{Config, Reporter, SpanRecord};
use fastrace::future::FutureExt as _;
use fastrace::local::LocalSpan;
use fastrace::prelude::{Span, SpanContext};
use std::cell::RefCell;
use std::hint::black_box;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// All configurations of fastrace.
pub fn peers() -> Vec<Box<dyn Peer>> {
    vec![Box::new(Off), Box::new(On)]
}

macro_rules! open {
    ($name:literal) => {
        LocalSpan::enter_with_local_parent($name)
    };
}
macro_rules! child {
    ($index:expr, $name:literal) => {{
        let _span = open!($name);
        black_box($index);
    }};
}

#[inline(always)]
fn scope0(index: u64) {
    let _span = open!("scope0");
    black_box(index);
}

#[inline(always)]
fn scope2(index: u64) {
    let _span = open!("scope2").with_properties(|| [("index", index.to_string()), ("text", some_text().to_owned())]);
    black_box(index);
}

#[inline(always)]
fn under_root(work: impl FnOnce()) {
    let root = Span::root("root", SpanContext::random());
    let _parent = root.set_local_parent();
    work();
}

#[inline(always)]
fn ninety_nine(index: u64, scope: impl Fn(u64)) {
    under_root(|| (0..99).for_each(|number| scope(index + number)));
}

struct Off;
impl Peer for Off {
    fn name(&self) -> &'static str {
        "fastrace/off"
    }
    fn note(&self) -> &'static str {
        "no reporter set: local spans without a local parent"
    }
    fn cases(&self) -> Vec<Case> {
        // One name: choosing among many is no part of opening a scope.
        let name = black_box(dynamic_names("d")[0].clone());
        vec![
            Case::new("off_scope0", scope0),
            Case::new("off_scope2", scope2),
            Case::new("off_dynamic", move |index| {
                let _span = LocalSpan::enter_with_local_parent(name.clone());
                black_box(index);
            }),
        ]
    }
}

struct On;
impl Peer for On {
    fn name(&self) -> &'static str {
        "fastrace/on"
    }
    fn note(&self) -> &'static str {
        "1 root × 99 local spans; its collector thread builds every span, a reporter counts them; no aggregates; properties are strings; more than 10,240 local spans under one local parent are lost"
    }
    fn set_up(&self) {
        fastrace::set_reporter(Count, Config::default());
    }
    fn flush(&self) {
        // Once for what is in the ring, then as often as something still comes out.
        let mut seen = u64::MAX;
        while seen != ARRIVALS.total() {
            seen = ARRIVALS.total();
            fastrace::flush();
            send_what_waits();
        }
        fastrace::flush();
    }
    fn sustains(&self) -> bool {
        true
    }
    fn cases(&self) -> Vec<Case> {
        let names = dynamic_names("d");
        let hundred = |case: Case| case.operations(100).verify(|ran| ARRIVALS.expect(ran.iterations * 100));
        vec![
            hundred(Case::new("on_scope0", |index| ninety_nine(index, scope0))),
            hundred(Case::new("on_scope2", |index| ninety_nine(index, scope2))),
            Case::new("on_nest5", |index| {
                under_root(|| {
                    for _ in 0..20 {
                        let _first = open!("n1");
                        let _second = open!("n2");
                        let _third = open!("n3");
                        let _fourth = open!("n4");
                        let _fifth = open!("n5");
                        black_box(index);
                    }
                });
            })
            .operations(101)
            .verify(|ran| ARRIVALS.expect(ran.iterations * 101)),
            Case::new("on_many_paths", |index| {
                under_root(|| eight_parents!(open, index, sixty_four_callsites!(child, index)));
            })
            .operations(66)
            .verify(|ran| ARRIVALS.expect(ran.iterations * 66)),
            hundred(Case::new("on_dynamic", move |index| {
                ninety_nine(index, |index| {
                    let _span = LocalSpan::enter_with_local_parent(names[index as usize % 64].clone());
                    black_box(index);
                });
            })),
            Case::poll(|future| future.in_span(Span::root("poll", SpanContext::random())))
                .verify(|ran| ARRIVALS.expect(ran.loops)),
            {
                let mut case = Case::two_threads(|index| ninety_nine(index, scope0));
                case.operations = 100;
                // What waits in a thread when it ends is lost, so its ring must not fill up.
                case.at_most(500).verify(|ran| ARRIVALS.expect(ran.iterations * 100))
            },
            Case::busy_body(|index| {
                // One root for each span would be the root's figure: the parent stays for 100 bodies.
                thread_local!(static ROOT: RefCell<Option<Parent>> = const { RefCell::new(None) });
                if index % 100 == 0 {
                    ROOT.with(|root| {
                        *root.borrow_mut() = None;
                        *root.borrow_mut() = Some(Parent::new());
                    });
                }
                let _span = open!("body");
                busy(index);
            }),
            Case::fresh_threads(|index| under_root(|| scope0(index))),
        ]
    }
    fn keeper(&self) -> Option<Box<dyn Keeper>> {
        Some(Box::new(Keep(Arc::default())))
    }
    fn open_levels(&self) -> Option<OpenLevels> {
        Some(|depth, mark| {
            under_root(|| owned_levels(|| open!("deep"), depth, mark));
        })
    }
}

/// A thread whose ring to the collector was full keeps its commands until it sends another one: a flush does not
/// see them. This sends one that makes no span.
fn send_what_waits() {
    Span::root("cancelled", SpanContext::random()).cancel();
}

/// A root that is the local parent until dropped. The guard goes before the root.
struct Parent {
    _local: fastrace::local::LocalParentGuard,
    _root: Span,
}
impl Parent {
    fn new() -> Parent {
        let root = Span::root("root", SpanContext::random());
        Parent { _local: root.set_local_parent(), _root: root }
    }
}

static ARRIVALS: Arrivals = Arrivals::new();

struct Count;
impl Reporter for Count {
    fn report(&mut self, spans: Vec<SpanRecord>) {
        ARRIVALS.add(black_box(spans).len() as u64);
    }
}

struct Keep(Arc<Mutex<Vec<SpanRecord>>>);
impl Reporter for Keep {
    fn report(&mut self, spans: Vec<SpanRecord>) {
        self.0.lock().expect("no panic under this lock").extend(spans);
    }
}
impl Keeper for Keep {
    fn set_up(&self) {
        fastrace::set_reporter(Keep(self.0.clone()), Config::default().report_interval(Duration::from_millis(100)));
    }
    fn record(&self, roots: u64, children: u64) {
        for _ in 0..roots {
            under_root(|| (0..children).for_each(scope0));
        }
    }
    fn flush(&self) {
        fastrace::flush();
    }
    fn count(&self) -> u64 {
        let counted = {
            let kept = self.0.lock().expect("no panic under this lock");
            kept.iter().filter(|span| !black_box(&span.name).is_empty()).count() as u64
        };
        // After counting, so that the next count finds it and it shows as late.
        send_what_waits();
        fastrace::flush();
        counted
    }
}
