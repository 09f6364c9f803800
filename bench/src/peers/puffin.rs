//! puffin: scopes of a thread are handed over when its outermost scope closes, and to the sinks once per frame.
//!
//! An iteration is one frame: a root with 999 scopes; figures are per scope. A scope has one string for data, so
//! two attributes are formatted into one.

use super::{Arrivals, some_text};
use crate::case::{Case, Keeper, OpenLevels, Peer, busy, owned_levels};
use crate::{eight_parents, sixty_four_callsites};
use puffin::{FrameData, GlobalProfiler, Reader, profile_scope_custom};
use std::hint::black_box;
use std::sync::{Arc, Mutex};

/// All configurations of puffin.
pub fn peers() -> Vec<Box<dyn Peer>> {
    vec![Box::new(Off), Box::new(On)]
}

macro_rules! open {
    ($name:literal) => {
        profile_scope_custom!($name)
    };
}
macro_rules! child {
    ($index:expr, $name:literal) => {{
        let _scope = open!($name);
        black_box($index);
    }};
}

#[inline(always)]
fn scope0(index: u64) {
    let _scope = open!("scope0");
    black_box(index);
}

#[inline(always)]
fn scope2(index: u64) {
    let _scope = profile_scope_custom!("scope2", format!("index={index} text={}", some_text()));
    black_box(index);
}

#[inline(always)]
fn frame(work: impl FnOnce()) {
    {
        let _root = open!("root");
        work();
    }
    GlobalProfiler::lock().new_frame();
}

struct Off;
impl Peer for Off {
    fn name(&self) -> &'static str {
        "puffin/off"
    }
    fn note(&self) -> &'static str {
        "set_scopes_on(false)"
    }
    fn cases(&self) -> Vec<Case> {
        vec![Case::new("off_scope0", scope0), Case::new("off_scope2", scope2)]
    }
}

struct On;
impl Peer for On {
    fn name(&self) -> &'static str {
        "puffin/on"
    }
    fn note(&self) -> &'static str {
        "1 root × 999 scopes and one new_frame; a sink counts the scopes of each frame and drops it; no aggregates"
    }
    fn set_up(&self) {
        puffin::set_scopes_on(true);
        GlobalProfiler::lock().add_sink(Box::new(|frame| ARRIVALS.add(frame.meta().num_scopes as u64)));
    }
    fn flush(&self) {
        GlobalProfiler::lock().new_frame();
    }
    fn sustains(&self) -> bool {
        true
    }
    fn cases(&self) -> Vec<Case> {
        let thousand = |case: Case| case.operations(1000).verify(|ran| ARRIVALS.expect(ran.iterations * 1000));
        vec![
            thousand(Case::new("on_scope0", |index| frame(|| (index..index + 999).for_each(scope0)))),
            thousand(Case::new("on_scope2", |index| frame(|| (index..index + 999).for_each(scope2)))),
            Case::new("on_nest5", |index| {
                frame(|| {
                    for _ in 0..200 {
                        let _first = open!("n1");
                        let _second = open!("n2");
                        let _third = open!("n3");
                        let _fourth = open!("n4");
                        let _fifth = open!("n5");
                        black_box(index);
                    }
                });
            })
            .operations(1001)
            .verify(|ran| ARRIVALS.expect(ran.iterations * 1001)),
            Case::new("on_many_paths", |index| {
                frame(|| {
                    for parent in index..index + 8 {
                        eight_parents!(open, parent, sixty_four_callsites!(child, index));
                    }
                });
            })
            .operations(1 + 8 * 65)
            .verify(|ran| ARRIVALS.expect(ran.iterations * (1 + 8 * 65))),
            thousand({
                let mut case = Case::two_threads(|index| frame(|| (index..index + 999).for_each(scope0)));
                case.operations = 1000;
                case
            }),
            // Frames are those of the flush: the body is outermost, so each of its scopes is handed over by itself.
            Case::busy_body(|index| {
                let _scope = open!("body");
                busy(index);
            })
            .verify(|ran| ARRIVALS.expect(ran.iterations)),
            Case::fresh_threads(scope0).verify(|ran| ARRIVALS.expect(ran.iterations)),
        ]
    }
    fn keeper(&self) -> Option<Box<dyn Keeper>> {
        Some(Box::new(Keep(Arc::default())))
    }
    fn open_levels(&self) -> Option<OpenLevels> {
        Some(|depth, mark| owned_levels(|| open!("deep"), depth, mark))
    }
}

static ARRIVALS: Arrivals = Arrivals::new();

/// Keeps every frame; a frame holds about 10,000 scopes.
struct Keep(Arc<Mutex<Vec<Arc<FrameData>>>>);

impl Keeper for Keep {
    fn set_up(&self) {
        puffin::set_scopes_on(true);
        let frames = self.0.clone();
        let sink = move |frame| frames.lock().expect("no panic under this lock").push(frame);
        GlobalProfiler::lock().add_sink(Box::new(sink));
    }
    fn record(&self, roots: u64, children: u64) {
        for root in 0..roots {
            {
                let _root = open!("root");
                (0..children).for_each(scope0);
            }
            if root % 100 == 99 {
                GlobalProfiler::lock().new_frame();
            }
        }
    }
    fn flush(&self) {
        GlobalProfiler::lock().new_frame();
    }
    fn count(&self) -> u64 {
        let frames = self.0.lock().expect("no panic under this lock");
        let unpacked = frames.iter().filter_map(|frame| frame.unpacked().ok());
        unpacked
            .flat_map(|frame| frame.thread_streams.values().cloned().collect::<Vec<_>>())
            .filter_map(|stream| Reader::count_scope_and_depth(&stream.stream).ok())
            .map(|(scopes, _)| scopes as u64)
            .sum()
    }
}
