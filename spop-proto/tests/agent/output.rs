//! How output is taken, and what waits while it is not.

use spop_proto::{AgentConfig, Limits, Status};

use crate::common::*;
use crate::support::*;

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
    assert_eq!(rig.feed(0, b""), asked(5));
    let sent = rig.take();
    assert_eq!(sent, [&ack(1, b"")[1..], &ack(3, b""), &ack(5, b"")].concat());
    assert_eq!(rig.feed(0, b""), asked(7));
    let want = rig.conn.interest();
    assert!(want.read && !want.ready, "{want:?}");
    assert_eq!(rig.feed(0, &notify(9)[3..]), asked(9));
    assert_eq!(rig.take(), [ack(7, b""), ack(9, b"")].concat());
}

/// `ready` says "do not wait": where receiving cannot get anything done, it sends a driver round
/// and round.
#[test]
fn a_drained_connection_with_too_much_output_does_not_spin() {
    let mut rig = Rig::ready(with(Limits::new().output(bytes(1))));
    let ticket = rig.defer(0, &notify(1));
    rig.conn.shutdown(rig.at(0));
    rig.answer(0, ticket).unwrap().commit();
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
    assert_eq!(sent, [ack(1, b""), agent_disconnect(0, STOPPING)].concat());
}
