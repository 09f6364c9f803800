//! One of everything.
use kastor::*;
use std::time::Duration;

#[test]
fn everything_once() {
    let clock = MockClock::new();
    let simple = SimpleReporter::new();
    let recording = Recording::new(1 << 20);
    let tele = Telemetry::builder().clock(clock.clone()).reporter(simple.clone()).reporter(recording.clone()).build();
    let _current = tele.override_current();
    {
        let outer = scope!("outer", n = 3, text = "abc", shown = %4.5);
        clock.advance(Duration::from_millis(5));
        for i in 0..3 {
            let inner = scope!("inner");
            clock.advance(Duration::from_millis(1));
            count!("items");
            count!("items", i);
            count!("bytes", 10u64, kind = "md");
            count!("bytes", 10u64, kind = "md", host = i);
            gauge!("depth", 4.5);
            histogram!("size", 512);
            metric!("note", 1.5);
            metric!("state", "ready", shard = i);
            if i == 1 {
                inner.fail("bad");
            }
        }
        outer.event("done");
        outer.set("n", 4);
    }
    println!("{}", tele.report());
    println!("{}", simple.report());
    println!("{:?}", tele.flush(Duration::from_secs(1)));
    println!("{}", tele.stats());
    recording.for_each_batch(|batch| batch.events().for_each(|event| println!("{event:?}")));
    assert_eq!(recording.len(), 4 + 6);
    assert_eq!(tele.report().scope("outer.inner").unwrap().calls(), 3);
    assert_eq!(tele.report().scope("outer.inner").unwrap().errors(), 1);
}

#[test]
fn a_million() {
    let recording = Recording::new(64 << 20);
    let tele = Telemetry::builder().reporter(recording.clone()).build();
    let _current = tele.override_current();
    for _ in 0..10_000 {
        let _root = scope!("root");
        for _ in 0..99 {
            let _child = scope!("child");
        }
    }
    assert!(tele.flush(Duration::from_secs(5)).is_complete());
    println!("{}", tele.stats());
    assert_eq!(recording.len(), 1_000_000);
}
