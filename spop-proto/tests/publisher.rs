//! What goes to the `metrics` facade: the numbers of the page, as changes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    missing_docs,
    reason = "tests: they may panic, and need a first instant to count from"
)]

mod common;
#[path = "common/recorder.rs"]
mod recorder;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Rig, notify};
use recorder::Recorded;
use spop_proto::stats::{MessageCounts, Publisher, Tally};
use spop_proto::{AgentConfig, Stats};

/// A connection that is asked so often, each time with an answer that takes that long.
fn ask(rig: &mut Rig, times: u64, took: u64) {
    for stream in 0..times {
        let mut tally = Tally::new(&rig.conn);
        tally.clock(&rig.conn, rig.at(0));
        rig.feed(0, &notify(stream)).unwrap();
        tally.sent(rig.take().len());
        let later = rig.at(took);
        tally.publish(&rig.conn, || later, |_| {});
    }
}

#[test]
fn two_agents_add_up_and_changes_are_counted_once() {
    let recorded = Recorded::default();
    metrics::with_local_recorder(&recorded, || {
        let agents = ["one", "other"].map(|name| {
            let stats = Stats::new(name);
            let rig = Rig::ready(AgentConfig::new().count_in(stats.clone()));
            (rig, Publisher::new(stats))
        });
        let [(mut one, mut first), (mut other, mut second)] = agents;
        ask(&mut one, 3, 2);
        ask(&mut other, 2, 3000);
        let counter = |name| recorded.counter(name).unwrap();
        let gauge = |name| recorded.gauge(name).unwrap();
        for _ in 0..2 {
            first.publish();
            second.publish();
            assert_eq!(counter("spop_agent_notifies_total"), 5);
            assert_eq!(counter("spop_agent_answers_total{cause=handler}"), 5);
            assert_eq!(counter("spop_agent_answers_total{cause=error}"), 0);
            assert_eq!(counter("spop_agent_closes_total{reason=dropped}"), 0);
            assert!((gauge("spop_agent_connections") - 2.0).abs() < 0.1);
            let times = recorded.histogram("spop_agent_answer_seconds");
            assert_eq!(times, [(0.0025, 3), (2.0, 2)], "bounds of their buckets");
            assert_eq!(recorded.histogram("spop_agent_handler_seconds"), times);
        }
        ask(&mut one, 1, 2);
        drop(one);
        // Dropped, it publishes what is left.
        drop(first);
        assert_eq!(counter("spop_agent_notifies_total"), 6);
        assert_eq!(counter("spop_agent_closes_total{reason=dropped}"), 1);
        assert!((gauge("spop_agent_connections") - 1.0).abs() < 0.1);
        let version = env!("CARGO_PKG_VERSION");
        let info = format!("spop_agent_info{{version={version},runtime=other}}");
        assert!((gauge(&info) - 1.0).abs() < 0.1);
    });
    // Without a count of messages there is none in the page either.
    assert_eq!(Publisher::EVERY, Duration::from_secs(1));
    let page = Stats::default().snapshot().prometheus().to_string();
    let mut names: Vec<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next())
        .map(str::to_owned)
        .collect();
    names.sort();
    assert_eq!(recorded.described(), names, "the names of the page");
}

/// A count that is less than it was belongs to a router that has taken the place of another.
#[test]
fn messages_are_published_by_name() {
    let asked = Arc::new(Mutex::new(vec![("a", 3), ("other", 0)]));
    let shared = Arc::clone(&asked);
    let counts = MessageCounts::new(move |tell| {
        shared.lock().unwrap().iter().for_each(|(name, count)| tell(name, *count));
    });
    let recorded = Recorded::default();
    metrics::with_local_recorder(&recorded, || {
        let mut publisher = Publisher::new(Stats::default().with_messages(Some(counts)));
        let counter =
            |name: &str| recorded.counter(&format!("spop_agent_messages_total{{message={name}}}"));
        publisher.publish();
        publisher.publish();
        assert_eq!((counter("a"), counter("other"), counter("b")), (Some(3), Some(0), None));
        *asked.lock().unwrap() = vec![("b", 2), ("a", 1), ("other", 5)];
        publisher.publish();
        assert_eq!((counter("a"), counter("other"), counter("b")), (Some(4), Some(5), Some(2)));
    });
    assert!(recorded.described().iter().any(|name| name == "spop_agent_messages_total"));
}
