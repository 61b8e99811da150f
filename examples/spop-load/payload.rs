//! What is asked.

use std::net::Ipv4Addr;

use spop_proto::wire::{NotifyPayload, TooManyArgs};

use crate::args::Args;

const MESSAGE: &str = "check-client-ip";
/// Where the last byte of the address lies: behind the message's name, the number of arguments, the
/// name `ip`, the type, and three other bytes.
const LAST_BYTE: usize = 1 + MESSAGE.len() + 1 + 1 + "ip".len() + 1 + 3;
/// Addresses end in a number below that: as an integer it takes one byte.
const ADDRESSES: u8 = 240;
/// What a string takes besides its bytes: its type, and a length of up to four bytes.
const STRING: usize = 1 + 4;
const STRINGS: [&str; 4] =
    ["/index.html", "www.example.com", "7e0fd06a-bd02-4d3c-8c11-6b4dcf7ea2f1", "text/html"];

/// The payload of all NOTIFYs; they differ in the last byte of their address.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    next: u8,
}

impl Template {
    /// As the command line says.
    pub(crate) fn new(args: &Args) -> Result<Self, TooManyArgs> {
        let mut payload = NotifyPayload::new(MESSAGE).arg("ip", Ipv4Addr::new(192, 0, 2, 0));
        let strings = STRINGS.iter().cycle().take(usize::from(args.arguments) - 1);
        for (n, text) in strings.enumerate() {
            payload = payload.arg(format!("a{n}"), *text);
        }
        let body = args.body.map(|bytes| vec![b'x'; bytes]);
        if let Some(body) = &body {
            payload = payload.arg("body", body.as_slice());
        }
        let mut bytes = payload.as_bytes()?.to_vec();
        if let Some(wanted) = args.payload {
            let name = "padding";
            let besides = bytes.len() + 1 + name.len() + STRING;
            if let Some(missing) = wanted.checked_sub(besides) {
                let payload = payload.arg(name, "x".repeat(missing).as_str());
                bytes = payload.as_bytes()?.to_vec();
            }
        }
        Ok(Self { bytes, next: 0 })
    }

    /// The payload's length.
    pub(crate) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The next payload, and the last byte of its address.
    pub(crate) fn next(&mut self) -> (&[u8], u8) {
        let byte = self.next;
        self.next = (byte + 1) % ADDRESSES;
        if let Some(last) = self.bytes.get_mut(LAST_BYTE) {
            *last = byte;
        }
        (&self.bytes, byte)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use spop_proto::Value;
    use spop_proto::wire::Messages;

    use super::*;

    fn template(words: &[&str]) -> Template {
        Template::new(&Args::parse_from([&["spop-load"], words].concat())).unwrap()
    }

    #[test]
    fn addresses_differ() {
        let mut template = template(&["-a", "3", "-b", "5"]);
        for wanted in [0, 1, 2] {
            let (payload, byte) = template.next();
            assert_eq!(byte, wanted);
            let message = Messages::check(payload).unwrap().next().unwrap();
            let address = Ipv4Addr::new(192, 0, 2, wanted);
            assert_eq!(message.arg("ip"), Some(Value::Ipv4(address)));
            assert_eq!(message.arg("body"), Some(Value::Bin(b"xxxxx")));
            assert_eq!(message.args().len(), 4);
        }
    }

    #[test]
    fn padded_to_the_length_that_was_asked_for() {
        for bytes in [900, 8192, 65_536, 1 << 20] {
            let made = template(&["-p", &bytes.to_string()]).len();
            assert!((bytes - 4..=bytes).contains(&made), "{made} of {bytes}");
        }
        assert!(template(&["-p", "1"]).len() > 1);
    }
}
