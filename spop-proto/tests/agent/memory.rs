//! Memory follows the bytes that came, and an idle connection holds none.

use spop_proto::{AgentConfig, Limits};

use crate::common::*;
use crate::support::*;

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
    assert_eq!(rig.feed(0, &notify[90_000..]), asked(1));
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
    rig.answer(0, ticket).unwrap().commit();
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
    assert_eq!(rig.feed(5000, &notify(9)), asked(9));
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
    assert_eq!(rig.feed(2000, &rest), asked(5));
    rig.answer(2000, ticket).unwrap().commit();
    assert_eq!(rig.take(), [ack(5, b""), ack(1, b"")].concat());
}

/// A deferred answer is written long after the last frame came: its buffer is given back as well.
#[test]
fn the_memory_of_a_late_answer_is_given_back() {
    let mut rig = Rig::ready(AgentConfig::new());
    let ticket = rig.defer(0, &notify(1));
    rig.feed(0, b"").unwrap();
    rig.timeout(1000).unwrap();
    rig.answer(2000, ticket).unwrap().commit();
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
