//! SPOP as the manual tells it (`doc/SPOE.txt`), and nothing else: slow, simple, and with not one line
//! of the crates it is compared with. Everything is copied; numbers are too wide to overflow.

/// A frame: length field taken off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// FRAME-TYPE.
    pub kind: u8,
    /// FLAGS.
    pub flags: u32,
    /// STREAM-ID.
    pub stream: u64,
    /// FRAME-ID.
    pub frame: u64,
    /// FRAME-PAYLOAD.
    pub payload: Vec<u8>,
}

/// Typed data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// TYPE, the low four bits of the first byte.
    pub kind: u8,
    /// FLAGS, the high four bits.
    pub flags: u8,
    /// An integer's 64 bits.
    pub integer: u64,
    /// The bytes of an address, a string or a binary.
    pub bytes: Vec<u8>,
}

/// A message of a NOTIFY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// MESSAGE-NAME.
    pub name: Vec<u8>,
    /// KV-LIST.
    pub args: Vec<(Vec<u8>, Data)>,
}

/// An action of an ACK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// ACTION-TYPE: 1 sets, 2 unsets.
    pub kind: u8,
    /// The scope's number.
    pub scope: u8,
    /// The variable.
    pub name: Vec<u8>,
    /// What it is set to.
    pub value: Option<Data>,
}

/// Whether types that the manual reserves are gone past (they have no bytes) or refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// Read as a value without bytes.
    Empty,
    /// Malformed.
    Refused,
}

/// What is left to read. Every reader returns `None` where the bytes are not what they should be.
#[derive(Clone, Debug)]
pub struct Reader(Vec<u8>);

impl Reader {
    /// Reads these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.iter().rev().copied().collect())
    }

    /// Whether everything is read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many bytes are not.
    pub fn left(&self) -> usize {
        self.0.len()
    }

    fn byte(&mut self) -> Option<u8> {
        self.0.pop()
    }

    fn take(&mut self, count: u128) -> Option<Vec<u8>> {
        if count > self.0.len() as u128 {
            return None;
        }
        (0..count).map(|_| self.byte()).collect()
    }

    fn big_endian(&mut self, count: u128) -> Option<u32> {
        Some(self.take(count)?.into_iter().fold(0, |sum, byte| sum * 256 + u32::from(byte)))
    }

    /// "Variable-length integer".
    pub fn varint(&mut self) -> Option<u64> {
        let first = self.byte()?;
        let mut value = u128::from(first);
        if first >= 240 {
            let mut worth = 16_u128;
            loop {
                let byte = self.byte()?;
                // Ten bytes hold 64 bits.
                if worth > 1 << 60 {
                    return None;
                }
                value += u128::from(byte) * worth;
                worth *= 128;
                if byte < 128 {
                    break;
                }
            }
        }
        u64::try_from(value).ok()
    }

    /// A string or binary: its length, then its bytes.
    pub fn string(&mut self) -> Option<Vec<u8>> {
        let length = self.varint()?;
        self.take(u128::from(length))
    }

    /// Typed data.
    pub fn data(&mut self, reserved: Reserved) -> Option<Data> {
        let tag = self.byte()?;
        let mut data = Data { kind: tag % 16, flags: tag / 16, integer: 0, bytes: Vec::new() };
        match data.kind {
            0 | 1 => {}
            2..=5 => data.integer = self.varint()?,
            6 => data.bytes = self.take(4)?,
            7 => data.bytes = self.take(16)?,
            8 | 9 => data.bytes = self.string()?,
            _ if reserved == Reserved::Empty => {}
            _ => return None,
        }
        Some(data)
    }

    fn message(&mut self) -> Option<Message> {
        let name = self.string()?;
        let count = self.byte()?;
        let mut args = Vec::new();
        for _ in 0..count {
            args.push((self.string()?, self.data(Reserved::Refused)?));
        }
        Some(Message { name, args })
    }

    fn action(&mut self) -> Option<Action> {
        let kind = self.byte()?;
        let count = self.byte()?;
        if (kind, count) != (1, 3) && (kind, count) != (2, 2) {
            return None;
        }
        let scope = self.byte()?;
        if scope > 4 {
            return None;
        }
        let name = self.string()?;
        let value = if kind == 1 { Some(self.data(Reserved::Empty)?) } else { None };
        Some(Action { kind, scope, name, value })
    }
}

/// A frame without its length field.
pub fn frame(bytes: &[u8]) -> Option<Frame> {
    let mut reader = Reader::new(bytes);
    let kind = reader.byte()?;
    let flags = reader.big_endian(4)?;
    let stream = reader.varint()?;
    let frame = reader.varint()?;
    let rest = reader.left() as u128;
    Some(Frame { kind, flags, stream, frame, payload: reader.take(rest)? })
}

/// The bytes of the first frame of a stream, without the length field, and what follows it; `None` where it
/// is not all there.
pub fn cut(stream: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut reader = Reader::new(stream);
    let length = reader.big_endian(4)?;
    let frame = reader.take(u128::from(length))?;
    let rest = reader.left() as u128;
    Some((frame, reader.take(rest)?))
}

/// The payload of a NOTIFY; `None` where any of it is malformed.
pub fn messages(payload: &[u8]) -> Option<Vec<Message>> {
    let mut reader = Reader::new(payload);
    let mut all = Vec::new();
    while !reader.is_empty() {
        all.push(reader.message()?);
    }
    Some(all)
}

/// The payload of an ACK: the actions before the first bad one, and whether there is a bad one.
pub fn actions(payload: &[u8]) -> (Vec<Action>, bool) {
    let mut reader = Reader::new(payload);
    let mut all = Vec::new();
    while !reader.is_empty() {
        match reader.action() {
            Some(action) => all.push(action),
            None => return (all, true),
        }
    }
    (all, false)
}

/// The payload of a HELLO or DISCONNECT: a list of keys and values. Keys are not empty.
pub fn pairs(payload: &[u8]) -> Option<Vec<(Vec<u8>, Data)>> {
    let mut reader = Reader::new(payload);
    let mut all = Vec::new();
    while !reader.is_empty() {
        let key = reader.string()?;
        if key.is_empty() {
            return None;
        }
        all.push((key, reader.data(Reserved::Empty)?));
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of the manual's table of lengths.
    #[test]
    fn varints() {
        let read = |bytes: &[u8]| Reader::new(bytes).varint();
        assert_eq!(read(&[239]), Some(239));
        assert_eq!(read(&[240, 0]), Some(240));
        assert_eq!(read(&[255, 127]), Some(2287));
        assert_eq!(read(&[240, 128, 0]), Some(2288));
        assert_eq!(read(&[255, 240, 254, 254, 254, 254, 254, 254, 254, 14]), Some(u64::MAX));
        assert_eq!(read(&[240, 241, 254, 254, 254, 254, 254, 254, 254, 15]), None);
        assert_eq!(read(&[255; 11]), None);
        assert_eq!(read(&[240]), None);
    }

    #[test]
    fn a_message_of_the_manual() {
        let read = messages(b"\x01m\x02\x01a\x11\x00\x06\x7f\x00\x00\x01").unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].args[0].1.flags, 1);
        assert_eq!(
            read[0].args[1],
            (Vec::new(), Data { kind: 6, flags: 0, integer: 0, bytes: vec![127, 0, 0, 1] })
        );
        assert_eq!(messages(b"\x01m\x01"), None);
        assert_eq!(messages(b"\x01m\x01\x01a\x0a"), None);
    }
}
