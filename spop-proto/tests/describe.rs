//! An agent is asked what it takes: the items `describe` and `description` of the two HELLOs.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    missing_docs,
    reason = "tests: they may panic, and need a first instant to count from"
)]

mod common;

use std::sync::Arc;
use std::time::Instant;

use common::*;
use spop_proto::handler::{AtOnce, Inline, Mixed, Swap};
use spop_proto::{
    AgentConfig, AgentConnection, Description, Dialect, Dispatch, EngineConfig, EngineConnection,
    EngineEvent, Exchange, Handler, HandlerError, HealthState, Peer, Router, Service,
};

const TEXT: &str = "message check-client-ip\n    arg ip ip = src\n    arg path str optional\n";

fn router<M>(router: Router<M>) -> Router<M> {
    router.on("check-client-ip", |_, _| Ok(())).declares(["ip=src"])
}

fn described(text: &str) -> AgentConfig {
    AgentConfig::new().description(Some(&text.parse().unwrap()))
}

/// The HELLO of a tool that asks, with that value of `describe`.
fn asks(size: u64, healthcheck: bool, value: &[u8]) -> Vec<u8> {
    let mut pairs = hello_pairs(size, "pipelining,async");
    if healthcheck {
        pairs[3] = pair("healthcheck", &[0x11]);
    }
    pairs.push(pair("describe", value));
    frame(HAPROXY_HELLO, FIN, 0, 0, &pairs.concat())
}

fn says(size: u64, text: Option<&str>) -> Vec<u8> {
    let mut pairs = vec![
        pair("version", &string(b"2.0")),
        pair("max-frame-size", &uint32(size)),
        pair("capabilities", &string(b"pipelining,fragmentation")),
    ];
    pairs.extend(text.map(|text| pair("description", &string(text.as_bytes()))));
    frame(AGENT_HELLO, FIN, 0, 0, &pairs.concat())
}

/// What the agent says to those bytes, and what comes of them.
fn answer(config: AgentConfig, bytes: &[u8]) -> (Vec<String>, Vec<u8>) {
    let mut rig = Rig::new(config);
    let seen = match rig.feed(0, bytes) {
        Ok(seen) => seen,
        Err(error) => vec![format!("{} {}", variant(&error), error.status().0)],
    };
    (seen, rig.take())
}

#[test]
fn an_agent_that_is_asked_says_what_it_takes() {
    let with = |size| says(size, Some(TEXT));
    for (healthcheck, event) in [(false, "Hello"), (true, "HealthCheck true")] {
        let hello = asks(16_380, healthcheck, &[0x11]);
        assert_eq!(answer(described(TEXT), &hello), (vec![event.to_owned()], with(16_380)));
        // Without one there is nothing to say, and nothing is the same as none.
        for config in [AgentConfig::new(), described(""), described(TEXT).description(None)] {
            assert_eq!(answer(config, &hello).1, says(16_380, None));
        }
    }
    // `describe` = false.
    let not_asked = asks(16_380, false, &[1]);
    assert_eq!(answer(described(TEXT), &not_asked).1, says(16_380, None));
    assert_eq!(answer(described(TEXT), &hello()).1, says(16_380, None));
    // A health check is answered by an agent that has no room for anything else.
    let mut full = Rig::over_limit(described(TEXT));
    full.feed(0, &asks(16_380, true, &[0x11])).unwrap();
    assert_eq!(full.take(), with(16_380));
}

/// It goes on as any other connection does.
#[test]
fn it_is_asked_and_answers_as_before() {
    let mut rig = Rig::new(described(TEXT));
    rig.feed(0, &asks(16_380, false, &[0x11])).unwrap();
    rig.take();
    assert_eq!(rig.feed(0, &notify(1)).unwrap(), ["Notify 1/1"]);
    assert_eq!(rig.take(), ack(1, b""));
}

#[test]
fn an_agent_that_is_not_well_says_so_alone() {
    let config = described(TEXT);
    config.health().set(HealthState::NotReady);
    let (seen, said) = answer(config.clone(), &asks(16_380, true, &[0x11]));
    assert_eq!(seen, ["HealthCheck false"]);
    assert_eq!(said, agent_disconnect(99, "the agent takes no new requests"));
    // Who is no health check is told.
    let (_, said) = answer(config, &asks(16_380, false, &[0x11]));
    assert_eq!(said, says(16_380, Some(TEXT)));
}

/// The text is there whole or not at all; a frame is as large as was agreed on, and no larger.
#[test]
fn what_does_not_fit_the_frame_is_left_out() {
    let length = says(256, Some(TEXT)).len() - 4;
    assert!(length < 256);
    let padding = 256 - length;
    let exactly =
        |more: usize| TEXT.replace("path", &format!("path{}", "x".repeat(padding + more)));
    for (more, fits) in [(0, true), (1, false), (100_000, false)] {
        let text = exactly(more);
        let said = answer(described(&text), &asks(256, true, &[0x11])).1;
        assert_eq!(said, says(256, fits.then_some(&text)), "{more}");
        assert!(said.len() - 4 <= 256);
        // The agent's own limit counts as well.
        let own = described(&text).max_frame_size(256).unwrap();
        assert_eq!(answer(own, &asks(16_380, true, &[0x11])).1, says(256, fits.then_some(&text)));
    }
    let said = answer(described(&exactly(100_000)), &asks(1 << 20, true, &[0x11])).1;
    assert_eq!(said, says(1 << 20, Some(&exactly(100_000))));
}

