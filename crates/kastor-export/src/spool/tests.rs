use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
    sync::Arc,
};

use proptest::prelude::*;

use super::*;
use crate::simulated::{Random, SimFs};

fn config() -> SpoolConfig {
    SpoolConfig::new("spool").max_bytes(1 << 20).max_segment_bytes(4096)
}

fn open(fs: &SimFs, config: &SpoolConfig) -> Spool {
    Spool::open_on(Arc::new(fs.clone()), config).unwrap()
}

/// The process is gone, and did not get to tidy up.
fn kill(fs: &SimFs, spool: Spool) {
    std::mem::forget(spool);
    fs.kill();
}

fn payload(number: u64, bytes: usize) -> Vec<u8> {
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(8 + bytes, number as u8);
    payload
}

fn number(payload: &[u8]) -> u64 {
    u64::from_le_bytes(payload[..8].try_into().unwrap())
}

fn drain(spool: &Spool) -> Vec<u64> {
    let mut numbers = Vec::new();
    while let Some(entry) = spool.next() {
        numbers.push(number(&entry.payload));
        spool.acknowledge(entry.id).unwrap();
    }
    numbers
}

#[test]
fn payloads_come_in_order_and_the_same_one_until_it_is_acknowledged() {
    let (fs, config) = (SimFs::default(), config());
    let spool = open(&fs, &config);
    assert_eq!(spool.next(), None);
    for at in 0..20 {
        spool.append(&payload(at, 500), at + 1).unwrap();
    }
    spool.sync().unwrap();
    let totals = spool.totals();
    assert_eq!((totals.entries, totals.events, totals.corrupt_events), (20, 210, 0));
    let first = spool.next().unwrap();
    assert_eq!(spool.next().unwrap(), first);
    assert_eq!((number(&first.payload), first.events), (0, 1));
    assert_eq!(drain(&spool), (0..20).collect::<Vec<_>>());
    assert_eq!(spool.totals().events, 0);
    drop(spool);
    assert_eq!(fs.names(), Vec::<String>::new(), "an empty spool leaves nothing behind");
}

#[test]
fn what_a_killed_process_left_is_taken_over_once() {
    let (fs, config) = (SimFs::default(), config());
    let killed = open(&fs, &config);
    for at in 0..20 {
        killed.append(&payload(at, 500), 2).unwrap();
    }
    for _ in 0..5 {
        let entry = killed.next().unwrap();
        killed.acknowledge(entry.id).unwrap();
    }
    let living = open(&fs, &config);
    assert_eq!(living.next(), None, "its process lives");
    kill(&fs, killed);
    let heir = open(&fs, &config);
    let other = open(&fs, &config);
    assert_eq!((heir.totals().adopted_events, heir.totals().events, other.totals().events), (30, 30, 0));
    heir.append(&payload(99, 0), 1).unwrap();
    assert_eq!(drain(&heir), (5..20).chain([99]).collect::<Vec<_>>());
    drop((heir, other, living));
    assert_eq!(fs.names(), Vec::<String>::new());
}

#[test]
fn the_quota_costs_the_oldest_and_says_how_many_events() {
    let (fs, config) = (SimFs::default(), config().max_bytes(40 << 10));
    let spool = open(&fs, &config);
    let mut evicted = 0;
    for at in 0..200 {
        evicted += spool.append(&payload(at, 1000), 3).unwrap().evicted_events;
        assert!(spool.totals().bytes <= 40 << 10);
        assert_eq!(spool.totals().events + evicted, (at + 1) * 3);
    }
    let left = drain(&spool);
    assert_eq!(left, (evicted / 3..200).collect::<Vec<_>>());
    assert!(left.len() >= 25, "{}", left.len());
    let error = spool.append(&payload(0, 41 << 10), 1).unwrap_err();
    assert!(!error.is_temporary() && error.to_string().contains("quota"), "{error}");
}

#[test]
fn what_is_being_delivered_outlives_its_eviction() {
    let (fs, config) = (SimFs::default(), config().max_bytes(20 << 10));
    let spool = open(&fs, &config);
    spool.append(&payload(0, 1000), 7).unwrap();
    let in_hand = spool.next().unwrap();
    let evicted: u64 = (1..100).map(|at| spool.append(&payload(at, 1000), 1).unwrap().evicted_events).sum();
    assert!(evicted > 0);
    assert_eq!(spool.totals().events + evicted, 99 + 7, "not among the evicted");
    assert_eq!(spool.next().unwrap(), in_hand);
    spool.acknowledge(in_hand.id).unwrap();
    assert_eq!(spool.totals().events + evicted, 99);
    assert_ne!(spool.next().unwrap().id, in_hand.id);
}

