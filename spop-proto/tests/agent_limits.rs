//! Every row of the table of limits, hit; time is an argument, so none of it takes any.

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

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use common::*;
use spop_proto::{
    Action, AgentConfig, CloseReason, Event, FirstBytes, Limits, Overload, ProtocolError, Scope,
    SetError, Status, Waiting,
};

fn with(limits: Limits) -> AgentConfig {
    AgentConfig::new().limits(limits)
}

fn bytes(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

fn count(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn timeout(waiting: Waiting) -> ProtocolError {
    ProtocolError::Timeout { waiting }
}

/// A text that takes `total` bytes together with its length.
fn text_of(total: usize) -> Vec<u8> {
    let fits = |text: &usize| varint(*text as u64).len() + text == total;
    let text = (0..total).rev().find(fits).unwrap();
    counted(&vec![b'x'; text])
}

/// A NOTIFY whose frame has that length.
fn notify_of_length(length: usize) -> Vec<u8> {
    let framing = frame(NOTIFY, FIN, 1, 1, b"").len() - 4;
    let head = b"\x01m\x01\x01a\x08";
    let payload = [&head[..], &text_of(length - framing - head.len())].concat();
    let frame = frame(NOTIFY, FIN, 1, 1, &payload);
    assert_eq!(frame.len() - 4, length);
    frame
}

// Sizes.

#[test]
fn frames_are_bounded_by_the_own_limit_not_by_the_negotiated_one() {
    let config = AgentConfig::new().max_frame_size(2000).unwrap();
    let mut rig = Rig::new(config);
    rig.feed(0, &hello_of(1000)).unwrap();
    assert_eq!(rig.conn.info().max_frame_size(), 1000);
    assert_eq!(rig.feed(0, &notify_of_length(2000)), Ok(vec!["Notify 1/1".to_owned()]));
    let error = rig.feed(0, &notify_of_length(2001)).unwrap_err();
    let offset = (hello_of(1000).len() + 4 + 2000) as u64;
    assert_eq!(error, ProtocolError::FrameTooBig { length: 2001, limit: 2000, offset });
}

#[test]
fn a_first_frame_of_4_kib_is_the_largest() {
    let filled = |length: usize| {
        let pairs = hello_pairs(16380, "").concat();
        let text = text_of(length - 7 - pairs.len() - b"\x03new\x08".len());
        let filler = pair("new", &[vec![8], text].concat());
        let frame = frame(HAPROXY_HELLO, FIN, 0, 0, &[pairs, filler].concat());
        assert_eq!(frame.len() - 4, length);
        frame
    };
    let mut rig = Rig::new(AgentConfig::new());
    assert_eq!(rig.feed(0, &filled(4096)), Ok(vec!["Hello".to_owned()]));
    let mut rig = Rig::new(AgentConfig::new());
    let error = rig.feed(0, &filled(4097)).unwrap_err();
    assert_eq!(error, ProtocolError::NotSpop { found: FirstBytes::Length(4097) });
    // The limit is gone once the handshake is done.
    let mut rig = Rig::ready(AgentConfig::new());
    assert_eq!(rig.feed(0, &notify_of_length(5000)), Ok(vec!["Notify 1/1".to_owned()]));
}

#[test]
fn a_first_frame_above_a_small_own_limit_is_refused() {
    let config = AgentConfig::new().max_frame_size(256).unwrap();
    let mut rig = Rig::new(config);
    let error = rig.feed(0, &[0, 0, 1, 1]).unwrap_err();
    assert_eq!(error, ProtocolError::NotSpop { found: FirstBytes::Length(257) });
}

#[test]
fn what_does_not_speak_spop_is_told_apart() {
    let cases: [(&[u8], FirstBytes, &str); 8] = [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", FirstBytes::Http, "an HTTP request"),
        (b"POST /x HTTP/1.1\r\n", FirstBytes::Http, "an HTTP request"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", FirstBytes::Http, "an HTTP request"),
        (&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc], FirstBytes::Tls, "a TLS handshake"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", FirstBytes::Proxy, "a PROXY protocol header"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", FirstBytes::Proxy, "a PROXY protocol header"),
        (b"hello?\n", FirstBytes::Text, "text"),
        (&[0xff; 8], FirstBytes::Length(u32::MAX), "a length of 4294967295 bytes"),
    ];
    for (input, found, text) in cases {
        // In one piece and byte by byte: the diagnosis needs four bytes and gets them either way.
        for chunk in [input.len(), 1] {
            let mut rig = Rig::new(AgentConfig::new());
            let mut chunks = input.chunks(chunk);
            let error = chunks.find_map(|bytes| rig.feed(0, bytes).err()).expect(text);
            assert_eq!(error, ProtocolError::NotSpop { found });
            assert_eq!(error.status(), Status::FRAME_TOO_BIG);
            let text = format!("the connection begins with {text}, not with a SPOP frame");
            assert_eq!(rig.take(), agent_disconnect(3, &text));
        }
    }
}

#[test]
fn an_ack_stays_below_the_offer() {
    // Offered, own limit, largest length of an ACK.
    let cases =
        [(16380, 1 << 20, 16379), (256, 1 << 20, 255), (65535, 1000, 1000), (1001, 1000, 1000)];
    for (offered, own, limit) in cases {
        let mut rig = Rig::new(AgentConfig::new().max_frame_size(own).unwrap());
        rig.feed(0, &hello_of(offered)).unwrap();
        rig.take();
        // The value that fills the frame: type, flags and ids take 7, `set-var txn.a` 5, BINARY 1.
        let value = [vec![9], text_of(limit - 7 - 5 - 1)].concat();
        let fits = value.iter().filter(|byte| **byte == b'x').count();
        let text = vec![b'x'; fits + 1];
        let now = rig.at(0);
        let notify = notify(1);
        let mut input = &notify[..];
        let Ok(Some(Event::Notify(_, mut ack))) = rig.conn.receive(&mut input, now) else {
            panic!("no NOTIFY");
        };
        let full = SetError::TooBig { limit };
        assert_eq!(ack.set(Scope::Transaction, "a", &text), Err(full.clone()), "{offered}");
        assert!(ack.is_empty());
        assert_eq!(ack.set(Scope::Transaction, "a", &text[..fits]), Ok(()), "{offered}");
        assert_eq!(ack.unset(Scope::Transaction, "b"), Err(full), "{offered}");
        ack.commit();
        let output = rig.take();
        assert_eq!(output.len() - 4, limit, "{offered}");
        assert_eq!(output, common::ack(1, &set_txn("a", &value)), "{offered}");
        assert_eq!(rig.conn.stats().too_big, 1, "counts answers");
    }
}

#[test]
fn a_length_of_4_gib_costs_no_memory() {
    let config = AgentConfig::new().max_frame_size(1 << 30).unwrap();
    let mut rig = Rig::ready(config);
    // As long as it may be, and all of it but a few bytes missing.
    assert_eq!(rig.feed(0, &[0x40, 0, 0, 0, 3, 0, 0, 0, 1]), Ok(vec![]));
    assert!(rig.conn.buffered() <= 512, "{}", rig.conn.buffered());
    let mut rig = Rig::ready(AgentConfig::new());
    let error = rig.feed(0, &[0xff; 4]).unwrap_err();
    assert_eq!(variant(&error), "FrameTooBig");
    rig.take();
    assert!(rig.conn.buffered() <= 512, "{}", rig.conn.buffered());
}

#[test]
fn memory_follows_the_bytes_that_came() {
    let mut rig = Rig::ready(AgentConfig::new());
    let notify = notify_of_length(100_000);
    for chunk in notify[..90_000].chunks(1000) {
        rig.feed(0, chunk).unwrap();
    }
    assert!((90_000..=200_000).contains(&rig.conn.buffered()), "{}", rig.conn.buffered());
    assert_eq!(rig.feed(0, &notify[90_000..]), Ok(vec!["Notify 1/1".to_owned()]));
}

// Answers in flight.

#[test]
fn too_many_answers_in_flight_are_shed() {
    let fallback = [Action::set(Scope::Transaction, "f", true)];
    let config = with(Limits::new().in_flight(count(2))).fallback(fallback).unwrap();
    let mut rig = Rig::ready(config);
    let first = rig.defer(0, &notify(1));
    let _second = rig.defer(0, &notify(3));
    assert_eq!(rig.feed(0, &notify(5)), Ok(vec![]), "the third is not even asked");
    assert_eq!(rig.take(), ack(5, &set_txn("f", b"\x11")));
    let stats = rig.conn.stats();
    assert_eq!((stats.notifies, stats.shed), (3, 1));
    // One answered, one may come again.
    let now = rig.at(0);
    rig.conn.answer(first, now).unwrap().commit();
    assert_eq!(rig.feed(0, &notify(7)), Ok(vec!["Notify 7/1".to_owned()]));
    assert_eq!(rig.conn.stats().shed, 1);
}

#[test]
fn a_notify_asked_anew_takes_the_place_of_its_first() {
    let mut rig = Rig::ready(with(Limits::new().in_flight(count(1))));
    let _first = rig.defer(0, &notify(1));
    let _again = rig.defer(0, &notify(1));
    assert_eq!((rig.conn.stats().shed, rig.conn.stats().superseded), (0, 1));
}

#[test]
fn a_reassembled_notify_is_shed_too() {
    let mut rig = Rig::ready(with(Limits::new().in_flight(count(1))));
    let _owed = rig.defer(0, &notify(1));
    let fragments =
        [frame(NOTIFY, 0, 3, 1, &MESSAGE[..2]), frame(UNSET, FIN, 3, 1, &MESSAGE[2..])].concat();
    assert_eq!(rig.feed(0, &fragments), Ok(vec![]));
    assert_eq!(rig.take(), ack(3, b""));
    assert_eq!(rig.conn.stats().shed, 1);
}

#[test]
fn reading_waits_for_answers() {
    let limits = Limits::new().in_flight(count(2)).overload(Overload::Wait);
    let mut rig = Rig::ready(with(limits));
    // Four in one read, and the beginning of a fifth; two of them are held back.
    let input = [notify(1), notify(3), notify(5), notify(7), notify(9)[..6].to_vec()].concat();
    let mut rest = &input[..];
    let now = rig.at(0);
    let mut tickets = Vec::new();
    while let Some(event) = rig.conn.receive(&mut rest, now).unwrap() {
        let Event::Notify(_, ack) = event else { panic!("{event:?}") };
        tickets.push(ack.defer());
    }
    assert_eq!(tickets.len(), 2);
    assert_eq!(rest, b"", "what has to wait is kept");
    let want = rig.conn.interest();
    assert!(!want.read && !want.ready, "{want:?}");

    rig.conn.answer(tickets.remove(1), now).unwrap().commit();
    assert!(rig.conn.interest().ready, "a frame waits that needs no reading");
    assert_eq!(rig.feed(0, b""), Ok(vec!["Notify 5/1".to_owned(), "Notify 7/1".to_owned()]));
    let want = rig.conn.interest();
    assert!(want.read && !want.ready, "{want:?}");
    assert_eq!(rig.feed(0, &notify(9)[6..]), Ok(vec!["Notify 9/1".to_owned()]));
    assert_eq!(rig.take(), [ack(3, b""), ack(5, b""), ack(7, b""), ack(9, b"")].concat());
    assert_eq!(rig.conn.stats().shed, 0);
}

/// The clock of a frame runs while this side reads: one that was kept while reading had to wait
/// is timed as soon as it need not, or a peer that sends no more is held for ever.
#[test]
fn half_a_frame_kept_while_waiting_is_timed_afterwards() {
    let limits = Limits::new().in_flight(count(1)).overload(Overload::Wait);
    let mut rig = Rig::ready(with(limits));
    let ticket = rig.defer(0, &notify(1));
    rig.feed(0, &notify(3)[..6]).unwrap();
    let now = rig.at(1000);
    rig.conn.answer(ticket, now).unwrap().commit();
    rig.take();
    // As a driver does: whatever `ready` asks for, then the deadlines.
    if rig.conn.interest().ready {
        rig.feed(1000, b"").unwrap();
    }
    rig.timeout(1001).unwrap();
    assert_eq!(rig.timeout(10_999), Ok(()), "the frame timeout counts from 1 000 ms on");
    assert_eq!(rig.timeout(11_000), Err(timeout(Waiting::Frame)));
}

/// The same of a length that is known to be wrong: it is refused without waiting for more.
#[test]
fn a_bad_length_kept_while_waiting_is_refused_afterwards() {
    let limits = Limits::new().in_flight(count(1)).overload(Overload::Wait);
    let mut rig = Rig::ready(with(limits));
    let ticket = rig.defer(0, &notify(1));
    rig.feed(0, &[0xff; 4]).unwrap();
    let now = rig.at(0);
    rig.conn.answer(ticket, now).unwrap().commit();
    assert!(rig.conn.interest().ready, "there is something to say about what was kept");
    assert_eq!(variant(&rig.feed(0, b"").unwrap_err()), "FrameTooBig");
}

// Fragments.

fn fragment(kind: u8, flags: u32, length: usize) -> Vec<u8> {
    frame(kind, flags, 5, 1, &vec![0; length])
}

#[test]
fn a_payload_over_the_limit_is_refused_and_its_rest_skipped() {
    let mut rig = Rig::ready(with(Limits::new().payload(bytes(100))));
    assert_eq!(rig.feed(0, &fragment(NOTIFY, 0, 60)), Ok(vec![]));
    assert_eq!(rig.feed(0, &fragment(UNSET, 0, 40)), Ok(vec![]), "exactly the limit");
    assert_eq!(rig.take(), b"");
    assert_eq!(rig.feed(0, &fragment(UNSET, 0, 1)), Ok(vec!["Abandoned 5/1 Limit".to_owned()]));
    assert_eq!(rig.take(), frame(ACK, FIN | ABORT, 5, 1, b""));
    assert!(rig.conn.buffered() < 1000, "the payload is gone");
    // HAProxy may have sent any number more by then. They are no reason to lose patience.
    for _ in 0..1000 {
        assert_eq!(rig.feed(0, &fragment(UNSET, 0, 200)), Ok(vec![]));
    }
    // The connection lives, also for a fragmented payload.
    assert_eq!(rig.feed(0, &notify(7)), Ok(vec!["Notify 7/1".to_owned()]));
    let again = [frame(NOTIFY, 0, 9, 1, &MESSAGE[..3]), frame(UNSET, FIN, 9, 1, &MESSAGE[3..])];
    assert_eq!(rig.feed(0, &again.concat()), Ok(vec!["Notify 9/1".to_owned()]));
    assert_eq!(rig.take(), [ack(7, b""), ack(9, b"")].concat());
    let stats = rig.conn.stats();
    assert_eq!((stats.refused, stats.ignored, stats.notifies), (1, 0, 2));
}

/// HAProxy that reads the refusal while it is still sending stops for good: it asks nothing on that
/// connection any more, but counts it among those it has.
#[test]
fn a_connection_on_which_haproxy_stopped_in_the_middle_leaves() {
    let mut rig = Rig::ready(with(Limits::new().payload(bytes(100))));
    let ticket = rig.defer(0, &notify(7));
    rig.feed(0, &fragment(NOTIFY, 0, 101)).unwrap();
    assert_eq!(rig.take(), frame(ACK, FIN | ABORT, 5, 1, b""));
    assert_eq!(rig.deadline(), Some(100));
    // More comes, which HAProxy had sent before.
    rig.feed(80, &fragment(UNSET, 0, 50)).unwrap();
    rig.timeout(100).unwrap();
    rig.timeout(179).unwrap();
    assert_eq!(rig.conn.close_reason(), None);
    rig.timeout(180).unwrap();
    assert_eq!(rig.take(), b"", "an answer is still owed");
    let now = rig.at(200);
    rig.conn.answer(ticket, now).unwrap().commit();
    assert!(rig.conn.interest().ready);
    rig.feed(200, b"").unwrap();
    let goodbye = agent_disconnect(0, "a payload was refused");
    assert_eq!(rig.take(), [ack(7, b""), goodbye].concat());
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Unused));
}

