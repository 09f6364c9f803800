//! The process default, from nothing but the environment.

use kastor::{Sampler, Telemetry};

use crate::{
    Prometheus,
    capture::Capture,
    delivery::contained,
    environment::Environment,
    otlp::{Otlp, environment as otlp_environment},
};

/// Builds a context as the environment says, and makes it the process default. Returns it, or the disabled context if
/// the environment does not enable telemetry or names no place to send to.
///
/// - `KASTOR_TELEMETRY=1` or `DEBUG=1` enables, `KASTOR_TELEMETRY=0` and `OTEL_SDK_DISABLED=true` forbid.
/// - `KASTOR_CAPTURE` names a folder for [captures](crate::capture), one file for each process; it is made if it is missing.
/// - `OTEL_EXPORTER_OTLP_ENDPOINT`, or the same of a signal, names a collector.
/// - `OTEL_METRICS_EXPORTER=prometheus` serves metrics for Prometheus to fetch, at `OTEL_EXPORTER_PROMETHEUS_HOST` (`localhost`)
///   and `OTEL_EXPORTER_PROMETHEUS_PORT` (9464).
/// - `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` choose which traces are exported, `OTEL_METRIC_EXPORT_INTERVAL`
///   how often metrics are.
/// - All other `OTEL_*` variables are listed in `docs/opentelemetry.md`.
///
/// Never fails: what cannot be used is logged and left out. If there is a process default already, that one is returned,
/// and the environment is not looked at.
///
/// ```no_run
/// let tele = kastor_export::install_from_env();
/// // … the program …
/// tele.shutdown(std::time::Duration::from_secs(5));
/// ```
#[must_use = "call `shutdown` on it at the end of `main`, so that nothing is left behind"]
pub fn install_from_env() -> Telemetry {
    Environment::of_process(|environment| {
        let telemetry = build(environment);
        if !telemetry.is_enabled() {
            return telemetry;
        }
        match telemetry.clone().install() {
            Ok(()) => telemetry,
            Err(error) => {
                contained(|| {
                    log::warn!(target: "kastor_export", "{error}; the one from the environment is not used");
                });
                Telemetry::current()
            }
        }
    })
}

fn build(environment: &mut Environment<'_>) -> Telemetry {
    // Nothing is opened for a context that will not be.
    if !environment.is_enabled() {
        return Telemetry::disabled();
    }
    let mut builder = Telemetry::builder();
    if let Some(folder) = environment.text("KASTOR_CAPTURE") {
        builder = builder.reporter(Capture::new(folder));
    }
    if otlp_environment::names_endpoint(environment) {
        let config = otlp_environment::read(environment);
        if config.takes_anything() {
            match Otlp::new(config) {
                Ok(otlp) => builder = builder.reporter(otlp),
                Err(error) => environment.complain("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("is not used: {error}")),
            }
        }
    }
    if otlp_environment::wants_prometheus(environment) {
        match prometheus(environment) {
            Ok(prometheus) => builder = builder.reporter(prometheus),
            Err(error) => environment.complain("OTEL_METRICS_EXPORTER", &format!("serves nothing: {error}")),
        }
    }
    if let Some(milliseconds) = environment.number("OTEL_METRIC_EXPORT_INTERVAL", 1) {
        builder = builder.interval(std::time::Duration::from_millis(milliseconds));
    }
    builder.sampler(sampler(environment)).build_from_env()
}

/// Where OpenTelemetry's specification has it.
fn prometheus(environment: &mut Environment<'_>) -> Result<Prometheus, kastor::Error> {
    let host = environment.text("OTEL_EXPORTER_PROMETHEUS_HOST").unwrap_or_else(|| "localhost".into());
    let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host };
    let port = environment.number("OTEL_EXPORTER_PROMETHEUS_PORT", 0).unwrap_or(9464);
    Prometheus::builder().listen(&format!("{host}:{port}"))
}

/// OpenTelemetry's samplers; by default every trace is exported, but for those that a parent elsewhere left out.
pub(crate) fn sampler(environment: &mut Environment<'_>) -> Sampler {
    const NAME: &str = "OTEL_TRACES_SAMPLER";
    let Some(name) = environment.text(NAME) else { return Sampler::ALWAYS };
    let (is_parent_based, rule) = match name.strip_prefix("parentbased_") {
        Some(rule) => (true, rule),
        None => (false, name.as_str()),
    };
    let sampler = match rule {
        "always_on" => Sampler::ALWAYS,
        "always_off" => Sampler::NEVER,
        "traceidratio" => Sampler::ratio(ratio(environment)),
        _ => {
            environment
                .warn(NAME, "knows 'always_on', 'always_off' and 'traceidratio', each also after 'parentbased_'");
            return Sampler::ALWAYS;
        }
    };
    if is_parent_based { sampler } else { sampler.ignoring_parents() }
}

fn ratio(environment: &mut Environment<'_>) -> f64 {
    const NAME: &str = "OTEL_TRACES_SAMPLER_ARG";
    let Some(text) = environment.text(NAME) else { return 1.0 };
    match text.parse() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => ratio,
        _ => {
            environment.warn(NAME, "is no share from 0 to 1");
            1.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the sampler is with these variables, and what is said.
    fn read(variables: &[(&str, &str)]) -> (Sampler, Vec<String>) {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let mut said = Vec::new();
        let mut warn = |text| said.push(text);
        let sampler = sampler(&mut Environment::new(&variable, &mut warn));
        (sampler, said)
    }

    #[test]
    fn samplers_have_opentelemetrys_names() {
        let (name, share) = ("OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG");
        for (variables, expected) in [
            (vec![], Sampler::ALWAYS),
            (vec![(name, "parentbased_always_on")], Sampler::ALWAYS),
            (vec![(name, "always_on")], Sampler::ALWAYS.ignoring_parents()),
            (vec![(name, "always_off")], Sampler::NEVER.ignoring_parents()),
            (vec![(name, "parentbased_always_off")], Sampler::NEVER),
            (vec![(name, "traceidratio"), (share, "0.25")], Sampler::ratio(0.25).ignoring_parents()),
            (vec![(name, "parentbased_traceidratio"), (share, "0.25")], Sampler::ratio(0.25)),
            (vec![(name, "parentbased_traceidratio")], Sampler::ratio(1.0)),
        ] {
            assert_eq!(read(&variables), (expected, vec![]), "{variables:?}");
        }
    }

    #[test]
    fn what_is_no_sampler_is_said_once_and_the_default_stays() {
        let (sampler, said) = read(&[("OTEL_TRACES_SAMPLER", "sometimes")]);
        assert_eq!((sampler, said.len()), (Sampler::ALWAYS, 1));
        assert!(said[0].starts_with("OTEL_TRACES_SAMPLER ") && said[0].contains("parentbased_"), "{said:?}");
        let (_, said) = read(&[("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "1.5")]);
        assert!(said.len() == 1 && said[0].starts_with("OTEL_TRACES_SAMPLER_ARG "), "{said:?}");
    }
}
