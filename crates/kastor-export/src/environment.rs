//! The environment, reached through this room alone, and what is said of it.

use std::collections::HashSet;

use crate::delivery::{contained, neutral};

/// Variables, and who is told of those that cannot be understood.
pub(crate) struct Environment<'a> {
    variable: &'a dyn Fn(&str) -> Option<String>,
    warn: &'a mut dyn FnMut(String),
    warned: HashSet<String>,
}

impl<'a> Environment<'a> {
    pub(crate) fn new(variable: &'a dyn Fn(&str) -> Option<String>, warn: &'a mut dyn FnMut(String)) -> Self {
        Self { variable, warn, warned: HashSet::new() }
    }

    /// Calls `f` with the environment of the process; warnings go to the log.
    pub(crate) fn of_process<R>(f: impl FnOnce(&mut Environment<'_>) -> R) -> R {
        let variable = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        let mut warn = |text: String| contained(|| log::warn!(target: "kastor_export", "{text}"));
        f(&mut Environment::new(&variable, &mut warn))
    }

    /// A variable's value without the white space around it; one that is empty is as good as unset.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        (self.variable)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// Whether the environment enables telemetry: the core's rule, and OpenTelemetry's switch.
    pub(crate) fn is_enabled(&self) -> bool {
        let is = |name: &str, value: &str| (self.variable)(name).is_some_and(|set| set == value);
        let is_asked = is("KASTOR_TELEMETRY", "1") || is("DEBUG", "1");
        let is_forbidden = is("KASTOR_TELEMETRY", "0");
        let is_switched_off = self.text("OTEL_SDK_DISABLED").is_some_and(|set| set.eq_ignore_ascii_case("true"));
        is_asked && !is_forbidden && !is_switched_off
    }

    /// A variable's value as a whole number, at least `least`.
    pub(crate) fn number(&mut self, name: &str, least: u64) -> Option<u64> {
        let text = self.text(name)?;
        let number = text.parse().ok().filter(|number| *number >= least);
        if number.is_none() {
            self.warn(name, &format!("is '{}', which is no whole number from {least}", neutral(&text)));
        }
        number
    }

    /// Says once that a variable was not understood.
    pub(crate) fn warn(&mut self, name: &str, why: &str) {
        self.complain(name, &format!("{why}: the default is used"));
    }

    /// Says once what is wrong with a variable.
    pub(crate) fn complain(&mut self, name: &str, why: &str) {
        if self.warned.insert(name.to_owned()) {
            (self.warn)(format!("{name} {why}"));
        }
    }
}