/// If its last fragment comes, or it asks something else, it goes on as ever.
#[test]
fn a_connection_on_which_haproxy_had_sent_everything_stays() {
    for sign in [fragment(UNSET, FIN, 50), notify(7)] {
        let mut rig = Rig::ready(with(Limits::new().payload(bytes(100))));
        rig.feed(0, &fragment(NOTIFY, 0, 101)).unwrap();
        rig.feed(50, &sign).unwrap();
        rig.take();
        rig.timeout(5_000).unwrap();
        assert_eq!((rig.conn.close_reason(), rig.conn.interest().ready), (None, false));
    }
}

/// HAProxy that had sent everything takes the refusal for the answer: that is the fallback.
#[test]
fn a_refusal_carries_the_fallback() {
    let config = with(Limits::new().payload(bytes(100)));
    let mut rig =
        Rig::ready(config.fallback([Action::set(Scope::Transaction, "f", true)]).unwrap());
    rig.feed(0, &fragment(NOTIFY, 0, 101)).unwrap();
    assert_eq!(rig.take(), frame(ACK, FIN | ABORT, 5, 1, &set_txn("f", b"\x11")));
}

#[test]
fn a_payload_refused_at_its_first_or_last_fragment() {
    for (first, last) in [(101, None), (60, Some(41))] {
        let mut rig = Rig::ready(with(Limits::new().payload(bytes(100))));
        let mut seen = rig.feed(0, &fragment(NOTIFY, 0, first)).unwrap();
        if let Some(last) = last {
            seen = rig.feed(0, &fragment(UNSET, FIN, last)).unwrap();
        }
        assert_eq!(seen, ["Abandoned 5/1 Limit"]);
        assert_eq!(rig.take(), frame(ACK, FIN | ABORT, 5, 1, b""));
        // The ids are free again.
        assert_eq!(rig.feed(0, &notify(5)), Ok(vec!["Notify 5/1".to_owned()]));
        assert_eq!(rig.take(), ack(5, b""));
    }
}

