//! What payloads hold.

use spop_proto::wire::{DecodeErrorKind, FrameType, Version};
use spop_proto::{OwnedValue, Scope, Value};

use super::cursor::{Cursor, Wrong};
use super::seen::{Action, Item, Message};
use super::text::escape;

/// What was read, and what is wrong: the last fault may have ended it.
#[derive(Debug)]
pub(super) struct Read<T> {
    pub(super) items: Vec<T>,
    pub(super) wrong: Vec<Wrong>,
}

impl<T> Read<T> {
    fn of(
        payload: &[u8],
        mut one: impl FnMut(&mut Cursor<'_>, &mut Vec<T>) -> Result<(), Wrong>,
    ) -> Self {
        let mut cursor = Cursor::new(payload);
        let mut items = Vec::new();
        let mut end = None;
        while !cursor.is_empty() && end.is_none() {
            end = one(&mut cursor, &mut items).err();
        }
        let mut wrong = std::mem::take(&mut cursor.passed);
        wrong.extend(end);
        Self { items, wrong }
    }
}

/// Messages of a NOTIFY.
pub(super) fn messages(payload: &[u8]) -> Read<Message> {
    Read::of(payload, |cursor, messages| {
        let place = format!("message {}", messages.len().saturating_add(1));
        let name = cursor.bytes("its name").map_err(|wrong| wrong.within(&place))?.to_vec();
        let place = format!("{place} `{}`", called(&name));
        let count = cursor.byte("its number of arguments").map_err(|wrong| wrong.within(&place))?;
        // Kept as far as it goes.
        messages.push(Message { name, args: Vec::new() });
        for number in 1..=count {
            let place = format!("{place}, argument {number} of {count}");
            let item = argument(cursor, &place)?;
            if let Some(message) = messages.last_mut() {
                message.args.push(item);
            }
        }
        Ok(())
    })
}

fn argument(cursor: &mut Cursor<'_>, place: &str) -> Result<Item, Wrong> {
    let name = cursor.bytes("its name").map_err(|wrong| wrong.within(place))?.to_vec();
    let place = format!("{place} `{}`", called(&name));
    let value = value(cursor, &place, false)?;
    Ok(Item { name, value })
}

fn value(cursor: &mut Cursor<'_>, place: &str, lenient: bool) -> Result<OwnedValue, Wrong> {
    let known = cursor.passed.len();
    let value = cursor.value(lenient).map(OwnedValue::from).map_err(|wrong| wrong.within(place));
    let new = cursor.passed.split_off(known);
    cursor.passed.extend(new.into_iter().map(|wrong| wrong.within(place)));
    value
}

/// Actions of an ACK.
pub(super) fn actions(payload: &[u8]) -> Read<Action> {
    Read::of(payload, |cursor, actions| {
        let place = format!("action {}", actions.len().saturating_add(1));
        // HAProxy stops there without a word.
        let lost = |wrong: Wrong| {
            let what = format!("{} (HAProxy drops this and all that follows)", wrong.what);
            Wrong { what, ..wrong }.within(&place)
        };
        actions.push(action(cursor).map_err(lost)?);
        Ok(())
    })
}

fn action(cursor: &mut Cursor<'_>) -> Result<Action, Wrong> {
    let kind = cursor.byte("its type")?;
    let (word, expected) = match kind {
        1 => ("set-var", 3),
        2 => ("unset-var", 2),
        _ => {
            let what = format!("type {kind} is neither set-var (1) nor unset-var (2)");
            return Err(cursor.refused(DecodeErrorKind::UnknownAction(kind), what));
        }
    };
    let found = cursor.byte("its number of arguments").map_err(|wrong| wrong.within(word))?;
    if found != expected {
        let what = format!("{word} with {found} arguments, it has {expected}");
        return Err(cursor.refused(DecodeErrorKind::ActionArgs { expected, found }, what));
    }
    let scope = cursor.byte("its scope").map_err(|wrong| wrong.within(word))?;
    let Some(&scope) = Scope::ALL.get(usize::from(scope)) else {
        let what = format!("{word} in scope {scope}, the last is 4 (res)");
        return Err(cursor.refused(DecodeErrorKind::UnknownScope(scope), what));
    };
    let name = cursor.bytes("its variable's name").map_err(|wrong| wrong.within(word))?.to_vec();
    if kind == 2 {
        return Ok(Action::Unset(scope, name));
    }
    let place = format!("set-var {scope} `{}`", called(&name));
    let value = value(cursor, &place, true)?;
    Ok(Action::Set(scope, Item { name, value }))
}

/// Keys and values of a HELLO or DISCONNECT.
pub(super) fn items(payload: &[u8], kind: FrameType) -> Read<Item> {
    let mut read = Read::of(payload, |cursor, items| {
        let place = format!("item {}", items.len().saturating_add(1));
        let key = cursor.bytes("its key").map_err(|wrong| wrong.within(&place))?.to_vec();
        if key.is_empty() {
            let what = "the key is empty".to_owned();
            return Err(cursor.refused(DecodeErrorKind::EmptyKey, what).within(&place));
        }
        let place = format!("{place} `{}`", called(&key));
        let at = cursor.at();
        let value = value(cursor, &place, true)?;
        if let Some(what) = wrong_value(kind, &key, &value.as_value()) {
            let wrong = Wrong { what, mark: at..cursor.at(), kind: None };
            cursor.passed.push(wrong.within(&place));
        }
        items.push(Item { name: key, value });
        Ok(())
    });
    if read.wrong.is_empty() {
        let end = payload.len();
        for key in required(kind) {
            if !read.items.iter().any(|item| item.name == key.as_bytes()) {
                let what = format!("the key `{key}` is missing");
                read.wrong.push(Wrong { what, mark: end..end, kind: None });
            }
        }
    }
    read
}

const fn required(kind: FrameType) -> &'static [&'static str] {
    match kind {
        FrameType::HAPROXY_HELLO => &["supported-versions", "max-frame-size", "capabilities"],
        FrameType::AGENT_HELLO => &["version", "max-frame-size", "capabilities"],
        // HAProxy asks for nothing in a DISCONNECT.
        _ => &[],
    }
}

