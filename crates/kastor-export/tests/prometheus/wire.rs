//! Protobuf, decoded by a reader of the wire format alone.

use std::{collections::BTreeMap, time::Duration};

use kastor::{Telemetry, count, gauge, histogram, scope};
use kastor_export::{Exposition, PrometheusFormat};

use crate::context;

/// The fields of one message: by number, in order.
#[derive(Debug, Default)]
struct Message(BTreeMap<u64, Vec<Field>>);

#[derive(Debug, Clone)]
enum Field {
    Varint(u64),
    Double(f64),
    Bytes(Vec<u8>),
}

impl Message {
    fn read(mut bytes: &[u8]) -> Self {
        let mut message = Self::default();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let field = match key & 7 {
                0 => Field::Varint(varint(&mut bytes)),
                1 => {
                    let (value, rest) = bytes.split_at(8);
                    bytes = rest;
                    Field::Double(f64::from_le_bytes(value.try_into().unwrap()))
                }
                2 => {
                    let length = varint(&mut bytes) as usize;
                    let (value, rest) = bytes.split_at(length);
                    bytes = rest;
                    Field::Bytes(value.to_vec())
                }
                other => panic!("wire type {other}"),
            };
            message.0.entry(key >> 3).or_default().push(field);
        }
        message
    }

    fn all(&self, number: u64) -> &[Field] {
        self.0.get(&number).map_or(&[], Vec::as_slice)
    }

    fn varint(&self, number: u64) -> u64 {
        match self.all(number) {
            [Field::Varint(value)] => *value,
            other => panic!("field {number}: {other:?}"),
        }
    }

    fn double(&self, number: u64) -> f64 {
        match self.all(number) {
            [Field::Double(value)] => *value,
            other => panic!("field {number}: {other:?}"),
        }
    }

    fn text(&self, number: u64) -> String {
        match self.all(number) {
            [] => String::new(),
            [Field::Bytes(value)] => String::from_utf8(value.clone()).unwrap(),
            other => panic!("field {number}: {other:?}"),
        }
    }

    fn messages(&self, number: u64) -> Vec<Message> {
        let bytes = |field: &Field| match field {
            Field::Bytes(bytes) => Message::read(bytes),
            other => panic!("field {number}: {other:?}"),
        };
        self.all(number).iter().map(bytes).collect()
    }

    fn message(&self, number: u64) -> Message {
        let mut all = self.messages(number);
        assert_eq!(all.len(), 1, "field {number}");
        all.remove(0)
    }

    /// Repeated zigzag numbers, not packed.
    fn signed(&self, number: u64) -> Vec<i64> {
        let one = |field: &Field| match field {
            Field::Varint(value) => (value >> 1) as i64 ^ -((value & 1) as i64),
            other => panic!("field {number}: {other:?}"),
        };
        self.all(number).iter().map(one).collect()
    }

    fn labels(&self) -> BTreeMap<String, String> {
        self.messages(1).iter().map(|pair| (pair.text(1), pair.text(2))).collect()
    }

    /// Native buckets: (upper bound, count) of each that is not empty.
    fn native(&self, span: u64, delta: u64) -> Vec<(f64, i64)> {
        let base = 2_f64.powf(1.0 / 8.0);
        assert_eq!(self.signed(5), [3], "the schema");
        let (mut index, mut count, mut found) = (0, 0, Vec::new());
        let mut deltas = self.signed(delta).into_iter();
        for span in self.messages(span) {
            index += span.signed(1)[0];
            for _ in 0..span.varint(2) {
                count += deltas.next().unwrap();
                if count > 0 {
                    found.push((base.powi(index as i32), count));
                }
                index += 1;
            }
        }
        assert_eq!(deltas.next(), None, "one delta per bucket");
        found
    }
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
    }
    panic!("a number too long");
}

/// The families by name.
pub fn families(bytes: &[u8]) -> BTreeMap<String, Family> {
    let mut rest = bytes;
    let mut families = BTreeMap::new();
    while !rest.is_empty() {
        let length = varint(&mut rest) as usize;
        let (message, behind) = rest.split_at(length);
        rest = behind;
        let family = Family(Message::read(message));
        assert!(families.insert(family.0.text(1), family).is_none(), "a name twice");
    }
    families
}

pub struct Family(Message);

fn encoded(tele: &Telemetry) -> BTreeMap<String, Family> {
    let mut out = Vec::new();
    tele.snapshot(|snapshot| Exposition::new(PrometheusFormat::Protobuf).encode(snapshot, &mut out));
    families(&out)
}

