//! Tasks on smol: the same as on tokio, since kastor needs no runtime; and blocking calls, which take a carrier along.
//!
//! A blocking call leaves the task for a thread of a pool. What it does there belongs to the task's scope if the closure attaches
//! the task's [`Carrier`].

use std::time::Duration;

use kastor::{Carrier, FutureExt as _, Recording, Telemetry, scope};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let recording = Recording::new(1 << 20);
    let telemetry = Telemetry::builder().reporter(recording.clone()).build();
    telemetry.clone().install()?;

    let sizes = smol::block_on(
        async {
            let tasks: Vec<_> =
                (1..=3).map(|number| smol::spawn(load(number).in_scope(scope!("load", number = number)))).collect();
            let mut sizes = Vec::new();
            for task in tasks {
                sizes.push(task.await);
            }
            sizes
        }
        .in_scope(scope!("page")),
    );
    assert_eq!(sizes, [1000, 2000, 3000]);

    assert!(telemetry.flush(Duration::from_secs(5)).is_complete());
    println!("{}", telemetry.report());
    let mut scopes = Vec::new();
    recording.for_each_batch(|batch| scopes.extend(batch.timings().map(|timing| timing.scope())));
    scopes.sort();
    let expected =
        [vec!["page"], vec!["page.load"; 3], vec!["page.load.disk"; 3], vec!["page.load.unpack"; 3]].concat();
    assert_eq!(scopes, expected);
    Ok(())
}

async fn load(number: usize) -> usize {
    let carrier = Carrier::current();
    let packed = smol::unblock(move || {
        let _attached = carrier.attach();
        let _scope = scope!("disk"); // page.load.disk, on a thread of the pool
        vec![0_u8; number]
    })
    .await;
    smol::future::yield_now().await; // other tasks run here, on this thread; their scopes are theirs
    let _scope = scope!("unpack"); // page.load.unpack; a scope must not be held across an await, and the compiler says so
    packed.len() * 1000
}
