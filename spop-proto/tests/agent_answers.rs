//! Each NOTIFY gets exactly one ACK, whatever becomes of its `Ack`; and the ways a connection ends.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test: a panic is its way to fail"
)]
#![allow(clippy::disallowed_methods, reason = "a first instant to count from")]

mod common;

use std::mem;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use common::*;
use spop_proto::{
    Ack, Action, AgentConfig, AgentConnection, Cause, CloseReason, ConfigError, ConnectionStats,
    Event, Limits, ProtocolError, Scope, SetError, StaleTicket, Status, Ticket, Value, Var,
};

const STOPPING: &str = "the agent is stopping";

fn with_fallback() -> AgentConfig {
    AgentConfig::new().fallback([Action::set(Scope::Transaction, "f", true)]).unwrap()
}

/// What `with_fallback` makes of an ACK.
fn fallen(stream: u64) -> Vec<u8> {
    ack(stream, &set_txn("f", b"\x11"))
}

/// `set-var txn.a` of `text`.
fn set_a(text: &[u8]) -> Vec<u8> {
    set_txn("a", &string(text))
}

impl Rig {
    /// Gives a NOTIFY to `handler`.
    fn ask<R>(&mut self, bytes: &[u8], handler: impl FnOnce(Ack<'_>) -> R) -> R {
        let now = self.at(0);
        let mut input = bytes;
        match self.conn.receive(&mut input, now) {
            Ok(Some(Event::Notify(_, ack))) => handler(ack),
            other => panic!("not a NOTIFY: {other:?}"),
        }
    }

    fn answer(&mut self, ms: u64, ticket: Ticket) -> Result<Ack<'_>, StaleTicket> {
        let now = self.at(ms);
        self.conn.answer(ticket, now)
    }

    /// The books: every NOTIFY is answered, given up, or still owed.
    #[track_caller]
    fn balanced(&self) {
        let stats = self.conn.stats();
        let settled = stats.acks() + stats.superseded + stats.abandoned;
        assert_eq!(stats.notifies, settled + u64::from(self.conn.in_flight()), "{stats:?}");
    }
}

/// A connection that owes the answer to 9/1, so that there is a ticket to use it with.
fn owing(config: AgentConfig) -> (Rig, Ticket) {
    let mut rig = Rig::ready(config);
    let ticket = rig.defer(0, &notify(9));
    (rig, ticket)
}

/// A way to deal with an `Ack`, what is written for it, and the counter that notes it.
type Way = (&'static str, fn(Ack<'_>), Vec<u8>, fn(&ConnectionStats) -> u64);

