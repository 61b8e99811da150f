//! What HAProxy sent on the connections in a capture of the network.

use std::collections::HashMap;
use std::io::{self, Read};
use std::time::Duration;

use crate::capture::{Capture, Direction, Wrong};
use crate::network::{self, Connections, Ends, LeftOut, Sink};
use crate::side::Side;

/// Reads a pcap or pcapng file; of `port` the connections to an agent there, or of all agents.
pub(crate) fn read(source: impl Read + Send, port: Option<u16>) -> Result<Capture, String> {
    let mut all = Found::default();
    network::read(source, &mut Connections::new(port), &mut all)
        .map_err(|error| error.to_string())?;
    let Found { capture, count, joined_late, .. } = all;
    if !capture.notifies.is_empty() {
        return Ok(capture);
    }
    Err(match capture.left_out.as_slice() {
        [] if count > 0 => "no NOTIFY in it".to_owned(),
        [] => match port {
            Some(port) => format!("no SPOP in it: no connection to port {port}"),
            None => "no SPOP in it: no connection begins with a HELLO".to_owned(),
        },
        [only] => format!("no NOTIFY to use in it: {only}{}", advice(joined_late)),
        [first, more @ ..] => {
            format!(
                "no NOTIFY to use in it: {first} (and {} more){}",
                more.len(),
                advice(joined_late)
            )
        }
    })
}

const fn advice(joined_late: bool) -> &'static str {
    if joined_late {
        ". Begin the capture before HAProxy connects, or reload HAProxy while it runs"
    } else {
        ""
    }
}

/// What was found so far.
#[derive(Debug, Default)]
struct Found {
    capture: Capture,
    open: HashMap<u64, Open>,
    count: u64,
    /// There is one that began before the capture.
    joined_late: bool,
}

/// A connection.
#[derive(Debug)]
struct Open {
    ends: Ends,
    /// `None` after something that ended its use.
    haproxy: Option<Direction>,
    /// The agent has sent something.
    answered: bool,
}

impl Found {
    fn leave_out(&mut self, connection: u64, ends: Ends, why: &str) {
        let Ends { haproxy, agent, .. } = ends;
        let what = format!("#{connection} HAProxy {haproxy} -> agent {agent}: {why}");
        self.capture.left_out.push(what);
    }
}

impl Sink for Found {
    fn opened(&mut self, connection: u64, ends: Ends) -> io::Result<()> {
        self.count = self.count.saturating_add(1);
        let haproxy = Some(Direction::new(Some(connection)));
        self.open.insert(connection, Open { ends, haproxy, answered: false });
        Ok(())
    }

    fn bytes(
        &mut self,
        connection: u64,
        side: Side,
        bytes: &[u8],
        _: Option<Duration>,
    ) -> io::Result<()> {
        let Some(open) = self.open.get_mut(&connection) else { return Ok(()) };
        if side == Side::Agent {
            open.answered = true;
            return Ok(());
        }
        let Some(mut haproxy) = open.haproxy.take() else { return Ok(()) };
        let why = match haproxy.receive(bytes, &mut self.capture) {
            Ok(()) => {
                open.haproxy = Some(haproxy);
                return Ok(());
            }
            Err(Wrong::NoHello(kind)) => {
                self.joined_late = true;
                format!("it begins in its middle, with {kind}: it was there before the capture")
            }
            Err(Wrong::Other(wrong)) if open.ends.late => {
                self.joined_late = true;
                format!("it begins in its middle: {wrong}")
            }
            Err(Wrong::Other(wrong)) => format!("{wrong}: what follows is left out"),
        };
        let ends = open.ends;
        self.leave_out(connection, ends, &why);
        Ok(())
    }

    fn missing(&mut self, connection: u64, side: Side, bytes: u64) -> io::Result<()> {
        let Some(open) = self.open.get_mut(&connection).filter(|_| side == Side::Haproxy) else {
            return Ok(());
        };
        let Some(haproxy) = open.haproxy.take() else { return Ok(()) };
        let ends = open.ends;
        let at = haproxy.received();
        let why =
            format!("{bytes} bytes from byte {at} on were not captured: what follows is left out");
        self.leave_out(connection, ends, &why);
        Ok(())
    }

    fn ended(&mut self, _: u64, _: Side) -> io::Result<()> {
        // What is not whole then is told once, when it is closed.
        Ok(())
    }

    fn closed(&mut self, connection: u64) -> io::Result<()> {
        let Some(Open { ends, haproxy, answered }) = self.open.remove(&connection) else {
            return Ok(());
        };
        let Some(haproxy) = haproxy else { return Ok(()) };
        if haproxy.received() == 0 && answered {
            let why = "only what the agent sent was captured, and not what HAProxy sent";
            self.leave_out(connection, ends, why);
        }
        for why in haproxy.end(&mut self.capture) {
            self.leave_out(connection, ends, &why);
        }
        Ok(())
    }

    fn left_out(&mut self, what: LeftOut) -> io::Result<()> {
        self.capture.left_out.extend(match what {
            LeftOut::Connections { joined_late: 0, .. } => None,
            LeftOut::Connections { joined_late, .. } => {
                self.joined_late = true;
                Some(match joined_late {
                    1 => "a connection was there before the capture, without HAPROXY-HELLO: left out".to_owned(),
                    n => format!("{n} connections were there before the capture, without HAPROXY-HELLO: left out"),
                })
            }
            LeftOut::Fragments(count) => Some(format!("{count} IP fragments are left out")),
            LeftOut::LastPacket => Some("it ends within a packet, which is left out".to_owned()),
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests;
