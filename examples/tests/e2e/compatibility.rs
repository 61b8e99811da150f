//! Tables of documents: what the cases found out about each HAProxy, as README and pages show it.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, io};

use crate::haproxy::Version;

/// How a case that passed came out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As its name says.
    #[default]
    Ok,
    /// In another way.
    OkBecause(&'static str),
    /// This HAProxy has not got it.
    NotSupported(&'static str),
}

impl Verdict {
    /// As the compatibility table has it.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Ok => "ok".to_owned(),
            Self::OkBecause(how) => format!("ok: {how}"),
            Self::NotSupported(why) => format!("not supported: {why}"),
        }
    }
}

/// What the cases found so far. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Findings(Arc<Mutex<Vec<Finding>>>);

#[derive(Debug)]
struct Finding {
    series: String,
    row: &'static str,
    text: String,
}

/// The table is about series, such as 3.2: what a distribution's update changes is not in it.
fn series(version: &Version) -> String {
    format!("{}.{}", version.major, version.minor)
}

impl Findings {
    /// Keeps what a case found.
    pub(crate) fn add(&self, version: &Version, row: &'static str, text: String) {
        let finding = Finding { series: series(version), row, text };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(finding);
    }

    /// Whether no case had anything to say.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The table with these rows, and a column for each HAProxy that ran.
    fn table(&self, rows: &[&'static str]) -> Table {
        let findings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut columns: Vec<String> = findings.iter().map(|found| found.series.clone()).collect();
        columns.sort_by_key(|series| {
            let mut numbers = series.split('.').map(|number| number.parse().unwrap_or(0_u32));
            (numbers.next(), numbers.next())
        });
        columns.dedup();
        let cell = |row, column: &String| {
            let cases = findings.iter().filter(|found| found.row == row && found.series == *column);
            let mut texts: Vec<_> = cases.map(|found| found.text.clone()).collect();
            // Of several cases the one that has something to say; the same for every runtime.
            texts.sort();
            texts.dedup();
            if texts.len() > 1 {
                texts.retain(|text| text != "ok");
            }
            texts.join("; ")
        };
        let body = rows.iter().map(|row| {
            let cells = columns.iter().map(|column| cell(*row, column)).collect();
            ((*row).to_owned(), cells)
        });
        Table { rows: body.collect(), columns }
    }
}

/// Rows of text, to be compared and printed.
#[derive(Debug, PartialEq, Eq)]
struct Table {
    columns: Vec<String>,
    rows: Vec<(String, Vec<String>)>,
}

/// A document with a table that a run writes.
#[derive(Debug)]
pub(crate) struct Document {
    /// Below the project's directory.
    path: &'static str,
    /// In the comments around the table, and of the file below `target/`.
    name: &'static str,
    /// What the rows are.
    heading: &'static str,
}

/// README: a row for each property.
pub(crate) const README: Document =
    Document { path: "README.md", name: "compatibility", heading: "with HAProxy" };

/// The page about bodies: a row for each configuration.
pub(crate) const BODIES: Document =
    Document { path: "examples/bodies.md", name: "bodies", heading: "with HAProxy" };

impl Table {
    fn markdown(&self, heading: &str) -> String {
        let mut text = format!("| {heading}");
        for column in &self.columns {
            let _ = write!(text, " | {column}");
        }
        text.push_str(" |\n|");
        text.push_str(&" --- |".repeat(self.columns.len() + 1));
        text.push('\n');
        for (row, cells) in &self.rows {
            let _ = writeln!(text, "| {row} | {} |", cells.join(" | "));
        }
        text
    }

    fn parse(markdown: &str) -> Option<Self> {
        let cells = |line: &str| -> Option<Vec<String>> {
            let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
            Some(inner.split('|').map(|cell| cell.trim().to_owned()).collect())
        };
        let mut lines = markdown.lines();
        let columns = cells(lines.next()?)?.split_off(1);
        lines.next()?;
        let rows = lines.map(|line| {
            let mut cells = cells(line)?;
            let rest = cells.split_off(1);
            Some((cells.pop()?, rest))
        });
        Some(Self { columns, rows: rows.collect::<Option<_>>()? })
    }

    /// The first difference to `other` in the columns that both have.
    fn difference(&self, other: &Self) -> Option<String> {
        let names =
            |table: &Self| table.rows.iter().map(|(row, _)| row.clone()).collect::<Vec<_>>();
        if names(self) != names(other) {
            return Some("the rows are not the same".to_owned());
        }
        let both = self.columns.iter().enumerate().filter_map(|(at, column)| {
            Some((column, at, other.columns.iter().position(|c| c == column)?))
        });
        for (column, here, there) in both {
            for ((row, mine), (_, theirs)) in self.rows.iter().zip(&other.rows) {
                let (mine, theirs) = (mine.get(here), theirs.get(there));
                if mine != theirs {
                    return Some(format!("{column}, {row}: {mine:?} in the run, {theirs:?} there"));
                }
            }
        }
        None
    }
}

/// Writes the table below `target/`, and compares it with that of the document in the columns that both
/// have: a HAProxy that the document does not know, or that was not here, is no difference.
pub(crate) fn publish(
    document: &Document,
    findings: &Findings,
    rows: &[&'static str],
    project: &Path,
) -> io::Result<()> {
    let Document { path, name, heading } = document;
    let ran = findings.table(rows);
    let written = project.join(format!("target/{name}.md"));
    fs::create_dir_all(project.join("target"))?;
    fs::write(&written, ran.markdown(heading))?;
    println!("{name} table of HAProxy {}: {}", ran.columns.join(", "), written.display());

    let page = fs::read_to_string(project.join(path))?;
    let begin = format!("<!-- {name}: written by the end-to-end tests -->\n");
    let end = format!("<!-- end of {name} -->\n");
    let shown = page.split_once(&begin).and_then(|(_, rest)| rest.split_once(&end));
    let shown = shown.and_then(|(table, _)| Table::parse(table.trim()));
    let shown = shown.ok_or_else(|| io::Error::other(format!("{path} has no {name} table")))?;
    for column in &ran.columns {
        if !shown.columns.contains(column) {
            println!("note: the table in {path} says nothing of HAProxy {column}");
        }
    }
    match ran.difference(&shown) {
        None => Ok(()),
        Some(what) => Err(io::Error::other(format!(
            "the {name} table in {path} is not that of this run ({what}); the right one is in {}",
            written.display()
        ))),
    }
}
