//! One direction of a connection.

use std::ops::Range;
use std::time::Duration;

use spop_proto::wire::{Frame, FrameHeader, FrameType};

use super::cursor::Wrong;
use super::payload;
use super::seen::{Action, Content, Excerpt, Fault, Item, Seen, Side, Within};

/// The length field in front of a frame.
const LENGTH: usize = 4;
/// Type, flags and two ids of one byte.
const LEAST: u32 = 7;
/// The largest frame before a HELLO has said another size, in bytes.
const UNTOLD: u64 = 16 << 20;
/// The largest that is looked into, whatever a HELLO says; also for payloads that are joined.
const MOST: u64 = 64 << 20;
/// How much of a frame that is too large is shown.
const GLANCE: usize = 32;

/// What both sides have said of the size of frames.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    /// HAProxy's max-frame-size.
    offered: Option<u64>,
    /// The agent's, which counts for both.
    chosen: Option<u64>,
}

impl Limits {
    fn most(self) -> u64 {
        self.chosen.or(self.offered).unwrap_or(UNTOLD).clamp(256, MOST)
    }

    fn said_by(self) -> &'static str {
        match self {
            Self { chosen: Some(_), .. } => "max-frame-size of the AGENT-HELLO",
            Self { offered: Some(_), .. } => "max-frame-size of the HAPROXY-HELLO",
            _ => "largest that is believed without a HELLO",
        }
    }
}

/// The frames of a stream, whose bytes come in any pieces.
#[derive(Debug)]
pub(crate) struct Stream {
    side: Option<Side>,
    buffer: Vec<u8>,
    /// Where the buffer begins in the stream.
    offset: u64,
    /// Bytes still to come of a frame that is not looked into.
    skip: u64,
    /// Bytes are missing: what comes next is not known to be the start of a frame.
    lost: bool,
    /// Bytes that were passed over since, to find one.
    over: u64,
    open: Option<Open>,
    time: Option<Duration>,
    /// As they were when the last bytes had been looked at.
    limits: Limits,
}

/// A payload whose last part has not come.
#[derive(Debug)]
struct Open {
    ids: (u64, u64),
    payload: Vec<u8>,
    /// Where parts begin: in the payload, and in the stream.
    parts: Vec<(usize, u64)>,
    /// Where the first frame begins in the stream.
    from: u64,
}

impl Stream {
    /// Of a side; `None` where the first frame tells.
    pub(crate) const fn new(side: Option<Side>) -> Self {
        let limits = Limits { offered: None, chosen: None };
        Self {
            side,
            buffer: Vec::new(),
            offset: 0,
            skip: 0,
            lost: false,
            over: 0,
            open: None,
            time: None,
            limits,
        }
    }

    /// What comes first need not be the start of a frame.
    pub(super) const fn begins_anywhere(&mut self) {
        self.lost = true;
    }

    /// The next bytes, and when they were there.
    pub(crate) fn receive(
        &mut self,
        mut bytes: &[u8],
        time: Option<Duration>,
        limits: &mut Limits,
        found: &mut dyn FnMut(Seen),
    ) {
        self.time = time;
        if self.skip > 0 {
            let skipped = bytes.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
            self.pass(skipped);
            self.skip = self.skip.saturating_sub(wide(skipped));
            bytes = bytes.get(skipped..).unwrap_or_default();
        }
        if bytes.is_empty() {
            return;
        }
        if self.lost {
            // Frames often begin where a write did.
            if !self.is_plausible(bytes, limits) {
                self.over = self.over.saturating_add(wide(bytes.len()));
                return self.pass(bytes.len());
            }
            self.lost = false;
        }
        self.buffer.extend_from_slice(bytes);
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut done = 0_usize;
        while let Some(taken) = self.frame(buffer.get(done..).unwrap_or_default(), limits, found) {
            done = done.saturating_add(taken);
            self.pass(taken);
        }
        buffer.drain(..done.min(buffer.len()));
        self.buffer = buffer;
        self.limits = *limits;
    }

    /// That many bytes were not seen.
    pub(crate) fn missing(&mut self, bytes: u64, found: &mut dyn FnMut(Seen)) {
        let mut left = bytes;
        let skipped = self.skip.min(left);
        self.skip = self.skip.saturating_sub(skipped);
        self.offset = self.offset.saturating_add(skipped);
        left = left.saturating_sub(skipped);
        if left == 0 {
            return;
        }
        let have = std::mem::take(&mut self.buffer);
        let start = self.offset;
        self.offset = start.saturating_add(wide(have.len())).saturating_add(left);
        let what = format!("{left} bytes are missing here: they were not captured");
        let length = have.first_chunk().map(|length| u32::from_be_bytes(*length));
        let mut seen = self.start(start, length.unwrap_or_default());
        seen.header =
            have.get(LENGTH..).and_then(|frame| Frame::decode(frame).ok()).map(|f| f.header);
        let end = have.len();
        seen.faults.push(self.fault(start, &have, end..end, what));
        found(seen);
        let whole = wide(LENGTH).saturating_add(u64::from(length.unwrap_or_default()));
        let rest = whole.saturating_sub(wide(have.len()));
        // What is missing ends within the frame, or nobody knows where the next one begins.
        match rest.checked_sub(left) {
            Some(rest) if length.is_some() => self.skip = rest,
            _ => self.lost = true,
        }
        self.open = None;
    }

