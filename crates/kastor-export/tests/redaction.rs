//! Redaction: planted canaries are found in none of what leaves, and ordinary text passes untouched.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex},
    time::Duration,
};

use kastor::{Batch, Error, Reporter, Telemetry, Value, metric, scope};
use kastor_export::{REDACTED, RecordRedaction, Redaction};
use proptest::prelude::*;

const CANARY: &str = "c4n4ry";

#[test]
fn values_of_secret_keys_are_hidden() {
    let redaction = Redaction::default();
    for key in [
        "password",
        "PASSWORD",
        "db.password",
        "dbPassword",
        "password2",
        "db_passwd",
        "secret",
        "client_secret",
        "token",
        "access_token",
        "accessToken",
        "id-token",
        "api_key",
        "apiKey",
        "API_KEY",
        "apikey",
        "x-api-key",
        "APIKey",
        "authorization",
        "http.request.header.authorization",
        "Proxy-Authorization",
        "cookie",
        "set-cookie",
        "Set_Cookie",
        "private_key",
        "ssl.privateKey",
        "credential",
        "aws.credentials",
        "session",
        "session.id",
        "sessionid",
        "JWT",
        "passphrase",
        "aws_secret_access_key",
        "user/token/0",
        "card_number",
        "a.secret.b",
    ] {
        assert_eq!(redaction.text(key, CANARY), REDACTED, "{key}");
        assert!(redaction.hides_key(key), "{key}");
    }
}

#[test]
fn ordinary_keys_pass_and_so_do_those_that_only_say_how_much() {
    let redaction = Redaction::default();
    for key in [
        "",
        "user",
        "passwordless",
        "tokens",
        "tokenizer",
        "secretary",
        "cookiecutter",
        "key",
        "keyboard",
        "monkey",
        "public_key",
        "gen_ai.token.type",
        "token_count",
        "passwordLength",
        "cookie.name",
        "k8s.secret.name",
        "obsession",
        "api",
        "private",
        "access",
        "token_efficiency",
        "http.route",
        "größe",
    ] {
        assert_eq!(redaction.text(key, "plain"), "plain", "{key}");
    }
}

#[test]
fn keys_can_be_added_and_allowed() {
    let redaction = Redaction::default().key("iban").key("card pan").allow_key("Session.Id");
    assert_eq!(redaction.text("customer.IBAN", CANARY), REDACTED);
    assert_eq!(redaction.text("card.pan.full", CANARY), REDACTED);
    assert_eq!(redaction.text("pan", "fry"), "fry");
    assert_eq!(redaction.text("session_id", "7f3a"), "7f3a");
    assert_eq!(redaction.text("my.session.id", CANARY), REDACTED, "only the whole key is allowed");
    assert_eq!(redaction.text("session_id", "Bearer c4n4ry"), "Bearer [redacted]", "its shape is still looked at");
    assert_eq!(Redaction::none().key("iban").text("iban", "DE02"), "DE02");
    assert_eq!(Redaction::default().text("iban", "DE02"), "DE02");
}

