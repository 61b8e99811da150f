//! A router: which handler answers, in which order, and what a failure costs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test: a panic is its way to fail"
)]
#![allow(clippy::disallowed_methods, reason = "a first instant to count from")]

use std::future::{pending, poll_fn};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use spop_proto::driver::{Driver, Notice, Pad};
use spop_proto::handler::Mixed;
use spop_proto::testing::{self, Outcome, Question};
use spop_proto::wire::NotifyPayload;
use spop_proto::{
    Action, AgentConfig, AgentConnection, ConfigError, Dialect, EngineConfig, EngineConnection,
    Event, Exchange, HandlerError, Peer, Router, Scope, Service, Value,
};

const TXN: Scope = Scope::Transaction;

fn set(name: &'static str, value: i32) -> Action<'static> {
    Action::set(TXN, name, value)
}

/// Answers `a` and `b` with 1, fails and panics on demand: `a(how=..)`.
fn router() -> Router {
    let route = |name: &'static str| {
        move |message: spop_proto::Message<'_>, ack: &mut spop_proto::Ack<'_>| {
            ack.set(TXN, name, 1)?;
            ack.set(TXN, "last", name)?;
            match message.get::<Option<&str>>("how")? {
                Some("fail") => Err(HandlerError::new(format!("{name} failed"))),
                Some("panic") => panic!("{name} panicked"),
                _ => Ok(()),
            }
        }
    };
    Router::new().on("a", route("a")).on("b", route("b"))
}

fn with_fallbacks() -> Router {
    let router = router().on("c", |message, ack| {
        ack.set(TXN, "c", 1)?;
        message.get::<i32>("number")?;
        Ok(())
    });
    router.fallback([set("c", 100), Action::unset(TXN, "last")]).unwrap()
}

/// The agent's own fallback, so that it can be told from a route's.
fn config() -> AgentConfig {
    AgentConfig::new().fallback([set("agent", -1)]).unwrap()
}

fn ask(question: &Question) -> Question {
    question.clone().config(config())
}

#[test]
fn messages_are_answered_in_their_order() {
    let answer = testing::message("b").message("a").ask(&router());
    assert_eq!(
        answer.to_string(),
        "txn.b = int32 1\ntxn.last = str b\ntxn.a = int32 1\ntxn.last = str a\n"
    );
    assert_eq!(answer.get(TXN, "last"), Some(Value::Str(b"a")));
    let answer = testing::message("a").dialect(Dialect::Old).ask(&router());
    assert_eq!(answer.to_string(), "txn.a = int32 1\ntxn.last = str a\n");
}

#[test]
fn a_second_handler_for_a_name_replaces_the_first() {
    let router = router().on("a", |_, ack| Ok(ack.set(TXN, "new", true)?));
    assert_eq!(testing::message("a").ask(&router).to_string(), "txn.new = bool true\n");
}

#[test]
fn a_fallback_replaces_the_actions_of_its_message_only() {
    let question = ask(&testing::message("a").message("c").message("b"));
    let answer = question.ask(&with_fallbacks());
    assert_eq!(
        answer.to_string(),
        "txn.a = int32 1\ntxn.last = str a\n\
         txn.c = int32 100\ntxn.last unset\n\
         txn.b = int32 1\ntxn.last = str b\n\
         error: message c: argument number is missing; HAProxy sent none. In the spoe-message \
         section: args number=…\n"
    );
}

#[test]
fn a_panic_is_isolated_like_an_error() {
    let router = router().fallback([set("b", 100)]).unwrap();
    let answer = ask(&testing::message("a").message("b").arg("how", "panic")).ask(&router);
    assert_eq!(
        answer.to_string(),
        "txn.a = int32 1\ntxn.last = str a\ntxn.b = int32 100\npanicked: message b: b panicked\n"
    );
}

#[test]
fn without_a_fallback_of_its_own_it_is_the_agents() {
    for (how, outcome) in [
        ("fail", Outcome::Error("a failed".into())),
        ("panic", Outcome::Panicked("a panicked".into())),
    ] {
        // The failure of `c` is isolated, that of `a` is not.
        let question = testing::message("b").message("c").message("a").arg("how", how);
        let answer = ask(&question).ask(&with_fallbacks());
        assert_eq!(answer.actions().collect::<Vec<_>>(), [set("agent", -1)], "{how}");
        assert_eq!(*answer.outcome(), outcome);
    }
}

