//! What came out of the collector: each event counted by its number.

use std::{
    collections::HashMap,
    thread,
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::common::v1::any_value::Value;

use super::{
    PATIENCE,
    other_side::server::{Received, Server},
};

/// See the module.
pub(crate) struct Sink {
    server: Server,
    /// Requests that are in `times` already.
    read: usize,
    times: HashMap<u64, u32>,
}

impl Sink {
    pub(crate) fn on(port: u16) -> Self {
        Self { server: Server::on(port), read: 0, times: HashMap::new() }
    }

    /// Events that came at least once.
    pub(crate) fn distinct(&mut self) -> u64 {
        self.catch_up();
        self.times.len() as u64
    }

    /// How often events came that were there already.
    pub(crate) fn again(&self) -> u64 {
        self.times.values().map(|times| u64::from(times - 1)).sum()
    }

    pub(crate) fn has(&self, number: u64) -> bool {
        self.times.contains_key(&number)
    }

    /// Waits until so many different events have come. Returns whether they have.
    pub(crate) fn wait_for(&mut self, events: u64) -> bool {
        let until = Instant::now() + PATIENCE;
        while self.distinct() < events && Instant::now() < until {
            thread::sleep(Duration::from_millis(50));
        }
        self.distinct() >= events
    }

    fn catch_up(&mut self) {
        let new = self.server.received_since(self.read);
        self.read += new.len();
        let requests = new.iter().filter(|received| received.is_taken).filter_map(Received::traces);
        let scopes = requests.flat_map(|request| request.resource_spans).flat_map(|resource| resource.scope_spans);
        for span in scopes.flat_map(|scope| scope.spans) {
            let number = span.attributes.iter().find(|attribute| attribute.key == "number");
            let value = number.and_then(|number| number.value.as_ref()?.value.as_ref());
            let Some(Value::IntValue(number)) = value else { panic!("an event without its number: {span:?}") };
            *self.times.entry(*number as u64).or_default() += 1;
        }
    }
}

/// Bytes of a request as it came, its head included.
pub(crate) fn wire_bytes(request: &Received) -> usize {
    let line = format!("POST {} HTTP/1.1\r\n\r\n", request.path).len();
    let headers: usize = request.headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    line + headers + request.body.len()
}
