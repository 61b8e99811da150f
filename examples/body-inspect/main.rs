//! An SPOE agent that looks for attacks in requests, their bodies included, with sets of regular
//! expressions; and that says when it could not see the whole body.
//!
//! See README.md beside it: [`Rules`] is what is looked for, [`Request::whole`] what a body inspector must
//! not leave out.

#[path = "../shared/serve.rs"]
mod serve;

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use regex::bytes::{RegexSet, RegexSetBuilder};
use serde::Deserialize;
use spop_tokio::{Action, Agent, ConfigError, Router, Scope, Var};

/// The `spoe-message`.
const MESSAGE: &str = "inspect";
/// BOOL: the verdict about what could be seen.
const BLOCKED: Var<'_> = Var::transaction("blocked");
/// STR: the first rule that matched, as `body:17`: where, and its line in the file of rules.
const RULE: Var<'_> = Var::transaction("rule");
/// BOOL: there was more than could be seen.
const TRUNCATED: Var<'_> = Var::transaction("truncated");

const SITE: serve::Site<'_> = serve::Site {
    engine: "inspect",
    rules: &[
        "# Nobody looked, something was found, or there was more than could be seen.",
        "http-request deny deny_status 503 unless { var(txn.inspect.blocked) -m found }",
        "http-request deny deny_status 403 if { var(txn.inspect.blocked) -m bool }",
        "http-request deny deny_status 413 if { var(txn.inspect.truncated) -m bool }",
        "# In what is packed nothing can be found.",
        "http-request deny deny_status 415 content-type text/plain string packed if { req.hdr(content-encoding) -m found }",
    ],
    passes: "served",
};

/// Look for attacks in the requests that HAProxy handles: an SPOE agent.
#[derive(Debug, Parser)]
#[command(name = "body-inspect", version, max_term_width = 100, after_help = serve::AFTER_HELP)]
struct Args {
    #[command(flatten)]
    options: serve::Options,

    /// What to look for: `PLACE REGEX` in a line, `#` begins a comment line. Places are path, query,
    /// headers and body [default: a few that show how]
    ///
    /// Regular expressions are those of Rust's crate regex, over bytes, upper and lower case alike; each
    /// takes a time linear in what it looks at.
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
}

pub(crate) fn main() -> ExitCode {
    let args: Args = serve::parse(&SITE, MESSAGE, takes);
    serve::run("body-inspect", async {
        let (name, text) = match &args.rules {
            None => ("built in".into(), include_str!("rules.txt").to_owned()),
            Some(path) => {
                let name = path.display().to_string();
                let text = fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
                (name, text)
            }
        };
        let rules = Rules::parse(&text).map_err(|error| format!("{name}: {error}"))?;
        if args.options.check {
            println!("{name}: {rules}");
            return Ok(());
        }
        args.options.serve(Agent::new(router(rules)?)).await?;
        Ok(())
    })
}

const PLACES: [&str; 4] = ["path", "query", "headers", "body"];

/// A set for each of [`PLACES`]: all of its expressions are tried in one pass.
struct Rules([Set; PLACES.len()]);

struct Set {
    expressions: RegexSet,
    /// Where each stands in the file.
    lines: Vec<usize>,
}

impl Rules {
    fn parse(text: &str) -> Result<Self, Box<dyn Error>> {
        let mut rules = Vec::new();
        for (nth, line) in text.lines().enumerate() {
            let (nth, line) = (nth + 1, line.trim());
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (place, expression) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let expression = expression.trim();
            if !PLACES.contains(&place) || expression.is_empty() {
                return Err(format!("line {nth}: not `PLACE REGEX` with one of {PLACES:?}").into());
            }
            // One by one, so that an error is told with its line.
            compile([expression]).map_err(|error| format!("line {nth}: {error}"))?;
            rules.push((place, expression, nth));
        }
        let set = |place: &str| -> Result<Set, regex::Error> {
            let here = || rules.iter().filter(|rule| rule.0 == place);
            let lines = here().map(|rule| rule.2).collect();
            Ok(Set { expressions: compile(here().map(|rule| rule.1))?, lines })
        };
        let [path, query, headers, body] = PLACES;
        Ok(Self([set(path)?, set(query)?, set(headers)?, set(body)?]))
    }

    /// The first rule that matches, in the order of the places.
    fn first(&self, request: &Request<'_>) -> Option<String> {
        let body = decoded(request.body);
        let seen: [&[&[u8]]; PLACES.len()] = [
            &[request.path],
            &[request.query.unwrap_or_default()],
            &[request.headers],
            // As it is, and as a form would be read.
            &[request.body, &body],
        ];
        let places = PLACES.iter().zip(&self.0).zip(seen);
        places
            .flat_map(|((place, set), seen)| seen.iter().map(move |seen| (place, set, seen)))
            .find_map(|(place, set, seen)| {
                let rule = set.expressions.matches(seen).iter().next()?;
                Some(format!("{place}:{}", set.lines.get(rule)?))
            })
    }
}

/// How many there are for each place.
impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: usize = self.0.iter().map(|set| set.lines.len()).sum();
        let counts = PLACES.iter().zip(&self.0);
        let counts = counts.map(|(place, set)| format!("{place} {}", set.lines.len()));
        write!(f, "{all} rules ({})", counts.collect::<Vec<_>>().join(", "))
    }
}

fn compile<'a>(expressions: impl IntoIterator<Item = &'a str>) -> Result<RegexSet, regex::Error> {
    RegexSetBuilder::new(expressions).unicode(false).case_insensitive(true).build()
}

