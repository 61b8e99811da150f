//! What is in an answer.

use std::panic::{AssertUnwindSafe, catch_unwind};

use spop_proto::handler::ServiceFn;
use spop_proto::{
    Ack, Action, AgentConfig, Cause, ConfigError, Exchange, HandlerError, Message, Router, Scope,
    Service, SetError, Value, Var, testing,
};

use crate::common::*;
use crate::support::*;

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

/// What a route takes back is its own, whether it goes on or fails, and whoever else answers.
#[test]
fn in_a_route_clearing_takes_back_the_actions_of_its_message_only() {
    let router = || {
        let clear = |message: Message<'_>, ack: &mut Ack<'_>| {
            ack.set(Scope::Transaction, "gone", 1)?;
            ack.clear();
            ack.set(Scope::Transaction, "cleared", 2)?;
            match message.get("fail")? {
                Some(true) => Err(HandlerError::new("on purpose")),
                _ => Ok(()),
            }
        };
        let router = Router::new()
            .on("clear", clear)
            .fallback([Action::unset(Scope::Transaction, "cleared")]);
        router.unwrap().on("a", |_, ack| Ok(ack.set(Scope::Transaction, "a", 1)?))
    };
    let asked = testing::message("a").message("clear");
    let answer = asked.clone().message("a").ask(&router());
    assert_eq!(answer.to_string(), "txn.a = int32 1\ntxn.cleared = int32 2\ntxn.a = int32 1\n");
    let answer = asked.clone().arg("fail", true).message("a").ask(&router());
    assert_eq!(
        answer.to_string(),
        "txn.a = int32 1\ntxn.cleared unset\ntxn.a = int32 1\nerror: on purpose\n"
    );
    // Those without a route, and beside one that waits.
    let rest = |_: Message<'_>, ack: &mut Ack<'_>| {
        ack.clear();
        Ok(())
    };
    let waits = |mut x: Exchange| async move {
        x.clear();
        x.set(Scope::Transaction, "waited", 3)?;
        Ok(x)
    };
    let mixed = router().otherwise(rest).concurrent("waits", waits);
    let answer = asked.message("waits").message("unknown").ask(&mixed);
    assert_eq!(
        answer.to_string(),
        "txn.a = int32 1\ntxn.cleared = int32 2\ntxn.waited = int32 3\n"
    );
}

/// Who calls a router has set things too, and may take back everything once the router is done, however
/// that came.
#[test]
fn around_a_router_clearing_takes_back_everything() {
    let router = Router::new()
        .on("clear", |_, ack| {
            ack.clear();
            Ok(ack.set(Scope::Transaction, "cleared", 2)?)
        })
        .on("fail", |_, _| Err(HandlerError::new("on purpose")))
        .on("panic", |_, _| panic!("on purpose"));
    let service = ServiceFn::new(move |notify, ack| {
        ack.set(Scope::Transaction, "before", 1)?;
        let routed = catch_unwind(AssertUnwindSafe(|| Service::notify(&router, notify, ack)));
        if !matches!(routed, Ok(Ok(()))) || notify.message("all").is_some() {
            ack.clear();
        }
        Ok(ack.set(Scope::Transaction, "after", 3)?)
    });
    for (then, text) in [
        ("nothing", "txn.before = int32 1\ntxn.cleared = int32 2\ntxn.after = int32 3\n"),
        ("fail", "txn.after = int32 3\n"),
        ("panic", "txn.after = int32 3\n"),
        ("all", "txn.after = int32 3\n"),
    ] {
        let answer = testing::message("clear").message(then).ask(&service);
        assert_eq!(answer.to_string(), text, "{then}");
    }
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
