//! The metrics of [`metrics::all`](crate::metrics::all()) for Prometheus, and for everything that scrapes like it.
//!
//! Either into the registry of [`prometheus_client`] that a program has anyway:
//!
//! ```
//! let mut registry = prometheus_client::registry::Registry::default();
//! registry.register_collector(Box::new(freestone_stats::openmetrics::Collector));
//! # let mut text = String::new();
//! # prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
//! # assert!(text.contains("\nfreestone_allocations_total "));
//! ```
//!
//! Or as text, to be answered to a scrape: [`text`] in the format of `OpenMetrics`, [`prometheus_text`] in the older one of Prometheus, which `promtool`
//! and many others read. A scraper says which it wants: [`for_accept`] chooses.

use std::borrow::Cow;
use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry;

use crate::metrics::{self, Kind, Metric, Reading, Sample, Value};

/// The content type of [`text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The content type of [`prometheus_text`].
pub const PROMETHEUS_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Adds Freestone's metrics to a registry: reads them at each scrape.
#[derive(Clone, Copy, Debug, Default)]
pub struct Collector;

impl prometheus_client::collector::Collector for Collector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        encode(&Reading::now(), Format::OpenMetrics, &mut encoder)
    }
}

/// All metrics now, in the format of `OpenMetrics` 1.0.
#[must_use]
pub fn text() -> String {
    text_of(&Reading::now())
}

/// All metrics of a reading, in the format of `OpenMetrics` 1.0.
#[must_use]
pub fn text_of(reading: &Reading) -> String {
    written(reading, Format::OpenMetrics)
}

/// All metrics now, in the text format of Prometheus.
#[must_use]
pub fn prometheus_text() -> String {
    prometheus_text_of(&Reading::now())
}

/// All metrics of a reading, in the text format of Prometheus.
#[must_use]
pub fn prometheus_text_of(reading: &Reading) -> String {
    written(reading, Format::Prometheus)
}

/// What to answer to a scrape, by its header `Accept`: a content type and a text. Who does not ask for `OpenMetrics` gets the older format.
#[must_use]
pub fn for_accept(accept: Option<&str>) -> (&'static str, String) {
    if accept.is_some_and(|accept| accept.contains("application/openmetrics-text")) {
        (CONTENT_TYPE, text())
    } else {
        (PROMETHEUS_CONTENT_TYPE, prometheus_text())
    }
}

/// In the older format a metric's comments bear the names of its samples, there are no units, and an info is a gauge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Format {
    OpenMetrics,
    Prometheus,
}

/// What one reading says, for as long as it is written.
#[derive(Debug)]
struct Frozen {
    reading: Reading,
    format: Format,
}

impl prometheus_client::collector::Collector for Frozen {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        encode(&self.reading, self.format, &mut encoder)
    }
}

fn written(reading: &Reading, format: Format) -> String {
    use prometheus_client::encoding::text::{encode_eof, encode_registry};

    let mut registry = registry::Registry::default();
    registry.register_collector(Box::new(Frozen { reading: reading.clone(), format }));
    // About what it comes to.
    let mut text = String::with_capacity(16 << 10);
    let _: fmt::Result = encode_registry(&mut text, &registry);
    if format == Format::OpenMetrics {
        let _: fmt::Result = encode_eof(&mut text);
    }
    text
}

fn encode(reading: &Reading, format: Format, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    for metric in metrics::all() {
        let samples = metric.samples(reading);
        if samples.is_empty() {
            continue;
        }
        let (name, unit, kind) = descriptor(metric, format);
        let mut family = encoder.encode_descriptor(&name, metric.help, unit.as_ref(), kind)?;
        for sample in &samples {
            encode_sample(metric.kind, format, sample, &mut family)?;
        }
    }
    Ok(())
}

/// What stands before the samples of a family. The encoder of `OpenMetrics` puts unit and `_total` behind a name by itself.
fn descriptor(metric: &Metric, format: Format) -> (Cow<'static, str>, Option<registry::Unit>, MetricType) {
    let kind = match metric.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
        Kind::Info => MetricType::Info,
    };
    match (format, metric.kind) {
        (Format::Prometheus, Kind::Info) => (metric.name.into(), None, MetricType::Gauge),
        (Format::Prometheus, _) => (metric.name.into(), None, kind),
        (Format::OpenMetrics, Kind::Info) => (without(metric.name, "info"), None, kind),
        (Format::OpenMetrics, of) => {
            let name = if of == Kind::Counter { without(metric.name, "total") } else { metric.name.into() };
            let unit = match metric.unit {
                metrics::Unit::Bytes => Some(registry::Unit::Bytes),
                metrics::Unit::Seconds => Some(registry::Unit::Seconds),
                metrics::Unit::None => None,
            };
            (without(&name, metric.unit.as_str()), unit, kind)
        }
    }
}

