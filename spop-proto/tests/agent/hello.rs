//! The handshake, health checks, and connections over the limit.

use spop_proto::{AgentConfig, Capabilities, CloseReason, HealthState, Peer, ProtocolError};

use crate::common::*;
use crate::support::*;

#[test]
fn the_agent_hello_byte_by_byte() {
    let mut rig = Rig::new(AgentConfig::new());
    rig.feed(0, &hello()).unwrap();
    assert_eq!(
        rig.take(),
        b"\x00\x00\x00\x4e\x65\x00\x00\x00\x01\x00\x00\
          \x07version\x08\x032.0\
          \x0emax-frame-size\x03\xfc\xf0\x06\
          \x0ccapabilities\x08\x18pipelining,fragmentation"
    );
}

#[test]
fn what_a_hello_may_look_like() {
    let version = pair("supported-versions", &string(b"2.0"));
    let size = pair("max-frame-size", &uint32(16380));
    let capabilities = pair("capabilities", &string(b"pipelining"));
    let with_version = |text: &[u8]| {
        [pair("supported-versions", &string(text)), size.clone(), capabilities.clone()].concat()
    };
    let with_size = |value: &[u8]| {
        [version.clone(), pair("max-frame-size", value), capabilities.clone()].concat()
    };
    let with = |more: &[u8]| [&version[..], &size, &capabilities, more].concat();
    let cases: &[(&str, Vec<u8>)] = &[
        ("no engine-id", with(b"")),
        ("any order", [&capabilities[..], &size, &version].concat()),
        ("spaces around the version", with_version(b"  2.0 ")),
        ("several versions", with_version(b"1.0,2.0,3.1")),
        ("several versions with spaces", with_version(b"3.1 , 2.0")),
        ("zeros", with_version(b"02.000")),
        ("junk among the versions", with_version(b"x,,2.0,2")),
        ("INT32", with_size(b"\x02\xfc\xf0\x06")),
        ("INT64", with_size(b"\x04\xfc\xf0\x06")),
        ("UINT64", with_size(b"\x05\xfc\xf0\x06")),
        ("no health check", with(b"\x0bhealthcheck\x01")),
        ("a boolean only HAProxy reads as false", with(b"\x0bhealthcheck\x21")),
        ("an unknown key", with(b"\x03new\x08\x01x")),
        ("an unknown key with a reserved type", with(b"\x03new\x0f\x04more\x00")),
        ("a key that begins as a known one", with(b"\x0dcapabilitiesX\x00")),
        ("a key twice", with(&version)),
        ("an empty engine-id", with(b"\x09engine-id\x08\x00")),
    ];
    for (name, payload) in cases {
        let mut rig = Rig::new(AgentConfig::new());
        let seen = rig.feed(0, &frame(HAPROXY_HELLO, FIN, 0, 0, payload));
        assert_eq!(seen, Ok(vec!["Hello".to_owned()]), "{name}");
        assert_eq!(rig.take(), agent_hello(16380, "pipelining,fragmentation"), "{name}");
    }
}

#[test]
fn the_lower_size_counts() {
    let default = AgentConfig::new();
    let small = AgentConfig::new().max_frame_size(256).unwrap();
    let cases = [
        (&default, 256, 256),
        (&default, 16380, 16380),
        (&default, 65535, 65535),
        (&default, 1 << 20, 1 << 20),
        (&default, (1 << 20) + 1, 1 << 20),
        (&default, u64::from(u32::MAX), 1 << 20),
        (&default, u64::from(u32::MAX) + 1, 1 << 20),
        (&default, u64::MAX, 1 << 20),
        (&small, 16380, 256),
    ];
    for (config, offered, expected) in cases {
        let mut rig = Rig::new(config.clone());
        assert_eq!(rig.feed(0, &hello_of(offered)), Ok(vec!["Hello".to_owned()]), "{offered}");
        assert_eq!(rig.take(), agent_hello(expected, "pipelining,fragmentation"), "{offered}");
        assert_eq!(u64::from(rig.conn.info().max_frame_size()), expected);
        assert_eq!(rig.conn.info().offered_max_frame_size(), offered);
    }
}

