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
