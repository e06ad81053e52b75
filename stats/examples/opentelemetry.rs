//! Every metric as an observable instrument of OpenTelemetry: it is asked for when it is exported, and costs nothing in between.
//!
//! Here the exporter keeps what it gets, so that this program can print it; a service has one for OTLP instead.
//!
//! ```text
//! cargo run --example opentelemetry
//!
//! freestone.memory.used {freestone.memory.class=live} 5468524 By
//! freestone.memory.used {freestone.memory.class=slack} 1025316 By
//! freestone.memory.used {freestone.memory.class=thread_cache} 49176 By
//! freestone.memory.allocations 38186 {allocation}
//! ```

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use freestone::Freestone;
use freestone_stats::metrics::{self, Kind, Metric, Reading, Sample, Value};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Meter, MeterProvider};
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData, ResourceMetrics, ScopeMetrics};
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, PeriodicReader, SdkMeterProvider};

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

fn main() {
    let exporter = InMemoryMetricExporter::default();
    let provider = SdkMeterProvider::builder().with_reader(PeriodicReader::builder(exporter.clone()).build()).build();
    observe(&provider.meter("freestone"));

    let words: Vec<String> = (0..20_000).map(|number| number.to_string().repeat(number % 9)).collect();
    if let Err(error) = provider.force_flush() {
        eprintln!("nothing was exported: {error}");
    }
    print(&exporter);
    drop(words);
}

/// Makes an instrument of every metric. Histograms are left out: OpenTelemetry has none that are observed rather than recorded one by one.
fn observe(meter: &Meter) {
    let readings = Arc::new(Readings::default());
    for metric in metrics::all() {
        let readings = Arc::clone(&readings);
        let (name, unit, help) = (metric.otel.name, metric.otel.unit, metric.help);
        match metric.kind {
            Kind::Counter => {
                let counter = meter.u64_observable_counter(name).with_unit(unit).with_description(help);
                counter
                    .with_callback(move |observer| {
                        for sample in metric.samples(&readings.recent()) {
                            if let Value::Count(count) = sample.value {
                                observer.observe(count, &attributes(metric, &sample));
                            }
                        }
                    })
                    .build();
            }
            // States do not add up; amounts do.
            Kind::Gauge | Kind::Info if unit == "1" || unit == "s" => {
                let gauge = meter.f64_observable_gauge(name).with_unit(unit).with_description(help);
                gauge
                    .with_callback(move |observer| {
                        for sample in metric.samples(&readings.recent()) {
                            let value = match sample.value {
                                Value::Count(count) => count as f64,
                                Value::Amount(amount) => amount as f64,
                                Value::Seconds(seconds) => seconds,
                                _ => continue,
                            };
                            observer.observe(value, &attributes(metric, &sample));
                        }
                    })
                    .build();
            }
            Kind::Gauge => {
                let amount = meter.i64_observable_up_down_counter(name).with_unit(unit).with_description(help);
                amount
                    .with_callback(move |observer| {
                        for sample in metric.samples(&readings.recent()) {
                            if let Value::Amount(amount) = sample.value {
                                observer.observe(amount, &attributes(metric, &sample));
                            }
                        }
                    })
                    .build();
            }
            _ => {}
        }
    }
}

/// What the metrics are read from: the same for all that are exported together, so that they fit each other.
#[derive(Default)]
struct Readings {
    last: Mutex<Option<(Instant, Arc<Reading>)>>,
}

impl Readings {
    fn recent(&self) -> Arc<Reading> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, reading)) = last.as_ref()
            && at.elapsed() < Duration::from_millis(100)
        {
            return Arc::clone(reading);
        }
        let reading = Arc::new(Reading::now());
        *last = Some((Instant::now(), Arc::clone(&reading)));
        reading
    }
}

fn attributes(metric: &Metric, sample: &Sample) -> Vec<KeyValue> {
    let values = sample.labels.iter().map(|(_, value)| value.clone());
    metric.otel.attributes.iter().zip(values).map(|(key, value)| KeyValue::new(*key, value)).collect()
}

fn print(exporter: &InMemoryMetricExporter) {
    let exported = exporter.get_finished_metrics().unwrap_or_default();
    for metric in exported.iter().flat_map(ResourceMetrics::scope_metrics).flat_map(ScopeMetrics::metrics) {
        let line = |attributes: String, value: String| {
            println!("{}{attributes} {value} {}", metric.name(), metric.unit());
        };
        match metric.data() {
            AggregatedMetrics::U64(MetricData::Sum(sum)) => {
                sum.data_points().for_each(|point| line(braced(point.attributes()), point.value().to_string()));
            }
            AggregatedMetrics::I64(MetricData::Sum(sum)) => {
                sum.data_points().for_each(|point| line(braced(point.attributes()), point.value().to_string()));
            }
            AggregatedMetrics::F64(MetricData::Gauge(gauge)) => {
                gauge.data_points().for_each(|point| line(braced(point.attributes()), point.value().to_string()));
            }
            _ => {}
        }
    }
}

fn braced<'a>(attributes: impl Iterator<Item = &'a KeyValue>) -> String {
    let attributes: Vec<String> = attributes.map(|attribute| format!("{}={}", attribute.key, attribute.value)).collect();
    if attributes.is_empty() { String::new() } else { format!(" {{{}}}", attributes.join(", ")) }
}
