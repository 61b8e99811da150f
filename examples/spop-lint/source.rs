//! Files as sections of lines, in the order in which HAProxy reads them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::grammar::{Environment, Word, words};

/// Where something stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The file as it was named.
    pub(crate) file: Rc<str>,
    /// From 1.
    pub(crate) line: usize,
    /// In characters, from 1.
    pub(crate) column: usize,
    /// Within `.if` and `.endif`, whose condition is not evaluated.
    pub(crate) conditional: bool,
}

/// A line that is neither empty nor a directive.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// Where its first word is.
    pub(crate) place: Place,
    /// At least one.
    pub(crate) words: Vec<Word>,
}

impl Line {
    /// The text of a word, empty behind the last.
    pub(crate) fn word(&self, index: usize) -> &str {
        self.words.get(index).map_or("", |word| &word.text)
    }

    /// Whether it begins with these words.
    pub(crate) fn starts(&self, with: &[&str]) -> bool {
        with.iter().enumerate().all(|(index, word)| self.word(index) == *word)
    }

    /// The words from one on.
    pub(crate) fn from(&self, index: usize) -> &[Word] {
        self.words.get(index..).unwrap_or_default()
    }

    /// The place of a word.
    pub(crate) fn at(&self, word: &Word) -> Place {
        Place { column: word.column, ..self.place.clone() }
    }
}

/// What was not understood, and is therefore not judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    /// Where.
    pub(crate) place: Place,
    /// What, as a sentence.
    pub(crate) text: String,
}

/// A section: its own first line, and the lines up to the next.
#[derive(Debug, Clone)]
pub(crate) struct Section {
    /// `frontend`, `spoe-agent` …
    pub(crate) head: Line,
    /// `[scope]` of an SPOE file.
    pub(crate) scope: Option<String>,
    /// What follows.
    pub(crate) lines: Vec<Line>,
}

impl Section {
    /// The keyword.
    pub(crate) fn kind(&self) -> &str {
        self.head.word(0)
    }

    /// The name, empty where there is none.
    pub(crate) fn name(&self) -> &str {
        match self.head.word(1) {
            "from" if self.kind() == "defaults" => "",
            name => name,
        }
    }
}

const SECTIONS: &[&str] = &[
    "global",
    "defaults",
    "frontend",
    "backend",
    "listen",
    "userlist",
    "peers",
    "resolvers",
    "mailers",
    "cache",
    "program",
    "http-errors",
    "ring",
    "fcgi-app",
    "log-forward",
    "crt-store",
    "traces",
    "log-profile",
    "acme",
    "spoe-agent",
    "spoe-message",
    "spoe-group",
];

/// Reads files one after the other, as HAProxy does: sections and defaults go on from file to file.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// All sections.
    pub(crate) sections: Vec<Section>,
    /// What was not understood.
    pub(crate) notes: Vec<Note>,
}

impl Source {
    /// Takes the text of a file.
    pub(crate) fn add(&mut self, file: &str, text: &str, environment: &mut Environment) {
        let file: Rc<str> = file.into();
        let (mut depth, mut scope) = (0_usize, None);
        for (number, raw) in (1..).zip(text.lines()) {
            let mut place =
                Place { file: file.clone(), line: number, column: 1, conditional: depth > 0 };
            if let Some(name) = raw.trim().strip_prefix('[') {
                scope = name.split(']').next().map(|name| name.trim().to_owned());
                continue;
            }
            let words = match words(raw, environment) {
                Ok(words) => words,
                Err(error) => {
                    let text = format!("{error}: the line is left out, as HAProxy refuses it");
                    self.notes.push(Note { place, text });
                    continue;
                }
            };
            let Some(first) = words.first() else { continue };
            place.column = first.column;
            let line = Line { place, words };
            if line.word(0).starts_with('.') {
                self.directive(&line, &mut depth);
                continue;
            }
            if let Some(unknown) = line.words.iter().find(|word| word.unknown) {
                let text = format!("environment variable not set here: {}", unknown.text);
                self.notes.push(Note { place: line.at(unknown), text });
            }
            match line.word(0) {
                "setenv" => environment.set(line.word(1), line.word(2)),
                "presetenv" => environment.preset(line.word(1), line.word(2)),
                _ => {}
            }
            if SECTIONS.contains(&line.word(0)) {
                self.sections.push(Section { head: line, scope: scope.clone(), lines: Vec::new() });
            } else if let Some(section) = self.sections.last_mut() {
                section.lines.push(line);
            }
        }
    }

    fn directive(&mut self, line: &Line, depth: &mut usize) {
        let text = match line.word(0) {
            ".if" => {
                *depth += 1;
                let rest: Vec<_> = line.from(1).iter().map(|word| word.text.as_str()).collect();
                format!(
                    "`.if {}` is not evaluated: nothing up to its .endif is reported",
                    rest.join(" ")
                )
            }
            ".endif" => return *depth = depth.saturating_sub(1),
            ".elif" | ".else" | ".diag" | ".notice" | ".warning" | ".alert" => return,
            other => format!("`{other}` is not known"),
        };
        self.notes.push(Note { place: line.place.clone(), text });
    }
}

/// The files that HAProxy would read for `-f PATH`: those `*.cfg` of a directory, by name.
pub(crate) fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        if !hidden && path.is_file() && path.extension().is_some_and(|end| end == "cfg") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
