//! What is measured: a case, the peer it belongs to, and the one loop that runs them all.

use std::hint::black_box;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

/// Every case id, in the order of the table. Peers use these and no others; floors have names of their own.
pub const IDS: &[&str] = &[
    "off_scope0",
    "off_scope2",
    "off_counter",
    "off_named",
    "off_dynamic",
    "on_scope0",
    "on_scope2",
    "on_nest5",
    "on_inline",
    "on_many_paths",
    "on_many_paths_4096",
    "on_dynamic",
    "on_counter",
    "on_counter2",
    "on_counter_handle",
    "on_counter_labels",
    "on_metric_event",
    "on_metric_event2",
    "on_poll",
    "on_two_threads",
    "on_body_1us",
    "on_fresh_threads",
    "e2e_many_roots",
    "e2e_one_root",
    "sustained_10s",
    "open_level_bytes",
];

/// The floor that ratios are taken against.
pub const TWO_CLOCK_READS: &str = "two_clock_reads";

/// One configuration of one library (or of the floors). It runs in a process of its own.
pub trait Peer: Sync {
    /// `library/configuration`.
    fn name(&self) -> &'static str;
    /// What it does with a scope: aggregates, keeps, exports, nothing. Peers that do less are cheaper for a reason.
    fn note(&self) -> &'static str;
    /// Configures the library; called once, before the cases.
    fn set_up(&self) {}
    /// The cases it can do.
    fn cases(&self) -> Vec<Case>;
    /// Completes deferred work, so that its CPU time falls into the measured window.
    fn flush(&self) {}
    /// Events that the library itself says it dropped.
    fn dropped(&self) -> Option<u64> {
        None
    }
    /// Whether `on_scope0` can run for ten seconds in bounded memory.
    fn sustains(&self) -> bool {
        false
    }
    /// The configuration in which it keeps every scope and counts them back.
    fn keeper(&self) -> Option<Box<dyn Keeper>> {
        None
    }
    /// Opens `depth` nested scopes, calling `mark` before the first is opened and while all are open.
    fn open_levels(&self) -> Option<OpenLevels> {
        None
    }
}

/// See [`Peer::open_levels`]: depth, and what to call before and at the bottom.
pub type OpenLevels = fn(usize, &mut dyn FnMut());

/// Keeps every scope in memory: the end-to-end cases.
pub trait Keeper {
    /// Configures the library to keep; instead of [`Peer::set_up`].
    fn set_up(&self);
    /// Records `roots` root scopes with `children` scopes each.
    fn record(&self, roots: u64, children: u64);
    /// Waits until the library says that everything has arrived.
    fn flush(&self) {}
    /// How many scopes can be found now, by walking over them.
    fn count(&self) -> u64;
}

/// How often a case ran in this process, calibration included: what a verification compares with.
#[derive(Clone, Copy, Default)]
pub struct Ran {
    /// Iterations of the timing loop.
    pub iterations: u64,
    /// Calls of the timing loop.
    pub loops: u64,
}

/// A timing loop over a case's body: runs it that many times.
pub type Loop = Box<dyn Fn(u64) + Send + Sync>;
type Verify = Box<dyn Fn(Ran) -> Result<(), String>>;

/// One measured operation of one peer.
pub struct Case {
    /// One of [`IDS`].
    pub id: &'static str,
    /// Operations per iteration; figures are per operation.
    pub operations: u64,
    /// The timing loop.
    pub run: Loop,
    /// Subtracted from the figure: the same work without the operation.
    pub baseline: Option<Loop>,
    /// Batches per round; a batch is 5 ms, so four are the usual round of 20 ms.
    pub batches: usize,
    /// Upper bound of iterations per batch, where threads or memory call for one.
    pub most_iterations: u64,
    /// Whether the figure is CPU time on two threads relative to one.
    pub two_threads: bool,
    /// Compares what the peer saw with what ran.
    pub verify: Option<Verify>,
}

impl Case {
    /// A case whose body does one operation. The body gets the index through `black_box`.
    pub fn new(id: &'static str, body: impl Fn(u64) + Send + Sync + 'static) -> Case {
        let run: Loop = Box::new(move |iterations| timing_loop(&body, iterations));
        Case {
            id,
            operations: 1,
            run,
            baseline: None,
            batches: 4,
            most_iterations: u64::MAX,
            two_threads: false,
            verify: None,
        }
    }

    /// The body does this many operations.
    pub fn operations(mut self, operations: u64) -> Case {
        self.operations = operations;
        self
    }

    /// At most this many iterations per batch.
    pub fn at_most(mut self, iterations: u64) -> Case {
        self.most_iterations = iterations;
        self
    }

    /// After the timed run, `verify` says whether the peer saw exactly what ran.
    pub fn verify(mut self, verify: impl Fn(Ran) -> Result<(), String> + 'static) -> Case {
        self.verify = Some(Box::new(verify));
        self
    }

    /// `on_two_threads`: the body on two threads at once, relative to one.
    pub fn two_threads(body: impl Fn(u64) + Send + Sync + 'static) -> Case {
        Case { two_threads: true, ..Case::new("on_two_threads", body) }
    }

