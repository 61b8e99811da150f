//! What is said at the end.

use std::fmt;
use std::fs;
use std::time::Duration;

use crate::args::Args;
use crate::worker::Tally;

/// Which latencies are told.
const QUANTILES: [(&str, f64); 6] = [
    ("p50", 0.5),
    ("p75", 0.75),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("p99.99", 0.9999),
];
/// Of Linux, wherever it runs.
const TICKS_A_SECOND: u64 = 100;

/// A run, for people and for machines.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    pub(crate) args: &'a Args,
    pub(crate) tally: &'a Tally,
    /// Length of a payload.
    pub(crate) payload: usize,
    /// Processor time of the load itself.
    pub(crate) busy: Option<Duration>,
}

impl Report<'_> {
    /// One JSON object.
    pub(crate) fn json(&self) -> String {
        let Self { args, tally, payload, busy } = self;
        let latencies = &tally.latencies;
        let quantiles =
            QUANTILES.map(|(name, q)| format!("\"{name}\":{}", latencies.value_at_quantile(q)));
        let failed: Vec<_> =
            tally.failed.iter().map(|(code, count)| format!("\"{code}\":{count}")).collect();
        let busy = busy.map_or_else(|| "null".to_owned(), |busy| busy.as_secs_f64().to_string());
        let rate = args.rate.map_or_else(|| "null".to_owned(), |rate| rate.to_string());
        format!(
            "{{\"connections\":{},\"in_flight\":{},\"payload\":{payload},\"rate\":{rate},\
             \"seconds\":{},\"answers\":{},\"measured\":{},\"answers_per_second\":{:.1},\
             \"latency_ns\":{{\"min\":{},\"mean\":{:.1},{},\"max\":{}}},\
             \"wrong\":{},\"failed\":{{{}}},\"lost\":{},\"unasked\":{},\"protocol_errors\":{},\
             \"connections_made\":{},\"load_cpu_seconds\":{busy}}}",
            args.connections,
            args.in_flight,
            tally.time().as_secs_f64(),
            tally.answers,
            latencies.len(),
            self.throughput(),
            latencies.min(),
            latencies.mean(),
            quantiles.join(","),
            latencies.max(),
            tally.wrong,
            failed.join(","),
            tally.lost,
            tally.unasked,
            tally.broken,
            tally.connections,
        )
    }

    /// Answers a second.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a figure to be read, of less than 2^52 answers"
    )]
    fn throughput(&self) -> f64 {
        let seconds = self.tally.time().as_secs_f64();
        if seconds == 0.0 { 0.0 } else { self.tally.latencies.len() as f64 / seconds }
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { args, tally, payload, busy } = self;
        let latencies = &tally.latencies;
        writeln!(
            f,
            "{} connections x {} in flight, payload {payload} bytes",
            args.connections, args.in_flight
        )?;
        writeln!(
            f,
            "{} answers in {:.2} s: {:.0} a second",
            latencies.len(),
            tally.time().as_secs_f64(),
            self.throughput()
        )?;
        match args.rate {
            Some(rate) => writeln!(f, "latency from when asking was due, {rate} a second")?,
            None => writeln!(f, "latency from the question (closed loop)")?,
        }
        let line = |f: &mut fmt::Formatter<'_>, name, nanos: u64| {
            writeln!(f, "  {name:7} {:>12?}", Duration::from_nanos(nanos))
        };
        line(f, "min", latencies.min())?;
        for (name, quantile) in QUANTILES {
            line(f, name, latencies.value_at_quantile(quantile))?;
        }
        line(f, "max", latencies.max())?;
        if let Some(busy) = busy {
            writeln!(f, "the load itself took {busy:?} of processor time")?;
        }
        if args.churn.is_some() {
            writeln!(f, "{} connections made", tally.connections)?;
        }
        for (what, count) in [
            ("wrong answers", tally.wrong),
            ("NOTIFYs without an end", tally.lost),
            ("due but not asked", tally.unasked),
            ("breaches of the protocol", tally.broken),
        ] {
            if count > 0 {
                writeln!(f, "FAULT: {what}: {count}")?;
            }
        }
        for (code, count) in &tally.failed {
            writeln!(f, "FAULT: NOTIFYs failed with {code}: {count}")?;
        }
        if let Some(error) = &tally.first_error {
            writeln!(f, "FAULT: {error}")?;
        }
        if tally.answers == 0 {
            writeln!(f, "FAULT: no answer at all")?;
        }
        Ok(())
    }
}

/// What this process took of the processor so far, where the system tells it as Linux does.
pub(crate) fn processor_time() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name, the second field, stands in parentheses and may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    let ticks = next()? + next()?;
    Some(Duration::from_millis(ticks * 1000 / TICKS_A_SECOND))
}
