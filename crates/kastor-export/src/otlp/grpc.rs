//! Requests over gRPC. The runtime is the sender thread's own and runs only while that thread waits for an answer.

use std::{error::Error as _, str::FromStr as _, time::Duration};

use prost::bytes::{Buf as _, BufMut as _};
use tokio::runtime::{Builder, Runtime};
use tonic::{
    Code, Status,
    codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::{MetadataKey, MetadataMap, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use super::{config::without_secrets, response};
use crate::delivery::{Answer, Compression, LARGEST_ANSWER_BYTES, Request, Signal, Tls, Transport, is_grpc_retryable};

/// The longest time that a server may ask for, as over HTTP.
const LONGEST_DELAY: Duration = Duration::from_secs(600);

/// Where the requests of a signal go, and how.
pub(super) struct GrpcSettings {
    pub(super) url: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) timeout: Duration,
    pub(super) compression: Compression,
    pub(super) tls: Tls,
}

/// One signal's way out.
pub(super) struct Grpc {
    settings: GrpcSettings,
    shown_url: String,
    metadata: MetadataMap,
    /// Made with the first request; none while that failed.
    connection: Option<(Runtime, Channel)>,
}

impl Grpc {
    pub(super) fn new(settings: GrpcSettings) -> Self {
        let mut metadata = MetadataMap::new();
        for (name, value) in &settings.headers {
            // Checked when the exporter was made.
            let key = MetadataKey::from_str(&name.to_ascii_lowercase());
            if let (Ok(key), Ok(value)) = (key, MetadataValue::from_str(value)) {
                metadata.append(key, value);
            }
        }
        Self { shown_url: without_secrets(&settings.url), settings, metadata, connection: None }
    }

    fn connect(&self) -> Result<(Runtime, Channel), String> {
        let runtime =
            Builder::new_current_thread().enable_io().enable_time().build().map_err(|error| error.to_string())?;
        let channel = {
            let _inside = runtime.enter();
            self.endpoint().map_err(|error| error.to_string())?.connect_lazy()
        };
        Ok((runtime, channel))
    }

    fn endpoint(&self) -> Result<Endpoint, tonic::transport::Error> {
        let GrpcSettings { url, timeout, tls, .. } = &self.settings;
        let endpoint = Endpoint::from_shared(url.clone())?
            .connect_timeout(*timeout)
            .user_agent(concat!("kastor/", env!("CARGO_PKG_VERSION")))?;
        if !url.starts_with("https") {
            return Ok(endpoint);
        }
        let mut config = match &tls.roots {
            Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let Some((chain, key)) = &tls.client {
            config = config.identity(Identity::from_pem(chain, key));
        }
        endpoint.tls_config(config)
    }

    fn try_send(&mut self, request: &Request) -> Result<Vec<u8>, Answer> {
        if self.connection.is_none() {
            let connection = self.connect();
            self.connection =
                Some(connection.map_err(|why| Answer::Never { why: format!("{}: {why}", self.shown_url) })?);
        }
        let Some((runtime, channel)) = &self.connection else {
            return Err(Answer::Later { after: None, why: "no connection".into() });
        };
        let mut client = tonic::client::Grpc::new(channel.clone())
            .max_decoding_message_size(LARGEST_ANSWER_BYTES)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd);
        client = match self.settings.compression {
            Compression::None => client,
            Compression::Gzip => client.send_compressed(CompressionEncoding::Gzip),
            Compression::Zstd => client.send_compressed(CompressionEncoding::Zstd),
        };
        let path = tonic::codegen::http::uri::PathAndQuery::from_static(match request.signal {
            Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        });
        let mut call = tonic::Request::new(request.body().to_vec());
        *call.metadata_mut() = self.metadata.clone();
        let answered = runtime.block_on(async {
            let answering = async {
                client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
                client.unary(call, path, Bytes).await
            };
            tokio::time::timeout(self.settings.timeout, answering).await
        });
        match answered {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) if is_unreadable(&status) => {
                Err(Answer::Accepted { rejected: 0, message: status.message().to_owned() })
            }
            Ok(Err(status)) => Err(judge(&self.shown_url, &status)),
            Err(_) => {
                let why = format!("{}: no answer within {:?}", self.shown_url, self.settings.timeout);
                Err(Answer::Later { after: None, why })
            }
        }
    }
}

/// Whether the server took the request, and only its answer cannot be read: it is longer than it may be. Sending again
/// would double the events. The library tells this apart by its text alone; a test holds it to that.
fn is_unreadable(status: &Status) -> bool {
    let texts = ["Error, decoded message length too large", "Error decompressing"];
    texts.iter().any(|text| status.message().starts_with(text))
}

fn judge(url: &str, status: &Status) -> Answer {
    let why = format!("{url}: gRPC {:?}: {}", status.code(), status.message());
    let delay = response::retry_delay(status.details());
    // A status that was made on this side of the connection tells of the network.
    let is_local = status.code() == Code::Unknown && status.source().is_some();
    if is_local || is_grpc_retryable(status.code() as i32, delay.is_some()) {
        Answer::Later { after: delay.map(|delay| delay.min(LONGEST_DELAY)), why }
    } else {
        Answer::Never { why }
    }
}

/// For the fuzzer: any status has an outcome, and none is that it was taken.
pub(super) fn fuzz(bytes: &[u8]) {
    let code = Code::from(i32::from(bytes.first().copied().unwrap_or(0) % 20));
    let status = Status::with_details(code, String::from_utf8_lossy(bytes), bytes.to_vec().into());
    let answer = judge("http://localhost:4317", &status);
    assert!(!matches!(answer, Answer::Accepted { .. }), "{status} is no success");
    match answer {
        Answer::Later { after, .. } => assert!(after.is_none_or(|after| after <= LONGEST_DELAY)),
        Answer::Never { .. } => assert!(!is_grpc_retryable(code as i32, false), "{code:?}"),
        Answer::Accepted { .. } => {}
    }
}

impl Transport for Grpc {
    fn send(&mut self, request: &Request) -> Answer {
        match self.try_send(request) {
            Ok(body) => {
                let (rejected, message) = response::partial_success(request.signal, &body);
                Answer::Accepted { rejected, message }
            }
            Err(answer) => answer,
        }
    }
}

impl Drop for Grpc {
    fn drop(&mut self) {
        if let Some((runtime, _)) = self.connection.take() {
            // A name that is being looked up is not waited for.
            runtime.shutdown_background();
        }
    }
}

/// Messages that are encoded already.
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Bytes;
    type Decoder = Bytes;

    fn encoder(&mut self) -> Bytes {
        Bytes
    }

    fn decoder(&mut self) -> Bytes {
        Bytes
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut bytes = vec![0; from.remaining()];
        from.copy_to_slice(&mut bytes);
        Ok(Some(bytes))
    }
}
