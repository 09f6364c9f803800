//! Which transport a signal takes.

use std::{borrow::Cow, sync::Arc};

use kastor::Error;

use super::{
    config::{OtlpConfig, Protocol},
    json, response,
};
use crate::delivery::{Answer, Connect, Http, HttpSettings, Request, Signal, Transport};

/// Makes the transports of a sender thread.
pub(super) fn connect(config: &OtlpConfig) -> Connect {
    let config = Arc::new(config.clone());
    Box::new(move || Box::new(Both(Signal::ALL.map(|signal| of_signal(&config, signal)))))
}

/// One transport for each signal.
struct Both([Box<dyn Transport>; Signal::ALL.len()]);

impl Transport for Both {
    fn send(&mut self, request: &Request) -> Answer {
        let [traces, metrics] = &mut self.0;
        match request.signal {
            Signal::Traces => traces.send(request),
            Signal::Metrics => metrics.send(request),
        }
    }
}

fn of_signal(config: &OtlpConfig, signal: Signal) -> Box<dyn Transport> {
    match config.signal(signal).protocol {
        #[cfg(feature = "grpc")]
        Protocol::Grpc => {
            let of_signal = config.signal(signal);
            Box::new(super::grpc::Grpc::new(super::grpc::GrpcSettings {
                url: config.url(signal),
                headers: of_signal.headers.clone(),
                timeout: of_signal.timeout,
                compression: of_signal.compression,
                tls: of_signal.tls.clone(),
            }))
        }
        protocol => Box::new(Http::new(http_settings(config, signal, protocol))),
    }
}

/// How a signal goes over HTTP, in JSON or else in protobuf.
pub(super) fn http_settings(config: &OtlpConfig, signal: Signal, protocol: Protocol) -> HttpSettings {
    let (of_signal, is_json) = (config.signal(signal), protocol == Protocol::HttpJson);
    HttpSettings {
        url: config.url(signal),
        shown_url: super::config::without_secrets(&config.url(signal)),
        headers: of_signal.headers.clone(),
        timeout: of_signal.timeout,
        compression: of_signal.compression,
        content_type: if is_json { "application/json" } else { "application/x-protobuf" },
        tls: of_signal.tls.clone(),
        render: if is_json { as_json } else { as_it_is },
        read_answer: if is_json { response::partial_success_json } else { response::partial_success },
        read_refusal: response::refusal,
    }
}

fn as_it_is(_: Signal, body: &[u8]) -> Result<Cow<'_, [u8]>, Error> {
    Ok(Cow::Borrowed(body))
}

fn as_json(signal: Signal, body: &[u8]) -> Result<Cow<'_, [u8]>, Error> {
    let mut json = String::with_capacity(body.len() * 3);
    json::render(signal, body, &mut json)?;
    Ok(Cow::Owned(json.into_bytes()))
}
