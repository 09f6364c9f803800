//! Models of a lane: its owner appends records and retires chunks while others claim, and contexts are switched while
//! the owner makes a lane or looks a metric cell up.
//!
//! The sources of the lane and of appending, claiming and retiring are included here as they are; see `loom_table.rs`.
//! The hot paths append with stores of their own, in the same order. Run with
//! `RUSTFLAGS="--cfg loom" cargo test -p kastor --release --test 'loom*'`; otherwise there is nothing here.
#![cfg(loom)]

#[path = "../src/buffer/claim.rs"]
mod claim;
#[path = "loom/sync.rs"]
mod sync;
#[path = "loom/thread.rs"]
mod thread;

// What the sources name of the other rooms.
mod callsite {
    pub(crate) const HOT_INDEXES: u32 = 2;
    pub(crate) const HOT_SLOT_BYTES: u32 = 16;

    pub(crate) const fn hot_place(index: u32) -> u32 {
        8 + index * HOT_SLOT_BYTES
    }
}
mod health {
    pub(crate) enum DropReason {}
}
mod name {
    #[derive(Clone, Copy)]
    pub(crate) struct Path;
}
mod pool {
    use crate::thread::Chunk;

    pub(crate) fn take(words: usize) -> Chunk {
        Chunk::with_words(words)
    }

    pub(crate) fn give_back(_: Chunk) {}
}
mod record {
    pub(crate) const WORDS: usize = 4;
    pub(crate) const METRIC: u8 = 2;

    pub(crate) fn kind_of(head: u64) -> u8 {
        (head >> 40) as u8
    }
}
mod sampler {
    pub(crate) struct Sampler;
}
mod stack {
    pub(crate) struct Flow(u32);

    impl Flow {
        pub(crate) fn encode(&self) -> [u64; 4] {
            [u64::from(self.0); 4]
        }
    }

    /// Every alias stands for something.
    pub(crate) fn flow(alias: u32) -> Option<Flow> {
        Some(Flow(alias))
    }
}
mod value {
    #[derive(Clone, Copy)]
    pub(crate) struct MetricType;
    pub(crate) struct Value<'a>(std::marker::PhantomData<&'a ()>);
}

use std::{
    mem::take,
    ptr::NonNull,
    sync::{Arc, Mutex},
};

use claim::{append, append_foreign, make_room, publish};
use loom::{
    sync::atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Relaxed, SeqCst},
    },
    thread as threads,
};
use sync::{large_model, lock};
use thread::{
    Call, CellSlot, CellWanted, Chunk, Delivery, HotSlots, Lane, MIN_CHUNK_WORDS, Part, Sink, Thread, lane_flag,
};

/// A context that writes down what it gets.
#[derive(Default)]
struct Context {
    absorbed: Mutex<Vec<u64>>,
    /// Metrics of which only the number was told.
    metrics: Mutex<u64>,
    delivered: Mutex<Vec<u64>>,
    /// Whether anyone takes deliveries, and whether they find room.
    takes: bool,
    has_room: bool,
    is_off: Option<AtomicBool>,
}

/// Records of metrics have this bit in their number.
const METRIC: u64 = (record::METRIC as u64) << 40;

/// Records of foreign flows are from this number on; the flow's alias is the number.
const FOREIGN: u64 = 100;

fn record(number: u64) -> [u64; 4] {
    [number; 4]
}

/// The numbers of whole records whose flows are there.
fn numbers(part: Part<'_>) -> Vec<u64> {
    let numbers = part.records.chunks(4).map(|words| {
        assert_eq!(words, record(words[0]), "a whole record");
        let mut flows = part.flows.chunks(4).inspect(|flow| assert_eq!(*flow, record(flow[0]), "a whole flow"));
        assert!(words[0] & !METRIC < FOREIGN || flows.any(|flow| flow[0] == words[0]), "its flow is there");
        words[0]
    });
    numbers.collect()
}

impl Context {
    fn absorbed(&self) -> Vec<u64> {
        take(&mut self.absorbed.lock().unwrap())
    }

    fn delivered(&self) -> Vec<u64> {
        take(&mut self.delivered.lock().unwrap())
    }
}