/// What the value of a known key may not be.
fn wrong_value(kind: FrameType, key: &[u8], value: &Value<'_>) -> Option<String> {
    let hello = matches!(kind, FrameType::HAPROXY_HELLO | FrameType::AGENT_HELLO);
    let text = |found: &Value<'_>| (found.kind() != "str").then(|| wants("a str", found));
    match key {
        b"max-frame-size" if hello => match value.as_int() {
            None => Some(wants("an integer", value)),
            Some(256..=0xffff_ffff) => None,
            Some(size) => Some(format!("{size} is no size: the least is 256")),
        },
        b"status-code" if !hello => value.as_int().is_none().then(|| wants("an integer", value)),
        b"healthcheck" | b"describe" if kind == FrameType::HAPROXY_HELLO => {
            (value.kind() != "bool").then(|| wants("a bool", value))
        }
        b"engine-id" if kind == FrameType::HAPROXY_HELLO => text(value),
        b"description" if kind == FrameType::AGENT_HELLO => text(value),
        b"supported-versions" if kind == FrameType::HAPROXY_HELLO => match value {
            Value::Str(list) if Version::parse_list(list).any(|v| v == Version::V2_0) => None,
            Value::Str(_) => Some("2.0 is not among the versions".to_owned()),
            other => Some(wants("a str", other)),
        },
        b"version" if kind == FrameType::AGENT_HELLO => match value {
            Value::Str(version) if Version::parse(version) == Some(Version::V2_0) => None,
            Value::Str(_) => Some("the version is not 2.0".to_owned()),
            other => Some(wants("a str", other)),
        },
        b"capabilities" if hello => text(value),
        b"message" if !hello => text(value),
        _ => None,
    }
}

/// A name for a message about it: lengths that are wrong make long ones.
fn called(name: &[u8]) -> String {
    match name.get(..32) {
        Some(start) if name.len() > 32 => format!("{}...", escape(start)),
        _ => escape(name),
    }
}

fn wants(wanted: &str, found: &Value<'_>) -> String {
    format!("the value is {wanted} by the protocol, and {} here", found.kind())
}