#[test]
fn one_ack_whatever_becomes_of_it() {
    fn set(mut ack: Ack<'_>) -> Ack<'_> {
        ack.set(Scope::Transaction, "a", "x").unwrap();
        ack
    }
    let ways: [Way; 10] = [
        ("committed", |ack| set(ack).commit(), ack(1, &set_a(b"x")), |s| s.answered),
        ("dropped", |ack| drop(set(ack)), ack(1, &set_a(b"x")), |s| s.answered),
        ("dropped, nothing set", |ack| drop(ack), ack(1, b""), |s| s.answered),
        ("error", |ack| set(ack).fall_back(Cause::Error), fallen(1), |s| s.errors),
        ("panic", |ack| set(ack).fall_back(Cause::Panic), fallen(1), |s| s.panics),
        ("late", |ack| set(ack).fall_back(Cause::Deadline), fallen(1), |s| s.deadlines),
        ("shed", |ack| set(ack).fall_back(Cause::Shed), fallen(1), |s| s.shed),
        ("unanswered", |ack| set(ack).fall_back(Cause::Unanswered), fallen(1), |s| s.unanswered),
        ("forgotten", |ack| mem::forget(set(ack)), fallen(1), |s| s.unanswered),
        (
            "dropped while panicking",
            |ack| {
                let unwound = catch_unwind(AssertUnwindSafe(|| {
                    let _held = set(ack);
                    resume_unwind(Box::new("a handler's panic"));
                }));
                assert!(unwound.is_err());
            },
            fallen(1),
            |s| s.panics,
        ),
    ];
    for (way, handler, expected, counter) in ways {
        let mut rig = Rig::ready(with_fallback());
        rig.ask(&notify(1), handler);
        assert_eq!(rig.feed(0, b""), Ok(vec![]), "{way}");
        assert_eq!(rig.take(), expected, "{way}");
        let stats = *rig.conn.stats();
        assert_eq!((stats.notifies, stats.acks(), counter(&stats)), (1, 1, 1), "{way}");
        rig.balanced();
        // Nothing comes after it.
        rig.timeout(100_000).unwrap();
        assert_eq!(rig.take(), b"", "{way}");
        assert_eq!(rig.feed(100_000, &notify(1)), Ok(vec!["Notify 1/1".to_owned()]), "{way}");
        assert_eq!(rig.take(), ack(1, b""), "{way}");
        rig.balanced();
    }
}

#[test]
fn a_forgotten_ack_is_answered_by_whatever_is_called_next() {
    type Call = fn(&mut Rig, Ticket);
    let bye = agent_disconnect(0, "");
    let calls: [(&str, Call, Vec<u8>); 6] = [
        ("receive", |rig, _| drop(rig.feed(0, b"")), vec![]),
        ("handle_timeout", |rig, _| rig.timeout(0).unwrap(), vec![]),
        ("answer", |rig, ticket| rig.answer(0, ticket).unwrap().commit(), ack(9, b"")),
        ("peer_closed", |rig, _| rig.conn.peer_closed(rig.at(0)), vec![]),
        ("close", |rig, _| rig.conn.close(Status::NORMAL, "", rig.at(0)), bye),
        ("shutdown", |rig, _| rig.conn.shutdown(rig.at(0)), vec![]),
    ];
    for (name, call, then) in calls {
        let (mut rig, ticket) = owing(with_fallback());
        rig.ask(&notify(1), |mut ack| {
            ack.set(Scope::Transaction, "a", "x").unwrap();
            mem::forget(ack);
        });
        assert_eq!(rig.conn.transmit(), b"", "{name}: half an answer");
        call(&mut rig, ticket);
        assert_eq!(rig.take(), [fallen(1), then].concat(), "{name}");
        assert_eq!(rig.conn.stats().unanswered, 1, "{name}");
        rig.balanced();
    }
}

#[test]
fn half_an_answer_is_never_seen() {
    let mut rig = Rig::ready(with_fallback());
    rig.feed(0, &notify(1)).unwrap();
    rig.ask(&notify(3), |mut ack| {
        ack.set(Scope::Transaction, "a", "x").unwrap();
        mem::forget(ack);
    });
    assert_eq!(rig.conn.transmit(), ack(1, b""));
    rig.conn.transmitted(5);
    let mut buffer = b"of an earlier use".to_vec();
    rig.conn.swap_output(&mut buffer);
    assert_eq!(buffer, ack(1, b"")[5..]);
    rig.timeout(0).unwrap();
    assert_eq!(rig.take(), fallen(3));
}

// Later answers.

#[test]
fn deferred_answers_go_out_in_any_order() {
    let mut rig = Rig::ready(AgentConfig::new());
    let tickets: Vec<_> = [1, 3, 5].map(|id| (id, rig.defer(0, &notify(id)))).into();
    assert_eq!(rig.conn.in_flight(), 3);
    assert_eq!(rig.feed(0, &notify(7)), Ok(vec!["Notify 7/1".to_owned()]));
    let mut expected = ack(7, b"");
    for (id, ticket) in tickets.into_iter().rev() {
        assert!(rig.conn.owes(&ticket));
        let mut answer = rig.answer(5, ticket).unwrap();
        answer.set(Scope::Transaction, "a", id.to_string().as_str()).unwrap();
        drop(answer);
        expected.extend(ack(id, &set_a(id.to_string().as_bytes())));
        rig.balanced();
    }
    assert_eq!(rig.take(), expected);
    assert_eq!((rig.conn.in_flight(), rig.conn.stats().answered), (0, 4));
}

#[test]
fn what_was_set_before_deferring_is_forgotten() {
    let mut rig = Rig::ready(AgentConfig::new());
    let ticket = rig.ask(&notify(1), |mut ack| {
        ack.set(Scope::Transaction, "a", "x").unwrap();
        ack.defer()
    });
    assert_eq!(rig.take(), b"");
    assert!(rig.answer(0, ticket).unwrap().is_empty());
    assert_eq!(rig.take(), ack(1, b""));
}

#[test]
fn both_ids_come_back() {
    let mut rig = Rig::ready(AgentConfig::new());
    for (stream, id) in [(0, 1), (0, 0), (u64::MAX, u64::MAX), (240, 2288)] {
        let seen = rig.feed(0, &frame(NOTIFY, FIN, stream, id, MESSAGE));
        assert_eq!(seen, Ok(vec![format!("Notify {stream}/{id}")]));
        assert_eq!(rig.take(), frame(ACK, FIN, stream, id, b""));
        let ticket = rig.defer(0, &frame(NOTIFY, FIN, stream, id, MESSAGE));
        rig.answer(0, ticket).unwrap().commit();
        assert_eq!(rig.take(), frame(ACK, FIN, stream, id, b""));
    }
}

#[test]
fn a_ticket_is_stale_once_nobody_waits() {
    type Event = fn(&mut Rig);
    let cases: [(&str, Event, Vec<u8>); 9] = [
        ("deadline", |rig| rig.timeout(10_000).unwrap(), fallen(9)),
        ("asked anew", |rig| drop(rig.feed(0, &notify(9))), ack(9, b"")),
        ("asked anew in fragments", |rig| drop(rig.feed(0, &frame(NOTIFY, 0, 9, 1, b""))), vec![]),
        ("closed", |rig| rig.conn.close(Status::NORMAL, "", rig.at(0)), agent_disconnect(0, "")),
        ("end of the stream", |rig| rig.conn.peer_closed(rig.at(0)), vec![]),
        (
            "haproxy's goodbye",
            |rig| drop(rig.feed(0, &haproxy_disconnect(0, ""))),
            agent_disconnect(0, "normal"),
        ),
        (
            "broken protocol",
            |rig| drop(rig.feed(0, &frame(ACK, FIN, 9, 1, b""))),
            agent_disconnect(4, "ACK after the handshake"),
        ),
        (
            "drained",
            |rig| {
                rig.conn.shutdown(rig.at(0));
                rig.conn.close(Status::NORMAL, "", rig.at(0));
            },
            agent_disconnect(0, ""),
        ),
        (
            "the slot was used again",
            |rig| {
                rig.timeout(10_000).unwrap();
                let _other = rig.defer(10_000, &notify(11));
            },
            fallen(9),
        ),
    ];
    for (name, event, expected) in cases {
        let (mut rig, ticket) = owing(with_fallback());
        event(&mut rig);
        assert!(!rig.conn.owes(&ticket), "{name}");
        assert!(rig.answer(20_000, ticket).is_err(), "{name}");
        assert_eq!(rig.take(), expected, "{name}");
        rig.balanced();
    }
}

#[test]
fn a_ticket_is_of_its_connection() {
    let (mut one, ticket) = owing(AgentConfig::new());
    let (mut other, theirs) = owing(AgentConfig::new());
    assert!(!other.conn.owes(&ticket));
    assert!(other.answer(0, ticket).is_err());
    assert_eq!(other.take(), b"");
    assert_eq!(other.conn.in_flight(), 1);
    assert!(one.answer(0, theirs).is_err());
    assert_eq!(one.conn.in_flight(), 1, "the deadline is left to answer it");
}

#[test]
fn a_ticket_from_before_memory_was_given_back_is_stale() {
    let (mut rig, ticket) = owing(AgentConfig::new());
    rig.feed(0, b"").unwrap();
    rig.timeout(10_000).unwrap();
    rig.feed(10_000, b"").unwrap();
    rig.take();
    rig.timeout(11_000).unwrap();
    assert_eq!(rig.conn.buffered(), 0);
    let fresh = rig.defer(11_000, &notify(11));
    assert!(rig.answer(11_000, ticket).is_err());
    assert!(rig.conn.owes(&fresh));
}

#[test]
fn an_answer_that_is_put_off_again_keeps_its_first_deadline() {
    type Way = fn(Ack<'_>);
    let ways: [(&str, Way); 2] = [
        ("deferred", |ack| {
            let _ticket = ack.defer();
        }),
        ("forgotten", |mut ack| {
            ack.set(Scope::Transaction, "a", "x").unwrap();
            mem::forget(ack);
        }),
    ];
    for (name, way) in ways {
        let (mut rig, ticket) = owing(with_fallback());
        way(rig.answer(9_000, ticket).unwrap());
        assert_eq!(rig.feed(9_000, b""), Ok(vec![]));
        assert_eq!(rig.conn.in_flight(), 1, "{name}");
        rig.timeout(9_999).unwrap();
        assert_eq!(rig.take(), b"", "{name}");
        rig.timeout(10_000).unwrap();
        assert_eq!(rig.take(), fallen(9), "{name}");
        assert_eq!(rig.conn.stats().deadlines, 1, "{name}");
        rig.balanced();
    }
}

#[test]
fn a_late_answer_falls_back_like_an_early_one() {
    let (mut rig, ticket) = owing(with_fallback());
    let answer = rig.answer(0, ticket).unwrap();
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let _held = answer;
        resume_unwind(Box::new("a handler's panic"));
    }));
    assert!(unwound.is_err());
    assert_eq!(rig.take(), fallen(9));
    assert_eq!((rig.conn.stats().panics, rig.conn.in_flight()), (1, 0));
    let (mut rig, ticket) = owing(with_fallback());
    rig.answer(0, ticket).unwrap().fall_back(Cause::Error);
    assert_eq!(rig.take(), fallen(9));
    assert_eq!((rig.conn.stats().errors, rig.conn.in_flight()), (1, 0));
    rig.timeout(100_000).unwrap();
    assert_eq!(rig.take(), b"");
    rig.balanced();
}