#[test]
fn a_damaged_payload_costs_itself_alone_and_its_events_are_counted() {
    // The payload, the header, and a run of everything in between.
    for damaged in [40..41, 4..5, 0..1088] {
        let (fs, config) = (SimFs::default(), config());
        let killed = open(&fs, &config);
        for at in 0..6 {
            killed.append(&payload(at, 500), at + 1).unwrap();
        }
        kill(&fs, killed);
        let entry = segment::entry_bytes(508) as usize;
        let range = entry + damaged.start..entry + damaged.end;
        let lost = 1 + damaged.end / entry;
        fs.damage(".kspool", |bytes| bytes[range].iter_mut().for_each(|byte| *byte ^= 0x55));
        let heir = open(&fs, &config);
        assert_eq!(drain(&heir), [0].into_iter().chain(1 + lost as u64..6).collect::<Vec<_>>());
        assert_eq!(heir.totals().corrupt_events, (2..2 + lost as u64).sum::<u64>());
    }
}

#[test]
fn after_a_failed_sync_the_old_segment_is_not_written_and_nothing_is_lost() {
    let (fs, config) = (SimFs::default(), config());
    let spool = open(&fs, &config);
    spool.append(&payload(0, 100), 1).unwrap();
    spool.sync().unwrap();
    spool.append(&payload(1, 100), 1).unwrap();
    // The sync fails, and so does the first attempt at a new segment.
    fs.fail(0, true, io::ErrorKind::StorageFull);
    assert!(spool.sync().unwrap_err().is_temporary());
    fs.heal();
    spool.sync().unwrap();
    spool.append(&payload(2, 100), 1).unwrap();
    spool.sync().unwrap();
    std::mem::forget(spool);
    fs.cut_power(&mut Random(7));
    let heir = open(&fs, &config);
    assert_eq!(drain(&heir), [0, 1, 2]);
    assert_eq!(heir.totals().corrupt_events, 0);
}

#[test]
fn a_removed_folder_is_made_again_with_all_that_waits() {
    let (fs, config) = (SimFs::default(), config());
    let spool = open(&fs, &config);
    for at in 0..20 {
        spool.append(&payload(at, 500), 1).unwrap();
    }
    spool.sync().unwrap();
    fs.remove_all();
    spool.append(&payload(20, 500), 1).unwrap();
    spool.sync().unwrap();
    kill(&fs, spool);
    let heir = open(&fs, &config);
    assert_eq!(drain(&heir), (0..21).collect::<Vec<_>>());
}

#[test]
fn a_full_disk_refuses_the_new_and_still_delivers_and_removes_the_old() {
    let (fs, config) = (SimFs::default(), config());
    let spool = open(&fs, &config);
    for at in 0..20 {
        spool.append(&payload(at, 500), 1).unwrap();
    }
    spool.sync().unwrap();
    let names = fs.names().len();
    fs.fill();
    assert!(spool.append(&payload(20, 500), 1).unwrap_err().is_temporary());
    assert_eq!(spool.totals().events, 20);
    assert_eq!(drain(&spool), (0..20).collect::<Vec<_>>());
    assert!(fs.names().len() < names);
}

#[test]
fn a_forked_child_leaves_the_parents_payloads_alone() {
    let (fs, config) = (SimFs::default(), config());
    let (parent, child) = (open(&fs, &config), open(&fs, &config));
    parent.append(&payload(1, 10), 1).unwrap();
    child.append(&payload(2, 10), 1).unwrap();
    // In the child the spool looks as it did in the parent, until it begins anew.
    let mut held: Vec<Box<dyn Held + '_>> = Vec::new();
    child.hold_for_fork(&mut held);
    assert_eq!(held.len(), 1);
    drop(held);
    child.begin_anew().unwrap();
    assert_eq!((child.totals(), child.next()), (Totals::default(), None));
    child.append(&payload(3, 10), 1).unwrap();
    assert_eq!(drain(&child), [3]);
    assert_eq!(drain(&parent), [1]);
}

#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    Sync,
    Deliver,
    Kill,
    CutPower(u64),
    Fail(u32, bool),
    Heal,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Half of the disks never fail: there a payload comes once.
    let failures = prop::bool::ANY;
    (failures, prop::collection::vec(step(), 1..80)).prop_map(|(has_failures, steps)| {
        steps.into_iter().filter(|step| has_failures || !matches!(step, Step::Fail(..))).collect()
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..1500usize).prop_map(Step::Append),
        4 => Just(Step::Sync),
        6 => Just(Step::Deliver),
        1 => Just(Step::Kill),
        1 => any::<u64>().prop_map(Step::CutPower),
        1 => (0..12u32, any::<bool>()).prop_map(|(after, for_ever)| Step::Fail(after, for_ever)),
        2 => Just(Step::Heal),
    ]
}

