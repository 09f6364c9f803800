//! Metric families: what a snapshot is to Prometheus, whatever the format.
//!
//! A metric of the program becomes a family of its own name and instrument; the path of the scope around it becomes the
//! label `scope`. What would collide is told apart or added up, never lost: two metrics whose names become the same get
//! different ones, two labels of one family likewise, and series whose labels become the same are merged (counters,
//! histograms) or get the label `kastor_duplicate` (gauges).

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

use kastor::{Exemplar, Histogram, MetricType, Number, SeriesAggregate, Snapshot, Value};

use super::name::{fingerprint, sanitised, unit, with_suffix};
use crate::{neutral::neutral, redact::Redaction};

/// The label that tells apart gauges whose other labels became the same.
const DUPLICATE: &str = "kastor_duplicate";

/// Nanoseconds of a second.
pub(super) const NS: f64 = 1e9;

/// All samples of one name.
pub(super) struct Family<'a> {
    /// Without `_total`.
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) help: Cow<'a, str>,
    /// The end of the name, if that is a unit.
    pub(super) unit: String,
    pub(super) samples: Vec<Sample<'a>>,
}

/// What a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    /// The word of the text formats.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }

    /// Names that a family of this kind takes, as ends of its own.
    fn suffixes(self) -> &'static [&'static str] {
        match self {
            Kind::Counter => &["", "_total", "_created"],
            Kind::Gauge => &[""],
            Kind::Histogram => &["", "_bucket", "_count", "_sum", "_created"],
        }
    }
}

/// One set of labels with its value.
pub(super) struct Sample<'a> {
    /// Sorted by name.
    pub(super) labels: Labels<'a>,
    pub(super) value: SampleValue<'a>,
}

/// Names and values; neither is escaped, both are neutral.
pub(super) type Labels<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// The value of a sample.
pub(super) enum SampleValue<'a> {
    Number(Number),
    /// A number of nanoseconds, to be written as seconds.
    Seconds(u64),
    /// Boxed: most samples are numbers, and many are moved about.
    Distribution(Box<Distribution<'a>>),
}

/// A histogram, and what is to be known of it besides.
pub(super) struct Distribution<'a> {
    pub(super) histogram: Cow<'a, Histogram>,
    pub(super) count: u64,
    /// Whether the values are nanoseconds, to be written as seconds.
    pub(super) is_duration: bool,
    /// The sum of durations, exactly.
    pub(super) total_ns: u64,
    pub(super) exemplar: Option<Exemplar>,
}

impl Distribution<'_> {
    /// The sum in the unit that is written.
    pub(super) fn sum(&self) -> f64 {
        if self.is_duration { self.total_ns as f64 / NS } else { self.histogram.sum() }
    }

    /// Cumulative counts at powers of two, from the one below the smallest positive value to the first that is not below
    /// the largest: (upper bound as it is written, whether the exemplar belongs here, count).
    ///
    /// What is not above zero has one bucket of its own.
    pub(super) fn octaves(&self) -> impl Iterator<Item = (f64, bool, u64)> + '_ {
        const PER_OCTAVE: i32 = 1 << Histogram::SCALE;
        let positive = self.histogram.positive();
        let below: u64 = self.histogram.zeros() + self.histogram.negative().counts().iter().sum::<u64>();
        let occupied = |count: &u64| *count > 0;
        let first = positive.counts().iter().position(occupied);
        let last = positive.counts().iter().rposition(occupied);
        let octave = |at: usize| (positive.offset().saturating_add(at as i32)).div_euclid(PER_OCTAVE);
        // Of octave k, the upper bound is 2^(k + 1).
        let range = match (first, last) {
            (Some(first), Some(last)) => octave(first) - 1..octave(last) + 1,
            _ => 0..0,
        };
        let mut cumulative = below;
        let mut counts = positive.counts().iter().enumerate().peekable();
        let mut exemplar = self.exemplar.map(|exemplar| exemplar.value);
        let zero = (below > 0).then(|| (0.0, exemplar.take_if(|value| *value <= 0.0).is_some(), below));
        zero.into_iter().chain(range.map(move |k| {
            while let Some((_, count)) = counts.next_if(|(at, _)| octave(*at) <= k) {
                cumulative += count;
            }
            let bound = f64::from(k + 1).exp2();
            let has_exemplar = exemplar.take_if(|value| *value <= bound).is_some();
            (if self.is_duration { bound / NS } else { bound }, has_exemplar, cumulative)
        }))
    }
}

