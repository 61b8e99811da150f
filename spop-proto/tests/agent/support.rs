//! What several modules need beside `common`.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use spop_proto::{
    Ack, Action, AgentConfig, Event, Limits, ProtocolError, Scope, StaleTicket, Ticket, Waiting,
};

use crate::common::*;

pub(crate) const STOPPING: &str = "the agent is stopping";

pub(crate) fn with_fallback() -> AgentConfig {
    AgentConfig::new().fallback([Action::set(Scope::Transaction, "f", true)]).unwrap()
}

/// What `with_fallback` makes of an ACK.
pub(crate) fn fallen(stream: u64) -> Vec<u8> {
    ack(stream, &set_txn("f", b"\x11"))
}

/// `set-var txn.a` of `text`.
pub(crate) fn set_a(text: &[u8]) -> Vec<u8> {
    set_txn("a", &string(text))
}

/// A connection that owes the answer to 9/1, so that there is a ticket to use it with.
pub(crate) fn owing(config: AgentConfig) -> (Rig, Ticket) {
    let mut rig = Rig::ready(config);
    let ticket = rig.defer(0, &notify(9));
    (rig, ticket)
}

impl Rig {
    /// Gives a NOTIFY to `handler`.
    pub(crate) fn ask<R>(&mut self, bytes: &[u8], handler: impl FnOnce(Ack<'_>) -> R) -> R {
        let now = self.at(0);
        let mut input = bytes;
        match self.conn.receive(&mut input, now) {
            Ok(Some(Event::Notify(_, ack))) => handler(ack),
            other => panic!("not a NOTIFY: {other:?}"),
        }
    }

    pub(crate) fn answer(&mut self, ms: u64, ticket: Ticket) -> Result<Ack<'_>, StaleTicket> {
        let now = self.at(ms);
        self.conn.answer(ticket, now)
    }

    /// The books: every NOTIFY is answered, given up, or still owed.
    #[track_caller]
    pub(crate) fn balanced(&self) {
        let stats = self.conn.stats();
        let settled = stats.acks() + stats.superseded + stats.abandoned;
        assert_eq!(stats.notifies, settled + u64::from(self.conn.in_flight()), "{stats:?}");
    }
}

/// What `Rig::feed` says of a NOTIFY.
pub(crate) fn asked(stream: u64) -> Result<Vec<String>, ProtocolError> {
    Ok(vec![format!("Notify {stream}/1")])
}

pub(crate) fn with(limits: Limits) -> AgentConfig {
    AgentConfig::new().limits(limits)
}

pub(crate) fn bytes(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

pub(crate) fn count(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

pub(crate) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(crate) fn timeout(waiting: Waiting) -> ProtocolError {
    ProtocolError::Timeout { waiting }
}

/// A text that takes `total` bytes together with its length.
pub(crate) fn text_of(total: usize) -> Vec<u8> {
    let fits = |text: &usize| varint(*text as u64).len() + text == total;
    let text = (0..total).rev().find(fits).unwrap();
    counted(&vec![b'x'; text])
}

/// A NOTIFY whose frame has that length.
pub(crate) fn notify_of_length(length: usize) -> Vec<u8> {
    let framing = frame(NOTIFY, FIN, 1, 1, b"").len() - 4;
    let head = b"\x01m\x01\x01a\x08";
    let payload = [&head[..], &text_of(length - framing - head.len())].concat();
    let frame = frame(NOTIFY, FIN, 1, 1, &payload);
    assert_eq!(frame.len() - 4, length);
    frame
}

pub(crate) fn fragment(kind: u8, flags: u32, length: usize) -> Vec<u8> {
    frame(kind, flags, 5, 1, &vec![0; length])
}

/// Does what is due, at the time it is due, until nothing is.
pub(crate) fn run_out(rig: &mut Rig, mut now: u64, end: u64) {
    while let Some(deadline) = rig.deadline() {
        now = now.max(deadline);
        assert!(now <= end, "still waiting for {deadline} ms");
        rig.timeout(now).unwrap();
    }
}

pub(crate) fn hello_with(pairs: &[Vec<u8>]) -> Vec<u8> {
    frame(HAPROXY_HELLO, FIN, 0, 0, &pairs.concat())
}

/// The last frame is out: more input is discarded, and the peer's close is the end.
pub(crate) fn ends(mut rig: Rig, case: &str) {
    let want = rig.conn.interest();
    assert!(want.read && !want.write && !want.ready && !want.done, "{case}: {want:?}");
    assert_eq!(rig.feed(0, &notify(1)), Ok(vec![]), "{case}");
    assert_eq!(rig.take(), b"", "{case}");
    rig.conn.peer_closed(rig.at(0));
    assert!(rig.conn.interest().done, "{case}");
}
