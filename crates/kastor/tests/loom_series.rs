//! Models of metric series: threads add to cells of their own, without a lock, while others sum them up, and threads
//! end.
//!
//! Their sources are included here as they are; see `loom_table.rs`. Run with
//! `RUSTFLAGS="--cfg loom" cargo test -p kastor --release --test 'loom*'`; otherwise there is nothing here.
#![cfg(loom)]

#[path = "../src/aggregate/cell.rs"]
#[allow(dead_code, reason = "the models use what adds and sums")]
mod cell;
#[path = "../src/escape.rs"]
#[allow(dead_code, reason = "the models print nothing")]
mod escape;
#[path = "../src/getters.rs"]
mod getters;
#[path = "../src/health.rs"]
#[allow(dead_code, missing_docs, reason = "the models use what counts")]
mod health;
#[path = "../src/event/histogram.rs"]
#[allow(dead_code, missing_docs, reason = "the models use what records and merges")]
mod histogram;
#[path = "../src/aggregate/series.rs"]
#[allow(dead_code, reason = "the models use what joins, leaves and sums")]
mod series;
#[path = "loom/sync.rs"]
mod sync;

// What the sources name of the other rooms.
mod event {
    pub(crate) use crate::histogram::Histogram;

    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub(crate) enum MetricType {
        Counter,
        Gauge,
        Histogram,
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    pub(crate) enum Number {
        Integer(i128),
        Float(f64),
    }

    #[allow(dead_code, reason = "the models look at the sums")]
    pub(crate) struct SeriesAggregate {
        pub(crate) path: crate::name::Path,
        pub(crate) labels: Box<[u64]>,
        pub(crate) metric_type: MetricType,
        pub(crate) calls: u64,
        pub(crate) sum: Number,
        pub(crate) is_monotonic: bool,
        pub(crate) last: Option<f64>,
        pub(crate) extremes: (Option<f64>, Option<f64>),
        pub(crate) values: Histogram,
        pub(crate) unit: Option<&'static str>,
        pub(crate) help: Option<&'static str>,
    }
}
mod name {
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub(crate) struct Name(u32);
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub(crate) struct Path(pub(crate) u32);

    impl Name {
        pub(crate) fn text(self) -> &'static str {
            ""
        }
    }
    impl Path {
        pub(crate) fn name(self) -> Name {
            Name(self.0)
        }
        pub(crate) fn text(self) -> &'static str {
            ""
        }
    }
    pub(crate) fn name(_: &str) -> Name {
        Name(u32::MAX)
    }
    pub(crate) fn hash(_: &[u8]) -> u64 {
        1
    }
}
mod thread {
    use std::{any::Any, cell::RefCell, ptr::NonNull};

    use crate::{event::MetricType, name::Path};

    #[derive(Clone, Copy)]
    #[allow(dead_code, reason = "the hot paths read it")]
    pub(crate) struct CellSlot {
        pub(crate) key: u32,
        pub(crate) cell: NonNull<()>,
    }
    #[derive(Clone, Copy)]
    pub(crate) struct CellWanted<'a> {
        pub(crate) path: Path,
        pub(crate) metric_type: MetricType,
        pub(crate) labels: &'a [u64],
        pub(crate) slot: Option<(u32, u32)>,
    }
    #[derive(Default)]
    pub(crate) struct Lane {
        pub(crate) cells: RefCell<Option<Box<dyn Any + Send>>>,
        pub(crate) cursor: Cursor,
    }
    /// A thread that remembers nothing.
    pub(crate) struct Block {
        pub(crate) hot_slots: HotSlots,
    }
    pub(crate) struct HotSlots;

    impl HotSlots {
        pub(crate) fn clear(&self) {}
    }
    pub(crate) fn block(f: impl FnOnce(&Block)) {
        f(&Block { hot_slots: HotSlots });
    }

    #[derive(Default)]
    pub(crate) struct Cursor;

    impl Cursor {
        pub(crate) fn offer(&self, _: &[CellSlot]) {}
    }
}
mod value {
    use crate::name::Name;

