//! A library that instruments itself: silent and nearly free until a program installs a context, then visible without a change.
//!
//! A library depends on the core alone, uses the macros without a context, and never installs one. It needs no feature and no
//! set-up call. Its scopes appear below whatever scope the program has open.

use kastor::{Telemetry, scope};

/// The library. In real life a crate of its own.
mod thumbnails {
    use std::cell::Cell;

    use kastor::{count, scope};

    thread_local! {
        /// How often the costly attribute was computed; to show when that is.
        pub static COMPUTED: Cell<u32> = const { Cell::new(0) };
    }

    /// Makes a thumbnail by keeping every `step`th pixel.
    pub fn shrink(pixels: &[u8], step: usize) -> Vec<u8> {
        let _scope = scope!("thumbnails.shrink", brightness = brightness(pixels));
        let small: Vec<u8> = pixels.iter().copied().step_by(step.max(1)).collect();
        count!("thumbnails.bytes_saved", (pixels.len() - small.len()) as u64);
        small
    }

    fn brightness(pixels: &[u8]) -> u64 {
        COMPUTED.set(COMPUTED.get() + 1);
        pixels.iter().map(|pixel| u64::from(*pixel)).sum::<u64>() / pixels.len().max(1) as u64
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pixels = [0; 100];

    // The program has nothing installed: the library works, and nothing is recorded, not even its attributes are computed.
    assert!(!Telemetry::current().is_enabled());
    assert_eq!(thumbnails::shrink(&pixels, 10).len(), 10);
    assert_eq!(thumbnails::COMPUTED.get(), 0);

    // The program decides to look.
    let telemetry = Telemetry::builder().build();
    telemetry.clone().install()?;
    {
        let _scope = scope!("gallery");
        assert_eq!(thumbnails::shrink(&pixels, 10).len(), 10);
    }
    assert_eq!(thumbnails::COMPUTED.get(), 1);
    println!("{}", telemetry.report());
    let calls_of = |telemetry: &Telemetry, path| telemetry.report().scope(path).map(|scope| scope.calls());
    assert_eq!(calls_of(&telemetry, "gallery.thumbnails.shrink"), Some(1));

    // The program has seen enough of this library: its scopes vanish, from paths too.
    telemetry.switch_scopes("thumbnails.*", false);
    assert_eq!(thumbnails::shrink(&pixels, 10).len(), 10);
    assert_eq!(thumbnails::COMPUTED.get(), 1);
    Ok(())
}