    /// `on_poll`: polls of one long-lived wrapped future, above polls of the same future unwrapped.
    pub fn poll<F: Future<Output = ()>>(wrap: impl Fn(Endless) -> F + Send + Sync + 'static) -> Case {
        let run: Loop = Box::new(move |iterations| poll_loop(wrap(Endless(0)), iterations));
        let baseline: Loop = Box::new(|iterations| poll_loop(Endless(0), iterations));
        Case { run, baseline: Some(baseline), ..Case::new("on_poll", |_| ()) }
    }

    /// `on_body_1us`: what a scope adds to 1 µs of work. `body` opens its scope and calls [`busy`].
    pub fn busy_body(body: impl Fn(u64) + Send + Sync + 'static) -> Case {
        let baseline: Loop = Box::new(|iterations| timing_loop(&busy, iterations));
        Case { baseline: Some(baseline), ..Case::new("on_body_1us", body) }
    }

    /// `on_fresh_threads`: what a scope adds to starting and joining a thread.
    pub fn fresh_threads(body: fn(u64)) -> Case {
        fn on_thread(body: fn(u64), index: u64) {
            std::thread::spawn(move || body(index)).join().expect("the body does not panic");
        }
        fn nothing(index: u64) {
            black_box(index);
        }
        let baseline: Loop = Box::new(|iterations| timing_loop(&|index| on_thread(nothing, index), iterations));
        let case = Case::new("on_fresh_threads", move |index| on_thread(body, index));
        // Starting a thread varies by more than a scope costs: many short batches, so that the minima settle.
        Case { baseline: Some(baseline), batches: 20, most_iterations: 50, ..case }
    }
}

/// The loop under every figure. An empty body costs what the floor `empty_loop` shows.
#[inline(never)]
fn timing_loop(body: &impl Fn(u64), iterations: u64) {
    for index in 0..iterations {
        body(black_box(index));
    }
}

/// The timing loop for futures: an iteration is a poll.
#[inline(never)]
fn poll_loop(future: impl Future<Output = ()>, iterations: u64) {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for index in 0..iterations {
        black_box(index);
        let _ = black_box(future.as_mut().poll(&mut context));
    }
}

/// A future that is never ready.
pub struct Endless(u64);

impl Future for Endless {
    type Output = ();
    #[inline(never)]
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        self.0 = black_box(self.0 + 1);
        Poll::Pending
    }
}

/// About 1 µs of work that no clock is read for: a chain of dependent multiplications.
#[inline(never)]
pub fn busy(seed: u64) {
    let mut state = seed | 1;
    for _ in 0..700 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    }
    black_box(state);
}

/// [`Peer::open_levels`] for guards that own themselves: they are kept in a vector made before the first mark.
pub fn owned_levels<G>(open: impl Fn() -> G, depth: usize, mark: &mut dyn FnMut()) {
    let mut guards = Vec::with_capacity(depth);
    mark();
    for _ in 0..depth {
        guards.push(open());
    }
    mark();
    while let Some(guard) = guards.pop() {
        drop(guard);
    }
}

/// 64 names, for cases in which a name is not known at compile time.
pub fn dynamic_names(prefix: &str) -> Vec<String> {
    (0..64).map(|number| format!("{prefix}{number}")).collect()
}

/// Expands to 64 callsites of the macro `$scope!(index, "name")`, one after the other.
#[macro_export]
macro_rules! sixty_four_callsites {
    ($scope:ident, $index:expr) => {
        $crate::sixty_four_callsites!(@ $scope, $index,
            "c00" "c01" "c02" "c03" "c04" "c05" "c06" "c07" "c08" "c09" "c10" "c11" "c12" "c13" "c14" "c15"
            "c16" "c17" "c18" "c19" "c20" "c21" "c22" "c23" "c24" "c25" "c26" "c27" "c28" "c29" "c30" "c31"
            "c32" "c33" "c34" "c35" "c36" "c37" "c38" "c39" "c40" "c41" "c42" "c43" "c44" "c45" "c46" "c47"
            "c48" "c49" "c50" "c51" "c52" "c53" "c54" "c55" "c56" "c57" "c58" "c59" "c60" "c61" "c62" "c63")
    };
    (@ $scope:ident, $index:expr, $($name:literal)*) => {{ $( $scope!($index, $name); )* }};
}

/// Opens one of eight parents by the index, so that 64 callsites below them see a new parent every time round:
/// `$open!("name")` yields the guard, `$children` runs inside it.
#[macro_export]
macro_rules! eight_parents {
    ($open:ident, $index:expr, $children:expr) => {
        match $index & 7 {
            0 => {
                let _parent = $open!("p0");
                $children
            }
            1 => {
                let _parent = $open!("p1");
                $children
            }
            2 => {
                let _parent = $open!("p2");
                $children
            }
            3 => {
                let _parent = $open!("p3");
                $children
            }
            4 => {
                let _parent = $open!("p4");
                $children
            }
            5 => {
                let _parent = $open!("p5");
                $children
            }
            6 => {
                let _parent = $open!("p6");
                $children
            }
            _ => {
                let _parent = $open!("p7");
                $children
            }
        }
    };
}
