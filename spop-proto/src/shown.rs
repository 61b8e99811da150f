//! Bytes of a peer in texts that somebody reads: escaped, and never more than a line or two.

use core::fmt;

/// How much is shown of a name.
pub(crate) const NAME_BYTES: usize = 128;
/// How much is shown of what the other side said when it left.
pub(crate) const GOODBYE_BYTES: usize = 256;
/// How many names are shown of a list.
pub(crate) const LISTED: usize = 10;

/// The part of a name that is shown, and kept where it has to be known again.
pub(crate) fn head(name: &[u8]) -> &[u8] {
    name.get(..NAME_BYTES).unwrap_or(name)
}

/// A name, escaped, `...` where it is longer.
pub(crate) fn name(bytes: &[u8]) -> Shown<'_> {
    Shown { bytes, limit: NAME_BYTES }
}

/// What was said with a goodbye, in the same way.
pub(crate) fn goodbye(bytes: &[u8]) -> Box<str> {
    Shown { bytes, limit: GOODBYE_BYTES }.to_box()
}

pub(crate) struct Shown<'a> {
    bytes: &'a [u8],
    limit: usize,
}

impl Shown<'_> {
    pub(crate) fn to_box(&self) -> Box<str> {
        self.to_string().into()
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bytes.get(..self.limit).filter(|start| start.len() < self.bytes.len()) {
            Some(start) => write!(f, "{}...", start.escape_ascii()),
            None => self.bytes.escape_ascii().fmt(f),
        }
    }
}

/// Names for an error text: the first ten and how many more there are, unnamed ones as `(unnamed)`.
pub(crate) fn list<'a>(mut names: impl Iterator<Item = &'a [u8]>) -> Box<str> {
    let mut out = String::new();
    for name in names.by_ref().take(LISTED) {
        if !out.is_empty() {
            out.push_str(", ");
        }
        match name {
            [] => out.push_str("(unnamed)"),
            name => out.push_str(&self::name(name).to_string()),
        }
    }
    match names.count() {
        0 if out.is_empty() => "none".into(),
        0 => out.into(),
        more => format!("{out} … and {more} more").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_shown_up_to_its_limit() {
        assert_eq!(name(b"a\x1b").to_string(), r"a\x1b");
        assert_eq!(name(&[b'x'; NAME_BYTES]).to_string(), "x".repeat(128));
        assert_eq!(name(&[b'x'; NAME_BYTES + 1]).to_string(), "x".repeat(128) + "...");
        assert_eq!(goodbye(&[b'x'; 256]).len(), 256);
        assert_eq!(*goodbye(&[0xff; 100_000]), *(r"\xff".repeat(256) + "..."));
        assert_eq!((head(&[0; 129]).len(), head(&[0; 127]).len()), (128, 127));
    }

    #[test]
    fn a_list_is_ten_names_and_a_number() {
        let of = |count: usize| list(core::iter::repeat_n(&b"n"[..], count));
        assert_eq!(*of(0), *"none");
        assert_eq!(*of(1), *"n");
        assert_eq!(*of(10), *"n, n, n, n, n, n, n, n, n, n");
        assert_eq!(*of(22), *"n, n, n, n, n, n, n, n, n, n … and 12 more");
        assert_eq!(*list([&b""[..], b"a"].into_iter()), *"(unnamed), a");
    }
}
