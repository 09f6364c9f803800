//! The Prometheus endpoint against Prometheus's own checks, the strict reader of PyPI's `prometheus-client`, and a real
//! Prometheus that scrapes OpenMetrics and native histograms.
//!
//! The program `prometheus_workload` serves, and writes down what has to be found: everything is compared field by field
//! with what a query returns.

use std::{fs, process::Command};

use serde_json::Value as Json;

use super::{
    http, output,
    place::Place,
    servers::{Prometheus, Server, free_port, promtool, wait_for},
};
use crate::steps::{NotPassed, Steps};

/// What a metric of the workload is called by Prometheus.
const NAMES: [(&str, &str); 4] = [
    ("api.requests", "api_requests_total"),
    ("answer.size", "answer_size_bytes"),
    ("level", "level"),
    ("balance", "balance"),
];
/// How far a quantile of native buckets may be off, if they are seconds: half a bucket, and 1.6 % of their bounds.
const QUANTILE_ERROR: f64 = 0.065;

/// All checks of this subject.
pub(crate) fn checks(steps: &mut Steps, place: &Place) {
    steps.attempt("prometheus text formats", |_| texts(place));
    steps.attempt("prometheus scrapes", |_| scrapes(place));
}

/// The workload, and where it is.
struct Workload {
    _server: Server,
    port: u16,
    open_port: u16,
    expected: Json,
    /// What it serves as OpenMetrics.
    text: String,
}

impl Workload {
    fn start(place: &Place, check: &str) -> Result<Self, NotPassed> {
        let program = place.example("prometheus_workload", "")?;
        let folder = place.work(check)?;
        let (port, open_port, file) = (free_port()?, free_port()?, folder.join("expected.json"));
        let mut run = Command::new(program);
        run.args([port.to_string(), open_port.to_string()]).arg(&file);
        let server = Server::start(run, folder.join("workload.log"), &[port, open_port])?;
        let failed = |error: &dyn std::fmt::Display| NotPassed::failed(format!("{}: {error}", file.display()));
        let bytes = fs::read(&file).map_err(|error| failed(&error))?;
        let mut expected: Json = serde_json::from_slice(&bytes).map_err(|error| failed(&error))?;
        let text = expected["text"].as_str().unwrap_or_default().to_owned();
        Ok(Self { _server: server, port, open_port, expected: expected["all"].take(), text })
    }
}

/// promtool on the classic text, prometheus-client on OpenMetrics.
fn texts(place: &Place) -> Result<String, NotPassed> {
    let workload = Workload::start(place, "prometheus-texts")?;
    let classic = http::get(workload.port, "/metrics", &[])?;
    promtool(place, &classic.text())?;
    let file = place.work("prometheus-client")?.join("open.txt");
    fs::write(&file, &workload.text).map_err(|error| NotPassed::failed(format!("{}: {error}", file.display())))?;
    let mut read = Command::new(place.python(&["prometheus-client"])?);
    let script = "import sys\n\
                  from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse\n\
                  families = list(parse(open(sys.argv[1], newline='').read()))\n\
                  print(len(families), sum(len(f.samples) for f in families),\n\
                      sum(1 for f in families for s in f.samples if s.exemplar))";
    read.args(["-c", script]).arg(file);
    let said = output(read)?;
    let mut numbers = said.split_whitespace().filter_map(|number| number.parse::<usize>().ok());
    let (Some(families), Some(samples), Some(exemplars)) = (numbers.next(), numbers.next(), numbers.next()) else {
        return Err(NotPassed::failed(format!("prometheus-client said {said}")));
    };
    let lines = workload.text.lines().filter(|line| !line.starts_with('#')).count();
    if samples != lines || exemplars != 2 {
        return Err(NotPassed::failed(format!("{samples} samples of {lines} lines, {exemplars} exemplars of 2")));
    }
    Ok(format!("{families} families, {samples} samples, {exemplars} exemplars"))
}

