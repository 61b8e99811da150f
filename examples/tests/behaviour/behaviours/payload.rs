//! Payloads in fragments, as HAProxy <= 3.0 sends them.

use std::time::{Duration, Instant};

use spop_proto::Dialect::Old;

use crate::bench::Bench;
use crate::client::{Client, patient};
use crate::script::{Word, echo, limits};
use crate::wire::{ABORT, ACK, ECHO_7, FIN, NOTIFY, SAYS_7, UNSET, Wire, frame, notify};

pub(super) fn in_fragments(bench: &Bench) {
    let agent = bench.start();
    let config = patient(Old).max_frame_size(256).unwrap();
    let mut client = Client::connect(agent.endpoint(), config).unwrap();
    client.hello();
    for length in [100, 1000, 100_000] {
        let answer = client.ask(&Word::Length.body(&vec![b'B'; length]));
        assert_eq!(answer, [format!("set-var txn.length uint32:{length}")]);
    }
    assert_eq!(client.ask(&Word::Echo.number(1)), echo(1));
    let report = agent.stop();
    assert_eq!((report.stats.notifies, report.stats.answered), (4, 4));
}

/// Nobody is asked, nothing is answered, and the connection lives.
pub(super) fn given_up_by_haproxy(bench: &Bench) {
    let agent = bench.start();
    let mut wire = Wire::ready(agent.endpoint());
    let fragments = [
        frame(NOTIFY, 0, 1, 1, &ECHO_7[..5]),
        frame(UNSET, 0, 1, 1, &ECHO_7[5..9]),
        frame(UNSET, FIN | ABORT, 1, 1, b""),
        notify(2),
    ];
    wire.write(&fragments.concat());
    let heard = wire.heard();
    assert_eq!((heard.stream, &heard.payload[..]), (2, SAYS_7));
    // The same ids may come again, and now to their end.
    wire.write(&frame(NOTIFY, 0, 1, 1, &ECHO_7[..5]));
    wire.write(&frame(UNSET, FIN, 1, 1, &ECHO_7[5..]));
    let heard = wire.heard();
    assert_eq!((heard.stream, &heard.payload[..]), (1, SAYS_7));
    wire.hang_up();
    let report = agent.stop();
    assert_eq!((report.stats.aborted, report.stats.notifies), (1, 2));
}

/// Too large, or not continued in time: HAProxy is told to stop, and the connection lives.
pub(super) fn given_up_by_the_agent(bench: &Bench) {
    let agent = bench.start_with(limits().payload(1000.try_into().unwrap()));
    let mut wire = Wire::ready(agent.endpoint());
    let piece = [b'B'; 600];
    wire.write(&frame(NOTIFY, 0, 3, 1, &piece));
    wire.write(&frame(UNSET, 0, 3, 1, &piece));
    let heard = wire.heard();
    assert_eq!((heard.kind, heard.stream, heard.flags), (ACK, 3, FIN | ABORT));
    // HAProxy may have sent more before it heard of that.
    wire.write(&frame(UNSET, 0, 3, 1, &piece));
    wire.write(&frame(UNSET, FIN, 3, 1, &piece));
    wire.write(&notify(4));
    let heard = wire.heard();
    assert_eq!((heard.stream, &heard.payload[..]), (4, SAYS_7));
    wire.hang_up();
    assert_eq!(agent.stop().stats.refused, 1);

    let wait = Duration::from_millis(150);
    let agent = bench.start_with(limits().frame_timeout(wait).unwrap());
    let mut wire = Wire::ready(agent.endpoint());
    let before = Instant::now();
    wire.write(&frame(NOTIFY, 0, 5, 1, &ECHO_7[..5]));
    let heard = wire.heard();
    assert!(before.elapsed() >= wait, "{:?}", before.elapsed());
    assert_eq!((heard.kind, heard.stream, heard.flags), (ACK, 5, FIN | ABORT));
    wire.write(&notify(6));
    assert_eq!(wire.heard().payload, SAYS_7);
    wire.hang_up();
    assert_eq!(agent.stop().stats.refused, 1);
}
