//! `--cfg kastor_off`: the macros compile to nothing. `cargo xtask test` compiles and runs this with the flag.
#![cfg(kastor_off)]
// What only the macros use counts as used.
#![deny(warnings)]

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use kastor::{FutureExt as _, Recording, Telemetry, count, gauge, histogram, metric, scope};

/// A current context that would record everything.
fn observed() -> (Telemetry, Recording) {
    let recording = Recording::new(1 << 20);
    (Telemetry::builder().reporter(recording.clone()).build(), recording)
}

fn assert_nothing_recorded(tele: &Telemetry, recording: &Recording) {
    assert!(tele.flush(Duration::from_secs(5)).is_complete());
    assert_eq!((recording.len(), tele.stats().emitted()), (0, 0));
    let report = tele.report();
    assert_eq!((report.scopes().len(), report.series().len()), (0, 0));
}

fn never<T>() -> T {
    panic!("evaluated, although the macros are off")
}

#[test]
fn scopes_are_not_opened_and_nothing_in_them_is_evaluated() {
    let (tele, recording) = observed();
    let _current = tele.override_current();
    let only_here = 1;
    let scopes = [
        scope!("plain"),
        scope!("attributes", a = never::<u64>(), "b.c" = %never::<u64>(), d = ?never::<u64>(), only_here = only_here),
        scope!(never::<Telemetry>(), "given"),
        scope!(never::<Telemetry>(), "given", a = never::<&str>()),
    ];
    for scope in &scopes {
        scope.set("key", 1);
        scope.fail("because");
        assert!(!scope.is_recording());
    }
    drop(scopes);
    assert_nothing_recorded(&tele, &recording);
}

#[test]
fn metrics_are_not_recorded_and_nothing_in_them_is_evaluated() {
    let (tele, recording) = observed();
    let _current = tele.override_current();
    let only_here = 1;
    count!("plain");
    count!("static", never::<u64>(), kind = "md");
    count!("dynamic", never::<u64>(), host = never::<&str>(), only_here = only_here);
    count!(never::<Telemetry>(), "given");
    count!(never::<Telemetry>(), "given", 1, kind = "md");
    gauge!("plain", never::<f64>());
    gauge!(never::<Telemetry>(), "given", 1.5, kind = never::<&str>());
    histogram!("plain", never::<u64>());
    histogram!(never::<Telemetry>(), "given", 512, kind = never::<&str>());
    metric!("plain", never::<f64>());
    metric!("attributes", 1.5, a = never::<u64>(), "b.c" = %never::<u64>(), d = ?never::<u64>());
    metric!(never::<Telemetry>(), "given", "ready");
    metric!(never::<Telemetry>(), "given", "ready", shard = never::<u64>());
    assert_nothing_recorded(&tele, &recording);
}

#[test]
fn scoped_functions_and_futures_run_as_if_they_were_not() {
    #[kastor::scoped]
    fn double(number: u32) -> u32 {
        number * 2
    }

    #[kastor::scoped("half.of")]
    async fn half(number: u32) -> Result<u32, String> {
        std::future::ready(()).await;
        if number % 2 == 0 { Ok(number / 2) } else { Err(number.to_string()) }
    }

    let (tele, recording) = observed();
    let _current = tele.override_current();
    assert_eq!(double(4), 8);
    assert_eq!(ready(half(4)), Ok(2));
    assert_eq!(ready(half(5).in_scope(scope!("task"))), Err("5".to_owned()));
    assert_nothing_recorded(&tele, &recording);
}

/// The rest of the library is as it was.
#[test]
fn scopes_by_name_are_recorded() {
    let (tele, recording) = observed();
    {
        let _scope = tele.scope("by_name");
        let _inner = scope!(tele, "by_macro");
    }
    assert!(tele.flush(Duration::from_secs(5)).is_complete());
    assert_eq!((recording.len(), tele.stats().emitted()), (1, 1));
    assert_eq!(tele.report().scope("by_name").map(|row| row.calls()), Some(1));
}

fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it awaits nothing"),
    }
}
