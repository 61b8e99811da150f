//! The page as its blocks, and how they make configurations.

use std::fs;
use std::path::Path;

use crate::bench::{Failure, ensure};

/// Which HAProxy a block is for: its info string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Versions {
    Old,
    New,
    All,
}

/// What a block is, by its first line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// A whole file.
    Whole,
    /// More lines for the section of that name.
    In(String),
    /// The `http-request` rules of the frontend `web`, under a name.
    Rules(String),
}

#[derive(Debug)]
pub(super) struct Block {
    pub(super) versions: Versions,
    /// In spoe.conf, and not in haproxy.cfg.
    spoe: bool,
    pub(super) part: Part,
    pub(super) text: String,
}

/// The blocks of the page, all of them.
pub(super) struct Page(pub(super) Vec<Block>);

impl Page {
    /// The page `haproxy-versions.md`.
    pub(super) fn read() -> Result<Self, Failure> {
        Self::of("haproxy-versions.md", &[])
    }

    /// A page below `examples`. A block that is not understood is an error: it would be one that nothing
    /// checks. Those in `others` are not HAProxy's, and the business of other tests.
    pub(super) fn of(name: &str, others: &[&str]) -> Result<Self, Failure> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        let page = fs::read_to_string(path)?;
        let mut fences = page.split("\n```");
        fences.next();
        let mut blocks = Vec::new();
        while let Some(block) = fences.next() {
            let info = block.lines().next().unwrap_or_default();
            if !others.contains(&info) {
                blocks.push(Block::parse(block)?);
            }
            let after = fences.next().ok_or_else(|| Failure::new("a block has no end"))?;
            ensure(after.is_empty() || after.starts_with('\n'), || format!("fence: {after}"))?;
        }
        Ok(Self(blocks))
    }

    /// The complete configurations for these versions, in the order of the page: each `haproxy.cfg` with
    /// the `spoe.conf` that is next.
    pub(super) fn pairs(&self, versions: Versions) -> Result<Vec<Files>, Failure> {
        let whole = |block: &&Block| block.versions == versions && block.part == Part::Whole;
        let mut files = self.0.iter().filter(whole);
        let mut pairs = Vec::new();
        while let Some(config) = files.next() {
            match files.next() {
                Some(spoe) if spoe.spoe && !config.spoe => {
                    pairs.push(Files { config: config.text.clone(), spoe: spoe.text.clone() });
                }
                _ => return Err(Failure::new(format!("no spoe.conf next to\n{}", config.text))),
            }
        }
        Ok(pairs)
    }

    /// The one complete configuration for these versions.
    pub(super) fn whole(&self, versions: Versions) -> Result<Files, Failure> {
        let file = |spoe: bool| {
            let mut found = self.0.iter().filter(|block| {
                (block.versions, block.spoe) == (versions, spoe) && block.part == Part::Whole
            });
            match (found.next(), found.next()) {
                (Some(block), None) => Ok(block.text.clone()),
                _ => Err(Failure::new(format!("{versions:?} has not one file (spoe: {spoe})"))),
            }
        };
        Ok(Files { config: file(false)?, spoe: file(true)? })
    }

    pub(super) fn rules(&self, name: &str) -> Result<&Block, Failure> {
        let part = Part::Rules(name.to_owned());
        let found = self.0.iter().find(|block| block.part == part);
        found.ok_or_else(|| Failure::new(format!("the page has no rules {name:?}")))
    }
}

impl Block {
    /// What stands between two fences, the info string included.
    fn parse(block: &str) -> Result<Self, Failure> {
        let unknown = || Failure::new(format!("a block that nobody checks:\n```{block}"));
        let (info, text) = block.split_once('\n').ok_or_else(unknown)?;
        let versions = match info {
            "haproxy 2.6-3.0" => Versions::Old,
            "haproxy 3.1+" => Versions::New,
            "haproxy all" => Versions::All,
            _ => return Err(unknown()),
        };
        let (title, text) = text.split_once('\n').ok_or_else(unknown)?; // the first stays, a comment
        let (spoe, rest) = match title.strip_prefix("# spoe.conf") {
            Some(rest) => (true, rest),
            None => (false, title.strip_prefix("# haproxy.cfg").ok_or_else(unknown)?),
        };
        let rules = ", the http-request rules of \"frontend web\", ";
        let section = || rest.strip_prefix(", in \"")?.strip_suffix('"');
        let part = if rest.is_empty() {
            Part::Whole
        } else if let Some(name) = rest.strip_prefix(rules).filter(|_| !spoe) {
            Part::Rules(name.to_owned())
        } else {
            Part::In(section().ok_or_else(unknown)?.to_owned())
        };
        Ok(Self { versions, spoe, part, text: format!("{title}\n{text}\n") })
    }
}

/// A configuration.
#[derive(Debug, Clone)]
pub(super) struct Files {
    pub(super) config: String,
    pub(super) spoe: String,
}

impl Files {
    /// With a block of the page put where it says.
    pub(super) fn with(mut self, block: &Block) -> Result<Self, Failure> {
        let text = if block.spoe { &mut self.spoe } else { &mut self.config };
        let section = match &block.part {
            Part::Whole => return Ok(self),
            Part::In(section) => section,
            Part::Rules(_) => "frontend web",
        };
        let missing = || Failure::new(format!("no section {section:?} for\n{}", block.text));
        let start = text.find(&format!("\n{section}\n")).ok_or_else(missing)?;
        let (before, rest) = text.split_at(start + section.len() + 2);
        // Up to the next line that is not indented.
        let end = rest.find("\n\n").map_or(rest.len(), |end| end + 1);
        let (lines, after) = rest.split_at(end);
        let rules = matches!(block.part, Part::Rules(_));
        let stays = |line: &&str| !(rules && line.trim_start().starts_with("http-request "));
        let lines: String = lines.split_inclusive('\n').filter(stays).collect();
        *text = [before, &lines, &block.text, after].concat();
        Ok(self)
    }
}