/// `%3c` is `<` and `+` a blank.
fn decoded(form: &[u8]) -> Cow<'_, [u8]> {
    if !form.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return form.into();
    }
    let digit = |at: usize| char::from(*form.get(at)?).to_digit(16);
    let (mut out, mut at) = (Vec::with_capacity(form.len()), 0);
    while let Some(byte) = form.get(at) {
        let digits = digit(at + 1).zip(digit(at + 2)).filter(|_| *byte == b'%');
        let escaped = digits.and_then(|(high, low)| u8::try_from(high << 4 | low).ok());
        out.push(escaped.unwrap_or(if *byte == b'+' { b' ' } else { *byte }));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    out.into()
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    path: &'a [u8],
    query: Option<&'a [u8]>,
    headers: &'a [u8],
    /// What HAProxy's buffer held.
    body: &'a [u8],
    /// How long the body is, as far as HAProxy knows.
    size: u64,
    /// `Content-Length`, where the client announced one.
    length: Option<&'a str>,
}

impl Request<'_> {
    /// Whether `body` is all of it. Where the client announced no length (HTTP/2 wants none), HAProxy's size
    /// is that of the part in the buffer: whether there is more, nobody knows.
    fn whole(&self) -> bool {
        let seen = u64::try_from(self.body.len()).unwrap_or(u64::MAX);
        seen >= self.size && (self.body.is_empty() || self.length.is_some())
    }
}

fn router(rules: Rules) -> Result<Router, ConfigError> {
    takes(Router::new().on(MESSAGE, move |message, ack| {
        let request: Request<'_> = message.deserialize()?;
        let rule = rules.first(&request);
        if let Some(rule) = &rule {
            ack.set_var(RULE, rule.as_str())?;
        }
        ack.set_var(TRUNCATED, !request.whole())?;
        Ok(ack.set_var(BLOCKED, rule.is_some())?)
    }))
    // Nobody looked, so it does not pass.
    .fallback([
        Action::set(Scope::Transaction, RULE.name(), "not inspected"),
        Action::set(Scope::Transaction, BLOCKED.name(), true),
    ])
}

/// The arguments, as spoe.conf has them.
fn takes(route: Router) -> Router {
    route.args::<Request<'_>>().declares([
        "path=path,url_dec",
        "query=query,url_dec(1)",
        "headers=req.hdrs",
        "body=req.body",
        "size=req.body_size",
        "length=req.hdr(content-length)",
    ])
}

#[cfg(test)]
mod tests {
    use spop_tokio::testing::{self, Question};

    use super::*;

    fn agent() -> Router {
        router(Rules::parse("path /admin\n# why\n\nbody <script\nbody drop +table").unwrap())
            .unwrap()
    }

    fn post(body: &str, size: usize) -> Question {
        let question =
            testing::message("inspect").arg("path", "/").arg("headers", "host: a\r\n\r\n");
        question.arg("body", body.as_bytes()).arg("size", i64::try_from(size).unwrap())
    }

    #[track_caller]
    fn assert_answer(question: Question, expected: &str) {
        assert_eq!(question.ask(&agent()).to_string(), expected);
    }

    #[test]
    fn rules_match_where_they_are_for() {
        let clean = "txn.truncated = bool false\ntxn.blocked = bool false\n";
        let found = |line| {
            format!(
                "txn.rule = str body:{line}\ntxn.truncated = bool false\ntxn.blocked = bool true\n"
            )
        };
        assert_answer(post("a /admin b", 10).arg("length", "10"), clean);
        assert_answer(post("a <SCRIPT>", 10).arg("length", "10"), &found(4));
        assert_answer(post("a=%3Cscript", 11).arg("length", "11"), &found(4));
        assert_answer(post("a=DROP++TABLE", 13).arg("length", "13"), &found(5));
        assert_answer(post("", 0), clean);
    }

    #[test]
    fn what_cannot_be_seen_is_told() {
        let cut = "txn.truncated = bool true\ntxn.blocked = bool false\n";
        assert_answer(post("harmless", 9).arg("length", "9"), cut);
        // Without a length, that the size is that of the buffer says nothing.
        assert_answer(post("harmless", 8), cut);
    }

    #[test]
    fn without_its_size_a_body_is_not_passed() {
        let question =
            testing::message("inspect").arg("path", "/").arg("headers", "").arg("body", "");
        let answer = question.ask(&agent());
        assert_eq!(answer.get(Scope::Transaction, "blocked"), Some(true.into()));
        assert!(answer.error().unwrap().contains("argument size is missing"), "{answer}");
    }

    #[test]
    fn rules_with_a_mistake_are_refused_with_their_line() {
        for (text, error) in [
            ("path a\nbody (", "line 2: "),
            ("cookie a", "line 1: not `PLACE REGEX`"),
            ("\npath", "line 2: not `PLACE REGEX`"),
        ] {
            let refused = Rules::parse(text).map(drop).unwrap_err().to_string();
            assert!(refused.starts_with(error), "{refused}");
        }
        assert!(Rules::parse(include_str!("rules.txt")).is_ok());
    }

    #[test]
    fn forms_are_decoded() {
        for (form, expected) in
            [("a", "a"), ("a+b%20c", "a b c"), ("%", "%"), ("%4", "%4"), ("%zz%41", "%zzA")]
        {
            assert_eq!(decoded(form.as_bytes()), expected.as_bytes(), "{form}");
        }
    }
}