    pub(crate) enum Value {
        Bool(#[allow(dead_code, reason = "as the library's")] bool),
    }
    pub(crate) fn as_bytes(_: &[u64]) -> &[u8] {
        &[]
    }
    pub(crate) fn push_value(labels: &mut Vec<u64>, _: Name, _: &Value) {
        labels.push(u64::MAX);
    }
}

use std::sync::Arc;

use cell::{Cell, CellSum};
use event::{MetricType, Number};
use health::{DropReason, Ledger};
use loom::thread as threads;
use name::Path;
use series::{Descriptions, MAX_SERIES, SeriesTable};
use sync::large_model;
use thread::{CellWanted, Lane};

fn sum_of(cell: &Cell) -> CellSum {
    let mut sum = CellSum::default();
    cell.add_to(&mut sum);
    sum
}

/// What a thread of its own sees of a cell at some moment while `write` runs, and what is there in the end.
fn seen_while(cell: Cell, write: impl Fn(&Cell)) -> (CellSum, CellSum) {
    let cell = Arc::new(cell);
    let reader = threads::spawn({
        let cell = Arc::clone(&cell);
        move || sum_of(&cell)
    });
    write(&cell);
    (reader.join().unwrap(), sum_of(&cell))
}

#[test]
fn a_counter_s_sum_is_that_of_some_moment_and_in_the_end_of_all() {
    loom::model(|| {
        let (seen, all) = seen_while(Cell::new(&[]), |cell| [1, 2].into_iter().for_each(|it| cell.add_unsigned(it)));
        assert!(seen.calls <= 2 && [0, 1, 3].contains(&seen.integers), "{seen:?}");
        assert_eq!((all.calls, all.integers), (2, 3));
    });
}

#[test]
fn small_increments_and_their_calls_are_seen_together_also_while_they_are_unpacked() {
    loom::model(|| {
        let (seen, all) = seen_while(Cell::new(&[]), |cell| [1, 2, 3].into_iter().for_each(|it| cell.add_packed(it)));
        assert!([(0, 0), (1, 1), (2, 3), (3, 6)].contains(&(seen.calls, seen.integers)), "{seen:?}");
        assert_eq!((all.calls, all.integers), (3, 6));
    });
}

#[test]
fn a_counter_that_outgrows_its_word_is_carried_whole() {
    loom::model(|| {
        let cell = Cell::new(&[]);
        cell.add_unsigned(u64::MAX);
        cell.add_unsigned(5);
        let most = i128::from(u64::MAX);
        let (seen, all) = seen_while(cell, |cell| {
            cell.add_signed(-7);
            cell.add_unsigned(9);
        });
        assert!([most + 5, most - 2, most + 7].contains(&seen.integers), "{seen:?}");
        assert_eq!((all.calls, all.integers, all.was_negative), (4, most + 7, true));
    });
}

#[test]
fn a_gauge_shows_what_it_was_set_to() {
    large_model(|| {
        let (seen, all) = seen_while(Cell::new(&[]), |cell| {
            cell.record(MetricType::Gauge, 5.0, 1);
            cell.record(MetricType::Gauge, 3.0, 2);
        });
        assert!(seen.last.is_none_or(|(_, value)| value == 5.0 || value == 3.0), "{seen:?}");
        assert!(seen.min.is_none_or(|min| min >= 3.0) && seen.max.is_none_or(|max| max == 5.0), "{seen:?}");
        assert_eq!((all.last, all.min, all.max, all.floats), (Some((2, 3.0)), Some(3.0), Some(5.0), 8.0));
    });
}

#[test]
fn a_histogram_is_merged_whole() {
    loom::model(|| {
        let (seen, all) = seen_while(Cell::new(&[]), |cell| {
            [2.0, 4.0].into_iter().for_each(|value| cell.record(MetricType::Histogram, value, 1));
        });
        let (count, sum) = (seen.values.count(), seen.values.sum());
        assert!([(0, 0.0), (1, 2.0), (2, 6.0)].contains(&(count, sum)), "parts of two: {count}, {sum}");
        assert_eq!((all.calls, all.values.count(), all.values.sum()), (2, 2, 6.0));
    });
}

/// A counter's cell in a lane of the calling thread.
fn count(table: &SeriesTable, lane: &Lane, labels: &[u64], increment: u64) {
    let wanted = CellWanted { path: Path(7), metric_type: MetricType::Counter, labels, slot: None };
    let cell = table.cell(lane, &wanted);
    // SAFETY: the lane keeps it, and is this thread's.
    unsafe { &*cell }.add_unsigned(increment);
}

/// Calls and sum over all series.
fn total(table: &SeriesTable) -> (u64, i128) {
    let integer = |sum| match sum {
        Number::Integer(sum) => sum,
        Number::Float(sum) => panic!("{sum} is no integer"),
    };
    let all = table.collect(&Descriptions::default());
    all.iter().fold((0, 0), |(calls, sum), series| (calls + series.calls, sum + integer(series.sum)))
}

#[test]
fn what_a_thread_counted_is_there_once_while_it_ends_and_after() {
    large_model(|| {
        let table = Arc::new(SeriesTable::default());
        let reader = threads::spawn({
            let table = Arc::clone(&table);
            move || {
                // Of the two numbers each is of some moment, and neither goes back.
                let ((calls, sum), later) = (total(&table), total(&table));
                assert!(calls <= 1 && (sum == 0 || sum == 5), "{calls}, {sum}");
                assert!(later.0 >= calls && later.1 >= sum, "{calls}, {sum}, then {later:?}");
            }
        });
        let lane = Lane::default();
        count(&table, &lane, &[], 5);
        table.leave_all(&lane.cells);
        reader.join().unwrap();
        assert_eq!(total(&table), (1, 5));
    });
}

#[test]
fn two_threads_that_count_one_series_lose_nothing() {
    large_model(|| {
        let table = Arc::new(SeriesTable::default());
        let other = threads::spawn({
            let table = Arc::clone(&table);
            move || {
                let lane = Lane::default();
                count(&table, &lane, &[1], 1);
                table.leave_all(&lane.cells);
            }
        });
        let lane = Lane::default();
        count(&table, &lane, &[1], 2);
        other.join().unwrap();
        assert_eq!((total(&table), table.overflowed()), ((2, 3), 0));
        table.leave_all(&lane.cells);
        assert_eq!(total(&table), (2, 3));
    });
}

#[test]
fn two_contexts_take_the_last_room_of_the_process_once() {
    large_model(|| {
        assert_eq!(MAX_SERIES, 1, "in a model");
        let count_one = |table: &SeriesTable| {
            let lane = Lane::default();
            count(table, &lane, &[1], 1);
            table.leave_all(&lane.cells);
        };
        let tables = [(); 2].map(|()| Arc::new(SeriesTable::default()));
        let other = threads::spawn({
            let table = Arc::clone(&tables[1]);
            move || count_one(&table)
        });
        count_one(&tables[0]);
        other.join().unwrap();
        assert_eq!(tables.iter().map(|table| table.overflowed()).sum::<u64>(), 1);
        assert!(tables.iter().all(|table| total(table) == (1, 1)), "and both are counted");
    });
}

#[test]
fn a_ledger_counts_every_event_of_every_thread() {
    loom::model(|| {
        let ledger = Arc::new(Ledger::default());
        let other = threads::spawn({
            let ledger = Arc::clone(&ledger);
            move || {
                ledger.delivered(2);
                ledger.dropped(DropReason::QueueFull, 3);
            }
        });
        ledger.delivered(5);
        ledger.dropped(DropReason::QueueFull, 7);
        other.join().unwrap();
        let (delivered, drops) = ledger.read();
        assert_eq!((delivered, drops.of(DropReason::QueueFull), drops.total()), (7, 10, 10));
    });
}
