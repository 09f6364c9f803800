"""The exporters: each writes or sends what its format asks for, what is secret stays out, and bad arguments are refused."""

import gzip
import http.client
import http.server
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import threading
import time

import pytest

import kastor
from support import quiet

SECRET = "hunter2-canary"
BATCH_REPORTERS = {
    "Capture": lambda folder: kastor.Capture(folder / "run.kcap"),
    "Chrome": lambda folder: kastor.Chrome(folder / "trace.json"),
    "JsonLines": lambda folder: kastor.JsonLines(folder / "events.jsonl"),
    "Perfetto": lambda folder: kastor.Perfetto(folder / "trace.perfetto-trace"),
}


def work(reporter, **options):
    """Does a little, with a secret in it; everything is delivered on return."""
    tele = kastor.enable(reporter, **options)
    with tele("order", shop="north", password=SECRET):
        with tele("pay"):
            tele.count("coins", 3, shop="north", token=SECRET)
    flushed = tele.shutdown(10)
    assert flushed, flushed
    return tele


def everything_in(folder):
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def kastor_command(*arguments):
    command = [sys.executable, "-P", "-m", "kastor", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


class Collector:
    """An HTTP server that takes every request."""

    def __init__(self):
        requests = self.requests = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                requests.append((self.path, self.headers, body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def json(self, path, encoding=None):
        """The bodies sent to a path."""
        unpack = gzip.decompress if encoding == "gzip" else bytes
        return [json.loads(unpack(body)) for at, _, body in self.requests if at == path]


@pytest.fixture
def collector():
    collector = Collector()
    yield collector
    collector.close()


def spans_of(requests):
    return [
        span
        for request in requests
        for resource in request.get("resourceSpans", ())
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]


def attributes_of(item):
    return {pair["key"]: next(iter(pair["value"].values())) for pair in item["attributes"]}


def scrape(address, **headers):
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request("GET", "/metrics", headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


# Files


def test_a_capture_is_whole_and_kastors_own_commands_read_it(tmp_path):
    capture = kastor.Capture(tmp_path / "run.kcap")
    work(capture)
    assert capture.files() == [capture.path] == [str(tmp_path / "run.kcap")]
    assert capture.last_error() is None
    checked = kastor_command("check", capture.path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    report = kastor_command("report", capture.path)
    assert report.returncode == 0 and "order" in report.stdout and "pay" in report.stdout, report.stdout + report.stderr


def test_a_path_that_is_no_kcap_is_a_folder_that_is_made(tmp_path):
    capture = kastor.Capture(tmp_path / "made" / "for" / "it", zstd=3, max_files=2, max_file_bytes=1 << 20, durable_on_flush=True)
    work(capture)
    (name,) = capture.files()
    assert pathlib.Path(name).parent == tmp_path / "made" / "for" / "it"
    assert kastor_command("check", name).returncode == 0


def test_a_capture_on_no_folder_drops_and_says_so(tmp_path):
    (tmp_path / "file").write_text("no folder")
    capture = kastor.Capture(tmp_path / "file")
    tele = kastor.enable(capture)
    with tele("a"):
        pass
    tele.shutdown(10)
    assert capture.files() == [] and "exists" in capture.last_error()
    (accounts,) = tele.stats()["reporters"]
    assert accounts["delivered"] == 0 and accounts["dropped"] == {"spool_io": 1}


def test_a_chrome_trace_is_json_with_every_scope(tmp_path):
    work(kastor.Chrome(tmp_path / "trace.json", process_name="shop", ids=True))
    trace = json.loads((tmp_path / "trace.json").read_text())
    events = trace["traceEvents"] if isinstance(trace, dict) else trace
    slices = {event["name"]: event for event in events if event["ph"] == "X"}
    assert set(slices) == {"order", "pay"}
    assert slices["order"]["args"]["shop"] == "north" and slices["order"]["args"]["password"] == "[redacted]"
    assert slices["order"]["dur"] >= slices["pay"]["dur"] >= 0
    assert any(event["ph"] == "M" and event["args"].get("name") == "shop" for event in events)


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def fields(data):
    """(number, wire type, value) of a protobuf message."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = varint(data, at)
        elif kind == 2:
            length, at = varint(data, at)
            value, at = data[at : at + length], at + length
            assert len(value) == length
        else:
            size = {1: 8, 5: 4}[kind]
            value, at = data[at : at + size], at + size
        yield number, kind, value


def test_a_perfetto_trace_is_packets_to_the_last_byte(tmp_path):
    work(kastor.Perfetto(tmp_path / "trace.perfetto-trace"))
    data = (tmp_path / "trace.perfetto-trace").read_bytes()
    packets = list(fields(data))
    assert packets and {(number, kind) for number, kind, _ in packets} == {(1, 2)}, "a trace is packets alone"
    events = [dict((n, v) for n, _, v in fields(value)) for _, _, packet in packets for number, _, value in fields(packet) if number == 11]
    begun, ended = (sum(event.get(9) == kind for event in events) for kind in (1, 2))
    assert begun == ended == 2
    assert b"order" in data and b"pay" in data


def test_folded_stacks_have_a_line_for_each_path(tmp_path):
    work(kastor.Folded(tmp_path / "stacks.folded"))
    lines = dict(line.rsplit(" ", 1) for line in (tmp_path / "stacks.folded").read_text().splitlines())
    assert set(lines) == {"order", "order;pay"} and all(int(time_ns) > 0 for time_ns in lines.values())


def test_json_lines_are_otlp_requests(tmp_path):
    work(kastor.JsonLines(tmp_path / "events.jsonl", service_name="shop", resource={"zone": "b"}))
    requests = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    spans = {span["name"]: span for span in spans_of(requests)}
    assert attributes_of(spans["order"])["shop"] == "north"
    assert spans["pay"]["parentSpanId"] == spans["order"]["spanId"]
    resource = next(request["resourceSpans"][0]["resource"] for request in requests if "resourceSpans" in request)
    assert attributes_of(resource) | {"service.name": "shop", "zone": "b"} == attributes_of(resource)
    assert any("resourceMetrics" in request for request in requests)


def test_json_lines_rotate(tmp_path):
    tele = kastor.enable(kastor.JsonLines(tmp_path / "events.jsonl", max_file_bytes=2000, old_files=1))
    for _ in range(4):
        with tele("a"):
            pass
        assert tele.flush(10)
    tele.shutdown(10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.jsonl", "events.jsonl.1"]


# Sockets


def test_prometheus_serves_the_context_as_long_as_either_of_them_is_there():
    endpoint = kastor.Prometheus(least_interval=0)
    assert scrape(endpoint.address)[0] == 503, "there is no context yet"
    tele = kastor.enable(endpoint)
    with tele("order"):
        tele.count("coins", 3, shop="north", token=SECRET)
    status, text = scrape(endpoint.address)
    assert status == 200 and 'coins_total{scope="order",shop="north",token="[redacted]"} 3' in text
    assert SECRET not in text
    address = endpoint.address
    tele.shutdown(10)
    assert scrape(address)[0] == 200, "the last sums can still be scraped"
    del tele
    assert scrape(address)[0] == 200, "the program still has the endpoint"
    del endpoint
    with pytest.raises(ConnectionRefusedError):
        scrape(address)


def test_prometheus_ends_when_it_is_closed():
    endpoint = kastor.Prometheus(least_interval=0)
    tele = kastor.enable(endpoint)
    assert scrape(endpoint.address)[0] == 200
    endpoint.close()
    endpoint.close()
    with pytest.raises(ConnectionRefusedError):
        scrape(endpoint.address)
    with tele("goes_on"):
        pass
    assert tele.shutdown(10) and "goes_on" in str(tele.report())
    # The port may be had again.
    kastor.Prometheus(endpoint.address).close()


def test_prometheus_asks_for_its_token():
    endpoint = kastor.Prometheus("127.0.0.1:0", bearer_token="open", max_connections=2)
    tele = kastor.enable(endpoint)
    assert scrape(endpoint.address)[0] == 401
    assert scrape(endpoint.address, Authorization="Bearer open")[0] == 200
    assert "open" not in repr(endpoint)
    tele.shutdown(10)


def test_prometheus_text_of_a_context():
    tele = kastor.enable()
    tele.count("coins", 3, token=SECRET)
    text = kastor.prometheus_text(tele)
    assert 'coins_total{token="[redacted]"} 3' in text and "# TYPE coins_total counter" in text
    assert "coins" not in kastor.prometheus_text(kastor.DISABLED)
    with pytest.raises(TypeError):
        kastor.prometheus_text(3)


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_otlp_sends_spans_and_metrics(collector, compression):
    work(
        kastor.Otlp(
            collector.address,
            protocol="http/json",
            compression=compression,
            headers={"x-key": SECRET},
            timeout=5,
            service_name="shop",
        )
    )
    spans = spans_of(collector.json("/v1/traces", compression))
    assert {span["name"] for span in spans} == {"order", "pay"}
    assert collector.json("/v1/metrics", compression)
    _, headers, _ = collector.requests[0]
    assert headers["x-key"] == SECRET and headers.get("Content-Encoding", "none") == compression


def test_otlp_protobuf_is_the_default_and_a_signal_can_be_left_out(collector):
    work(kastor.Otlp(collector.address, metrics=False))
    assert {path for path, _, _ in collector.requests} == {"/v1/traces"}
    _, headers, body = collector.requests[0]
    assert headers["Content-Type"].lower() == "application/x-protobuf" and b"order" in body


def test_otlp_without_an_endpoint_follows_the_environment_and_arguments_win(collector, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from_environment")
    work(kastor.Otlp(protocol="http/json"))
    (request, *_) = collector.json("/v1/traces")
    assert attributes_of(request["resourceSpans"][0]["resource"])["service.name"] == "from_environment"


def test_otlp_keeps_in_its_spool_what_no_collector_took(tmp_path, collector):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        tele = kastor.enable(kastor.Otlp(address, spool=tmp_path / "spool", spool_max_bytes=1 << 20, timeout=0.2))
        with tele("kept"):
            pass
        assert tele.persist(10)
    assert b"kept" in everything_in(tmp_path / "spool")
    tele.shutdown(0)


def test_otlp_shows_nothing_secret_of_itself():
    text = repr(kastor.Otlp(f"http://user:{SECRET}@127.0.0.1:1", headers={"authorization": SECRET}))
    assert SECRET not in text and "127.0.0.1" in text


@pytest.fixture
def agent():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as agent:
        agent.bind(("127.0.0.1", 0))
        agent.settimeout(10)
        yield agent


def lines_until(agent, wanted):
    """Lines of datagrams up to the one that fits."""
    lines = []
    while not any(re.fullmatch(wanted, line) for line in lines):
        lines += agent.recv(65536).decode().splitlines()
    return lines


def test_statsd_sends_sums_with_tags(agent):
    statsd = kastor.Statsd("127.0.0.1:%d" % agent.getsockname()[1], prefix="app", tags={"service": "shop"})
    work(statsd)
    lines = lines_until(agent, r"app\.\S*coins\S*:3\|c\|#.*")
    (coins,) = (line for line in lines if "coins" in line)
    assert "service:shop" in coins and "shop:north" in coins and "token:[redacted]" in coins
    assert statsd.lines()["sent"] >= len(lines) and statsd.lines()["too_large"] == 0


def test_plain_statsd_has_no_tags(agent):
    work(kastor.Statsd("127.0.0.1:%d" % agent.getsockname()[1], plain=True))
    lines = lines_until(agent, r"\S*coins\S*:3\|c")
    assert not any("|#" in line for line in lines)


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets")
def test_statsd_over_a_unix_socket(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as agent:
        agent.bind("agent")
        agent.settimeout(10)
        work(kastor.Statsd("unix:agent"))
        assert lines_until(agent, r"\S*coins\S*:3\|c\|#.*")


def test_what_a_program_feeds_statsd_arrives_once(agent):
    statsd = kastor.Statsd("127.0.0.1:%d" % agent.getsockname()[1])
    statsd.record_metric("queue.length", 7, shop="north")
    (line,) = (line for line in lines_until(agent, r"\S*length\S*:7\|d\|#.*") if "length" in line)
    assert "shop:north" in line


# All of them


@pytest.mark.parametrize("kind", BATCH_REPORTERS)
def test_secrets_stay_out_of_files_unless_they_are_asked_for(kind, tmp_path):
    work(BATCH_REPORTERS[kind](tmp_path))
    written = everything_in(tmp_path)
    assert b"north" in written and SECRET.encode() not in written
    name = next(path for path in tmp_path.iterdir()).name
    for part, options, shown in [
        ("all", {"redact": False}, True),
        ("allowed", {"allow_keys": ["password", "token"]}, True),
        ("further", {"redact_keys": ["shop"]}, False),
    ]:
        (tmp_path / part).mkdir()
        work(getattr(kastor, kind)(tmp_path / part / name, **options))
        written = everything_in(tmp_path / part)
        assert (SECRET.encode() in written) is shown and (b"north" in written) is shown, part


@pytest.mark.parametrize("kind", BATCH_REPORTERS)
def test_a_program_may_feed_a_file_itself(kind, tmp_path):
    reporter = BATCH_REPORTERS[kind](tmp_path)
    reporter.record_timing("fed.timing", 0.25, shop="north")
    reporter.record_metric("fed.metric", 3, shop="south")
    del reporter  # Its end is a flush.
    deadline = time.monotonic() + 10
    while not all(text in everything_in(tmp_path) for text in (b"timing", b"north", b"metric")):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: kastor.Otlp("localhost:4318"), "http://localhost:4318"),
        (lambda: kastor.Otlp("http://a", protocol="carrier pigeon"), "protocol is \"carrier pigeon\""),
        (lambda: kastor.Otlp("http://a", compression="br"), "'none', 'gzip' and 'zstd'"),
        (lambda: kastor.Otlp("http://a", headers={"x": "a\nb"}), "header 'x'"),
        (lambda: kastor.Otlp("http://a", timeout=float("nan")), "timeout is NaN"),
        (lambda: kastor.Otlp("http://a", tail_sampling=2.0), "from 0 to 1"),
        (lambda: kastor.Otlp("http://a", client_key="a.pem"), "need each other"),
        (lambda: kastor.Statsd("nowhere"), "HOST:PORT"),
        (lambda: kastor.Prometheus("nowhere"), "HOST:PORT"),
        (lambda: kastor.Capture("a", zstd=50), "from 1 to 19"),
        (lambda: kastor.Folded("a", unit="h"), "'ns' and 'us'"),
    ],
)
def test_arguments_that_are_not_valid_are_said_at_once(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


@pytest.mark.parametrize("kind", ["Chrome", "Folded", "JsonLines", "Perfetto"])
def test_a_file_that_cannot_be_made_is_an_oserror_with_its_name(kind, tmp_path):
    with pytest.raises(OSError, match="missing"):
        getattr(kastor, kind)(tmp_path / "missing" / "file")


def test_a_port_in_use_is_an_oserror():
    first = kastor.Prometheus()
    with pytest.raises(OSError, match="cannot listen"):
        kastor.Prometheus(first.address)


@pytest.mark.parametrize("kind", BATCH_REPORTERS)
def test_exporters_are_counted_and_given_back(kind, tmp_path):
    reporter = BATCH_REPORTERS[kind](tmp_path)
    tele = work(reporter)
    assert tele.reporters() == [reporter]
    (accounts,) = tele.stats()["reporters"]
    assert accounts["delivered"] == 2 and accounts["dropped"] == {} and kind in accounts["name"]
    assert repr(reporter).startswith(kind)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_writes_files_of_its_own(tmp_path):
    """With every file reporter and an endpoint at once: what is in whose files."""
    program = """
        import os, pathlib, sys
        import kastor

        folder = pathlib.Path(sys.argv[1])
        tele = kastor.enable(
            kastor.Capture(folder / "captures"),
            kastor.Chrome(folder / "trace.json"),
            kastor.JsonLines(folder / "events.jsonl"),
            kastor.Perfetto(folder / "trace.perfetto-trace"),
            kastor.Prometheus(),
        )
        with tele("before_the_fork"):
            pass
        assert tele.flush(10)
        child = os.fork()
        with tele("in_the_child" if child == 0 else "in_the_parent"):
            pass
        assert tele.shutdown(10)
        if child == 0:
            print(os.getpid(), flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    """
    child = quiet(program, str(tmp_path), options=("-W", "ignore")).strip()
    parents = [tmp_path / name for name in ("trace.json", "events.jsonl", "trace.perfetto-trace")]
    children = [tmp_path / f"trace-{child}.json", tmp_path / f"events.{child}.jsonl", tmp_path / f"trace-{child}.perfetto-trace"]
    captures = sorted((tmp_path / "captures").iterdir(), key=lambda path: b"in_the_child" in path.read_bytes())
    assert len(captures) == 2
    for parent, own in [*zip(parents, children), captures]:
        parent, own = parent.read_bytes(), own.read_bytes()
        assert b"before_the_fork" in parent and b"in_the_parent" in parent and b"in_the_child" not in parent
        assert b"in_the_child" in own and b"in_the_parent" not in own