#[test]
fn a_whole_notify_has_no_payload_limit() {
    let mut rig = Rig::ready(with(Limits::new().payload(bytes(100))));
    assert_eq!(rig.feed(0, &notify_of_length(3000)), Ok(vec!["Notify 1/1".to_owned()]));
}

// Output.

#[test]
fn reading_waits_while_output_is_not_taken() {
    let one = ack(1, b"").len();
    let mut rig = Rig::ready(with(Limits::new().output(bytes(2 * one))));
    let input = [notify(1), notify(3), notify(5), notify(7), notify(9)[..3].to_vec()].concat();
    assert_eq!(rig.feed(0, &input), Ok(vec!["Notify 1/1".to_owned(), "Notify 3/1".to_owned()]));
    let want = rig.conn.interest();
    assert!(!want.read && want.write && !want.ready, "{want:?}");
    assert_eq!(rig.feed(0, b""), Ok(vec![]), "asked in vain");
    // One byte less than the limit is room enough.
    rig.conn.transmitted(1);
    let want = rig.conn.interest();
    assert!(want.write && want.ready, "{want:?}");
    assert_eq!(rig.feed(0, b""), Ok(vec!["Notify 5/1".to_owned()]));
    let sent = rig.take();
    assert_eq!(sent, [&ack(1, b"")[1..], &ack(3, b""), &ack(5, b"")].concat());
    assert_eq!(rig.feed(0, b""), Ok(vec!["Notify 7/1".to_owned()]));
    let want = rig.conn.interest();
    assert!(want.read && !want.ready, "{want:?}");
    assert_eq!(rig.feed(0, &notify(9)[3..]), Ok(vec!["Notify 9/1".to_owned()]));
    assert_eq!(rig.take(), [ack(7, b""), ack(9, b"")].concat());
}