/// Everything that a snapshot holds, kastor's own accounts included, sorted by name.
pub(super) fn families<'a>(snapshot: &Snapshot<'a>, redaction: &Redaction) -> Vec<Family<'a>> {
    let mut builder = Builder { families: Vec::new(), names: HashSet::new(), hasher: RandomState::new() };
    builder.scopes(snapshot);
    builder.accounts(snapshot);
    builder.series(snapshot, redaction);
    let mut families = builder.families;
    families.retain(|family| !family.samples.is_empty());
    families.sort_by(|a, b| a.name.cmp(&b.name));
    families
}

struct Builder<'a> {
    families: Vec<Family<'a>>,
    /// Every name that a sample or family has.
    names: HashSet<String>,
    hasher: RandomState,
}

impl<'a> Builder<'a> {
    fn scopes(&mut self, snapshot: &Snapshot<'a>) {
        let scopes = snapshot.scopes();
        let labels = |path: &'static str| vec![(Cow::Borrowed("scope"), neutral(path))];
        let seconds =
            |name, kind, help, samples| Family { unit: "seconds".to_owned(), ..own(name, kind, help, samples) };
        let samples = scopes.iter().map(|scope| Sample {
            labels: labels(scope.path()),
            value: SampleValue::Distribution(Box::new(Distribution {
                histogram: Cow::Borrowed(scope.durations_ns()),
                count: scope.calls(),
                is_duration: true,
                total_ns: whole_ns(scope.total()),
                exemplar: scope.exemplar(),
            })),
        });
        let help = "How long scopes were open, by path.";
        self.add(seconds("kastor_scope_duration_seconds", Kind::Histogram, help, samples.collect()));
        let samples = scopes.iter().map(|scope| Sample {
            labels: labels(scope.path()),
            value: SampleValue::Seconds(whole_ns(scope.self_time())),
        });
        let help = "How long scopes were open, without the scopes inside them.";
        self.add(seconds("kastor_scope_self_seconds", Kind::Counter, help, samples.collect()));
        let samples = scopes.iter().map(|scope| count(labels(scope.path()), scope.errors()));
        self.add(own("kastor_scope_errors", Kind::Counter, "Scopes that failed, by path.", samples.collect()));
    }

