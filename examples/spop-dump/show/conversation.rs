//! Both directions of a connection.

use std::collections::HashMap;
use std::time::Duration;

use spop_proto::wire::FrameType;

use super::seen::{Content, Seen, Side};
use super::stream::{Limits, Stream};

/// Questions that are remembered, at most: an agent need not answer.
const ASKED: usize = 65_536;

/// What HAProxy and an agent say to each other on a connection.
#[derive(Debug)]
pub(crate) struct Conversation {
    haproxy: Stream,
    agent: Stream,
    limits: Limits,
    asked: HashMap<(u64, u64), Duration>,
}

impl Conversation {
    /// A new connection.
    pub(crate) fn new() -> Self {
        Self {
            haproxy: Stream::new(Some(Side::Haproxy)),
            agent: Stream::new(Some(Side::Agent)),
            limits: Limits::default(),
            asked: HashMap::new(),
        }
    }

    /// One that is looked at from somewhere in its middle.
    pub(crate) fn joined_late() -> Self {
        let mut late = Self::new();
        late.haproxy.begins_anywhere();
        late.agent.begins_anywhere();
        late
    }

    /// The next bytes of a side, and when they were there.
    pub(crate) fn receive(
        &mut self,
        from: Side,
        bytes: &[u8],
        time: Option<Duration>,
        found: &mut dyn FnMut(Seen),
    ) {
        let Self { haproxy, agent, limits, asked } = self;
        let stream = if from == Side::Haproxy { haproxy } else { agent };
        stream.receive(bytes, time, limits, &mut |mut seen| {
            remember(asked, &mut seen);
            found(seen);
        });
    }

    /// That many bytes of a side were not seen.
    pub(crate) fn missing(&mut self, from: Side, bytes: u64, found: &mut dyn FnMut(Seen)) {
        self.stream(from).missing(bytes, found);
    }

    /// A side has said its last.
    pub(crate) fn end(&mut self, from: Side, found: &mut dyn FnMut(Seen)) {
        self.stream(from).end(found);
    }

    fn stream(&mut self, from: Side) -> &mut Stream {
        if from == Side::Haproxy { &mut self.haproxy } else { &mut self.agent }
    }
}

/// Puts the time between question and answer into the answer.
fn remember(asked: &mut HashMap<(u64, u64), Duration>, seen: &mut Seen) {
    let (Some(header), Some(time)) = (seen.header, seen.time) else { return };
    let ids = (header.stream_id, header.frame_id);
    match (header.kind, &seen.content) {
        (_, Content::Messages(_) | Content::Joined { .. }) => {
            if asked.len() >= ASKED {
                asked.clear();
            }
            asked.insert(ids, time);
        }
        (FrameType::ACK, _) => {
            seen.after = asked.remove(&ids).and_then(|question| time.checked_sub(question));
        }
        _ => {}
    }
}
