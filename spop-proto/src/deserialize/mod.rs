//! Typed arguments with serde.

mod alike;
mod fault;
mod fields;
mod value;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use self::alike::alike;
use self::fault::Fault;
pub(crate) use self::fields::fields;
use self::value::{Absent, Name, ValueDeserializer};
use crate::request::ArgError;
use crate::wire::{Arg, Args, Message};

impl<'a> Message<'a> {
    /// All arguments at once, as a `T` of serde (feature `serde`).
    ///
    /// ```
    /// use serde::Deserialize;
    /// use spop_proto::{Router, Scope};
    /// use std::net::IpAddr;
    ///
    /// // In HAProxy: args ip=src src-port=src_port path=path method=method
    /// #[derive(Deserialize)]
    /// #[serde(rename_all = "kebab-case")]
    /// struct Check<'a> {
    ///     ip: IpAddr,
    ///     src_port: u16,
    ///     path: Option<&'a str>,
    ///     method: Method,
    /// }
    ///
    /// #[derive(Deserialize, PartialEq)]
    /// #[serde(rename_all = "UPPERCASE")]
    /// enum Method {
    ///     Get,
    ///     Post,
    /// }
    ///
    /// let router = Router::new().on("check", |message, ack| {
    ///     let check: Check<'_> = message.deserialize()?;
    ///     let odd = check.path.is_none() || check.src_port < 1024 || check.ip.is_multicast();
    ///     ack.set(Scope::Transaction, "odd", odd || check.method == Method::Post)?;
    ///     Ok(())
    /// });
    /// # let asked = || spop_proto::testing::message("check").arg("ip", std::net::Ipv4Addr::LOCALHOST)
    /// #     .arg("src-port", 50_000).arg("method", "GET");
    /// # assert_eq!(asked().ask(&router).to_string(), "txn.odd = bool true\n");
    /// # assert_eq!(asked().arg("path", "/").ask(&router).to_string(), "txn.odd = bool false\n");
    /// ```
    ///
    /// - Structs and maps by name: the order does not matter, unnamed arguments are skipped, and so are
    ///   unknown ones unless `deny_unknown_fields` says otherwise. Tuples and sequences by position.
    /// - `Option` where an argument may be absent or NULL.
    /// - Integers from any of the four integer types, range-checked; `bool` from booleans only.
    /// - `&str` and `&[u8]` borrow; nothing is copied or allocated for them. `&str` and `String` want
    ///   UTF-8.
    /// - Enums and everything that reads itself from text, from strings. Addresses from addresses, and
    ///   from strings. (An address passes through text on its way; [`get`](Self::get) is quicker.)
    ///
    /// # Errors
    /// As [`get`](Self::get), and for what serde's attributes refuse.
    pub fn deserialize<T: serde::Deserialize<'a>>(&self) -> Result<T, ArgError> {
        T::deserialize(MessageDeserializer(self.args())).map_err(|fault| fault.of(self))
    }
}

struct MessageDeserializer<'de>(Args<'de>);

impl<'de> Deserializer<'de> for MessageDeserializer<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_map(ByName { args: self.0, last: None })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_seq(ByPosition { args: self.0, next: 0, least: 0 })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_seq(ByPosition { args: self.0, next: 0, least: len })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_tuple(len, visitor)
    }

    alike! { newtype_struct unit_struct ignored_any }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        map struct enum identifier
    }
}

struct ByName<'de> {
    args: Args<'de>,
    last: Option<Arg<'de>>,
}

impl<'de> MapAccess<'de> for ByName<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        self.last = self.args.find(|arg| !arg.name.is_empty());
        self.last.map(|arg| seed.deserialize(Name(arg.name))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        match self.last.take() {
            Some(Arg { name, value }) => {
                seed.deserialize(ValueDeserializer(value)).map_err(|fault| fault.at(name, value))
            }
            None => seed.deserialize(Absent),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        self.args.size_hint().1
    }
}

struct ByPosition<'de> {
    args: Args<'de>,
    next: usize,
    /// So many are asked for; an `Option` may be missing at the end.
    least: usize,
}

impl<'de> SeqAccess<'de> for ByPosition<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        let number = self.next.saturating_add(1);
        let element = match self.args.next() {
            Some(Arg { name, value }) => {
                let element = seed.deserialize(ValueDeserializer(value));
                element.map_err(|fault| fault.at_position(number, name, value))
            }
            None if self.next < self.least => {
                seed.deserialize(Absent).map_err(|fault| fault.missing_at(number))
            }
            None => return Ok(None),
        };
        self.next = number;
        element.map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        self.args.size_hint().1
    }
}
