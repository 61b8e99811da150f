//! HAProxy's grammar: a line is words.

use std::collections::HashMap;
use std::iter::Peekable;
use std::str::CharIndices;

/// A word of a line, without its quotes and escapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    /// What HAProxy makes of it.
    pub(crate) text: String,
    /// Where it starts, counted in characters from 1.
    pub(crate) column: usize,
    /// It has an environment variable that is not set here: what HAProxy would read is not known.
    pub(crate) unknown: bool,
}

impl Word {
    fn at(column: usize) -> Self {
        Self { text: String::new(), column, unknown: false }
    }
}

/// The environment variables that HAProxy would see.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment(HashMap<String, String>);

impl Environment {
    /// Those of this process.
    pub(crate) fn of_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self(std::env::vars_os().filter_map(text).collect())
    }

    /// `setenv` of a `global` section.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.0.insert(name.to_owned(), value.to_owned());
    }

    /// `presetenv`: only where there is none.
    pub(crate) fn preset(&mut self, name: &str, value: &str) {
        self.0.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// The words of a line; an error where HAProxy refuses the line, too.
pub(crate) fn words(line: &str, environment: &Environment) -> Result<Vec<Word>, &'static str> {
    let mut reader = Reader {
        chars: line.char_indices().peekable(),
        line,
        environment,
        word: None,
        words: Vec::new(),
        column: 0,
    };
    reader.read()?;
    Ok(reader.words)
}

struct Reader<'a> {
    chars: Peekable<CharIndices<'a>>,
    line: &'a str,
    environment: &'a Environment,
    word: Option<Word>,
    words: Vec<Word>,
    column: usize,
}

