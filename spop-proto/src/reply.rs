//! The answer that an [`Exchange`](crate::Exchange) holds.

use crate::ack::{Bounds, SetError};
use crate::inflight::Ids;
use crate::vars::{Var, check_name};
use crate::wire::{Scope, Value, encode_set_var, encode_unset_var};

/// The answer that an [`Exchange`](crate::Exchange) holds, apart from what was asked: see
/// [`Exchange::split`](crate::Exchange::split).
#[derive(Debug)]
pub struct Reply<'x>(&'x mut Draft);

impl<'x> Reply<'x> {
    pub(crate) const fn new(draft: &'x mut Draft) -> Self {
        Self(draft)
    }

    /// Sets a variable. See [`Ack::set`](crate::Ack::set).
    ///
    /// # Errors
    /// When HAProxy would drop the name, or when the action does not fit the frame; the answer
    /// is then as it was before.
    pub fn set<'v>(
        &mut self,
        scope: Scope,
        name: &str,
        value: impl Into<Value<'v>>,
    ) -> Result<(), SetError> {
        let value = value.into();
        check_name(scope, name.as_bytes(), self.0.bounds.prefix)?;
        self.0.add(value.encoded_len(), |out| encode_set_var(scope, name.as_bytes(), &value, out))
    }

    /// Sets a variable whose name was checked before.
    ///
    /// # Errors
    /// When the name is too long with the configured prefix, or the action does not fit.
    pub fn set_var<'v>(
        &mut self,
        var: Var<'_>,
        value: impl Into<Value<'v>>,
    ) -> Result<(), SetError> {
        self.set(var.scope(), var.name(), value)
    }

    /// Removes a variable.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn unset(&mut self, scope: Scope, name: &str) -> Result<(), SetError> {
        check_name(scope, name.as_bytes(), self.0.bounds.prefix)?;
        self.0.add(0, |out| encode_unset_var(scope, name.as_bytes(), out))
    }

    /// Removes a variable whose name was checked before.
    ///
    /// # Errors
    /// As [`set_var`](Self::set_var).
    pub fn unset_var(&mut self, var: Var<'_>) -> Result<(), SetError> {
        self.unset(var.scope(), var.name())
    }

    /// Takes back all actions.
    pub fn clear(&mut self) {
        self.0.actions.clear();
    }
}

/// Actions for an ACK that is written elsewhere, within its bounds.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) actions: Vec<u8>,
    pub(crate) ids: Ids,
    pub(crate) bounds: Bounds,
    /// An action was refused because it did not fit.
    pub(crate) refused: bool,
}

impl Draft {
    pub(crate) const fn new(ids: Ids, bounds: Bounds) -> Self {
        Self { actions: Vec::new(), ids, bounds, refused: false }
    }

    /// Adds what `write` writes, which is no less than `at_least` bytes, if it fits.
    pub(crate) fn add(
        &mut self,
        at_least: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), SetError> {
        let limit = self.bounds.actions(self.ids);
        let before = self.actions.len();
        if at_least <= limit {
            write(&mut self.actions);
            if self.actions.len() <= limit {
                return Ok(());
            }
            self.actions.truncate(before);
        }
        self.refused = true;
        Err(SetError::TooBig { limit: self.bounds.ack_limit })
    }
}
