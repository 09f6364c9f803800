//! The floors: what the parts of any scope cost by themselves on this machine.

use crate::case::{Case, Peer, TWO_CLOCK_READS};
use crate::machine::ticks;
use std::cell::Cell;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

/// The peer name of the floors.
pub const NAME: &str = "floor";
/// The loop with nothing in it: part of every other figure.
pub const EMPTY_LOOP: &str = "empty_loop";

const WORDS: usize = 32 * 1024 / 8;
static SWITCH: AtomicBool = AtomicBool::new(false);

thread_local! {
    static SUM: Cell<u64> = const { Cell::new(0) };
    static BUFFER: [Cell<u64>; WORDS] = const { [const { Cell::new(0) }; WORDS] };
    static POSITION: Cell<usize> = const { Cell::new(0) };
}

struct Floor;

/// The floors.
pub fn peers() -> Vec<Box<dyn Peer>> {
    vec![Box::new(Floor)]
}

impl Peer for Floor {
    fn name(&self) -> &'static str {
        NAME
    }
    fn note(&self) -> &'static str {
        "single parts of a scope, nothing around them; every figure in this table contains one empty_loop"
    }
    fn set_up(&self) {
        // A switch that nobody ever sets is a constant to the optimiser, and the branch is gone.
        SWITCH.store(black_box(false), Relaxed);
    }
    fn cases(&self) -> Vec<Case> {
        vec![
            Case::new(EMPTY_LOOP, |index| {
                black_box(index);
            }),
            Case::new(TWO_CLOCK_READS, two_clock_reads),
            Case::new("two_instant_now", |index| {
                let start = Instant::now();
                black_box(index);
                black_box(start.elapsed());
            }),
            Case::new("load_and_branch", |index| {
                if SWITCH.load(Relaxed) {
                    cold(index);
                }
                black_box(index);
            }),
            Case::new("thread_local_add", |index| SUM.with(|sum| sum.set(sum.get().wrapping_add(index)))),
            Case::new("record_write_32", write_record::<4>),
            Case::new("record_write_64", write_record::<8>),
            // Not a floor of its own, but what the machine makes of two threads: a shared core or a neighbour shows here.
            Case::two_threads(two_clock_reads),
        ]
    }
}

/// What a scope's duration needs at the very least.
#[inline(always)]
pub fn two_clock_reads(index: u64) {
    let start = ticks();
    black_box(index);
    black_box(ticks().wrapping_sub(start));
}

#[cold]
#[inline(never)]
fn cold(index: u64) {
    black_box(index);
}

/// Writes records one after the other through a buffer of 32 KiB, then again from its start.
#[inline(always)]
fn write_record<const LENGTH: usize>(index: u64) {
    BUFFER.with(|buffer| {
        let mut position = POSITION.with(Cell::get);
        if position + LENGTH > WORDS {
            position = 0;
        }
        if let Some(record) = buffer.get(position..position + LENGTH) {
            for word in record {
                word.set(index);
            }
            // The optimiser must not see that nobody reads the buffer.
            black_box(record.as_ptr());
        }
        POSITION.with(|cell| cell.set(position + LENGTH));
    });
}
