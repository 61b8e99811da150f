//! The handshake, in both roles.

use std::num::NonZeroU32;

use spop_proto::{
    AgentConfig, AgentConnection, Capabilities, Description, Dialect, EngineConfig,
    EngineConnection, EngineEvent, Event, Peer, Status,
};

use crate::compare::{boolean, integer, string};
use crate::naive;
use crate::output::{Output, Writer};
use crate::script::Script;
use crate::settings::{ms, start};

/// A frame by hand; the ids are below 240.
pub fn frame(kind: u8, flags: u32, ids: (u8, u8), payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len() + 7).expect("short").to_be_bytes().to_vec();
    bytes.push(kind);
    bytes.extend_from_slice(&flags.to_be_bytes());
    bytes.extend_from_slice(&[ids.0, ids.1]);
    bytes.extend_from_slice(payload);
    bytes
}

/// A HAPROXY-HELLO by hand.
pub fn haproxy(size: u32, capabilities: &str) -> Vec<u8> {
    let mut payload = b"\x12supported-versions\x08\x032.0\x0emax-frame-size\x03".to_vec();
    spop_proto::wire::encode_varint(u64::from(size), &mut payload);
    payload.extend_from_slice(b"\x0ccapabilities\x08");
    payload.push(u8::try_from(capabilities.len()).expect("short"));
    payload.extend_from_slice(capabilities.as_bytes());
    payload.extend_from_slice(b"\x09engine-id\x08\x06engine");
    frame(1, 1, (0, 0), &payload)
}

/// One input: a script, and the payload of a HELLO.
pub fn run(data: &[u8]) {
    let (mut script, payload) = Script::split(data);
    let how = script.byte();
    let usual = how & 0xf0 != 0xf0;
    let flags = if usual { 1 } else { u32::from(script.byte()) };
    let ids = if usual { (0, 0) } else { (script.byte() % 240, script.byte() % 240) };
    match how & 3 {
        0 | 1 => agent(script, payload, flags, ids),
        2 => engine(script, payload, flags, ids),
        _ => both(script),
    }
}

/// What an agent is to make of a HELLO: the frame size and the list it answers with, a health check or
/// not; or the status it refuses with.
fn judge(
    pairs: Option<Vec<(Vec<u8>, naive::Data)>>,
    own: u32,
    announces: &[&str],
    fragmentation: bool,
) -> Result<(u32, Vec<String>, bool), u32> {
    let pairs = pairs.ok_or(4_u32)?;
    let versions = string(&pairs, "supported-versions").ok_or(4_u32)?;
    let size = integer(&pairs, "max-frame-size").ok_or(4_u32)?;
    let list = string(&pairs, "capabilities").ok_or(4_u32)?;
    string(&pairs, "engine-id").ok_or(4_u32)?;
    let check = boolean(&pairs, "healthcheck").ok_or(4_u32)?.unwrap_or(false);
    boolean(&pairs, "describe").ok_or(4_u32)?;
    let versions = versions.ok_or(5_u32)?;
    if !words(versions).iter().any(|word| is_two_zero(word)) {
        return Err(8);
    }
    let size = size.ok_or(6_u32)?;
    if size < 256 {
        return Err(9);
    }
    let offered = words(list.ok_or(7_u32)?);
    let mut common: Vec<String> = announces
        .iter()
        .filter(|name| offered.iter().any(|word| word == *name))
        .map(|name| (*name).to_owned())
        .collect();
    if fragmentation {
        common.push("fragmentation".to_owned());
    }
    Ok((u32::try_from(size).unwrap_or(u32::MAX).min(own), common, check))
}

/// Separated by commas, with spaces around them. Bytes that are no text make no word.
fn words(list: &[u8]) -> Vec<String> {
    let text: String = list.iter().map(|&byte| char::from(byte)).collect();
    text.split(',')
        .map(|word| word.trim_matches([' ', '\t', '\n', '\r', '\x0c']).to_owned())
        .collect()
}

/// `2.0`, with any zeros in front of either number and behind the point.
fn is_two_zero(word: &str) -> bool {
    let Some((major, minor)) = word.split_once('.') else { return false };
    !minor.is_empty() && major.trim_start_matches('0') == "2" && minor.chars().all(|c| c == '0')
}

