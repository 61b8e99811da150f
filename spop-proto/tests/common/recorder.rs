//! A recorder of the `metrics` facade that can be asked.

#![allow(dead_code, reason = "every test uses its own part")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

/// What was recorded, by name and labels: `name{label=value}`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorded(Arc<Kept>);

#[derive(Debug, Default)]
struct Kept {
    described: Mutex<BTreeMap<String, String>>,
    counters: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    gauges: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    histograms: Mutex<BTreeMap<String, Arc<Values>>>,
}

#[derive(Debug, Default)]
struct Values(Mutex<Vec<(f64, usize)>>);

impl Recorded {
    pub(crate) fn counter(&self, name: &str) -> Option<u64> {
        Some(self.0.counters.lock().unwrap().get(name)?.load(Ordering::Relaxed))
    }

    pub(crate) fn gauge(&self, name: &str) -> Option<f64> {
        Some(f64::from_bits(self.0.gauges.lock().unwrap().get(name)?.load(Ordering::Relaxed)))
    }

    /// Values and how often, in order.
    pub(crate) fn histogram(&self, name: &str) -> Vec<(f64, usize)> {
        let histograms = self.0.histograms.lock().unwrap();
        histograms.get(name).map(|values| values.0.lock().unwrap().clone()).unwrap_or_default()
    }

    /// All names, as they were described.
    pub(crate) fn described(&self) -> Vec<String> {
        self.0.described.lock().unwrap().keys().cloned().collect()
    }
}

impl HistogramFn for Values {
    fn record(&self, value: f64) {
        self.record_many(value, 1);
    }

    fn record_many(&self, value: f64, count: usize) {
        self.0.lock().unwrap().push((value, count));
    }
}

fn text(key: &Key) -> String {
    let labels: Vec<_> =
        key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
    if labels.is_empty() {
        return key.name().to_owned();
    }
    format!("{}{{{}}}", key.name(), labels.join(","))
}

fn one<T: Default>(all: &Mutex<BTreeMap<String, Arc<T>>>, key: &Key) -> Arc<T> {
    Arc::clone(all.lock().unwrap().entry(text(key)).or_default())
}

impl Recorded {
    fn describe(&self, name: &KeyName, help: &SharedString) {
        let mut described = self.0.described.lock().unwrap();
        described.insert(name.as_str().to_owned(), help.to_string());
    }
}

impl Recorder for Recorded {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&name, &help);
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&name, &help);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        assert_eq!(unit, Some(Unit::Seconds));
        self.describe(&name, &help);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(one(&self.0.counters, key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(one(&self.0.gauges, key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(one(&self.0.histograms, key))
    }
}
