//! What the fuzz targets run of OTLP; see [`crate::fuzz`].
#![allow(clippy::panic, reason = "whatever does not hold is to be seen")]

use std::time::{Duration, SystemTime};

use super::{
    Protocol,
    config::{OtlpConfig, without_secrets},
    environment, json, response,
    transport::http_settings,
};
use crate::{
    delivery::{
        Answer, LARGEST_ANSWER_BYTES, Request, Signal, Tls, answer_to, decode_stored, decompressed, parse_retry_after,
    },
    environment::Environment,
    install,
};

/// The longest time that a server may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// Any bytes as what a collector answers, in every form, and as a request that comes back from disk to be sent as JSON.
pub(crate) fn answers(bytes: &[u8]) {
    for encoding in [None, Some("gzip"), Some("zstd")] {
        let read = decompressed(bytes, encoding, LARGEST_ANSWER_BYTES).unwrap_or_default();
        assert!(read.len() <= LARGEST_ANSWER_BYTES);
    }
    response::refusal(bytes);
    response::retry_delay(bytes);
    #[cfg(feature = "grpc")]
    super::grpc::fuzz(bytes);
    let wait = std::str::from_utf8(bytes).ok().and_then(|text| parse_retry_after(text, SystemTime::now()));
    assert!(wait.is_none_or(|wait| wait <= LONGEST_WAIT));
    for signal in Signal::ALL {
        response::partial_success(signal, bytes);
        response::partial_success_json(signal, bytes);
        as_json(signal, bytes);
    }
    if let Some((request, _)) = decode_stored(bytes.to_vec(), 1) {
        as_json(request.signal, request.body());
    }
}

/// A request of any bytes is refused, or becomes JSON that others can read.
fn as_json(signal: Signal, bytes: &[u8]) {
    let mut json = String::new();
    if json::render(signal, bytes, &mut json).is_ok() {
        assert!(json.len() <= 16 * bytes.len() + (1 << 20));
        assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{json}");
    }
}

/// Any bytes as what comes back over HTTP, from the status line on.
pub(crate) fn http(bytes: &[u8]) {
    let config = OtlpConfig::new("http://127.0.0.1:4318");
    for protocol in [Protocol::HttpProtobuf, Protocol::HttpJson] {
        let settings = http_settings(&config, Signal::Traces, protocol);
        let request = Request { signal: Signal::Traces, bytes: Vec::new(), from: 0, events: 1 };
        let limit = 16 * bytes.len() + (1 << 20);
        match answer_to(&request, settings, bytes) {
            Answer::Accepted { message, .. } => assert!(message.len() <= limit),
            Answer::Never { why } => assert!(why.len() <= limit),
            Answer::Later { after, why } => {
                assert!(why.len() <= limit && after.is_none_or(|after| after <= LONGEST_WAIT));
            }
        }
    }
}

/// Any text as variables, `NAME=value` a line: whatever they say, there is a configuration, no file is opened, and what
/// was not understood was said, harmless for a terminal.
pub(crate) fn environment(text: &str) {
    let variable = |name: &str| {
        let names_file = name.ends_with("CERTIFICATE") || name.ends_with("KEY");
        let lines = || text.lines().filter_map(|line| line.split_once('='));
        let (_, value) = lines().find(|(known, _)| *known == name).filter(|_| !names_file)?;
        Some(value.to_owned())
    };
    let mut said = Vec::new();
    let mut warn = |text: String| said.push(text);
    let mut environment = Environment::new(&variable, &mut warn);
    let config = environment::read(&mut environment);
    let _ = (environment.is_enabled(), environment::names_endpoint(&mut environment));
    install::sampler(&mut environment);
    for signal in Signal::ALL {
        let shown = without_secrets(&config.url(signal));
        let authority = shown.split_once("://").map_or(&*shown, |(_, rest)| rest.split('/').next().unwrap_or(rest));
        assert!(!authority.contains('@'), "{shown}");
    }
    assert!(said.iter().all(|line| !line.chars().any(char::is_control)), "{said:?}");
    let _ = config.check();
    let pem = text.as_bytes().to_vec();
    let _ = Tls { roots: Some(pem.clone()), client: Some((pem.clone(), pem)) }.check();
}