#[test]
fn counters_and_gauges_are_what_was_recorded() {
    let (tele, _) = context();
    tele.describe("size", "By", "How large.");
    count!(tele, "requests", 3, code = 200, token = "c4n4ry");
    gauge!(tele, "size", 1.5);
    let families = encoded(&tele);
    let requests = &families["requests_total"].0;
    assert_eq!((requests.varint(3), requests.text(2).as_str()), (0, "The counter requests."));
    let metric = requests.message(4);
    let labels: Vec<_> = metric.labels().into_iter().collect();
    let expected = [("code", "200"), ("token", "[redacted]")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(labels, expected);
    assert_eq!(metric.message(3).double(1), 3.0);
    let size = &families["size_bytes"].0;
    assert_eq!((size.varint(3), size.text(2).as_str(), size.text(5).as_str()), (1, "How large.", "bytes"));
    assert_eq!(size.message(4).message(2).double(1), 1.5);
}

#[test]
fn native_buckets_of_a_histogram_are_the_recorded_ones() {
    let (tele, _) = context();
    let values = [0.0, 1.0, 1.05, 1.5, 2.0, 2.0, 1_000.0, -4.0, -4.1];
    values.iter().for_each(|value| histogram!(tele, "h", *value));
    let families = encoded(&tele);
    let histogram = families["h"].0.message(4).message(7);
    assert_eq!((histogram.varint(1), histogram.varint(7)), (9, 1));
    assert!((histogram.double(2) - values.iter().sum::<f64>()).abs() < 1e-9);
    assert_eq!(histogram.double(6), f64::MIN_POSITIVE);
    let width = 2_f64.powf(1.0 / 8.0);
    for (native, wanted) in
        [(histogram.native(12, 13), vec![1.0, 1.05, 1.5, 2.0, 2.0, 1_000.0]), (histogram.native(9, 10), vec![4.0, 4.1])]
    {
        assert_eq!(native.iter().map(|(_, count)| *count as usize).sum::<usize>(), wanted.len());
        for (bound, count) in native {
            // A hair of tolerance: the reader computes the bounds by itself.
            let inside =
                wanted.iter().filter(|value| **value <= bound * 1.000_001 && **value > bound / width * 1.000_001);
            assert_eq!(inside.count() as i64, count, "up to {bound}");
        }
    }
    let classic: Vec<(f64, u64)> =
        histogram.messages(3).iter().map(|bucket| (bucket.double(2), bucket.varint(1))).collect();
    assert_eq!(classic[..4], [(0.0, 3), (0.5, 3), (1.0, 4), (2.0, 8)]);
    assert_eq!(classic.last(), Some(&(1_024.0, 9)));
}

#[test]
fn scope_durations_are_seconds_with_an_exemplar_within_two_per_cent_of_their_buckets() {
    let (tele, clock) = context();
    clock.set_unix_ns(1_700_000_000_000_000_001);
    let durations: Vec<u64> = (0..500).map(|step| (1_000.0 * 1.05_f64.powi(step)) as u64).collect();
    let mut longest = 0;
    for ns in &durations {
        let job = scope!(tele, "job");
        longest = job.carrier().span_id();
        clock.advance(Duration::from_nanos(*ns));
    }
    let families = encoded(&tele);
    let metric = families["kastor_scope_duration_seconds"].0.message(4);
    assert_eq!(metric.labels().into_iter().collect::<Vec<_>>(), [("scope".to_owned(), "job".to_owned())]);
    let histogram = metric.message(7);
    assert_eq!(histogram.varint(1), 500);
    let total: u64 = durations.iter().sum();
    assert_eq!(histogram.double(2), total as f64 / 1e9);
    let native = histogram.native(12, 13);
    let mut sorted = durations.into_iter();
    for (bound, count) in native {
        for _ in 0..count {
            let seconds = sorted.next().unwrap() as f64 / 1e9;
            // A bucket is 9.05 % wide, and its bounds may be 1.6 % too high.
            assert!(seconds <= bound && seconds > bound / 1.0906 / 1.0157, "{seconds} in the bucket up to {bound}");
        }
    }
    let exemplars: Vec<_> = histogram.messages(3).iter().flat_map(|bucket| bucket.messages(3)).collect();
    assert_eq!(exemplars.len(), 1);
    assert_eq!(exemplars[0].labels()["span_id"], format!("{longest:016x}"));
    let time = exemplars[0].message(3);
    assert!(time.varint(1) >= 1_700_000_000);
}

#[test]
fn protobuf_and_text_have_the_same_families() {
    let (tele, clock) = context();
    {
        let _job = scope!(tele, "job");
        clock.advance(Duration::from_millis(1));
        count!(tele, "a.b", 1);
        count!(tele, "a_b", 2);
        gauge!(tele, "a_b", 3.0);
        histogram!(tele, "h", 3.0);
    }
    let names: Vec<String> = encoded(&tele).into_keys().collect();
    let text = crate::text(&tele, PrometheusFormat::Text);
    let mut of_text: Vec<String> = crate::parser::parse(&text, false).into_iter().map(|family| family.name).collect();
    of_text.sort();
    assert_eq!(names, of_text);
}