/// `ready` says "do not wait": where receiving cannot get anything done, it sends a driver round
/// and round.
#[test]
fn a_drained_connection_with_too_much_output_does_not_spin() {
    let mut rig = Rig::ready(with(Limits::new().output(bytes(1))));
    let ticket = rig.defer(0, &notify(1));
    let now = rig.at(0);
    rig.conn.shutdown(now);
    rig.conn.answer(ticket, now).unwrap().commit();
    let mut turns = 0;
    while rig.conn.interest().ready {
        rig.feed(0, b"").unwrap();
        turns += 1;
        assert!(turns < 3, "ready again and again, and nothing comes of it");
    }
    let mut sent = rig.take();
    while rig.conn.interest().ready {
        rig.feed(0, b"").unwrap();
    }
    sent.extend(rig.take());
    assert_eq!(sent, [ack(1, b""), agent_disconnect(0, "the agent is stopping")].concat());
}

/// HAProxy says so when it gives a payload up. Where the fragments just stop, what came is not held
/// for ever: each has the time of a frame, and beyond it the payload is refused, not the connection.
#[test]
fn a_payload_whose_fragments_stop_coming_is_refused() {
    let mut rig = Rig::ready(AgentConfig::new());
    rig.feed(0, &fragment(NOTIFY, 0, 60)).unwrap();
    rig.timeout(9000).unwrap();
    rig.feed(9000, &fragment(UNSET, 0, 60)).unwrap();
    rig.timeout(18_999).unwrap();
    assert_eq!(rig.take(), b"", "each fragment has its own ten seconds");
    rig.timeout(19_000).unwrap();
    assert_eq!(rig.take(), frame(ACK, FIN | ABORT, 5, 1, b""));
    assert_eq!(rig.conn.stats().refused, 1);
    assert_eq!(rig.feed(19_001, &fragment(UNSET, FIN, 60)), Ok(vec![]), "too late: skipped");
    assert_eq!(rig.conn.stats().ignored, 0);
    assert_eq!(rig.feed(19_002, &notify(7)), Ok(vec!["Notify 7/1".to_owned()]));
    rig.take();
    run_out(&mut rig, 19_002, 60_000);
}

// Frames that mean nothing.

#[test]
fn frames_that_mean_nothing_are_counted_in_a_row() {
    let mut rig = Rig::ready(with(Limits::new().ignored_frames(count(3))));
    let unknown = frame(200, FIN, 1, 1, b"anything");
    for _ in 0..5 {
        assert_eq!(rig.feed(0, &unknown.repeat(3)), Ok(vec![]));
        // One that means something starts the count anew.
        rig.feed(0, &notify(1)).unwrap();
    }
    assert_eq!(rig.conn.stats().ignored, 15);
    rig.feed(0, &unknown.repeat(2)).unwrap();
    // Of whatever kind they are.
    rig.feed(0, &frame(UNSET, FIN, 8, 1, b"")).unwrap();
    let error = rig.feed(0, &frame(NOTIFY, FIN | ABORT, 8, 1, b"")).unwrap_err();
    assert_eq!(error, ProtocolError::TooManyIgnored { limit: 3 });
}

