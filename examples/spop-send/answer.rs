//! What an agent answered.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value as Json, json};
use spop_proto::wire::{Action, Actions};
use spop_proto::{OwnedValue, Scope, Value};

/// The actions of an ACK, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer(Vec<Done>);

/// An action, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Done {
    scope: Scope,
    name: Box<[u8]>,
    /// `None` for `unset-var`.
    value: Option<OwnedValue>,
}

/// What HAProxy has afterwards: for each variable its value, or that it has none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Effect<'a>(BTreeMap<(Scope, &'a [u8]), Option<Stored<'a>>>);

/// A value as HAProxy stores it: an integer has 64 bits there, whatever its type was.
#[derive(Debug, PartialEq, Eq)]
enum Stored<'a> {
    Integer(u64),
    Other(Value<'a>),
}

impl Answer {
    /// All actions, as HAProxy takes them: those before the first bad one.
    pub(crate) fn read(actions: Actions<'_>) -> (Self, Option<spop_proto::DecodeError>) {
        let mut answer = Self::default();
        for action in actions {
            match action {
                Ok(action) => answer.0.push(Done::of(&action)),
                Err(error) => return (answer, Some(error)),
            }
        }
        (answer, None)
    }

    /// The actions in HAProxy's words, one each.
    pub(crate) fn lines<'a>(&'a self, prefix: Option<&'a str>) -> impl Iterator<Item = String> {
        self.0.iter().map(move |done| done.words(prefix))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What they make of HAProxy's variables.
    pub(crate) fn effect(&self) -> Effect<'_> {
        let effect = self.0.iter().map(|Done { scope, name, value }| {
            let value = value.as_ref().map(OwnedValue::as_value).filter(|value| !value.is_null());
            ((*scope, &**name), value.map(Stored::of))
        });
        Effect(effect.collect())
    }

    /// The actions as JSON.
    pub(crate) fn json(&self, prefix: Option<&str>) -> Json {
        self.0.iter().map(|done| done.json(prefix)).collect()
    }
}

impl Done {
    fn of(action: &Action<'_>) -> Self {
        let value = match action {
            Action::SetVar { value, .. } => Some(value.to_owned()),
            Action::UnsetVar { .. } => None,
        };
        Self { scope: action.scope(), name: action.name().into(), value }
    }

    /// The variable's name as HAProxy's rules write it.
    fn variable(&self, prefix: Option<&str>) -> String {
        let (scope, name) = (self.scope, self.name.escape_ascii());
        match prefix {
            Some(prefix) => format!("{scope}.{prefix}.{name}"),
            None => format!("{scope}.{name}"),
        }
    }

    fn words(&self, prefix: Option<&str>) -> String {
        let variable = self.variable(prefix);
        match &self.value {
            None => format!("unset-var {variable}"),
            Some(value) => {
                let text = value.to_string();
                match text.split_once(':') {
                    Some((kind, text)) => format!("set-var {variable} = {kind} {text}"),
                    None => format!("set-var {variable} = {text}"),
                }
            }
        }
    }

    fn json(&self, prefix: Option<&str>) -> Json {
        let (scope, name) = (self.scope.as_str(), self.name.escape_ascii().to_string());
        let variable = self.variable(prefix);
        match self.value.as_ref().map(OwnedValue::as_value) {
            None => json!({"op": "unset-var", "scope": scope, "name": name, "variable": variable}),
            Some(value) => json!({
                "op": "set-var",
                "scope": scope,
                "name": name,
                "variable": variable,
                "type": value.kind(),
                "value": json_of(value),
            }),
        }
    }
}

/// Addresses are text, strings that are not UTF-8 and binaries are hexadecimal.
fn json_of(value: Value<'_>) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(value) => value.into(),
        Value::Int32(value) => value.into(),
        Value::Uint32(value) => value.into(),
        Value::Int64(value) => value.into(),
        Value::Uint64(value) => value.into(),
        Value::Ipv4(value) => value.to_string().into(),
        Value::Ipv6(value) => value.to_string().into(),
        Value::Str(bytes) => match str::from_utf8(bytes) {
            Ok(text) => text.into(),
            Err(_) => json!({"hex": hexadecimal(bytes)}),
        },
        Value::Bin(bytes) => json!({"hex": hexadecimal(bytes)}),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl<'a> Stored<'a> {
    fn of(value: Value<'a>) -> Self {
        match value {
            Value::Int32(v) => Self::Integer(i64::from(v).cast_unsigned()),
            Value::Uint32(v) => Self::Integer(u64::from(v)),
            Value::Int64(v) => Self::Integer(v.cast_unsigned()),
            Value::Uint64(v) => Self::Integer(v),
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Answer {
    /// One action a line, without a prefix.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines(None).try_for_each(|line| writeln!(f, "{line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(actions: &[Action<'_>]) -> Answer {
        Answer(actions.iter().map(Done::of).collect())
    }

    const TXN: Scope = Scope::Transaction;

    #[test]
    fn in_haproxys_words() {
        let answer = answer(&[
            Action::set(TXN, "score", 5),
            Action::set(Scope::Session, "text", "a:b"),
            Action::set(TXN, "none", Value::Null),
            Action::unset(TXN, "gone"),
        ]);
        assert_eq!(
            answer.to_string(),
            "set-var txn.score = int32 5\nset-var sess.text = str a:b\nset-var txn.none = null\n\
             unset-var txn.gone\n"
        );
        assert_eq!(answer.lines(Some("p")).last().unwrap(), "unset-var txn.p.gone");
    }

    #[test]
    fn what_is_the_same_to_haproxy() {
        let same = |one: &[Action<'_>], other: &[Action<'_>]| {
            answer(one).effect() == answer(other).effect()
        };
        let set = |value: Value<'static>| Action::set(TXN, "a", value);
        assert!(same(&[set(Value::Int32(-1))], &[set(Value::Uint64(u64::MAX))]));
        assert!(same(&[set(Value::Null)], &[Action::unset(TXN, "a")]));
        assert!(same(&[set(Value::Int32(1)), set(Value::Int64(2))], &[set(Value::Uint32(2))]));
        assert!(!same(&[set(Value::Int32(1))], &[set(Value::Bool(true))]));
        assert!(!same(&[set(Value::Str(b"x"))], &[set(Value::Bin(b"x"))]));
        assert!(!same(&[], &[Action::unset(TXN, "a")]));
        assert!(!same(&[Action::set(TXN, "a", 1)], &[Action::set(Scope::Session, "a", 1)]));
    }

    #[test]
    fn as_json() {
        let actions = [Action::set(TXN, "b", &[1_u8, 0xff]), Action::unset(TXN, "u")];
        assert_eq!(
            answer(&actions).json(Some("p")),
            json!([
                {"op": "set-var", "scope": "txn", "name": "b", "variable": "txn.p.b",
                 "type": "bin", "value": {"hex": "01ff"}},
                {"op": "unset-var", "scope": "txn", "name": "u", "variable": "txn.p.u"},
            ])
        );
    }
}