    fn accounts(&mut self, snapshot: &Snapshot<'a>) {
        let stats = snapshot.stats();
        let one = |value: u64| vec![count(Vec::new(), value)];
        let label = |name: &'static str, value: &'static str| (Cow::Borrowed(name), Cow::Borrowed(value));
        let kinds = [("metric", stats.metrics()), ("scope", stats.timings())];
        let emitted = kinds.map(|(kind, events)| count(vec![label("kind", kind)], events));
        self.add(own("kastor_events_emitted", Kind::Counter, "Events that the program emitted.", emitted.into()));
        let drops = stats.dropped();
        let refused = drops.iter().map(|(reason, events)| count(vec![label("reason", reason.as_str())], events));
        let help = "Events that came too late to be any reporter's business.";
        self.add(own("kastor_events_refused", Kind::Counter, help, refused.collect()));
        let cut = "Values and attributes that were cut or left out for their size or number.";
        self.add(own("kastor_values_cut", Kind::Counter, cut, one(stats.cut_values())));
        let names = "Times that a name or path found no room and shared an overflow entry.";
        self.add(own("kastor_names_overflowed", Kind::Counter, names, one(stats.overflowed_names())));
        let series = "Times that a set of labels found no room and shared an overflow series.";
        self.add(own("kastor_series_overflowed", Kind::Counter, series, one(stats.overflowed_series())));
        let start = vec![Sample { labels: Vec::new(), value: SampleValue::Seconds(snapshot.start_unix_ns()) }];
        let help = "When the aggregates began, in Unix time.";
        self.add(Family { unit: "seconds".to_owned(), ..own("kastor_start_time_seconds", Kind::Gauge, help, start) });

        // Two reporters of one type are told apart by their order.
        let mut seen: HashMap<&str, u32> = HashMap::new();
        let reporters: Vec<_> = stats
            .reporters()
            .iter()
            .map(|reporter| {
                let number = seen.entry(reporter.name()).and_modify(|number| *number += 1).or_insert(1);
                let name =
                    if *number == 1 { reporter.name().to_owned() } else { format!("{}#{number}", reporter.name()) };
                (name, reporter)
            })
            .collect();
        let of = |value: fn(&kastor::ReporterStats) -> u64| {
            let sample = |(name, reporter): &(String, &kastor::ReporterStats)| {
                count(vec![(Cow::Borrowed("reporter"), Cow::Owned(name.clone()))], value(reporter))
            };
            reporters.iter().map(sample).collect()
        };
        let delivered = of(|reporter| reporter.delivered());
        self.add(own("kastor_events_delivered", Kind::Counter, "Events that a reporter accepted.", delivered));
        let queued = of(|reporter| reporter.queued());
        self.add(own("kastor_events_queued", Kind::Gauge, "Events that wait for a reporter in memory.", queued));
        let spooled = of(|reporter| reporter.spooled());
        self.add(own("kastor_events_spooled", Kind::Gauge, "Events that a reporter keeps on disk.", spooled));
        let failures = of(|reporter| reporter.failures());
        self.add(own("kastor_reporter_failures", Kind::Counter, "Calls of a reporter that failed.", failures));
        let suspended = of(|reporter| u64::from(reporter.is_suspended()));
        let help = "Whether a reporter is left out for now (1), after repeated failure.";
        self.add(own("kastor_reporter_suspended", Kind::Gauge, help, suspended));
        let dropped = reporters.iter().flat_map(|(name, reporter)| {
            let drops: Vec<_> = reporter.dropped().iter().collect();
            drops.into_iter().map(move |(reason, events)| {
                count(
                    vec![label("reason", reason.as_str()), (Cow::Borrowed("reporter"), Cow::Owned(name.clone()))],
                    events,
                )
            })
        });
        let help = "Events that a reporter did not get or did not bring on, by reason.";
        self.add(own("kastor_events_dropped", Kind::Counter, help, dropped.collect()));
        let not_finite = snapshot.series().iter().filter(|series| series.values().not_finite() > 0).map(|series| {
            let mut labels = vec![(Cow::Borrowed("metric"), neutral(series.name()))];
            labels.extend(enclosing_scope(series).map(|scope| (Cow::Borrowed("scope"), neutral(scope))));
            count(labels, series.values().not_finite())
        });
        let help = "Values that were NaN or infinite, and so are in no other number.";
        let samples = merged(not_finite.collect(), Kind::Counter, &self.hasher);
        self.add(Family { samples, ..own("kastor_values_not_finite", Kind::Counter, help, Vec::new()) });
    }

