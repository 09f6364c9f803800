//! OpenTelemetry's variables, read into a configuration. A variable of one signal wins over the general one. What cannot
//! be understood is said once, and the default stays.

use std::{fs::File, io::Read as _, time::Duration};

use super::config::{OtlpConfig, Protocol, SignalConfig};
use crate::{
    delivery::{Compression, Signal},
    environment::Environment,
};

/// The largest file with certificates.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Every variable that is read here.
pub(crate) fn read(environment: &mut Environment<'_>) -> OtlpConfig {
    let mut config =
        OtlpConfig { base_endpoint: environment.text("OTEL_EXPORTER_OTLP_ENDPOINT"), ..OtlpConfig::default() };
    for signal in Signal::ALL {
        let name = signal_name(signal);
        let of_signal = config.of(signal);
        of_signal.is_on = is_on(environment, name);
        of_signal.endpoint = environment.text(&format!("OTEL_EXPORTER_OTLP_{name}_ENDPOINT"));
        read_signal(environment, name, of_signal);
    }
    add_scheme(environment, &mut config);
    read_resource(environment, &mut config);
    read_limits(environment, &mut config);
    if let Some(delay) = milliseconds(environment, "OTEL_BSP_SCHEDULE_DELAY") {
        config.linger = delay;
    }
    if let Some(events) = environment.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 1) {
        config.max_request_events = events;
    }
    say_what_cannot_be(environment);
    config
}

/// Variables of which one value alone is possible here, that value, and why.
const FIXED: [(&str, &str, &str); 4] = [
    ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "cumulative", "sums are cumulative"),
    (
        "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
        "base2_exponential_bucket_histogram",
        "histograms are exponential",
    ),
    ("OTEL_METRICS_EXEMPLAR_FILTER", "trace_based", "the exemplar is the longest call"),
    ("OTEL_CONFIG_FILE", "", "no configuration file is read"),
];

/// Whoever asks for something that there is not should know it.
fn say_what_cannot_be(environment: &mut Environment<'_>) {
    for (name, only, why) in FIXED {
        if environment.text(name).is_some_and(|value| !value.eq_ignore_ascii_case(only)) {
            environment.complain(name, &format!("has no effect: {why}"));
        }
    }
}

/// Whether the metrics are to be served for Prometheus to fetch.
pub(crate) fn wants_prometheus(environment: &Environment<'_>) -> bool {
    let exporters = environment.text("OTEL_METRICS_EXPORTER").unwrap_or_default();
    exporters.split(',').any(|exporter| exporter.trim() == "prometheus")
}

/// Whether a variable names a place to send to.
pub(crate) fn names_endpoint(environment: &mut Environment<'_>) -> bool {
    ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"]
        .into_iter()
        .any(|name| environment.text(name).is_some())
}

fn signal_name(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "TRACES",
        Signal::Metrics => "METRICS",
    }
}

fn is_on(environment: &mut Environment<'_>, signal: &str) -> bool {
    let name = format!("OTEL_{signal}_EXPORTER");
    let Some(exporters) = environment.text(&name) else { return true };
    let mut is_on = false;
    for exporter in exporters.split(',').map(str::trim) {
        match exporter {
            "otlp" => is_on = true,
            "none" => {}
            // See `install.rs`.
            "prometheus" if signal == "METRICS" => {}
            _ if signal == "METRICS" => environment.warn(&name, "knows 'otlp', 'prometheus' and 'none'"),
            _ => environment.warn(&name, "knows 'otlp' and 'none'"),
        }
    }
    is_on
}

fn read_signal(environment: &mut Environment<'_>, signal: &str, config: &mut SignalConfig) {
    if let Some(protocol) = either(environment, signal, "PROTOCOL", protocol) {
        config.protocol = protocol;
    }
    if let Some(compression) = either(environment, signal, "COMPRESSION", compression) {
        config.compression = compression;
    }
    if let Some(timeout) = either(environment, signal, "TIMEOUT", milliseconds) {
        // Zero means no limit to some; here it means the longest that makes sense.
        config.timeout = if timeout.is_zero() { Duration::from_secs(600) } else { timeout };
    }
    if let Some(headers) = either(environment, signal, "HEADERS", pairs) {
        config.headers = headers;
    }
    config.tls.roots = either(environment, signal, "CERTIFICATE", file);
    let chain = either(environment, signal, "CLIENT_CERTIFICATE", file);
    let key = either(environment, signal, "CLIENT_KEY", file);
    config.tls.client = match (chain, key) {
        (Some(chain), Some(key)) => Some((chain, key)),
        (None, None) => None,
        _ => {
            let name = format!("OTEL_EXPORTER_OTLP_{signal}_CLIENT_CERTIFICATE");
            environment.warn(&name, "needs certificate and key, _CLIENT_CERTIFICATE and _CLIENT_KEY; neither is used");
            None
        }
    };
}

