//! The NOTIFYs of a capture, sent to two agents.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};

use serde_json::{Value, json};
use spop_proto::{Endpoint, EngineConfig, NotifyId, Outcome};

use crate::Done;
use crate::answer::Answer;
use crate::args::{Args, Replay};
use crate::ask::{Unanswered, ask, describe};
use crate::capture::{Capture, Captured, Engine};
use crate::connections;
use crate::link::{Failure, Link};
use crate::network;

/// Exit status of answers that differ.
const DIFFERENT: u8 = 8;

/// What came of a question.
type Asked = Result<Answer, Unanswered>;

/// One of the agents.
struct Side<'a> {
    agent: &'a Endpoint,
    /// A connection for each engine of the capture that has sent something, while it lasts.
    links: HashMap<usize, Link>,
    /// The last event of each stream of each engine.
    streams: HashMap<(usize, u64), (NotifyId, Outcome)>,
    /// How many were asked.
    asked: u64,
}

struct Difference {
    /// Which NOTIFY, from 1.
    number: usize,
    connection: Option<u64>,
    stream_id: u64,
    frame_id: u64,
    messages: String,
    answers: [Asked; 2],
}

#[derive(Default)]
struct Comparison {
    alike: usize,
    unanswered: usize,
    /// Exit status of the first that neither answered.
    unanswered_exit: u8,
    differences: Vec<Difference>,
}

pub(crate) fn replay(args: &Args, task: &Replay<'_>) -> Result<Done, String> {
    let &Replay { file, against, and, .. } = task;
    let shown = file.display();
    let capture = read(task)?;
    for what in &capture.left_out {
        anstream::eprintln!("spop-send: {shown}: {what}");
    }
    // Refused before anything is sent.
    for notify in &capture.notifies {
        config(args, &capture, notify.engine)?;
    }
    let mut sides = [Side::new(against), Side::new(and)];
    let mut comparison = Comparison::default();
    let mut failed = None;
    for (index, notify) in capture.notifies.iter().enumerate() {
        let mut results = Vec::new();
        for side in &mut sides {
            match side.ask(args, &capture, notify) {
                Ok(result) => results.push(result),
                Err(failure) => {
                    failed = Some((side.agent, failure));
                    break;
                }
            }
        }
        let Ok(answers) = <[Asked; 2]>::try_from(results) else { break };
        comparison.add(index + 1, notify, answers);
    }
    for side in sides {
        side.links.into_values().for_each(Link::leave);
    }
    let mut done = comparison.done(args, &capture, against, and);
    if let Some((agent, failure)) = failed {
        done.exit = failure.exit();
        done.error = Some(format!("{agent}: {failure}"));
    }
    if let Value::Object(json) = &mut done.json {
        json.insert("exit".to_owned(), done.exit.into());
        json.insert("error".to_owned(), done.error.clone().into());
        json.insert("capture".to_owned(), shown.to_string().into());
    }
    Ok(done)
}

/// What of the file can be sent again: at least one NOTIFY.
fn read(task: &Replay<'_>) -> Result<Capture, String> {
    let shown = task.file.display();
    let unreadable = |error: io::Error| format!("cannot read {shown}: {error}");
    let mut file = File::open(task.file).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.by_ref().take(4).read_to_end(&mut bytes).map_err(unreadable)?;
    let capture = if network::is_capture(&bytes) {
        connections::read(io::Cursor::new(bytes).chain(file), task.port)
    } else if task.port.is_some() {
        Err("--port is for captures of the network, and this is neither pcap nor pcapng".to_owned())
    } else {
        file.read_to_end(&mut bytes).map_err(unreadable)?;
        Capture::read(&bytes)
    };
    let capture = capture.map_err(|reason| format!("{shown}: {reason}"))?;
    if capture.notifies.is_empty() {
        return Err(format!("{shown}: no NOTIFY in it"));
    }
    Ok(capture)
}

/// HAProxy's side as that engine of the capture has it.
fn config(args: &Args, capture: &Capture, engine: usize) -> Result<EngineConfig, String> {
    let captured = capture.engines.get(engine);
    let captured = captured.map(|engine: &Engine| (engine.dialect(), engine.max_frame_size));
    let config = args.engine(captured).map_err(|error| error.to_string())?;
    // Not the one in the capture: to an agent that HAProxy is connected to, it would be that one.
    let id = format!("00000000-0000-4000-8000-{engine:012x}");
    config.engine_id(id).map_err(|error| error.to_string())
}

impl<'a> Side<'a> {
    fn new(agent: &'a Endpoint) -> Self {
        Self { agent, links: HashMap::new(), streams: HashMap::new(), asked: 0 }
    }

