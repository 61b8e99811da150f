//! `testing`: what a question shows is what HAProxy would have had.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test: a panic is its way to fail"
)]

use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use spop_proto::handler::{Concurrent, HandlerFn, ServiceFn};
use spop_proto::testing::{self, Outcome};
use spop_proto::{Action, AgentConfig, Dialect, HandlerError, Router, Scope, Value};

const TXN: Scope = Scope::Transaction;

#[test]
fn in_haproxys_words() {
    let service = ServiceFn::new(|notify, ack| {
        let message = notify.require("m")?;
        for (n, arg) in message.args().enumerate() {
            ack.set(Scope::Session, &format!("v{n}"), arg.value)?;
        }
        ack.unset(Scope::Request, "gone")?;
        Ok(())
    });
    let question = testing::message("m").arg("a", -3).arg("", "tab\t").arg("c", Value::Null);
    for dialect in [Dialect::Old, Dialect::New] {
        let answer = question.clone().dialect(dialect).prefix("px").ask(&service);
        assert_eq!(
            answer.to_string(),
            "sess.px.v0 = int32 -3\nsess.px.v1 = str tab\\t\nsess.px.v2 unset\nreq.px.gone unset\n"
        );
        assert!(answer.is_handled());
        assert_eq!(answer.get(Scope::Session, "v0"), Some(Value::Int32(-3)));
        assert_eq!(answer.get(Scope::Session, "v2"), None);
        assert_eq!(answer.get(TXN, "v0"), None, "the scope counts");
        assert_eq!(answer.actions().count(), 4);
    }
}

#[test]
fn outcomes() {
    let config = AgentConfig::new().fallback([Action::set(TXN, "fell", true)]).unwrap();
    let ask = |how: &'static str| {
        let service = ServiceFn::new(move |_, ack| match how {
            "error" => Err(HandlerError::new("no such thing")),
            "panic" => panic!("ouch"),
            "too big" => Ok(ack.set(TXN, "a", "x".repeat(20_000).as_str())?),
            "bad name" => Ok(ack.set(TXN, "a-b", 1)?),
            _ => Ok(()),
        });
        testing::message("m").config(config.clone()).ask(&service)
    };
    assert_eq!(*ask("nothing").outcome(), Outcome::Handled);
    assert_eq!(ask("nothing").to_string(), "");
    assert_eq!(ask("error").to_string(), "txn.fell = bool true\nerror: no such thing\n");
    assert_eq!(ask("panic").to_string(), "txn.fell = bool true\npanicked: ouch\n");
    assert_eq!(*ask("too big").outcome(), Outcome::TooBig);
    assert!(ask("bad name").error().unwrap().contains("`a-b`"));
}

#[test]
fn names_are_checked_with_the_prefix() {
    let name = "n".repeat(50);
    let service = ServiceFn::new(move |_, ack| Ok(ack.set(TXN, &name, 1)?));
    assert!(testing::message("m").prefix("seven77").ask(&service).is_handled());
    let answer = testing::message("m").prefix("eight888").prefix("ten10ten10").ask(&service);
    assert!(answer.error().unwrap().contains("63 bytes"), "{answer}");
    let answer = testing::message("m").prefix("not-good").ask(&service);
    assert!(matches!(answer.outcome(), Outcome::NotAsked(text) if text.contains("not-good")));
}

#[test]
fn a_future_that_waits_for_something_outside_is_late() {
    let forever = Concurrent::new(HandlerFn::new(|x| async {
        pending::<()>().await;
        Ok(x)
    }));
    let answer = testing::message("m").ask(&forever);
    assert_eq!(*answer.outcome(), Outcome::Deadline);
    assert_eq!(answer.to_string(), "deadline: the handler waited for too long\n");
    // One that never has enough is late as well.
    let busy = Concurrent::new(HandlerFn::new(|x| async {
        poll_fn(|context| -> Poll<()> {
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        Ok(x)
    }));
    let answer = testing::message("m").ask(&busy);
    assert_eq!(*answer.outcome(), Outcome::Deadline);
}

/// `ask_async` waits as long as it takes: here until a switch is thrown from outside.
#[test]
fn an_answer_can_be_awaited() {
    #[derive(Default)]
    struct Switch {
        on: bool,
        waiting: Option<Waker>,
    }
    let switch = Arc::new(Mutex::new(Switch::default()));
    let thrown = Arc::clone(&switch);
    let handler = HandlerFn::new(move |mut x| {
        let switch = Arc::clone(&switch);
        async move {
            poll_fn(|context| {
                let mut switch = switch.lock().unwrap();
                switch.waiting = Some(context.waker().clone());
                if switch.on { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            x.set(TXN, "big", "x".repeat(16_000).as_str())?;
            Ok(x)
        }
    });
    let question = testing::message("m");
    let mut asking = pin!(question.ask_async(&handler));
    let context = &mut Context::from_waker(Waker::noop());
    for _ in 0..3 {
        assert!(asking.as_mut().poll(context).is_pending());
    }
    thrown.lock().unwrap().on = true;
    assert!(asking.as_mut().poll(context).is_pending(), "only what was woken is polled");
    thrown.lock().unwrap().waiting.take().unwrap().wake();
    let Poll::Ready(answer) = asking.as_mut().poll(context) else { panic!("not ready") };
    assert!(answer.is_handled());
    assert!(answer.get(TXN, "big").is_some());
}

#[test]
fn large_questions() {
    let router = Router::new().on("m", |message, ack| {
        ack.set(TXN, "len", u64::try_from(message.get::<&[u8]>("body")?.len())?)?;
        Ok(())
    });
    let body = vec![b'x'; 40_000];
    let question = testing::message("m").arg("body", body.as_slice());
    let answer = question.clone().dialect(Dialect::Old).ask(&router);
    assert_eq!(answer.get(TXN, "len"), Some(Value::Uint64(40_000)), "in fragments");
    let answer = question.ask(&router);
    assert!(matches!(answer.outcome(), Outcome::NotAsked(_)), "{answer}");
    // An answer as large as a frame takes is not kept back.
    let big = ServiceFn::new(|_, ack| Ok(ack.set(TXN, "a", "x".repeat(16_000).as_str())?));
    assert!(testing::message("m").ask(&big).is_handled());
    let many = (0..256).fold(testing::message("m"), |question, _| question.arg("a", 1));
    assert!(many.ask(&big).error().unwrap().contains("255 arguments"));
}
