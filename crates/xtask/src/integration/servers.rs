//! The servers that reporters are tested against: each a function that installs and starts one, on loopback and on ports
//! that were free, and returns a guard that stops it.
//!
//! | server | from | takes |
//! |---|---|---|
//! | [`Rotel`], an OpenTelemetry collector | PyPI `rotel` | OTLP over gRPC, HTTP/protobuf and HTTP/JSON; prints what came |
//! | [`VictoriaMetrics`] | Debian trixie | OTLP metrics over HTTP/protobuf |
//! | [`Prometheus`] | Debian bookworm | scrapes targets |
//! | [`promtool`] | Debian bookworm | checks the plain text format |

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use super::{http, place::Place};
use crate::steps::{NotPassed, Steps};

/// A server that is not up by then is broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// Shows that every server can be had, starts and answers; what is tested against it stands elsewhere.
pub(crate) fn checks(steps: &mut Steps, place: &Place) {
    steps.attempt("rotel", |_| {
        let rotel = Rotel::start(place, "rotel", &[])?;
        let span = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"hello-rotel",
            "traceId":"4bf92f3577b34da6a3ce929d0e0e4736","spanId":"00f067aa0ba902b7",
            "startTimeUnixNano":"1000","endTimeUnixNano":"2000"}]}]}]}"#;
        let answer = http::post(rotel.http, "/v1/traces", &["Content-Type: application/json"], span.as_bytes())?;
        expect_status(&answer, 200)?;
        wait_for("the span in the log", || Ok(rotel.server.log_text().contains("hello-rotel").then_some(())))?;
        Ok(format!("process {}, ports {} (gRPC) and {} (HTTP)", rotel.server.id(), rotel.grpc, rotel.http))
    });
    steps.attempt("victoria-metrics", |_| {
        let victoria = VictoriaMetrics::start(place, "victoria-metrics")?;
        let answer = http::post(victoria.http, "/api/v1/import/prometheus", &[], b"jobs_total{kind=\"a\"} 3\n")?;
        expect_status(&answer, 204)?;
        let stored = wait_for("the sample in the store", || {
            Ok(Some(victoria.export("{__name__=~\"jobs.*\"}")?).filter(|series| !series.is_empty()))
        })?;
        if stored[0]["metric"]["kind"] != "a" || stored[0]["values"][0] != 3 {
            return Err(NotPassed::failed(format!("stored {stored:?}")));
        }
        Ok(format!("process {}, port {}", victoria.server.id(), victoria.http))
    });
    steps.attempt("prometheus", |_| {
        let prometheus = Prometheus::start(place, "prometheus", &[])?;
        let answer = http::get(prometheus.http, "/api/v1/query?query=vector(1)", &[])?.json()?;
        if answer["data"]["result"][0]["value"][1] != "1" {
            return Err(NotPassed::failed(format!("vector(1) is {answer}")));
        }
        Ok(format!("process {}, port {}", prometheus.server.id(), prometheus.http))
    });
    steps.attempt("promtool", |_| {
        promtool(place, "# HELP jobs_total Jobs.\n# TYPE jobs_total counter\njobs_total 1\n")?;
        match promtool(place, "jobs_total one\n") {
            Err(NotPassed::Failed(_)) => Ok("tells good text from bad".to_owned()),
            _ => Err(NotPassed::failed("takes a word for a number")),
        }
    });
}

fn expect_status(answer: &http::Answer, status: u16) -> Result<(), NotPassed> {
    if answer.status == status { Ok(()) } else { Err(NotPassed::failed(format!("{}: {}", answer.head, answer.text()))) }
}

/// A process of ours, stopped when this is dropped.
pub(crate) struct Server {
    child: Child,
    /// What it prints, both streams.
    log: PathBuf,
}

