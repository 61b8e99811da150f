//! What the demo prints: columns aligned by hand, colour only where a person looks.

use std::fmt;
use std::io::IsTerminal;

const HEADINGS: [&str; 5] = ["request", "HAProxy sent", "agent set", "HAProxy did", "added"];

/// One request and what became of it.
#[derive(Debug)]
pub(super) struct Row {
    /// In the order of the headings.
    pub(super) cells: [String; 5],
    pub(super) as_expected: bool,
}

/// The rows, ready to be printed.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Row>,
    colour: bool,
}

impl Table {
    pub(super) fn new(rows: Vec<Row>) -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { rows, colour }
    }

    /// How many rows went otherwise than they should.
    pub(super) fn surprises(&self) -> usize {
        self.rows.iter().filter(|row| !row.as_expected).count()
    }

    fn widths(&self) -> [usize; 5] {
        let mut widths = HEADINGS.map(|heading| heading.chars().count());
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(&row.cells) {
                *width = cell.chars().count().max(*width);
            }
        }
        widths
    }

    fn line(
        &self,
        f: &mut fmt::Formatter<'_>,
        cells: &[impl fmt::Display; 5],
        style: Style,
    ) -> fmt::Result {
        let (on, off) = if self.colour { style.codes() } else { ("", "") };
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(self.widths()) {
            line.push_str(&format!(" {cell:width$}  "));
        }
        let mark = if style == Style::Surprise { "   <- not as expected" } else { "" };
        writeln!(f, "{on}{}{mark}{off}", line.trim_end())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.line(f, &HEADINGS, Style::Heading)?;
        for row in &self.rows {
            let style = if row.as_expected { Style::Plain } else { Style::Surprise };
            self.line(f, &row.cells, style)?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Heading,
    Plain,
    Surprise,
}

impl Style {
    /// What a terminal takes to start and to end it.
    fn codes(self) -> (&'static str, &'static str) {
        match self {
            Self::Heading => ("\x1b[1m", "\x1b[0m"),
            Self::Plain => ("", ""),
            Self::Surprise => ("\x1b[31m", "\x1b[0m"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(colour: bool) -> Table {
        let row = |first: &str, as_expected| {
            let cells = [first, "b", "c", "d", "0.1 ms"].map(str::to_owned);
            Row { cells, as_expected }
        };
        Table { rows: vec![row("longer than its heading", true), row("→", false)], colour }
    }

    #[test]
    fn columns_are_aligned() {
        let expected = [
            " request                   HAProxy sent   agent set   HAProxy did   added",
            " longer than its heading   b              c           d             0.1 ms",
            " →                         b              c           d             0.1 ms   <- not as expected",
            "",
        ];
        assert_eq!(table(false).to_string(), expected.join("\n"));
    }

    #[test]
    fn surprises_are_counted_and_stand_out() {
        let table = table(true);
        assert_eq!(table.surprises(), 1);
        let lines: Vec<_> = table.to_string().lines().map(str::to_owned).collect();
        assert!(lines[1].starts_with(" longer"));
        assert!(lines[2].starts_with("\x1b[31m →") && lines[2].ends_with("\x1b[0m"));
    }
}