#[test]
fn a_fragment_starts_the_count_anew() {
    let mut rig = Rig::ready(with(Limits::new().ignored_frames(count(1))));
    let unknown = frame(200, FIN, 1, 1, b"");
    for more in [frame(NOTIFY, 0, 5, 1, b""), frame(UNSET, 0, 5, 1, b"")] {
        rig.feed(0, &unknown).unwrap();
        assert_eq!(rig.feed(0, &more), Ok(vec![]));
    }
    assert_eq!(rig.feed(0, &unknown), Ok(vec![]));
}

// Time.

#[test]
fn hello_timeout() {
    let mut rig = Rig::new(with(Limits::new().hello_timeout(ms(300)).unwrap()));
    assert_eq!(rig.deadline(), Some(300));
    // Bytes of a HELLO do not prolong it.
    let hello = hello();
    for (at, byte) in hello[..20].iter().enumerate() {
        rig.feed(10 * at as u64, &[*byte]).unwrap();
    }
    assert_eq!(rig.deadline(), Some(300));
    assert_eq!(rig.timeout(299), Ok(()));
    assert_eq!(rig.timeout(300), Err(timeout(Waiting::Hello)));
    assert_eq!(rig.take(), agent_disconnect(2, "timeout: no HELLO arrived"));
    // Then HAProxy has the close timeout to go.
    assert_eq!(rig.timeout(1299), Ok(()));
    assert!(!rig.conn.interest().done);
    assert_eq!(rig.timeout(1300), Ok(()));
    assert!(rig.conn.interest().done);
}

#[test]
fn the_hello_timeout_ends_with_the_hello() {
    let mut rig = Rig::ready(AgentConfig::new());
    assert_eq!(rig.timeout(1_000_000), Ok(()));
    assert_eq!(rig.deadline(), None, "an idle connection wakes nobody");
    assert_eq!(rig.feed(2_000_000, &notify(1)), Ok(vec!["Notify 1/1".to_owned()]));
}

#[test]
fn the_frame_timeout_is_not_put_off_byte_by_byte() {
    let limits = Limits::new().frame_timeout(ms(500)).unwrap();
    let mut rig = Rig::ready(with(limits));
    let notify = notify(1);
    for (at, byte) in notify[..10].iter().enumerate() {
        assert_eq!(rig.feed(100 + 40 * at as u64, &[*byte]), Ok(vec![]));
    }
    assert_eq!(rig.timeout(599), Ok(()));
    assert_eq!(rig.timeout(600), Err(timeout(Waiting::Frame)));
    assert_eq!(rig.take(), agent_disconnect(2, "timeout: a frame was begun and not finished"));
}

#[test]
fn each_frame_has_its_own_time() {
    let limits = Limits::new().frame_timeout(ms(500)).unwrap();
    let mut rig = Rig::ready(with(limits));
    rig.feed(0, &notify(1)[..5]).unwrap();
    // The rest of it and the beginning of the next.
    rig.feed(400, &[&notify(1)[5..], &notify(3)[..5]].concat()).unwrap();
    assert_eq!(rig.timeout(899), Ok(()));
    rig.feed(899, &notify(3)[5..]).unwrap();
    rig.take();
    assert_eq!(rig.timeout(100_000), Ok(()), "nothing is begun");
}

#[test]
fn the_write_timeout_wants_progress() {
    let limits = Limits::new().write_timeout(ms(500)).unwrap();
    let mut rig = Rig::ready(with(limits.clone()));
    rig.feed(100, &notify(1)).unwrap();
    assert_eq!(rig.deadline(), Some(600));
    // A byte taken now and then is progress.
    for turn in 1..8 {
        rig.conn.transmitted(1);
        rig.timeout(100 + 500 * turn).unwrap();
        assert_eq!(rig.deadline(), Some(600 + 500 * turn));
    }
    // None taken is not, and more output is none either.
    rig.conn.transmitted(0);
    rig.feed(3700, &notify(3)).unwrap();
    assert_eq!(rig.timeout(4099), Ok(()));
    assert_eq!(rig.timeout(4100), Err(timeout(Waiting::Write)));
    let want = rig.conn.interest();
    assert!(want.done && !want.write, "nobody would read a goodbye: {want:?}");
    assert_eq!(rig.conn.transmit(), b"");

    // All of it taken in time, the next answer has the whole time.
    let mut rig = Rig::ready(with(limits));
    rig.feed(0, &notify(1)).unwrap();
    rig.take();
    rig.feed(499, &notify(3)).unwrap();
    assert_eq!(rig.timeout(998), Ok(()));
    assert_eq!(rig.timeout(999), Err(timeout(Waiting::Write)));
}