/// A Prometheus that scrapes both ports: protobuf with native histograms at one, OpenMetrics at the other.
fn scrapes(place: &Place) -> Result<String, NotPassed> {
    let workload = Workload::start(place, "prometheus-workload")?;
    let prometheus = Prometheus::start(place, "prometheus-scrapes", &[workload.port, workload.open_port])?;
    wait_for("both targets to be scraped", || {
        let up = query(&prometheus, "sum(up)")?;
        Ok((up.len() == 1 && up[0]["value"][1] == "2").then_some(()))
    })?;
    let mut fields = 0;
    // The text was taken when half of the work was done.
    for (port, share) in [(workload.port, 1.0), (workload.open_port, 0.5)] {
        let instance = format!("127.0.0.1:{port}");
        let is_native = port == workload.port;
        for scope in list(&workload.expected["scopes"]) {
            let labels = [("scope", scope["scope"].as_str().unwrap_or_default()), ("instance", &instance)];
            let name = "kastor_scope_duration_seconds";
            fields += distribution(&prometheus, name, &labels, is_native, (&scope["calls"], &scope["total"]), share)?;
            equal(&prometheus, &selector("kastor_scope_errors_total", &labels), number(&scope["errors"]) * share)?;
            equal(&prometheus, &selector("kastor_scope_self_seconds_total", &labels), number(&scope["self"]) * share)?;
            fields += 2;
            if is_native {
                let asked = format!("histogram_quantile(0.5, {})", selector(name, &labels));
                let (found, median) = (value(&prometheus, &asked)?, number(&scope["median"]));
                if (found / median - 1.0).abs() > QUANTILE_ERROR {
                    return Err(NotPassed::failed(format!("{asked} is {found}, not about {median}")));
                }
                fields += 1;
            }
            exemplar(&prometheus, name, &labels)?;
            fields += 1;
        }
        for series in list(&workload.expected["series"]) {
            let original = series["name"].as_str().unwrap_or_default();
            let found = NAMES.iter().find(|(name, _)| *name == original);
            let (_, name) = found.ok_or_else(|| NotPassed::failed(format!("no name for {original}")))?;
            let mut labels = vec![("instance", instance.as_str())];
            labels.extend(series["scope"].as_str().filter(|scope| !scope.is_empty()).map(|scope| ("scope", scope)));
            if let Some(own) = series["labels"].as_object() {
                labels.extend(own.iter().map(|(key, text)| (key.as_str(), text.as_str().unwrap_or_default())));
            }
            if series["is_histogram"] == true {
                let sums = (&series["count"], &series["sum"]);
                fields += distribution(&prometheus, name, &labels, is_native, sums, share)?;
            } else {
                let share = if original == "level" { 1.0 } else { share };
                equal(&prometheus, &selector(name, &labels), number(&series["value"]) * share)?;
                fields += 1;
            }
        }
    }
    Ok(format!("{fields} fields equal"))
}

/// Count and sum of a histogram, and its buckets. Returns how many fields those are.
fn distribution(
    prometheus: &Prometheus,
    name: &str,
    labels: &[(&str, &str)],
    is_native: bool,
    (count, sum): (&Json, &Json),
    share: f64,
) -> Result<usize, NotPassed> {
    let (count, sum) = (number(count) * share, number(sum) * share);
    if is_native {
        let native = selector(name, labels);
        equal(prometheus, &format!("histogram_count({native})"), count)?;
        equal(prometheus, &format!("histogram_sum({native})"), sum)?;
        let found = query(prometheus, &native)?;
        let buckets = list(&found[0]["histogram"][1]["buckets"]);
        let in_buckets: f64 = buckets.iter().map(|bucket| number(&bucket[3])).sum();
        if in_buckets != count {
            return Err(NotPassed::failed(format!("{in_buckets} of {count} in the buckets of {native}")));
        }
        return Ok(3);
    }
    equal(prometheus, &selector(&format!("{name}_count"), labels), count)?;
    equal(prometheus, &selector(&format!("{name}_sum"), labels), sum)?;
    let mut infinite = labels.to_vec();
    infinite.push(("le", "+Inf"));
    equal(prometheus, &selector(&format!("{name}_bucket"), &infinite), count)?;
    Ok(3)
}

/// Whether there is an exemplar with ids of the right length, inside of its bucket's time.
fn exemplar(prometheus: &Prometheus, name: &str, labels: &[(&str, &str)]) -> Result<(), NotPassed> {
    let mut found = Vec::new();
    for name in [name.to_owned(), format!("{name}_bucket")] {
        let asked = http::quoted(&selector(&name, labels));
        let path = format!("/api/v1/query_exemplars?query={asked}&start=0&end=9999999999");
        let answer = http::get(prometheus.http, &path, &[])?.json()?;
        found.extend(list(&answer["data"]).iter().flat_map(|series| list(&series["exemplars"])));
    }
    let is_whole = |exemplar: &Json| {
        let length = |name: &str| exemplar["labels"][name].as_str().map_or(0, str::len);
        length("trace_id") == 32 && length("span_id") == 16 && number(&exemplar["value"]) > 0.0
    };
    match found.iter().any(is_whole) {
        true => Ok(()),
        false => Err(NotPassed::failed(format!("no exemplar of {}: {found:?}", selector(name, labels)))),
    }
}

fn equal(prometheus: &Prometheus, asked: &str, wanted: f64) -> Result<(), NotPassed> {
    let found = value(prometheus, asked)?;
    // Half of a sum of seconds is rounded once more.
    if (found - wanted).abs() <= wanted.abs() * 1e-15 {
        Ok(())
    } else {
        Err(NotPassed::failed(format!("{asked} is {found}, not {wanted}")))
    }
}

fn value(prometheus: &Prometheus, asked: &str) -> Result<f64, NotPassed> {
    match query(prometheus, asked)?.as_slice() {
        [one] => Ok(number(&one["value"][1])),
        other => Err(NotPassed::failed(format!("{asked} has {} results: {other:?}", other.len()))),
    }
}

fn query(prometheus: &Prometheus, asked: &str) -> Result<Vec<Json>, NotPassed> {
    let answer = http::get(prometheus.http, &format!("/api/v1/query?query={}", http::quoted(asked)), &[])?.json()?;
    Ok(list(&answer["data"]["result"]))
}

fn selector(name: &str, labels: &[(&str, &str)]) -> String {
    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
    format!("{name}{{{}}}", labels.join(","))
}

fn list(json: &Json) -> Vec<Json> {
    json.as_array().cloned().unwrap_or_default()
}

/// Prometheus writes numbers as texts.
fn number(json: &Json) -> f64 {
    json.as_f64().or_else(|| json.as_str()?.parse().ok()).unwrap_or(f64::NAN)
}
