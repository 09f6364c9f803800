//! Exact aggregates: scopes per path ([`scopes`](self::scopes)), metrics per series ([`series`](self::series)).
//!
//! Counts, sums, minima and maxima are exact whatever becomes of the records; percentiles come from exponential
//! buckets.

mod cell;
mod scopes;
mod series;

pub use self::series::{MAX_SERIES, MAX_SERIES_PER_INSTRUMENT};
pub(crate) use self::{
    cell::{Cell, MAX_PACKED},
    scopes::Shards,
    series::{Descriptions, SeriesTable},
};
