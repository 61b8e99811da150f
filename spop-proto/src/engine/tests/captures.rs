//! What real HAProxy processes wrote, written anew; and what real bytes led to.
//!
//! The traces of these runs (the variable of `option set-on-error`) are the source of the outcomes
//! below.

use std::collections::HashMap;

use super::*;
use crate::wire::{Capabilities, HaproxyHello};

/// A file of `tests/captures`; empty where there is none.
fn capture(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/captures/{name}.bin", env!("CARGO_MANIFEST_DIR"));
    #[expect(clippy::disallowed_methods, reason = "the captures are files")]
    std::fs::read(path).unwrap_or_default()
}

/// The names of the files HAProxy wrote, without what follows the connection.
fn connections() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/captures/index.tsv");
    #[expect(clippy::disallowed_methods, reason = "the captures are files")]
    let index = std::fs::read_to_string(path).unwrap();
    let names = index.lines().filter_map(|line| line.split('\t').next()?.strip_suffix(".bin"));
    names.filter_map(|name| name.strip_suffix(".from-haproxy")).map(str::to_owned).collect()
}

/// Frames with their length field; what is left over counts as one.
fn split(mut data: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    while let Some(length) = data.first_chunk() {
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap();
        let Some((frame, rest)) = data.split_at_checked(4 + length) else { break };
        frames.push(frame);
        data = rest;
    }
    if !data.is_empty() {
        frames.push(data);
    }
    frames
}

fn decode(bytes: &[u8]) -> Frame<'_> {
    Frame::decode(&bytes[4..]).unwrap()
}

/// The configuration whose HELLO must be these bytes.
fn config_of(name: &str, hello: &[u8]) -> EngineConfig {
    let dialect = if name.starts_with("3.2") { NEW } else { OLD };
    let hello = HaproxyHello::decode(decode(hello).payload).unwrap();
    let offered = Capabilities::parse(hello.capabilities.unwrap());
    let config = EngineConfig::new(dialect)
        .max_frame_size(u32::try_from(hello.max_frame_size.unwrap()).unwrap())
        .unwrap()
        .pipelining(offered.contains(Capabilities::PIPELINING))
        .r#async(offered.contains(Capabilities::ASYNC));
    match hello.engine_id {
        Some(id) => config.engine_id(id).unwrap(),
        None => config.health_check(),
    }
}

/// A NOTIFY of HAProxy, put together.
struct Asked {
    ids: (u64, u64),
    payload: Vec<u8>,
}

/// The NOTIFYs of a capture, up to the first frame that is something else or not whole, and how
/// many bytes they take.
fn asked(frames: &[&[u8]]) -> (Vec<Asked>, usize) {
    let (mut all, mut len, mut end) = (Vec::new(), 0, 0);
    let mut open: Option<Asked> = None;
    for bytes in frames {
        let Frame { header, payload } = decode(bytes);
        let ids = (header.stream_id, header.frame_id);
        match (header.kind, &mut open) {
            (FrameType::NOTIFY, None) => open = Some(Asked { ids, payload: payload.to_vec() }),
            (FrameType::UNSET, Some(open)) if !header.flags.abort() && open.ids == ids => {
                open.payload.extend_from_slice(payload);
            }
            _ => break,
        }
        len += bytes.len();
        if header.flags.fin() {
            all.extend(open.take());
            end = len;
        }
    }
    (all, end)
}

#[test]
fn every_hello_of_haproxy_is_written_to_the_byte() {
    let mut checks = 0;
    for name in connections() {
        let bytes = capture(&format!("{name}.from-haproxy"));
        let hello = split(&bytes)[0];
        let config = config_of(&name, hello);
        checks += usize::from(config.health_check);
        let mut engine = Engine::new(config);
        assert_eq!(engine.output(), hello, "{name}");
    }
    assert!(checks >= 10);
}

