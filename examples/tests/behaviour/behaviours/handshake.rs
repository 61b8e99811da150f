//! HELLO, and the health check that is one.

use spop_proto::Dialect::{New, Old};
use spop_proto::{EngineConfig, HealthState};

use crate::bench::Bench;
use crate::client::{Client, Told, patient};
use crate::script::{Word, echo};
use crate::wire::{self, Wire};

/// What is agreed on, and the bytes of it.
pub(super) fn of_both_generations(bench: &Bench) {
    let agent = bench.start();
    // HAProxy >= 3.1 makes nothing of fragmentation.
    for (dialect, in_use) in [(Old, "pipelining,fragmentation"), (New, "pipelining")] {
        let connect = |config| Client::connect(agent.endpoint(), config).unwrap();
        let mut client = connect(patient(dialect));
        assert_eq!(client.hello(), (in_use.to_owned(), 16_380));
        assert_eq!(client.ask(&Word::Echo.number(1)), echo(1));

        let mut small = connect(patient(dialect).max_frame_size(1024).unwrap());
        assert_eq!(small.hello().1, 1024);
        let mut alone = connect(patient(dialect).pipelining(false));
        assert!(!alone.hello().0.contains("pipelining"), "only what was offered is announced");
        assert_eq!(alone.ask(&Word::Echo.number(2)), echo(2));
    }
    let mut wire = Wire::connect(agent.endpoint());
    wire.write(&wire::hello());
    assert_eq!(wire.heard().bytes, wire::agent_hello());
    wire.hang_up();
    let report = agent.stop();
    assert_eq!((report.connections, report.protocol_errors), (7, 0));
    assert_eq!(report.stats.answered, 4);
}

/// A health check follows the switch, and requests do not.
pub(super) fn health_check(bench: &Bench) {
    use HealthState::{LameDuck, NotReady, Ready};
    let setup = bench.setup();
    let health = setup.config.health();
    let agent = bench.adapter.start(setup).unwrap();
    for dialect in [Old, New] {
        for state in [Ready, NotReady, LameDuck, Ready] {
            health.set(state);
            let config = EngineConfig::new(dialect).health_check();
            let mut check = Client::connect(agent.endpoint(), config).unwrap();
            match check.next() {
                Some(Told::Check(result)) => {
                    assert_eq!(result.is_ok(), state == Ready, "{dialect:?} {state:?} {result:?}");
                }
                other => panic!("{other:?} instead of the result of a health check"),
            }
            check.expect_end();
            let mut client = Client::ready(agent.endpoint(), dialect);
            assert_eq!(client.ask(&Word::Echo.number(1)), echo(1));
        }
    }
    let report = agent.stop();
    assert_eq!((report.health_checks, report.stats.answered), (8, 8));
}
