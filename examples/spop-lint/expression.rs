//! What expressions and conditions read and set.

use crate::grammar::Word;

/// A variable that is named somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// `txn.iprep.ip_score`.
    pub(crate) name: String,
    /// Set here, and not read.
    pub(crate) set: bool,
    /// `var(name,default)`: there is always a value.
    pub(crate) default: bool,
}

impl Named {
    /// `txn` of `txn.iprep.ip_score`.
    pub(crate) fn scope(&self) -> &str {
        self.name.split('.').next().unwrap_or_default()
    }

    /// What an agent with that prefix calls it, if it is its own.
    pub(crate) fn of(&self, prefix: &str) -> Option<&str> {
        self.name.split_once('.')?.1.strip_prefix(prefix)?.strip_prefix('.')
    }
}

/// The variables in a word: `var(..)`, `set-var(..)`, `set-var-fmt(..)`.
pub(crate) fn variables(text: &str) -> Vec<Named> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices('(') {
        let (before, behind) = text.split_at(at);
        let keyword =
            before.rsplit(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_')).next();
        let set = match keyword {
            Some("var") => false,
            Some("set-var" | "set-var-fmt") => true,
            _ => continue,
        };
        let inner = behind.trim_start_matches('(');
        let Some(end) = inner.find([')', ',']) else { continue };
        let (name, rest) = inner.split_at(end);
        let name = name.trim_matches([' ', '"', '\'']).to_owned();
        found.push(Named { name, set, default: rest.starts_with(',') });
    }
    found
}

/// All of several words.
pub(crate) fn all_variables(words: &[Word]) -> Vec<Named> {
    words.iter().filter(|word| !word.unknown).flat_map(|word| variables(&word.text)).collect()
}

/// One term of a condition: an ACL by name, or one between braces.
#[derive(Debug, Clone)]
pub(crate) struct Term {
    /// With `!`, or behind `unless`, but not both: it holds where the sample is missing.
    pub(crate) negated: bool,
    /// The name, or the words between the braces.
    pub(crate) words: Vec<Word>,
}

/// A condition behind `if` or `unless`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Condition(pub(crate) Vec<Term>);

impl Condition {
    /// The words of a rule, split at its condition.
    pub(crate) fn split(words: &[Word]) -> (&[Word], Self) {
        let at = words.iter().position(|word| matches!(word.text.as_str(), "if" | "unless"));
        let Some((rule, condition)) = at.and_then(|at| words.split_at_checked(at)) else {
            return (words, Self::default());
        };
        let Some((keyword, condition)) = condition.split_first() else {
            return (words, Self::default());
        };
        (rule, Self::parse(condition, keyword.text == "unless"))
    }

    fn parse(words: &[Word], unless: bool) -> Self {
        let (mut terms, mut negated) = (Vec::new(), unless);
        let mut words = words.iter();
        while let Some(word) = words.next() {
            // `!`, `!{`, `!name`, and `! !name` for those who like it.
            let text = word.text.trim_start_matches('!');
            negated ^= (word.text.len() - text.len()) % 2 == 1;
            match text {
                "or" | "||" | "and" => {}
                "" => continue,
                "{" => {
                    let inner = words.by_ref().take_while(|word| word.text != "}").cloned();
                    terms.push(Term { negated, words: inner.collect() });
                }
                name => {
                    let word = Word { text: name.to_owned(), ..word.clone() };
                    terms.push(Term { negated, words: vec![word] });
                }
            }
            negated = unless;
        }
        Self(terms)
    }
}

/// A time as HAProxy writes it, in microseconds; without a unit it counts milliseconds.
pub(crate) fn time(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit {
        "us" => 1,
        "" | "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// Whether an expression begins or goes on with that fetch.
pub(crate) fn fetches(expression: &str, fetch: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    expression.match_indices(fetch).any(|(at, _)| {
        let (before, rest) = expression.split_at(at);
        let after = rest.get(fetch.len()..).unwrap_or_default();
        !before.ends_with(inside) && !after.starts_with(inside)
    })
}

/// The name of a fetch's last converter, or of the fetch if it has none.
pub(crate) fn last_of_chain(expression: &str) -> &str {
    let (mut depth, mut start) = (0_usize, 0);
    for (at, c) in expression.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => start = at + 1,
            _ => {}
        }
    }
    let last = expression.get(start..).unwrap_or_default();
    last.split('(').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::{Environment, words};

    fn names(text: &str) -> Vec<(String, bool, bool)> {
        variables(text).into_iter().map(|v| (v.name, v.set, v.default)).collect()
    }

    #[test]
    fn variables_of_words() {
        let own = |name: &str, set, default| (name.to_owned(), set, default);
        assert_eq!(names("var(txn.a.b)"), [own("txn.a.b", false, false)]);
        assert_eq!(
            names("%[var(txn.a.b,0)]/%[var(sess.c),upper]"),
            [own("txn.a.b", false, true), own("sess.c", false, false)]
        );
        assert_eq!(names("set-var(txn.x,ifnotexists)"), [own("txn.x", true, true)]);
        assert_eq!(names("src,set-var(txn.x)"), [own("txn.x", true, false)]);
        assert!(names("unset-var(txn.x) myvar(txn.y) var( ((").is_empty());
    }

    #[test]
    fn conditions() {
        let terms = |line: &str| {
            let words = words(line, &Environment::default()).unwrap();
            let (rule, condition) = Condition::split(&words);
            let terms = condition.0.iter().map(|t| (t.words[0].text.clone(), t.negated));
            (rule.len(), terms.collect::<Vec<_>>())
        };
        let own = |name: &str, negated| (name.to_owned(), negated);
        assert_eq!(terms("deny"), (1, vec![]));
        assert_eq!(
            terms("deny if a !b or !{ c -m found } ! { d }"),
            (1, vec![own("a", false), own("b", true), own("c", true), own("d", true)])
        );
        assert_eq!(terms("deny unless a !b"), (1, vec![own("a", true), own("b", false)]));
        assert_eq!(terms("deny if { a"), (1, vec![own("a", false)]));
    }

    #[test]
    fn times() {
        assert_eq!(time("100"), time("100ms"));
        assert_eq!((time("2s"), time("3m")), (Some(2_000_000), Some(180_000_000)));
        assert_eq!(
            (time(""), time("x"), time("1y"), time("99999999999999999999d")),
            (None, None, None, None)
        );
    }

    #[test]
    fn the_last_of_a_chain() {
        assert_eq!(last_of_chain("src"), "src");
        assert_eq!(last_of_chain("req.hdr(host,1),lower"), "lower");
        assert_eq!(last_of_chain("path,concat(a,b),regsub((x|y),z)"), "regsub");
        assert_eq!(last_of_chain(""), "");
    }

    #[test]
    fn fetches_are_whole_words() {
        assert!(fetches("req.body", "req.body"));
        assert!(fetches("req.body,base64", "req.body"));
        assert!(fetches("concat(req.body)", "req.body"));
        assert!(!fetches("req.body_size", "req.body"));
        assert!(!fetches("xreq.body", "req.body"));
    }
}