#[test]
fn the_second_question_with_the_same_ids_is_the_one_answered() {
    let mut rig = Rig::ready(with_fallback());
    let first = rig.defer(0, &notify(1));
    let second = rig.defer(4_000, &notify(1));
    assert!(!rig.conn.owes(&first) && rig.conn.owes(&second));
    assert_eq!(rig.conn.stats().superseded, 1);
    // Another frame of the stream, or another stream, is another question.
    let frame_2 = rig.defer(5_000, &frame(NOTIFY, FIN, 1, 2, MESSAGE));
    let stream_2 = rig.defer(5_000, &notify(2));
    assert_eq!(rig.conn.in_flight(), 3);
    assert!(rig.answer(5_000, first).is_err());
    rig.timeout(10_000).unwrap();
    assert_eq!(rig.take(), b"", "the first deadline went with the first question");
    rig.answer(10_001, second).unwrap().commit();
    rig.answer(10_001, stream_2).unwrap().commit();
    rig.answer(10_001, frame_2).unwrap().commit();
    let expected = [ack(1, b""), ack(2, b""), frame(ACK, FIN, 1, 2, b"")];
    assert_eq!(rig.take(), expected.concat());
    rig.balanced();
}

// What is in an answer.

#[test]
fn every_way_to_add_an_action() {
    const SCORE: Var<'static> = Var::session("score");
    let mut rig = Rig::ready(AgentConfig::new());
    rig.ask(&notify(1), |mut ack| {
        ack.set(Scope::Process, "p", 7_i64).unwrap();
        ack.set_var(SCORE, -1).unwrap();
        ack.unset(Scope::Request, "r").unwrap();
        ack.unset_var(Var::response("x.y_Z9")).unwrap();
        ack.action(&Action::set(Scope::Transaction, "n", Value::Null)).unwrap();
        ack.action(&Action::unset(Scope::Transaction, "u")).unwrap();
        assert_eq!(ack.len(), 7 + 20 + 5 + 10 + 6 + 5);
        ack.commit();
    });
    let actions = b"\x01\x03\x00\x01p\x04\x07\
        \x01\x03\x01\x05score\x02\xff\xf0\xfe\xfe\xfe\xfe\xfe\xfe\xfe\x0e\
        \x02\x02\x03\x01r\
        \x02\x02\x04\x06x.y_Z9\
        \x01\x03\x02\x01n\x00\
        \x02\x02\x02\x01u";
    assert_eq!(rig.take(), ack(1, actions));
}

