//! `#[kastor::scoped]`: what a function in a scope looks like to a reporter, and that it is still the same function.

use std::{
    cell::Cell,
    fmt::Display,
    future::poll_fn,
    num::ParseIntError,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

use kastor::{Reporter, Telemetry, Timing, scope, scoped};

#[test]
fn a_function_is_a_scope_of_its_name() {
    #[scoped]
    fn parse() -> u32 {
        7
    }
    assert_eq!(closed_by(|| assert_eq!(parse(), 7)), ["parse"]);
}

#[test]
fn a_given_name_wins_and_empty_parentheses_mean_none() {
    #[scoped("db.query")]
    fn given() {}
    #[scoped(r"db.raw")]
    fn raw() {}
    #[scoped()]
    fn empty() {}
    let seen = closed_by(|| {
        given();
        raw();
        empty();
    });
    assert_eq!(seen, ["db.query", "db.raw", "empty"]);
}

#[test]
fn calls_nest() {
    #[scoped]
    fn outer() {
        inner();
        inner();
    }
    #[scoped]
    fn inner() {}
    #[scoped]
    fn countdown(n: u32) {
        if n > 0 {
            countdown(n - 1);
        }
    }
    assert_eq!(closed_by(outer), ["outer.inner", "outer.inner", "outer"]);
    assert_eq!(closed_by(|| countdown(1)), ["countdown.countdown", "countdown"]);
}

#[test]
fn the_scope_covers_the_tail_expression_and_the_locals_but_not_the_parameters() {
    #[scoped]
    fn body(_parameter: OpensOnDrop) -> usize {
        let _local = OpensOnDrop("local");
        opened("tail").len()
    }
    fn opened(name: &'static str) -> &'static str {
        drop(OpensOnDrop(name));
        name
    }
    let seen = closed_by(|| assert_eq!(body(OpensOnDrop("parameter")), 4));
    assert_eq!(seen, ["body.tail", "body.local", "body", "parameter"]);
}

#[test]
fn every_way_out_closes_the_scope_once() {
    #[scoped]
    fn number(text: &str) -> Result<u32, Box<dyn std::error::Error>> {
        let number: u32 = text.parse()?;
        if number > 5 {
            return Err("too big".into());
        }
        Ok(number)
    }
    let seen = closed_by(|| {
        assert_eq!(number("3").ok(), Some(3));
        assert_eq!(number("8").map_err(|error| error.to_string()), Err("too big".to_owned()));
        assert!(number("eight").is_err());
    });
    assert_eq!(seen, ["number", "number", "number"]);
}

#[test]
fn a_panic_passes_through_and_marks_the_scope() {
    #[scoped]
    fn fails() -> u32 {
        panic!("on purpose")
    }
    #[scoped]
    async fn fails_later() -> u32 {
        yield_now().await;
        panic!("on purpose")
    }
    let seen = closed_by(|| {
        assert!(catch_unwind(fails).is_err());
        assert!(catch_unwind(AssertUnwindSafe(|| run(fails_later()))).is_err());
    });
    assert_eq!(seen, ["fails: panic", "fails_later: panic"]);
}

#[test]
fn functions_keep_their_shape() {
    /// A documented function that hands on what it was given.
    #[must_use]
    #[scoped]
    #[inline]
    fn same<'a, T>(value: &'a T, _other: &T) -> &'a T
    where
        T: ?Sized + Display,
    {
        value
    }
    #[scoped]
    fn array<F: Fn(u32) -> u32, const N: usize>(make: F) -> [u32; N] {
        [make(1); N]
    }
    #[scoped]
    fn iterator(n: u32) -> impl Iterator<Item = u32> {
        (0..n).map(|i| i * 2)
    }
    #[scoped]
    fn boxed() -> Box<dyn Display> {
        Box::new(3)
    }
    #[scoped]
    fn items_and_attributes() -> u32 {
        #![allow(unused_variables)]
        const TWO: u32 = 2;
        let unused = TWO;
        TWO
    }
    #[scoped]
    extern "C" fn foreign(n: i32) -> i32 {
        n
    }
    /// # Safety
    /// The pointer is valid for reads.
    #[scoped]
    unsafe fn read(pointer: *const u32) -> u32 {
        // SAFETY: the caller gives a pointer that is valid for reads.
        unsafe { *pointer }
    }
    let seen = closed_by(|| {
        assert_eq!(same("text", "other"), "text");
        assert_eq!(array::<_, 2>(|n| n + 1), [2, 2]);
        assert_eq!(iterator(3).sum::<u32>(), 6);
        assert_eq!(boxed().to_string(), "3");
        assert_eq!(items_and_attributes(), 2);
        assert_eq!(foreign(5), 5);
        // SAFETY: the pointer comes from a reference.
        assert_eq!(unsafe { read(&4) }, 4);
    });
    assert_eq!(seen, ["same", "array", "iterator", "boxed", "items_and_attributes", "foreign", "read"]);
}

#[test]
fn methods_borrow_and_take_self() {
    struct List {
        items: Vec<u32>,
    }
    impl List {
        #[scoped]
        fn items(&self) -> &[u32] {
            &self.items
        }
        #[scoped("list.push")]
        fn push(&mut self, item: u32) -> &mut Self {
            self.items.push(item);
            self
        }
        #[scoped]
        async fn last(&mut self) -> Option<&mut u32> {
            yield_now().await;
            self.items.last_mut()
        }
        #[scoped]
        fn into_items(self) -> Vec<u32> {
            self.items
        }
    }
    trait Count {
        fn count(&self) -> usize;
        #[scoped]
        fn is_empty(&self) -> bool {
            self.count() == 0
        }
    }
    impl Count for List {
        #[scoped]
        fn count(&self) -> usize {
            self.items.len()
        }
    }
    let seen = closed_by(|| {
        let mut list = List { items: Vec::new() };
        list.push(1).push(2);
        assert_eq!(list.items(), [1, 2]);
        assert!(!list.is_empty());
        assert_eq!(run(list.last()), Some(&mut 2));
        assert_eq!(list.into_items(), [1, 2]);
    });
    assert_eq!(seen, ["list.push", "list.push", "items", "is_empty.count", "is_empty", "last", "into_items"]);
}

#[test]
fn a_macro_may_write_the_function() {
    macro_rules! make {
        ($visibility:vis $name:ident, $scope:literal, $result:ty, $body:block) => {
            #[scoped($scope)]
            $visibility fn $name() -> $result $body
        };
    }
    make!(pub(crate) made, "made.by.macro", Result<u32, ()>, { Ok(1) });
    assert_eq!(closed_by(|| assert_eq!(made(), Ok(1))), ["made.by.macro"]);
}

#[test]
fn an_async_function_opens_at_its_first_poll() {
    #[scoped]
    async fn fetch() {
        yield_now().await;
    }
    assert_eq!(closed_by(|| drop(fetch())), [""; 0], "never polled, so there was no scope");
    let seen = closed_by(|| {
        let before = fetch();
        let outer = scope!("outer");
        run(before);
        drop(outer);
    });
    assert_eq!(seen, ["outer.fetch", "outer"]);
}

#[test]
fn an_async_function_is_current_only_while_it_is_polled() {
    #[scoped]
    async fn left() {
        yield_now().await;
        drop(scope!("child"));
    }
    #[scoped]
    async fn right() {
        yield_now().await;
        drop(scope!("child"));
    }
    let seen = closed_by(|| {
        let (mut left, mut right) = (pin!(left()), pin!(right()));
        assert!(poll(left.as_mut()).is_pending());
        assert!(poll(right.as_mut()).is_pending());
        drop(scope!("between"));
        assert!(poll(left).is_ready());
        assert!(poll(right).is_ready());
    });
    assert_eq!(seen, ["between", "left.child", "left", "right.child", "right"]);
}

#[test]
fn an_async_function_dropped_unfinished_is_cancelled() {
    #[scoped]
    async fn wait() {
        yield_now().await;
    }
    let seen = closed_by(|| {
        let mut future = Box::pin(wait());
        assert!(poll(future.as_mut()).is_pending());
        drop(future);
        drop(scope!("after"));
    });
    assert_eq!(seen, ["wait: cancelled", "after"]);
}

#[test]
fn an_async_function_knows_its_return_type() {
    #[scoped]
    async fn converts(text: &str) -> Result<u32, Box<dyn std::error::Error + Send + Sync>> {
        let number = text.parse::<u32>()?;
        yield_now().await;
        if number > 5 {
            return Err("too big".into());
        }
        Ok(number)
    }
    #[scoped]
    async fn only_errors() -> Result<(), Box<dyn std::error::Error>> {
        "x".parse::<u32>()?;
        Err("no")?
    }
    #[scoped]
    async fn infers(text: &str) -> Result<u32, ParseIntError> {
        let number = text.parse()?;
        Ok(number)
    }
    #[scoped]
    async fn coerces() -> Box<dyn Display> {
        yield_now().await;
        Box::new(3)
    }
    #[scoped]
    async fn hides() -> impl Display {
        yield_now().await;
        4
    }
    #[scoped]
    async fn hides_inside(text: &str) -> Result<(impl Iterator<Item = Vec<u32>> + use<>, u8), ParseIntError> {
        let number: u32 = text.parse()?;
        yield_now().await;
        Ok((std::iter::once(vec![number]), 1))
    }
    #[scoped]
    async fn borrows<'a, T>(value: &'a T, mut times: u32) -> (&'a T, u32)
    where
        T: Display + Sync,
    {
        times += 1;
        yield_now().await;
        (value, times)
    }
    let seen = closed_by(|| {
        assert_eq!(run(converts("3")).ok(), Some(3));
        assert!(run(converts("8")).is_err());
        assert!(run(only_errors()).is_err());
        assert_eq!(run(infers("5")), Ok(5));
        assert_eq!(run(coerces()).to_string(), "3");
        assert_eq!(run(hides()).to_string(), "4");
        assert_eq!(run(hides_inside("6")).map(|(items, _)| items.count()), Ok(1));
        assert_eq!(run(borrows(&1, 1)), (&1, 2));
    });
    let names = ["converts", "converts", "only_errors", "infers", "coerces", "hides", "hides_inside", "borrows"];
    assert_eq!(seen, names);
}

#[test]
fn the_future_of_an_async_function_is_send() {
    #[scoped]
    async fn work(text: String) -> usize {
        yield_now().await;
        text.len()
    }
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    assert_eq!(run(is_send(work("four".to_owned()))), 4);
}

#[test]
fn a_disabled_context_changes_nothing_but_the_events() {
    #[scoped]
    fn plain() -> u32 {
        1
    }
    #[scoped]
    async fn later() -> u32 {
        yield_now().await;
        2
    }
    let seen = closed_by(|| {
        let _off = Telemetry::disabled().override_current();
        assert_eq!(plain(), 1);
        assert_eq!(run(later()), 2);
    });
    assert_eq!(seen, [""; 0]);
}

/// Opens and closes a scope of this name when it is dropped, and so shows what is current then.
struct OpensOnDrop(&'static str);

impl Drop for OpensOnDrop {
    fn drop(&mut self) {
        drop(Telemetry::current().scope(self.0));
    }
}

/// What an inline reporter sees while `act` runs: the paths in the order of closing, with the error where there was one.
fn closed_by(act: impl FnOnce()) -> Vec<String> {
    let closed = Closed::default();
    let telemetry = Telemetry::builder().reporter(closed.clone()).build();
    let guard = telemetry.override_current();
    act();
    drop(guard);
    let mut closed = closed.0.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::take(&mut *closed)
}

#[derive(Clone, Default)]
struct Closed(Arc<Mutex<Vec<String>>>);

impl Reporter for Closed {
    fn record_timing(&self, event: &Timing<'_>) {
        let line = match event.error_type() {
            Some(error_type) => format!("{}: {error_type}", event.scope()),
            None => event.scope().to_string(),
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

/// Is pending once.
async fn yield_now() {
    let polled = Cell::new(false);
    poll_fn(move |_| if polled.replace(true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn run<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = poll(future.as_mut()) {
            return output;
        }
    }
}
