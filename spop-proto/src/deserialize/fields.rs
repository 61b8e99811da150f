//! What a type would take: it is deserialized once for each of its fields, from nothing, and what it
//! asks for on the way is written down.

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error, Expected, MapAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

use super::alike::alike;
use super::fault::Fault;
use crate::router::{Declared, Kind};

/// The fields of a struct, in their order; nothing for other types.
pub(crate) fn fields<T: Deserialize<'static>>() -> Vec<Declared> {
    let mut seen = Seen::default();
    // It always fails: no field ever gets a value.
    let _ = T::deserialize(Recorder { seen: &mut seen, field: None });
    let names = seen.names;
    let mut list = Vec::new();
    for &name in names {
        let mut seen = Seen::default();
        let _ = T::deserialize(Recorder { seen: &mut seen, field: Some(name) });
        list.push(Declared {
            name: name.into(),
            fetch: None,
            kind: seen.kind,
            optional: seen.optional,
        });
    }
    list
}

#[derive(Default)]
struct Seen {
    names: &'static [&'static str],
    kind: Kind,
    optional: bool,
}

struct Recorder<'s> {
    seen: &'s mut Seen,
    field: Option<&'static str>,
}

impl<'de> Deserializer<'de> for Recorder<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Fault> {
        Err(nothing())
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.seen.names = names;
        match self.field {
            Some(_) => visitor.visit_map(self),
            None => Err(nothing()),
        }
    }

    alike! { newtype_struct }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

impl<'de> MapAccess<'de> for Recorder<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        let name = self.field.take();
        name.map(|name| seed.deserialize(BorrowedStrDeserializer::new(name))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        seed.deserialize(FieldRecorder(self.seen))
    }
}

/// One field.
struct FieldRecorder<'s>(&'s mut Seen);

macro_rules! kinds {
    ($($kind:ident: $($method:ident)*;)*) => {$($(
        fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Fault> {
            self.0.kind = Kind::$kind;
            Err(nothing())
        }
    )*)*};
}

impl<'de> Deserializer<'de> for FieldRecorder<'_> {
    type Error = Fault;

    kinds! {
        Bool: deserialize_bool;
        Integer: deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
            deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128;
        Text: deserialize_string deserialize_char;
        Bytes: deserialize_bytes deserialize_byte_buf deserialize_seq;
        Any: deserialize_any;
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let expected: &dyn Expected = &visitor;
        self.0.kind = match expected.to_string().as_str() {
            "IP address" => Kind::Address,
            "IPv4 address" => Kind::Ipv4,
            "IPv6 address" => Kind::Ipv6,
            _ => Kind::Text,
        };
        Err(nothing())
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.0.optional = true;
        visitor.visit_some(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        words: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Fault> {
        self.0.kind = Kind::OneOf(words);
        Err(nothing())
    }

    alike! { newtype_struct }

    forward_to_deserialize_any! {
        f32 f64 unit unit_struct tuple tuple_struct map struct identifier ignored_any
    }
}

fn nothing() -> Fault {
    Fault::custom("nothing to read from")
}
