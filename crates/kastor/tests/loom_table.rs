//! Models of the table from keys to ids and of the growing array, in every interleaving that loom finds.
//!
//! The source of both is included here as it is; `crate::sync` gives it loom's atomics. Run with
//! `RUSTFLAGS="--cfg loom" cargo test -p kastor --release --test 'loom*'`; otherwise there is nothing here.
#![cfg(loom)]

#[path = "../src/name/table.rs"]
#[allow(dead_code, reason = "the models use what readers and writers of names use")]
mod table;

#[path = "loom/sync.rs"]
mod sync;

use loom::{cell::UnsafeCell, sync::Mutex, thread};
use table::{Segments, Table};

/// A value whose every access loom checks: reading it without seeing that it was written fails the model.
struct Tracked(&'static UnsafeCell<u32>);

// SAFETY: loom fails the model if it is written while anyone may read it.
unsafe impl Send for Tracked {}
// SAFETY: as above.
unsafe impl Sync for Tracked {}

impl Tracked {
    fn new(value: u32) -> Self {
        let cell: &'static UnsafeCell<u32> = Box::leak(Box::new(UnsafeCell::new(0)));
        // SAFETY: nobody else knows the cell yet.
        cell.with_mut(|place| unsafe { *place = value });
        Self(cell)
    }

    fn read(&self) -> u32 {
        // SAFETY: written once, before it was shared; loom checks just that.
        self.0.with(|place| unsafe { *place })
    }
}

/// Names as the library keeps them: an array of texts, a table into it, one lock for those who write.
struct Names {
    texts: Segments<Tracked>,
    index: Table,
    writer: Mutex<()>,
}

/// Keys that begin their search at the same place, so that they get in each other's way: the upper half of the product
/// with the table's factor is the same number for all of them.
const COLLIDING: [u64; 3] = {
    // The factor's inverse modulo 2^64, so that the products are 5 << 32, (5 << 32) + 1 and (5 << 32) + 2.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    const INVERSE: u64 = {
        let (mut inverse, mut steps) = (FACTOR, 0);
        while steps < 6 {
            inverse = inverse.wrapping_mul(2u64.wrapping_sub(FACTOR.wrapping_mul(inverse)));
            steps += 1;
        }
        inverse
    };
    [
        (5u64 << 32).wrapping_mul(INVERSE),
        ((5u64 << 32) + 1).wrapping_mul(INVERSE),
        ((5u64 << 32) + 2).wrapping_mul(INVERSE),
    ]
};

impl Names {
    fn leaked(known: &[(u64, u32)]) -> &'static Self {
        let names = Self { texts: Segments::new(), index: Table::new(), writer: Mutex::new(()) };
        let names: &'static Self = Box::leak(Box::new(names));
        for (key, value) in known {
            names.intern(*key, *value);
        }
        names
    }

    fn find(&self, key: u64, value: u32) -> Option<u32> {
        self.index.find(key, |id| self.texts.get(id).is_some_and(|kept| kept.read() == value))
    }

    /// As `name::intern` does.
    fn intern(&self, key: u64, value: u32) -> u32 {
        let _writer = self.writer.lock().unwrap();
        if let Some(id) = self.find(key, value) {
            return id;
        }
        let id = self.texts.push(Tracked::new(value));
        self.index.insert(key, id);
        id
    }
}

// The reader always runs on the spawned thread. A model runs the first thread until it waits, and loom then goes back to
// the last access in conflict with each later one: that leads from a reader's load to every store before it. The other
// way round, a writer's own load stands between its store and the reader, and hides interleavings.

#[test]
fn a_reader_of_the_array_sees_whole_entries_and_no_others() {
    loom::model(|| {
        let array: &'static Segments<Tracked> = Box::leak(Box::new(Segments::new()));
        let reader = thread::spawn(|| {
            let len = array.len();
            for at in (0..4).rev() {
                match array.get(at) {
                    Some(entry) => assert_eq!((at < 3, entry.read()), (true, 10 + at)),
                    None => assert!(at >= len, "{at} was not there when there were {len}"),
                }
            }
        });
        // The third entry is the first of another segment.
        (0..3).for_each(|at| assert_eq!(array.push(Tracked::new(10 + at)), at));
        reader.join().unwrap();
    });
}

#[test]
fn a_reader_that_sees_a_key_sees_the_id_that_belongs_to_it() {
    loom::model(|| {
        let table: &'static Table = Box::leak(Box::new(Table::new()));
        table.insert(1, 9);
        let reader = thread::spawn(|| {
            let check = |id| {
                assert_eq!(id, 5, "half an entry");
                true
            };
            assert!(table.find(7, check).is_none_or(|id| id == 5));
        });
        table.insert(7, 5);
        reader.join().unwrap();
        assert_eq!((table.find(1, |_| true), table.find(7, |_| true)), (Some(9), Some(5)));
    });
}

/// While `new` is interned, a reader looks for what was there before, and for what comes.
fn while_interned(known: &'static [(u64, u32)], new: (u64, u32), missing: (u64, u32)) {
    loom::model(move || {
        let names = Names::leaked(known);
        let next = known.len() as u32;
        let reader = thread::spawn(move || {
            if let Some(id) = names.find(new.0, new.1) {
                assert_eq!((id, names.texts.get(id).unwrap().read()), (next, new.1));
                assert_eq!(names.find(new.0, new.1), Some(next), "what was found once is found again");
            }
            for (id, (key, value)) in (0..).zip(known) {
                assert_eq!(names.find(*key, *value), Some(id));
            }
            assert_eq!(names.find(missing.0, missing.1), None);
        });
        assert_eq!(names.intern(new.0, new.1), next);
        reader.join().unwrap();
        assert_eq!(names.find(new.0, new.1), Some(next));
    });
}

#[test]
fn a_reader_finds_a_whole_entry_or_none_while_the_first_is_inserted() {
    while_interned(&[], (7, 70), (8, 80));
}

#[test]
fn a_reader_finds_what_was_there_before_while_one_is_inserted() {
    while_interned(&[(1, 10)], (2, 20), (3, 30));
}

#[test]
fn a_reader_finds_what_was_there_before_while_the_table_grows() {
    // Two of four slots are taken: the next insertion makes a table of eight.
    while_interned(&[(1, 10), (2, 20)], (3, 30), (4, 40));
}

#[test]
fn a_reader_finds_its_way_past_entries_that_collide() {
    const KNOWN: &[(u64, u32)] = &[(COLLIDING[0], 10)];
    while_interned(KNOWN, (COLLIDING[1], 20), (COLLIDING[2], 30));
}

#[test]
fn one_key_with_two_meanings_gives_two_ids() {
    while_interned(&[(7, 70)], (7, 71), (7, 72));
}

#[test]
fn two_writers_of_one_name_agree_on_its_id() {
    loom::model(|| {
        let names = Names::leaked(&[]);
        let writer = thread::spawn(|| names.intern(7, 70));
        let id = names.intern(7, 70);
        assert_eq!((id, writer.join().unwrap()), (0, 0));
        assert_eq!((names.texts.len(), names.find(7, 70)), (1, Some(0)));
    });
}

#[test]
fn two_writers_of_two_names_lose_neither_while_the_table_grows() {
    loom::model(|| {
        let names = Names::leaked(&[(1, 10)]);
        let writer = thread::spawn(|| names.intern(2, 20));
        let own = names.intern(3, 30);
        let other = writer.join().unwrap();
        assert_eq!(own + other, 3, "ids 1 and 2");
        assert_eq!((names.find(2, 20), names.find(3, 30), names.find(1, 10)), (Some(other), Some(own), Some(0)));
    });
}
