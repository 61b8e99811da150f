//! What HAProxy makes of an agent that does what it should not, and that the library does none of it.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::mpsc;
use std::time::Duration;

use spop_tokio::{Agent, Scope};
use tokio::sync::watch;

use crate::bench::{Bench, Failure, ensure, equal, port};
use crate::haproxy::Request;
use crate::raw::{self, Frame, Hello, RawAgent, State, Wire};
use crate::site::{Running, Site, Verdict};
use crate::spy::{FirstOnly, Serving};

use super::Case;

pub(super) const CASES: &[Case] = &[
    Case::new("answer_that_is_late", late).shown(ROW),
    Case::new("answer_larger_than_a_frame", |bench| fault(bench, &OVERSIZED)).shown(ROW),
    Case::new("answer_in_fragments", |bench| fault(bench, &FRAGMENTED)).shown(ROW),
    Case::new("answer_for_an_unknown_stream", |bench| fault(bench, &UNKNOWN_STREAM)).shown(ROW),
    Case::new("answer_for_an_unknown_frame", |bench| fault(bench, &UNKNOWN_FRAME)).shown(ROW),
    Case::new("answer_sent_twice", |bench| fault(bench, &TWICE)).shown(ROW),
    Case::new("disconnect_instead_of_an_answer", |bench| fault(bench, &DISCONNECT)).shown(ROW),
    Case::new("close_instead_of_an_answer", |bench| fault(bench, &CLOSE)).shown(ROW),
    Case::new("close_after_the_answer", |bench| fault(bench, &CLOSE_AFTER)).shown(ROW),
    Case::new("late_answers_of_the_library", late_answers_of_the_library).shown(ROW),
];

const ROW: &str = "faults of an agent end as documented";
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
/// `timeout processing`: several faults end with it.
const PROCESSING: Duration = Duration::from_millis(800);

const SCORE: Verdict = Verdict::Score(7);
const TIMEOUT: Verdict = Verdict::Error(1);
/// The connection ended instead of an answer.
const LOST: Verdict = Verdict::Error(256 + 1);

fn answer(frame: &Frame) -> Vec<u8> {
    raw::ack(frame.ids, &raw::set_number("ip_score", 7))
}

#[track_caller]
fn ask(site: &Running) -> Result<Verdict, Failure> {
    Ok(site.ask(CLIENT, &Request::get("/"))?.verdict())
}

/// What an agent does to the first NOTIFY, and how that may end.
struct Fault {
    commit: fn(&Frame, &Wire) -> io::Result<()>,
    old: &'static [Verdict],
    new: &'static [Verdict],
    /// Whether the connection outlives it: with HAProxy up to 3.0, with later ones.
    survives: (bool, bool),
    /// The status HAProxy up to 3.0 disconnects with. Later ones just reset the connection.
    goodbye: Option<u64>,
}

const OVERSIZED: Fault = Fault {
    commit: |frame, wire| {
        let action = raw::set_string("echo", &[b'x'; 3_000]);
        wire.send(frame.connection, &raw::ack(frame.ids, &action))
    },
    old: &[Verdict::Error(256 + 3)],
    new: &[TIMEOUT],
    survives: (false, false),
    goodbye: Some(3),
};

const FRAGMENTED: Fault = Fault {
    commit: |frame, wire| {
        let action = raw::set_number("ip_score", 7);
        wire.send(frame.connection, &raw::ack_with_flags(frame.ids, 0, &action))
    },
    old: &[Verdict::Error(256)],
    new: &[TIMEOUT],
    survives: (false, false),
    goodbye: Some(10),
};

const UNKNOWN_STREAM: Fault = Fault {
    commit: |frame, wire| {
        let wrong = raw::ack((frame.ids.0 + 1_000, frame.ids.1), &raw::set_number("ip_score", 8));
        wire.send(frame.connection, &[wrong, answer(frame)].concat())
    },
    old: &[SCORE],
    new: &[TIMEOUT],
    survives: (true, false),
    goodbye: None,
};

const UNKNOWN_FRAME: Fault = Fault {
    commit: |frame, wire| {
        let wrong = raw::ack((frame.ids.0, frame.ids.1 + 1), &raw::set_number("ip_score", 8));
        wire.send(frame.connection, &[wrong, answer(frame)].concat())
    },
    old: &[SCORE],
    new: &[TIMEOUT],
    survives: (true, false),
    goodbye: None,
};

const TWICE: Fault = Fault {
    commit: |frame, wire| {
        let again = raw::ack(frame.ids, &raw::set_number("ip_score", 8));
        wire.send(frame.connection, &[answer(frame), again].concat())
    },
    old: &[SCORE],
    // Two in one read are both taken.
    new: &[SCORE, Verdict::Score(8)],
    survives: (true, true),
    goodbye: None,
};

const DISCONNECT: Fault = Fault {
    commit: |frame, wire| wire.send(frame.connection, &raw::disconnect(99)),
    old: &[Verdict::Error(256 + 99)],
    new: &[Verdict::Error(256 + 99), TIMEOUT],
    survives: (false, false),
    goodbye: None,
};

const CLOSE: Fault = Fault {
    commit: |frame, wire| {
        wire.close(frame.connection);
        Ok(())
    },
    old: &[LOST],
    new: &[LOST],
    survives: (false, false),
    goodbye: None,
};