#[test]
fn late_answers_fall_back_in_the_order_of_their_deadlines() {
    let fallback = [Action::set(Scope::Transaction, "f", true)];
    let limits = Limits::new().answer_timeout(ms(80)).unwrap();
    let mut rig = Rig::ready(with(limits).fallback(fallback).unwrap());
    let fallen = |stream| ack(stream, &set_txn("f", b"\x11"));
    let _a = rig.defer(0, &notify(1));
    let b = rig.defer(10, &notify(3));
    let _c = rig.defer(20, &notify(5));
    let _d = rig.defer(30, &notify(7));
    assert_eq!(rig.deadline(), Some(80));
    assert_eq!(rig.timeout(79), Ok(()));
    assert_eq!(rig.take(), b"");
    let now = rig.at(79);
    rig.conn.answer(b, now).unwrap().commit();
    assert_eq!(rig.take(), ack(3, b""));
    rig.timeout(105).unwrap();
    assert_eq!(rig.take(), [fallen(1), fallen(5)].concat());
    assert_eq!(rig.deadline(), Some(110));
    rig.timeout(110).unwrap();
    assert_eq!(rig.take(), fallen(7));
    let stats = rig.conn.stats();
    assert_eq!((stats.deadlines, stats.answered, rig.conn.in_flight()), (3, 1, 0));
}

#[test]
fn an_answer_given_before_the_deadline_was_handled_counts() {
    let mut rig = Rig::ready(AgentConfig::new());
    let ticket = rig.defer(0, &notify(1));
    let now = rig.at(10_001);
    assert!(rig.conn.owes(&ticket));
    rig.conn.answer(ticket, now).unwrap().commit();
    assert_eq!(rig.conn.stats().answered, 1);
}

#[test]
fn the_drain_deadline_cuts_what_is_owed() {
    let limits = Limits::new().drain_timeout(ms(300)).unwrap();
    let mut rig = Rig::ready(with(limits));
    let first = rig.defer(0, &notify(1));
    let _second = rig.defer(0, &notify(3));
    let _third = rig.defer(0, &notify(5));
    rig.conn.shutdown(rig.at(100));
    assert_eq!(rig.deadline(), Some(400));
    let now = rig.at(200);
    rig.conn.answer(first, now).unwrap().commit();
    rig.timeout(399).unwrap();
    assert_eq!(rig.take(), ack(1, b""));
    assert_eq!(rig.conn.close_reason(), None);
    rig.timeout(400).unwrap();
    assert_eq!(rig.take(), agent_disconnect(0, "the agent is stopping"));
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Cut { owed: 2 }));
    assert_eq!((rig.conn.in_flight(), rig.conn.stats().abandoned), (0, 2));
}

/// A driver may say it again in every turn: the time to drain is counted from the first.
#[test]
fn shutting_down_again_does_not_put_off_the_drain_deadline() {
    let limits = Limits::new().drain_timeout(ms(300)).unwrap();
    let mut rig = Rig::ready(with(limits));
    let _owed = rig.defer(0, &notify(1));
    for at in [0, 100, 200] {
        rig.conn.shutdown(rig.at(at));
    }
    rig.timeout(300).unwrap();
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Cut { owed: 1 }));
}

/// HAProxy waits for the answer that is late, whatever else it did wrong by then.
#[test]
fn a_late_answer_goes_out_before_the_goodbye_of_the_same_moment() {
    let fallback = [Action::set(Scope::Transaction, "f", true)];
    let mut rig = Rig::ready(AgentConfig::new().fallback(fallback).unwrap());
    let _owed = rig.defer(0, &notify(1));
    rig.feed(0, &notify(3)[..6]).unwrap();
    assert_eq!(rig.timeout(10_000), Err(timeout(Waiting::Frame)));
    let goodbye = agent_disconnect(2, "timeout: a frame was begun and not finished");
    assert_eq!(rig.take(), [ack(1, &set_txn("f", b"\x11")), goodbye].concat());
}

#[test]
fn the_close_timeout_ends_what_haproxy_does_not() {
    let limits = Limits::new().close_timeout(ms(250)).unwrap();
    let mut rig = Rig::ready(with(limits));
    rig.conn.close(Status(500), "so long", rig.at(100));
    assert_eq!(rig.take(), agent_disconnect(500, "so long"));
    assert_eq!(rig.deadline(), Some(350));
    assert_eq!(rig.timeout(349), Ok(()));
    assert!(!rig.conn.interest().done);
    assert_eq!(rig.timeout(350), Ok(()));
    assert!(rig.conn.interest().done);
    assert_eq!(rig.conn.transmit(), b"");
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Closed { status: Status(500) }));
}

/// A connection that closes with answers still to be taken: the peer has the time to take them, as
/// long as it goes on, and then the time to close.
#[test]
fn the_close_timeout_begins_when_everything_was_taken() {
    let mut rig = Rig::ready(AgentConfig::new());
    rig.feed(0, &notify(1)).unwrap();
    let now = rig.at(0);
    rig.conn.shutdown(now);
    let all = rig.conn.transmit().len();
    for second in 1..=20 {
        rig.timeout(second * 1000).unwrap();
        assert!(!rig.conn.interest().done, "{second} s");
        rig.conn.transmitted(1);
    }
    let rest = rig.take();
    assert_eq!(rest.len(), all - 20);
    rig.timeout(21_000).unwrap();
    assert!(!rig.conn.interest().done, "a second to close");
    run_out(&mut rig, 21_000, 22_000);
    assert!(rig.conn.interest().done);
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Drained));
}

/// But not for ever: the drain timeout bounds it, and the report knows.
#[test]
fn a_peer_that_takes_the_last_bytes_too_slowly_is_cut() {
    let limits = Limits::new().drain_timeout(ms(5000)).unwrap();
    let mut rig = Rig::ready(with(limits));
    rig.feed(0, &notify(1)).unwrap();
    let now = rig.at(0);
    rig.conn.shutdown(now);
    for second in 1..=4 {
        rig.conn.transmitted(1);
        rig.timeout(second * 1000).unwrap();
    }
    assert!(!rig.conn.interest().done);
    rig.timeout(5000).unwrap();
    assert!(rig.conn.interest().done);
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Cut { owed: 0 }));
}

