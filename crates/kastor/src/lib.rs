//! Telemetry at the cost of two clock reads.
//!
//! A program opens named, nested [scopes](scope!) and records [metrics](count!) inside them; kastor times them, keeps
//! the hierarchy right across threads, tasks and awaits, adds everything up exactly, and hands every event to
//! [reporters](Reporter). Disabled it costs next to nothing; enabled, about two reads of the clock. It never breaks the
//! program it watches, and loses nothing uncounted.
//!
//! ```
//! use kastor::{Telemetry, count, scope};
//!
//! let tele = Telemetry::builder().build();
//! let _current = tele.override_current(); // or tele.install() once, in main
//! {
//!     let _scope = scope!("pipeline", files = 3);
//!     for _ in 0..3 {
//!         let _scope = scope!("parse");
//!         count!("bytes", 512);
//!     }
//! }
//! let report = tele.report();
//! assert_eq!(report.scope("pipeline.parse").map(|parse| parse.calls()), Some(3));
//! println!("{report}");
//! ```
//!
//! # What to know
//! - The *current* context of the macros is this thread's [override](Telemetry::override_current), else the process
//!   [default](Telemetry::install), else none: then nothing is recorded and no attribute is evaluated.
//! - A new thread starts without a current scope; take a [`Carrier`] there. A future follows its scope with
//!   [`in_scope`](FutureExt::in_scope).
//! - Reporters run inline, or behind a bounded queue ([`background`]). What does not fit is dropped and counted:
//!   [`Telemetry::stats`] shows it.
//! - All [`limits`] are on by default.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod aggregate;
mod buffer;
mod callsite;
mod clock;
mod config;
mod context;
mod dispatch;
mod error;
mod escape;
mod event;
mod getters;
mod health;
mod log;
mod macros;
mod memory;
mod metric;
mod name;
mod propagate;
pub mod raw;
mod record;
mod recording;
mod report;
mod reporter;
mod sampler;
mod scope;
mod stack;
mod sync;
mod task;
mod thread;
mod value;

pub use crate::{
    clock::{Anchor, MockClock, Timeline, clock_source},
    context::{Builder, Flush, FlushedReporter, InstallError, IntoReporter, OpenScope, Override, Telemetry},
    dispatch::{Background, OnFull, background},
    error::Error,
    event::{
        Attributes, Batch, Buckets, Event, Events, Exemplar, Histogram, Link, Metric, MetricType, Number, Outcome,
        PointEvent, Process, ScopeAggregate, SeriesAggregate, Snapshot, ThreadIdentity, Timing,
    },
    health::{Degradation, Degraded, DropReason, Drops, ReporterStats, Stats},
    log::LogReporter,
    memory::{Metadata, OwnedValue, SimpleReporter},
    metric::{Amount, Counter, Gauge, Histogram as HistogramHandle},
    propagate::{TraceParent, TraceState},
    recording::Recording,
    report::Report,
    reporter::{Accounts, Aggregates, Deadline, Reporter},
    sampler::Sampler,
    scope::Scope,
    stack::{Attached, Carrier},
    task::{FutureExt, InScope},
    value::Value,
};
/// For the reporters of `kastor-export`: how their threads start, and what [`Reporter::hold_for_fork`] collects.
#[doc(hidden)]
pub use crate::{dispatch::start_thread, sync::Held};
pub use kastor_macros::scoped;

/// The limits that hold by default: nothing that a program does makes memory grow without a bound.
pub mod limits {
    pub use crate::{
        aggregate::{MAX_SERIES, MAX_SERIES_PER_INSTRUMENT},
        context::QUEUE_BYTES,
        name::{MAX_LEVELS, MAX_NAME_BYTES, MAX_NAMES, MAX_PATHS, MAX_TEXT_BYTES},
        value::{MAX_ATTRIBUTES, MAX_EVENT_BYTES, MAX_VALUE_BYTES},
    };
}

/// For the readers of captures in `kastor-export`: with these, with [`Batch::kept`] and with the hidden fields of
/// aggregates they make events again of what was kept. Not for use by hand: it changes without notice.
#[doc(hidden)]
pub mod kept {
    pub use crate::{
        name::{Name, Path, name, path},
        thread::Thread,
        value::push_value,
    };
}

/// What the macros expand to. Not for use by hand: it changes without notice.
#[doc(hidden)]
pub mod __private {
    pub use crate::{
        callsite::{Callsite, Key},
        metric::{Amount, event, event_in, is_event_on, record_dynamic, record_in, record_static},
        name::check_literal,
        scope,
        scope::{is_on, is_on_in, open, open_in, open_in_with, open_with},
        value::{MetricType, Value},
    };

    /// A scope that records nothing.
    pub const fn none() -> crate::Scope {
        crate::Scope::none()
    }

    /// See [`FutureExt::in_scope`](crate::FutureExt::in_scope).
    pub fn in_scope<F: Future>(scope: crate::Scope, future: F) -> crate::InScope<F> {
        crate::FutureExt::in_scope(future, scope)
    }
}