/// The signal's own variable if it is set and understood, else the general one.
fn either<T>(
    environment: &mut Environment<'_>,
    signal: &str,
    what: &str,
    mut read: impl FnMut(&mut Environment<'_>, &str) -> Option<T>,
) -> Option<T> {
    read(environment, &format!("OTEL_EXPORTER_OTLP_{signal}_{what}"))
        .or_else(|| read(environment, &format!("OTEL_EXPORTER_OTLP_{what}")))
}

fn protocol(environment: &mut Environment<'_>, name: &str) -> Option<Protocol> {
    match environment.text(name)?.as_str() {
        "http/protobuf" => Some(Protocol::HttpProtobuf),
        "http/json" => Some(Protocol::HttpJson),
        #[cfg(feature = "grpc")]
        "grpc" => Some(Protocol::Grpc),
        #[cfg(not(feature = "grpc"))]
        "grpc" => {
            environment.warn(name, "asks for gRPC, which this program was built without (feature `grpc`)");
            None
        }
        _ => {
            environment.warn(name, "knows 'http/protobuf', 'http/json' and 'grpc'");
            None
        }
    }
}

fn compression(environment: &mut Environment<'_>, name: &str) -> Option<Compression> {
    match environment.text(name)?.as_str() {
        "none" => Some(Compression::None),
        "gzip" => Some(Compression::Gzip),
        "zstd" => Some(Compression::Zstd),
        _ => {
            environment.warn(name, "knows 'none', 'gzip' and 'zstd'");
            None
        }
    }
}

fn milliseconds(environment: &mut Environment<'_>, name: &str) -> Option<Duration> {
    environment.number(name, 0).map(Duration::from_millis)
}

fn file(environment: &mut Environment<'_>, name: &str) -> Option<Vec<u8>> {
    let path = environment.text(name)?;
    let mut bytes = Vec::new();
    // One more than may be: what never ends is noticed.
    match File::open(&path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)) {
        Ok(length) if length as u64 <= MAX_FILE_BYTES => return Some(bytes),
        Ok(_) => environment.warn(name, "names a file of more than 4 MiB, which is no certificate"),
        Err(error) => environment.warn(name, &format!("names a file that cannot be read: {error}")),
    }
    None
}

/// `key=value,key=value`, with both percent-decoded; a pair that is none is left out.
fn pairs(environment: &mut Environment<'_>, name: &str) -> Option<Vec<(String, String)>> {
    let text = environment.text(name)?;
    let mut found = Vec::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        match read_pair(pair) {
            Some(pair) => found.push(pair),
            // Neither text nor value is quoted: headers may be secret.
            None => environment.warn(name, "has a part that is not key=value, percent-encoded; it is left out"),
        }
    }
    Some(found)
}

fn read_pair(pair: &str) -> Option<(String, String)> {
    let (key, value) = pair.split_once('=')?;
    let key = percent_decoded(key.trim())?;
    (!key.is_empty()).then_some((key, percent_decoded(value.trim())?))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, behind) = rest.split_first_chunk::<2>()?;
        let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
        bytes.push((high? * 16 + low?) as u8);
        rest = behind;
    }
    String::from_utf8(bytes).ok()
}

/// gRPC takes addresses without a scheme, and a variable says which they mean.
fn add_scheme(environment: &mut Environment<'_>, config: &mut OtlpConfig) {
    #[cfg(feature = "grpc")]
    {
        let base = config.base_endpoint.clone();
        for signal in Signal::ALL {
            let is_insecure =
                either(environment, signal_name(signal), "INSECURE", |environment, name| {
                    match environment.text(name)?.to_ascii_lowercase().as_str() {
                        "true" => Some(true),
                        "false" => Some(false),
                        _ => {
                            environment.warn(name, "knows 'true' and 'false'");
                            None
                        }
                    }
                });
            let scheme = if is_insecure == Some(true) { "http" } else { "https" };
            let of_signal = config.of(signal);
            let address = of_signal.endpoint.clone().or_else(|| base.clone());
            if let Some(address) =
                address.filter(|address| of_signal.protocol == Protocol::Grpc && !address.contains("://"))
            {
                of_signal.endpoint = Some(format!("{scheme}://{address}"));
            }
        }
    }
    #[cfg(not(feature = "grpc"))]
    let _ = (environment, config);
}

