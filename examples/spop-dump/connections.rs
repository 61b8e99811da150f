//! The connections of a capture, printed.

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::Duration;

use crate::network::{Ends, LeftOut, Sink};
use crate::show::{Conversation, Printer, Seen};
use crate::side::Side;

/// Prints each as it is found.
#[derive(Debug)]
pub(crate) struct Show<'p, W> {
    printer: &'p mut Printer<W>,
    open: HashMap<u64, Conversation>,
}

impl<'p, W: Write> Show<'p, W> {
    pub(crate) fn new(printer: &'p mut Printer<W>) -> Self {
        Self { printer, open: HashMap::new() }
    }

    fn print(
        &mut self,
        connection: u64,
        look: impl FnOnce(&mut Conversation, &mut dyn FnMut(Seen)),
    ) -> io::Result<()> {
        let Self { printer, open } = self;
        let mut done = Ok(());
        look(open.entry(connection).or_insert_with(Conversation::new), &mut |seen| {
            if done.is_ok() {
                done = printer.frame(Some(connection), &seen);
            }
        });
        done
    }
}

impl<W: Write> Sink for Show<'_, W> {
    fn opened(&mut self, connection: u64, ends: Ends) -> io::Result<()> {
        let Ends { haproxy, agent, late } = ends;
        if late {
            self.open.insert(connection, Conversation::joined_late());
        }
        self.printer.event(Some(connection), &format!("HAProxy {haproxy} -> agent {agent}"))
    }

    fn bytes(
        &mut self,
        connection: u64,
        side: Side,
        bytes: &[u8],
        time: Option<Duration>,
    ) -> io::Result<()> {
        self.print(connection, |conversation, found| conversation.receive(side, bytes, time, found))
    }

    fn missing(&mut self, connection: u64, side: Side, bytes: u64) -> io::Result<()> {
        self.print(connection, |conversation, found| conversation.missing(side, bytes, found))
    }

    fn ended(&mut self, connection: u64, side: Side) -> io::Result<()> {
        self.print(connection, |conversation, found| conversation.end(side, found))
    }

    fn closed(&mut self, connection: u64) -> io::Result<()> {
        self.open.remove(&connection);
        Ok(())
    }

    fn left_out(&mut self, what: LeftOut) -> io::Result<()> {
        match what {
            LeftOut::Connections { all, .. } => self
                .printer
                .event(None, &format!("other connections that do not speak SPOP: {all}")),
            LeftOut::Fragments(count) => {
                let what = format!("{count} IP fragments in the capture were left out");
                self.printer.wrong(None, &what)
            }
            LeftOut::LastPacket => self.printer.wrong(None, "the capture ends within a packet"),
        }
    }
}
