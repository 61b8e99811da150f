//! No file descriptors are left.

use std::thread;
use std::time::{Duration, Instant};

use spop_proto::Dialect::New;

use crate::bench::Bench;
use crate::child::{Child, DESCRIPTORS};
use crate::client::{Client, patient};
use crate::script::{Word, echo};

/// Connections wait in the backlog while there is no descriptor for them, the agent does not burn
/// its processor meanwhile, and all are served once there are descriptors again.
pub(super) fn run_out(bench: &Bench) {
    let agent = Child::start(bench);
    let connect = || Client::connect(agent.endpoint(), patient(New)).unwrap();
    let mut clients: Vec<_> = (0..DESCRIPTORS).map(|_| connect()).collect();
    agent.wait_until_no_descriptor_is_left();
    let (before, window) = (agent.busy(), Duration::from_millis(400));
    let from = Instant::now();
    thread::sleep(window);
    let (busy, passed) = (agent.busy() - before, from.elapsed());
    assert!(busy < passed / 4, "{busy:?} of processor time in {passed:?} of waiting");

    // The oldest were accepted first, and leave room for as many as wait.
    let mut rest = clients.split_off(DESCRIPTORS / 2);
    for client in &mut clients {
        client.hello();
    }
    drop(clients);
    for (number, client) in (0..).zip(&mut rest) {
        client.hello();
        assert_eq!(client.ask(&Word::Echo.number(number)), echo(number));
    }
    drop(rest);
    let report = agent.stop();
    assert_eq!(report, format!("{DESCRIPTORS} connections, {} answered", DESCRIPTORS / 2));
}