/// Every NOTIFY of every capture: the ids, the sizes and where HAProxy cut what exceeds a frame.
#[test]
fn every_notify_of_haproxy_is_written_to_the_byte() {
    let (mut notifies, mut fragmented) = (0, 0);
    for name in connections() {
        let bytes = capture(&format!("{name}.from-haproxy"));
        let frames = split(&bytes);
        let (all, end) = asked(&frames[1..]);
        if all.is_empty() {
            continue;
        }
        let config = config_of(&name, frames[0]);
        let (old, offered) = (config.dialect == OLD, config.offered_max_frame_size());
        let mut engine = Engine::new(config);
        let agent = capture(&format!("{name}.from-agent"));
        let size = split(&agent).first().and_then(|hello| {
            let hello = crate::wire::AgentHello::decode(decode(hello).payload).ok()?;
            u32::try_from(hello.max_frame_size?).ok()
        });
        engine.feed(&agent_hello(size.unwrap_or(offered), "pipelining,fragmentation"));
        let mut last = HashMap::new();
        for Asked { ids: (stream, frame), payload } in &all {
            let previous = last.get(stream).copied();
            let now = engine.now;
            let id = match previous {
                // The same frame-id again is what HAProxy makes of a timeout.
                Some((id, before)) if old => {
                    let failed = before == *frame;
                    let outcome = if failed { Outcome::Failed } else { Outcome::Acked };
                    engine.conn.notify_again(id, outcome, payload, now)
                }
                _ => {
                    engine.conn.core.next_stream = *stream;
                    engine.conn.notify(payload, now)
                }
            };
            last.insert(*stream, (id.unwrap(), *frame));
            engine.output();
            engine.feed(&ack(*stream, *frame));
            notifies += 1;
        }
        let expected = &bytes[..frames[0].len() + end];
        assert_eq!(engine.sent, expected, "{name}");
        fragmented += usize::from(all.iter().any(|one| one.payload.len() + 32 > offered as usize));
    }
    assert!(notifies > 300, "{notifies}");
    assert!(fragmented >= 5, "{fragmented}");
}

/// Runs a capture: NOTIFYs as HAProxy sent them, one when the one before has ended, and the
/// agent's bytes.
fn replay(name: &str) -> (Vec<String>, Vec<String>) {
    let haproxy = capture(&format!("{name}.from-haproxy"));
    let agent = capture(&format!("{name}.from-agent"));
    assert!(!agent.is_empty(), "{name}");
    let frames = split(&haproxy);
    let mut engine = Engine::new(config_of(name, frames[0]));
    engine.output();
    let mut next = asked(&frames[1..]).0.into_iter().peekable();
    let mut said = Vec::new();
    let ask = |engine: &mut Engine, next: &mut core::iter::Peekable<_>| {
        let idle = engine.conn.in_flight() == 0 && engine.conn.window_left() > 0;
        if let Some(Asked { ids, payload }) = next.next_if(|_| idle) {
            if engine.conn.core.phase != super::super::core::Phase::Hello {
                engine.conn.core.next_stream = ids.0;
            }
            engine.notify(&payload).unwrap();
        }
    };
    for bytes in split(&agent) {
        ask(&mut engine, &mut next);
        engine.feed(bytes);
        said.extend(engine.frames());
    }
    if engine.conn.interest().read && engine.conn.in_flight() > 0 {
        engine.eof();
    }
    engine.wait();
    said.retain(|frame| frame.starts_with("disconnect"));
    (said, engine.seen())
}

fn lead_to(version: &str, cases: &[(&str, &[&str], &[&str])]) {
    for (scenario, disconnects, outcome) in cases {
        let (said, seen) = replay(&format!("{version}_{scenario}_c1"));
        assert_eq!(seen, *outcome, "{version} {scenario}");
        assert_eq!(said, *disconnects, "{version} {scenario}");
    }
}

