//! A strict reader of the text exposition format of Prometheus, 0.0.4.

#![allow(dead_code, reason = "every test uses its own part")]

use std::collections::HashSet;

/// A page that was read.
#[derive(Debug)]
pub(crate) struct Exposition {
    families: Vec<Family>,
}

#[derive(Debug)]
struct Family {
    name: String,
    kind: String,
    samples: Vec<Sample>,
}

#[derive(Debug)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: String,
}

impl Exposition {
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let body = text.strip_suffix('\n').ok_or("the last line has no end")?;
        let mut families: Vec<Family> = Vec::new();
        let mut lines = body.split('\n').peekable();
        while let Some(line) = lines.next() {
            let help = line.strip_prefix("# HELP ").ok_or_else(|| format!("not HELP: {line}"))?;
            let (name, help) = help.split_once(' ').ok_or_else(|| format!("no help: {line}"))?;
            unescape(help, false)?;
            let kind = lines.next().unwrap_or_default();
            let kind = kind
                .strip_prefix("# TYPE ")
                .and_then(|rest| rest.strip_prefix(name))
                .and_then(|rest| rest.strip_prefix(' '))
                .ok_or_else(|| format!("not the TYPE of {name}: {kind}"))?;
            if !["gauge", "counter", "histogram"].contains(&kind) {
                return Err(format!("TYPE {kind}"));
            }
            if !is_name(name) || families.iter().any(|family| family.name == name) {
                return Err(format!("a name that is none, or there twice: {name}"));
            }
            if (kind == "counter") != name.ends_with("_total") {
                return Err(format!("{name} is a {kind}"));
            }
            let mut samples = Vec::new();
            while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
                samples.push(sample(line)?);
            }
            let family = Family { name: name.to_owned(), kind: kind.to_owned(), samples };
            family.check()?;
            families.push(family);
        }
        Ok(Self { families })
    }

    /// Names and types.
    pub(crate) fn families(&self) -> impl Iterator<Item = (&str, &str)> {
        self.families.iter().map(|family| (family.name.as_str(), family.kind.as_str()))
    }

    /// The value with exactly those labels.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<&str> {
        let same = |sample: &&Sample| {
            let known = sample.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            sample.name == name && known.eq(labels.iter().copied())
        };
        Some(self.samples().find(same)?.value.as_str())
    }

    /// All values of a label.
    pub(crate) fn labels(&self, name: &str, label: &str) -> impl Iterator<Item = &str> {
        self.samples()
            .filter(move |sample| sample.name == name)
            .flat_map(|sample| &sample.labels)
            .filter(move |(name, _)| name == label)
            .map(|(_, value)| value.as_str())
    }

    /// The bounds of a histogram.
    pub(crate) fn bounds(&self, name: &str) -> impl Iterator<Item = &str> {
        let name = format!("{name}_bucket");
        self.samples()
            .filter(move |sample| sample.name == name)
            .flat_map(|sample| &sample.labels)
            .map(|(_, value)| value.as_str())
    }

    fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.families.iter().flat_map(|family| &family.samples)
    }
}

impl Family {
    fn check(&self) -> Result<(), String> {
        let Self { name, kind, samples } = self;
        let mut seen = HashSet::new();
        for sample in samples {
            if !seen.insert((&sample.name, &sample.labels)) {
                return Err(format!("twice: {sample:?}"));
            }
            let value: f64 = sample.value.parse().map_err(|_| format!("no number: {sample:?}"))?;
            if kind != "gauge" && value < 0.0 {
                return Err(format!("less than nothing: {sample:?}"));
            }
        }
        if kind == "histogram" {
            return self.check_histogram();
        }
        if samples.is_empty() || samples.iter().any(|sample| sample.name != *name) {
            return Err(format!("not all of {name}, or none: {samples:?}"));
        }
        Ok(())
    }

    fn check_histogram(&self) -> Result<(), String> {
        let Self { name, samples, .. } = self;
        let [buckets @ .., sum, count] = samples.as_slice() else {
            return Err(format!("{name} has no sum and count"));
        };
        if sum.name != format!("{name}_sum") || count.name != format!("{name}_count") {
            return Err(format!("{name} ends with {} and {}", sum.name, count.name));
        }
        let mut last = (f64::NEG_INFINITY, 0);
        for bucket in buckets {
            let [(label, bound)] = bucket.labels.as_slice() else {
                return Err(format!("labels of {bucket:?}"));
            };
            let limit = match bound.as_str() {
                "+Inf" => f64::INFINITY,
                number if number.starts_with(|first: char| first.is_ascii_digit()) => {
                    number.parse().map_err(|_| format!("bound of {bucket:?}"))?
                }
                _ => return Err(format!("bound of {bucket:?}")),
            };
            let below = bucket.value.parse().map_err(|_| format!("not counted: {bucket:?}"))?;
            if label != "le" || bucket.name != format!("{name}_bucket") {
                return Err(format!("no bucket: {bucket:?}"));
            }
            if limit <= last.0 || below < last.1 {
                return Err(format!("{bucket:?} after {last:?}"));
            }
            last = (limit, below);
        }
        if last.0 != f64::INFINITY || count.value != last.1.to_string() {
            return Err(format!("{name} ends at {last:?}, and counts {}", count.value));
        }
        Ok(())
    }
}

fn sample(line: &str) -> Result<Sample, String> {
    let bad = || format!("no sample: {line}");
    let end = line.find(['{', ' ']).ok_or_else(bad)?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").ok_or_else(bad)?;
            if !is_name(label) {
                return Err(bad());
            }
            let end = end_of_text(after).ok_or_else(bad)?;
            labels.push((label.to_owned(), unescape(&after[..end], true)?));
            rest = &after[end + 1..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').ok_or_else(bad)?;
    }
    let value = rest.strip_prefix(' ').filter(|value| !value.contains(' ')).ok_or_else(bad)?;
    if !is_name(name) {
        return Err(bad());
    }
    Ok(Sample { name: name.to_owned(), labels, value: value.to_owned() })
}

/// Where the quote is that is not escaped.
fn end_of_text(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let end = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        end
    })
}

fn unescape(text: &str, quotes: bool) -> Result<String, String> {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        out.push(match char {
            '\\' => match chars.next() {
                Some('\\') => '\\',
                Some('n') => '\n',
                Some('"') if quotes => '"',
                _ => return Err(format!("an escape that is none: {text}")),
            },
            other => other,
        });
    }
    Ok(out)
}

fn is_name(name: &str) -> bool {
    let good = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_';
    name.starts_with(|first: char| first.is_ascii_lowercase()) && name.chars().all(good)
}