impl Sink for Context {
    fn id(&self) -> u64 {
        1
    }
    fn lane_flags(&self) -> u32 {
        if self.is_off.as_ref().is_some_and(|is_off| is_off.load(SeqCst)) { lane_flag::OFF } else { 0 }
    }
    fn absorb(&self, part: Part<'_>) -> u64 {
        let numbers = numbers(part);
        let count = numbers.len() as u64;
        self.absorbed.lock().unwrap().extend(numbers);
        count
    }
    fn absorb_metrics(&self, metrics: u64) {
        *self.metrics.lock().unwrap() += metrics;
    }
    fn takes_deliveries(&self) -> bool {
        self.takes
    }
    fn has_room(&self) -> bool {
        self.has_room
    }
    fn deliver(&self, delivery: Delivery, _: bool) {
        let numbers = numbers(delivery.part());
        assert_eq!(numbers.len() as u64, delivery.events, "as many as it says");
        self.delivered.lock().unwrap().extend(numbers);
    }
    fn wait_for_room(&self) -> bool {
        self.has_room
    }

    // Nothing that the models do comes by here.
    fn is_dead(&self) -> bool {
        unreachable!()
    }
    fn wants(&self, _: &str) -> bool {
        unreachable!()
    }
    fn ticks(&self) -> u64 {
        unreachable!()
    }
    fn age_ns(&self, _: u64) -> u64 {
        unreachable!()
    }
    fn sampler(&self) -> sampler::Sampler {
        unreachable!()
    }
    fn takes_root(&self) -> bool {
        unreachable!()
    }
    fn is_strict(&self) -> bool {
        unreachable!()
    }
    fn inline(&self, _: Part<'_>) {
        unreachable!()
    }
    fn inline_call(&self, _: &Lane, _: &Call<'_>) {
        unreachable!()
    }
    fn duration_ns(&self, _: u64) -> u64 {
        unreachable!()
    }
    fn cell(&self, _: &Lane, _: &CellWanted<'_>) -> *const () {
        unreachable!()
    }
    fn refused(&self, _: health::DropReason) {
        unreachable!()
    }
    fn refused_if_over(&self) {
        unreachable!()
    }
    fn cut(&self, _: u32) {
        unreachable!()
    }
    fn end_lane(&self, _: &Lane) {
        unreachable!()
    }
}

fn lane(context: &Arc<Context>) -> Arc<Lane> {
    let thread = Arc::new(Thread { prefix: AtomicU64::new(0) });
    Arc::new(Lane::new(0, Chunk::with_words(MIN_CHUNK_WORDS), thread, Arc::clone(context) as _))
}

/// A reporter's context and a lane into it.
fn delivering(has_room: bool) -> (Arc<Context>, Arc<Lane>) {
    let context = Arc::new(Context { takes: true, has_room, ..Context::default() });
    let lane = lane(&context);
    (context, lane)
}

#[test]
fn what_was_published_is_absorbed_and_delivered_once_and_whole() {
    loom::model(|| {
        let (context, lane) = delivering(true);
        let claimer = threads::spawn({
            let lane = Arc::clone(&lane);
            move || assert!(publish(&lane, false))
        });
        append(&lane, &record(1));
        append(&lane, &record(2));
        claimer.join().unwrap();
        publish(&lane, false);
        assert_eq!((context.absorbed(), context.delivered()), (vec![1, 2], vec![1, 2]));
    });
}

#[test]
fn a_chunk_may_be_claimed_while_it_is_retired() {
    loom::model(|| {
        let (context, lane) = delivering(true);
        let claimer = threads::spawn({
            let lane = Arc::clone(&lane);
            move || assert!(publish(&lane, false))
        });
        // The third finds no room.
        (1..=3).for_each(|number| append(&lane, &record(number)));
        claimer.join().unwrap();
        make_room(&lane, 0);
        assert_eq!((context.absorbed(), context.delivered()), (vec![1, 2, 3], vec![1, 2, 3]));
    });
}

#[test]
fn two_may_claim_at_once() {
    large_model(|| {
        let (context, lane) = delivering(true);
        let claimers = [(); 2].map(|()| {
            let lane = Arc::clone(&lane);
            threads::spawn(move || publish(&lane, false))
        });
        (1..=3).for_each(|number| append(&lane, &record(number)));
        assert!(claimers.map(|claimer| claimer.join().unwrap()) == [true; 2]);
        make_room(&lane, 0);
        assert_eq!((context.absorbed(), context.delivered()), (vec![1, 2, 3], vec![1, 2, 3]));
    });
}