/// `err-len-0` and `err-len-6` are left out: 2.6 skips or stalls where 3.0 disconnects.
#[test]
fn faults_shown_to_2_6() {
    let answered: &[&str] = &["hello", "ack 0/1 1", "ack 2/1 1"];
    lead_to(
        "2.6.12",
        &[
            ("err-ack-abort-flag", &[], answered),
            ("err-ack-frame-id-0", &[], answered),
            ("err-ack-frame-id-high", &[], answered),
            ("err-ack-reserved-flags", &[], answered),
            ("err-ack-twice", &[], answered),
            ("err-ack-unknown-stream", &[], answered),
            ("err-hello-again", &[], answered),
            ("err-unknown-type-sid", &[], answered),
            ("err-unknown-type-sid0", &[], answered),
            ("err-ack-no-fin", &["disconnect 10"], &["hello", "fault 10", "bye 0", "err 256"]),
            (
                "err-ack-unknown-stream-sync",
                &["disconnect 12"],
                &["hello", "fault 12", "bye 0", "err 256"],
            ),
            ("err-agent-disconnect-0", &[], &["hello", "bye 0", "err 256"]),
            ("err-agent-disconnect-4", &[], &["hello", "bye 4", "err 260"]),
            ("err-agent-disconnect-500", &[], &["hello", "bye 500", "err 756"]),
            ("err-agent-disconnect-empty", &[], &["hello", "bye 0", "err 256"]),
            ("err-too-big", &["disconnect 3"], &["hello", "fault 3", "err 259"]),
            ("hello-extra-flags", &[], &["hello", "ack 0/1 1"]),
            ("hello-mfs-int32", &[], &["hello", "ack 0/1 1"]),
            ("hello-no-caps", &[], &["hello", "ack 0/1 1"]),
            ("hello-prefix-keys", &[], &["hello", "ack 0/1 1"]),
            ("hello-twice", &[], &["hello", "ack 0/1 1"]),
            ("hello-version-spaces", &[], &["hello", "ack 0/1 1"]),
            ("hello-agent-disconnect", &[], &["bye 8"]),
            ("hello-ack-instead", &["disconnect 4"], &["fault 4", "bye 0"]),
            ("hello-empty-key", &["disconnect 4"], &["fault 4", "bye 0"]),
            ("hello-mfs-16381", &["disconnect 9"], &["fault 9", "bye 0"]),
            ("hello-mfs-255", &["disconnect 9"], &["fault 9", "bye 0"]),
            ("hello-mfs-string", &["disconnect 4"], &["fault 4", "bye 0"]),
            ("hello-no-fin", &["disconnect 10"], &["fault 10", "bye 0"]),
            ("hello-no-mfs", &["disconnect 6"], &["fault 6", "bye 0"]),
            ("hello-no-version", &["disconnect 5"], &["fault 5", "bye 0"]),
            ("hello-sid-1", &["disconnect 4"], &["fault 4", "bye 0"]),
            ("hello-too-big", &["disconnect 3"], &["fault 3"]),
            ("hello-version-1.0", &["disconnect 8"], &["fault 8", "bye 0"]),
            ("hello-version-2", &["disconnect 8"], &["fault 8", "bye 0"]),
            ("hello-version-2.1", &["disconnect 8"], &["fault 8", "bye 0"]),
            ("hello-version-binary", &["disconnect 4"], &["fault 4", "bye 0"]),
        ],
    );
}

