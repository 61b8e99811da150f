//! What is done, read from the first bytes of an input.

/// An input is a byte `n`, a script of `n` bytes, then what the peer sends. A script that has come to its
/// end reads as zeros, and zero is everywhere the usual thing: a plain capture behind a zero byte is an
/// ordinary connection.
#[derive(Clone, Debug)]
pub struct Script<'a> {
    bytes: &'a [u8],
}

impl<'a> Script<'a> {
    /// The script of an input, and the rest.
    pub fn split(input: &'a [u8]) -> (Self, &'a [u8]) {
        let Some((&length, rest)) = input.split_first() else { return (Self { bytes: &[] }, &[]) };
        let (bytes, rest) = rest.split_at(usize::from(length).min(rest.len()));
        (Self { bytes }, rest)
    }

    /// All of an input as a script.
    pub const fn whole(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Whether nothing is left.
    pub const fn spent(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        byte
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end.max(1)
    }

    /// One in two.
    pub fn flag(&mut self) -> bool {
        self.byte() % 2 == 1
    }

    /// One of these; the first is the usual one.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// As many bytes as there are, up to `count`.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.bytes.split_at(count.min(self.bytes.len()));
        self.bytes = rest;
        taken
    }
}