/// Past the drain deadline nobody is waited for any longer than the close takes.
#[test]
fn a_connection_that_is_cut_does_not_drain_once_more() {
    let limits = Limits::new().drain_timeout(ms(5000)).unwrap();
    let mut rig = Rig::ready(with(limits));
    let _owed = rig.defer(0, &notify(1));
    let now = rig.at(0);
    rig.conn.shutdown(now);
    rig.timeout(5000).unwrap();
    rig.conn.transmitted(1);
    rig.timeout(5999).unwrap();
    assert!(!rig.conn.interest().done);
    rig.conn.transmitted(1);
    rig.timeout(6000).unwrap();
    assert!(rig.conn.interest().done);
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Cut { owed: 1 }));
}

/// A peer that always leaves a little of the output does not make its buffer grow.
#[test]
fn output_that_is_never_taken_whole_does_not_pile_up() {
    let mut rig = Rig::ready(AgentConfig::new());
    for n in 0..20_000 {
        rig.feed(0, &notify(2 * n + 1)).unwrap();
        let left = rig.conn.transmit().len();
        rig.conn.transmitted(left - 1);
    }
    assert!(rig.conn.buffered() < 1000, "{}", rig.conn.buffered());
}

/// The time in which this side did not read is not the peer's.
#[test]
fn a_frame_is_not_timed_while_reading_has_to_wait() {
    let limits = Limits::new().output(bytes(1));
    let mut rig = Rig::ready(with(limits));
    let ticket = rig.defer(0, &notify(1));
    // Half a frame, and then output that keeps this side from reading the rest.
    rig.feed(0, &notify(3)[..6]).unwrap();
    let now = rig.at(1000);
    rig.conn.answer(ticket, now).unwrap().commit();
    assert!(!rig.conn.interest().read);
    for second in 2..=9 {
        rig.conn.transmitted(1);
        rig.timeout(second * 1000).unwrap();
    }
    rig.timeout(10_000).unwrap();
    assert_eq!(rig.conn.close_reason(), None, "nobody read");
    rig.take();
    // It has the whole time again, from when that was seen.
    rig.timeout(20_000).unwrap();
    assert_eq!(rig.timeout(30_000), Err(timeout(Waiting::Frame)), "now it is the peer's turn");
}

/// Past half of the drain nothing new is begun: it gets the fallback, so that the connection comes
/// to a moment at which nothing is owed.
#[test]
fn a_busy_connection_drains_all_the_same() {
    let limits = Limits::new().drain_timeout(ms(10_000)).unwrap();
    let mut rig = Rig::ready(with(limits));
    let mut owed = rig.defer(0, &notify(1));
    let now = rig.at(0);
    rig.conn.shutdown(now);
    for second in 1..=4 {
        // Always one that is owed before the last one is answered.
        let next = rig.defer(second * 1000, &notify(2 * second + 1));
        let now = rig.at(second * 1000);
        rig.conn.answer(core::mem::replace(&mut owed, next), now).unwrap().commit();
    }
    assert_eq!(rig.feed(6000, &notify(99)), Ok(vec![]));
    assert_eq!(rig.conn.stats().shed, 1);
    let now = rig.at(6000);
    rig.conn.answer(owed, now).unwrap().commit();
    rig.feed(6000, b"").unwrap();
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Drained));
}

/// A driver that comes late, after a day of suspension for instance, does not catch up on trims.
#[test]
fn a_late_driver_does_not_go_round() {
    let mut rig = Rig::ready(AgentConfig::new());
    let limits_are_far = rig.defer(0, &notify(1));
    let mut turns = 0;
    let day = 24 * 3600 * 1000;
    rig.take();
    rig.timeout(day).unwrap();
    while rig.deadline().is_some_and(|at| at <= day) {
        rig.timeout(day).unwrap();
        rig.take();
        turns += 1;
        assert!(turns < 5, "round and round");
    }
    drop(limits_are_far);
}

fn idle(time: u64) -> AgentConfig {
    with(Limits::new().idle_timeout(Some(ms(time))))
}

#[test]
fn an_idle_connection_is_closed_only_if_that_was_asked_for() {
    let mut rig = Rig::ready(idle(5000));
    rig.feed(1000, &notify(1)).unwrap();
    rig.take();
    assert_eq!(rig.timeout(5999), Ok(()));
    assert_eq!(rig.conn.close_reason(), None);
    assert_eq!(rig.deadline(), Some(6000));
    assert_eq!(rig.timeout(6000), Ok(()));
    assert_eq!(rig.take(), agent_disconnect(0, "idle for too long"));
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Idle));
}

#[test]
fn a_connection_that_owes_something_is_not_idle() {
    for open_payload in [false, true] {
        let mut rig = Rig::ready(idle(5000));
        if open_payload {
            rig.feed(0, &frame(NOTIFY, 0, 5, 1, b"")).unwrap();
        } else {
            let _ticket = rig.defer(0, &notify(1));
            rig.feed(0, b"").unwrap();
        }
        rig.timeout(5000).unwrap();
        assert_eq!(rig.conn.close_reason(), None);
    }
    // Nor is one whose answer nobody has taken yet.
    let mut rig = Rig::ready(idle(5000));
    rig.feed(0, &notify(1)).unwrap();
    rig.timeout(5000).unwrap();
    assert_eq!(rig.conn.close_reason(), None);
}

/// A NOTIFY that crosses the goodbye fails, so the silence begins with the last word of either
/// side, not with the last of HAProxy's.
#[test]
fn a_connection_is_idle_from_its_last_answer_on() {
    let mut rig = Rig::ready(idle(5000));
    let ticket = rig.defer(0, &notify(1));
    rig.feed(0, b"").unwrap();
    let now = rig.at(4900);
    rig.conn.answer(ticket, now).unwrap().commit();
    rig.take();
    rig.timeout(5000).unwrap();
    assert_eq!(rig.conn.close_reason(), None, "silent for 100 ms only");
}