    /// Asks as HAProxy did: the events of a stream one after the other, on a new connection if the
    /// last one of that engine ended.
    fn ask(&mut self, args: &Args, capture: &Capture, notify: &Captured) -> Result<Asked, Failure> {
        let mut link = match self.links.remove(&notify.engine) {
            Some(link) => link,
            None => {
                let config = config(args, capture, notify.engine)
                    .map_err(Failure::Wrong)?
                    .first_stream_id(self.asked);
                Link::open(self.agent, config, args.timeout)?.0
            }
        };
        let stream = (notify.engine, notify.stream_id);
        let previous = match notify.frame_id {
            ..=1 => None,
            _ => self.streams.get(&stream).copied(),
        };
        let (id, result) = ask(&mut link, previous, &notify.payload, args.timeout);
        self.asked += 1;
        if let Some(id) = id {
            let outcome = if result.is_ok() { Outcome::Acked } else { Outcome::Failed };
            self.streams.insert(stream, (id, outcome));
        }
        if link.engine.close_reason().is_none() {
            self.links.insert(notify.engine, link);
        } else {
            link.leave();
        }
        Ok(result)
    }
}

impl Comparison {
    fn add(&mut self, number: usize, notify: &Captured, answers: [Asked; 2]) {
        let same = match &answers {
            [Ok(one), Ok(other)] => one.effect() == other.effect(),
            [Err(unanswered), Err(_)] => {
                self.unanswered += 1;
                if self.unanswered == 1 {
                    self.unanswered_exit = unanswered.exit();
                }
                return;
            }
            _ => false,
        };
        if same {
            self.alike += 1;
            return;
        }
        self.differences.push(Difference {
            number,
            connection: notify.connection,
            stream_id: notify.stream_id,
            frame_id: notify.frame_id,
            messages: describe(&notify.payload),
            answers,
        });
    }

    fn done(&self, args: &Args, capture: &Capture, against: &Endpoint, and: &Endpoint) -> Done {
        let prefix = args.prefix.as_deref();
        let mut text = String::new();
        if !self.differences.is_empty() {
            text = format!("--- {against}\n+++ {and}\n");
        }
        for difference in &self.differences {
            difference.write(prefix, &mut text);
        }
        let (notifies, different) = (capture.notifies.len(), self.differences.len());
        let noun = if notifies == 1 { "NOTIFY" } else { "NOTIFYs" };
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "{notifies} {noun}: {} answered alike, {different} differently, {} by neither",
            self.alike, self.unanswered
        );
        let exit = match (different, self.unanswered) {
            (1.., _) => DIFFERENT,
            (0, _) => self.unanswered_exit,
        };
        let json = json!({
            "against": against.to_string(),
            "and": and.to_string(),
            "notifies": notifies,
            "alike": self.alike,
            "different": different,
            "unanswered": self.unanswered,
            "cut_bytes": capture.cut,
            "left_out": capture.left_out,
            "differences": self.differences.iter().map(|one| one.json(prefix)).collect::<Vec<_>>(),
        });
        Done { exit, text, error: None, json }
    }
}

impl Difference {
    /// As a diff: what only the first agent did, what only the second, and what both.
    fn write(&self, prefix: Option<&str>, text: &mut String) {
        let Self { number, connection, stream_id, frame_id, messages, answers } = self;
        // Writing to a String does not fail.
        let _ = write!(text, "@@ NOTIFY {number}, ");
        if let Some(connection) = connection {
            let _ = write!(text, "connection {connection}, ");
        }
        let _ = writeln!(text, "stream {stream_id}, frame {frame_id}: {messages}");
        let [ours, theirs] = answers.each_ref().map(|answer| lines(answer, prefix));
        // The same actions in another order.
        let reordered = ours.len() == theirs.len() && ours.iter().all(|line| theirs.contains(line));
        for line in &ours {
            let both = !reordered && theirs.contains(line);
            let _ = writeln!(text, "{}{line}", if both { ' ' } else { '-' });
        }
        for line in theirs.iter().filter(|line| reordered || !ours.contains(line)) {
            let _ = writeln!(text, "+{line}");
        }
    }

    fn json(&self, prefix: Option<&str>) -> Value {
        let [against, and] = self.answers.each_ref().map(|answer| match answer {
            Ok(answer) => json!({"actions": answer.json(prefix)}),
            Err(unanswered) => json!({"error": unanswered.to_string(), "exit": unanswered.exit()}),
        });
        json!({
            "notify": self.number,
            "connection": self.connection,
            "stream_id": self.stream_id,
            "frame_id": self.frame_id,
            "messages": self.messages,
            "against": against,
            "and": and,
        })
    }
}

fn lines(answer: &Asked, prefix: Option<&str>) -> Vec<String> {
    match answer {
        Ok(answer) if answer.is_empty() => vec!["# no actions".to_owned()],
        Ok(answer) => answer.lines(prefix).collect(),
        Err(unanswered) => vec![format!("# {unanswered}")],
    }
}
