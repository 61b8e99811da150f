//! The limits on the sizes of frames, and what is told of a peer that speaks something else.

use spop_proto::{AgentConfig, FirstBytes, ProtocolError, Scope, SetError, Status};

use crate::common::*;
use crate::support::*;

#[test]
fn frames_are_bounded_by_the_own_limit_not_by_the_negotiated_one() {
    let config = AgentConfig::new().max_frame_size(2000).unwrap();
    let mut rig = Rig::new(config);
    rig.feed(0, &hello_of(1000)).unwrap();
    assert_eq!(rig.conn.info().max_frame_size(), 1000);
    assert_eq!(rig.feed(0, &notify_of_length(2000)), asked(1));
    let error = rig.feed(0, &notify_of_length(2001)).unwrap_err();
    let offset = (hello_of(1000).len() + 4 + 2000) as u64;
    assert_eq!(error, ProtocolError::FrameTooBig { length: 2001, limit: 2000, offset });
}

#[test]
fn a_first_frame_of_4_kib_is_the_largest() {
    let filled = |length: usize| {
        let pairs = hello_pairs(16380, "").concat();
        let text = text_of(length - 7 - pairs.len() - b"\x03new\x08".len());
        let filler = pair("new", &[vec![8], text].concat());
        let frame = frame(HAPROXY_HELLO, FIN, 0, 0, &[pairs, filler].concat());
        assert_eq!(frame.len() - 4, length);
        frame
    };
    let mut rig = Rig::new(AgentConfig::new());
    assert_eq!(rig.feed(0, &filled(4096)), Ok(vec!["Hello".to_owned()]));
    let mut rig = Rig::new(AgentConfig::new());
    let error = rig.feed(0, &filled(4097)).unwrap_err();
    assert_eq!(error, ProtocolError::NotSpop { found: FirstBytes::Length(4097) });
    // The limit is gone once the handshake is done.
    let mut rig = Rig::ready(AgentConfig::new());
    assert_eq!(rig.feed(0, &notify_of_length(5000)), asked(1));
}

#[test]
fn a_first_frame_above_a_small_own_limit_is_refused() {
    let config = AgentConfig::new().max_frame_size(256).unwrap();
    let mut rig = Rig::new(config);
    let error = rig.feed(0, &[0, 0, 1, 1]).unwrap_err();
    assert_eq!(error, ProtocolError::NotSpop { found: FirstBytes::Length(257) });
}

#[test]
fn what_does_not_speak_spop_is_told_apart() {
    let cases: [(&[u8], FirstBytes, &str); 8] = [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", FirstBytes::Http, "an HTTP request"),
        (b"POST /x HTTP/1.1\r\n", FirstBytes::Http, "an HTTP request"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", FirstBytes::Http, "an HTTP request"),
        (&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc], FirstBytes::Tls, "a TLS handshake"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", FirstBytes::Proxy, "a PROXY protocol header"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", FirstBytes::Proxy, "a PROXY protocol header"),
        (b"hello?\n", FirstBytes::Text, "text"),
        (&[0xff; 8], FirstBytes::Length(u32::MAX), "a length of 4294967295 bytes"),
    ];
    for (input, found, text) in cases {
        // In one piece and byte by byte: the diagnosis needs four bytes and gets them either way.
        for chunk in [input.len(), 1] {
            let mut rig = Rig::new(AgentConfig::new());
            let mut chunks = input.chunks(chunk);
            let error = chunks.find_map(|bytes| rig.feed(0, bytes).err()).expect(text);
            assert_eq!(error, ProtocolError::NotSpop { found });
            assert_eq!(error.status(), Status::FRAME_TOO_BIG);
            let text = format!("the connection begins with {text}, not with a SPOP frame");
            assert_eq!(rig.take(), agent_disconnect(3, &text));
        }
    }
}

#[test]
fn an_ack_stays_below_the_offer() {
    // Offered, own limit, largest length of an ACK.
    let cases =
        [(16380, 1 << 20, 16379), (256, 1 << 20, 255), (65535, 1000, 1000), (1001, 1000, 1000)];
    for (offered, own, limit) in cases {
        let mut rig = Rig::new(AgentConfig::new().max_frame_size(own).unwrap());
        rig.feed(0, &hello_of(offered)).unwrap();
        rig.take();
        // The value that fills the frame: type, flags and ids take 7, `set-var txn.a` 5, BINARY 1.
        let value = [vec![9], text_of(limit - 7 - 5 - 1)].concat();
        let fits = value.iter().filter(|byte| **byte == b'x').count();
        let text = vec![b'x'; fits + 1];
        rig.ask(&notify(1), |mut ack| {
            let full = SetError::TooBig { limit };
            assert_eq!(ack.set(Scope::Transaction, "a", &text), Err(full.clone()), "{offered}");
            assert!(ack.is_empty());
            assert_eq!(ack.set(Scope::Transaction, "a", &text[..fits]), Ok(()), "{offered}");
            assert_eq!(ack.unset(Scope::Transaction, "b"), Err(full), "{offered}");
            ack.commit();
        });
        let output = rig.take();
        assert_eq!(output.len() - 4, limit, "{offered}");
        assert_eq!(output, ack(1, &set_txn("a", &value)), "{offered}");
        assert_eq!(rig.conn.stats().too_big, 1, "counts answers");
    }
}