    /// The stream has ended.
    pub(crate) fn end(&mut self, found: &mut dyn FnMut(Seen)) {
        let have = std::mem::take(&mut self.buffer);
        if have.is_empty() {
            return;
        }
        let end = have.len();
        let length = have.first_chunk().map(|length| u32::from_be_bytes(*length));
        if let Some(length) = length.filter(|length| u64::from(*length) > self.limits.most()) {
            self.too_large(&have, &have, length, self.limits, found);
            return self.pass(end);
        }
        let mut seen = self.start(self.offset, length.unwrap_or_default());
        let header = have.get(LENGTH..).and_then(|frame| Frame::decode(frame).ok());
        seen.header = header.map(|frame| frame.header);
        let what = match length {
            Some(length) => format!(
                "the stream ends within the frame: {} of {} bytes are there",
                end,
                wide(LENGTH).saturating_add(u64::from(length))
            ),
            None => format!("the stream ends within the length of a frame: {end} of 4 bytes"),
        };
        seen.faults.push(self.fault(self.offset, &have, end..end, what));
        self.offset = self.offset.saturating_add(wide(end));
        found(seen);
    }

    /// A payload in parts that never became whole: its ids, and how many bytes there are.
    pub(crate) fn unfinished(&self) -> Option<((u64, u64), usize)> {
        self.open.as_ref().map(|open| (open.ids, open.payload.len()))
    }

    fn pass(&mut self, bytes: usize) {
        self.offset = self.offset.saturating_add(wide(bytes));
    }

    /// Whether a frame begins there, by all that can be seen of it.
    fn is_plausible(&self, bytes: &[u8], limits: &Limits) -> bool {
        let Some((length, rest)) = bytes.split_first_chunk::<LENGTH>() else { return false };
        let length = u32::from_be_bytes(*length);
        let Ok(frame) = Frame::decode(rest) else { return false };
        let known = writer(frame.header.kind).is_some_and(|by| self.side.is_none_or(|s| s == by));
        length >= LEAST
            && u64::from(length) <= limits.most()
            && known
            && frame.header.flags.0 & !3 == 0
    }