impl Server {
    /// Starts a program and waits until it listens on all these ports of loopback.
    pub(crate) fn start(mut program: Command, log: PathBuf, ports: &[u16]) -> Result<Self, NotPassed> {
        let line = crate::steps::shown(&program);
        let file = |path: &Path| fs::File::options().create(true).append(true).open(path);
        let streams = file(&log).and_then(|out| Ok((out.try_clone()?, out)));
        let (out, err) = streams.map_err(|error| NotPassed::failed(format!("{}: {error}", log.display())))?;
        let child = program.stdin(Stdio::null()).stdout(out).stderr(err).spawn();
        let child = child.map_err(|error| NotPassed::failed(format!("{line}: {error}")))?;
        let mut server = Self { child, log };
        let started = Instant::now();
        while !ports.iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok()) {
            let ended = server.child.try_wait().ok().flatten();
            if ended.is_some() || started.elapsed() > PATIENCE {
                let end: String =
                    server.log_text().chars().rev().take(2_000).collect::<Vec<_>>().into_iter().rev().collect();
                let what = ended.map_or_else(|| "does not listen".to_owned(), |status| format!("ended with {status}"));
                return Err(NotPassed::failed(format!("{line}: {what}: {end}")));
            }
            sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// The process's number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(mut self) -> Result<(), NotPassed> {
        let asked = Command::new("kill").args(["-TERM", &self.id().to_string()]).status();
        asked.map_err(|error| NotPassed::failed(format!("kill: {error}")))?;
        wait_for("a server to end", || Ok(self.child.try_wait().ok().flatten())).map(drop)
    }

    /// Everything it has printed so far.
    pub(crate) fn log_text(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port of loopback that nobody listens on now.
pub(crate) fn free_port() -> Result<u16, NotPassed> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    listener.map(|address| address.port()).map_err(|error| NotPassed::failed(format!("no free port: {error}")))
}

/// Asks until there is an answer, at most 30 s; `what` says what is waited for.
pub(crate) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>, NotPassed>) -> Result<T, NotPassed> {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if started.elapsed() > PATIENCE {
            return Err(NotPassed::failed(format!("waited {} s for {what}", PATIENCE.as_secs())));
        }
        sleep(Duration::from_millis(50));
    }
}

/// An OpenTelemetry collector. It prints every span, point and log record that it takes, in all detail.
pub(crate) struct Rotel {
    pub(crate) grpc: u16,
    pub(crate) http: u16,
    pub(crate) server: Server,
}

impl Rotel {
    /// Starts one that throws away what it has printed, on free ports. `more` are further arguments: another `--exporter`,
    /// for instance, which replaces that.
    pub(crate) fn start(place: &Place, check: &str, more: &[&str]) -> Result<Self, NotPassed> {
        let folder = place.work(check)?;
        Self::start_on(place, (free_port()?, free_port()?), &folder, more)
    }

    /// Starts one on these ports for gRPC and HTTP, with its log in `folder`.
    fn start_on(place: &Place, ports: (u16, u16), folder: &Path, more: &[&str]) -> Result<Self, NotPassed> {
        let mut all = more.to_vec();
        if !more.contains(&"--exporter") {
            all.extend(["--exporter", "blackhole"]);
        }
        for signal in ["traces", "metrics", "logs"] {
            all.extend(["--debug-log", signal]);
        }
        all.extend(["--debug-log-verbosity", "detailed"]);
        Self::start_quietly_on(place, ports, folder, &all)
    }

    /// The same without a word on what it takes; also again, after it was stopped.
    pub(crate) fn start_quietly_on(
        place: &Place,
        (grpc, http): (u16, u16),
        folder: &Path,
        arguments: &[&str],
    ) -> Result<Self, NotPassed> {
        let mut program = Command::new(Self::program(place)?);
        program.arg("start");
        program.args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{grpc}")]);
        program.args(["--otlp-http-endpoint", &format!("127.0.0.1:{http}")]).args(arguments);
        let server = Server::start(program, folder.join("rotel.log"), &[grpc, http])?;
        Ok(Self { grpc, http, server })
    }

