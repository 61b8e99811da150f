//! What comes to the port and is no HAProxy: it leaves nothing behind.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    missing_docs,
    reason = "tests: they may panic, and need a first instant to count from"
)]

mod common;

use common::Rig;
use spop_proto::{AgentConfig, ProtocolError};

/// Whatever is sent after the first bytes is discarded, and the connection ends by itself.
#[test]
fn memory_does_not_grow_with_what_a_scanner_sends() {
    let firsts: [&[u8]; 6] = [
        b"GET /",
        &[0x16, 3, 1, 2, 0],
        b"PROXY TCP4",
        b"\r\n\r\n\0\r\nQUIT\n",
        b"help\r\n",
        &[0x81, 2, 3, 4],
    ];
    for first in firsts {
        let mut rig = Rig::new(AgentConfig::new());
        let refused = rig.feed(0, first);
        assert!(matches!(refused, Err(ProtocolError::NotSpop { .. })), "{refused:?}");
        assert_eq!(rig.take()[4], 102);
        let held = rig.conn.buffered();
        for _ in 0..1024 {
            assert_eq!(rig.feed(1, &[0x55; 1024]), Ok(vec![]));
            assert!(rig.conn.buffered() <= held, "{} bytes", rig.conn.buffered());
        }
        assert_eq!(rig.take(), b"", "it is told once");
        rig.timeout(1_000).unwrap();
        assert!(rig.conn.interest().done);
        assert!(held < 1024, "{held} bytes for a scanner");
    }
}