/// What an observer outside knows.
#[derive(Default)]
struct Oracle {
    appended: BTreeMap<u64, usize>,
    durable: BTreeSet<u64>,
    /// Acknowledged, and the spool said that it knows.
    acknowledged: BTreeSet<u64>,
    /// Given to somebody.
    delivered: BTreeMap<u64, u32>,
    /// Whether the disk failed at some time: then a payload may come twice, if also a removal is undone by a crash.
    has_failed: bool,
}

impl Oracle {
    fn deliver(&mut self, spool: &Spool) -> bool {
        let Some(entry) = spool.next() else { return false };
        let number = number(&entry.payload);
        assert_eq!(entry.payload, payload(number, self.appended[&number]), "a payload is what was appended");
        assert_eq!(entry.events, number % 5);
        let comes_again = self.acknowledged.contains(&number);
        assert!(!comes_again || self.has_failed, "{number} comes again after it was acknowledged");
        *self.delivered.entry(number).or_default() += 1;
        if spool.acknowledge(entry.id).is_ok() {
            self.acknowledged.insert(number);
        }
        true
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 400 }))]

    #[test]
    fn nothing_durable_is_lost_and_nothing_acknowledged_comes_again(steps in steps(), last in any::<u64>()) {
        let (fs, config) = (SimFs::default(), config());
        let mut spool = open(&fs, &config);
        let mut oracle = Oracle::default();
        let mut next = 0;
        // Appended by a process that still lives, so a kill does not lose them.
        let mut accepted = BTreeSet::new();
        // Of a process whose sync may have failed: no later one can tell what the disk has of it.
        let mut inherited = BTreeSet::new();
        for step in steps {
            match step {
                Step::Append(bytes) => {
                    oracle.appended.insert(next, bytes);
                    if spool.append(&payload(next, bytes), next % 5).is_ok() {
                        accepted.insert(next);
                    }
                    next += 1;
                }
                Step::Sync => {
                    if spool.sync().is_ok() {
                        oracle.durable.extend(&accepted);
                    }
                }
                Step::Deliver => {
                    oracle.deliver(&spool);
                }
                Step::Kill => {
                    fs.heal();
                    kill(&fs, spool);
                    spool = open(&fs, &config);
                    if oracle.has_failed {
                        inherited.append(&mut accepted);
                    }
                }
                Step::CutPower(seed) => {
                    fs.heal();
                    std::mem::forget(spool);
                    fs.cut_power(&mut Random(seed));
                    inherited.clear();
                    accepted.retain(|number| oracle.durable.contains(number));
                    spool = open(&fs, &config);
                }
                Step::Fail(after, for_ever) => {
                    oracle.has_failed = true;
                    fs.fail(after, for_ever, io::ErrorKind::Other);
                }
                Step::Heal => fs.heal(),
            }
        }
        fs.heal();
        std::mem::forget(spool);
        let is_power_cut = last % 2 == 0;
        if is_power_cut { fs.cut_power(&mut Random(last)) } else { fs.kill() }
        let spool = open(&fs, &config);
        while oracle.deliver(&spool) {}
        accepted.append(&mut inherited);
        let owed = if is_power_cut { &oracle.durable } else { &accepted };
        for number in owed {
            prop_assert!(oracle.delivered.contains_key(number), "{number} is lost");
        }
        prop_assert_eq!(spool.totals().events, 0);
    }
}

#[test]
fn each_call_of_the_disk_may_fail_once_or_for_ever() {
    let run = |failure: Option<(u32, bool)>| {
        let (fs, config) = (SimFs::default(), config());
        let spool = open(&fs, &config);
        let before = fs.calls();
        if let Some((at, for_ever)) = failure {
            fs.fail(at, for_ever, io::ErrorKind::Other);
        }
        let mut durable = BTreeSet::new();
        let (mut accepted, mut delivered) = (BTreeSet::new(), BTreeSet::new());
        for at in 0..12 {
            if spool.append(&payload(at, 900), 1).is_ok() {
                accepted.insert(at);
            }
            if spool.sync().is_ok() {
                durable.extend(accepted.iter().copied());
            }
            if at % 3 == 0
                && let Some(entry) = spool.next()
            {
                let _ = spool.acknowledge(entry.id);
                delivered.insert(number(&entry.payload));
            }
        }
        let calls = fs.calls() - before;
        fs.heal();
        std::mem::forget(spool);
        fs.cut_power(&mut Random(u64::from(calls)));
        let heir = open(&fs, &config);
        delivered.extend(drain(&heir));
        assert!(durable.is_subset(&delivered), "{failure:?}: {:?}", durable.difference(&delivered));
        calls
    };
    let calls = run(None);
    assert!(calls > 40, "{calls}");
    for at in 0..calls {
        run(Some((at, false)));
        run(Some((at, true)));
    }
}

