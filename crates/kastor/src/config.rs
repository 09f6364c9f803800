//! The environment, read into plain data when a factory is called.

/// What the environment says to a factory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Whether telemetry is enabled.
    pub is_enabled: bool,
    /// Whether names must have the recommended form.
    pub is_strict: bool,
}

/// Reads the environment for factories whose variables begin with the given prefixes: `PREFIX_TELEMETRY=1` or `DEBUG=1`
/// enables, `KASTOR_TELEMETRY=0` forbids, `PREFIX_TELEMETRY_STRICT_SCOPES=1` makes names strict. Only the exact value
/// `1` enables.
pub fn read(prefixes: &[&str]) -> Config {
    let is = |variable: String, value: &str| std::env::var_os(variable).is_some_and(|set| set == value);
    let is_forbidden = is("KASTOR_TELEMETRY".into(), "0");
    let is_asked = prefixes.iter().any(|prefix| is(format!("{prefix}_TELEMETRY"), "1")) || is("DEBUG".into(), "1");
    let is_strict = prefixes.iter().any(|prefix| is(format!("{prefix}_TELEMETRY_STRICT_SCOPES"), "1"));
    Config { is_enabled: is_asked && !is_forbidden, is_strict }
}

/// A variable of the environment, as understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Its value, if it is set; what is not Unicode is replaced.
    pub value: Option<String>,
    /// What that means.
    pub meaning: &'static str,
}

/// The variables that matter here, and what they mean as they are now.
pub fn environment() -> Vec<Variable> {
    let value = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let variable = |name: &'static str, meanings: &[(&str, &'static str)], unset: &'static str| {
        let value = value(name);
        let meaning = value.as_deref().map_or(unset, |value| {
            let known = meanings.iter().find(|(known, _)| *known == value);
            known.map_or("not understood: only the exact values in the documentation count", |(_, meaning)| meaning)
        });
        Variable { name, value, meaning }
    };
    vec![
        variable(
            "KASTOR_TELEMETRY",
            &[("1", "enables contexts built from the environment"), ("0", "forbids telemetry from the environment")],
            "telemetry from the environment is off, unless DEBUG=1",
        ),
        variable("DEBUG", &[("1", "enables contexts built from the environment")], "no effect"),
        variable(
            "KASTOR_TELEMETRY_STRICT_SCOPES",
            &[("1", "dynamic names must have the recommended form")],
            "any dynamic name is taken",
        ),
    ]
}