    fn series(&mut self, snapshot: &Snapshot<'a>, redaction: &Redaction) {
        let mut by_name: BTreeMap<(&'static str, Kind), Vec<&'a SeriesAggregate>> = BTreeMap::new();
        // Neighbours mostly have different names: they are sorted by path.
        let mut places: HashMap<(*const u8, Kind), Vec<&'a SeriesAggregate>> = HashMap::new();
        for series in snapshot.series() {
            let kind = match series.metric_type() {
                MetricType::Counter if series.is_monotonic() => Kind::Counter,
                MetricType::Histogram => Kind::Histogram,
                _ => Kind::Gauge,
            };
            // Names are interned: the same text is at the same place.
            places.entry((series.name().as_ptr(), kind)).or_default().push(series);
        }
        for ((_, kind), all) in places {
            if let Some(first) = all.first() {
                by_name.entry((first.name(), kind)).or_default().extend(all);
            }
        }
        // Those that keep their name come first.
        let (plain, changed): (Vec<_>, Vec<_>) =
            by_name.into_iter().partition(|((name, _), _)| matches!(sanitised(name), Cow::Borrowed(_)));
        for ((name, kind), all) in plain.into_iter().chain(changed) {
            let (help, text) = all.first().map_or((None, None), |series| (series.help(), series.unit()));
            let unit = unit(text.unwrap_or(""), kind == Kind::Gauge);
            let (final_name, unit) = self.free_name(name, kind, unit);
            let keys = LabelNames::new(&all);
            let samples = all.iter().filter_map(|series| sample(series, &keys, redaction)).collect();
            let help = match help.filter(|help| !help.is_empty()) {
                Some(help) => neutral(help),
                None => Cow::Owned(format!("The {} {}.", kind.as_str(), neutral(name))),
            };
            let samples = merged(samples, kind, &self.hasher);
            self.families.push(Family { name: final_name, kind, help, unit, samples });
        }
    }

    /// A family of kastor's own: its names are taken before any other.
    fn add(&mut self, family: Family<'a>) {
        self.take(&family.name, family.kind);
        self.families.push(family);
    }

    fn take(&mut self, name: &str, kind: Kind) {
        self.names.extend(kind.suffixes().iter().map(|suffix| format!("{name}{suffix}")));
    }

    /// A name that nobody has, and the unit if it ends with that.
    fn free_name(&mut self, original: &str, kind: Kind, unit: String) -> (String, String) {
        let safe = sanitised(original).into_owned();
        let stem = match (kind, safe.strip_suffix("_total")) {
            (Kind::Counter, Some(stem)) if !stem.is_empty() => stem.to_owned(),
            _ => safe,
        };
        let wanted = with_suffix(stem.clone(), &unit);
        let is_free = |name: &str, taken: &HashSet<String>| {
            kind.suffixes().iter().all(|suffix| !taken.contains(&format!("{name}{suffix}")))
        };
        let mut candidates = [
            wanted,
            with_suffix(format!("{stem}_{}", kind.as_str()), &unit),
            with_suffix(format!("{stem}_{}", fingerprint(original)), &unit),
            with_suffix(format!("{stem}_{}_{}", kind.as_str(), fingerprint(original)), &unit),
        ]
        .into_iter();
        let mut name = candidates.next().unwrap_or_default();
        while !is_free(&name, &self.names) {
            name = candidates.next().unwrap_or_else(|| format!("{name}_"));
        }
        self.take(&name, kind);
        let ends_with_it = !unit.is_empty() && name.ends_with(&unit);
        (name, if ends_with_it { unit } else { String::new() })
    }
}

/// What the keys of a family's series are called.
struct LabelNames(HashMap<&'static str, String>);

impl LabelNames {
    /// Keys that are fine as they are need no entry.
    fn new(all: &[&SeriesAggregate]) -> Self {
        let mut odd = BTreeSet::new();
        for series in all {
            odd.extend(series.labels().map(|(key, _)| key).filter(|key| !is_fine(key)));
        }
        let mut names = HashMap::new();
        if !odd.is_empty() {
            let keys = all.iter().flat_map(|series| series.labels().map(|(key, _)| key));
            let mut taken: HashSet<String> = keys.filter(|key| is_fine(key)).map(str::to_owned).collect();
            for key in odd {
                let mut name = sanitised(key).into_owned();
                if is_reserved(&name) {
                    name = format!("label_{}", name.trim_start_matches('_'));
                }
                if taken.contains(&name) {
                    name = format!("{name}_{}", fingerprint(key));
                }
                while !taken.insert(name.clone()) {
                    name.push('_');
                }
                names.insert(key, name);
            }
        }
        Self(names)
    }

    fn of(&self, key: &'static str) -> Cow<'static, str> {
        self.0.get(key).map_or(Cow::Borrowed(key), |name| Cow::Owned(name.clone()))
    }
}

fn is_fine(key: &str) -> bool {
    matches!(sanitised(key), Cow::Borrowed(_)) && !is_reserved(key)
}

/// Names that mean something else: ours, those of histogram buckets and summaries, and those of Prometheus itself.
fn is_reserved(name: &str) -> bool {
    matches!(name, "scope" | DUPLICATE | "le" | "quantile") || name.starts_with("__")
}

fn sample<'a>(series: &'a SeriesAggregate, keys: &LabelNames, redaction: &Redaction) -> Option<Sample<'a>> {
    let mut labels = Labels::with_capacity(series.labels().size_hint().0 + 2);
    labels.extend(enclosing_scope(series).map(|scope| (Cow::Borrowed("scope"), neutral(scope))));
    for (key, value) in series.labels() {
        let text = match redaction.replacement(key, &value) {
            Some(replacement) => neutral_owned(replacement),
            None => match value {
                Value::Str(text) => neutral(text),
                other => neutral_owned(Cow::Owned(other.to_string())),
            },
        };
        // To Prometheus, an empty label is none.
        if !text.is_empty() {
            labels.push((keys.of(key), text));
        }
    }
    labels.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let value = match series.metric_type() {
        MetricType::Histogram => SampleValue::Distribution(Box::new(Distribution {
            histogram: Cow::Borrowed(series.values()),
            count: series.values().count(),
            is_duration: false,
            total_ns: 0,
            exemplar: None,
        })),
        // Nothing finite was ever given to it.
        MetricType::Gauge => SampleValue::Number(Number::Float(series.last()?)),
        _ => SampleValue::Number(series.sum()),
    };
    Some(Sample { labels, value })
}

/// Samples of equal labels made one, or told apart.
fn merged<'a>(samples: Vec<Sample<'a>>, kind: Kind, hasher: &RandomState) -> Vec<Sample<'a>> {
    let mut distinct: Vec<Sample<'a>> = Vec::with_capacity(samples.len());
    let mut places: HashMap<u64, usize> = HashMap::with_capacity(samples.len());
    for mut sample in samples {
        let mut duplicates = 1_u32;
        loop {
            let mut hash = hasher.hash_one(&sample.labels);
            // Different labels of one hash are told apart by the next free one.
            let twin = loop {
                match places.get(&hash).and_then(|place| Some((*place, distinct.get(*place)?))) {
                    Some((place, other)) if other.labels == sample.labels => break Some(place),
                    Some(_) => hash = hash.wrapping_add(1),
                    None => break None,
                }
            };
            let Some(other) = twin.and_then(|place| distinct.get_mut(place)) else {
                places.insert(hash, distinct.len());
                distinct.push(sample);
                break;
            };
            if kind != Kind::Gauge {
                add(&mut other.value, sample.value);
                break;
            }
            // Current values cannot be added up.
            duplicates += 1;
            sample.labels.retain(|(name, _)| name != DUPLICATE);
            sample.labels.push((Cow::Borrowed(DUPLICATE), Cow::Owned(duplicates.to_string())));
            sample.labels.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        }
    }
    distinct
}

