//! The two texts.

use std::time::Duration;

use kastor::{DropReason, Error, Metric, Reporter, Timing, Value, count, gauge, histogram, scope};
use kastor_export::{PrometheusFormat, prometheus_text};
use proptest::prelude::*;

use crate::{
    context, of_program,
    parser::{Family, parse},
    text, unredacted,
};

/// The families of both texts, which have to say the same; those of OpenMetrics.
fn families(tele: &kastor::Telemetry) -> Vec<Family> {
    let classic = parse(&text(tele, PrometheusFormat::Text), false);
    let open = parse(&text(tele, PrometheusFormat::OpenMetrics), true);
    assert_eq!(classic.len(), open.len());
    for (classic, open) in classic.iter().zip(&open) {
        let ending = if open.kind == "counter" { "_total" } else { "" };
        assert_eq!(classic.name, format!("{}{ending}", open.name));
        assert_eq!((&classic.kind, &classic.help), (&open.kind, &open.help));
    }
    open
}

fn family(tele: &kastor::Telemetry, name: &str) -> Family {
    let all = families(tele);
    let names: Vec<_> = all.iter().map(|family| family.name.clone()).collect();
    all.into_iter().find(|family| family.name == name).unwrap_or_else(|| panic!("no {name} among {names:?}"))
}

/// Labels and value of each sample.
fn values(family: &Family) -> Vec<(String, &str)> {
    let of = |labels: &[(String, String)]| {
        labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
    };
    family.samples.iter().map(|sample| (of(&sample.labels), sample.value.as_str())).collect()
}

#[test]
fn the_classic_text_to_the_letter() {
    let (tele, clock) = context();
    tele.describe("latency", "ms", "How long \\ answers take.\nIn \"all\".");
    {
        let job = scope!(tele, "job");
        clock.advance(Duration::from_nanos(1_000));
        {
            let _part = scope!(tele, "part");
            clock.advance(Duration::from_nanos(1_500));
            count!(tele, "api.requests", 3, route = "/a\"b\\c\nd", code = 200);
        }
        histogram!(tele, "latency", 1.5);
        histogram!(tele, "latency", 2.0);
        histogram!(tele, "latency", 100);
        job.fail("bad");
    }
    gauge!(tele, "level", 0.1);
    let expected = r#"# HELP api_requests_total The counter api.requests.
# TYPE api_requests_total counter
api_requests_total{code="200",route="/a\"b\\c\nd",scope="job.part"} 3
# HELP kastor_scope_duration_seconds How long scopes were open, by path.
# TYPE kastor_scope_duration_seconds histogram
kastor_scope_duration_seconds_bucket{scope="job",le="2.048e-06"} 0
kastor_scope_duration_seconds_bucket{scope="job",le="4.096e-06"} 1
kastor_scope_duration_seconds_bucket{scope="job",le="+Inf"} 1
kastor_scope_duration_seconds_count{scope="job"} 1
kastor_scope_duration_seconds_sum{scope="job"} 0.0000025
kastor_scope_duration_seconds_bucket{scope="job.part",le="1.024e-06"} 0
kastor_scope_duration_seconds_bucket{scope="job.part",le="2.048e-06"} 1
kastor_scope_duration_seconds_bucket{scope="job.part",le="+Inf"} 1
kastor_scope_duration_seconds_count{scope="job.part"} 1
kastor_scope_duration_seconds_sum{scope="job.part"} 0.0000015
# HELP kastor_scope_errors_total Scopes that failed, by path.
# TYPE kastor_scope_errors_total counter
kastor_scope_errors_total{scope="job"} 1
kastor_scope_errors_total{scope="job.part"} 0
# HELP kastor_scope_self_seconds_total How long scopes were open, without the scopes inside them.
# TYPE kastor_scope_self_seconds_total counter
kastor_scope_self_seconds_total{scope="job"} 0.000001
kastor_scope_self_seconds_total{scope="job.part"} 0.0000015
# HELP latency_milliseconds How long \\ answers take.\nIn "all".
# TYPE latency_milliseconds histogram
latency_milliseconds_bucket{scope="job",le="1.0"} 0
latency_milliseconds_bucket{scope="job",le="2.0"} 2
latency_milliseconds_bucket{scope="job",le="4.0"} 2
latency_milliseconds_bucket{scope="job",le="8.0"} 2
latency_milliseconds_bucket{scope="job",le="16.0"} 2
latency_milliseconds_bucket{scope="job",le="32.0"} 2
latency_milliseconds_bucket{scope="job",le="64.0"} 2
latency_milliseconds_bucket{scope="job",le="128.0"} 3
latency_milliseconds_bucket{scope="job",le="+Inf"} 3
latency_milliseconds_count{scope="job"} 3
latency_milliseconds_sum{scope="job"} 103.5
# HELP level The gauge level.
# TYPE level gauge
level 0.1
"#;
    assert_eq!(of_program(&prometheus_text(&tele)), expected);
    families(&tele);
}