    fn start(&self, offset: u64, length: u32) -> Seen {
        Seen {
            offset,
            time: self.time,
            side: self.side.unwrap_or(Side::Haproxy),
            length,
            header: None,
            content: Content::Unread,
            after: None,
            faults: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// The frame at the start of `bytes`, if it is whole or never can be; how many of them are behind.
    fn frame(
        &mut self,
        bytes: &[u8],
        limits: &mut Limits,
        found: &mut dyn FnMut(Seen),
    ) -> Option<usize> {
        let (field, rest) = bytes.split_first_chunk::<LENGTH>()?;
        let length = u32::from_be_bytes(*field);
        // Frames that are somewhat too large are what an agent with other limits writes.
        if u64::from(length) > limits.most().saturating_mul(4).min(MOST) {
            // A few of them are worth a look.
            return self.too_large(bytes, bytes.get(..GLANCE)?, length, *limits, found);
        }
        let whole = LENGTH.saturating_add(usize::try_from(length).ok()?);
        let frame = rest.get(..usize::try_from(length).ok()?)?;
        let all = bytes.get(..whole)?;
        if self.side.is_none() {
            let kind = frame.first().copied().map(FrameType);
            self.side = Some(kind.and_then(writer).unwrap_or(Side::Haproxy));
        }
        let mut seen = self.start(self.offset, length);
        if let over @ 1.. = std::mem::take(&mut self.over) {
            seen.notes.push(format!("{over} bytes before it were passed over to find a frame"));
        }
        if u64::from(length) > limits.most() {
            let what = too_long(all, length, *limits);
            seen.faults.push(self.fault(self.offset, all, 0..LENGTH, what));
        }
        match Frame::decode(frame) {
            Ok(frame) => self.look(&mut seen, all, &frame, limits),
            Err(error) => {
                let what = if length < LEAST {
                    format!("the length is {length}: no frame is shorter than {LEAST}")
                } else {
                    format!("the frame's head does not decode: {}", error.kind)
                };
                let at = LENGTH.saturating_add(error.offset);
                let mark = if length < LEAST { 0..LENGTH } else { at..at.saturating_add(1) };
                seen.faults.push(self.fault(self.offset, all, mark, what));
            }
        }
        found(seen);
        Some(whole)
    }

    /// A frame that cannot be right is not waited for: what is said to belong to it is passed over.
    fn too_large(
        &mut self,
        bytes: &[u8],
        glance: &[u8],
        length: u32,
        limits: Limits,
        found: &mut dyn FnMut(Seen),
    ) -> Option<usize> {
        let mut seen = self.start(self.offset, length);
        let header = glance.get(LENGTH..).and_then(|f| Frame::decode(f).ok()).map(|f| f.header);
        // Other bytes than those of a frame would name types and ids that nobody meant.
        seen.header = header.filter(|of| writer(of.kind).is_some() && of.flags.0 & !3 == 0);
        let what = too_long(bytes, length, limits);
        seen.faults.push(self.fault(self.offset, glance, 0..LENGTH, what));
        found(seen);
        let whole = wide(LENGTH).saturating_add(u64::from(length));
        let here = bytes.len().min(usize::try_from(whole).unwrap_or(usize::MAX));
        self.skip = whole.saturating_sub(wide(here));
        Some(here)
    }

    fn look(&mut self, seen: &mut Seen, all: &[u8], frame: &Frame<'_>, limits: &mut Limits) {
        let FrameHeader { kind, flags, stream_id, frame_id } = frame.header;
        let base = all.len().saturating_sub(frame.payload.len());
        seen.header = Some(frame.header);
        let mut wrong = |mark: Range<usize>, what: String| {
            seen.faults.push(self.fault(self.offset, all, mark, what));
        };
        match writer(kind) {
            None => wrong(4..5, format!("frame type {} is none that SPOP defines", kind.0)),
            Some(writer) if Some(writer) != self.side => {
                let by = if writer == Side::Agent { "an agent" } else { "HAProxy" };
                wrong(
                    4..5,
                    format!("{kind} is a frame that {by} writes, and this is the other side"),
                );
            }
            Some(_) => {}
        }
        let alone = !matches!(kind, FrameType::NOTIFY | FrameType::UNSET);
        if alone && writer(kind).is_some() && !flags.fin() {
            wrong(5..9, format!("{kind} without FIN: it cannot come in parts"));
        }
        if is_greeting(kind) && (stream_id, frame_id) != (0, 0) {
            wrong(9..base, format!("{kind} with ids, which are 0 there"));
        }
        if flags.0 & !3 != 0 {
            let reserved = flags.0 & !3;
            seen.notes.push(format!("flags {reserved:#x} are reserved, HAProxy ignores them"));
        }
        match kind {
            FrameType::NOTIFY | FrameType::UNSET => self.part(seen, all, base, frame),
            FrameType::ACK => {
                let read = payload::actions(frame.payload);
                self.keep(seen, all, base, read.wrong);
                seen.notes.extend(read.items.iter().filter_map(dropped));
                seen.content = Content::Actions(read.items);
                if flags.abort() {
                    seen.notes.push("the agent gives the payload up".to_owned());
                }
            }
            kind if is_greeting(kind) => {
                let read = payload::items(frame.payload, kind);
                self.keep(seen, all, base, read.wrong);
                self.sizes(seen, all, kind, &read.items, limits);
                seen.content = Content::Items(read.items);
            }
            _ => {}
        }
    }

    /// What a HELLO says of sizes.
    fn sizes(
        &self,
        seen: &mut Seen,
        all: &[u8],
        kind: FrameType,
        items: &[Item],
        limits: &mut Limits,
    ) {
        let size = items.iter().rev().find(|item| item.name == b"max-frame-size");
        let size = size.and_then(|item| item.value.as_value().as_int());
        let size = size.and_then(|size| u64::try_from(size).ok());
        match kind {
            FrameType::HAPROXY_HELLO => *limits = Limits { offered: size, chosen: None },
            FrameType::AGENT_HELLO => {
                limits.chosen = size.or(limits.chosen);
                if let (Some(chosen), Some(offered)) = (size, limits.offered)
                    && chosen > offered
                {
                    let what = format!("max-frame-size {chosen} is above {offered}, HAProxy's");
                    seen.faults.push(self.fault(self.offset, all, 0..0, what));
                }
            }
            _ => {}
        }
    }

    /// A NOTIFY or a frame that continues one.
    fn part(&mut self, seen: &mut Seen, all: &[u8], base: usize, frame: &Frame<'_>) {
        let FrameHeader { kind, flags, stream_id, frame_id } = frame.header;
        let ids = (stream_id, frame_id);
        if kind == FrameType::NOTIFY {
            if let Some(open) = self.open.take() {
                seen.notes.push(format!(
                    "the payload of stream-id {} frame-id {} was not finished: {} bytes of it came",
                    open.ids.0,
                    open.ids.1,
                    open.payload.len()
                ));
            }
            if flags.abort() {
                return seen.notes.push("HAProxy gives the payload up".to_owned());
            }
            if flags.fin() {
                let read = payload::messages(frame.payload);
                self.keep(seen, all, base, read.wrong);
                seen.content = Content::Messages(read.items);
                return;
            }
            self.open =
                Some(Open { ids, payload: Vec::new(), parts: Vec::new(), from: self.offset });
        }
        let Some(mut open) = self.open.take_if(|open| open.ids == ids) else {
            let what = "UNSET continues a payload, and none with its ids is open".to_owned();
            return seen.faults.push(self.fault(self.offset, all, 4..5, what));
        };
        if flags.abort() {
            return seen.notes.push("HAProxy gives the payload up".to_owned());
        }
        if wide(open.payload.len()).saturating_add(wide(frame.payload.len())) > MOST {
            return seen.notes.push(format!("above {MOST} bytes the payload is not kept"));
        }
        open.parts.push((open.payload.len(), self.offset.saturating_add(wide(base))));
        open.payload.extend_from_slice(frame.payload);
        let (bytes, frames) = (open.payload.len(), open.parts.len());
        if !flags.fin() {
            seen.content = Content::Part { bytes, frames };
            self.open = Some(open);
            return;
        }
        let read = payload::messages(&open.payload);
        for wrong in read.wrong {
            seen.faults.push(Fault {
                offset: open.place(wrong.mark.start),
                within: Within::Payload(wrong.mark.start),
                excerpt: Excerpt::new(0, &open.payload, &wrong.mark),
                what: wrong.what,
            });
        }
        seen.content = Content::Joined { messages: read.items, bytes, frames, from: open.from };
    }

    /// Faults of a payload that begins at `base` of the frame.
    fn keep(&self, seen: &mut Seen, all: &[u8], base: usize, wrong: Vec<Wrong>) {
        for Wrong { what, mark, .. } in wrong {
            let mark = mark.start.saturating_add(base)..mark.end.saturating_add(base);
            seen.faults.push(self.fault(self.offset, all, mark, what));
        }
    }

    fn fault(&self, start: u64, all: &[u8], mark: Range<usize>, what: String) -> Fault {
        Fault {
            what,
            offset: start.saturating_add(wide(mark.start)),
            within: Within::Frame(mark.start),
            excerpt: Excerpt::new(start, all, &mark),
        }
    }
}

impl Open {
    /// Where a byte of the payload stands in the stream.
    fn place(&self, at: usize) -> u64 {
        let part = self.parts.iter().rev().find(|(begin, _)| *begin <= at);
        let (begin, offset) = part.copied().unwrap_or_default();
        offset.saturating_add(wide(at.saturating_sub(begin)))
    }
}

/// HAProxy drops a name with any other character, and says nothing.
fn dropped(action: &Action) -> Option<String> {
    let (Action::Set(_, Item { name, .. }) | Action::Unset(_, name)) = action;
    let plain = name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_.".contains(byte));
    let name = super::text::escape(name);
    (!plain).then(|| format!("`{name}`: HAProxy drops it, names have letters, digits, `_` and `.`"))
}

const fn is_greeting(kind: FrameType) -> bool {
    matches!(
        kind,
        FrameType::HAPROXY_HELLO
            | FrameType::HAPROXY_DISCONNECT
            | FrameType::AGENT_HELLO
            | FrameType::AGENT_DISCONNECT
    )
}

/// Who writes frames of that type; `None` for those that SPOP does not define.
pub(super) const fn writer(kind: FrameType) -> Option<Side> {
    match kind {
        FrameType::UNSET
        | FrameType::HAPROXY_HELLO
        | FrameType::HAPROXY_DISCONNECT
        | FrameType::NOTIFY => Some(Side::Haproxy),
        FrameType::AGENT_HELLO | FrameType::AGENT_DISCONNECT | FrameType::ACK => Some(Side::Agent),
        _ => None,
    }
}

fn too_long(bytes: &[u8], length: u32, limits: Limits) -> String {
    let (most, said) = (limits.most(), limits.said_by());
    let other = other_protocol(bytes).map_or_else(String::new, |other| format!(": {other}"));
    format!("the length is {length}, above {most}, the {said}{other}")
}

/// What else begins like that.
fn other_protocol(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x16, 3, 0..=4, ..] => Some("this looks like TLS"),
        b if b.starts_with(b"PROXY ") || b.starts_with(b"\r\n\r\n\0\r\nQUIT\n") => {
            Some("this looks like the PROXY protocol")
        }
        b if b.iter().take(LENGTH).all(|byte| byte.is_ascii_graphic() || *byte == b' ') => {
            Some("this looks like text, HTTP perhaps")
        }
        _ => None,
    }
}

/// A length in memory as one of a stream.
pub(super) fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
