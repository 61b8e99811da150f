//! A payload larger than a frame, cut as HAProxy <= 3.0 cuts it.

use crate::wire::{Value, decode_varint};

/// What stands at the place where the next fragment begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// A message's name and its number of arguments.
    Message,
    /// An argument's name.
    Name,
    /// An argument's value.
    Value,
    /// The rest of a string or binary value: that many bytes.
    Inside(usize),
    /// Bytes of no known meaning.
    Raw,
}

/// Walks through a payload. HAProxy writes item after item as long as they fit; only the bytes of
/// a string or binary value go into a fragment in part, and of those at least one.
///
/// What does not decode, and a name that no fragment could hold, HAProxy cannot send. It is cut
/// anywhere here, so that an agent can be shown such a payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cutter {
    at: usize,
    /// Arguments of the message that are yet to come.
    args: u8,
    place: Place,
}

/// An item: how long it is, how much of it to take, and what follows then.
struct Item {
    take: usize,
    args: u8,
    next: Place,
}

impl Cutter {
    pub(super) const fn new() -> Self {
        Self { at: 0, args: 0, place: Place::Message }
    }

    /// How much of the payload was cut off so far.
    pub(super) const fn at(&self) -> usize {
        self.at
    }

    /// Whether `payload` fits one frame with that much room.
    pub(super) fn fits(payload: &[u8], room: usize) -> bool {
        // A byte to spare: see `message`.
        payload.len() < room || Self::new().cut(payload, room) == payload.len()
    }

    /// Moves on by one fragment of at most `room` bytes and returns where it ends.
    pub(super) fn cut(&mut self, payload: &[u8], room: usize) -> usize {
        let end = self.at.saturating_add(room.max(1));
        let begin = self.at;
        loop {
            let rest = payload.get(self.at..).unwrap_or_default();
            let room = end - self.at;
            if rest.is_empty() || room == 0 {
                break;
            }
            match self.item(rest, room) {
                Some(Item { take, args, next }) if take > 0 => {
                    self.at += take;
                    self.args = args;
                    self.place = next;
                }
                // Does not fit here, but in a fragment of its own.
                Some(_) if self.at > begin => break,
                _ => self.place = Place::Raw,
            }
        }
        self.at
    }

    /// The item at the start of `rest`; takes nothing of it where HAProxy would begin a new
    /// fragment. `None` where it does not decode.
    fn item(&self, rest: &[u8], room: usize) -> Option<Item> {
        let (args, part) = (self.args, |take, next| Some(Item { take, args: self.args, next }));
        match self.place {
            Place::Message => {
                let (name, after) = decode_varint(rest).ok()?;
                let name = usize::try_from(name).ok()?;
                let args = *after.get(name)?;
                // HAProxy counts two bytes for the length of the name, whatever it takes.
                if name.saturating_add(3) > room {
                    return part(0, Place::Message);
                }
                let take = rest.len() - after.len() + name + 1;
                let next = if args == 0 { Place::Message } else { Place::Name };
                Some(Item { take: if take > room { 0 } else { take }, args, next })
            }
            Place::Name => {
                let (name, after) = decode_varint(rest).ok()?;
                let after = after.get(usize::try_from(name).ok()?..)?;
                let take = rest.len() - after.len();
                part(if take > room { 0 } else { take }, Place::Value)
            }
            Place::Value => {
                let (value, after) = Value::decode(rest).ok()?;
                let whole = rest.len() - after.len();
                let bytes = value.as_bytes().map_or(0, <[u8]>::len);
                // Type, length and a byte of a string; any other value as a whole.
                let least = whole - bytes.saturating_sub(1);
                if least > room {
                    part(0, Place::Value)
                } else if whole > room {
                    part(room, Place::Inside(whole - room))
                } else {
                    Some(self.end_of_value(whole, args))
                }
            }
            Place::Inside(left) if left > room => part(room, Place::Inside(left - room)),
            Place::Inside(left) => Some(self.end_of_value(left, args)),
            Place::Raw => part(rest.len().min(room), Place::Raw),
        }
    }

    const fn end_of_value(&self, take: usize, args: u8) -> Item {
        let args = args.saturating_sub(1);
        Item { take, args, next: if args == 0 { Place::Message } else { Place::Name } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::NotifyPayload;

    fn cuts(payload: &[u8], room: usize) -> Vec<usize> {
        let mut cutter = Cutter::new();
        let mut cuts = Vec::new();
        while cutter.at() < payload.len() {
            let begin = cutter.at();
            cuts.push(cutter.cut(payload, room) - begin);
        }
        cuts
    }

    #[test]
    fn items_stay_whole_and_strings_are_cut() {
        // 02 "m1" 02 | 01 "a" | 04 f0 00 | 01 "s" | 08 06 "abcdef"
        let payload = NotifyPayload::new("m1").arg("a", 240_i64).arg("s", "abcdef");
        let payload = payload.as_bytes().unwrap();
        assert_eq!(payload.len(), 4 + 2 + 3 + 2 + 8);
        assert_eq!(cuts(payload, 19), [19]);
        assert_eq!(cuts(payload, 18), [18, 1]);
        assert_eq!(cuts(payload, 14), [14, 5], "at least one byte of a string");
        assert_eq!(cuts(payload, 13), [11, 8], "no length without a byte of its string");
        assert_eq!(cuts(payload, 8), [6, 8, 5], "a number is whole; name and value may part");
        assert_eq!(cuts(payload, 5), [4, 5, 5, 5]);
    }

    #[test]
    fn two_bytes_are_reserved_for_the_length_of_a_messages_name() {
        let payload = NotifyPayload::new("m1").arg("a", true).message("m2");
        let payload = payload.as_bytes().unwrap();
        assert_eq!(payload.len(), 11);
        assert!(!Cutter::fits(payload, 11));
        assert_eq!(cuts(payload, 11), [7, 4]);
        assert!(Cutter::fits(payload, 12));
        assert!(!Cutter::fits(payload, 10));
    }

    #[test]
    fn empty_strings_and_values_without_data() {
        let payload = NotifyPayload::new("m").arg("", "").arg("", None::<i32>).arg("", true);
        let payload = payload.as_bytes().unwrap();
        assert_eq!(cuts(payload, 4), [4, 4, 2]);
        assert_eq!(cuts(payload, 5), [4, 5, 1], "the empty string is type and length");
    }

    #[test]
    fn what_haproxy_cannot_send_is_cut_anywhere() {
        assert_eq!(cuts(&[0xff; 10], 4), [4, 4, 2]);
        let long = NotifyPayload::new("a-name-of-21-bytes-xx").arg("a", 1);
        assert_eq!(cuts(long.as_bytes().unwrap(), 10), [10, 10, 7]);
        assert_eq!(cuts(b"", 10), [0; 0]);
        assert_eq!(cuts(b"abc", 0), [1, 1, 1], "ends whatever the room");
    }
}
