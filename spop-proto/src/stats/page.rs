//! The text exposition format of Prometheus, 0.0.4.

use core::fmt;

use super::visit::{Family, Label, Visitor};
use super::{Histogram, Snapshot};

/// A snapshot as that page.
#[derive(Debug)]
pub(super) struct Page<'a>(pub(super) &'a Snapshot);

impl fmt::Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.visit(f)
    }
}

impl Visitor for fmt::Formatter<'_> {
    type Error = fmt::Error;

    fn gauges(&mut self, family: Family, samples: &[(&[Label], u64)]) -> fmt::Result {
        head(self, family, "gauge")?;
        for (labels, value) in samples {
            sample(self, family.name, labels, *value)?;
        }
        Ok(())
    }

    fn counters(
        &mut self,
        family: Family,
        samples: &mut dyn Iterator<Item = (Option<Label>, u64)>,
    ) -> fmt::Result {
        head(self, family, "counter")?;
        for (label, value) in samples {
            sample(self, family.name, label.as_slice(), value)?;
        }
        Ok(())
    }

    fn messages(&mut self, family: Family, samples: &[(Box<str>, u64)]) -> fmt::Result {
        head(self, family, "counter")?;
        for (message, value) in samples {
            sample(self, family.name, &[("message", message)], *value)?;
        }
        Ok(())
    }

    fn histogram(&mut self, Family { name, help }: Family, times: &Histogram) -> fmt::Result {
        head(self, Family { name, help }, "histogram")?;
        for (bound, below) in times.buckets() {
            match bound {
                Some(bound) => {
                    writeln!(self, "{name}_bucket{{le=\"{}\"}} {below}", bound.as_secs_f64())?;
                }
                None => writeln!(self, "{name}_bucket{{le=\"+Inf\"}} {below}")?,
            }
        }
        let sum = times.sum();
        writeln!(self, "{name}_sum {}.{:09}", sum.as_secs(), sum.subsec_nanos())?;
        writeln!(self, "{name}_count {}", times.count())
    }
}

fn head(f: &mut fmt::Formatter<'_>, Family { name, help }: Family, kind: &str) -> fmt::Result {
    writeln!(f, "# HELP {name} {}", Escaped { text: help, quote: false })?;
    writeln!(f, "# TYPE {name} {kind}")
}

fn sample(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    labels: &[(&str, &str)],
    value: u64,
) -> fmt::Result {
    f.write_str(name)?;
    let mut between = '{';
    for (label, value) in labels {
        write!(f, "{between}{label}=\"{}\"", Escaped { text: value, quote: true })?;
        between = ',';
    }
    let end = if labels.is_empty() { "" } else { "}" };
    writeln!(f, "{end} {value}")
}

/// A text of a page: backslashes and ends of lines are escaped, in the value of a label quotes too.
struct Escaped<'a> {
    text: &'a str,
    quote: bool,
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in self.text.split_inclusive(['\\', '\n', '"']) {
            let (rest, escaped) = match piece.as_bytes().last() {
                Some(b'\\') => (1, "\\\\"),
                Some(b'\n') => (1, "\\n"),
                Some(b'"') if self.quote => (1, "\\\""),
                _ => (0, ""),
            };
            f.write_str(piece.get(..piece.len() - rest).unwrap_or_default())?;
            f.write_str(escaped)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped() {
        let escaped = |text, quote| Escaped { text, quote }.to_string();
        assert_eq!(escaped("a\\b\nc\"d", true), "a\\\\b\\nc\\\"d");
        assert_eq!(escaped("a\\b\nc\"d", false), "a\\\\b\\nc\"d");
        assert_eq!(escaped("\"", true), "\\\"");
        assert_eq!(escaped("", true), "");
    }
}