#[test]
fn openmetrics_has_units_exemplars_and_an_end() {
    let (tele, clock) = context();
    clock.set_unix_ns(1_700_000_000_123_000_000);
    let (trace_id, span_id) = {
        let job = scope!(tele, "job");
        clock.advance(Duration::from_micros(100));
        (job.carrier().trace_id(), job.carrier().span_id())
    };
    let written = text(&tele, PrometheusFormat::OpenMetrics);
    let line = format!(
        "kastor_scope_duration_seconds_bucket{{scope=\"job\",le=\"0.000131072\"}} 1 # \
         {{span_id=\"{span_id:016x}\",trace_id=\"{trace_id:032x}\"}} 0.0001 1700000000.123\n"
    );
    assert!(written.contains(&line), "{written}");
    assert!(written.contains("\n# UNIT kastor_scope_duration_seconds seconds\n"));
    assert!(written.ends_with("\n# EOF\n"));
    parse(&written, true);
}

#[test]
fn numbers_are_exact_and_what_is_not_finite_is_counted_apart() {
    let (tele, _) = context();
    count!(tele, "large", u64::MAX);
    count!(tele, "large", 5);
    count!(tele, "signed", 5);
    count!(tele, "signed", -7);
    count!(tele, "fraction", 0.1);
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        gauge!(tele, "level", value);
        count!(tele, "fraction", value);
        histogram!(tele, "sizes", value);
    }
    gauge!(tele, "never", f64::NAN);
    gauge!(tele, "level", -1e-300);
    assert_eq!(values(&family(&tele, "large")), [(String::new(), "18446744073709551620")]);
    let signed = family(&tele, "signed");
    assert_eq!((signed.kind.as_str(), values(&signed)), ("gauge", vec![(String::new(), "-2")]));
    assert_eq!(values(&family(&tele, "fraction")), [(String::new(), "0.1")]);
    assert_eq!(values(&family(&tele, "level")), [(String::new(), "-1e-300")]);
    assert!(families(&tele).iter().all(|family| family.name != "never"), "it never had a value");
    assert_eq!(values(&family(&tele, "sizes")).len(), 3, "one bucket, count and sum, all zero");
    let expected = ["fraction", "level", "never", "sizes"].map(|name| format!("metric={name}"));
    let not_finite = family(&tele, "kastor_values_not_finite");
    let found = values(&not_finite);
    assert_eq!(found.iter().map(|(labels, _)| labels.clone()).collect::<Vec<_>>(), expected);
    assert_eq!(found.iter().map(|(_, value)| *value).collect::<Vec<_>>(), ["3", "3", "1", "3"]);
}

#[test]
fn what_is_not_above_zero_has_a_bucket_of_its_own() {
    let (tele, _) = context();
    for value in [-3.0, 0.0, -0.0, 0.75, 1.0, 3.0] {
        histogram!(tele, "delta", value);
    }
    let classic = parse(&text(&tele, PrometheusFormat::Text), false);
    let delta = classic.iter().find(|family| family.name == "delta").unwrap();
    let expected =
        [("le=0.0", "3"), ("le=0.5", "3"), ("le=1.0", "5"), ("le=2.0", "5"), ("le=4.0", "6"), ("le=+Inf", "6")];
    let expected = expected.into_iter().chain([("", "6"), ("", "1.75")]).map(|(a, b)| (a.to_owned(), b));
    assert_eq!(values(delta), expected.collect::<Vec<_>>());
    let open = family(&tele, "delta");
    assert!(open.samples.iter().all(|sample| sample.name != "delta_sum"), "a sum that can fall is none in OpenMetrics");
}

