//! What an agent says of itself to a tool that asks.

use spop_proto::Dialect::{New, Old};
use spop_proto::{Description, EngineConfig};

use crate::bench::Bench;
use crate::client::{Client, Told};
use crate::script::{Word, echo};

/// What the router of the adapters takes.
const ROUTER: &str = "message echo\n    arg number any = fe_id\n";

/// What the agent says to a health check of either generation that asks, and to a handshake.
fn said(bench: &Bench, router: bool, by_hand: Option<&Description>) -> Vec<Option<String>> {
    let mut setup = bench.setup();
    setup.router = router;
    if by_hand.is_some() {
        setup.config = setup.config.description(by_hand);
    }
    let agent = bench.adapter.start(setup).unwrap();
    let mut all = Vec::new();
    for dialect in [Old, New] {
        let asks = EngineConfig::new(dialect).describe(true);
        let mut check = Client::connect(agent.endpoint(), asks.clone().health_check()).unwrap();
        assert_eq!(check.next(), Some(Told::Check(Ok(()))));
        check.expect_end();
        all.push(check.description());
        let mut client = Client::connect(agent.endpoint(), asks).unwrap();
        client.hello();
        all.push(client.description());
        // It is a connection like any other, and one that does not ask is told nothing.
        if !router {
            assert_eq!(client.ask(&Word::Echo.number(1)), echo(1));
        }
        client.hang_up();
        let silent = Client::ready(agent.endpoint(), dialect);
        assert_eq!(silent.description(), None);
        silent.hang_up();
    }
    let report = agent.stop();
    assert_eq!((report.health_checks, report.protocol_errors), (2, 0));
    all
}

pub(super) fn itself(bench: &Bench) {
    let all = |text: Option<&str>| vec![text.map(str::to_owned); 4];
    assert_eq!(said(bench, true, None), all(Some(ROUTER)), "a router");
    assert_eq!(said(bench, false, None), all(None), "a closure");
    let text = "message by-hand\n    arg ip ip\n";
    let by_hand = text.parse().unwrap();
    assert_eq!(said(bench, false, Some(&by_hand)), all(Some(text)), "a closure, and by hand");
    assert_eq!(said(bench, true, Some(&by_hand)), all(Some(text)), "a router, and by hand");
}
