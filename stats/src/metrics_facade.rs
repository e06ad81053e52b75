//! The metrics of [`metrics::all`](crate::metrics::all()) through the facade of the crate [`metrics`](::metrics), to whatever recorder the program
//! has installed.
//!
//! ```
//! freestone_stats::metrics_facade::describe();
//! // Now and then: every few seconds, or before each scrape.
//! freestone_stats::metrics_facade::record();
//! ```
//!
//! The facade takes histograms value by value and has no place for counts that somebody else has summed up, so each comes as the series that Prometheus
//! would make of it: counters `…_bucket` with a label `le`, cumulative, and `…_count`, and a gauge `…_sum`. `histogram_quantile` works on them.

use std::borrow::Cow;

use ::metrics::{Label, SharedString, Unit};

use crate::metrics::{self, Kind, Metric, Reading, Sample, Value};

/// Tells the recorder what each metric is. Once, after it was installed.
pub fn describe() {
    for metric in metrics::all() {
        let unit = match metric.unit {
            metrics::Unit::Bytes => Unit::Bytes,
            metrics::Unit::Seconds => Unit::Seconds,
            metrics::Unit::None => Unit::Count,
        };
        match metric.kind {
            Kind::Counter => ::metrics::describe_counter!(metric.name, unit, metric.help),
            Kind::Gauge | Kind::Info => ::metrics::describe_gauge!(metric.name, unit, metric.help),
            Kind::Histogram => {
                ::metrics::describe_counter!(series(metric, "bucket"), Unit::Count, metric.help);
                ::metrics::describe_counter!(series(metric, "count"), Unit::Count, metric.help);
                ::metrics::describe_gauge!(series(metric, "sum"), unit, metric.help);
            }
        }
    }
}

/// Sets all metrics to what they are now.
pub fn record() {
    record_reading(&Reading::now());
}

/// Sets all metrics to what a reading says.
pub fn record_reading(reading: &Reading) {
    for metric in metrics::all() {
        for sample in metric.samples(reading) {
            let labels = labels(&sample);
            match sample.value {
                Value::Count(count) if metric.kind == Kind::Counter => ::metrics::counter!(metric.name, labels).absolute(count),
                Value::Count(count) => ::metrics::gauge!(metric.name, labels).set(count as f64),
                Value::Amount(amount) => ::metrics::gauge!(metric.name, labels).set(amount as f64),
                Value::Seconds(seconds) => ::metrics::gauge!(metric.name, labels).set(seconds),
                Value::Histogram(histogram) => {
                    let mut cumulative = 0_u64;
                    for (end, count) in histogram.buckets {
                        cumulative = cumulative.saturating_add(count);
                        let end = if end.is_infinite() { "+Inf".to_owned() } else { end.to_string() };
                        let labels: Vec<Label> = labels.iter().cloned().chain([Label::new("le", end)]).collect();
                        ::metrics::counter!(series(metric, "bucket"), labels).absolute(cumulative);
                    }
                    ::metrics::counter!(series(metric, "count"), labels.clone()).absolute(histogram.count);
                    ::metrics::gauge!(series(metric, "sum"), labels).set(histogram.sum);
                }
            }
        }
    }
}

fn series(metric: &Metric, suffix: &str) -> SharedString {
    format!("{}_{suffix}", metric.name).into()
}

fn labels(sample: &Sample) -> Vec<Label> {
    let shared = |value: &Cow<'static, str>| match value {
        Cow::Borrowed(value) => SharedString::const_str(value),
        Cow::Owned(value) => SharedString::from_owned(value.clone()),
    };
    sample.labels.iter().map(|(key, value)| Label::new(*key, shared(value))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    use super::*;

    #[test]
    fn a_recorder_is_told_what_the_reading_says() {
        let mut snapshot = crate::snapshot();
        (snapshot.heap.allocations, snapshot.heap.events.purges) = (12, 3);
        snapshot.heap.classes[0].allocations = 5;
        snapshot.heap.bytes.dirty = 4096;
        let reading = Reading::of(snapshot);
        let recorder = DebuggingRecorder::new();
        let told = recorder.snapshotter();
        ::metrics::with_local_recorder(&recorder, || {
            describe();
            record_reading(&reading);
            // Again: absolute values do not add up.
            record_reading(&reading);
        });
        let mut values = BTreeMap::new();
        let mut undescribed = BTreeSet::new();
        for (key, _, description, value) in told.snapshot().into_vec() {
            let (name, labels) = key.key().clone().into_parts();
            let labels: Vec<String> = labels.iter().map(|label| format!("{}={}", label.key(), label.value())).collect();
            if description.is_none() {
                undescribed.insert(name.as_str().to_owned());
            }
            values.insert(format!("{} {}", name.as_str(), labels.join(",")), value);
        }
        assert_eq!(undescribed, BTreeSet::new());
        assert_eq!(values["freestone_allocations_total "], DebugValue::Counter(12));
        assert_eq!(values["freestone_os_calls_total call=purge"], DebugValue::Counter(3));
        assert_eq!(values["freestone_memory_bytes class=dirty"], DebugValue::Gauge(4096.0.into()));
        assert_eq!(values["freestone_allocation_size_bytes_bucket le=8"], DebugValue::Counter(5));
        assert_eq!(values["freestone_allocation_size_bytes_bucket le=+Inf"], DebugValue::Counter(5), "they are cumulative");
        assert_eq!(values["freestone_allocation_size_bytes_count "], DebugValue::Counter(5));
        assert!(matches!(values["freestone_allocation_size_bytes_sum "], DebugValue::Gauge(_)));
    }
}
