//! Captures with known content.

use std::path::Path;
use std::time::Duration;

use kastor::{MockClock, OnFull, Telemetry, background, scope};
use kastor_export::capture::{Capture, CaptureConfig};

const PATIENCE: Duration = Duration::from_secs(60);

/// So many scopes under some 70 paths, three levels deep, one in a thousand failed. Returns how many there are.
pub fn many(folder: &Path, scopes: u64) -> Result<u64, String> {
    let config = CaptureConfig::new(folder).max_file_bytes(256 << 20).max_files(64);
    let capture = background(Capture::with(config)).on_full(OnFull::Wait(PATIENCE));
    let telemetry = Telemetry::builder().reporter(capture).build();
    let names: Vec<String> = (0..32).map(|number| format!("step_{number}")).collect();
    let _current = telemetry.override_current();
    let mut written = 0;
    while written < scopes {
        let _request = scope!("request");
        for name in &names {
            let step = telemetry.scope(name);
            drop(scope!("query"));
            if written % 1000 < 2 {
                step.fail("timeout");
            }
            written += 2;
        }
        written += 1;
    }
    end(telemetry)?;
    Ok(written)
}

/// Paths of [`noisy`] below `job`.
pub const STEPS: usize = 8;

/// Runs of `job` with one call of each step, whose durations are log-normal with σ = 20 % around 10 to 80 µs. The step
/// `slower` takes this much longer. Time is injected, so this is quick.
pub fn noisy(file: &Path, runs: u64, slower: Option<(usize, f64)>, seed: u64) -> Result<(), String> {
    let clock = MockClock::new();
    let capture = background(Capture::new(file)).on_full(OnFull::Wait(PATIENCE));
    let telemetry = Telemetry::builder().clock(clock.clone()).reporter(capture).build();
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let names: Vec<String> = (0..STEPS).map(|number| format!("step_{number}")).collect();
    let _current = telemetry.override_current();
    for _ in 0..runs {
        let _job = scope!("job");
        for (number, name) in names.iter().enumerate() {
            let _step = telemetry.scope(name);
            let longer = slower.filter(|(of, _)| *of == number).map_or(1.0, |(_, by)| 1.0 + by);
            let ns = 10_000.0 * (number + 1) as f64 * (0.2 * random.normal()).exp() * longer;
            clock.advance(Duration::from_nanos(ns as u64));
        }
    }
    end(telemetry)
}

fn end(telemetry: Telemetry) -> Result<(), String> {
    telemetry.shutdown(PATIENCE);
    let dropped: u64 = telemetry.stats().reporters().iter().map(|reporter| reporter.dropped().total()).sum();
    if dropped > 0 { Err(format!("{dropped} events of a capture were dropped")) } else { Ok(()) }
}

/// Xorshift (Marsaglia, 2003), and from it normal variables (Box and Muller, 1958).
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}
