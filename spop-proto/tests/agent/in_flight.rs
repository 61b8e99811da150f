//! The limit on the answers that a connection owes: beyond it requests are shed, or wait.

use spop_proto::{Event, Limits, Overload, Waiting};

use crate::common::*;
use crate::support::*;

#[test]
fn too_many_answers_in_flight_are_shed() {
    let mut rig = Rig::ready(with_fallback().limits(Limits::new().in_flight(count(2))));
    let first = rig.defer(0, &notify(1));
    let _second = rig.defer(0, &notify(3));
    assert_eq!(rig.feed(0, &notify(5)), Ok(vec![]), "the third is not even asked");
    assert_eq!(rig.take(), fallen(5));
    let stats = rig.conn.stats();
    assert_eq!((stats.notifies, stats.shed), (3, 1));
    // One answered, one may come again.
    rig.answer(0, first).unwrap().commit();
    assert_eq!(rig.feed(0, &notify(7)), asked(7));
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

    rig.answer(0, tickets.remove(1)).unwrap().commit();
    assert!(rig.conn.interest().ready, "a frame waits that needs no reading");
    assert_eq!(rig.feed(0, b""), Ok(vec!["Notify 5/1".to_owned(), "Notify 7/1".to_owned()]));
    let want = rig.conn.interest();
    assert!(want.read && !want.ready, "{want:?}");
    assert_eq!(rig.feed(0, &notify(9)[6..]), asked(9));
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
    rig.answer(1000, ticket).unwrap().commit();
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
    rig.answer(0, ticket).unwrap().commit();
    assert!(rig.conn.interest().ready, "there is something to say about what was kept");
    assert_eq!(variant(&rig.feed(0, b"").unwrap_err()), "FrameTooBig");
}

/// Each request that waits is copied: they are bounded by what they hold, too, and one may go over.
#[test]
fn beyond_the_bytes_in_flight_requests_are_shed() {
    let large = frame(NOTIFY, FIN, 1, 1, &message_of(1000));
    let bytes = std::num::NonZeroUsize::new(1500).unwrap();
    let mut rig = Rig::ready(with(Limits::new().in_flight_bytes(bytes)));
    let first = rig.defer(0, &large);
    let mut second = large.clone();
    second[9] = 3;
    let _owed = rig.defer(0, &second);
    assert_eq!(rig.feed(0, &notify(5)), Ok(vec![]), "2 000 bytes are owed for");
    assert_eq!(rig.take(), ack(5, b""));
    rig.answer(0, first).unwrap().commit();
    assert_eq!(rig.feed(0, &notify(7)), asked(7));
    assert_eq!(rig.conn.stats().shed, 1);
}

/// A payload larger than the limit is let in where nothing else waits: it would never be.
#[test]
fn one_request_may_exceed_the_bytes_in_flight() {
    let bytes = std::num::NonZeroUsize::new(10).unwrap();
    let limits = Limits::new().in_flight_bytes(bytes).overload(Overload::Wait);
    let mut rig = Rig::ready(with(limits));
    let ticket = rig.defer(0, &frame(NOTIFY, FIN, 1, 1, &message_of(1000)));
    assert_eq!(rig.feed(0, &notify(3)), Ok(vec![]));
    assert!(!rig.conn.interest().read, "it waits");
    rig.answer(0, ticket).unwrap().commit();
    assert_eq!(rig.feed(0, b""), asked(3));
}

/// What HAProxy sends in fragments is as large as it is whole.
#[test]
fn fragments_count_as_the_whole() {
    let payload = message_of(1000);
    let bytes = std::num::NonZeroUsize::new(900).unwrap();
    let mut rig = Rig::ready(with(Limits::new().in_flight_bytes(bytes)));
    let (one, two) = payload.split_at(600);
    rig.feed(0, &frame(NOTIFY, 0, 1, 1, one)).unwrap();
    let _owed = rig.defer(0, &frame(UNSET, FIN, 1, 1, two));
    assert_eq!(rig.feed(0, &notify(3)), Ok(vec![]));
    assert_eq!(rig.conn.stats().shed, 1);
}

/// A message with an argument of that many bytes.
fn message_of(bytes: usize) -> Vec<u8> {
    let value = vec![b'x'; bytes];
    spop_proto::wire::NotifyPayload::new("m")
        .arg("a", value.as_slice())
        .as_bytes()
        .unwrap()
        .to_vec()
}
