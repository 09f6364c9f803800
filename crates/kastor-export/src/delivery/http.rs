//! Requests over HTTP, one connection kept open per signal.

use std::{
    borrow::Cow,
    fmt,
    time::{Duration, SystemTime},
};

use kastor::Error;
use ureq::{
    Agent,
    http::{HeaderMap, header},
    tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem},
};
use ureq::{
    http::Uri,
    unversioned::{
        resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver},
        transport::{Connector, DefaultConnector, NextTimeout, time::Duration::NotHappening},
    },
};

use super::{
    Answer, Compression, Request, Signal, Transport,
    compression::decompressed,
    retry::{is_http_retryable, parse_retry_after},
};

/// The longest answer that is read, after decompression.
pub(crate) const LARGEST_ANSWER_BYTES: usize = 4 << 20;

/// From the protobuf body of a request to what a server wants.
pub(crate) type Render = fn(Signal, &[u8]) -> Result<Cow<'_, [u8]>, Error>;

/// Where the requests of a signal go, and how.
#[derive(Clone)]
pub(crate) struct HttpSettings {
    pub(crate) url: String,
    /// The same without secrets, for messages.
    pub(crate) shown_url: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) timeout: Duration,
    pub(crate) compression: Compression,
    pub(crate) content_type: &'static str,
    pub(crate) tls: Tls,
    pub(crate) render: Render,
    /// What an accepting answer says: items that were rejected nevertheless, and why.
    pub(crate) read_answer: fn(Signal, &[u8]) -> (u64, String),
    /// What a refusing answer says.
    pub(crate) read_refusal: fn(&[u8]) -> String,
}

/// Whom to trust, and who we are.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Tls {
    /// PEM; none means the system's roots.
    pub(crate) roots: Option<Vec<u8>>,
    /// PEM: certificates and key.
    pub(crate) client: Option<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("own_roots", &self.roots.is_some())
            .field("client_certificate", &self.client.is_some())
            .finish()
    }
}

impl Tls {
    fn config(&self) -> Result<TlsConfig, Error> {
        let mut config = TlsConfig::builder();
        config = match &self.roots {
            Some(pem) => config.root_certs(RootCerts::new_with_certs(&certificates(pem)?)),
            None => config.root_certs(RootCerts::PlatformVerifier),
        };
        if let Some((chain, key)) = &self.client {
            let key = PrivateKey::from_pem(key)
                .map_err(|error| Error::invalid_input(format!("the client's key cannot be used: {error}")))?;
            config = config.client_cert(Some(ClientCert::new_with_certs(&certificates(chain)?, key)));
        }
        Ok(config.build())
    }

    /// Whether everything in it can be read.
    ///
    /// # Errors
    /// If not; the text says what.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.config().map(drop)
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<Certificate<'static>>, Error> {
    let mut found = Vec::new();
    for item in parse_pem(pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => found.push(certificate),
            Ok(_) => {}
            Err(error) => return Err(Error::invalid_input(format!("a certificate cannot be read: {error}"))),
        }
    }
    if found.is_empty() {
        return Err(Error::invalid_input("there is no certificate in PEM form (-----BEGIN CERTIFICATE-----)"));
    }
    Ok(found)
}

/// Looks names up on the sender's own thread, for as long as the system takes: nobody else waits for that thread. With a
/// timeout the library would start a thread for each look-up, and a fork in that moment could leave a lock of the standard
/// library taken in the child, whose own sender would then hang.
#[derive(Debug, Default)]
struct OnThisThread(DefaultResolver);

impl Resolver for OnThisThread {
    fn resolve(
        &self,
        uri: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        self.0.resolve(uri, config, NextTimeout { after: NotHappening, ..timeout })
    }
}

/// One signal's way out.
pub(crate) struct Http {
    settings: HttpSettings,
    agent: Result<Agent, Error>,
    /// Kept for its memory.
    compressed: Vec<u8>,
}

impl Http {
    pub(crate) fn new(settings: HttpSettings) -> Self {
        Self::over(settings, DefaultConnector::default())
    }

    /// The same over connections of another kind.
    pub(super) fn over(settings: HttpSettings, connector: impl Connector) -> Self {
        let agent = settings.tls.config().map(|tls| {
            Agent::with_parts(
                Agent::config_builder()
                    // Every answer is judged here, redirects too: they are never followed, since headers may be secret.
                    .http_status_as_error(false)
                    .max_redirects(0)
                    .max_redirects_will_error(false)
                    .timeout_global(Some(settings.timeout))
                    .user_agent(concat!("kastor/", env!("CARGO_PKG_VERSION")))
                    .max_idle_connections(1)
                    .tls_config(tls)
                    .build(),
                connector,
                OnThisThread::default(),
            )
        });
        Self { settings, agent, compressed: Vec::new() }
    }

    fn try_send(&mut self, request: &Request) -> Result<Answer, Answer> {
        let never = |error: &dyn fmt::Display| Answer::Never { why: error.to_string() };
        let Self { settings, agent, compressed } = self;
        let agent = agent.as_ref().map_err(|error| never(error))?;
        let body = (settings.render)(request.signal, request.body()).map_err(|error| never(&error))?;
        let mut call = agent.post(&settings.url).header(header::CONTENT_TYPE, settings.content_type);
        for (name, value) in &settings.headers {
            call = call.header(name, value);
        }
        let sent = match settings.compression.name() {
            None => call.send(&*body),
            Some(name) => {
                compressed.clear();
                settings.compression.compress(&body, compressed).map_err(|error| never(&error))?;
                call.header(header::CONTENT_ENCODING, name).send(&**compressed)
            }
        };
        let mut response = sent.map_err(|error| match error {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl => never(&error),
            // The network, a name, TLS: all of these can be mended without us.
            error => Answer::Later { after: None, why: format!("{}: {error}", settings.shown_url) },
        })?;
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        let encoding = text(&headers, header::CONTENT_ENCODING.as_str());
        let body = decompressed(response.body_mut().as_reader(), encoding, LARGEST_ANSWER_BYTES);
        if status.is_success() {
            // It was taken, whatever is wrong with the answer's body: sending it again would double it.
            let (rejected, message) = match body {
                Ok(body) => (settings.read_answer)(request.signal, &body),
                Err(error) => (0, format!("the answer cannot be read: {error}")),
            };
            return Ok(Answer::Accepted { rejected, message });
        }
        let said = body.map(|body| (settings.read_refusal)(&body)).unwrap_or_default();
        let why = format!("{}: HTTP {}: {said}", settings.shown_url, status.as_u16());
        if is_http_retryable(status.as_u16()) {
            let after = text(&headers, header::RETRY_AFTER.as_str());
            Ok(Answer::Later { after: after.and_then(|value| parse_retry_after(value, SystemTime::now())), why })
        } else {
            Ok(Answer::Never { why })
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

impl Transport for Http {
    fn send(&mut self, request: &Request) -> Answer {
        self.try_send(request).unwrap_or_else(|answer| answer)
    }
}
