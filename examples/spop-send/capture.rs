//! The NOTIFYs of a capture: what HAProxy sent on one connection, as it stands on the wire.

use spop_proto::Dialect;
use spop_proto::wire::{Capabilities, Frame, FrameType, HaproxyHello};

/// What of a capture can be sent again.
#[derive(Debug)]
pub(crate) struct Capture {
    /// Which HAProxy it was.
    pub(crate) dialect: Dialect,
    /// What it offered.
    pub(crate) max_frame_size: u32,
    /// In the order of their ends.
    pub(crate) notifies: Vec<Captured>,
    /// Bytes of a last frame that is not whole.
    pub(crate) cut: usize,
}

/// A NOTIFY, its fragments put together.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Captured {
    pub(crate) stream_id: u64,
    pub(crate) frame_id: u64,
    pub(crate) payload: Vec<u8>,
}

impl Capture {
    /// Reads the bytes of one direction, from HAPROXY-HELLO on.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut rest = bytes;
        let mut notifies = Vec::new();
        let mut open: Option<Captured> = None;
        let mut hello = None;
        let mut fragments = false;
        loop {
            let at = bytes.len() - rest.len();
            let split = Frame::split(rest);
            let Some((frame, after)) =
                split.map_err(|error| format!("the frame at byte {at}: {error}"))?
            else {
                break;
            };
            rest = after;
            if hello.is_none() {
                hello = Some(read_hello(&frame)?);
                continue;
            }
            let header = frame.header;
            let ids = (header.stream_id, header.frame_id);
            let same = |open: &Captured| (open.stream_id, open.frame_id) == ids;
            match header.kind {
                FrameType::NOTIFY => {
                    open = Some(Captured {
                        stream_id: ids.0,
                        frame_id: ids.1,
                        payload: frame.payload.to_vec(),
                    });
                    fragments |= !header.flags.fin();
                }
                FrameType::UNSET if header.flags.abort() => open = None,
                FrameType::UNSET => {
                    if let Some(open) = open.as_mut().filter(|open| same(open)) {
                        open.payload.extend_from_slice(frame.payload);
                    }
                }
                _ => continue,
            }
            if header.flags.fin() {
                notifies.extend(open.take());
            }
        }
        let Some((offers_async, max_frame_size)) = hello else {
            return Err(
                "no SPOP frame in it: it wants the bytes that HAProxy sent on a connection, \
                        from HAPROXY-HELLO on"
                    .to_owned(),
            );
        };
        // Its ids count from 1 on each connection, and each event is a stream of its own.
        let counts_on =
            |notify: &Captured| notify.stream_id.is_multiple_of(2) || notify.frame_id != 1;
        let old = offers_async || fragments || notifies.iter().any(counts_on);
        let dialect = if old { Dialect::Old } else { Dialect::New };
        Ok(Self { dialect, max_frame_size, notifies, cut: rest.len() })
    }
}

/// Whether it offers `async`, and its max-frame-size.
fn read_hello(frame: &Frame<'_>) -> Result<(bool, u32), String> {
    let kind = frame.header.kind;
    if kind != FrameType::HAPROXY_HELLO {
        return Err(format!(
            "it begins with {kind}, not with HAPROXY-HELLO: is it the other direction?"
        ));
    }
    let hello = HaproxyHello::decode(frame.payload)
        .map_err(|error| format!("its HAPROXY-HELLO: {error}"))?;
    let offered = Capabilities::parse(hello.capabilities.unwrap_or_default());
    let size = hello.max_frame_size.and_then(|size| u32::try_from(size).ok());
    let size = size.ok_or("its HAPROXY-HELLO has no max-frame-size to use")?;
    Ok((offered.contains(Capabilities::ASYNC), size))
}

#[cfg(test)]
mod tests {
    use spop_proto::wire::{Flags, FrameHeader};

    use super::*;

    fn hello(capabilities: &str) -> Vec<u8> {
        let hello = HaproxyHello {
            supported_versions: Some(b"2.0"),
            max_frame_size: Some(1000),
            capabilities: Some(capabilities.as_bytes()),
            ..HaproxyHello::default()
        };
        let mut payload = Vec::new();
        hello.encode(&mut payload);
        frame(FrameType::HAPROXY_HELLO, Flags::FIN, (0, 0), &payload)
    }

    fn frame(kind: FrameType, flags: Flags, ids: (u64, u64), payload: &[u8]) -> Vec<u8> {
        let header = FrameHeader { kind, flags, stream_id: ids.0, frame_id: ids.1 };
        let mut bytes = Vec::new();
        Frame { header, payload }.encode(&mut bytes);
        bytes
    }

    #[test]
    fn fragments_are_put_together_and_aborted_ones_left_out() {
        let part = |kind, flags, ids, payload: &str| frame(kind, flags, ids, payload.as_bytes());
        let aborted = Flags::FIN.with(Flags::ABORT);
        let mut bytes = [
            hello("pipelining"),
            part(FrameType::NOTIFY, Flags(0), (5, 1), "ab"),
            part(FrameType::UNSET, Flags(0), (5, 1), "cd"),
            part(FrameType::UNSET, Flags::FIN, (5, 1), "ef"),
            part(FrameType::NOTIFY, Flags(0), (7, 1), "xx"),
            part(FrameType::UNSET, aborted, (7, 1), ""),
            part(FrameType::NOTIFY, Flags::FIN, (9, 1), "g"),
        ]
        .concat();
        bytes.extend([0, 0, 0, 9, 3]);
        let capture = Capture::read(&bytes).unwrap();
        let payloads: Vec<_> = capture.notifies.iter().map(|notify| &*notify.payload).collect();
        assert_eq!(payloads, [&b"abcdef"[..], b"g"]);
        assert_eq!((capture.max_frame_size, capture.cut), (1000, 5));
        assert_eq!(capture.dialect, Dialect::Old, "fragments");
    }

    #[test]
    fn which_haproxy_it_was() {
        let dialect = |capabilities: &str, ids: &[(u64, u64)]| {
            let mut bytes = hello(capabilities);
            for &ids in ids {
                bytes.extend(frame(FrameType::NOTIFY, Flags::FIN, ids, b""));
            }
            Capture::read(&bytes).unwrap().dialect
        };
        assert_eq!(dialect("pipelining", &[(1, 1), (3, 1)]), Dialect::New);
        assert_eq!(dialect("pipelining,async", &[(1, 1)]), Dialect::Old);
        assert_eq!(dialect("pipelining", &[(0, 1)]), Dialect::Old);
        assert_eq!(dialect("pipelining", &[(1, 1), (1, 2)]), Dialect::Old);
    }

    #[test]
    fn what_is_no_capture_of_haproxy() {
        let error = |bytes: &[u8]| Capture::read(bytes).unwrap_err();
        assert!(error(b"").contains("no SPOP frame"));
        assert!(error(b"GET / HTTP/1.1\r\n").contains("no SPOP frame"));
        assert!(error(&[0, 0, 0, 3, 1, 0, 0]).starts_with("the frame at byte 0: "));
        let ack = frame(FrameType::ACK, Flags::FIN, (1, 1), b"");
        assert!(error(&ack).contains("is it the other direction?"));
    }
}