fn agent(mut script: Script<'_>, payload: &[u8], flags: u32, ids: (u8, u8)) {
    let own = script.pick(&[1 << 20, 256, 16_380, 4096]);
    let options = script.byte();
    let (pipelining, fragmentation, r#async) =
        (options & 1 == 0, options & 2 == 0, options & 4 != 0);
    let config = AgentConfig::new()
        .max_frame_size(own)
        .expect("within bounds")
        .pipelining(pipelining)
        .fragmentation(fragmentation)
        .r#async(r#async);
    let mut announces = Vec::new();
    if pipelining {
        announces.push("pipelining");
    }
    if r#async {
        announces.push("async");
    }
    let expected = if flags & 1 == 0 {
        Err(10)
    } else if ids != (0, 0) {
        Err(4)
    } else {
        judge(naive::pairs(payload), own, &announces, fragmentation)
    };
    let bytes = frame(1, flags, ids, payload);
    // Beyond that nothing is a HELLO.
    let expected = if bytes.len() - 4 > 4096.min(own as usize) { Err(3) } else { expected };
    let mut conn = AgentConnection::new(config, Peer::Unknown, start());
    let mut input = &bytes[..];
    let seen = match conn.receive(&mut input, start()) {
        Ok(Some(Event::Hello(info))) => {
            let list = info.capabilities().as_str();
            Ok((info.max_frame_size(), list.to_owned(), false))
        }
        Ok(Some(Event::HealthCheck { healthy: true })) => Ok((0, String::new(), true)),
        Err(error) => Err(error.status()),
        other => panic!("a HELLO gave {other:?}"),
    };
    // Whatever it was, the answer is one frame that the smallest HAProxy takes.
    let mut output = Output::new(Writer::Agent, 256);
    output.push(conn.transmit());
    assert!(output.is_whole());
    let [answer] = &output.frames[..] else { panic!("not one frame: {:?}", output.frames) };
    let said = naive::pairs(&answer.payload).expect("keys and values");
    match (expected, seen) {
        (Err(expected), Err(status)) => {
            assert_eq!(status, Status(expected));
            assert_eq!(answer.kind, 102);
            assert_eq!(integer(&said, "status-code"), Some(Some(u64::from(expected))));
            assert!(conn.close_reason().is_some());
        }
        (Ok((size, list, check)), Ok((agreed, capabilities, checked))) => {
            assert_eq!(check, checked);
            assert_eq!(answer.kind, 101);
            assert_eq!(string(&said, "version"), Some(Some(&b"2.0"[..])));
            assert_eq!(integer(&said, "max-frame-size"), Some(Some(u64::from(size))));
            let announced = string(&said, "capabilities").flatten().expect("capabilities are said");
            assert_eq!(announced, list.join(",").as_bytes());
            if !check {
                assert_eq!((size, list.join(",")), (agreed, capabilities));
            }
        }
        (expected, seen) => panic!("expected {expected:?}, saw {seen:?}"),
    }
}

fn engine_config(script: &mut Script<'_>) -> EngineConfig {
    let dialect = if script.flag() { Dialect::Old } else { Dialect::New };
    let options = script.byte();
    let config = EngineConfig::new(dialect)
        .max_frame_size(script.pick(&[16_380, 256, 1024, 1 << 20]))
        .and_then(|config| config.hello_timeout(Some(ms(100))))
        .and_then(|config| config.idle_timeout(Some(ms(200))))
        .and_then(|config| config.processing_timeout(ms(150)))
        .expect("within bounds")
        .pipelining(options & 1 == 0)
        .r#async(options & 2 == 0)
        .describe(options & 8 != 0)
        .window(NonZeroU32::new(u32::from(options >> 4)).unwrap_or(NonZeroU32::MAX));
    if options & 4 != 0 { config.health_check() } else { config }
}

