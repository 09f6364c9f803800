//! The page: built from `viewer/src`, kept in `viewer/dist`, part of the program.

/// What a browser opens.
pub(super) const INDEX: &str = include_str!("../../viewer/dist/index.html");
/// Its script.
pub(super) const SCRIPT: &str = include_str!("../../viewer/dist/viewer.js");
/// Its style.
pub(super) const STYLE: &str = include_str!("../../viewer/dist/viewer.css");