#[test]
fn an_action_that_does_not_fit_leaves_those_before_it() {
    let mut rig = Rig::ready(AgentConfig::new());
    let text = vec![b'x'; 16_000];
    rig.ask(&notify(1), |mut ack| {
        let full = SetError::TooBig { limit: 16_379 };
        ack.set(Scope::Transaction, "a", "x").unwrap();
        let before = ack.len();
        assert_eq!(ack.set(Scope::Transaction, "b", &vec![b'x'; 16_380]), Err(full.clone()));
        assert_eq!(ack.set(Scope::Transaction, "b", &vec![b'x'; 1 << 20]), Err(full.clone()));
        let large = Action::SetVar {
            scope: Scope::Transaction,
            name: b"b",
            value: Value::Bin(&[0; 16_370]),
        };
        assert_eq!(ack.action(&large), Err(full.clone()));
        assert_eq!(ack.len(), before);
        ack.set(Scope::Transaction, "c", &text).unwrap();
        assert_eq!(ack.set(Scope::Transaction, "d", &text), Err(full.clone()));
        assert_eq!(
            full.to_string(),
            "the action does not fit: an ACK is one frame of at most 16379 bytes here"
        );
    });
    let c = set_txn("c", &[vec![9], counted(&text)].concat());
    assert_eq!(rig.take(), ack(1, &[set_a(b"x"), c].concat()));
    assert_eq!(rig.conn.stats().too_big, 1, "counts answers");
}

#[test]
fn clearing_takes_back_this_answer_only() {
    let mut rig = Rig::ready(AgentConfig::new());
    rig.ask(&notify(1), |mut ack| ack.set(Scope::Transaction, "a", "x").unwrap());
    rig.ask(&notify(3), |mut ack| {
        ack.set(Scope::Transaction, "a", "y").unwrap();
        ack.clear();
        assert!(ack.is_empty());
        ack.set(Scope::Transaction, "a", "z").unwrap();
    });
    assert_eq!(rig.take(), [ack(1, &set_a(b"x")), ack(3, &set_a(b"z"))].concat());
}