#[test]
fn names_that_become_the_same_stay_apart() {
    let (tele, _) = context();
    let metric = |name: &str, value: u64| tele.counter(name, &[]).add(value);
    for (value, name) in
        ["a.b", "a_b", "a-b", "x_total", "x", "größe", "gr__e", "", "7up", "kastor_events_queued", "le"]
            .iter()
            .enumerate()
    {
        metric(name, value as u64 + 1);
    }
    tele.gauge("a_b", &[]).set(1.5);
    tele.histogram("a_b", &[]).record(4.0);
    tele.gauge("size_count", &[]).set(2.5);
    tele.histogram("size", &[]).record(8.0);
    let families = families(&tele);
    let counters = families.iter().filter(|family| family.kind == "counter" && !family.name.starts_with("kastor_"));
    let mut sums: Vec<u64> = counters.map(|family| family.samples[0].value.parse().unwrap()).collect();
    sums.sort();
    // The one that took a name of kastor's own begins with that.
    let own = families.iter().find(|family| family.name.starts_with("kastor_events_queued_")).unwrap();
    assert_eq!(own.samples[0].value, "10");
    assert_eq!(sums, [1, 2, 3, 4, 5, 6, 7, 8, 9, 11]);
    assert!(families.iter().any(|family| family.kind == "gauge" && family.samples[0].value == "1.5"));
    assert!(families.iter().any(|family| family.kind == "gauge" && family.samples[0].value == "2.5"));
    assert_eq!(family(&tele, "a_b").samples[0].value, "2", "who needs no change keeps the name");
}

#[test]
fn labels_that_become_the_same_stay_apart_and_reserved_ones_give_way() {
    let (tele, _) = context();
    count!(tele, "n", 1, "a.b" = "dot", "a_b" = "line", "scope" = "mine", "le" = "x", "__name__" = "evil", "" = "none");
    let found = family(&tele, "n");
    let labels = &found.samples[0].labels;
    let value = |name: &str| labels.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    assert_eq!(labels.len(), 6);
    assert_eq!(value("a_b"), Some("line"));
    assert_eq!(value("label_scope"), Some("mine"));
    assert_eq!(value("label_le"), Some("x"));
    assert_eq!(value("label_name__"), Some("evil"));
    assert!(labels.iter().any(|(key, value)| key.starts_with("a_b_") && value == "dot"));
}

#[test]
fn series_that_become_the_same_are_added_up_or_numbered() {
    let (tele, _) = context();
    count!(tele, "n", 1, token = "one");
    count!(tele, "n", 2, token = "two");
    count!(tele, "n", 4, a = 1, b = 2);
    count!(tele, "n", 8, b = 2, a = 1);
    count!(tele, "n", 16, a = "1", b = "2");
    count!(tele, "n", 32, empty = "");
    count!(tele, "n", 64);
    histogram!(tele, "h", 1.0, token = "one");
    histogram!(tele, "h", 3.0, token = "two");
    gauge!(tele, "g", 1.0, token = "one");
    gauge!(tele, "g", 2.0, token = "two");
    let n = family(&tele, "n");
    let mut found = values(&n);
    found.sort();
    let expected = [("", "96"), ("a=1,b=2", "28"), ("token=[redacted]", "3")];
    assert_eq!(found, expected.map(|(labels, value)| (labels.to_owned(), value)));
    let h = family(&tele, "h");
    let sum = h.samples.iter().find(|sample| sample.name == "h_sum").unwrap();
    assert_eq!(sum.value, "4.0");
    let g = family(&tele, "g");
    let mut found = values(&g);
    found.sort();
    let expected = [("kastor_duplicate=2,token=[redacted]", "2.0"), ("token=[redacted]", "1.0")];
    assert_eq!(found, expected.map(|(labels, value)| (labels.to_owned(), value)));
    let families = parse(&unredacted(&tele), true);
    let n = families.iter().find(|family| family.name == "n").unwrap();
    assert!(values(n).contains(&("token=two".to_owned(), "2")));
}