/// The run loop calls `receive` whatever woke it: without input that is no sign of life.
#[test]
fn receiving_nothing_does_not_put_off_the_idle_timeout() {
    let mut rig = Rig::ready(idle(5000));
    rig.feed(0, &notify(1)).unwrap();
    rig.take();
    rig.feed(4000, b"").unwrap();
    assert_eq!(rig.deadline(), Some(5000).min(rig.deadline()));
    rig.timeout(5000).unwrap();
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Idle));
}

// Memory.

/// Does what is due, at the time it is due, until nothing is.
fn run_out(rig: &mut Rig, mut now: u64, end: u64) {
    while let Some(deadline) = rig.deadline() {
        now = now.max(deadline);
        assert!(now <= end, "still waiting for {deadline} ms");
        rig.timeout(now).unwrap();
    }
}

#[test]
fn an_idle_connection_holds_no_buffers() {
    let mut rig = Rig::ready(AgentConfig::new());
    // All of them: a straddling frame, a payload in fragments, a deferred answer.
    let large = notify_of_length(5000);
    rig.feed(0, &large[..3000]).unwrap();
    rig.feed(0, &large[3000..]).unwrap();
    rig.feed(0, &frame(NOTIFY, 0, 5, 1, &MESSAGE[..2])).unwrap();
    rig.feed(0, &frame(UNSET, FIN, 5, 1, &MESSAGE[2..])).unwrap();
    let ticket = rig.defer(0, &notify(7));
    let now = rig.at(0);
    rig.conn.answer(ticket, now).unwrap().commit();
    rig.feed(100, b"").unwrap();
    rig.take();
    assert!(rig.conn.buffered() > 0);
    assert_eq!(rig.timeout(999), Ok(()));
    assert!(rig.conn.buffered() > 0, "not at once: the next NOTIFY would pay for it");
    assert_eq!(rig.deadline(), Some(1000));
    assert_eq!(rig.timeout(1000), Ok(()));
    assert_eq!(rig.conn.buffered(), 0);
    assert_eq!(rig.deadline(), None);
    // And all of it works again.
    assert_eq!(rig.feed(5000, &notify(9)), Ok(vec!["Notify 9/1".to_owned()]));
    assert_eq!(rig.take(), ack(9, b""));
}

/// Nor does one whose last payload was refused: that its rest is to be skipped is remembered
/// without memory behind it.
#[test]
fn an_idle_connection_that_refused_a_payload_holds_no_buffers() {
    let mut rig = Rig::ready(with(Limits::new().payload(bytes(100))));
    rig.feed(0, &fragment(NOTIFY, 0, 200)).unwrap();
    rig.take();
    rig.feed(0, &notify(7)).unwrap();
    rig.take();
    run_out(&mut rig, 0, 10_000);
    assert_eq!(rig.conn.buffered(), 0);
    assert_eq!(rig.feed(20_000, &fragment(UNSET, 0, 200)), Ok(vec![]));
    assert_eq!(rig.conn.stats().ignored, 0, "still known for what it is");
}

#[test]
fn trimming_keeps_what_is_needed() {
    let mut rig = Rig::ready(AgentConfig::new());
    let ticket = rig.defer(0, &notify(1));
    rig.feed(0, &frame(NOTIFY, 0, 5, 1, &MESSAGE[..2])).unwrap();
    rig.feed(0, &frame(UNSET, FIN, 5, 1, &MESSAGE[2..])[..6]).unwrap();
    rig.feed(0, b"").unwrap();
    rig.timeout(2000).unwrap();
    let rest = frame(UNSET, FIN, 5, 1, &MESSAGE[2..])[6..].to_vec();
    assert_eq!(rig.feed(2000, &rest), Ok(vec!["Notify 5/1".to_owned()]));
    let now = rig.at(2000);
    rig.conn.answer(ticket, now).unwrap().commit();
    assert_eq!(rig.take(), [ack(5, b""), ack(1, b"")].concat());
}

/// A deferred answer is written long after the last frame came: its buffer is given back as well.
#[test]
fn the_memory_of_a_late_answer_is_given_back() {
    let mut rig = Rig::ready(AgentConfig::new());
    let ticket = rig.defer(0, &notify(1));
    rig.feed(0, b"").unwrap();
    rig.timeout(1000).unwrap();
    let now = rig.at(2000);
    rig.conn.answer(ticket, now).unwrap().commit();
    rig.take();
    run_out(&mut rig, 2000, 60_000);
    assert_eq!(rig.conn.buffered(), 0);
}

/// As is that of a fallback answer, which a deadline wrote.
#[test]
fn the_memory_of_a_fallback_answer_is_given_back() {
    let mut rig = Rig::ready(AgentConfig::new());
    let _ticket = rig.defer(0, &notify(1));
    rig.feed(0, b"").unwrap();
    rig.timeout(1000).unwrap();
    rig.timeout(10_000).unwrap();
    assert_eq!(rig.take(), ack(1, b""));
    run_out(&mut rig, 10_000, 60_000);
    assert_eq!(rig.conn.buffered(), 0);
}

/// And that of output a slow peer took after the second was over.
#[test]
fn the_memory_of_output_taken_late_is_given_back() {
    let mut rig = Rig::ready(AgentConfig::new());
    rig.feed(0, &notify(1)).unwrap();
    rig.timeout(1000).unwrap();
    assert_eq!(rig.take(), ack(1, b""));
    run_out(&mut rig, 1000, 60_000);
    assert_eq!(rig.conn.buffered(), 0);
}