#[test]
fn names_haproxy_would_drop_are_refused() {
    let name = |len| "n".repeat(len);
    let prefixed = AgentConfig::new().var_prefix("iprep").unwrap();
    let plain = AgentConfig::new();
    // Scope, prefix, name and two dots are 63 bytes at most.
    let cases = [
        (&prefixed, Scope::Transaction, name(53), true),
        (&prefixed, Scope::Transaction, name(54), false),
        (&prefixed, Scope::Session, name(52), true),
        (&prefixed, Scope::Session, name(53), false),
        (&prefixed, Scope::Process, name(52), true),
        (&prefixed, Scope::Process, name(53), false),
        (&prefixed, Scope::Request, name(53), true),
        (&prefixed, Scope::Response, name(54), false),
        // Without a known prefix only what no prefix could make fit.
        (&plain, Scope::Transaction, name(57), true),
        (&plain, Scope::Transaction, name(58), false),
        (&plain, Scope::Transaction, String::new(), false),
        (&plain, Scope::Transaction, "ip-score".to_owned(), false),
        (&plain, Scope::Transaction, "a b".to_owned(), false),
        (&plain, Scope::Transaction, "\u{e4}".to_owned(), false),
        (&plain, Scope::Transaction, "A.b_9".to_owned(), true),
    ];
    for (config, scope, name, good) in cases {
        let mut rig = Rig::ready(config.clone());
        rig.ask(&notify(1), |mut ack| {
            let results = [
                ack.set(scope, &name, 1),
                ack.unset(scope, &name),
                ack.action(&Action::set(scope, &name, 1)),
                ack.action(&Action::unset(scope, &name)),
            ];
            for result in results {
                let refused = matches!(result, Err(SetError::Name(_)));
                assert_eq!((result.is_ok(), refused), (good, !good), "{scope} {name:?}");
            }
            assert_eq!(ack.is_empty(), !good, "{scope} {name:?}");
            if let Ok(var) = Var::new(scope, &name) {
                assert_eq!(ack.set_var(var, 1).is_ok(), good, "{scope} {name:?}");
                assert_eq!(ack.unset_var(var).is_ok(), good, "{scope} {name:?}");
            }
        });
    }
}

/// The fallback is sent without another look at it, so a prefix that makes one of its names too
/// long has to be noticed, in whichever order both are configured.
#[test]
fn a_prefix_set_after_the_fallback_is_checked_against_it() {
    let name = "n".repeat(54);
    let fallback = || [Action::set(Scope::Transaction, &name, 1)];
    let first = AgentConfig::new().var_prefix("iprep").and_then(|c| c.fallback(fallback()));
    assert!(matches!(first, Err(ConfigError::Name(_))), "{first:?}");
    let last = AgentConfig::new().fallback(fallback()).and_then(|c| c.var_prefix("iprep"));
    assert!(matches!(last, Err(ConfigError::Name(_))), "{last:?}");
}

/// 230 bytes of actions and two ids of ten bytes each fill what the smallest frame leaves.
#[test]
fn the_largest_fallback_fits_the_smallest_ack() {
    let text = "x".repeat(223);
    let config =
        AgentConfig::new().fallback([Action::set(Scope::Transaction, "a", text.as_str())]).unwrap();
    let mut rig = Rig::new(config);
    rig.feed(0, &hello_of(256)).unwrap();
    rig.take();
    let big = frame(NOTIFY, FIN, u64::MAX, u64::MAX, b"");
    rig.ask(&big, |ack| ack.fall_back(Cause::Error));
    let output = rig.take();
    assert_eq!(output.len() - 4, 255);
    let expected = frame(ACK, FIN, u64::MAX, u64::MAX, &set_a(text.as_bytes()));
    assert_eq!(output, expected);
}

// The end of the stream.

#[test]
fn answers_owed_at_the_end_of_the_stream_are_given_up() {
    let (mut rig, ticket) = owing(with_fallback());
    rig.conn.peer_closed(rig.at(0));
    assert!(rig.conn.interest().done);
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::PeerClosed));
    assert_eq!(rig.take(), b"");
    assert!(rig.answer(0, ticket).is_err());
    assert_eq!(rig.conn.stats().abandoned, 1);
    rig.balanced();
}