/// A process that is killed again and again, and an observer that remembers what it was told.
#[test]
fn a_killed_process_duplicates_at_most_one_payload_and_loses_none() {
    const NAME: &str = "spool::tests::a_killed_process_duplicates_at_most_one_payload_and_loses_none";
    if let Ok(child) = std::env::var("KASTOR_TEST_CHILD") {
        let (folder, first) = child.split_once('|').unwrap();
        let spool = Spool::open(&SpoolConfig::new(folder).max_segment_bytes(16 << 10)).unwrap();
        let mut out = io::stdout().lock();
        for at in first.parse::<u64>().unwrap().. {
            spool.append(&payload(at, 700), 1).unwrap();
            spool.sync().unwrap();
            writeln!(out, "kept {at}").unwrap();
            if at % 2 == 0 {
                let entry = spool.next().unwrap();
                writeln!(out, "delivered {}", number(&entry.payload)).unwrap();
                out.flush().unwrap();
                spool.acknowledge(entry.id).unwrap();
            }
        }
    }
    let rounds = if std::env::var_os("KASTOR_DEEP").is_some_and(|set| set == "1") { 1000 } else { 15 };
    let folder = tempfile::tempdir().unwrap();
    let (mut kept, mut delivered) = (BTreeSet::new(), BTreeMap::<u64, u32>::new());
    for round in 0..rounds {
        let first = kept.last().map_or(0, |last| last + 1) + 1000;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture", "--test-threads=1"])
            .env("KASTOR_TEST_CHILD", format!("{}|{first}", folder.path().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some(number) = line.strip_prefix("kept ") {
                kept.insert(number.parse().unwrap());
            } else if let Some(number) = line.strip_prefix("delivered ") {
                *delivered.entry(number.parse().unwrap()).or_default() += 1;
            }
            lines += 1;
            if lines == 20 + round % 13 {
                // What it wrote to the pipe before it died is still read.
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
    }
    let spool = Spool::open(&SpoolConfig::new(folder.path())).unwrap();
    assert_eq!(spool.totals().corrupt_events, 0);
    while let Some(entry) = spool.next() {
        *delivered.entry(number(&entry.payload)).or_default() += 1;
        spool.acknowledge(entry.id).unwrap();
    }
    let lost: Vec<_> = kept.iter().filter(|number| !delivered.contains_key(number)).collect();
    assert_eq!(lost, Vec::<&u64>::new());
    let again: u32 = delivered.values().map(|times| times - 1).sum();
    assert!(again <= rounds, "{again} duplicates in {rounds} crashes");
    drop(spool);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// With KASTOR_BLESS=1 the file is written anew: only ever for a version that was not released.
#[test]
fn the_segments_of_version_1_are_read_as_on_the_first_day() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/spool-1.kspool");
    let folder = tempfile::tempdir().unwrap();
    if std::env::var_os("KASTOR_BLESS").is_some_and(|set| set == "1") {
        let spool = Spool::open(&SpoolConfig::new(folder.path())).unwrap();
        for at in 0..5 {
            spool.append(&payload(at, 30), at + 1).unwrap();
        }
        let first = spool.next().unwrap();
        spool.acknowledge(first.id).unwrap();
        let mut segments = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let segment = segments.find(|path| path.extension().is_some_and(|it| it == "kspool")).unwrap();
        std::fs::copy(segment, &golden).unwrap();
        drain(&spool);
    }
    std::fs::copy(&golden, folder.path().join("4711-00000000000000ab-00000001.kspool")).unwrap();
    let spool = Spool::open(&SpoolConfig::new(folder.path())).unwrap();
    let totals = spool.totals();
    assert_eq!((totals.entries, totals.events, totals.corrupt_events), (4, 14, 0));
    assert_eq!(spool.next().unwrap().payload, payload(1, 30));
    assert_eq!(drain(&spool), [1, 2, 3, 4]);
}
