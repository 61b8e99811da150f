//! From the threads that pass bytes on to the one that shows them.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError, TrySendError};
use std::time::{Duration, SystemTime};

use crate::show::{Conversation, Printer, Seen, Side};

/// Pieces that may wait to be shown; each is what one read gave, so this bounds the memory.
const WAITING: usize = 512;
/// The most that one read gives, in bytes.
pub(crate) const PIECE: usize = 32 * 1024;

/// What happens.
#[derive(Debug)]
pub(crate) enum Event {
    /// A connection has begun.
    Opened { number: u64, peer: String },
    /// A side has written.
    Bytes { number: u64, side: Side, lost: u64, bytes: Vec<u8>, time: Duration },
    /// A connection is over. What was passed on last and could not be shown is counted.
    Closed { number: u64, lost: [u64; 2], error: Option<String> },
    /// A connection that did not come about.
    Refused { number: u64, why: String },
    /// Something the user must know.
    Trouble(String),
    /// Enough.
    Stop,
}

/// Where events go and come from.
pub(crate) fn queue() -> (SyncSender<Event>, Receiver<Event>) {
    mpsc::sync_channel(WAITING)
}

/// What a direction tells of itself; it never waits for whoever shows it.
#[derive(Debug)]
pub(crate) struct Reporter {
    number: u64,
    side: Side,
    events: SyncSender<Event>,
    lost: u64,
    /// The same of all connections, since the start.
    all_lost: Arc<AtomicU64>,
    /// What went wrong, where that could not be told.
    untold: Option<String>,
}

impl Reporter {
    pub(crate) const fn new(
        number: u64,
        side: Side,
        events: SyncSender<Event>,
        all_lost: Arc<AtomicU64>,
    ) -> Self {
        Self { number, side, events, lost: 0, all_lost, untold: None }
    }

    /// These bytes are about to be passed on.
    pub(crate) fn passes(&mut self, bytes: &[u8]) {
        let time = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let Self { number, side, lost, .. } = *self;
        let event = Event::Bytes { number, side, lost, bytes: bytes.to_vec(), time };
        if self.events.try_send(event).is_ok() {
            self.lost = 0;
        } else {
            let bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            self.lost = lost.saturating_add(bytes);
            self.all_lost.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Something went wrong beside it: told now, or at the end.
    pub(crate) fn trouble(&mut self, what: String) {
        if let Err(TrySendError::Full(Event::Trouble(what))) =
            self.events.try_send(Event::Trouble(what))
        {
            self.untold = Some(what);
        }
    }

    /// How many bytes, the last ones, were not told, and what else.
    pub(crate) fn end(self) -> (u64, Option<String>) {
        (self.lost, self.untold)
    }
}

/// Shows what arrives until it is enough. Whether all was right, and shown.
pub(crate) fn show<W: Write>(
    events: &Receiver<Event>,
    lost: &AtomicU64,
    printer: &mut Printer<W>,
) -> io::Result<bool> {
    let mut all = Watch { printer, open: HashMap::new() };
    loop {
        let event = match events.try_recv() {
            Ok(event) => event,
            Err(TryRecvError::Empty) => {
                all.printer.flush()?;
                let Ok(event) = events.recv() else { break };
                event
            }
            Err(TryRecvError::Disconnected) => break,
        };
        if !all.take(event)? {
            break;
        }
    }
    // Connections that are still open have not told all of theirs.
    let lost = lost.load(Ordering::Relaxed);
    if lost > 0 {
        all.printer.event(None, &format!("{lost} bytes passed too fast to be shown"))?;
    }
    Ok(all.printer.summary()? && lost == 0)
}

struct Watch<'p, W> {
    printer: &'p mut Printer<W>,
    open: HashMap<u64, Conversation>,
}

impl<W: Write> Watch<'_, W> {
    /// Whether there will be more.
    fn take(&mut self, event: Event) -> io::Result<bool> {
        match event {
            Event::Opened { number, peer } => {
                self.printer.event(Some(number), &format!("HAProxy {peer} has connected"))?;
            }
            Event::Bytes { number, side, lost, bytes, time } => {
                let Self { printer, open, .. } = self;
                let conversation = open.entry(number).or_insert_with(Conversation::new);
                print(printer, number, |found| {
                    if lost > 0 {
                        conversation.missing(side, lost, found);
                    }
                    conversation.receive(side, &bytes, Some(time), found);
                })?;
            }
            Event::Closed { number, lost, error } => {
                let mut conversation = self.open.remove(&number).unwrap_or_else(Conversation::new);
                print(self.printer, number, |found| {
                    for (side, lost) in [Side::Haproxy, Side::Agent].into_iter().zip(lost) {
                        if lost > 0 {
                            conversation.missing(side, lost, found);
                        }
                        conversation.end(side, found);
                    }
                })?;
                let how = error
                    .map_or_else(|| "closed".to_owned(), |error| format!("broken off: {error}"));
                self.printer.event(Some(number), &how)?;
            }
            Event::Refused { number, why } => self.printer.event(Some(number), &why)?,
            Event::Trouble(what) => self.printer.wrong(None, &what)?,
            Event::Stop => return Ok(false),
        }
        Ok(true)
    }
}

fn print<W: Write>(
    printer: &mut Printer<W>,
    number: u64,
    look: impl FnOnce(&mut dyn FnMut(Seen)),
) -> io::Result<()> {
    let mut done = Ok(());
    look(&mut |seen| {
        if done.is_ok() {
            done = printer.frame(Some(number), &seen);
        }
    });
    done
}