    fn program(place: &Place) -> Result<PathBuf, NotPassed> {
        let python = place.python(&["rotel"])?;
        let mut ask = Command::new(python);
        ask.args(["-c", "import os, rotel; print(os.path.join(os.path.dirname(rotel.__file__), 'rotel-agent'))"]);
        Ok(super::output(ask)?.trim_end().into())
    }
}

/// A store for metrics that takes OTLP under `/opentelemetry/v1/metrics`.
pub(crate) struct VictoriaMetrics {
    pub(crate) http: u16,
    pub(crate) server: Server,
}

impl VictoriaMetrics {
    /// Starts an empty one that names series as Prometheus does.
    pub(crate) fn start(place: &Place, check: &str) -> Result<Self, NotPassed> {
        let content = place.debian("trixie", "victoria-metrics")?;
        let folder = place.work(check)?;
        let http = free_port()?;
        let mut program = Command::new(content.join("usr/bin/victoria-metrics"));
        program.arg(format!("-storageDataPath={}", folder.join("data").display()));
        program.arg(format!("-httpListenAddr=127.0.0.1:{http}"));
        program.arg("-opentelemetry.usePrometheusNaming");
        let server = Server::start(program, folder.join("victoria-metrics.log"), &[http])?;
        Ok(Self { http, server })
    }

    /// Everything stored, one JSON object a series: what was sent becomes visible only by a flush, and a moment later.
    pub(crate) fn export(&self, selector: &str) -> Result<Vec<serde_json::Value>, NotPassed> {
        expect_status(&http::get(self.http, "/internal/force_flush", &[])?, 200)?;
        let path = format!("/api/v1/export?match[]={}", http::quoted(selector));
        let answer = http::get(self.http, &path, &[])?;
        expect_status(&answer, 200)?;
        let lines = answer.text();
        let parsed = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>();
        parsed.map_err(|error| NotPassed::failed(format!("{error} in {lines}")))
    }
}

/// A server that scrapes.
pub(crate) struct Prometheus {
    pub(crate) http: u16,
    pub(crate) server: Server,
}

impl Prometheus {
    /// Starts an empty one that scrapes `/metrics` on these ports once a second, with exemplars and native histograms.
    pub(crate) fn start(place: &Place, check: &str, targets: &[u16]) -> Result<Self, NotPassed> {
        let content = place.debian("bookworm", "prometheus")?;
        let folder = place.work(check)?;
        let http = free_port()?;
        let targets: Vec<String> = targets.iter().map(|port| format!("'127.0.0.1:{port}'")).collect();
        let configuration = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
             scrape_configs: [{{job_name: kastor, static_configs: [{{targets: [{}]}}]}}]\n",
            targets.join(", ")
        );
        let file = folder.join("prometheus.yml");
        fs::write(&file, configuration).map_err(|error| NotPassed::failed(format!("{}: {error}", file.display())))?;
        let mut program = Command::new(content.join("usr/bin/prometheus"));
        program.arg(format!("--config.file={}", file.display()));
        program.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
        program.arg(format!("--web.listen-address=127.0.0.1:{http}"));
        program.arg("--enable-feature=exemplar-storage,native-histograms");
        let server = Server::start(program, folder.join("prometheus.log"), &[http])?;
        // It listens a moment before it answers.
        wait_for("prometheus to be ready", || Ok((http::get(http, "/-/ready", &[])?.status == 200).then_some(())))?;
        Ok(Self { http, server })
    }
}

/// Holds text in the plain format to Prometheus's own checks.
pub(crate) fn promtool(place: &Place, text: &str) -> Result<(), NotPassed> {
    use std::io::Write as _;
    let content = place.debian("bookworm", "prometheus")?;
    let mut program = Command::new(content.join("usr/bin/promtool"));
    program.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = || {
        let mut child = program.spawn()?;
        // Its whole input is read before it prints anything: writing first cannot block for ever.
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(text.as_bytes())?;
        }
        child.wait_with_output()
    };
    let output = { run }().map_err(|error| NotPassed::failed(format!("promtool: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(NotPassed::failed(format!("promtool check metrics: {}", String::from_utf8_lossy(&said))))
}
