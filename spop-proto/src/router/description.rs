//! What an agent says of itself, as a text that tools read.

use core::fmt;
use core::str::FromStr;

use thiserror::Error;

use super::declared::{Declared, Kind};

/// What an agent says of itself: the messages it has a route for, and the arguments it takes.
///
/// Written out, and read again, it is a line for each message and, below it, one for each argument: name,
/// type, `optional` if it may be absent or NULL, and HAProxy's sample fetch if it was named. The types are
/// `any`, `bool`, `int`, `ip`, `ipv4`, `ipv6`, `str` and `bytes`; what follows `#` is a comment.
///
/// ```
/// use spop_proto::{Description, Router};
///
/// let router = Router::new()
///     .on("check-client-ip", |_, _| Ok(()))
///     .declares(["ip=src", "path=path"]);
/// let text = "message check-client-ip\n    arg ip any = src\n    arg path any = path\n";
/// assert_eq!(router.description().to_string(), text);
/// assert_eq!(text.parse::<Description>().unwrap(), router.description());
/// ```
///
/// An agent that prints it lets `spop-lint --expect` compare HAProxy's configuration with it; one that runs
/// says it to `spop-lint --agent` and `spop-check --describe`, see
/// [`AgentConfig::description`](crate::AgentConfig::description).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    messages: Vec<(Box<str>, Vec<Declared>)>,
}

impl Description {
    pub(super) fn new<'a>(messages: impl Iterator<Item = (&'a str, &'a [Declared])>) -> Self {
        let owned = |(name, args): (&str, &[Declared])| (name.into(), args.to_vec());
        Self { messages: messages.map(owned).collect() }
    }

    /// The messages, and the arguments of each.
    pub fn messages(&self) -> impl Iterator<Item = (&str, &[Declared])> {
        self.messages.iter().map(|(name, args)| (&**name, args.as_slice()))
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, args) in self.messages() {
            writeln!(f, "message {name}")?;
            for Declared { name, fetch, kind, optional } in args {
                write!(f, "    arg {name} {}", kind.word())?;
                f.write_str(if *optional { " optional" } else { "" })?;
                if let Some(fetch) = fetch {
                    write!(f, " = {fetch}")?;
                }
                match kind {
                    Kind::OneOf(words) => writeln!(f, " # one of {}", words.join(", "))?,
                    _ => writeln!(f)?,
                }
            }
        }
        Ok(())
    }
}

/// A text that describes no agent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
#[error("line {line}: {reason}")]
pub struct ParseDescriptionError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: Box<str>,
}

impl FromStr for Description {
    type Err = ParseDescriptionError;

    fn from_str(text: &str) -> Result<Self, ParseDescriptionError> {
        let mut description = Self::default();
        for (line, content) in (1..).zip(text.lines()) {
            description
                .read(content)
                .map_err(|reason| ParseDescriptionError { line, reason: reason.into() })?;
        }
        Ok(description)
    }
}

impl Description {
    fn read(&mut self, line: &str) -> Result<(), String> {
        let line = match line.trim_start().starts_with('#') {
            true => "",
            false => line.split_once(" #").map_or(line, |(line, _)| line),
        };
        let (line, fetch) = match line.split_once(" = ") {
            Some((line, fetch)) => (line, Some(fetch.trim().into())),
            None => (line, None),
        };
        let words: Vec<&str> = line.split_whitespace().collect();
        match (words.as_slice(), fetch) {
            ([], None) => Ok(()),
            (&["message", name], None) => {
                self.messages.push((name.into(), Vec::new()));
                Ok(())
            }
            (&["arg", name, kind, ref rest @ ..], fetch) => {
                let kind = Kind::of_word(kind).ok_or_else(|| {
                    format!(
                        "`{kind}` is no type: write any, bool, int, ip, ipv4, ipv6, str or bytes"
                    )
                })?;
                let optional = match rest {
                    [] => false,
                    ["optional"] => true,
                    _ => return Err(format!("`{}` where `optional` may stand", rest.join(" "))),
                };
                let Some((_, args)) = self.messages.last_mut() else {
                    return Err("an argument before the first message".to_owned());
                };
                args.push(Declared { name: name.into(), fetch, kind, optional });
                Ok(())
            }
            _ => Err("neither `message NAME` nor `arg NAME TYPE [optional] [= FETCH]`".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "message check
    arg ip ip = src
    arg path str optional
    arg tag str = req.hdr(x-tag),lower
message other
";

    #[test]
    fn read_and_written() {
        let description: Description = TEXT.parse().unwrap();
        assert_eq!(description.to_string(), TEXT);
        let args = description.messages().next().unwrap().1;
        assert_eq!(args[0].to_string(), "ip=src: an address");
        assert_eq!(args[1].to_string(), "path: a string, optional");
        let commented = format!("# an agent\n\n{}", TEXT.replace("src", "src # it"));
        assert_eq!(commented.parse(), Ok(description));
    }

    #[test]
    fn what_is_wrong_and_where() {
        for (text, expected) in [
            ("arg ip ip", "line 1: an argument before the first message"),
            (
                "message a\narg ip address",
                "line 2: `address` is no type: write any, bool, int, ip, ipv4, ipv6, str or bytes",
            ),
            ("message a\narg ip ip maybe", "line 2: `maybe` where `optional` may stand"),
            (
                "message a b",
                "line 1: neither `message NAME` nor `arg NAME TYPE [optional] [= FETCH]`",
            ),
        ] {
            assert_eq!(text.parse::<Description>().unwrap_err().to_string(), expected);
        }
    }
}