#[test]
fn an_empty_fallback_isolates_too() {
    let router = router().fallback([]).unwrap();
    let answer = ask(&testing::message("b").arg("how", "fail").message("a")).ask(&router);
    assert_eq!(answer.to_string(), "txn.a = int32 1\ntxn.last = str a\nerror: b failed\n");
}

#[test]
fn a_fallback_that_cannot_be_right_is_refused() {
    assert!(matches!(Router::new().fallback([]), Err(ConfigError::FallbackWithoutRoute)));
    let name = [Action::set(TXN, "a-b", 1)];
    assert!(matches!(router().fallback(name), Err(ConfigError::Name(_))));
    let long = "x".repeat(300);
    let long = [Action::set(TXN, "a", long.as_str())];
    assert!(matches!(router().fallback(long), Err(ConfigError::FallbackTooBig { .. })));
}

#[test]
fn what_does_not_fit_costs_its_message() {
    let big = |_: spop_proto::Message<'_>, ack: &mut spop_proto::Ack<'_>| {
        ack.set(TXN, "small", 1)?;
        Ok(ack.set(TXN, "big", "x".repeat(300).as_str())?)
    };
    let router = router().on("big", big).fallback([set("big", 0)]).unwrap();
    let answer = testing::message("a").message("big").max_frame_size(256).ask(&router);
    assert_eq!(*answer.outcome(), Outcome::TooBig);
    assert_eq!(answer.get(TXN, "a"), Some(Value::Int32(1)));
    assert_eq!(answer.get(TXN, "big"), Some(Value::Int32(0)));
    assert_eq!(answer.get(TXN, "small"), None);
}

#[test]
fn unknown_messages_are_counted_and_told_once_a_name() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&told);
    let router = router().on_unknown(move |name| list.lock().unwrap().push(name.to_owned()));
    let router = Arc::new(router);
    for _ in 0..3 {
        let answer = testing::message("x").message("a").message(b"y\xff").ask(&router);
        assert_eq!(answer.get(TXN, "a"), Some(Value::Int32(1)));
        assert!(answer.is_handled());
    }
    assert_eq!(*told.lock().unwrap(), ["x", "y\\xff"]);
    assert_eq!(router.unknown_messages(), 6);
    // The names are the peer's: there is an end to them.
    for n in 0..100 {
        testing::message(n.to_string()).ask(&router);
    }
    assert_eq!(told.lock().unwrap().len(), 64);
    assert_eq!(router.unknown_messages(), 106);
}

#[test]
fn otherwise_answers_what_has_no_route() {
    let router = router().otherwise(|message, ack| Ok(ack.set(TXN, "other", message.name())?));
    let answer = testing::message("x").message("a").ask(&router);
    assert_eq!(answer.get(TXN, "other"), Some(Value::Bin(b"x")));
    assert_eq!(answer.get(TXN, "a"), Some(Value::Int32(1)));
    assert_eq!(router.unknown_messages(), 0);
}

