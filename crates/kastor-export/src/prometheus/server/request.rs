//! What a client asks for, and whether it may: from bytes to an answerable request, or to the reason why not.

use std::net::IpAddr;

use super::super::PrometheusFormat;

/// The longest head of a request; a longer one is refused.
pub(super) const MAX_HEAD_BYTES: usize = 8 << 10;
/// The most header lines.
const MAX_HEADERS: usize = 64;

/// Who may ask.
#[derive(Clone, Default)]
pub(super) struct Rules {
    /// Host names in small letters.
    pub(super) hosts: Vec<String>,
    pub(super) token: Option<String>,
}

/// What the bytes so far are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// The beginning of a head.
    Partial,
    /// A whole head, of so many bytes.
    Request(Request, usize),
    /// Nothing that can be read on from.
    Broken(Refusal),
}

/// A well-formed request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) wants: Result<Wanted, Refusal>,
    pub(super) is_head: bool,
    pub(super) keeps_alive: bool,
}

/// What is to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) format: PrometheusFormat,
    pub(super) is_compressed: bool,
}

/// Why a request is not answered with metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Malformed,
    HeadTooLarge,
    TookTooLong,
    HasBody,
    UnknownHost,
    Unauthorized,
    NotFound,
    MethodNotAllowed,
    NoContext,
    NoRoom,
}

/// Reads a head.
pub(super) fn parse(bytes: &[u8], rules: &Rules) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let length = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD_BYTES => length,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD_BYTES => return Parsed::Partial,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Parsed::Broken(Refusal::HeadTooLarge),
        Err(_) => return Parsed::Broken(Refusal::Malformed),
    };
    let fields = Fields(head.headers);
    let is_modern = head.version == Some(1);
    let (Some(method), Some(target)) = (head.method, head.path) else { return Parsed::Broken(Refusal::Malformed) };
    // Two hosts, or none where there has to be one, are an attempt at confusion, and so are bodies: nobody needs them.
    if fields.all("host").count() > 1 || is_modern && fields.first("host").is_none() {
        return Parsed::Broken(Refusal::Malformed);
    }
    if fields.first("transfer-encoding").is_some() || fields.all("content-length").any(|length| length.trim() != "0") {
        return Parsed::Broken(Refusal::HasBody);
    }
    let says = |word: &str| fields.tokens("connection").any(|token| token.eq_ignore_ascii_case(word));
    let keeps_alive = if is_modern { !says("close") } else { says("keep-alive") };
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let wants = if !fields.first("host").is_none_or(|host| is_known(host, rules)) {
        Err(Refusal::UnknownHost)
    } else if !is_authorized(fields.first("authorization"), rules) {
        Err(Refusal::Unauthorized)
    } else if path != "/metrics" {
        Err(Refusal::NotFound)
    } else if !matches!(method, "GET" | "HEAD") {
        Err(Refusal::MethodNotAllowed)
    } else {
        let accept = fields.all("accept").collect::<Vec<_>>().join(",");
        let format = PrometheusFormat::negotiate(&accept);
        Ok(Wanted { format, is_compressed: fields.tokens("accept-encoding").any(is_gzip) })
    };
    Parsed::Request(Request { wants, is_head: method == "HEAD", keeps_alive }, length)
}

/// For the fuzzer: any bytes have an outcome.
pub(crate) fn fuzz(bytes: &[u8]) {
    let rules = Rules { hosts: vec!["metrics.example.org".to_owned()], token: Some("secret".to_owned()) };
    if let Parsed::Request(_, length) = parse(bytes, &rules) {
        debug_assert!((1..=bytes.len()).contains(&length));
    }
}