/// A text with a secret, and what is left of it.
const SHAPES: &[(&str, &str)] = &[
    ("https://me:c4n4ry@example.org/a?b=c", "https://[redacted]@example.org/a?b=c"),
    ("postgres://me:c4n4ry/x?y@db:5432/app", "postgres://[redacted]@db:5432/app"),
    ("amqp://me:c4@n4ry@mq", "amqp://[redacted]@mq"),
    ("https://c4n4ry@example.org and ftp://a:c4n4ry@b", "https://[redacted]@example.org and ftp://[redacted]@b"),
    ("Authorization: Bearer c4n4ry", "Authorization: [redacted]"),
    ("sent bearer c4n4ry. Then", "sent bearer [redacted]. Then"),
    ("Basic dTpjNG40cnk=", "Basic [redacted]"),
    ("proxy-authorization: Digest username=x c4n4ry\r\nhost: a", "proxy-authorization: [redacted]\r\nhost: a"),
    ("Cookie: a=b; sid=c4n4ry\nAccept: */*", "Cookie: [redacted]\nAccept: */*"),
    ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjNG40cnkifQ.c4n4ry!", "jwt [redacted]!"),
    ("AKIAC4N4RYC4N4RYC4N4", "[redacted]"),
    ("key AIzaSyc4n4ryc4n4ryc4n4ryc4n4ryc4n4r.", "key [redacted]."),
    ("ghp_c4n4ryc4n4ryc4n4ryc4n4ryc4n4ryc4n4", "[redacted]"),
    ("github_pat_c4n4ryc4n4ryc4n4ry_c4n4ry", "[redacted]"),
    ("glpat-c4n4ryc4n4ryc4n4ry", "[redacted]"),
    ("xoxb-1234567-c4n4ry", "[redacted]"),
    ("https://hooks.slack.com/services/T00/B00/c4n4ry", "https://[redacted]"),
    ("sk_live_c4n4ryc4n4ry,sk_test_c4n4ryc4n4ry", "[redacted],[redacted]"),
    ("sk-ant-api03-c4n4ryc4n4ryc4n4ry", "[redacted]"),
    ("-----BEGIN RSA PRIVATE KEY-----\nc4n4ry\n-----END RSA PRIVATE KEY----- end", "[redacted] end"),
    ("a -----BEGIN PRIVATE KEY-----\nc4n4ry", "a [redacted]"),
    ("/login?user=me&access_token=c4n4ry&x=1", "/login?user=me&access_token=[redacted]&x=1"),
    ("https://s3/x?X-Amz-Signature=c4n4ry&sig=c4n4ry", "https://s3/x?X-Amz-Signature=[redacted]&sig=[redacted]"),
    ("host=db password=c4n4ry dbname=x", "host=db password=[redacted] dbname=x"),
    ("password = 'c4n4 ry' user = 'me'", "password = '[redacted]' user = 'me'"),
    ("AccountName=x;AccountKey=c4n4ry==;End", "AccountName=x;AccountKey=[redacted];End"),
    ("authorization=Bearer c4n4ry&a", "authorization=[redacted]&a"),
    (r#"{"user":"me","password": "c4n4\"ry","n":1}"#, r#"{"user":"me","password": "[redacted]","n":1}"#),
    (r#""{\"token\":\"c4n4ry\",\"n\":1}""#, r#""{\"token\":\"[redacted]\",\"n\":1}""#),
    ("{'secret': 'c4n4ry'}", "{'secret': '[redacted]'}"),
    ("{\"pwd\":c4n4ry}", "{\"pwd\":[redacted]}"),
    ("password: c4n4ry", "password: [redacted]"),
    ("grüße https://ü:c4n4ry@exämple.org/ß", "grüße https://[redacted]@exämple.org/ß"),
];

#[test]
fn secrets_are_found_by_their_shape_and_the_rest_of_the_text_stays() {
    let redaction = Redaction::default();
    for (text, left) in SHAPES {
        assert_eq!(redaction.text("message", text), *left);
        assert_eq!(redaction.text("message", left), *left, "what was redacted stays as it is");
    }
}

#[test]
fn ordinary_texts_are_borrowed() {
    let redaction = Redaction::default();
    for text in [
        "",
        "plain",
        "https://example.org/a@b",
        "https://example.org:8080/@scope/package",
        "http://localhost:80",
        "see Basic usage",
        "Bearer authentication failed",
        "the basic.",
        "bearer",
        "unexpected token: }",
        "a == b",
        "session: not found",
        "rows=3&limit=5",
        "eyJ",
        "sk-learn-pipelines-and-more",
        "-----BEGIN CERTIFICATE-----",
        "hf_short",
        "key=value",
        "x:=y",
        "std::token::Token",
        "12:30:00",
        "a=b==c",
        "----",
        "=:=:=:",
        "://",
        "://@",
        "token=",
        "token==x",
        "{\"token\":\"\"}",
        "username@example.org",
    ] {
        assert!(matches!(redaction.text("message", text), Cow::Borrowed(same) if same == text), "{text}");
    }
}

#[test]
fn a_replacement_is_there_exactly_if_something_was_secret() {
    let redaction = Redaction::default();
    let replacement = |key, value: Value<'_>| redaction.replacement(key, &value).map(Cow::into_owned);
    assert_eq!(replacement("pin_password", 1234.into()).as_deref(), Some(REDACTED));
    assert_eq!(replacement("password", Value::Bytes(&[0xff])).as_deref(), Some(REDACTED));
    assert_eq!(replacement("password", true.into()), None);
    assert_eq!(replacement("password", Value::Null), None);
    assert_eq!(replacement("n", 1234.into()), None);
    assert_eq!(replacement("url", "ftp://a:b@c".into()).as_deref(), Some("ftp://[redacted]@c"));
    assert_eq!(replacement("url", Value::Bytes(b"ftp://a:b@c")).as_deref(), Some("ftp://[redacted]@c"));
    assert_eq!(replacement("url", Value::Debug(&"ftp://a:b@c")).as_deref(), Some("\"ftp://[redacted]@c\""));
    assert_eq!(replacement("url", Value::Bytes(&[0xff])), None);
    assert_eq!(Redaction::none().replacement("password", &"x".into()), None);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_taken_and_nothing_is_in_the_result_but_marks_and_parts_of_it(
        text in "(\\PC|://|@|eyJ|Bearer |password=|\"token\":\"|-----BEGIN PRIVATE KEY|[:=&\"'\\\\ ]){0,40}",
    ) {
        let safe = Redaction::default().free_text(&text).into_owned();
        let mut rest = text.as_str();
        for part in safe.split(REDACTED) {
            let at = rest.find(part);
            prop_assert!(at.is_some(), "{} is not in order in {}", part, text);
            rest = &rest[at.unwrap() + part.len()..];
        }
    }

    #[test]
    fn a_planted_secret_is_found_whatever_stands_around_it(before in "[ -~]{0,30}", after in "[ -~]{0,30}") {
        let text = format!("{before} https://me:{CANARY}@host {after}");
        prop_assert!(!Redaction::default().free_text(&text).contains(CANARY), "{}", text);
    }
}

/// Keeps redacted copies of the records it gets, as a capture does.
#[derive(Clone, Default)]
struct Copies(Arc<Mutex<Vec<Vec<u8>>>>);

impl Reporter for Copies {
    fn record_batch(&self, batch: &Batch<'_>) -> Result<(), Error> {
        let mut copy = batch.record_bytes().to_vec();
        RecordRedaction::new(Redaction::default()).redact(batch, &mut copy);
        self.0.lock().unwrap().push(copy);
        Ok(())
    }
    fn prefers_batches(&self) -> bool {
        true
    }
}

/// The items of one record, by an own reading of `docs/format.md`: (tag, payload), fillers left out.
fn items(words: &[u64]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let (tag, bytes) = ((words[at] >> 32) as u8, (words[at] >> 40) as usize);
        let payload = &words[at + 1..at + 1 + bytes.div_ceil(8)];
        at += 1 + payload.len();
        match tag {
            17 => found.extend(items(&payload[1..])),
            20 => assert!(payload.iter().all(|word| *word == 0), "a filler holds nothing"),
            _ => found.push((tag, payload.iter().flat_map(|word| word.to_le_bytes()).take(bytes).collect())),
        }
    }
    assert_eq!(at, words.len());
    found
}

#[test]
fn record_bytes_keep_their_lengths_and_lose_their_secrets() {
    let copies = Copies::default();
    let tele = Telemetry::builder().reporter(copies.clone()).build();
    {
        let request = scope!(tele, "request", password = "c4n4ry", note = "kept", pin_token = 17_u64);
        request.set("url", "https://me:c4n4ry@host/path");
        request.set("tiny", "ftp://u@h");
        request.set("cookie", "a-very-long-c4n4ry-that-takes-many-words-of-the-record");
        request.set("ok", 5);
        request.event_with("retry", &[("token", "c4n4ry".into()), ("n", 3.into())]);
        request.fail("Bearer c4n4ry");
        metric!(tele, "password", "c4n4ry");
        metric!(tele, "plain", "kept");
        metric!(tele, "password", 5);
    }
    assert!(tele.flush(Duration::from_secs(10)).is_complete());
    let copies = copies.0.lock().unwrap();
    let bytes = copies.concat();
    assert!(!bytes.windows(6).any(|window| window == CANARY.as_bytes()));
    let words: Vec<u64> = bytes.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
    let mut records = Vec::new();
    let mut rest = &words[..];
    while let Some(head) = rest.first() {
        let (record, behind) = rest.split_at((head >> 48) as usize);
        let texts = items(&record[4..]).into_iter().filter(|(tag, _)| [6, 7, 16].contains(tag));
        records.push(texts.map(|(_, text)| String::from_utf8(text).unwrap()).collect::<Vec<_>>());
        rest = behind;
    }
    let expected = [
        "redacted",
        "kept",
        "redacted",
        "https://[redacted]@host/path",
        "ftp://*@h",
        "[redacted]",
        "redacted",
        "Bearer *",
    ];
    assert_eq!(records, [vec!["redacted"], vec!["kept"], vec![], expected.to_vec()]);
}

#[test]
fn no_planted_secret_is_in_a_trace_for_perfetto_or_chrome_unless_that_is_asked_for() {
    use kastor::{Telemetry, scope};
    use kastor_export::{chrome, perfetto};
    let folder = tempfile::tempdir().unwrap();
    let canaries_in = |redaction: Redaction, name: &str| {
        let paths = ["perfetto", "chrome"].map(|kind| folder.path().join(format!("{name}.{kind}")));
        let tele = Telemetry::builder()
            .reporter(
                perfetto::Perfetto::create(&paths[0], perfetto::Config::default().redaction(redaction.clone()))
                    .unwrap(),
            )
            .reporter(chrome::Chrome::create(&paths[1], chrome::Config::default().redaction(redaction)).unwrap())
            .build();
        {
            let scope =
                scope!(tele, "login", password = "canary-1", url = "https://me:canary-2@host/", plain = "shown");
            scope.event_with("sent", &[("authorization", "Bearer canary-3".into())]);
            scope.fail("token=canary-4");
        }
        tele.counter("logins", &[("api_key", "canary-5".into())]).add(1);
        tele.metric("note", "see https://me:canary-6@host/", &[]);
        assert!(tele.flush(std::time::Duration::from_secs(20)).is_complete());
        paths.map(|path| {
            let bytes = std::fs::read(path).unwrap();
            let has = |text: String| bytes.windows(text.len()).any(|window| window == text.as_bytes());
            assert!(has("shown".into()));
            (1..=6).filter(|number| has(format!("canary-{number}"))).collect::<Vec<i32>>()
        })
    };
    assert_eq!(canaries_in(Redaction::default(), "shut"), [Vec::<i32>::new(), Vec::new()]);
    assert_eq!(canaries_in(Redaction::none(), "open"), [vec![1, 2, 3, 4, 5, 6], vec![1, 2, 3, 4, 5, 6]]);
}
