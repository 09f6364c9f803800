//! Models of an open scope's frame: its owner opens and closes scopes in it, while another thread dumps what is open.
//!
//! The source of the frame is included here as it is; see `loom_table.rs`. Run with
//! `RUSTFLAGS="--cfg loom" cargo test -p kastor --release --test 'loom*'`; otherwise there is nothing here.
#![cfg(loom)]

#[path = "../src/thread/frame.rs"]
#[allow(dead_code, reason = "the models use what opens, closes and dumps")]
mod frame;
#[path = "loom/sync.rs"]
mod sync;

mod name {
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub(crate) struct Path(pub(crate) u32);
}

use frame::{Frame, flag};
use loom::thread;
use name::Path;

/// A frame as its owner and the dump share it.
#[derive(Clone, Copy)]
struct Shared(&'static Frame);

// SAFETY: only the owner touches what is not atomic, and here nobody does.
unsafe impl Send for Shared {}

impl Shared {
    fn leaked() -> Self {
        Self(Box::leak(Box::new(Frame::new())))
    }

    /// The `number`th scope: everything about it follows from its number.
    fn open(self, number: u32) {
        self.0.open(Path(number), number << flag::LANE_SHIFT, number, || u64::from(number) + 100);
    }

    /// A stand-in with that span, as a future's.
    fn stand_in(self, number: u32) {
        self.0.open(Path(number), flag::STAND_IN, number, || 0);
    }

    /// The number of the scope that the dump shows, if it shows one; it has to be a whole one.
    fn shown(self) -> Option<u32> {
        self.0.scope().map(|(path, start, lane)| {
            assert_eq!((start, lane), (u64::from(path.0) + 100, path.0 as usize), "parts of two scopes");
            path.0
        })
    }
}

#[test]
fn the_dump_shows_a_scope_whole_or_not_at_all() {
    loom::model(|| {
        let frame = Shared::leaked();
        let dump = thread::spawn(move || frame.shown());
        frame.open(1);
        assert!(matches!(dump.join().unwrap(), None | Some(1)));
        assert_eq!(frame.shown(), Some(1));
    });
}

#[test]
fn a_frame_that_is_used_again_is_not_taken_for_the_scope_before() {
    loom::model(|| {
        let frame = Shared::leaked();
        frame.open(1);
        let dump = thread::spawn(move || frame.shown());
        frame.0.vacate();
        frame.open(2);
        dump.join().unwrap();
        assert_eq!(frame.shown(), Some(2));
    });
}

#[test]
fn a_closed_scope_is_not_shown_once_that_is_known() {
    loom::model(|| {
        let frame = Shared::leaked();
        frame.open(1);
        frame.0.vacate();
        let dump = thread::spawn(move || frame.shown());
        frame.open(2);
        frame.0.set(flag::CLOSED);
        assert!(matches!(dump.join().unwrap(), None | Some(2)));
        assert_eq!(frame.shown(), None);
    });
}

#[test]
fn a_stand_in_is_never_shown_not_even_with_what_the_scope_before_left() {
    loom::model(|| {
        let frame = Shared::leaked();
        frame.open(1);
        let dump = thread::spawn(move || frame.shown());
        frame.0.vacate();
        frame.stand_in(2);
        assert!(matches!(dump.join().unwrap(), None | Some(1)));
        assert_eq!(frame.shown(), None);
    });
}

#[test]
fn a_stand_in_whose_span_comes_again_does_not_hide_the_scope_between() {
    sync::large_model(|| {
        let frame = Shared::leaked();
        frame.stand_in(1);
        let dump = thread::spawn(move || frame.shown());
        frame.0.vacate();
        frame.open(2);
        frame.0.vacate();
        frame.stand_in(1);
        assert!(matches!(dump.join().unwrap(), None | Some(2)));
    });
}
