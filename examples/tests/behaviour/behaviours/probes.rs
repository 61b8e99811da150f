//! What else comes to a port: scanners, browsers, and whoever mistook it for another.

use spop_proto::Dialect::New;

use crate::bench::Bench;
use crate::client::Client;
use crate::script::{Word, echo};
use crate::wire::Wire;

/// Each is told that its frame is too big, and left. None of it costs anybody else anything.
pub(super) fn are_sent_away(bench: &Bench) {
    let mut proxy_v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    proxy_v2.extend([192, 0, 2, 1, 192, 0, 2, 2, 0, 1, 0, 2]);
    let mut tls = vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    tls.resize(517, 0xa5);
    let http = b"GET / HTTP/1.1\r\nhost: 192.0.2.1\r\nuser-agent: x\r\n\r\n".to_vec();
    let probes = [
        ("HTTP", http),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("TLS", tls),
        ("PROXY 1", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n".to_vec()),
        ("PROXY 2", proxy_v2),
        ("telnet", b"\xff\xfd\x01\xff\xfd\x1fhelp\r\n".to_vec()),
        ("lines", b"help\r\nquit\r\n".to_vec()),
        ("SSH", b"SSH-2.0-OpenSSH_9.2p1\r\n".to_vec()),
    ];
    let agent = bench.start();
    let mut refused = 0;
    for (what, bytes) in probes {
        let mut wire = Wire::connect(agent.endpoint());
        wire.write(&bytes);
        assert_eq!(wire.goodbye(), 3, "{what}");
        // The same one byte after the other.
        let mut wire = Wire::connect(agent.endpoint());
        bytes.iter().for_each(|byte| wire.write(&[*byte]));
        assert_eq!(wire.goodbye(), 3, "{what}, byte by byte");
        refused += 2;
    }
    let mut noise = Noise(1);
    for _ in 0..32 {
        let mut wire = Wire::connect(agent.endpoint());
        wire.write(&noise.bytes(3000));
        assert_eq!(wire.goodbye(), 3);
        refused += 1;
    }
    // Nothing was said: nothing is wrong.
    const SILENT: u64 = 32;
    for _ in 0..SILENT {
        drop(Wire::connect(agent.endpoint()));
    }
    Wire::connect(agent.endpoint()).hang_up();
    let mut client = Client::ready(agent.endpoint(), New);
    assert_eq!(client.ask(&Word::Echo.number(1)), echo(1));
    drop(client);
    let report = agent.stop();
    assert_eq!((report.protocol_errors, report.stats.answered), (refused, 1), "{report}");
    assert_eq!(report.connections, refused + SILENT + 2);
}

/// Bytes that repeat from run to run, the first of each piece not that of a small number.
struct Noise(u64);

impl Noise {
    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..length)
            .map(|_| {
                self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                self.0.to_be_bytes()[0]
            })
            .collect();
        bytes[0] |= 1;
        bytes
    }
}
