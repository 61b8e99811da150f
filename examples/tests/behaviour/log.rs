//! What agents log, kept for those who look for it: lines of all trials together, from `info` on.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry;

use crate::PATIENCE;

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// `WARN`.
    pub(crate) level: String,
    /// The crate it is from.
    pub(crate) from: String,
    pub(crate) message: String,
    pub(crate) fields: BTreeMap<&'static str, String>,
}

impl Line {
    /// A field's text; empty where there is none.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// The names of its fields.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.fields.keys().copied().collect()
    }
}

static LINES: Mutex<Vec<Line>> = Mutex::new(Vec::new());
static MORE: Condvar = Condvar::new();

/// From now on lines are kept.
pub(crate) fn keep() {
    let subscriber = registry().with(Keeper.with_filter(LevelFilter::INFO));
    tracing::subscriber::set_global_default(subscriber).unwrap();
}

/// Waits for a line: it may be written after what it is about has been answered.
#[track_caller]
pub(crate) fn line(what: &str, is_it: impl Fn(&Line) -> bool) -> Line {
    line_after(0, what, is_it)
}

/// The same, without looking at the first `count` lines.
#[track_caller]
pub(crate) fn line_after(count: usize, what: &str, is_it: impl Fn(&Line) -> bool) -> Line {
    let end = Instant::now() + PATIENCE;
    let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(line) = lines.iter().skip(count).find(|line| is_it(line)) {
            return line.clone();
        }
        let left = end.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "no line about {what}");
        let waited = MORE.wait_timeout(lines, left);
        lines = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// How many lines there are of that kind so far.
pub(crate) fn count(is_it: impl Fn(&Line) -> bool) -> usize {
    let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    lines.iter().filter(|line| is_it(line)).count()
}

/// Whether that text is in any line so far.
pub(crate) fn tells(text: &str) -> bool {
    let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    lines.iter().any(|line| format!("{line:?}").contains(text))
}

struct Keeper;

impl<S: Subscriber> Layer<S> for Keeper {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let from = metadata.target().split("::").next().unwrap_or_default();
        let mut line = Line {
            level: metadata.level().to_string(),
            from: from.to_owned(),
            message: String::new(),
            fields: BTreeMap::new(),
        };
        event.record(&mut line);
        LINES.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        MORE.notify_all();
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            self.fields.insert(field.name(), text);
        }
    }
}