/// The header fields of a request.
struct Fields<'h>(&'h [httparse::Header<'h>]);

impl<'h> Fields<'h> {
    fn all(&self, name: &'static str) -> impl Iterator<Item = &'h str> + use<'h> {
        let named = self.0.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
        // What is not UTF-8 is no host, token or weight.
        named.map(|header| std::str::from_utf8(header.value).unwrap_or("\u{fffd}"))
    }

    fn first(&self, name: &'static str) -> Option<&'h str> {
        self.all(name).next()
    }

    /// The elements of a list, over all fields of the name.
    fn tokens(&self, name: &'static str) -> impl Iterator<Item = &'h str> + use<'h> {
        self.all(name).flat_map(|value| value.split(',')).map(str::trim)
    }
}

/// Whether this is an address, `localhost`, or an allowed name. A page that has its name point here gets nothing.
fn is_known(host: &str, rules: &Rules) -> bool {
    let host = host.trim().to_ascii_lowercase();
    let (name, port) = match host.strip_prefix('[') {
        Some(bracketed) => match bracketed.split_once(']') {
            Some((address, rest)) => (address, rest.strip_prefix(':').or(rest.is_empty().then_some("0"))),
            None => return false,
        },
        None => host.split_once(':').map_or((host.as_str(), Some("0")), |(name, port)| (name, Some(port))),
    };
    port.is_some_and(|port| port.parse::<u16>().is_ok())
        && (name == "localhost" || name.parse::<IpAddr>().is_ok() || rules.hosts.iter().any(|known| known == name))
}

fn is_authorized(authorization: Option<&str>, rules: &Rules) -> bool {
    let Some(token) = &rules.token else { return true };
    let given = authorization.and_then(|authorization| authorization.split_once(' '));
    let Some((scheme, given)) = given else { return false };
    // Compares all bytes, so that the time says nothing about how many were right.
    let (given, token) = (given.trim().as_bytes(), token.as_bytes());
    let differs = given.iter().zip(token).fold(given.len() ^ token.len(), |sum, (a, b)| sum | usize::from(a ^ b));
    scheme.eq_ignore_ascii_case("bearer") && differs == 0
}

fn is_gzip(coding: &str) -> bool {
    let mut parts = coding.split(';').map(str::trim);
    let is_it = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    is_it && weight.is_none_or(|weight| weight.parse::<f64>().is_ok_and(|weight| weight > 0.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wants(text: &str, rules: &Rules) -> Result<Wanted, Refusal> {
        match parse(text.as_bytes(), rules) {
            Parsed::Request(request, length) => {
                assert_eq!(length, text.len());
                request.wants
            }
            Parsed::Broken(refusal) => Err(refusal),
            Parsed::Partial => panic!("partial"),
        }
    }

    #[test]
    fn hosts_are_addresses_or_allowed_names() {
        let rules = Rules { hosts: vec!["node7.example.org".into()], token: None };
        let answer = |host: &str| wants(&format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n"), &rules);
        for host in
            ["localhost", "LOCALHOST:9464", "127.0.0.1:1", "10.1.2.3", "[::1]", "[::1]:9464", "Node7.Example.org:80"]
        {
            assert!(answer(host).is_ok(), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil:9464",
            "",
            "[::1",
            "[::1]x",
            "localhost:port",
            "localhost:99999",
            "a@localhost",
            "\u{fffd}",
        ] {
            assert_eq!(answer(host), Err(Refusal::UnknownHost), "{host}");
        }
    }

    #[test]
    fn requests_are_judged_one_by_one() {
        let open = Rules::default();
        let guarded = Rules { hosts: Vec::new(), token: Some("sesame".into()) };
        let request = |line: &str, fields: &str| format!("{line} HTTP/1.1\r\nHost: [::1]:80\r\n{fields}\r\n");
        for (line, fields, rules, outcome) in [
            ("GET /metrics", "", &open, None),
            ("HEAD /metrics?x=1", "Content-Length: 0\r\n", &open, None),
            ("GET /", "", &open, Some(Refusal::NotFound)),
            ("GET /metrics/", "", &open, Some(Refusal::NotFound)),
            ("GET http://localhost/metrics", "", &open, Some(Refusal::NotFound)),
            ("POST /metrics", "", &open, Some(Refusal::MethodNotAllowed)),
            ("POST /metrics", "Content-Length: 5\r\n", &open, Some(Refusal::HasBody)),
            ("GET /metrics", "Content-Length: 0\r\nContent-Length: 5\r\n", &open, Some(Refusal::HasBody)),
            ("GET /metrics", "Transfer-Encoding: chunked\r\n", &open, Some(Refusal::HasBody)),
            ("GET /metrics", "Host: localhost\r\n", &open, Some(Refusal::Malformed)),
            ("GET /metrics", "a b: c\r\n", &open, Some(Refusal::Malformed)),
            ("GET /metrics", &"a: b\r\n".repeat(64), &open, Some(Refusal::HeadTooLarge)),
            ("GET /metrics", "", &guarded, Some(Refusal::Unauthorized)),
            ("GET /metrics", "Authorization: Bearer wrong\r\n", &guarded, Some(Refusal::Unauthorized)),
            ("GET /metrics", "Authorization: Bearer sesam\r\n", &guarded, Some(Refusal::Unauthorized)),
            ("GET /metrics", "Authorization: Basic sesame\r\n", &guarded, Some(Refusal::Unauthorized)),
            ("GET /metrics", "authorization: bearer sesame\r\n", &guarded, None),
        ] {
            assert_eq!(wants(&request(line, fields), rules).err(), outcome, "{line} {fields}");
        }
        assert_eq!(parse(b"GET /metrics HTTP/1.1\r\n\r\n", &open), Parsed::Broken(Refusal::Malformed));
        assert!(wants("GET /metrics HTTP/1.0\r\n\r\n", &open).is_ok(), "an old client names no host");
        assert_eq!(parse(b"\x16\x03\x01\x02\x00", &open), Parsed::Broken(Refusal::Malformed));
        assert_eq!(parse(b"GET /metr", &open), Parsed::Partial);
        let long = format!("GET /{}", "x".repeat(MAX_HEAD_BYTES));
        assert_eq!(parse(long.as_bytes(), &open), Parsed::Broken(Refusal::HeadTooLarge));
    }

    #[test]
    fn format_compression_and_connection_follow_the_fields() {
        let read = |fields: &str| {
            let text = format!("GET /metrics HTTP/1.1\r\nHost: [::1]\r\n{fields}\r\n");
            let Parsed::Request(request, _) = parse(text.as_bytes(), &Rules::default()) else { panic!("{text}") };
            (request.wants.unwrap(), request.keeps_alive)
        };
        let (wanted, keeps_alive) = read("");
        assert_eq!(wanted, Wanted { format: PrometheusFormat::Text, is_compressed: false });
        assert!(keeps_alive);
        let (wanted, keeps_alive) =
            read("Accept-Encoding: br, gzip;q=0.5\r\nConnection: x, Close\r\nAccept: application/openmetrics-text\r\n");
        assert_eq!(wanted, Wanted { format: PrometheusFormat::OpenMetrics, is_compressed: true });
        assert!(!keeps_alive);
        assert!(!read("Accept-Encoding: gzip;q=0\r\n").0.is_compressed);
    }

    proptest! {
        #[test]
        fn any_bytes_have_an_outcome(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            fuzz(&bytes);
        }

        #[test]
        fn a_head_is_partial_until_it_is_whole(cut in 0_usize..60) {
            let text = b"GET /metrics HTTP/1.1\r\nHost: localhost:9464\r\nA: b\r\n\r\n";
            let part = &text[..cut.min(text.len())];
            prop_assert_eq!(parse(part, &Rules::default()) == Parsed::Partial, part.len() < text.len());
        }
    }
}
