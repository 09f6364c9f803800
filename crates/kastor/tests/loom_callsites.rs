//! Models of the callsites: their registration, the decisions about them, and the path that each remembers.
//!
//! The source is included here as it is; see `loom_table.rs`. Run with
//! `RUSTFLAGS="--cfg loom" cargo test -p kastor --release --test 'loom*'`; otherwise there is nothing here.
#![cfg(loom)]

#[path = "../src/callsite.rs"]
#[allow(dead_code, reason = "the models use what registers, decides and remembers")]
mod callsite;
#[path = "loom/sync.rs"]
mod sync;

/// Names and paths without their tables, which have models of their own: a name is the number that is its text.
mod name {
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub(crate) struct Name(pub(crate) u32);

    #[derive(Clone, Copy, Debug, PartialEq)]
    pub(crate) struct Path(pub(crate) u32);

    impl Path {
        pub(crate) fn is_deeper(self) -> bool {
            false
        }
    }

    pub(crate) fn name(text: &str) -> Name {
        Name(text.parse().unwrap())
    }
}

use std::sync::Arc;

use callsite::{Callsite, Decide, Key, NEW, OFF, ON, Vote, add_decider, give_back_index, refresh, take_index};
use loom::{
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
};
use name::{Name, Path};

/// A context that wants everything, or nothing.
struct Context(AtomicBool);

impl Context {
    fn new(wants: bool) -> Arc<Self> {
        Arc::new(Self(AtomicBool::new(wants)))
    }

    /// The context, whose voice is heard.
    fn added(wants: bool) -> Arc<Self> {
        let context = Self::new(wants);
        context.add();
        context
    }

    fn add(self: &Arc<Self>) {
        let decider: Arc<dyn Decide> = Arc::clone(self) as _;
        add_decider(&decider);
    }

    fn switch(&self, wants: bool) {
        self.0.store(wants, SeqCst);
        refresh();
    }
}

impl Decide for Context {
    fn vote(&self, _: Option<&str>) -> Vote {
        if self.0.load(SeqCst) { Vote::Yes } else { Vote::No }
    }
}

/// A callsite of the metric 7 with one key, 9.
fn site() -> &'static Callsite {
    let keys = Box::leak(Box::new([Key::new("9")]));
    Box::leak(Box::new(Callsite::metric("7", keys)))
}

#[test]
fn who_sees_that_a_callsite_is_registered_sees_its_ids() {
    loom::model(|| {
        let (_context, site) = (Context::added(true), site());
        let reader = thread::spawn(|| {
            if site.state() != NEW {
                assert_eq!((site.name(), site.keys()[0].name(), site.index()), (Name(7), Name(9), 1));
            }
        });
        assert_eq!(site.register(), ON);
        reader.join().unwrap();
    });
}

#[test]
fn a_callsite_that_two_threads_pass_first_is_registered_once() {
    loom::model(|| {
        let (context, site) = (Context::added(true), site());
        let other = thread::spawn(|| site.register());
        assert_eq!((site.register(), other.join().unwrap()), (ON, ON));
        assert_eq!(site.index(), 1);
        // Goes through the list, which would have no end if the callsite were in it twice.
        context.switch(false);
        assert_eq!(site.state(), OFF);
    });
}

#[test]
fn two_callsites_that_register_at_once_are_both_asked_about_later() {
    loom::model(|| {
        let (context, one, two) = (Context::added(true), site(), site());
        let other = thread::spawn(|| two.register());
        one.register();
        other.join().unwrap();
        assert_eq!(one.index() + two.index(), 3, "1 and 2");
        context.switch(false);
        assert_eq!((one.state(), two.state()), (OFF, OFF));
    });
}

#[test]
fn no_two_callsites_and_handles_have_one_index() {
    loom::model(|| {
        let site = site();
        give_back_index(take_index());
        let handles = [(); 2].map(|()| thread::spawn(take_index));
        site.register();
        let mut all = handles.map(|handle| handle.join().unwrap()).to_vec();
        all.push(site.index());
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3]);
    });
}

#[test]
fn a_context_that_is_added_while_a_callsite_registers_is_heard() {
    loom::model(|| {
        let (site, context) = (site(), Context::new(true));
        let adder = thread::spawn({
            let context = Arc::clone(&context);
            move || context.add()
        });
        site.register();
        adder.join().unwrap();
        assert_eq!(site.state(), ON);
    });
}

#[test]
fn a_context_that_changes_its_mind_while_a_callsite_registers_is_heard() {
    loom::model(|| {
        let (site, context) = (site(), Context::added(true));
        let switch = thread::spawn({
            let context = Arc::clone(&context);
            move || context.switch(false)
        });
        site.register();
        switch.join().unwrap();
        assert_eq!(site.state(), OFF);
    });
}

#[test]
fn contexts_that_change_their_minds_at_once_are_both_heard() {
    loom::model(|| {
        let (site, one, two) = (site(), Context::added(true), Context::added(false));
        site.register();
        let switch = thread::spawn({
            let two = Arc::clone(&two);
            move || two.switch(true)
        });
        one.switch(false);
        switch.join().unwrap();
        assert_eq!(site.state(), callsite::MIXED);
        one.switch(true);
        assert_eq!(site.state(), ON);
    });
}

#[test]
fn a_path_that_is_remembered_is_never_taken_for_one_below_another_parent() {
    loom::model(|| {
        let (_context, site) = (Context::added(true), site());
        site.register();
        let reader = thread::spawn(|| {
            assert!(matches!(site.cached(1), None | Some(Path(10))));
            assert!(matches!(site.cached(2), None | Some(Path(20))));
        });
        let other = thread::spawn(|| site.remember(2, Path(20)));
        site.remember(1, Path(10));
        reader.join().unwrap();
        other.join().unwrap();
        let known = (site.cached(1), site.cached(2));
        assert!(matches!(known, (Some(Path(10)), None) | (None, Some(Path(20)))), "one of two: {known:?}");
    });
}

#[test]
fn no_path_is_remembered_once_the_callsite_is_not_on_any_more() {
    loom::model(|| {
        let (context, site) = (Context::added(true), site());
        site.register();
        let worker = thread::spawn(|| site.remember(1, Path(10)));
        context.switch(false);
        worker.join().unwrap();
        assert_eq!((site.state(), site.hot(), site.cached(1)), (OFF, 0, None));
    });
}

#[test]
fn what_was_forgotten_while_off_is_remembered_again_when_on() {
    loom::model(|| {
        let (context, site) = (Context::added(true), site());
        site.register();
        site.remember(1, Path(10));
        let worker = thread::spawn(|| site.remember(1, Path(10)));
        context.switch(false);
        context.switch(true);
        worker.join().unwrap();
        assert!(matches!(site.cached(1), None | Some(Path(10))));
        site.remember(1, Path(10));
        assert_eq!(site.cached(1), Some(Path(10)));
    });
}
