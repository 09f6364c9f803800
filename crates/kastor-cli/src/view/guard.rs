//! Who may ask: those who reach this machine under its own name and, for data, have the token.
//!
//! A page of another origin that gets a browser to ask here (DNS rebinding) sends another Host; one that asks across origins
//! has no token. The policy lets the page load nothing but its own script and style.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::answers::refusal;

/// What the page may load and do.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Bytes of a token.
const TOKEN_BYTES: usize = 16;

/// What is asked of every request.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    token: String,
    port: u16,
}

impl Guard {
    /// A guard with a new token, for a server on this port.
    pub(super) fn new(port: u16) -> Result<Self, getrandom::Error> {
        let mut bytes = [0; TOKEN_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self { token: bytes.iter().map(|byte| format!("{byte:02x}")).collect(), port })
    }

    /// The address with the token, for whoever may see everything.
    pub(super) fn address(&self) -> String {
        format!("http://127.0.0.1:{}/#token={}", self.port, self.token)
    }

    fn is_own_host(&self, host: Option<&HeaderValue>) -> bool {
        let Some(host) = host.and_then(|host| host.to_str().ok()) else { return false };
        let (name, port) = match host.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
            Some((name, port)) => (name, port.parse().ok()),
            None => (host, Some(80)),
        };
        port == Some(self.port) && ["127.0.0.1", "localhost", "[::1]"].contains(&name.to_ascii_lowercase().as_str())
    }

    fn has_token(&self, authorization: Option<&HeaderValue>) -> bool {
        let given = authorization.and_then(|value| value.as_bytes().strip_prefix(b"Bearer ")).unwrap_or(b"");
        // As long for a nearly right one as for any other.
        let differing = given.iter().zip(self.token.as_bytes()).fold(0, |bits, (one, other)| bits | (one ^ other));
        given.len() == self.token.len() && differing == 0
    }
}

/// Lets a request through or refuses it; either way the answer has the policy.
pub(super) async fn check(State(guard): State<Guard>, request: Request<Body>, next: Next) -> Response {
    let mut response =
        if request.headers().get_all(HOST).iter().count() != 1 || !guard.is_own_host(request.headers().get(HOST)) {
            refusal(StatusCode::FORBIDDEN, "this address is not the viewer's; open the one that `kastor view` printed")
        } else if request.uri().path().starts_with("/api/") && !guard.has_token(request.headers().get(AUTHORIZATION)) {
            refusal(StatusCode::UNAUTHORIZED, "no token, or a wrong one; open the address that `kastor view` printed")
        } else {
            next.run(request).await
        };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin-allow-popups"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_with_the_right_port_are_its_own() {
        let guard = Guard { token: "t".into(), port: 8080 };
        let is_own = |host: &'static str| guard.is_own_host(Some(&HeaderValue::from_static(host)));
        assert!(["127.0.0.1:8080", "localhost:8080", "LocalHost:8080", "[::1]:8080"].into_iter().all(is_own));
        for host in
            ["", "localhost", "localhost:80", "127.0.0.1:8081", "evil.example:8080", "[::1]", "127.0.0.1.evil:8080"]
        {
            assert!(!is_own(host), "{host}");
        }
        let on_80 = Guard { token: "t".into(), port: 80 };
        assert!(on_80.is_own_host(Some(&HeaderValue::from_static("localhost"))));
        assert!(on_80.is_own_host(Some(&HeaderValue::from_static("[::1]"))));
    }

    #[test]
    fn a_token_is_the_whole_token() {
        let guard = Guard { token: "abcd".into(), port: 1 };
        let has = |value: &'static str| guard.has_token(Some(&HeaderValue::from_static(value)));
        assert!(has("Bearer abcd"));
        assert!(
            ["Bearer abc", "Bearer abcde", "Bearer abce", "abcd", "bearer abcd", ""].into_iter().all(|it| !has(it))
        );
        assert!(!guard.has_token(None));
    }
}
