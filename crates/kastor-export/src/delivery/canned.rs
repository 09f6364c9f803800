//! A connection whose other side has already said everything: any bytes as a server's answer, without a network.

use std::sync::Arc;

use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};

use super::{Answer, Request, Transport as _, http::Http, http::HttpSettings};

/// What becomes of a request that these bytes answer, from the status line on.
pub(crate) fn answer_to(request: &Request, settings: HttpSettings, bytes: &[u8]) -> Answer {
    Http::over(settings, Canned(bytes.into())).send(request)
}

#[derive(Debug)]
struct Canned(Arc<[u8]>);

impl Connector for Canned {
    type Out = Connection;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Connection>, ureq::Error> {
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Connection { said: Arc::clone(&self.0), heard: 0, buffers }))
    }
}

#[derive(Debug)]
struct Connection {
    said: Arc<[u8]>,
    /// How much of it was handed out.
    heard: usize,
    buffers: LazyBuffers,
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, _: usize, _: NextTimeout) -> Result<(), ureq::Error> {
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
        let rest = self.said.get(self.heard..).unwrap_or(&[]);
        let room = self.buffers.input_append_buf();
        let length = rest.len().min(room.len());
        room.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        self.heard += length;
        self.buffers.input_appended(length);
        Ok(length > 0)
    }

    fn is_open(&mut self) -> bool {
        self.heard < self.said.len()
    }
}

#[cfg(test)]
mod tests {
    use std::{borrow::Cow, time::Duration};

    use super::*;
    use crate::delivery::{Compression, Signal, Tls};

    fn settings() -> HttpSettings {
        HttpSettings {
            url: "http://127.0.0.1:4318/v1/traces".into(),
            shown_url: "http://127.0.0.1:4318/v1/traces".into(),
            headers: Vec::new(),
            timeout: Duration::from_secs(10),
            compression: Compression::None,
            content_type: "application/x-protobuf",
            tls: Tls::default(),
            render: |_, body| Ok(Cow::Borrowed(body)),
            read_answer: |_, body| (body.len() as u64, String::new()),
            read_refusal: |body| String::from_utf8_lossy(body).into_owned(),
        }
    }

    fn answered(said: &str) -> Answer {
        let request = Request { signal: Signal::Traces, bytes: vec![1, 2, 3], from: 0, events: 1 };
        answer_to(&request, settings(), said.as_bytes())
    }

    #[test]
    fn an_answer_is_judged_as_if_it_had_come_over_a_network() {
        let taken = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc";
        assert_eq!(answered(taken), Answer::Accepted { rejected: 3, message: String::new() });
        let busy = "HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 4\r\n\r\nbusy";
        let Answer::Later { after, why } = answered(busy) else { panic!("{:?}", answered(busy)) };
        assert_eq!(after, Some(Duration::from_secs(7)));
        assert!(why.ends_with("HTTP 503: busy"), "{why}");
        assert!(matches!(answered("HTTP/1.1 400 Bad\r\ncontent-length: 0\r\n\r\n"), Answer::Never { .. }));
        for no_answer in ["", "HTTP/1.1 200", "\u{0}\u{1}", "SSH-2.0-x\r\n\r\n"] {
            assert!(matches!(answered(no_answer), Answer::Later { after: None, .. }), "{no_answer:?}");
        }
    }
}