#[test]
fn faults_shown_to_3_2() {
    let answered: &[&str] = &["hello", "ack 1/1 1", "ack 3/1 1"];
    lead_to(
        "3.2.26",
        &[
            ("err-ack-abort-flag", &[], answered),
            ("err-ack-reserved-flags", &[], answered),
            ("err-ack-twice", &[], answered),
            ("err-hello-again", &[], &["hello", "hello", "ack 1/1 1", "ack 3/1 1"]),
            ("err-unknown-type-sid", &[], answered),
            ("err-ack-frame-id-0", &[], &["hello", "fault 12", "err 1"]),
            ("err-ack-frame-id-high", &[], &["hello", "fault 12", "err 1"]),
            ("err-ack-no-fin", &[], &["hello", "fault 10", "err 1"]),
            ("err-ack-unknown-stream", &[], &["hello", "fault 12", "err 1"]),
            ("err-ack-unknown-stream-sync", &[], &["hello", "fault 12", "err 1"]),
            ("err-len-0", &[], &["hello", "fault 4", "err 1"]),
            ("err-len-6", &[], &["hello", "fault 4", "err 1"]),
            ("err-too-big", &[], &["hello", "fault 3", "err 1"]),
            ("err-unknown-type-sid0", &[], &["hello", "fault 4", "err 1"]),
            ("err-agent-disconnect-0", &[], &["hello", "bye 0", "err 257"]),
            ("err-agent-disconnect-4", &[], &["hello", "bye 4", "err 260"]),
            ("err-agent-disconnect-500", &[], &["hello", "bye 500", "err 756"]),
            ("err-agent-disconnect-empty", &[], &["hello", "bye 0", "err 257"]),
            ("hello-byte-by-byte", &[], &["hello", "ack 1/1 1"]),
            ("hello-three-writes", &[], &["hello", "ack 1/1 1"]),
            ("hello-extra-flags", &[], &["hello", "ack 1/1 1"]),
            ("hello-mfs-int32", &[], &["hello", "ack 1/1 1"]),
            ("hello-no-caps", &[], &["hello", "ack 1/1 1"]),
            ("hello-no-mfs", &[], &["hello", "ack 1/1 1"]),
            ("hello-prefix-keys", &[], &["hello", "ack 1/1 1"]),
            ("hello-twice", &[], &["hello", "hello", "ack 1/1 1"]),
            ("hello-version-spaces", &[], &["hello", "ack 1/1 1"]),
            ("hello-empty-key", &["disconnect 4"], &["fault 4", "bye 0"]),
            ("hello-mfs-16381", &["disconnect 9"], &["fault 9", "bye 0"]),
            ("hello-mfs-255", &["disconnect 9"], &["fault 9", "bye 0"]),
            ("hello-mfs-string", &["disconnect 4"], &["fault 4", "bye 0"]),
            ("hello-no-version", &["disconnect 5"], &["fault 5", "bye 0"]),
            ("hello-version-1.0", &["disconnect 8"], &["fault 8", "bye 0"]),
            ("hello-version-2", &["disconnect 4"], &["fault 4", "bye 0"]),
            ("hello-version-2.1", &["disconnect 8"], &["fault 8", "bye 0"]),
            ("hello-version-binary", &["disconnect 4"], &["fault 4", "bye 0"]),
            ("hello-ack-instead", &[], &["fault 4"]),
            ("hello-agent-disconnect", &[], &["fault 4"]),
            ("hello-no-fin", &[], &["fault 10"]),
            ("hello-sid-1", &[], &["fault 4"]),
            ("hello-too-big", &[], &["fault 3"]),
        ],
    );
}

#[test]
fn health_checks() {
    let too_big = "unhealthy: max-frame-size too big or too small";
    let no_size = "unhealthy: max-frame-size value not found";
    for (version, scenario, verdict) in [
        ("2.6.12", "hc-disconnect", "unhealthy: unsupported version"),
        ("2.6.12", "hc-max-frame-size-too-big", too_big),
        ("2.6.12", "hc-no-capabilities", "healthy"),
        ("2.6.12", "hc-no-max-frame-size", no_size),
        ("2.6.12", "hc-ok-keep", "healthy"),
        ("3.2.26", "hc-disconnect", "unhealthy: version value not found"),
        ("3.2.26", "hc-max-frame-size-too-big", too_big),
        ("3.2.26", "hc-no-capabilities", "unhealthy: capabilities value not found"),
        ("3.2.26", "hc-no-max-frame-size", no_size),
        ("3.2.26", "hc-ok-keep", "healthy"),
    ] {
        lead_to(version, &[(scenario, &[], &[verdict])]);
    }
}
