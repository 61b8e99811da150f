//! Scores of `ip-reputation`, seen as variables of HAProxy.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;

use crate::bench::{Bench, Failure, ensure, equal, port};
use crate::haproxy::Request;
use crate::site::{Site, Verdict, Visitor};

use super::Case;

pub(super) const CASES: &[Case] = &[
    Case::new("score_by_address", by_address),
    Case::new("score_of_ipv6_addresses", of_ipv6_addresses),
    Case::new("score_through_a_unix_socket", through_a_unix_socket).shown("agent on a Unix socket"),
    Case::new("200_requests_32_in_parallel", of_200_requests_32_in_parallel),
];

/// The longest prefix decides, and 10 is the score of an address that is not in the list.
fn by_address(bench: &Bench) -> Result<(), Failure> {
    let list = "# CIDR SCORE\n10.0.0.0/8 30\n10.1.0.0/16 60 # the worse part\n\n10.1.2.3/32 95\n192.0.2.0/24 0\n";
    let address = port()?;
    let _agent = bench.agent(address, &bench.write("list", list)?)?;
    let site = Site::new(address).start(bench)?;
    site.expect_scores(&[
        ("10.200.0.1", 30),
        ("10.1.2.4", 60),
        ("10.1.2.3", 95),
        ("192.0.2.255", 0),
        ("192.0.3.0", 10),
    ])
}

/// `src` of an IPv6 client is an IPv6 argument, looked up as such; that of an IPv4 client at a
/// listener for both is one too, and has to be found among the IPv4 ones.
fn of_ipv6_addresses(bench: &Bench) -> Result<(), Failure> {
    let list = "2001:db8::/32 70\n2001:db8:0:1::/64 90\n2001:db8:0:1::7/128 5\n0.0.0.0/0 33\n";
    let address = port()?;
    let _agent = bench.agent(address, &bench.write("list", list)?)?;
    let site = Site::new(address).start(bench)?;
    site.expect_scores(&[
        ("2001:db8:ffff::1", 70),
        ("2001:db8:0:1::6", 90),
        ("2001:db8:0:1::7", 5),
        ("2001:db9::1", 10),
        ("198.51.100.1", 33),
        ("::ffff:198.51.100.1", 33),
    ])
}

/// The agent behind a Unix socket, which replaces what a killed one left and cleans up after itself.
fn through_a_unix_socket(bench: &Bench) -> Result<(), Failure> {
    let list = bench.write("list", "10.0.0.0/8 30\n")?;
    let socket = bench.path("agent.sock");
    let endpoint = format!("unix:{}", socket.display());

    let mut killed = bench.agent(&endpoint, &list)?;
    killed.process().signal("KILL")?;
    killed.process().wait()?;
    ensure(socket.exists(), || "a killed agent cannot have removed its socket".to_owned())?;

    let agent = bench.agent(&endpoint, &list)?;
    let site = Site::new(format!("unix@{}", socket.display())).start(bench)?;
    site.wait_for_agent("UP")?;
    site.expect_scores(&[("10.0.0.1", 30), ("192.0.2.1", 10)])?;

    agent.stop()?;
    ensure(!socket.exists(), || "the socket is still there after SIGTERM".to_owned())
}

/// Each request comes from another address with another score: an answer that went to the wrong
/// request would show.
fn of_200_requests_32_in_parallel(bench: &Bench) -> Result<(), Failure> {
    const REQUESTS: u8 = 200;
    const PARALLEL: usize = 32;

    let mut list = String::new();
    for n in 0..REQUESTS {
        writeln!(list, "10.7.0.{n}/32 {n}")?;
    }
    let address = port()?;
    let _agent = bench.agent(address, &bench.write("list", &list)?)?;
    let site = Site::new(address).start(bench)?;

    let (next, start) = (AtomicU8::new(0), Barrier::new(PARALLEL));
    let client = || {
        start.wait();
        let mut answered = 0;
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= REQUESTS {
                // Below what would wrap: 32 clients count beyond the end once each.
                return Ok::<_, Failure>(answered);
            }
            let client = IpAddr::from(Ipv4Addr::new(10, 7, 0, n));
            let answer = Visitor::connect(site.web, client)?.ask(&Request::get("/"))?;
            equal(&format!("score of {client}"), answer.verdict(), Verdict::Score(n.into()))?;
            answered += 1;
        }
    };
    let answered = thread::scope(|scope| {
        let clients: Vec<_> = (0..PARALLEL).map(|_| scope.spawn(client)).collect();
        clients.into_iter().try_fold(0, |sum, client| match client.join() {
            Ok(answered) => Ok(sum + answered?),
            Err(_) => Err(Failure::new("a client panicked")),
        })
    })?;
    equal("answered requests", answered, REQUESTS)
}
