//! gRPC, against a small server of the official service definitions.
#![cfg(all(feature = "otlp", feature = "grpc"))]

mod other_side;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use kastor::{DropReason, Telemetry};
use kastor_export::{Compression, Otlp, OtlpConfig, Protocol, Retry};
use opentelemetry_proto::tonic::{
    collector::{
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    trace::v1::Span,
};
use other_side::{LONG, tls::Authority};
use prost::Message as _;
use tonic::{
    Code, Request, Response, Status,
    codec::CompressionEncoding,
    metadata::MetadataMap,
    transport::{Identity, Server, ServerTlsConfig, server::TcpIncoming},
};

type Script = dyn Fn(usize) -> Result<ExportTraceServiceResponse, Status> + Send + Sync;

#[derive(Clone)]
struct Service {
    script: Arc<Script>,
    received: Arc<Mutex<Vec<Received>>>,
}

struct Received {
    traces: Option<ExportTraceServiceRequest>,
    metrics: Option<ExportMetricsServiceRequest>,
    metadata: MetadataMap,
    at: Instant,
    is_taken: bool,
}

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let (metadata, _, traces) = request.into_parts();
        let mut received = self.received.lock().unwrap();
        let before = received.iter().filter(|it| it.traces.is_some()).count();
        let answer = (self.script)(before);
        let is_taken = answer.is_ok();
        received.push(Received { traces: Some(traces), metrics: None, metadata, at: Instant::now(), is_taken });
        answer.map(Response::new)
    }
}

#[tonic::async_trait]
impl MetricsService for Service {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let (metadata, _, metrics) = request.into_parts();
        let received = Received { traces: None, metrics: Some(metrics), metadata, at: Instant::now(), is_taken: true };
        self.received.lock().unwrap().push(received);
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

/// Runs until it is dropped.
struct Collector {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Collector {
    fn start(script: impl Fn(usize) -> Result<ExportTraceServiceResponse, Status> + Send + Sync + 'static) -> Self {
        Self::with(script, None, true)
    }

    fn with(
        script: impl Fn(usize) -> Result<ExportTraceServiceResponse, Status> + Send + Sync + 'static,
        tls: Option<ServerTlsConfig>,
        answers_compressed: bool,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let service = Service { script: Arc::new(script), received: Arc::clone(&received) };
        let incoming = {
            let _inside = runtime.enter();
            TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap()
        };
        let address = incoming.local_addr().unwrap();
        let mut server = Server::builder();
        if let Some(tls) = tls {
            server = server.tls_config(tls).unwrap();
        }
        let encodings = [CompressionEncoding::Gzip, CompressionEncoding::Zstd];
        let (mut traces, mut metrics) = (TraceServiceServer::new(service.clone()), MetricsServiceServer::new(service));
        for encoding in encodings {
            traces = traces.accept_compressed(encoding);
            if answers_compressed {
                traces = traces.send_compressed(encoding);
            }
            metrics = metrics.accept_compressed(encoding);
        }
        runtime.spawn(server.add_service(traces).add_service(metrics).serve_with_incoming(incoming));
        Self { address, received, _runtime: runtime }
    }

    fn spans(&self) -> Vec<Span> {
        let received = self.received.lock().unwrap();
        let taken = received.iter().filter(|it| it.is_taken).filter_map(|it| it.traces.clone());
        taken.flat_map(|it| it.resource_spans).flat_map(|it| it.scope_spans).flat_map(|it| it.spans).collect()
    }

    fn requests(&self) -> usize {
        self.received.lock().unwrap().iter().filter(|it| it.traces.is_some()).count()
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn told(url: String, change: impl FnOnce(OtlpConfig) -> OtlpConfig) -> Telemetry {
    let retry = Retry { initial: Duration::from_millis(10), longest: Duration::from_millis(20), ..Retry::default() };
    let config = OtlpConfig::new(url).protocol(Protocol::Grpc).retry(retry).linger(Duration::ZERO);
    Telemetry::builder().reporter(Otlp::new(change(config)).unwrap()).build()
}

fn taken() -> Result<ExportTraceServiceResponse, Status> {
    Ok(ExportTraceServiceResponse::default())
}

/// A `google.rpc.Status` with a `RetryInfo`, by hand: a delay of so many milliseconds.
fn retry_info(milliseconds: u32) -> Vec<u8> {
    let nanos = milliseconds % 1_000 * 1_000_000;
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8], bytes].concat();
    let mut delay = vec![1 << 3];
    prost::encoding::encode_varint(u64::from(milliseconds / 1_000), &mut delay);
    delay.push(2 << 3);
    prost::encoding::encode_varint(u64::from(nanos), &mut delay);
    let any = [field(1, b"type.googleapis.com/google.rpc.RetryInfo"), field(2, &field(1, &delay))].concat();
    field(3, &any)
}

#[test]
fn spans_and_metrics_arrive_with_headers_under_every_compression() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let collector = Collector::start(|_| taken());
        let tele = told(collector.url(), |config| config.compression(compression).header("X-Tenant", "a"));
        (0..500).for_each(|_| drop(tele.scope("step")));
        assert!(tele.flush(LONG).is_complete(), "{compression:?}");
        assert_eq!(collector.spans().len(), 500, "{compression:?}");
        let received = collector.received.lock().unwrap();
        assert!(received.iter().any(|it| it.metrics.is_some()), "{compression:?}");
        assert!(received.iter().all(|it| it.metadata.get("x-tenant").is_some_and(|tenant| tenant == "a")));
    }
}

