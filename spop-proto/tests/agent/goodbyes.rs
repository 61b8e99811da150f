//! A connection ends: at the end of the stream, by a goodbye of either side, by a fault.

use spop_proto::{AgentConfig, CloseReason, ProtocolError, Status};

use crate::common::*;
use crate::support::*;

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

/// A frame of HAProxy's may be 1 MiB, and what is said of it is for a line of a log.
#[test]
fn a_long_goodbye_of_haproxys_is_told_in_part() {
    let told = |message: &str| {
        let mut rig = Rig::ready(AgentConfig::new());
        rig.feed(0, &haproxy_disconnect(0, message)).unwrap();
        match rig.conn.close_reason() {
            Some(CloseReason::Haproxy { message, .. }) => message.to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(told(&"x".repeat(256)), "x".repeat(256));
    assert_eq!(told(&"x".repeat(257)), "x".repeat(256) + "...");
    assert_eq!(told(&"\x1b".repeat(10_000)).len(), 256 * 4 + 3);
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

/// HAProxy may say goodbye right behind its HELLO (`maxconn` reached), in one read.
#[test]
fn a_goodbye_right_behind_the_hello() {
    let mut rig = Rig::new(AgentConfig::new());
    let bytes = [hello(), haproxy_disconnect(0, "normal"), notify(1)].concat();
    let expected = ["Hello", "Disconnected 0"].map(str::to_owned).to_vec();
    assert_eq!(rig.feed(0, &bytes), Ok(expected));
    let output = [agent_hello(16380, "pipelining,fragmentation"), agent_disconnect(0, "normal")];
    assert_eq!(rig.take(), output.concat());
    ends(rig, "goodbye");
}

#[test]
fn goodbyes_without_a_status_or_with_an_odd_one() {
    let cases: [(&[u8], u32); 5] = [
        (b"", 0),
        (b"\x07message\x08\x02hi", 0),
        (b"\x0bstatus-code\x02\x02", 2),
        (b"\x0bstatus-code\x05\xf4\x10", 500),
        // Above 32 bits: no status anybody defined.
        (b"\x0bstatus-code\x05\xff\xf0\xfe\xfe\xfe\xfe\xfe\xfe\xfe\x0e", 99),
    ];
    for (payload, status) in cases {
        let mut rig = Rig::ready(AgentConfig::new());
        let seen = rig.feed(0, &frame(HAPROXY_DISCONNECT, 0, 3, 4, payload));
        assert_eq!(seen, Ok(vec![format!("Disconnected {status}")]), "{payload:?}");
        assert_eq!(rig.take(), agent_disconnect(0, "normal"));
    }
}