fn read_resource(environment: &mut Environment<'_>, config: &mut OtlpConfig) {
    const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
    if let Some(text) = environment.text(ATTRIBUTES) {
        let parts = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
        // By the specification one bad part spoils all of them.
        match parts.map(read_pair).collect::<Option<Vec<(String, String)>>>() {
            Some(attributes) => config.resource.extend(attributes),
            None => environment.warn(ATTRIBUTES, "is not key=value,key=value, percent-encoded; none of it is used"),
        }
    }
    if let Some(name) = environment.text("OTEL_SERVICE_NAME") {
        config.resource.push(("service.name".into(), name));
    }
}

fn read_limits(environment: &mut Environment<'_>, config: &mut OtlpConfig) {
    let mut read = |names: &[&str], to: &mut usize| {
        let limit = names.iter().find_map(|name| environment.number(name, 0));
        if let Some(limit) = limit {
            *to = usize::try_from(limit).unwrap_or(usize::MAX);
        }
    };
    let limits = &mut config.limits;
    read(&["OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT"], &mut limits.attributes);
    read(
        &["OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"],
        &mut limits.value_characters,
    );
    read(&["OTEL_SPAN_EVENT_COUNT_LIMIT"], &mut limits.events);
    read(&["OTEL_SPAN_LINK_COUNT_LIMIT"], &mut limits.links);
    read(&["OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT"], &mut limits.event_attributes);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read of these variables, and what is said.
    fn read_of(variables: &[(&str, &str)]) -> (OtlpConfig, Vec<String>) {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let mut said = Vec::new();
        let mut warn = |text| said.push(text);
        let config = read(&mut Environment::new(&variable, &mut warn));
        (config, said)
    }

    fn understood(variables: &[(&str, &str)]) -> OtlpConfig {
        let (config, said) = read_of(variables);
        assert_eq!(said, Vec::<String>::new(), "{variables:?}");
        config
    }

    #[test]
    fn without_variables_the_specifications_defaults_hold() {
        let config = understood(&[]);
        assert_eq!(config.url(Signal::Traces), "http://localhost:4318/v1/traces");
        assert_eq!(config.url(Signal::Metrics), "http://localhost:4318/v1/metrics");
        let traces = config.signal(Signal::Traces);
        assert_eq!(
            (traces.timeout, traces.compression, traces.protocol, traces.is_on),
            (Duration::from_secs(10), Compression::None, Protocol::HttpProtobuf, true)
        );
        assert_eq!((config.limits.attributes, config.limits.value_characters), (128, usize::MAX));
    }

    #[test]
    fn a_signals_own_variable_wins_and_only_the_general_address_gets_a_path() {
        let config = understood(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:1/base"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:2/"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "zstd"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "100"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=1,b=2"),
            ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "c=3"),
        ]);
        let [traces, metrics] = Signal::ALL.map(|signal| config.signal(signal));
        assert_eq!(config.url(Signal::Traces), "http://traces:2/");
        assert_eq!(config.url(Signal::Metrics), "http://all:1/base/v1/metrics");
        assert_eq!((traces.protocol, metrics.protocol), (Protocol::HttpJson, Protocol::HttpProtobuf));
        assert_eq!((traces.compression, metrics.compression), (Compression::Gzip, Compression::Zstd));
        assert_eq!((traces.timeout.as_millis(), metrics.timeout.as_millis()), (100, 2500));
        let pairs = |signal: &SignalConfig| {
            signal.headers.iter().map(|(key, value)| format!("{key}:{value}")).collect::<Vec<_>>()
        };
        assert_eq!((pairs(traces), pairs(metrics)), (vec!["a:1".into(), "b:2".into()], vec!["c:3".into()]));
    }

    #[test]
    fn headers_and_attributes_are_percent_decoded() {
        let config = understood(&[
            ("OTEL_EXPORTER_OTLP_HEADERS", " authorization = Bearer%20a%3Db%2Cc , x=%C3%A9"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,team=a%2Cb"),
            ("OTEL_SERVICE_NAME", "shop"),
        ]);
        let headers = &config.signal(Signal::Traces).headers;
        assert_eq!(headers, &[("authorization".into(), "Bearer a=b,c".into()), ("x".into(), "é".into())]);
        let resource: Vec<_> = config.resource.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(resource, ["service.name=other", "team=a,b", "service.name=shop"]);
    }

    #[test]
    fn limits_and_intervals_are_read_the_narrower_name_first() {
        let config = understood(&[
            ("OTEL_ATTRIBUTE_COUNT_LIMIT", "10"),
            ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "5"),
            ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "100"),
            ("OTEL_SPAN_EVENT_COUNT_LIMIT", "3"),
            ("OTEL_SPAN_LINK_COUNT_LIMIT", "2"),
            ("OTEL_BSP_SCHEDULE_DELAY", "250"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "64"),
        ]);
        let limits = config.limits;
        assert_eq!((limits.attributes, limits.value_characters), (5, 100));
        assert_eq!((limits.events, limits.links, limits.event_attributes), (3, 2, 10));
        assert_eq!((config.linger.as_millis(), config.max_request_events), (250, 64));
    }

    #[test]
    fn signals_are_switched_off_by_name() {
        let config = understood(&[("OTEL_TRACES_EXPORTER", "none"), ("OTEL_METRICS_EXPORTER", "otlp")]);
        assert_eq!(Signal::ALL.map(|signal| config.signal(signal).is_on), [false, true]);
        assert!(config.takes_anything());
        let config = understood(&[("OTEL_METRICS_EXPORTER", "prometheus")]);
        assert_eq!(Signal::ALL.map(|signal| config.signal(signal).is_on), [true, false]);
        let config = understood(&[("OTEL_METRICS_EXPORTER", "prometheus, otlp")]);
        assert_eq!(Signal::ALL.map(|signal| config.signal(signal).is_on), [true, true]);
    }

    #[test]
    fn what_is_asked_for_and_cannot_be_is_said() {
        for (name, only, _) in FIXED {
            let (_, said) = read_of(&[(name, "something else")]);
            assert!(said.len() == 1 && said[0].starts_with(&format!("{name} has no effect: ")), "{said:?}");
            let _ = understood(&[(name, only)]);
        }
    }

    #[test]
    fn whatever_cannot_be_understood_is_said_once_and_the_default_stays() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier pigeon"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "rar"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "-1"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "canary"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=%canary"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=1,b"),
            ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "0"),
            ("OTEL_TRACES_EXPORTER", "jaeger,otlp"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such/file"),
            #[cfg(unix)]
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/dev/zero"),
        ] {
            let (config, said) = read_of(&[(name, value)]);
            assert_eq!(said.len(), 1, "{name}={value}: {said:?}");
            assert!(said[0].starts_with(&format!("{name} ")), "{said:?}");
            assert!(!said[0].contains("canary"), "{said:?}");
            assert_eq!(format!("{config:?}"), format!("{:?}", OtlpConfig::default()), "{name}={value}");
            assert_eq!(config.resource, []);
        }
        let (config, said) = read_of(&[("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "/no/such/file")]);
        assert!(said.len() == 1 && config.signal(Signal::Traces).tls.client.is_none(), "{said:?}");
    }

    #[test]
    fn an_empty_variable_is_as_good_as_none() {
        let config = understood(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " "), ("OTEL_EXPORTER_OTLP_COMPRESSION", "")]);
        assert_eq!(config.url(Signal::Traces), "http://localhost:4318/v1/traces");
    }

    #[cfg(feature = "grpc")]
    #[test]
    fn grpc_has_its_own_port_and_takes_addresses_without_a_scheme() {
        let protocol = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        assert_eq!(understood(&[protocol]).url(Signal::Traces), "http://localhost:4317");
        let address = ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317");
        assert_eq!(understood(&[protocol, address]).url(Signal::Metrics), "https://collector:4317");
        let insecure = ("OTEL_EXPORTER_OTLP_INSECURE", "true");
        assert_eq!(understood(&[protocol, address, insecure]).url(Signal::Metrics), "http://collector:4317");
    }

    proptest::proptest! {
        #[test]
        fn any_values_are_read_without_a_panic(value in "\\PC{0,40}") {
            for name in ["HEADERS", "ENDPOINT", "TIMEOUT", "PROTOCOL", "COMPRESSION"] {
                let _ = read_of(&[(&format!("OTEL_EXPORTER_OTLP_{name}"), &value), ("OTEL_RESOURCE_ATTRIBUTES", &value)]);
            }
        }
    }
}
