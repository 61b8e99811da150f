//! A stop while connections pour in.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use spop_proto::Dialect::{New, Old};
use spop_proto::Endpoint;

use crate::PATIENCE;
use crate::bench::Bench;
use crate::client::{Client, Told, patient};
use crate::script::{Word, echo};

const CLIENTS: usize = 6;
/// Handshakes before the stop.
const WARM: usize = 60;

/// Shared by all clients.
#[derive(Debug, Default)]
struct Storm {
    handshakes: AtomicUsize,
    answers: AtomicUsize,
    stopping: AtomicBool,
}

/// The agent ends, and every connection that got an AGENT-HELLO gets a goodbye.
pub(super) fn stop_during_it(bench: &Bench) {
    let mut agent = bench.start();
    let storm = Storm::default();
    let report = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (storm, endpoint) = (&storm, agent.endpoint().clone());
                scope.spawn(move || storm.client(number, &endpoint))
            })
            .collect();
        let end = Instant::now() + PATIENCE;
        while storm.handshakes.load(Ordering::SeqCst) < WARM {
            assert!(Instant::now() < end && clients.iter().all(|client| !client.is_finished()));
            thread::yield_now();
        }
        storm.stopping.store(true, Ordering::SeqCst);
        agent.ask_to_stop();
        // A client that failed tells so here.
        clients.into_iter().for_each(|client| client.join().unwrap());
        agent.report()
    });
    let handshakes = storm.handshakes.load(Ordering::SeqCst) as u64;
    let answers = storm.answers.load(Ordering::SeqCst) as u64;
    assert!(report.connections >= handshakes, "{handshakes} handshakes; {report}");
    assert!(report.stats.answered >= answers, "{answers} answers; {report}");
    assert_eq!((report.protocol_errors, report.cut), (0, 0), "{report}");
    assert!(report.drained > 0, "{report}");
}

impl Storm {
    /// Connects again and again until nobody listens; keeps some of the connections open.
    fn client(&self, number: usize, endpoint: &Endpoint) {
        let dialect = if number < CLIENTS / 2 { Old } else { New };
        let mut kept = Vec::new();
        let end = Instant::now() + 2 * PATIENCE;
        for turn in 0.. {
            assert!(Instant::now() < end, "the storm does not end");
            let Ok(mut client) = Client::connect(endpoint, patient(dialect)) else {
                assert!(self.stopping.load(Ordering::SeqCst), "refused before the stop");
                break;
            };
            match client.next() {
                Some(Told::Hello(..)) => {}
                // The listener was closed before the agent took the connection, or the agent left
                // before it heard HELLO.
                None if self.stopping.load(Ordering::SeqCst) => continue,
                other => panic!("{other:?} instead of the handshake"),
            }
            self.handshakes.fetch_add(1, Ordering::SeqCst);
            if turn % 2 == 0 && self.ask(&mut client) && turn % 8 == 0 {
                kept.push(client);
            }
        }
        for mut client in kept {
            assert_eq!(client.next(), Some(Told::Goodbye(0)));
            client.expect_end();
        }
    }

    /// Asks; false when the agent left instead, which it then has said.
    fn ask(&self, client: &mut Client) -> bool {
        let Ok(id) = client.try_queue(&Word::Echo.number(5)) else {
            assert_eq!(client.next(), Some(Told::Goodbye(0)));
            client.expect_end();
            return false;
        };
        match client.next() {
            Some(Told::Ack(answered, actions)) => {
                assert_eq!((answered, actions), (id, echo(5)));
                self.answers.fetch_add(1, Ordering::SeqCst);
                true
            }
            Some(Told::Goodbye(0)) if self.stopping.load(Ordering::SeqCst) => {
                assert!(matches!(client.next(), Some(Told::Failed(..))));
                client.expect_end();
                false
            }
            other => panic!("{other:?} instead of an answer or a goodbye"),
        }
    }
}
