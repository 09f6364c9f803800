//! Tasks on tokio: a future takes its scope along, over every await and to whichever thread polls it next.
//!
//! `future.in_scope(scope!(..))` is all there is to it. The scope is current while the future is being polled and only then, so that
//! tasks that share a thread never see each other's scopes. A future that is dropped before it is finished shows as `cancelled`.
//! The core needs no runtime; see `smol_tasks` for another one.

use std::time::Duration;

use kastor::{FutureExt as _, Recording, Telemetry, count, scope};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let recording = Recording::new(1 << 20);
    let telemetry = Telemetry::builder().reporter(recording.clone()).build();
    telemetry.clone().install()?;

    serve().in_scope(scope!("serve")).await;

    assert!(telemetry.flush(Duration::from_secs(5)).is_complete());
    println!("{}", telemetry.report());

    let ends_of = |path: &str| {
        let mut ends = Vec::new();
        recording.for_each_batch(|batch| {
            let of_path = batch.timings().filter(|timing| timing.scope() == path);
            ends.extend(of_path.map(|timing| timing.error_type().map(str::to_owned)));
        });
        ends
    };
    assert_eq!(ends_of("serve"), [None]);
    assert_eq!(ends_of("serve.request"), vec![None; 10]);
    assert_eq!(ends_of("serve.request.query"), vec![None; 10]);
    assert_eq!(ends_of("serve.too_slow"), [Some("cancelled".to_owned())]);
    Ok(())
}

async fn serve() {
    // The scope is opened here, where its parent is current; the task then runs anywhere.
    let requests: Vec<_> =
        (0..10).map(|number| tokio::spawn(request(number).in_scope(scope!("request", number = number)))).collect();
    for request in requests {
        assert!(request.await.is_ok());
    }

    let too_slow = tokio::time::sleep(Duration::from_secs(60)).in_scope(scope!("too_slow"));
    let timed_out = tokio::time::timeout(Duration::from_millis(10), too_slow).await;
    assert!(timed_out.is_err());
}

async fn request(number: u32) {
    query(number).await;
    count!("answered"); // serve.request.answered
}

/// The attribute form does the same for every call of a function.
#[kastor::scoped("query")]
async fn query(number: u32) {
    tokio::time::sleep(Duration::from_millis(u64::from(number))).await;
}