#[test]
fn every_code_is_either_tried_again_until_it_works_or_dropped_at_once() {
    for code in (1..=16).map(Code::from_i32) {
        for has_info in [false, true] {
            let collector = Collector::start(move |before| match (before, has_info) {
                (0 | 1, true) => Err(Status::with_details(code, "no", retry_info(20).into())),
                (0 | 1, false) => Err(Status::new(code, "no")),
                _ => taken(),
            });
            let tele = told(collector.url(), |config| config.without_metrics());
            (0..10).for_each(|_| drop(tele.scope("step")));
            assert!(tele.flush(LONG).is_complete(), "{code:?}");
            let stats = tele.stats();
            let of_reporter = &stats.reporters()[0];
            let is_retried = match code {
                Code::Cancelled | Code::DeadlineExceeded | Code::Aborted | Code::OutOfRange => true,
                Code::Unavailable | Code::DataLoss => true,
                Code::ResourceExhausted => has_info,
                _ => false,
            };
            let (delivered, dropped) = (of_reporter.delivered(), of_reporter.dropped().of(DropReason::NonRetryable));
            let expected = if is_retried { (3, 10, 0) } else { (1, 0, 10) };
            assert_eq!((collector.requests(), delivered, dropped), expected, "{code:?}, info: {has_info}");
        }
    }
}

#[test]
fn no_attempt_comes_before_the_delay_that_the_server_named() {
    for code in [Code::ResourceExhausted, Code::Unavailable] {
        let collector = Collector::start(move |before| match before {
            0 => Err(Status::with_details(code, "later", retry_info(1_200).into())),
            _ => taken(),
        });
        let tele = told(collector.url(), |config| config.without_metrics());
        drop(tele.scope("step"));
        assert!(tele.flush(LONG).is_complete());
        let received = collector.received.lock().unwrap();
        assert_eq!(received.len(), 2);
        assert!(received[1].at - received[0].at >= Duration::from_millis(1_200), "{code:?}");
    }
}

#[test]
fn partial_success_is_never_tried_again_and_what_was_rejected_is_not_delivered() {
    let partial = ExportTracePartialSuccess { rejected_spans: 4, error_message: "bad".into() };
    let collector =
        Collector::start(move |_| Ok(ExportTraceServiceResponse { partial_success: Some(partial.clone()) }));
    let tele = told(collector.url(), |config| config.without_metrics());
    (0..10).for_each(|_| drop(tele.scope("step")));
    assert!(tele.flush(LONG).is_complete());
    let stats = tele.stats();
    let of_reporter = &stats.reporters()[0];
    let rejected = of_reporter.dropped().of(DropReason::RejectedByServer);
    assert_eq!((collector.requests(), of_reporter.delivered(), rejected), (1, 6, 4));
}

#[test]
fn an_answer_of_any_length_is_not_kept_and_what_was_taken_stays_taken() {
    for answers_compressed in [false, true] {
        let message = "x".repeat(8 << 20);
        let answer = move |_| {
            let partial = ExportTracePartialSuccess { rejected_spans: 0, error_message: message.clone() };
            Ok(ExportTraceServiceResponse { partial_success: Some(partial) })
        };
        let collector = Collector::with(answer, None, answers_compressed);
        let tele = told(collector.url(), |config| config.without_metrics());
        drop(tele.scope("step"));
        assert!(tele.flush(LONG).is_complete());
        assert_eq!((collector.requests(), tele.stats().reporters()[0].delivered()), (1, 1), "{answers_compressed}");
    }
}

#[test]
fn a_collector_that_is_not_there_yet_gets_everything_later() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let tele = told(format!("http://{address}"), |config| config.without_metrics());
    (0..10).for_each(|_| drop(tele.scope("step")));
    let began = Instant::now();
    assert!(!tele.flush(Duration::from_millis(200)).is_complete());
    assert!(began.elapsed() < Duration::from_millis(200 + 50 + 500));
    let stats = tele.stats();
    assert_eq!((stats.reporters()[0].queued(), stats.reporters()[0].dropped().total()), (10, 0), "{stats}");
}

#[test]
fn a_server_is_trusted_by_the_given_roots_and_shown_a_certificate() {
    let authority = Authority::new();
    let (identity, client) = (authority.identity("127.0.0.1"), authority.identity("client"));
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(&identity.chain_pem, &identity.key_pem))
        .client_ca_root(tonic::transport::Certificate::from_pem(authority.pem()));
    let collector = Collector::with(|_| taken(), Some(tls), false);
    let url = format!("https://{}", collector.address);
    let trusting = |config: OtlpConfig| config.without_metrics().root_certificates(authority.pem());
    let tele = told(url.clone(), |config| trusting(config).client_certificate(client.chain_pem, client.key_pem));
    drop(tele.scope("known"));
    assert!(tele.flush(LONG).is_complete());
    let tele = told(url, trusting);
    drop(tele.scope("unknown"));
    assert!(!tele.flush(Duration::from_millis(300)).is_complete());
    assert_eq!(collector.spans().len(), 1);
}

#[test]
fn the_retry_info_made_here_is_what_it_is_meant_to_be() {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Status {
        #[prost(bytes = "vec", repeated, tag = "3")]
        details: Vec<Vec<u8>>,
    }
    let read = Status::decode(&retry_info(1_200)[..]).unwrap();
    assert_eq!(read.details.len(), 1);
    assert!(read.details[0].ends_with(&[8, 1, 16, 0x80, 0x84, 0xaf, 0x5f]));
}
