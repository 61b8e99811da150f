//! Why HAProxy got the fallback, in a variable of its own.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    missing_docs,
    reason = "tests: they may panic, and need a first instant to count from"
)]

mod common;

use common::{MESSAGE, NOTIFY, Rig, UNSET, ack, agent_disconnect, frame, notify, set_txn, string};
use spop_proto::{
    Action, AgentConfig, Cause, ConfigError, Event, HandlerError, Limits, Notify, Scope, SetError,
    Var, answer_inline,
};
use std::time::Duration;

const FIN: u32 = common::FIN;

fn config() -> AgentConfig {
    let fallback = [Action::set(Scope::Transaction, "f", true)];
    let config = AgentConfig::new().fallback(fallback).unwrap();
    config.fallback_reason(Var::transaction("why")).unwrap()
}

/// The fallback and a reason, as they are encoded.
fn because(reason: &str) -> Vec<u8> {
    [set_txn("f", b"\x11"), set_txn("why", &string(reason.as_bytes()))].concat()
}

/// Asks once, and has a service answer.
fn serve(
    rig: &mut Rig,
    service: impl FnOnce(&mut spop_proto::Ack<'_>) -> Result<(), HandlerError>,
) {
    let now = rig.at(0);
    let bytes = notify(1);
    let mut input = &bytes[..];
    let Ok(Some(Event::Notify(notify, ack))) = rig.conn.receive(&mut input, now) else {
        panic!("no NOTIFY")
    };
    let _ = answer_inline(notify, ack, |_: Notify<'_>, ack: &mut _| service(ack));
}

#[test]
fn each_cause_has_a_reason_and_a_counter() {
    let causes = [
        (Cause::Error, "error"),
        (Cause::Panic, "panic"),
        (Cause::Deadline, "deadline"),
        (Cause::Shed, "shed"),
        (Cause::Unanswered, "unanswered"),
        (Cause::TooBig, "too-big"),
    ];
    for (cause, reason) in causes {
        let mut rig = Rig::ready(config());
        let ticket = rig.defer(0, &notify(1));
        let now = rig.at(0);
        rig.conn.answer(ticket, now).unwrap().fall_back(cause);
        assert_eq!(rig.take(), ack(1, &because(reason)));
        let stats = rig.conn.stats();
        let counted = match cause {
            Cause::Error => stats.errors,
            Cause::Panic => stats.panics,
            Cause::Deadline => stats.deadlines,
            Cause::Shed => stats.shed,
            Cause::Unanswered => stats.unanswered,
            Cause::TooBig => stats.too_big.min(stats.errors),
            other => panic!("a cause no test knows: {other:?}"),
        };
        assert_eq!((counted, stats.fallbacks(), stats.answered), (1, 1, 0), "{reason}");
        assert_eq!(stats.too_big, u64::from(cause == Cause::TooBig));
    }
}

/// The reasons as they come about.
#[test]
fn what_happened_is_the_reason() {
    let mut rig = Rig::ready(config());
    serve(&mut rig, |ack| {
        ack.set(Scope::Transaction, "half", true)?;
        Err(HandlerError::new("on purpose"))
    });
    assert_eq!(rig.take(), ack(1, &because("error")));
    serve(&mut rig, |_| panic!("on purpose"));
    assert_eq!(rig.take(), ack(1, &because("panic")));
    serve(&mut rig, |ack| Ok(ack.set(Scope::Transaction, "a", &vec![0_u8; 20_000][..])?));
    assert_eq!(rig.take(), ack(1, &because("too-big")));
    let _ticket = rig.defer(0, &notify(3));
    rig.timeout(10_000).unwrap();
    assert_eq!(rig.take(), ack(3, &because("deadline")));
    let stats = rig.conn.stats();
    assert_eq!((stats.errors, stats.panics, stats.deadlines, stats.too_big), (2, 1, 1, 1));
}

/// The handler is told that an action does not fit, and decides what that means.
#[test]
fn an_answer_that_does_not_fit_is_the_handlers_to_mend() {
    let mut rig = Rig::ready(config());
    serve(&mut rig, |ack| {
        let refused = ack.set(Scope::Transaction, "a", &vec![0_u8; 20_000][..]);
        assert_eq!(refused, Err(SetError::TooBig { limit: 16379 }));
        Ok(ack.set(Scope::Transaction, "b", true)?)
    });
    assert_eq!(rig.take(), ack(1, &set_txn("b", b"\x11")));
    let stats = rig.conn.stats();
    assert_eq!((stats.answered, stats.fallbacks(), stats.too_big), (1, 0, 1));
}

#[test]
fn shed_refused_and_late_in_the_drain() {
    let limits = Limits::new().in_flight(1.try_into().unwrap()).payload(10.try_into().unwrap());
    let mut rig = Rig::ready(config().limits(limits));
    let _owed = rig.defer(0, &notify(1));
    assert_eq!(rig.feed(0, &notify(3)), Ok(vec![]));
    assert_eq!(rig.take(), ack(3, &because("shed")));
    let large = frame(NOTIFY, 0, 5, 1, &[MESSAGE, MESSAGE].concat());
    rig.feed(0, &large).unwrap();
    assert_eq!(rig.take(), frame(103, 3, 5, 1, &because("refused")), "FIN and ABORT");
    assert_eq!(rig.feed(0, &frame(UNSET, FIN, 5, 1, b"")), Ok(vec![]));
    let stats = rig.conn.stats();
    assert_eq!((stats.shed, stats.refused, stats.fallbacks()), (1, 1, 1));

    let drain = Limits::new().drain_timeout(Duration::from_secs(10)).unwrap();
    let mut rig =
        Rig::ready(config().limits(drain.answer_timeout(Duration::from_secs(60)).unwrap()));
    let _owed = rig.defer(0, &notify(1));
    let now = rig.at(0);
    rig.conn.shutdown(now);
    rig.feed(6_000, &notify(3)).unwrap();
    assert_eq!(rig.take(), ack(3, &because("shed")));
}

/// HAProxy waits for the second question only.
#[test]
fn what_was_superseded_has_neither_answer_nor_reason() {
    let mut rig = Rig::ready(config());
    let first = rig.defer(0, &notify(1));
    let second = rig.defer(5, &notify(1));
    let now = rig.at(6);
    assert!(rig.conn.answer(first, now).is_err());
    assert_eq!(rig.take(), b"");
    rig.conn.answer(second, now).unwrap().commit();
    assert_eq!(rig.take(), ack(1, b""));
    rig.timeout(60_000).unwrap();
    assert_eq!(rig.take(), b"", "none at the first one's deadline either");
    let stats = rig.conn.stats();
    assert_eq!((stats.notifies, stats.superseded, stats.answered, stats.fallbacks()), (2, 1, 1, 0));
}

/// Together they fit the smallest ACK there is, or are refused, whichever is configured first.
#[test]
fn the_longest_reason_fits_with_the_fallback() {
    // `set-var`, its arguments and scope, the name with its length, `unanswered` as a string.
    let reason = 3 + 1 + "why".len() + 2 + "unanswered".len();
    let fallback = |bytes: usize| {
        // Three bytes, a name of one with its length, a string with type and length.
        let value = "x".repeat(bytes - 3 - 2 - 2);
        let action = Action::set(Scope::Transaction, "f", value.as_str());
        assert_eq!(action.encoded_len(), bytes);
        value
    };
    let largest = fallback(230 - reason);
    let action = || [Action::set(Scope::Transaction, "f", largest.as_str())];
    let why = Var::transaction("why");
    let config = AgentConfig::new().fallback(action()).unwrap().fallback_reason(why).unwrap();
    AgentConfig::new().fallback_reason(why).unwrap().fallback(action()).unwrap();
    // A HELLO with the smallest frames, and ids as large as they get.
    let mut rig = Rig::new(config);
    rig.feed(0, &common::hello_of(256)).unwrap();
    rig.take();
    let ids = (u64::MAX, u64::MAX);
    let ticket = rig.defer(0, &frame(NOTIFY, FIN, ids.0, ids.1, MESSAGE));
    let now = rig.at(0);
    rig.conn.answer(ticket, now).unwrap().fall_back(Cause::Unanswered);
    let sent = rig.take();
    assert_eq!(sent.len() - 4, 255, "an ACK stays one byte below the frame size");

    let larger = fallback(231 - reason);
    let action = || [Action::set(Scope::Transaction, "f", larger.as_str())];
    let too_big = Err(ConfigError::FallbackTooBig { bytes: 231 });
    let reason_last = AgentConfig::new().fallback(action()).unwrap().fallback_reason(why);
    assert_eq!(reason_last.map(drop), too_big);
    let reason_first = AgentConfig::new().fallback_reason(why).unwrap().fallback(action());
    assert_eq!(reason_first.map(drop), too_big);
}

#[test]
fn the_name_fits_the_prefix_whichever_is_configured_first() {
    let name = "n".repeat(53);
    let var = Var::new(Scope::Transaction, &name).unwrap();
    let with_prefix = |prefix| AgentConfig::new().var_prefix(prefix).unwrap();
    assert!(with_prefix("iprep").fallback_reason(var).is_ok());
    assert!(with_prefix("iprep2").fallback_reason(var).is_err());
    let config = AgentConfig::new().fallback_reason(var).unwrap();
    assert!(config.clone().var_prefix("iprep").is_ok());
    assert!(config.var_prefix("iprep2").is_err());
}

/// Nobody who was not asked for it sets a variable.
#[test]
fn there_is_no_reason_by_default() {
    let mut rig = Rig::ready(AgentConfig::new());
    serve(&mut rig, |_| Err(HandlerError::new("on purpose")));
    assert_eq!(rig.take(), ack(1, b""));
    let now = rig.at(0);
    rig.conn.shutdown(now);
    assert_eq!(rig.take(), agent_disconnect(0, "the agent is stopping"));
}