/// HAProxy takes an answer that comes after it shut its own direction down.
#[test]
fn what_is_in_the_output_at_the_end_of_the_stream_is_still_written() {
    let mut rig = Rig::ready(AgentConfig::new());
    rig.feed(0, &notify(1)).unwrap();
    rig.conn.peer_closed(rig.at(100));
    let want = rig.conn.interest();
    assert!(want.write && !want.read && !want.done, "{want:?}");
    assert_eq!(rig.conn.transmit(), ack(1, b""));
    rig.conn.transmitted(3);
    assert!(!rig.conn.interest().done);
    assert_eq!(rig.take(), ack(1, b"")[3..]);
    assert!(rig.conn.interest().done);
    // A peer that takes none of it is not waited for.
    let mut rig = Rig::ready(AgentConfig::new());
    rig.feed(0, &notify(1)).unwrap();
    rig.conn.peer_closed(rig.at(100));
    rig.timeout(1100).unwrap();
    assert!(rig.conn.interest().done);
    assert_eq!(rig.conn.transmit(), b"");
}

#[test]
fn the_end_of_the_stream_at_any_time_is_no_error() {
    let hello = hello();
    for cut in 0..hello.len() {
        let mut rig = Rig::new(AgentConfig::new());
        rig.feed(0, &hello[..cut]).unwrap();
        rig.conn.peer_closed(rig.at(0));
        assert!(rig.conn.interest().done);
        assert_eq!(rig.conn.close_reason(), Some(&CloseReason::PeerClosed));
        assert_eq!(rig.take(), b"");
    }
    let mut rig = Rig::new(AgentConfig::new());
    rig.feed(0, &health_check()).unwrap();
    rig.take();
    rig.conn.peer_closed(rig.at(0));
    assert!(rig.conn.interest().done);
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::HealthCheck));
}

#[test]
fn the_first_reason_stays() {
    let mut rig = Rig::ready(AgentConfig::new());
    rig.conn.close(Status(7), "first", rig.at(0));
    rig.conn.close(Status(8), "second", rig.at(0));
    rig.conn.shutdown(rig.at(0));
    rig.conn.peer_closed(rig.at(0));
    assert_eq!(rig.take(), agent_disconnect(7, "first"));
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Closed { status: Status(7) }));
    assert!(rig.conn.interest().done);
    rig.conn.close(Status(9), "third", rig.at(0));
    assert_eq!(rig.take(), b"");
}

#[test]
fn a_long_goodbye_is_cut_to_what_fits_every_frame() {
    let mut rig = Rig::ready(AgentConfig::new());
    rig.conn.close(Status(99), &"x".repeat(300), rig.at(0));
    assert_eq!(rig.take(), agent_disconnect(99, &"x".repeat(220)));
}

// Shutdown.

/// Told to leave: at once, or only after the bytes, answers and calls of a case.
fn leaves_at_once(rig: &mut Rig) {
    rig.conn.shutdown(rig.at(0));
    assert_eq!(rig.take(), agent_disconnect(0, STOPPING));
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Drained));
    assert!(!rig.conn.interest().done, "HAProxy closes first");
    rig.conn.peer_closed(rig.at(0));
    assert!(rig.conn.interest().done);
}

/// Takes the frame that says goodbye; a driver calls `receive` when `ready` says so.
fn leaves_now(rig: &mut Rig, before: &[u8]) {
    assert!(rig.conn.interest().ready);
    assert_eq!(rig.feed(0, b""), Ok(vec![]));
    assert_eq!(rig.take(), [before.to_vec(), agent_disconnect(0, STOPPING)].concat());
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Drained));
    rig.balanced();
}

#[test]
fn shutdown_before_the_hello() {
    for bytes in [&b""[..], &hello()[..10]] {
        let mut rig = Rig::new(AgentConfig::new());
        rig.feed(0, bytes).unwrap();
        rig.conn.shutdown(rig.at(0));
        assert!(rig.conn.interest().done);
        assert_eq!(rig.take(), b"");
        assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Drained));
    }
}

#[test]
fn shutdown_while_idle() {
    leaves_at_once(&mut Rig::ready(AgentConfig::new()));
}

#[test]
fn shutdown_with_answers_written_but_not_taken() {
    let mut rig = Rig::ready(AgentConfig::new());
    rig.feed(0, &notify(1)).unwrap();
    rig.conn.shutdown(rig.at(0));
    assert_eq!(rig.take(), [ack(1, b""), agent_disconnect(0, STOPPING)].concat());
}

#[test]
fn shutdown_with_a_forgotten_ack() {
    let mut rig = Rig::ready(with_fallback());
    rig.ask(&notify(1), |ack| mem::forget(ack));
    rig.conn.shutdown(rig.at(0));
    assert_eq!(rig.take(), [fallen(1), agent_disconnect(0, STOPPING)].concat());
    rig.balanced();
}

