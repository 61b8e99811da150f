//! One argument.

use core::fmt::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::de::value::{BorrowedStrDeserializer, SeqDeserializer};
use serde::de::{Deserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::alike::alike;
use super::fault::Fault;
use crate::request::{FromValue, Mismatch};
use crate::wire::Value;

pub(super) struct ValueDeserializer<'de>(pub(super) Value<'de>);

impl<'de> ValueDeserializer<'de> {
    fn get<T: FromValue<'de>>(&self) -> Result<T, Fault> {
        T::from_value(self.0).map_err(Fault::from)
    }
}

impl From<Mismatch> for Fault {
    fn from(mismatch: Mismatch) -> Self {
        Self::expected(mismatch.expected)
    }
}

macro_rules! leaves {
    ($($method:ident $visit:ident $type:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            visitor.$visit(self.get::<$type>()?)
        }
    )*};
}

impl<'de> Deserializer<'de> for ValueDeserializer<'de> {
    type Error = Fault;

    leaves! {
        deserialize_bool visit_bool bool;
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
        deserialize_i128 visit_i128 i128;
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
        deserialize_u128 visit_u128 u128;
        deserialize_string visit_borrowed_str &'de str;
        deserialize_bytes visit_borrowed_bytes &'de [u8];
        deserialize_byte_buf visit_borrowed_bytes &'de [u8];
    }

    /// A type that reads itself from text may mean an address by it.
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Ipv4(ip) => visitor.visit_str(AddressText::V4(ip).write(&mut Stack::new())),
            Value::Ipv6(ip) => visitor.visit_str(AddressText::V6(ip).write(&mut Stack::new())),
            Value::Str(_) => visitor.visit_borrowed_str(self.get()?),
            _ => Err(Fault::of_visitor(&visitor)),
        }
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_borrowed_str(self.get()?)
    }

    /// What it is, for types that take several.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(v) => visitor.visit_bool(v),
            Value::Int32(v) => visitor.visit_i32(v),
            Value::Uint32(v) => visitor.visit_u32(v),
            Value::Int64(v) => visitor.visit_i64(v),
            Value::Uint64(v) => visitor.visit_u64(v),
            Value::Ipv4(_) | Value::Ipv6(_) => self.deserialize_str(visitor),
            Value::Str(v) => match core::str::from_utf8(v) {
                Ok(text) => visitor.visit_borrowed_str(text),
                Err(_) => visitor.visit_borrowed_bytes(v),
            },
            Value::Bin(v) => visitor.visit_borrowed_bytes(v),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.0.is_null() { visitor.visit_unit() } else { Err(Fault::of_visitor(&visitor)) }
    }

    /// A `Vec<u8>` is a sequence to serde.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0.as_bytes() {
            Some(bytes) => visitor.visit_seq(SeqDeserializer::new(bytes.iter().copied())),
            None => Err(Fault::of_visitor(&visitor)),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        words: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.get::<&'de str>() {
            Ok(word) => visitor.visit_enum(BorrowedStrDeserializer::new(word)),
            Err(_) => Err(Fault::one_of(words)),
        }
    }

    alike! { newtype_struct unit_struct ignored_any }

    forward_to_deserialize_any! { f32 f64 tuple_struct map struct identifier }
}

/// An argument's name, whatever its bytes.
pub(super) struct Name<'de>(pub(super) &'de [u8]);

impl<'de> Deserializer<'de> for Name<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match core::str::from_utf8(self.0) {
            Ok(name) => visitor.visit_borrowed_str(name),
            Err(_) => visitor.visit_borrowed_bytes(self.0),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// An argument that HAProxy did not send.
pub(super) struct Absent;

impl<'de> Deserializer<'de> for Absent {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        Err(Fault::of_visitor(&visitor))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_none()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

enum AddressText {
    V4(Ipv4Addr),
    V6(Ipv6Addr),
}

impl AddressText {
    fn write(self, stack: &mut Stack) -> &str {
        // The longest address has 45 characters: it fits.
        let _ = match self {
            Self::V4(ip) => write!(stack, "{ip}"),
            Self::V6(ip) => write!(stack, "{ip}"),
        };
        stack.text()
    }
}

/// Text without an allocation.
struct Stack {
    bytes: [u8; 48],
    len: usize,
}

impl Stack {
    const fn new() -> Self {
        Self { bytes: [0; 48], len: 0 }
    }

    fn text(&self) -> &str {
        let written = self.bytes.get(..self.len).unwrap_or_default();
        core::str::from_utf8(written).unwrap_or_default()
    }
}

impl Write for Stack {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len.saturating_add(text.len());
        let room = self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}