#[test]
fn an_item_of_another_type_is_refused_like_any() {
    for value in [&b"\x08\x04true"[..], &[0], &[3, 1], &[9, 1, b'x']] {
        let (seen, said) = answer(described(TEXT), &asks(16_380, false, value));
        assert_eq!(seen, ["Malformed 4"], "{value:?}");
        assert_eq!(said[4], AGENT_DISCONNECT);
    }
}

/// What HAProxy's side makes of an AGENT-HELLO.
fn engine(config: EngineConfig, bytes: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let now = Instant::now();
    let mut conn = EngineConnection::new(config, now);
    assert_eq!(conn.description(), None);
    let mut input = bytes;
    match conn.receive(&mut input, now) {
        Ok(Some(EngineEvent::Hello(_) | EngineEvent::HealthCheck(Ok(())))) => {}
        Ok(Some(EngineEvent::HealthCheck(Err(failure)))) => return Err(failure.to_string()),
        Ok(other) => panic!("{other:?}"),
        Err(error) => return Err(variant(&error)),
    }
    Ok(conn.description().map(<[u8]>::to_vec))
}

const DIALECTS: [Dialect; 2] = [Dialect::Old, Dialect::New];

fn all(describe: bool) -> impl Iterator<Item = EngineConfig> {
    let config = move |dialect| EngineConfig::new(dialect).describe(describe);
    DIALECTS.into_iter().flat_map(move |one| [config(one), config(one).health_check()])
}

#[test]
fn both_sides_with_each_other() {
    for describe in [true, false] {
        for config in all(describe) {
            let now = Instant::now();
            let mut haproxy = EngineConnection::new(config.clone(), now);
            let mut agent = AgentConnection::new(described(TEXT), Peer::Unknown, now);
            agent.receive(&mut haproxy.transmit(), now).unwrap().unwrap();
            let said = engine(config, agent.transmit()).unwrap();
            assert_eq!(said.as_deref(), describe.then_some(TEXT.as_bytes()));
            haproxy.transmitted(usize::MAX);
        }
    }
}

/// What is wrong with a description is wrong for who asked for it; HAProxy does not know the item.
#[test]
fn hostile_descriptions() {
    let hello = |value: &[u8]| {
        let good = says(16_380, None);
        let payload = [&good[11..], &pair("description", value)].concat();
        frame(AGENT_HELLO, FIN, 0, 0, &payload)
    };
    let of_another_type = hello(&[0x11]);
    let cut_short = hello(&[8, 0xff, 0xff, 0x7f, b'x']);
    let not_utf8 = hello(&string(b"\xff\xfe\0"));
    let large = hello(&string(&vec![b'x'; 10 << 20]));
    for config in all(false) {
        assert_eq!(engine(config.clone(), &of_another_type), Ok(None));
        assert_eq!(engine(config.clone(), &not_utf8), Ok(None));
        assert!(engine(config.clone(), &cut_short).is_err());
        assert!(engine(config, &large).is_err());
    }
    for config in all(true) {
        assert!(engine(config.clone(), &of_another_type).is_err(), "{config:?}");
        assert!(engine(config.clone(), &cut_short).is_err());
        // Bytes: it is for the reader to see that they are no text.
        assert_eq!(engine(config.clone(), &not_utf8), Ok(Some(b"\xff\xfe\0".to_vec())));
        // Refused by the length in its first four bytes.
        assert!(engine(config.clone(), &large).is_err());
        assert!(engine(config, &large[..16]).is_err());
    }
}

struct Waits;

impl Handler for Waits {
    async fn notify(&self, exchange: Exchange) -> Result<Exchange, HandlerError> {
        Ok(exchange)
    }
}

#[test]
fn who_describes_itself() {
    let expected: Description = "message check-client-ip\narg ip any = src".parse().unwrap();
    let at_once = || router(Router::<AtOnce>::new());
    let service = |service: &dyn Service| service.describe();
    assert_eq!(service(&at_once()).as_ref(), Some(&expected));
    assert_eq!(service(&Arc::new(at_once())).as_ref(), Some(&expected));
    assert_eq!(service(&Swap::new(at_once())).as_ref(), Some(&expected));
    assert_eq!(Inline::new(at_once()).describe().as_ref(), Some(&expected));
    let mixed: Router<Mixed> = at_once().concurrent("slow", |x| async { Ok(x) });
    let described = Arc::new(mixed).describe().unwrap();
    assert_eq!(described.messages().count(), 2);
    // Nothing to say.
    assert_eq!(service(&Router::new()), None);
    assert_eq!(Swap::new(Arc::new(Waits)).describe(), None);
}

/// What is set by hand counts, whenever it is set; `None` too.
#[test]
fn by_hand_goes_before_the_handler() {
    let own: Description = "message own\n".parse().unwrap();
    let says = |config: AgentConfig| {
        let said = answer(config, &asks(16_380, true, &[0x11])).1;
        said.windows(8)
            .any(|bytes| bytes == b"message ")
            .then(|| said[said.len() - 1 - 3..].to_vec())
    };
    let handler = || Some(own.clone());
    assert_eq!(says(AgentConfig::new().description_or(handler())), Some(b"own\n".to_vec()));
    assert_eq!(says(AgentConfig::new().description_or(None)), None);
    assert_eq!(says(described("message set").description_or(handler())), Some(b"set\n".to_vec()));
    assert_eq!(says(AgentConfig::new().description(None).description_or(handler())), None);
}