fn add<'a>(to: &mut SampleValue<'a>, value: SampleValue<'a>) {
    match (to, value) {
        (SampleValue::Distribution(to), SampleValue::Distribution(value)) => {
            to.histogram.to_mut().merge(&value.histogram);
            to.count = to.count.saturating_add(value.count);
            to.total_ns = to.total_ns.saturating_add(value.total_ns);
        }
        (SampleValue::Number(to), SampleValue::Number(value)) => {
            *to = match (*to, value) {
                (Number::Integer(a), Number::Integer(b)) => Number::Integer(a.saturating_add(b)),
                (a, b) => Number::Float(a.as_f64() + b.as_f64()),
            };
        }
        (SampleValue::Seconds(to), SampleValue::Seconds(value)) => *to = to.saturating_add(value),
        // One family has samples of one sort.
        _ => {}
    }
}

/// A family of kastor's own.
fn own<'a>(name: &str, kind: Kind, help: &'static str, samples: Vec<Sample<'a>>) -> Family<'a> {
    Family { name: name.to_owned(), kind, help: Cow::Borrowed(help), unit: String::new(), samples }
}

fn count(labels: Labels<'_>, value: u64) -> Sample<'_> {
    Sample { labels, value: SampleValue::Number(Number::Integer(i128::from(value))) }
}

/// The path around a metric: its own without its name.
fn enclosing_scope(series: &SeriesAggregate) -> Option<&'static str> {
    let path = series.path();
    match path.strip_suffix(series.name()) {
        Some("") => None,
        Some(before) => Some(before.strip_suffix('.').unwrap_or(before)),
        None => Some(path),
    }
}

fn neutral_owned(text: Cow<'_, str>) -> Cow<'static, str> {
    match neutral(&text) {
        Cow::Owned(safe) => Cow::Owned(safe),
        Cow::Borrowed(_) => Cow::Owned(text.into_owned()),
    }
}

fn whole_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