#[test]
fn a_chunk_that_nobody_takes_is_used_again_only_when_nobody_reads_it() {
    loom::model(|| {
        let context = Arc::new(Context::default());
        let lane = lane(&context);
        let claimer = threads::spawn({
            let lane = Arc::clone(&lane);
            move || assert!(publish(&lane, false))
        });
        (1..=3).for_each(|number| append(&lane, &record(number)));
        claimer.join().unwrap();
        publish(&lane, false);
        assert_eq!((context.absorbed(), context.delivered()), (vec![1, 2, 3], vec![]));
    });
}

#[test]
fn what_finds_no_room_is_absorbed_at_once_and_delivered_later() {
    loom::model(|| {
        let (context, lane) = delivering(false);
        let claimer = threads::spawn({
            let lane = Arc::clone(&lane);
            move || publish(&lane, false)
        });
        append(&lane, &record(1));
        append(&lane, &record(2));
        let was_all = claimer.join().unwrap();
        assert!(context.delivered().is_empty());
        assert_eq!(was_all, context.absorbed().is_empty(), "what is held back is said to be");
        assert!(publish(&lane, true), "a forced one waits for nothing");
        assert_eq!(context.delivered(), [1, 2]);
    });
}

#[test]
fn a_chunk_that_is_full_leaves_even_if_there_is_no_room_for_it() {
    loom::model(|| {
        let (context, lane) = delivering(false);
        let claimer = threads::spawn({
            let lane = Arc::clone(&lane);
            move || publish(&lane, false)
        });
        (1..=3).for_each(|number| append(&lane, &record(number)));
        claimer.join().unwrap();
        assert_eq!(context.delivered(), [1, 2], "it is for the context to drop and count them");
    });
}

#[test]
fn a_chunk_that_is_begun_names_no_flows() {
    loom::model(|| {
        let (context, lane) = delivering(true);
        append_foreign(&lane, &record(FOREIGN), &[FOREIGN as u32]);
        let claimer = threads::spawn({
            let lane = Arc::clone(&lane);
            move || publish(&lane, false)
        });
        append(&lane, &record(1));
        claimer.join().unwrap();
        make_room(&lane, 0);
        assert_eq!(context.delivered(), [FOREIGN, 1]);
        assert_eq!(lane.flows.load(Relaxed), 0);
    });
}

#[test]
fn who_sees_a_record_of_a_foreign_flow_sees_the_flow() {
    loom::model(|| {
        let (context, lane) = delivering(true);
        let claimer = threads::spawn({
            let lane = Arc::clone(&lane);
            move || assert!(publish(&lane, false))
        });
        append_foreign(&lane, &record(FOREIGN), &[FOREIGN as u32]);
        claimer.join().unwrap();
        // The first took all of the chunk.
        append_foreign(&lane, &record(FOREIGN + 1), &[FOREIGN as u32 + 1]);
        make_room(&lane, 0);
        let both = vec![FOREIGN, FOREIGN + 1];
        assert_eq!((context.absorbed(), context.delivered()), (both.clone(), both));
    });
}

#[test]
fn a_flow_is_not_read_before_it_is_written() {
    loom::model(|| {
        let (context, lane) = delivering(true);
        append(&lane, &record(1));
        make_room(&lane, 12);
        let claimer = threads::spawn({
            let lane = Arc::clone(&lane);
            move || publish(&lane, false)
        });
        append(&lane, &record(2));
        append_foreign(&lane, &record(FOREIGN), &[FOREIGN as u32]);
        claimer.join().unwrap();
        make_room(&lane, 0);
        assert_eq!(context.absorbed(), [1, 2, FOREIGN]);
    });
}

#[test]
fn every_metric_is_counted_once_however_the_chunk_is_claimed() {
    large_model(|| {
        let context = Arc::new(Context::default());
        let lane = lane(&context);
        let claimer = threads::spawn({
            let lane = Arc::clone(&lane);
            move || publish(&lane, false)
        });
        append(&lane, &record(METRIC | 1));
        append(&lane, &record(METRIC | 2));
        make_room(&lane, 0);
        append(&lane, &record(METRIC | 3));
        append(&lane, &record(4));
        claimer.join().unwrap();
        make_room(&lane, 0);
        let read = context.absorbed();
        let told = *context.metrics.lock().unwrap();
        assert_eq!(read.len() as u64 + told, 4, "{read:?} were read");
        assert!(read.contains(&4), "a scope among metrics is read");
    });
}

