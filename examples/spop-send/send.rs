//! The question of the command line, once or several times.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use spop_proto::Endpoint;

use crate::Done;
use crate::answer::Answer;
use crate::args::Args;
use crate::argument;
use crate::ask::{ask, describe};
use crate::link::{Agreed, Link};

/// Answers in a row that are the same.
#[derive(Debug)]
struct Run {
    answer: Answer,
    count: u64,
}

pub(crate) fn send(args: &Args, agent: &Endpoint) -> Result<Done, String> {
    let payload = argument::payload(&args.messages)?;
    let payload = payload.as_bytes().map_err(|error| error.to_string())?;
    let config = args.engine(None).map_err(|error| error.to_string())?;
    let (mut link, agreed) = match Link::open(agent, config, args.timeout) {
        Ok(open) => open,
        Err(failure) => {
            let error = format!("{agent}: {failure}");
            let mut done = Done { exit: failure.exit(), ..done(args, agent, None, &[], &[]) };
            fail(&mut done, error, Some(failure.word()));
            return Ok(done);
        }
    };
    if args.verbose {
        let Agreed { version, max_frame_size, in_use, .. } = &agreed;
        anstream::eprintln!("# SPOP {version}, max-frame-size {max_frame_size}, \"{in_use}\"");
        anstream::eprintln!("# {} bytes: {}", payload.len(), describe(payload));
    }
    let mut runs: Vec<Run> = Vec::new();
    let mut times = Vec::new();
    let mut failed = None;
    for _ in 0..args.repeat.get() {
        let start = Instant::now();
        match ask(&mut link, None, payload, args.timeout).1 {
            Ok(answer) => {
                times.push(start.elapsed());
                match runs.last_mut() {
                    Some(run) if run.answer == answer => run.count += 1,
                    _ => runs.push(Run { answer, count: 1 }),
                }
            }
            Err(unanswered) => {
                failed = Some(unanswered);
                break;
            }
        }
    }
    link.leave();
    times.sort_unstable();
    let mut done = done(args, agent, Some(&agreed), &runs, &times);
    if let Some(unanswered) = failed {
        done.exit = unanswered.exit();
        fail(&mut done, format!("{agent}: {unanswered}"), None);
    }
    if args.verbose
        && let Some((least, median, most)) = spread(&times)
    {
        anstream::eprintln!(
            "# {} answered in {:.2} ms, median {:.2} ms, most {:.2} ms",
            times.len(),
            millis(least),
            millis(median),
            millis(most)
        );
    }
    Ok(done)
}

fn done(
    args: &Args,
    agent: &Endpoint,
    agreed: Option<&Agreed>,
    runs: &[Run],
    times: &[Duration],
) -> Done {
    let prefix = args.prefix.as_deref();
    let mut text = String::new();
    for Run { answer, count } in runs {
        // Writing to a String does not fail.
        let _ = answer.lines(prefix).try_for_each(|line| writeln!(text, "{line}"));
        if answer.is_empty() {
            text.push_str("# no actions\n");
        }
        if args.repeat.get() > 1 {
            let times = if *count == 1 { "time" } else { "times" };
            let _ = writeln!(text, "# answered {count} {times}");
        }
    }
    let answers = runs
        .iter()
        .map(|Run { answer, count }| json!({"count": count, "actions": answer.json(prefix)}));
    let times = spread(times).map(|(least, median, most)| {
        json!({"least": micros(least), "median": micros(median), "most": micros(most)})
    });
    let json = json!({
        "endpoint": agent.to_string(),
        "negotiated": agreed.map(negotiated),
        "answers": answers.collect::<Vec<_>>(),
        "elapsed_us": times,
        "exit": 0,
        "error": null,
    });
    Done { exit: 0, text, error: None, json }
}

fn fail(done: &mut Done, error: String, reason: Option<&str>) {
    if let Value::Object(json) = &mut done.json {
        json.insert("exit".to_owned(), done.exit.into());
        json.insert("error".to_owned(), error.clone().into());
        json.extend(reason.map(|reason| ("reason".to_owned(), reason.into())));
    }
    done.error = Some(error);
}

fn negotiated(agreed: &Agreed) -> Value {
    let list = |text: &str| -> Value {
        text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect()
    };
    json!({
        "version": agreed.version,
        "max_frame_size": agreed.max_frame_size,
        "announced": list(&agreed.announced),
        "in_use": list(agreed.in_use.as_str()),
        "elapsed_us": micros(agreed.took),
    })
}

/// The least, the median and the most of sorted times.
fn spread(times: &[Duration]) -> Option<(Duration, Duration, Duration)> {
    Some((*times.first()?, *times.get(times.len() / 2)?, *times.last()?))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