impl Reader<'_> {
    fn read(&mut self) -> Result<(), &'static str> {
        let mut quote = None;
        while let Some(c) = self.next() {
            match (quote, c) {
                (None, ' ' | '\t' | '\r' | '\n') => self.end(),
                (None, '#') => break,
                (None, '"' | '\'') => {
                    quote = Some(c);
                    self.word(); // which may stay empty
                }
                (Some(open), _) if open == c => quote = None,
                (Some('\''), _) => self.push(c),
                (_, '\\') => self.escape(quote.is_some())?,
                (Some(_), '$') => self.variable()?,
                _ => self.push(c),
            }
        }
        if quote.is_some() {
            return Err("a quote is not closed");
        }
        self.end();
        Ok(())
    }

    fn next(&mut self) -> Option<char> {
        self.column += 1;
        self.chars.next().map(|(_, c)| c)
    }

    fn peek(&mut self) -> Option<char> {
        self.chars.peek().map(|(_, c)| *c)
    }

    fn word(&mut self) -> &mut Word {
        let column = self.column;
        self.word.get_or_insert_with(|| Word::at(column))
    }

    fn push(&mut self, c: char) {
        self.word().text.push(c);
    }

    fn end(&mut self) {
        self.words.extend(self.word.take());
    }

    /// Behind a backslash. One that escapes nothing stands for itself.
    fn escape(&mut self, quoted: bool) -> Result<(), &'static str> {
        let column = self.column;
        let c = match self.peek() {
            Some(c @ (' ' | '\\' | '#' | '"')) => c,
            Some('\'') if !quoted => '\'',
            Some('$') if quoted => '$',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('x') => {
                self.next();
                let digits = [self.next(), self.next()].map(|c| c.and_then(|c| c.to_digit(16)));
                let [Some(high), Some(low)] = digits else {
                    return Err("\\x wants two hexadecimal digits");
                };
                let c = char::from_u32(high * 16 + low).unwrap_or(char::REPLACEMENT_CHARACTER);
                self.word.get_or_insert_with(|| Word::at(column)).text.push(c);
                return Ok(());
            }
            _ => {
                self.push('\\');
                return Ok(());
            }
        };
        self.word.get_or_insert_with(|| Word::at(column)).text.push(c);
        self.next();
        Ok(())
    }

    /// Behind a dollar sign in double quotes: `NAME`, `{NAME}`, `{NAME-default}`, `{NAME[*]}`.
    fn variable(&mut self) -> Result<(), &'static str> {
        let braces = self.peek() == Some('{');
        if braces {
            self.next();
        }
        let name = self.name();
        if name.is_empty() {
            return Err("no name behind a dollar sign in double quotes");
        }
        let (mut default, mut list) = (None, false);
        if braces {
            if self.rest().starts_with("[*]") {
                list = true;
                self.skip(3);
            }
            if self.peek() == Some('-') {
                self.next();
                let end = self.rest().find('}').ok_or("no } behind ${")?;
                let text = self.rest().get(..end).unwrap_or_default().to_owned();
                self.skip(text.chars().count());
                default = Some(text);
            }
            if self.next() != Some('}') {
                return Err("no } behind ${");
            }
        }
        // A default stands only for what is not set, and that is not known here either.
        let known = self.environment.get(&name).map(str::to_owned);
        let Some(value) = known else {
            let text = default.unwrap_or_else(|| format!("${{{name}}}"));
            self.word().text.push_str(&text);
            self.word().unknown = true;
            return Ok(());
        };
        if !list {
            self.word().text.push_str(&value);
            return Ok(());
        }
        for (number, part) in value.split_whitespace().enumerate() {
            if number > 0 {
                self.end();
            }
            self.word().text.push_str(part);
        }
        Ok(())
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) =
            self.peek().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'))
        {
            name.push(c);
            self.next();
        }
        name
    }

    fn rest(&mut self) -> &str {
        let at = self.chars.peek().map_or(self.line.len(), |(at, _)| *at);
        self.line.get(at..).unwrap_or_default()
    }

    fn skip(&mut self, chars: usize) {
        for _ in 0..chars {
            self.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(line: &str) -> Result<Vec<String>, &'static str> {
        let mut environment = Environment::default();
        environment.set("NAME", "value");
        environment.set("LIST", "a b  c");
        Ok(words(line, &environment)?.into_iter().map(|word| word.text).collect())
    }

    #[track_caller]
    fn check(line: &str, want: &[&str]) {
        assert_eq!(read(line).unwrap(), want, "{line}");
    }

    #[test]
    fn blanks_and_comments() {
        check("", &[]);
        check(" \t ", &[]);
        check("# all of it", &[]);
        check("\ta  b\tc\r", &["a", "b", "c"]);
        check("a b#c d", &["a", "b"]);
        check(r"a\#b \# # c", &["a#b", "#"]);
        check(r##"a "#b" '#c'"##, &["a", "#b", "#c"]);
    }

    #[test]
    fn quotes() {
        check(r#"a "b c"'d e'f"#, &["a", "b cd ef"]);
        check(r#""" '' "#, &["", ""]);
        check(r#""it's" '"'"#, &["it's", "\""]);
        check(r#"'\n' "\n" \n"#, &["\\n", "\n", "\n"]);
        check(r#"\'a \"b "\"" "\'""#, &["'a", "\"b", "\"", "\\'"]);
        assert!(read("a \"b").is_err());
        assert!(read("a 'b\\'").is_ok(), "no escapes in single quotes");
        assert!(read("it's").is_err());
    }

    #[test]
    fn escapes() {
        check(r"a\ b\\ \t", &["a b\\", "\t"]);
        check(r"\x41b ^\. \q", &["Ab", "^\\.", "\\q"]);
        check("a\\", &["a\\"]);
        assert!(read(r"\x4").is_err());
        assert!(read(r"\xg0").is_err());
    }

    #[test]
    fn variables() {
        check(r#""$NAME" "${NAME}:1" '$NAME' $NAME"#, &["value", "value:1", "$NAME", "$NAME"]);
        check(r#""${NAME-x}" "\$NAME""#, &["value", "$NAME"]);
        check(r#"x"${LIST[*]}"y "${LIST}""#, &["xa", "b", "cy", "a b  c"]);
        assert!(read(r#""${NAME""#).is_err());
        assert!(read(r#""$ ""#).is_err());
        let unset = words(r#"bind "${NONE-1:2}" "${NONE}""#, &Environment::default()).unwrap();
        let unset: Vec<_> = unset.iter().map(|w| (w.text.as_str(), w.unknown)).collect();
        assert_eq!(unset, [("bind", false), ("1:2", true), ("${NONE}", true)]);
    }

    #[test]
    fn columns_count_characters() {
        let line = "  ä \"b c\" \\x41d \\ e";
        let words = words(line, &Environment::default()).unwrap();
        let columns: Vec<_> = words.iter().map(|word| word.column).collect();
        assert_eq!(columns, [3, 5, 11, 17]);
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(line in any::<String>()) {
            let _ = read(&line);
        }

        #[test]
        fn any_mix_of_signs_is_read_or_refused(line in r#"[ \t"'\\$#{}\[\]*xnLISTNAME.-]{0,40}"#) {
            if let Ok(words) = words(&line, &Environment::default()) {
                let columns: Vec<_> = words.iter().map(|word| word.column).collect();
                prop_assert!(columns.is_sorted());
                prop_assert!(columns.iter().all(|c| (1..=line.chars().count()).contains(c)));
            }
        }

        #[test]
        fn what_is_quoted_comes_back(words in prop::collection::vec("[^'\0]{0,8}", 0..6)) {
            let line: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
            prop_assert_eq!(read(&line.join(" ")).unwrap(), words);
        }
    }
}