#[test]
fn capabilities_announced() {
    let all = AgentConfig::new();
    let none = AgentConfig::new().pipelining(false).fragmentation(false);
    let cases = [
        (&all, "pipelining,async", "pipelining,fragmentation"),
        (&all, "pipelining", "pipelining,fragmentation"),
        (&all, " async , pipelining ", "pipelining,fragmentation"),
        (&all, "async", "fragmentation"),
        (&all, "", "fragmentation"),
        (&all, "pipelining,teleport,fragmentation", "pipelining,fragmentation"),
        (&all, "Pipelining,pipeliningx", "fragmentation"),
        // An empty list is written all the same: health checks of HAProxy >= 3.1 insist on it.
        (&none, "pipelining,async", ""),
    ];
    for (config, offered, expected) in cases {
        let mut rig = Rig::new(config.clone());
        rig.feed(0, &hello_with(&hello_pairs(16380, offered))).unwrap();
        assert_eq!(rig.take(), agent_hello(16380, expected), "{offered}");
        let info = rig.conn.info();
        assert_eq!(info.capabilities().as_str(), expected, "{offered}");
        assert_eq!(
            info.offered().contains(Capabilities::ASYNC),
            offered.contains("async"),
            "{offered}"
        );
    }
}

#[test]
fn what_is_known_of_a_connection() {
    let peer = Peer::Tcp("192.0.2.1:4000".parse().unwrap());
    let mut rig = Rig::new(AgentConfig::new());
    assert_eq!(rig.conn.info().engine_id(), None);
    assert_eq!(rig.conn.info().peer(), Peer::Unknown);
    rig.feed(0, &hello()).unwrap();
    let id = b"6b1b9c6d-9b8e-4b0a-8f0f-0d6a5d1f9c11";
    assert_eq!(rig.conn.info().engine_id(), Some(&id[..]));
    let now = rig.at(0);
    let conn = spop_proto::AgentConnection::new(AgentConfig::new(), peer, now);
    assert_eq!(conn.info().peer(), peer);
}

#[test]
fn health_checks_are_told_how_the_agent_is() {
    const SICK: &str = "the agent takes no new requests";
    let well = || agent_hello(16380, "pipelining,fragmentation");
    let cases = [
        (HealthState::Ready, true, well()),
        (HealthState::NotReady, false, agent_disconnect(99, SICK)),
        (HealthState::LameDuck, false, agent_disconnect(99, SICK)),
    ];
    for (state, healthy, expected) in cases {
        for over in [false, true] {
            let config = AgentConfig::new();
            config.health().set(state);
            let mut rig = if over { Rig::over_limit(config) } else { Rig::new(config) };
            let seen = rig.feed(0, &health_check());
            assert_eq!(seen, Ok(vec![format!("HealthCheck {healthy}")]), "{state:?} {over}");
            assert_eq!(rig.take(), expected, "{state:?} {over}");
            assert_eq!(rig.conn.close_reason(), Some(&CloseReason::HealthCheck));
            // HAProxy closes, or else the close timeout does.
            assert_eq!(rig.deadline(), Some(1000));
            assert_eq!(rig.timeout(999), Ok(()));
            assert!(!rig.conn.interest().done);
            assert_eq!(rig.timeout(1000), Ok(()));
            assert!(rig.conn.interest().done);
        }
    }
}

#[test]
fn a_bad_health_check_is_refused_like_any_hello() {
    let payload = b"\x0bhealthcheck\x11";
    let mut rig = Rig::new(AgentConfig::new());
    let error = rig.feed(0, &frame(HAPROXY_HELLO, FIN, 0, 0, payload)).unwrap_err();
    assert_eq!(error, ProtocolError::NoVersion);
    assert_eq!(rig.take(), agent_disconnect(5, "the HELLO names no version"));
}

#[test]
fn not_being_well_keeps_no_request_out() {
    let config = AgentConfig::new();
    config.health().set(HealthState::LameDuck);
    let mut rig = Rig::ready(config);
    assert_eq!(rig.feed(0, &notify(1)), asked(1));
}

#[test]
fn beyond_the_connection_limit_nothing_is_said() {
    let mut rig = Rig::over_limit(AgentConfig::new());
    let bytes = [hello(), notify(1)].concat();
    assert_eq!(rig.feed(5, &bytes), Ok(vec![]));
    assert_eq!(rig.take(), b"");
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::ConnectionLimit));
    assert_eq!(rig.deadline(), Some(100));
    assert_eq!(rig.timeout(99), Ok(()));
    assert!(!rig.conn.interest().done);
    assert_eq!(rig.timeout(100), Ok(()));
    assert!(rig.conn.interest().done);
    assert_eq!(rig.take(), b"");
}

#[test]
fn beyond_the_connection_limit_silence_is_no_fault() {
    let mut rig = Rig::over_limit(AgentConfig::new());
    assert_eq!(rig.timeout(100), Ok(()));
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::ConnectionLimit));
    assert!(rig.conn.interest().done);
}
