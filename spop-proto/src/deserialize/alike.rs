//! What several deserializers do alike.

/// Methods of `Deserializer`, by the names that `forward_to_deserialize_any!` has for them:
///
/// - `newtype_struct`: read as what it holds
/// - `unit_struct`: read as a unit
/// - `ignored_any`: nothing is read
macro_rules! alike {
    ($($name:ident)+) => {$(alike!(@ $name);)+};
    (@ newtype_struct) => {
        fn deserialize_newtype_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            visitor: V,
        ) -> Result<V::Value, Fault> {
            visitor.visit_newtype_struct(self)
        }
    };
    (@ unit_struct) => {
        fn deserialize_unit_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            visitor: V,
        ) -> Result<V::Value, Fault> {
            self.deserialize_unit(visitor)
        }
    };
    (@ ignored_any) => {
        fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            visitor.visit_unit()
        }
    };
}

pub(super) use alike;
