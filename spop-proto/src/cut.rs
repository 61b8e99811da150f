//! Bodies that HAProxy may have cut.
//!
//! HAProxy keeps of a request, headers and body, what its buffer holds less `tune.maxrewrite`, asks the
//! agent about that and says of the rest nothing. Measured with 2.6 to 3.4, a body that is cut has the size
//! of the buffer less 1 024 bytes (`tune.maxrewrite`), less the headers, less some 150 to 550 bytes of its
//! own for up to a hundred headers. So one can be known by its length, and so can a whole one of that length:
//! it is a hint and no more.

use core::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use crate::config::Pacing;
use crate::shown::{self, head};
use crate::wire::{Messages, Value};

/// `tune.maxrewrite`, 4 KiB of headers, and what HAProxy adds to each of them.
const BESIDE_THE_BODY: u32 = 1_024 + 4_096 + 1_024;
/// Arguments told of: their names are a peer's.
const NAMES: usize = 64;

/// That an argument is as long as a body that HAProxy cut at its buffer. See
/// [`Event::MaybeCut`](crate::Event::MaybeCut).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MaybeCut {
    /// The message, escaped.
    pub message: Box<str>,
    /// The argument, escaped.
    pub argument: Box<str>,
    /// How long it was, in bytes.
    pub bytes: usize,
    /// The size of HAProxy's buffer, in bytes, as far as it is known: see [`Pacing::bufsize`].
    pub bufsize: u32,
}

/// What happened, and what to write, for a log.
impl fmt::Display for MaybeCut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { message, argument, bytes, bufsize } = self;
        write!(
            f,
            "message {message}: argument {argument} of {bytes} bytes may have been cut: HAProxy sends \
             what of a body fits its buffer of {bufsize}, and no error. In the spoe-message section: \
             args length=req.hdr_val(content-length), and compare; spop-lint --explain L07"
        )
    }
}

/// The size of the buffer of a HAProxy that offers such a frame size.
pub(crate) fn bufsize(pacing: Option<&Pacing>, offered_max_frame_size: u64) -> u32 {
    pacing.unwrap_or(&Pacing::DEFAULT).buffer(offered_max_frame_size)
}

/// How long a body is that was cut: so many bytes, up to the size of the buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window(u32);

impl Window {
    /// Before the handshake: none.
    pub(crate) const NONE: Self = Self(u32::MAX);

    /// That of a HAProxy that offers such a frame size.
    pub(crate) fn of(pacing: Option<&Pacing>, offered_max_frame_size: u64) -> Self {
        let bufsize = bufsize(pacing, offered_max_frame_size);
        // Of a very small buffer headers may leave less than half. That is not worth a look at each payload.
        Self(bufsize.saturating_sub(BESIDE_THE_BODY).max(bufsize / 2))
    }

    /// Whether a payload may hold one.
    #[inline(always)]
    pub(crate) const fn may_lie_in(self, payload: usize) -> bool {
        // On machines of 16 bits nothing is that long.
        payload as u64 >= self.0 as u64
    }

    /// Whether the handshake is done.
    pub(crate) const fn is_known(self) -> bool {
        // Of no buffer is it as much: what is beside the body is taken off.
        self.0 != Self::NONE.0
    }

    fn has(self, bufsize: u32, bytes: usize) -> bool {
        u32::try_from(bytes).is_ok_and(|bytes| (self.0..=bufsize).contains(&bytes))
    }

    /// The first argument of that length that nobody was told of.
    pub(crate) fn look(self, bufsize: u32, payload: &[u8], told: &Told) -> Option<MaybeCut> {
        for message in Messages::checked(payload) {
            for arg in message.args() {
                let (Value::Str(value) | Value::Bin(value)) = arg.value else { continue };
                if self.has(bufsize, value.len()) && told.is_new(message.name(), arg.name) {
                    return Some(MaybeCut {
                        message: shown::name(message.name()).to_box(),
                        argument: shown::name(arg.name).to_box(),
                        bytes: value.len(),
                        bufsize,
                    });
                }
            }
        }
        None
    }
}

/// What an agent was told of, over all its connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told(Arc<RwLock<Vec<Names>>>);

/// Of a message and its argument.
type Names = [Box<[u8]>; 2];

impl Told {
    fn is_new(&self, message: &[u8], argument: &[u8]) -> bool {
        let (message, argument) = (head(message), head(argument));
        let knows = |told: &[Names]| {
            told.len() >= NAMES || told.iter().any(|[m, a]| **m == *message && **a == *argument)
        };
        if knows(&self.0.read().unwrap_or_else(PoisonError::into_inner)) {
            return false;
        }
        let mut told = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if knows(&told) {
            return false;
        }
        told.push([message.into(), argument.into()]);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(pacing: Option<&Pacing>, offered: u64, bytes: usize) -> bool {
        Window::of(pacing, offered).has(bufsize(pacing, offered), bytes)
    }

    #[test]
    fn the_window_holds_what_was_measured() {
        // Offered; the most and the least that was left of a body: with no other header than two, by 3.4,
        // and with 4 000 bytes in 40 headers, by 2.6.
        for (offered, most, least) in [(16_380, 15_222, 11_054), (65_532, 64_373, 60_205)] {
            let has = |bytes| has(None, offered, bytes);
            assert!(has(most) && has(least), "{offered}");
            // `tune.maxrewrite 256` leaves more, and nothing is longer than the buffer.
            assert!(has(most + 768), "{offered}");
            assert!(!has(usize::try_from(offered).unwrap() + 5), "{offered}");
            assert!(!has(2_000) && !has(least - 1_200), "{offered}");
        }
    }

    /// As [`Pacing`] takes it: a smaller frame size is `max-frame-size`, and not that of a buffer.
    #[test]
    fn a_small_frame_is_no_small_buffer() {
        assert!(has(None, 4_096, 15_200) && !has(None, 4_096, 3_000));
        let pacing = Pacing::new().bufsize(8_192.try_into().unwrap());
        let told = |bytes| has(Some(&pacing), 8_188, bytes);
        assert!(told(7_022) && told(4_822) && !told(2_000));
        assert!(!Window::NONE.may_lie_in(1 << 20));
        assert!(!Window::of(None, u64::MAX).may_lie_in(1 << 20));
    }

    #[test]
    fn each_argument_is_told_once_and_few_of_them() {
        let told = Told::default();
        assert!(told.is_new(b"m", b"a") && told.is_new(b"m", b"b") && told.is_new(b"n", b"a"));
        let shared = told.clone();
        assert!(!shared.is_new(b"m", b"a"));
        let all = (0_u32..1_000).filter(|n| told.is_new(b"m", &n.to_be_bytes())).count();
        assert_eq!(all, NAMES - 3);
        let told = Told::default();
        assert!(told.is_new(&[b'x'; 1_000], b"a") && !told.is_new(&[b'x'; 2_000], b"a"));
    }
}