#[test]
fn secrets_and_hostile_characters_do_not_get_out() {
    let (tele, _) = context();
    count!(tele, "n", 1, url = "https://me:c4n4ry@host/", password = "c4n4ry", esc = "\u{1b}[2J\u{202e}", nl = "a\nb");
    tele.describe("n", "", "help\u{1b}\r");
    drop(tele.scope("path\u{1b}\u{9b}\n"));
    for format in [PrometheusFormat::Text, PrometheusFormat::OpenMetrics] {
        let written = text(&tele, format);
        assert!(!written.contains("c4n4ry"));
        assert!(!written.chars().any(|character| character.is_control() && character != '\n'), "{written:?}");
    }
    let n = family(&tele, "n");
    let expected = "esc=\\u{1b}[2J\\u{202e},nl=a\nb,password=[redacted],url=https://[redacted]@host/";
    assert_eq!(values(&n), [(expected.to_owned(), "1")]);
    assert_eq!(n.help, "help\\u{1b}\\u{d}");
}

/// Refuses everything.
struct Broken;

impl Reporter for Broken {
    fn record_timing(&self, _: &Timing<'_>) {}
    fn record_metric(&self, _: &Metric<'_>) {}
    fn record_batch(&self, _: &kastor::Batch<'_>) -> Result<(), Error> {
        Err(Error::temporary("broken"))
    }
    fn prefers_batches(&self) -> bool {
        true
    }
}

#[test]
fn the_accounts_are_metrics_too() {
    let tele = kastor::Telemetry::builder().reporter(Broken).reporter(Broken).build();
    drop(scope!(tele, "a"));
    kastor::metric!(tele, "m", 1);
    tele.flush(crate::LONG);
    let of = |name: &str| values(&family(&tele, name)).into_iter().map(|(a, b)| (a, b.to_owned())).collect::<Vec<_>>();
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(of("kastor_events_emitted"), [pair("kind=metric", "1"), pair("kind=scope", "1")]);
    let name = std::any::type_name::<Broken>();
    let reason = DropReason::ReporterFailed;
    let of_reporter = |reporter: &str, value: &str| pair(&format!("reason={reason},reporter={reporter}"), value);
    assert_eq!(of("kastor_events_dropped"), [of_reporter(name, "2"), of_reporter(&format!("{name}#2"), "2")]);
    assert_eq!(of("kastor_events_queued").len(), 2);
    tele.shutdown(crate::LONG);
}

#[test]
fn ten_thousand_series_are_all_there() {
    let (tele, _) = context();
    for metric in 0..10 {
        for label in 0..1_000_u64 {
            tele.counter(&format!("metric_{metric}"), &[("id", Value::U64(label))]).add(label);
        }
    }
    let families = families(&tele);
    let found: Vec<_> = families.iter().filter(|family| family.name.starts_with("metric_")).collect();
    assert_eq!(found.len(), 10);
    for family in found {
        assert_eq!(family.samples.len(), 1_000);
        assert!(family.samples.iter().all(|sample| sample.label("id") == Some(&sample.value)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_names_and_values_are_read_back(
        series in prop::collection::vec(
            ("(\\PC|[a-c._:]|\\n){0,6}", "(\\PC|[a-c._:]){0,4}", "(\\PC|[\"\\\\\n]){0,8}", 0_u64..1_000, 0_u8..3), 0..30),
    ) {
        let (tele, _) = context();
        let mut counted = 0;
        for (name, key, value, number, kind) in &series {
            let labels = [(key.as_str(), Value::Str(value))];
            match kind {
                0 => {
                    tele.counter(name, &labels).add(*number);
                    counted += number;
                }
                1 => tele.gauge(name, &labels).set(*number as f64),
                _ => tele.histogram(name, &labels).record(*number as f64),
            }
        }
        let families = families(&tele);
        let of_program = |family: &&Family| !family.name.starts_with("kastor_");
        let counters = families.iter().filter(of_program).filter(|family| family.kind == "counter");
        let sum: u64 = counters.flat_map(|family| &family.samples).map(|sample| sample.value.parse::<u64>().unwrap()).sum();
        prop_assert_eq!(sum, counted);
    }

    #[test]
    fn buckets_count_what_is_not_above_their_bound(values in prop::collection::vec(-1e6..1e6_f64, 1..100)) {
        let (tele, _) = context();
        let histogram = tele.histogram("h", &[]);
        values.iter().for_each(|value| histogram.record(*value));
        for sample in &family(&tele, "h").samples {
            let Some(bound) = sample.label("le").map(|bound| bound.parse::<f64>().unwrap()) else { continue };
            let count = values.iter().filter(|value| **value <= bound).count();
            prop_assert_eq!(sample.value.parse::<usize>().unwrap(), count, "le {}", bound);
        }
    }
}