#[test]
fn shutdown_with_half_a_frame_waits_for_the_rest() {
    let mut rig = Rig::ready(AgentConfig::new());
    let notify = notify(1);
    rig.feed(0, &notify[..6]).unwrap();
    rig.conn.shutdown(rig.at(0));
    assert_eq!(rig.conn.close_reason(), None);
    assert_eq!(rig.feed(0, &notify[6..]), Ok(vec!["Notify 1/1".to_owned()]));
    // The event that answers it was the last one in the input, so the goodbye is out already.
    assert_eq!(rig.take(), [ack(1, b""), agent_disconnect(0, STOPPING)].concat());
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Drained));
}

#[test]
fn shutdown_with_half_a_frame_that_never_ends() {
    let mut rig = Rig::ready(AgentConfig::new());
    rig.feed(0, &notify(1)[..6]).unwrap();
    rig.conn.shutdown(rig.at(0));
    let error = rig.timeout(10_000).unwrap_err();
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Protocol(error)));
}

#[test]
fn shutdown_with_an_answer_owed() {
    let (mut rig, ticket) = owing(AgentConfig::new());
    rig.conn.shutdown(rig.at(0));
    let want = rig.conn.interest();
    assert!(want.read && !want.ready, "{want:?}");
    // Requests that come before the goodbye are answered like any other.
    assert_eq!(rig.feed(0, &notify(1)), Ok(vec!["Notify 1/1".to_owned()]));
    assert_eq!(rig.take(), ack(1, b""));
    assert_eq!(rig.conn.close_reason(), None);
    rig.answer(0, ticket).unwrap().commit();
    leaves_now(&mut rig, &ack(9, b""));
}

#[test]
fn shutdown_with_an_answer_owed_that_its_deadline_gives() {
    let (mut rig, _ticket) = owing(with_fallback());
    rig.conn.shutdown(rig.at(0));
    rig.timeout(10_000).unwrap();
    leaves_now(&mut rig, &fallen(9));
}

#[test]
fn shutdown_with_an_answer_owed_that_haproxy_gives_up() {
    let (mut rig, _ticket) = owing(AgentConfig::new());
    rig.conn.shutdown(rig.at(0));
    assert_eq!(rig.feed(0, &haproxy_disconnect(0, "")), Ok(vec!["Disconnected 0".to_owned()]));
    assert_eq!(rig.take(), agent_disconnect(0, "normal"));
    rig.balanced();
}

#[test]
fn shutdown_with_fragments_waits_for_the_last() {
    let fragments = |flags, payload: &[u8]| frame(UNSET, flags, 5, 1, payload);
    let first = frame(NOTIFY, 0, 5, 1, &MESSAGE[..2]);
    let ends: [(Vec<u8>, &str, Vec<u8>); 2] = [
        (fragments(FIN, &MESSAGE[2..]), "Notify 5/1", ack(5, b"")),
        (fragments(FIN | ABORT, b""), "Abandoned 5/1 Haproxy", vec![]),
    ];
    for (last, event, answer) in ends {
        let mut rig = Rig::ready(AgentConfig::new());
        rig.feed(0, &first).unwrap();
        rig.conn.shutdown(rig.at(0));
        assert_eq!(rig.conn.close_reason(), None);
        assert_eq!(rig.feed(0, &last), Ok(vec![event.to_owned()]));
        assert_eq!(rig.take(), [answer, agent_disconnect(0, STOPPING)].concat());
    }
    // Or for the drain deadline.
    let mut rig = Rig::ready(AgentConfig::new());
    rig.feed(0, &first).unwrap();
    rig.conn.shutdown(rig.at(0));
    rig.timeout(29_999).unwrap();
    assert_eq!(rig.conn.close_reason(), None);
    rig.timeout(30_000).unwrap();
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Cut { owed: 0 }));
}

#[test]
fn shutdown_with_frames_kept_because_output_is_not_taken() {
    let output = NonZeroUsize::new(1).unwrap();
    let mut rig = Rig::ready(AgentConfig::new().limits(Limits::new().output(output)));
    let input = [notify(1), notify(3)].concat();
    assert_eq!(rig.feed(0, &input), Ok(vec!["Notify 1/1".to_owned()]));
    rig.conn.shutdown(rig.at(0));
    assert_eq!(rig.take(), ack(1, b""), "3/1 was received, so it is answered");
    assert!(rig.conn.interest().ready);
    assert_eq!(rig.feed(0, b""), Ok(vec!["Notify 3/1".to_owned()]));
    let mut sent = rig.take();
    rig.feed(0, b"").unwrap();
    sent.extend(rig.take());
    assert_eq!(sent, [ack(3, b""), agent_disconnect(0, STOPPING)].concat());
}

