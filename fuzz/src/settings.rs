//! Configurations with limits so small that they are met, and the memory that they amount to.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use spop_proto::{Action, AgentConfig, ConnectionInfo, Limits, Overload, Pacing, Scope};

use crate::script::Script;

/// The time at which everything begins: only differences matter.
pub fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

/// That many milliseconds.
pub const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// What an agent was configured to.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The configuration.
    pub config: AgentConfig,
    /// Its max-frame-size.
    pub frame: usize,
    in_flight: usize,
    payload: usize,
    output: usize,
    bufsize: usize,
    paces: bool,
}

impl Settings {
    /// A configuration out of a script.
    pub fn read(script: &mut Script<'_>) -> Self {
        // One bit each, so that a few bytes reach every combination.
        let small = script.byte();
        let short = script.byte();
        let other = script.byte();
        let is = |of: u8, bit: u8| of >> bit & 1 == 1;
        let frame: u32 = if is(small, 0) { script.pick(&[256, 300, 1024]) } else { 1 << 20 };
        let in_flight: u32 = if is(small, 1) { script.pick(&[1, 2, 5]) } else { 1024 };
        let payload = if is(small, 2) { script.pick(&[1, 300, 2000]) } else { 1 << 20 };
        let output = if is(small, 3) { script.pick(&[1, 100, 2000]) } else { 1 << 20 };
        let ignored: u32 = if is(small, 4) { 2 } else { 128 };
        let bufsize: u32 = if is(small, 5) { 1024 } else { 16_384 };
        let overload = if is(small, 6) { Overload::Wait } else { Overload::Shed };
        let limits = Limits::new()
            .in_flight(NonZeroU32::new(in_flight).expect("not 0"))
            .overload(overload)
            .payload(NonZeroUsize::new(payload).expect("not 0"))
            .output(NonZeroUsize::new(output).expect("not 0"))
            .ignored_frames(NonZeroU32::new(ignored).expect("not 0"))
            .idle_timeout(is(short, 0).then_some(ms(700)))
            .hello_timeout(if is(short, 1) { ms(90) } else { ms(10_000) })
            .and_then(|limits| limits.frame_timeout(if is(short, 2) { ms(80) } else { ms(10_000) }))
            .and_then(|limits| limits.write_timeout(if is(short, 3) { ms(60) } else { ms(10_000) }))
            .and_then(|limits| {
                limits.answer_timeout(if is(short, 4) { ms(50) } else { ms(10_000) })
            })
            .and_then(|limits| limits.drain_timeout(if is(short, 5) { ms(40) } else { ms(30_000) }))
            .and_then(|limits| limits.close_timeout(if is(short, 6) { ms(30) } else { ms(1000) }))
            .expect("no time is zero");
        let pacing = if is(other, 0) {
            None
        } else {
            Some(Pacing::new().bufsize(NonZeroU32::new(bufsize).expect("not 0")))
        };
        let mut config = AgentConfig::new()
            .max_frame_size(frame)
            .expect("within bounds")
            .limits(limits)
            .pacing(pacing)
            .pipelining(!is(other, 1))
            .fragmentation(!is(other, 2))
            .r#async(is(other, 3))
            .expected_ack_size(if is(other, 4) { 1 } else { 400 });
        if is(other, 5) {
            let action = Action::set(Scope::Transaction, "fallback", "no answer");
            config = config.fallback([action]).expect("it fits");
        }
        Self {
            config,
            frame: frame as usize,
            in_flight: in_flight as usize,
            payload,
            output,
            bufsize: bufsize as usize,
            paces: !is(other, 0),
        }
    }

    /// Whether answers are held back so that they do not fill the buffer of that HAProxy.
    pub fn paces_for(&self, info: &ConnectionInfo) -> bool {
        let buffer = usize::try_from(info.offered_max_frame_size()).unwrap_or(usize::MAX);
        self.paces && buffer.saturating_add(4) >= self.bufsize
    }

    /// The most memory behind a connection's buffers, with chunks of that size and answers whose
    /// frames are no larger than `answer`: the lengths that the limits allow, and twice that because a
    /// vector grows by doubling.
    pub fn memory(&self, chunk: usize, answer: usize) -> usize {
        const FIELD: usize = 4;
        // A HELLO and a DISCONNECT beside the answers.
        const HANDSHAKE: usize = 512;
        // An answer that is owed, one that HAProxy may not have read: entries of tables, each with two
        // ids or times and places.
        const ENTRY: usize = 96;
        let frame = self.frame.max(4096) + FIELD;
        // A frame that straddles chunks, or, where reading had to stop at a border, the rest of a chunk
        // as well; in front of it as much again that was handed out already.
        let input = 2 * (frame + chunk);
        // Reading stops at the limit, one answer may exceed it; those that are owed come regardless.
        let unsent = self.output + (self.in_flight + 2) * (answer + FIELD) + HANDSHAKE;
        // In front of it lies no more than that which is written, and behind it an answer on its way.
        let output = 2 * unsent + 2 * (answer + FIELD);
        let owed = self.in_flight.min(1024) * ENTRY;
        let paced = (self.bufsize / 11 + 64) * ENTRY;
        2 * (input + output + self.payload + owed + paced) + 1024
    }
}