fn engine(mut script: Script<'_>, payload: &[u8], flags: u32, ids: (u8, u8)) {
    let config = engine_config(&mut script);
    let mut conn = EngineConnection::new(config, start());
    let own = conn.info().max_frame_size();
    let mut output = Output::new(Writer::Haproxy, 256);
    output.push(conn.transmit());
    assert_eq!(output.count(1), 1, "HAPROXY-HELLO");
    conn.transmitted(usize::MAX);
    // The types, among them those that an agent says first.
    let kind = script.pick(&[101, 101, 101, 102, 103, 3, 0]);
    let bytes = frame(kind, flags, ids, payload);
    let pairs = naive::pairs(payload);
    let mut input = &bytes[..];
    let seen = match conn.receive(&mut input, start()) {
        Ok(Some(EngineEvent::Hello(info))) => {
            assert!((256..=own).contains(&info.max_frame_size()));
            Some(info.max_frame_size())
        }
        Ok(Some(EngineEvent::HealthCheck(Ok(())))) => Some(0),
        Ok(_) => None,
        Err(error) => {
            assert!(conn.close_reason().is_some(), "{error} without a reason");
            None
        }
    };
    if seen.is_some() {
        assert_eq!((kind, flags & 1, ids), (101, 1, (0, 0)));
        assert!(pairs.is_some(), "keys and values");
    } else if kind == 101
        && flags == 1
        && ids == (0, 0)
        && bytes.len() - 4 <= own as usize
        && pairs.is_some_and(|pairs| plain_answer(&pairs, own))
    {
        panic!("a good AGENT-HELLO was refused: {:?}", conn.close_reason());
    }
    // It comes to an end by itself when the agent says nothing more.
    let mut now = start();
    for _ in 0..100 {
        let want = conn.interest();
        if want.write {
            output.push(conn.transmit());
            conn.transmitted(usize::MAX);
        } else if want.ready {
            let _ = conn.receive(&mut &[][..], now);
        } else if want.done {
            assert!(output.is_whole());
            return;
        } else {
            now = want.deadline.expect("a deadline");
            let _ = conn.handle_timeout(now);
        }
    }
    panic!("no end: {conn:?}");
}

/// Whether it is beyond doubt: the three keys and no other, each once and of the usual type.
fn plain_answer(pairs: &[(Vec<u8>, naive::Data)], own: u32) -> bool {
    let size = integer(pairs, "max-frame-size").flatten();
    pairs.len() == 3
        && string(pairs, "version").flatten() == Some(b"2.0")
        && size.is_some_and(|size| (256..=u64::from(own)).contains(&size))
        && string(pairs, "capabilities").flatten().is_some()
}

/// Both roles with each other.
fn both(mut script: Script<'_>) {
    let config = engine_config(&mut script);
    let options = script.byte();
    // One that fits every frame, one that fits some, and none.
    let description = script.pick(&["message m", DESCRIPTION, ""]);
    let described: Description = description.parse().expect("a description");
    let agent = AgentConfig::new()
        .description(Some(&described))
        .max_frame_size(script.pick(&[1 << 20, 256, 300, 16_380]))
        .expect("within bounds")
        .pipelining(options & 1 == 0)
        .fragmentation(options & 2 == 0)
        .r#async(options & 4 != 0);
    let mut engine = EngineConnection::new(config, start());
    let mut agent = AgentConnection::new(agent, Peer::Unknown, start());
    let asked = engine.transmit().to_vec();
    let mut input = &asked[..];
    let event = agent.receive(&mut input, start()).expect("a good HELLO");
    let check = matches!(event, Some(Event::HealthCheck { healthy: true }));
    assert!(check || matches!(event, Some(Event::Hello(_))), "{event:?}");
    drop(event);
    let answer = agent.transmit().to_vec();
    let mut input = &answer[..];
    match engine.receive(&mut input, start()).expect("a good answer") {
        Some(EngineEvent::HealthCheck(Ok(()))) => assert!(check),
        Some(EngineEvent::Hello(theirs)) => {
            let ours = agent.info();
            assert_eq!(ours.max_frame_size(), theirs.max_frame_size());
            assert_eq!(ours.offered(), theirs.offered());
            assert_eq!(ours.engine_id(), theirs.engine_id());
            let common = ours.capabilities().common(theirs.capabilities());
            assert_eq!(common, theirs.capabilities(), "in use is what was announced");
            let fragments = Capabilities::FRAGMENTATION;
            let known = theirs.offered().with(fragments);
            assert_eq!(ours.capabilities().common(known), ours.capabilities());
        }
        other => panic!("{other:?}"),
    }
    // Not asked for, it is not said; what is said is all of it.
    let said = engine.description().map(|text| str::from_utf8(text).expect("text"));
    let asked = asked.windows(8).any(|bytes| bytes == b"describe");
    let text = described.to_string();
    assert!(said.is_none_or(|said| asked && said == text), "{said:?}");
    // The key, the type and the length of the text take less than 20 bytes.
    let fits = answer.len() + text.len() + 20 <= 256;
    assert!(said.is_some() || !asked || !fits || text.is_empty(), "{text:?} was not said");
}

const DESCRIPTION: &str = "\
message check-client-ip
    arg ip ip = src
    arg path str optional = path
    arg method str = method
    arg host str = req.hdr(host)
    arg id str = unique-id
    arg length int optional = req.hdr_val(content-length)
    arg body bytes = req.body
";
