//! Trace files against the readers that people open them with.

use std::process::Command;

use super::{output, place::Place};
use crate::steps::Steps;

/// All checks of this subject.
pub(crate) fn checks(steps: &mut Steps, place: &Place) {
    steps.attempt("perfetto", |_| {
        let program = place.example("trace_workload", "")?;
        let folder = place.work("perfetto")?;
        let mut run = Command::new(program);
        run.arg(&folder);
        output(run)?;
        let mut check = Command::new(place.python(&["perfetto"])?);
        check.arg(place.root().join("crates/xtask/src/integration/perfetto.py")).arg(&folder);
        Ok(output(check)?.trim_end().to_owned())
    });
}