#[test]
fn haproxys_goodbye_gives_up_what_is_owed() {
    let (mut rig, ticket) = owing(with_fallback());
    let seen = rig.feed(0, &[haproxy_disconnect(2, "a timeout occurred"), notify(1)].concat());
    assert_eq!(seen, Ok(vec!["Disconnected 2".to_owned()]));
    assert_eq!(rig.take(), agent_disconnect(0, "normal"));
    assert!(rig.answer(0, ticket).is_err());
    let reason =
        CloseReason::Haproxy { status: Status::TIMEOUT, message: "a timeout occurred".into() };
    assert_eq!(rig.conn.close_reason(), Some(&reason));
    assert_eq!((rig.conn.stats().abandoned, rig.conn.stats().notifies), (1, 1));
    rig.balanced();
}

#[test]
fn a_broken_protocol_gives_up_what_is_owed() {
    let (mut rig, ticket) = owing(with_fallback());
    let error = rig.feed(0, &frame(NOTIFY, FIN, 1, 1, b"\x05m")).unwrap_err();
    assert!(matches!(error, ProtocolError::Malformed { .. }));
    assert!(rig.answer(0, ticket).is_err());
    assert_eq!(rig.conn.stats().abandoned, 1);
    rig.balanced();
}

// Taking the output.

#[test]
fn output_taken_byte_by_byte_is_the_same() {
    let mut rig = Rig::new(AgentConfig::new());
    rig.feed(0, &[hello(), notify(1)].concat()).unwrap();
    let mut sent = Vec::new();
    let mut next = 3;
    while let Some(&byte) = rig.conn.transmit().first() {
        sent.push(byte);
        rig.conn.transmitted(1);
        // Answers are added while earlier ones are half taken.
        if next <= 21 {
            rig.feed(0, &notify(next)).unwrap();
            next += 2;
        }
    }
    let hello = agent_hello(16380, "pipelining,fragmentation");
    let acks: Vec<u8> = (1..=21).step_by(2).flat_map(|id| ack(id, b"")).collect();
    assert_eq!(sent, [hello, acks].concat());
    assert!(!rig.conn.interest().write);
}

#[test]
fn taking_more_than_there_is_takes_all() {
    let mut rig = Rig::ready(AgentConfig::new());
    rig.feed(0, &notify(1)).unwrap();
    rig.conn.transmitted(usize::MAX);
    assert_eq!(rig.conn.transmit(), b"");
    rig.conn.transmitted(0);
    rig.conn.transmitted(10);
    rig.feed(0, &notify(3)).unwrap();
    assert_eq!(rig.take(), ack(3, b""));
}

#[test]
fn swapping_the_output_takes_it_whole() {
    let mut rig = Rig::ready(AgentConfig::new());
    rig.feed(0, &[notify(1), notify(3)].concat()).unwrap();
    rig.conn.transmitted(2);
    let mut buffer = vec![0xee; 100];
    rig.conn.swap_output(&mut buffer);
    assert_eq!(buffer, [&ack(1, b"")[2..], &ack(3, b"")].concat());
    let want = rig.conn.interest();
    assert!(!want.write, "{want:?}");
    assert_eq!(rig.conn.transmit(), b"");
    rig.feed(0, &notify(5)).unwrap();
    rig.conn.swap_output(&mut buffer);
    assert_eq!(buffer, ack(5, b""));
    rig.conn.swap_output(&mut buffer);
    assert_eq!(buffer, b"");
}

#[test]
fn swapped_output_of_a_goodbye_leads_to_the_end() {
    let mut rig = Rig::ready(AgentConfig::new());
    rig.conn.close(Status::NORMAL, "", rig.at(0));
    rig.conn.peer_closed(rig.at(0));
    assert!(!rig.conn.interest().done);
    let mut buffer = Vec::new();
    rig.conn.swap_output(&mut buffer);
    assert_eq!(buffer, agent_disconnect(0, ""));
    assert!(rig.conn.interest().done);
}

/// The shape of a driver: the connection survives being moved between calls, and tickets of many
/// connections can be kept in one place.
#[test]
fn connections_and_tickets_can_be_moved() {
    let start = Instant::now();
    let mut all: Vec<(AgentConnection, Option<Ticket>)> = Vec::new();
    for _ in 0..3 {
        let mut rig = Rig::ready(AgentConfig::new());
        let ticket = rig.defer(0, &notify(1));
        all.push((rig.conn, Some(ticket)));
    }
    all.reverse();
    for (conn, ticket) in &mut all {
        let now = start + Duration::from_secs(1);
        conn.answer(ticket.take().unwrap(), now).unwrap().commit();
        assert_eq!(conn.transmit(), ack(1, b""));
    }
}