/// Ready at the second poll.
async fn wait_once() {
    let mut polled = false;
    poll_fn(|context| {
        context.waker().wake_by_ref();
        if std::mem::replace(&mut polled, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// A route `slow` that does what its argument says.
fn mixed() -> Router<Mixed> {
    with_fallbacks().concurrent("slow", |mut x: Exchange| async move {
        assert_eq!(x.messages().count(), 1, "the message alone");
        let how = x.require("slow")?.get::<Option<String>>("how")?;
        x.set(TXN, "slow", 1)?;
        match how.as_deref() {
            Some("wait") => wait_once().await,
            Some("for ever") => pending().await,
            Some("fail") => return Err(HandlerError::new("slow failed")),
            Some("panic") => panic!("slow panicked"),
            Some(other) => x.set(TXN, "said", other)?,
            None => {}
        }
        Ok(x)
    })
}

#[test]
fn routes_that_wait_stand_in_the_order_of_the_messages() {
    let question = testing::message("a")
        .message("slow")
        .arg("how", "wait")
        .message("b")
        .message("slow")
        .arg("how", "twice");
    for dialect in [Dialect::Old, Dialect::New] {
        assert_eq!(
            question.clone().dialect(dialect).ask(&mixed()).to_string(),
            "txn.a = int32 1\ntxn.last = str a\ntxn.slow = int32 1\n\
             txn.b = int32 1\ntxn.last = str b\ntxn.slow = int32 1\ntxn.said = str twice\n"
        );
    }
    let alone = testing::message("slow").arg("how", "wait").ask(&mixed());
    assert_eq!(alone.to_string(), "txn.slow = int32 1\n");
    let none = testing::message("b").ask(&mixed());
    assert_eq!(none.to_string(), "txn.b = int32 1\ntxn.last = str b\n");
}

/// As many as a frame holds: looking for each from the start would take minutes.
#[test]
fn a_frame_full_of_messages_that_wait_is_looked_through_once() {
    const MESSAGES: usize = 120_000;
    let called = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&called);
    let router = Router::new().concurrent("slow", move |x: Exchange| {
        counting.fetch_add(1, Ordering::Relaxed);
        async move { Ok(x) }
    });
    let payload = b"\x04slow\x00".repeat(MESSAGES);
    let now = Instant::now();
    let config = EngineConfig::new(Dialect::New).max_frame_size(1 << 20).unwrap();
    let mut engine = EngineConnection::new(config, now);
    let mut driver = Driver::new(AgentConnection::new(AgentConfig::new(), Peer::Unknown, now));
    let context = Context::from_waker(Waker::noop());
    let mut asked = false;
    loop {
        let output = engine.transmit().to_vec();
        engine.transmitted(output.len());
        let serve = |n: spop_proto::Notify<'_>,
                     a: &mut spop_proto::Ack<'_>,
                     own: &mut dyn FnMut() -> Exchange| {
            spop_proto::Dispatch::serve(&router, n, a, own)
        };
        driver.receive(&output, &context, now, serve, &mut |_: Notice<'_>| {});
        let answer = driver.transmit().to_vec();
        driver.transmitted(answer.len());
        let mut input = &answer[..];
        while let Some(event) = engine.receive(&mut input, now).unwrap() {
            match event {
                spop_proto::EngineEvent::Ack { .. } => {
                    assert_eq!(called.load(Ordering::Relaxed), MESSAGES);
                    return;
                }
                spop_proto::EngineEvent::Hello(_) => {}
                other => panic!("{other:?}"),
            }
        }
        if !std::mem::replace(&mut asked, true) {
            engine.notify(&payload, now).unwrap();
        }
    }
}

#[test]
fn a_route_that_waits_fails_by_itself() {
    let router = || mixed().fallback([set("slow", 100)]).unwrap();
    let failures =
        [("fail", "error: slow failed"), ("panic", "panicked: message slow: slow panicked")];
    for (how, text) in failures {
        let alone = ask(&testing::message("slow").arg("how", how)).ask(&router());
        assert_eq!(alone.to_string(), format!("txn.slow = int32 100\n{text}\n"));
        let among = testing::message("a").message("slow").arg("how", how).message("b");
        assert_eq!(
            ask(&among).ask(&router()).to_string(),
            format!(
                "txn.a = int32 1\ntxn.last = str a\ntxn.slow = int32 100\n\
                 txn.b = int32 1\ntxn.last = str b\n{text}\n"
            )
        );
        // Without a fallback of its own it is the agent's.
        for question in [testing::message("slow").arg("how", how), among] {
            let answer = ask(&question).ask(&mixed());
            assert_eq!(answer.actions().collect::<Vec<_>>(), [set("agent", -1)], "{how}");
            assert!(answer.error().unwrap().contains("slow "), "{answer}");
        }
    }
    // One that answers at once may fail beside it.
    let question = testing::message("c").message("slow");
    let answer = ask(&question).ask(&router());
    assert_eq!(answer.get(TXN, "c"), Some(Value::Int32(100)));
    assert_eq!(answer.get(TXN, "slow"), Some(Value::Int32(1)));
    assert!(answer.error().unwrap().contains("argument number is missing"));
}

/// The clock of a NOTIFY is the agent's, and so is the answer when it has run down.
#[test]
fn the_deadline_is_the_whole_notifys() {
    let router = mixed().fallback([set("slow", 100)]).unwrap();
    let question = testing::message("a").message("slow").arg("how", "for ever");
    let answer = ask(&question).ask(&router);
    assert_eq!(*answer.outcome(), Outcome::Deadline);
    assert_eq!(answer.actions().collect::<Vec<_>>(), [set("agent", -1)]);
    // The place of the future that was cut off serves again.
    assert!(testing::message("slow").ask(&router).is_handled());
}

#[test]
fn the_exchange_of_another_request_is_no_answer() {
    let kept = Arc::new(Mutex::new(None));
    let router = Router::new()
        .concurrent("swap", move |x| {
            let other = kept.lock().unwrap().replace(x);
            async move { other.ok_or_else(|| HandlerError::new("first")) }
        })
        .fallback([set("swap", 100)])
        .unwrap();
    let question = testing::message("swap").message("x");
    assert_eq!(question.ask(&router).error(), Some("first"));
    let answer = question.ask(&router);
    assert_eq!(answer.error(), Some("returned the exchange of another request"));
    assert_eq!(answer.get(TXN, "swap"), Some(Value::Int32(100)));
}

/// A NOTIFY one of whose messages failed is one failure in the counters, and one line in the log.
#[test]
fn a_failure_is_counted_and_logged_once() {
    let router = mixed().fallback([set("slow", 100)]).unwrap();
    let payload = NotifyPayload::new("c").message("slow").arg("how", "fail").message("a");
    for (payload, text) in [
        (payload, "message c: argument number is missing"),
        (NotifyPayload::new("a").message("slow").arg("how", "fail"), "slow failed"),
        (NotifyPayload::new("c").message("b"), "message c: argument number is missing"),
    ] {
        let now = Instant::now();
        let mut haproxy = EngineConnection::new(EngineConfig::new(Dialect::New), now);
        haproxy.notify(payload.as_bytes().unwrap(), now).unwrap();
        let mut driver = Driver::new(AgentConnection::new(AgentConfig::new(), Peer::Unknown, now));
        let context = Context::from_waker(Waker::noop());
        let mut lines = Vec::new();
        for _ in 0..2 {
            let mut log = |notice: Notice<'_>| {
                if let Notice::Failure { failure, .. } = notice {
                    lines.push(failure.to_string());
                }
            };
            let mut wire = Vec::new();
            haproxy.swap_output(&mut wire);
            let serve = |n: spop_proto::Notify<'_>,
                         a: &mut spop_proto::Ack<'_>,
                         own: &mut dyn FnMut() -> Exchange| {
                spop_proto::Dispatch::serve(&router, n, a, own)
            };
            driver.receive(&wire, &context, now, serve, &mut log);
            let wire = driver.transmit().to_vec();
            driver.transmitted(wire.len());
            let mut input = wire.as_slice();
            while haproxy.receive(&mut input, now).unwrap().is_some() {}
        }
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with(text), "{lines:?}");
        let stats = driver.finish().stats;
        assert_eq!((stats.notifies, stats.errors, stats.answered), (1, 1, 0));
    }
}

/// What the workers of spop-blocking do.
#[test]
fn a_failure_is_isolated_away_from_the_connection_too() {
    let router = with_fallbacks();
    let now = Instant::now();
    let payload = NotifyPayload::new("a").message("c");
    let mut haproxy = EngineConnection::new(EngineConfig::new(Dialect::New), now);
    haproxy.notify(payload.as_bytes().unwrap(), now).unwrap();
    let mut agent = AgentConnection::new(config(), Peer::Unknown, now);
    let mut pad = Pad::new(config(), now);
    let mut found = None;
    for _ in 0..2 {
        let mut wire = Vec::new();
        haproxy.swap_output(&mut wire);
        let mut input = wire.as_slice();
        let mut detached = None;
        while let Some(event) = agent.receive(&mut input, now).unwrap() {
            if let Event::Notify(notify, ack) = event {
                detached = Some(ack.detach(notify, None));
            }
        }
        if let Some((ticket, exchange)) = detached {
            let mut answered = pad.answer(exchange, |n, a| router.notify(n, a)).unwrap();
            let failure =
                agent.answer(ticket, now).unwrap().answer_with(&mut answered).unwrap_err();
            assert!(failure.to_string().contains("number"), "{failure}");
        }
        agent.swap_output(&mut wire);
        let mut input = wire.as_slice();
        while let Some(event) = haproxy.receive(&mut input, now).unwrap() {
            if let spop_proto::EngineEvent::Ack { actions, .. } = event {
                found = Some(actions.map(|a| a.unwrap().to_string()).collect::<Vec<_>>());
            }
        }
    }
    let expected = [
        "set-var txn.a int32:1",
        "set-var txn.last str:a",
        "set-var txn.c int32:100",
        "unset-var txn.last",
    ];
    assert_eq!(found.unwrap(), expected);
    assert_eq!((agent.stats().errors, agent.stats().answered), (1, 0));
}

#[test]
fn routes_say_what_they_take() {
    let router = router()
        .declares(["how", "id?=unique-id"])
        .concurrent("c", |x| async { Ok(x) })
        .declares(["ip=src"]);
    let said: Vec<_> = router
        .declared()
        .map(|(name, args)| {
            let args: Vec<_> = args.iter().map(ToString::to_string).collect();
            format!("{name}: {}", args.join(" "))
        })
        .collect();
    assert_eq!(said, ["a: ", "b: how id=unique-id, optional", "c: ip=src"]);
}

#[test]
fn what_haproxy_sends_otherwise_is_told_once() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&log);
    let router = Router::new()
        .on("check", |_, _| Ok(()))
        .declares(["ip=src", "path", "agent?"])
        .on("other", |_, _| Ok(()))
        .declares(["id=unique-id"])
        .on_mismatch(move |mismatch| lines.lock().unwrap().push(mismatch.to_string()));
    let told = || std::mem::take(&mut *log.lock().unwrap());
    testing::message("check").arg("src", "192.0.2.1").arg("path", Value::Null).ask(&router);
    assert_eq!(
        told(),
        [
            "message check: argument ip is missing; HAProxy sent src, path. In the spoe-message section: \
          args ip=…"
        ]
    );
    // Once, and a value now and then is a value.
    for n in 1..1_000 {
        let path = if n == 7 { Value::Str(b"/") } else { Value::Null };
        testing::message("check").arg("src", "192.0.2.1").arg("path", path).ask(&router);
    }
    assert_eq!(told(), [""; 0]);
    for n in 1..=1_001 {
        testing::message("other").arg("id", Value::Null).ask(&router);
        if n < 1_000 {
            assert_eq!(told(), [""; 0], "message {n}");
        }
    }
    let [line] = &told()[..] else { panic!("one line") };
    assert!(
        line.starts_with("message other: argument id was NULL in each of the first 1000"),
        "{line}"
    );
}

#[cfg(feature = "serde")]
#[test]
fn another_type_than_declared_is_told() {
    #[derive(serde::Deserialize)]
    #[expect(dead_code, reason = "read by the router alone")]
    struct Check<'a> {
        ip: std::net::Ipv4Addr,
        path: Option<&'a str>,
        ssl: bool,
    }
    let log = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&log);
    let router = Router::new()
        .on("check", |_, _| Ok(()))
        .args::<Check<'_>>()
        .on_mismatch(move |mismatch| lines.lock().unwrap().push(mismatch.to_string()));
    let question = testing::message("check").arg("ip", std::net::Ipv6Addr::LOCALHOST);
    question.arg("ssl", 1_i64).ask(&router);
    assert_eq!(
        *log.lock().unwrap(),
        [
            "message check: argument ip is ipv6, expected an IPv4 address",
            "message check: argument ssl is int64 1, expected a boolean",
        ]
    );
    assert_eq!(
        router.description().to_string(),
        "message check\n    arg ip ipv4\n    arg path str optional\n    arg ssl bool\n"
    );
}