/// A name without its last word, if that is it.
fn without(name: &str, word: &str) -> Cow<'static, str> {
    let rest = name.strip_suffix(word).and_then(|rest| rest.strip_suffix('_'));
    rest.unwrap_or(name).to_owned().into()
}

fn encode_sample(kind: Kind, format: Format, sample: &Sample, family: &mut MetricEncoder<'_>) -> fmt::Result {
    let labels = sample.labels.as_slice();
    if (kind, format) == (Kind::Info, Format::OpenMetrics) {
        return family.encode_info(&labels);
    }
    if labels.is_empty() {
        encode_value(kind, format, &sample.value, family)
    } else {
        encode_value(kind, format, &sample.value, &mut family.encode_family(&labels)?)
    }
}

fn encode_value(kind: Kind, format: Format, value: &Value, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
    match value {
        // In the older format the name is whole already, so nothing is to be put behind it.
        Value::Count(count) if (kind, format) == (Kind::Counter, Format::OpenMetrics) => {
            encoder.encode_counter::<NoLabelSet, _, f64>(count, None)
        }
        Value::Count(count) => encoder.encode_gauge(count),
        Value::Amount(amount) => encoder.encode_gauge(amount),
        Value::Seconds(seconds) => encoder.encode_gauge(seconds),
        Value::Histogram(histogram) => {
            encoder.encode_histogram::<NoLabelSet>(histogram.sum, histogram.count, &histogram.buckets, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_family_of_each_kind_in_both_formats() {
        let mut snapshot = crate::snapshot();
        let heap = &mut snapshot.heap;
        (heap.allocations, heap.limits.hard_limit, heap.events.purges) = (12, Some(5 << 20), 3);
        heap.limits.memory_limit = None;
        let reading = Reading::of(snapshot);
        let (open, older) = (text_of(&reading), prometheus_text_of(&reading));
        for lines in [
            "# TYPE freestone_allocations counter\nfreestone_allocations_total 12\n",
            "# TYPE freestone_allocated_bytes counter\n# UNIT freestone_allocated_bytes bytes\nfreestone_allocated_bytes_total ",
            "# TYPE freestone_hard_limit_bytes gauge\n# UNIT freestone_hard_limit_bytes bytes\nfreestone_hard_limit_bytes 5242880\n",
            "\nfreestone_os_calls_total{call=\"purge\"} 3\n",
            "\nfreestone_allocation_size_bytes_bucket{le=\"+Inf\"} ",
            "# TYPE freestone info\nfreestone_info{version=\"",
        ] {
            assert!(open.contains(lines), "no {lines} in\n{open}");
        }
        assert!(open.ends_with("} 1\n# EOF\n"), "{open}");
        for lines in [
            "# TYPE freestone_allocations_total counter\nfreestone_allocations_total 12\n",
            "# TYPE freestone_hard_limit_bytes gauge\nfreestone_hard_limit_bytes 5242880\n",
            "# TYPE freestone_info gauge\nfreestone_info{version=\"",
        ] {
            assert!(older.contains(lines), "no {lines} in\n{older}");
        }
        assert!(!older.contains("# UNIT") && !older.contains("# EOF"), "{older}");
        assert!(!open.contains("freestone_memory_limit_bytes"), "there is none:\n{open}");
        let samples = |text: &str| text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(samples(&open), samples(&older));
    }

    #[test]
    fn whatever_the_numbers_are_the_text_is_numbers() {
        let text = text_of(&Reading::of(metrics::tests::extreme()));
        assert!(text.contains("\nfreestone_frees_total 18446744073709551615\n"), "{text}");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let value = line.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok());
            assert!(value.is_some_and(f64::is_finite), "{line}");
        }
    }

    #[test]
    fn a_registry_puts_its_prefix_and_labels_to_them() {
        let mut registry = registry::Registry::with_prefix_and_labels("shop", [("zone".into(), "b".into())].into_iter());
        registry.register_collector(Box::new(Collector));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("a String takes it");
        assert!(text.contains("\nshop_freestone_os_calls_total{zone=\"b\",call=\"map\"} "), "{text}");
    }

    #[test]
    fn a_scraper_gets_what_it_accepts() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;q=0.5";
        assert_eq!(for_accept(Some(prometheus)).0, CONTENT_TYPE);
        for accept in [None, Some("*/*"), Some("text/html"), Some("")] {
            let (content_type, text) = for_accept(accept);
            assert_eq!(content_type, PROMETHEUS_CONTENT_TYPE);
            assert!(!text.contains("# EOF"), "{accept:?}");
        }
    }
}
