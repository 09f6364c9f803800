//! TLS: whom the exporter trusts, and how it shows who it is.
#![cfg(feature = "otlp")]

mod other_side;

use std::time::Duration;

use kastor::Telemetry;
use kastor_export::{Otlp, OtlpConfig, Retry};
use other_side::{LONG, server::Server, tls::Authority};

fn told(config: OtlpConfig) -> Telemetry {
    let quick = Retry { initial: Duration::from_millis(5), longest: Duration::from_millis(10), ..Retry::default() };
    Telemetry::builder().reporter(Otlp::new(config.retry(quick).without_metrics()).unwrap()).build()
}

#[test]
fn a_server_is_trusted_by_the_given_roots_and_by_no_others() {
    let authority = Authority::new();
    let server = Server::with_tls(authority.server(&authority.identity("127.0.0.1"), false));
    let tele = told(OtlpConfig::new(server.url()).root_certificates(authority.pem()));
    drop(tele.scope("one"));
    assert!(tele.flush(LONG).is_complete());
    assert_eq!(server.spans().len(), 1);

    let with_other_roots = OtlpConfig::new(server.url()).root_certificates(Authority::new().pem());
    for config in [with_other_roots, OtlpConfig::new(server.url())] {
        let tele = told(config);
        drop(tele.scope("two"));
        assert!(!tele.flush(Duration::from_millis(300)).is_complete());
        assert_eq!((server.spans().len(), tele.stats().reporters()[0].queued()), (1, 1));
    }
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let authority = Authority::new();
    let server = Server::with_tls(authority.server(&authority.identity("example.org"), false));
    let tele = told(OtlpConfig::new(server.url()).root_certificates(authority.pem()));
    drop(tele.scope("one"));
    assert!(!tele.flush(Duration::from_millis(300)).is_complete());
    assert_eq!(server.received().len(), 0);
}

#[test]
fn a_server_that_wants_to_know_its_clients_is_shown_the_certificate() {
    let authority = Authority::new();
    let server = Server::with_tls(authority.server(&authority.identity("127.0.0.1"), true));
    let config = || OtlpConfig::new(server.url()).root_certificates(authority.pem());

    let client = authority.identity("client");
    let tele = told(config().client_certificate(client.chain_pem, client.key_pem));
    drop(tele.scope("known"));
    assert!(tele.flush(LONG).is_complete());

    let tele = told(config());
    drop(tele.scope("unknown"));
    assert!(!tele.flush(Duration::from_millis(300)).is_complete());
    let names: Vec<String> = server.spans().into_iter().map(|span| span.name).collect();
    assert_eq!(names, ["known"]);
}
