//! Where frames are printed, and counted.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::seen::Seen;
use super::{json, text};

/// How frames are shown.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct Look {
    /// One JSON object a line, for machines; times in seconds since 1970.
    #[arg(long)]
    pub(crate) json: bool,

    /// Show all of strings and binaries: without it those above 64 bytes are cut.
    #[arg(long)]
    pub(crate) full: bool,

    /// Hide the values of arguments and variables, and the bytes where something is wrong.
    ///
    /// Names, types and lengths stay. Values may be cookies and tokens.
    #[arg(long)]
    pub(crate) redact: bool,
}

/// Prints frames and what happens between them.
#[derive(Debug)]
pub(crate) struct Printer<W> {
    out: W,
    look: Look,
    /// When the first frame was there: others are shown from then on.
    begin: Option<Duration>,
    frames: u64,
    wrong: u64,
}

impl<W: Write> Printer<W> {
    pub(crate) const fn new(out: W, look: Look) -> Self {
        Self { out, look, begin: None, frames: 0, wrong: 0 }
    }

    /// A frame, of a connection if there are several.
    pub(crate) fn frame(&mut self, connection: Option<u64>, seen: &Seen) -> io::Result<()> {
        // What has no head is no frame, only bytes.
        self.frames = self.frames.saturating_add(u64::from(seen.header.is_some()));
        let wrong = u64::try_from(seen.faults.len()).unwrap_or(u64::MAX);
        self.wrong = self.wrong.saturating_add(wrong);
        if self.look.json {
            return writeln!(self.out, "{}", json::frame(seen, connection, self.look));
        }
        let begin = self.begin.or(seen.time);
        self.begin = begin;
        let since = seen.time.zip(begin).map(|(time, begin)| time.saturating_sub(begin));
        if let Some(connection) = connection {
            write!(self.out, "#{connection} ")?;
        }
        write!(self.out, "{}", text::frame(seen, since, self.look))
    }

    /// Something to know about a connection, or about all.
    pub(crate) fn event(&mut self, connection: Option<u64>, what: &str) -> io::Result<()> {
        match (self.look.json, connection) {
            (true, Some(n)) => {
                writeln!(self.out, "{}", json!({"connection": n, "event": what}))
            }
            (true, None) => writeln!(self.out, "{}", json!({"event": what})),
            (false, Some(n)) => writeln!(self.out, "#{n} {what}"),
            (false, None) => writeln!(self.out, "{what}"),
        }
    }

    /// Something that was not seen or cannot be right, and is in no frame.
    pub(crate) fn wrong(&mut self, connection: Option<u64>, what: &str) -> io::Result<()> {
        self.wrong = self.wrong.saturating_add(1);
        self.event(connection, &format!("wrong: {what}"))
    }

    /// How much it was. Whether all was right.
    pub(crate) fn summary(&mut self) -> io::Result<bool> {
        let Self { frames, wrong, .. } = *self;
        if self.look.json {
            writeln!(self.out, "{}", json!({"frames": frames, "wrong": wrong}))?;
        } else {
            let frames =
                if frames == 1 { "1 frame".to_owned() } else { format!("{frames} frames") };
            match wrong {
                0 => writeln!(self.out, "{frames}, nothing wrong")?,
                1 => writeln!(self.out, "{frames}, wrong in 1 place")?,
                n => writeln!(self.out, "{frames}, wrong in {n} places")?,
            }
        }
        self.out.flush()?;
        Ok(wrong == 0)
    }

    /// What was printed so far is to be seen now.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
