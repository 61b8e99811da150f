//! A soak: a real HAProxy, agents and clients for as long as you like, with everything going on that
//! goes on in production, and at the end three ledgers that must agree to the last request.
//!
//! ```text
//! cargo run --release -p spop-examples --bin spop-soak -- --seconds 600 --haproxy /usr/sbin/haproxy
//! ```
//!
//! Read it in this order: [`ledger`] says what is compared and why that is exact, [`kind`] what
//! requests do to the agents, [`clients`] and [`agents`] are the two ends, [`site`] the HAProxy
//! between them.

mod agents;
mod clients;
#[path = "../shared/command_line.rs"]
mod command_line;
#[path = "../tests/haproxy.rs"]
mod haproxy;
mod kind;
mod ledger;
mod site;

use std::error::Error;
use std::io;
use std::panic;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;

use crate::agents::Agents;
use crate::clients::Clients;
use crate::haproxy::Program;
use crate::kind::INJECTED;
use crate::ledger::{Books, Window};
use crate::site::Site;

/// Load a real HAProxy and two agents behind it, disturb all three, and compare their books.
///
/// Clients come, go and reset, HAProxy is reloaded, agents leave through their lame-duck phase and
/// come back, handlers are slow, fail, panic and never answer. At the end every request must be found
/// with the same outcome at the client, in HAProxy's log and statistics, and in the agents' counters.
/// Exit status 0 if it is.
#[derive(Debug, Parser)]
#[command(name = "spop-soak", version, max_term_width = 100)]
struct Args {
    /// How long.
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u64,

    /// The HAProxy. Without it $HAPROXY, then the one on the PATH.
    #[arg(long, value_name = "FILE")]
    haproxy: Option<PathBuf>,

    /// How many clients at once, each with one request at a time.
    #[arg(long, value_name = "N", default_value_t = 8)]
    clients: u32,
}

/// What a wrong command line ends with.
const USAGE: i32 = 2;

fn main() -> ExitCode {
    match run(&command_line::parse(USAGE)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("spop-soak: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<bool, Box<dyn Error>> {
    let program = match &args.haproxy {
        Some(path) => Program::at(path)?,
        None => Program::find(None)?,
    };
    println!("HAProxy {}, {} s, {} clients", program.version, args.seconds, args.clients);
    hide_injected_panics();

    let agents = Agents::start()?;
    let mut site = Site::start(&program, agents.addresses())?;
    let clients = Clients::start(site.web, args.clients);
    let end = Instant::now() + Duration::from_secs(args.seconds);
    // Whatever goes wrong meanwhile, the books so far are worth a look.
    let disturbed = disturb(&mut site, &agents, &clients, end);
    if let Err(error) = &disturbed {
        eprintln!("stopped early: {error}");
    }
    let clients = clients.finish();
    let haproxy = site.finish()?;
    let books = Books {
        new_engine: program.version.has_spop_multiplexer(),
        clients,
        haproxy,
        agents: agents.finish()?,
        windows: disturbed.as_ref().map(Clone::clone).unwrap_or_default(),
    };
    println!("{}", books.summary());
    let differences = books.differences();
    for difference in &differences {
        println!("DIFFERENCE: {difference}");
    }
    let agree = disturbed.is_ok() && differences.is_empty();
    println!("{}", if agree { "the books agree" } else { "the books do not agree" });
    Ok(agree)
}

/// Reloads HAProxy and restarts agents in turn until the time is over. Returns when agents left.
fn disturb(
    site: &mut Site,
    agents: &Agents,
    clients: &Clients,
    end: Instant,
) -> io::Result<Vec<Window>> {
    let mut windows = Vec::new();
    let mut turn = 0_usize;
    while Instant::now() < end {
        // A while of plain traffic between two events.
        thread::sleep(Duration::from_secs(1).min(end.saturating_duration_since(Instant::now())));
        clients.check()?;
        if turn.is_multiple_of(2) {
            site.reload()?;
        } else {
            let agent = (turn / 2) % agents.addresses().len();
            let from = Instant::now();
            agents.restart(agent)?;
            site.wait_until_up(agent)?;
            windows.push(Window { from, to: Instant::now() });
        }
        turn += 1;
    }
    Ok(windows)
}

/// Panics on purpose are counted, not shown.
fn hide_injected_panics() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref() != Some(&INJECTED) {
            usual(info);
        }
    }));
}