/// A context that can be switched off, and a lane into it.
fn switchable() -> (Arc<Context>, Arc<Lane>) {
    let context = Arc::new(Context { is_off: Some(AtomicBool::new(false)), ..Context::default() });
    let lane = lane(&context);
    (context, lane)
}

fn switch(context: &Context, is_off: bool) {
    context.is_off.as_ref().unwrap().store(is_off, SeqCst);
}

/// One slot, which remembers nothing.
static SLOT: Slot = Slot([CellSlot { key: u32::MAX, cell: NonNull::dangling() }]);

struct Slot([CellSlot; 1]);

// SAFETY: its pointer leads nowhere.
unsafe impl Sync for Slot {}

#[test]
fn a_lane_that_was_switched_off_offers_no_cells() {
    loom::model(|| {
        let (context, lane) = switchable();
        let switcher = threads::spawn({
            let (context, lane) = (Arc::clone(&context), Arc::clone(&lane));
            move || {
                switch(&context, true);
                lane.cursor.follow(&*context);
            }
        });
        lane.cursor.offer(&SLOT.0);
        switcher.join().unwrap();
        assert_eq!((lane.cursor.flags.load(Relaxed), lane.cursor.cells_len.load(Relaxed)), (lane_flag::OFF, 0));
    });
}

#[test]
fn no_cell_is_found_at_once_in_a_lane_that_was_switched_off() {
    loom::model(|| {
        let (context, lane) = switchable();
        let slots = Arc::new(HotSlots::new());
        let switcher = threads::spawn({
            let (context, lane, slots) = (Arc::clone(&context), Arc::clone(&lane), Arc::clone(&slots));
            move || {
                switch(&context, true);
                lane.cursor.follow(&*context);
                slots.clear();
            }
        });
        slots.fill(1, 7, NonNull::dangling(), || lane.cursor.flags.load(Relaxed) & lane_flag::OFF != 0);
        switcher.join().unwrap();
        assert!(slots.find(callsite::hot_place(1), 7).is_none());
    });
}

#[test]
fn a_switch_keeps_what_the_owner_says_of_its_lane() {
    loom::model(|| {
        let (context, lane) = switchable();
        let switcher = threads::spawn({
            let (context, lane) = (Arc::clone(&context), Arc::clone(&lane));
            move || {
                switch(&context, true);
                lane.cursor.follow(&*context);
            }
        });
        lane.cursor.flags.fetch_or(lane_flag::WORN, Relaxed);
        switcher.join().unwrap();
        assert_eq!(lane.cursor.flags.load(Relaxed), lane_flag::OFF | lane_flag::WORN);
    });
}

/// The list of a thread's lanes: whoever switches a context goes through it, whoever makes a lane puts it there.
/// These steps are those of `buffer/owner.rs`, not its source.
#[test]
fn a_lane_that_is_made_while_its_context_is_switched_ends_as_the_context_does() {
    loom::model(|| {
        let context = Arc::new(Context { is_off: Some(AtomicBool::new(false)), ..Context::default() });
        let listed = Arc::new(loom::sync::Mutex::new(Vec::<Arc<Lane>>::new()));
        let switcher = threads::spawn({
            let (context, listed) = (Arc::clone(&context), Arc::clone(&listed));
            move || {
                switch(&context, true);
                lock(&listed).iter().for_each(|lane| lane.cursor.follow(&*context));
            }
        });
        let lane = lane(&context);
        {
            let mut listed = lock(&listed);
            lane.cursor.follow(&*context);
            listed.push(Arc::clone(&lane));
        }
        switcher.join().unwrap();
        assert_eq!(lane.cursor.flags.load(Relaxed), lane_flag::OFF);
    });
}

#[test]
fn two_switches_at_once_leave_the_lane_as_the_context_is() {
    loom::model(|| {
        let (context, lane) = switchable();
        let listed = Arc::new(loom::sync::Mutex::new(vec![Arc::clone(&lane)]));
        let switcher = threads::spawn({
            let (context, listed) = (Arc::clone(&context), Arc::clone(&listed));
            move || {
                switch(&context, true);
                lock(&listed).iter().for_each(|lane| lane.cursor.follow(&*context));
            }
        });
        switch(&context, false);
        lock(&listed).iter().for_each(|lane| lane.cursor.follow(&*context));
        switcher.join().unwrap();
        assert_eq!(lane.cursor.flags.load(Relaxed), context.lane_flags());
    });
}
