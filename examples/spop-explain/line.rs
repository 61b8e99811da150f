//! Log lines.

use std::fmt;

/// Which implementation wrote a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Engine {
    /// HAProxy up to 3.0.
    Old,
    /// HAProxy 3.1 and later.
    New,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// The name of the `spoe-agent`.
    pub(crate) agent: String,
    /// `event on-frontend-http-request`, `group NAME`.
    pub(crate) occasion: String,
    /// The `st=`.
    pub(crate) error: u32,
    /// Told by the form of the line.
    pub(crate) engine: Engine,
    /// How long it took, in milliseconds; not known where HAProxy wrote -1.
    pub(crate) took: Option<u64>,
}

impl Line {
    /// The one within a line of a log, whatever stands before it.
    pub(crate) fn find(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once("SPOE: [")?;
        let (agent, rest) = rest.split_once("] <")?;
        let (occasion, rest) = rest.split_once("> ")?;
        let (kind, name) = occasion.split_once(':')?;
        let mut words = rest.split_ascii_whitespace();
        words.next()?.strip_prefix("sid=")?;
        let error = words.next()?.strip_prefix("st=")?.parse().ok()?;
        // reqT/qT/wT/resT/pT up to 3.0, pT alone since.
        let times: Vec<_> = words.next()?.split('/').collect();
        let engine = match times.len() {
            1 => Engine::New,
            5 => Engine::Old,
            _ => return None,
        };
        let took = times.last().and_then(|took| took.parse().ok());
        let occasion = format!("{} {name}", kind.to_ascii_lowercase());
        Some(Self { agent: agent.to_owned(), occasion, error, engine, took })
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let releases = match self.engine {
            Engine::Old => "HAProxy up to 3.0",
            Engine::New => "HAProxy 3.1 or later",
        };
        write!(f, "agent {}, {}, {releases}", self.agent, self.occasion)?;
        self.took.map_or(Ok(()), |took| write!(f, ", {took} ms"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms() {
        let old =
            "<134>x: SPOE: [a b] <EVENT:on-http-response> sid=88 st=256 0/-1/0/3/4 1/1 0/0 10/33";
        let line = Line::find(old).unwrap();
        assert_eq!((line.engine, line.error, line.took), (Engine::Old, 256, Some(4)));
        assert_eq!(line.to_string(), "agent a b, event on-http-response, HAProxy up to 3.0, 4 ms");
        let new = "SPOE: [a] <GROUP:g> sid=2 st=0 -1 0/1";
        let line = Line::find(new).unwrap();
        assert_eq!((line.engine, line.error, line.took), (Engine::New, 0, None));
        assert_eq!(line.to_string(), "agent a, group g, HAProxy 3.1 or later");
    }

    #[test]
    fn other_lines() {
        let whole = "SPOE: [a] <EVENT:e> sid=2 st=0 1 0/1";
        for end in 0..whole.len() - 5 {
            assert_eq!(Line::find(&whole[..end]), None, "{end}");
        }
        assert_eq!(Line::find("SPOE: [a] <EVENT:e> sid=2 st=x 1"), None);
        assert_eq!(Line::find("SPOE: [a] <EVENT:e> sid=2 st=99999999999 1"), None);
        assert_eq!(Line::find("SPOE: [a] <EVENT:e> sid=2 st=0 1/2"), None);
    }
}