const CLOSE_AFTER: Fault = Fault {
    commit: |frame, wire| {
        wire.send(frame.connection, &answer(frame))?;
        wire.close(frame.connection);
        Ok(())
    },
    old: &[SCORE],
    new: &[SCORE],
    survives: (false, false),
    goodbye: None,
};

/// One request meets the fault, the next ones are answered: on the same connection where that lives,
/// else on a new one.
fn fault(bench: &Bench, fault: &Fault) -> Result<(), Failure> {
    let address = port()?;
    let commit = fault.commit;
    let agent = RawAgent::start(address, Hello::new("pipelining"), move |frame, wire| {
        if wire.seen(|seen| seen.frames.len()) == 1 {
            commit(frame, wire)
        } else {
            wire.send(frame.connection, &answer(frame))
        }
    })?;
    // Far below the buffer's size: what fills that is another matter.
    let site = Site::new(address).option("max-frame-size 2000").global("nbthread 1");
    let site = site.unchecked().processing(PROCESSING).start(bench)?;

    let (allowed, survives, goodbye) = if bench.new_engine() {
        (fault.new, fault.survives.1, None)
    } else {
        (fault.old, fault.survives.0, fault.goodbye)
    };
    let verdict = ask(&site)?;
    ensure(allowed.contains(&verdict), || format!("{verdict:?} is not one of {allowed:?}"))?;
    let mut next = ask(&site)?;
    if !survives && next == LOST {
        // HAProxy had not noticed the end yet.
        next = ask(&site)?;
    }
    equal("the request after the fault", next, SCORE)?;
    equal("one more", ask(&site)?, SCORE)?;
    if survives {
        ensure(agent.wire().seen(|seen| seen.is_open(0)), || "the connection ended".to_owned())?;
    } else {
        let ended = |seen: &State| (!seen.is_open(0)).then_some(());
        agent.wire().wait_for("the end of the connection", ended)?;
    }
    let goodbyes = agent.wire().seen(|seen| seen.goodbyes.clone());
    let want: Vec<_> = goodbye.iter().map(|status| Some(*status)).collect();
    equal("statuses HAProxy disconnected with", goodbyes, want)?;
    if allowed == [TIMEOUT] {
        bench.note("some of them only by timeout processing");
    }
    Ok(())
}

/// The request goes on without the answer, which then is for a stream that is gone: it is ignored,
/// and the connection is good for the next request.
fn late(bench: &Bench) -> Result<(), Failure> {
    let address = port()?;
    let agent = RawAgent::start(address, Hello::new("pipelining"), |frame, wire| {
        if wire.seen(|seen| seen.frames.len()) == 1 {
            return Ok(());
        }
        wire.send(frame.connection, &answer(frame))
    })?;
    let site = Site::new(address).global("nbthread 1").unchecked().processing(PROCESSING);
    let site = site.start(bench)?;
    equal("the request whose answer is late", ask(&site)?, TIMEOUT)?;
    let first = agent.wire().wait_for("the first NOTIFY", |seen| seen.frames.first().cloned())?;
    agent.wire().send(first.connection, &raw::ack(first.ids, &raw::set_number("ip_score", 8)))?;
    for _ in 0..3 {
        equal("the next request", ask(&site)?, SCORE)?;
    }
    let (open, goodbyes) = agent.wire().seen(|seen| (seen.is_open(0), seen.goodbyes.clone()));
    ensure(open, || "the connection ended".to_owned())?;
    equal("statuses HAProxy disconnected with", goodbyes, [])
}

/// Handlers that are slower than `timeout processing`: their answers come late, each with the ids of
/// its own request, and harm nothing: the one connection there is serves all that follows.
fn late_answers_of_the_library(bench: &Bench) -> Result<(), Failure> {
    const SLOW: usize = 2;
    let address = port()?;
    let (release, released) = watch::channel(false);
    let (tell, told) = mpsc::channel();
    let agent = Agent::concurrent(move |mut exchange| {
        let (mut released, tell) = (released.clone(), tell.clone());
        async move {
            let slow: Option<&str> = exchange.require("e2e")?.get("slow")?;
            let slow = slow.is_some();
            let _ = tell.send(slow);
            if slow {
                released.wait_for(|released| *released).await?;
            }
            exchange.set(Scope::Transaction, "ip_score", if slow { 8 } else { 7 })?;
            Ok(exchange)
        }
    });
    let listener = FirstOnly::listen(raw::listen(address)?);
    let agent = Serving::start_on(listener, agent)?;
    let site = Site::new(address).args("slow=req.hdr(x-slow)").global("nbthread 1");
    let site = site.unchecked().processing(PROCESSING).start(bench)?;

    for _ in 0..SLOW {
        let slow = Request::get("/").header("x-slow", "yes");
        equal("a request to a slow handler", site.ask(CLIENT, &slow)?.verdict(), TIMEOUT)?;
        equal("a request beside it", ask(&site)?, SCORE)?;
    }
    release.send(true)?;
    for _ in 0..20 {
        equal("a request after the late answers", ask(&site)?, SCORE)?;
    }
    let asked: Vec<_> = told.try_iter().collect();
    let slow = asked.iter().filter(|slow| **slow).count();
    equal("requests, slow ones", (asked.len(), slow), (2 * SLOW + 20, SLOW))?;
    // Stopped before HAProxy: the connection is still there.
    let report = agent.stop()?;
    equal("connections, open ones", (report.connections, report.drained), (1, 1))?;
    equal("answers", report.stats.answered, (2 * SLOW + 20) as u64)
}
