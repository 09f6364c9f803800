//! What runs for every scope and metric: raw types, without a layer between them and the interpreter.
//!
//! The functions here follow the interpreter's own rules for references: what they get is borrowed, what they return is
//! owned. Justified by the Python rows of the benchmark.

pub(crate) mod arguments;
pub(crate) mod binding;
pub(crate) mod calls;
pub(crate) mod cell;
pub(crate) mod context;
pub(crate) mod deliver;
pub(crate) mod disabled;
pub(crate) mod floats;
pub(crate) mod keys;
pub(crate) mod metric;
pub(crate) mod names;
pub(crate) mod object;
pub(crate) mod reporter;
pub(crate) mod scope;
pub(crate) mod stack;
pub(crate) mod texts;
pub(crate) mod types;
pub(crate) mod usual;
pub(crate) mod value;
