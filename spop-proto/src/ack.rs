//! The answer to a NOTIFY.

use std::sync::Arc;

use thiserror::Error;

use crate::exchange::Exchange;
use crate::inflight::{Ids, Key};
use crate::request::Notify;
use crate::tasks::Failure;
use crate::tx::{Cause, Tx};
use crate::vars::{NameError, Var, check_name};
use crate::wire::{Action, FrameHeader, Scope, Value, encode_set_var, encode_unset_var};

/// The answer to a NOTIFY: actions go straight into the connection's output.
///
/// Each NOTIFY gets exactly one ACK, whatever happens to this value:
///
/// - dropped, or [`commit`](Self::commit)ted: what it holds is sent;
/// - dropped while a panic unwinds: the fallback answer is sent
///   ([`AgentConfig::fallback`](crate::AgentConfig::fallback));
/// - [`fall_back`](Self::fall_back): the fallback answer is sent;
/// - [`defer`](Self::defer)red: the ticket answers later, or the deadline does;
/// - forgotten (`mem::forget`): the fallback answer is sent by the connection's next call, or at
///   the deadline if the answer had been deferred before.
///
/// A [`Service`](crate::Service) gets it by reference: `Ok` commits it, `Err` and a panic fall back.
#[derive(Debug)]
#[must_use = "dropped, an empty answer is sent"]
pub struct Ack<'a> {
    tx: &'a mut Tx,
    ids: Ids,
    /// The entry in the books if the answer was deferred before.
    key: Option<Key>,
    done: bool,
    /// An action was refused because it did not fit.
    refused: bool,
    /// A failure has had its fallback put in its place: what this holds is the answer all the same.
    stands: bool,
}

impl<'a> Ack<'a> {
    /// The time of the answer is that of the connection's last activity: whoever makes one has just
    /// set that.
    #[inline(always)]
    pub(crate) fn new(tx: &'a mut Tx, ids: Ids, key: Option<Key>) -> Self {
        if key.is_none() {
            tx.lend();
        }
        tx.begin_ack(ids);
        Self { tx, ids, key, done: false, refused: false, stands: false }
    }

    /// Sets a variable. HAProxy puts the scope and its `var-prefix` in front of the name.
    ///
    /// # Errors
    /// When HAProxy would drop the name, or when the action does not fit the frame; the answer
    /// is then as it was before.
    #[inline]
    pub fn set<'v>(
        &mut self,
        scope: Scope,
        name: &str,
        value: impl Into<Value<'v>>,
    ) -> Result<(), SetError> {
        check_name(scope, name.as_bytes(), self.tx.config.prefix_len())?;
        self.put_set(scope, name, value.into())
    }

    /// Sets a variable whose name was checked before.
    ///
    /// # Errors
    /// When the name is too long with the configured prefix, or the action does not fit.
    #[inline]
    pub fn set_var<'v>(
        &mut self,
        var: Var<'_>,
        value: impl Into<Value<'v>>,
    ) -> Result<(), SetError> {
        var.check_length(self.tx.config.prefix_len())?;
        self.put_set(var.scope(), var.name(), value.into())
    }

    /// Removes a variable.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn unset(&mut self, scope: Scope, name: &str) -> Result<(), SetError> {
        check_name(scope, name.as_bytes(), self.tx.config.prefix_len())?;
        let before = self.tx.buffer().len();
        encode_unset_var(scope, name.as_bytes(), self.tx.buffer());
        self.keep_if_it_fits(before)
    }

    /// Removes a variable whose name was checked before.
    ///
    /// # Errors
    /// As [`set_var`](Self::set_var).
    pub fn unset_var(&mut self, var: Var<'_>) -> Result<(), SetError> {
        self.unset(var.scope(), var.name())
    }

    /// Adds an action.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn action(&mut self, action: &Action<'_>) -> Result<(), SetError> {
        check_name(action.scope(), action.name(), self.tx.config.prefix_len())?;
        self.extend(action.encoded_len(), |out| action.encode(out))
    }

    /// Takes back all actions; in a route of a [`Router`](crate::Router) those for its message.
    pub fn clear(&mut self) {
        let start = self.actions_at().max(self.tx.spared());
        self.tx.buffer().truncate(start);
    }

    /// How many bytes of actions there are, those for other messages of the NOTIFY included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tx.written().len() - self.actions_at()
    }

    /// Whether there are no actions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sends what was set.
    #[inline]
    pub fn commit(mut self) {
        self.send();
    }

    /// Sends the fallback answer instead of what was set.
    pub fn fall_back(mut self, cause: Cause) {
        self.send_fallback(cause);
    }

    /// Answers later: nothing is sent now, and what was set is forgotten. The ticket is good for
    /// one answer on this connection; when the deadline passes first, the fallback is sent.
    #[must_use = "without the ticket only the deadline answers"]
    pub fn defer(mut self) -> Ticket {
        self.done = true;
        self.tx.roll_back();
        let key = match self.key {
            Some(key) => key,
            None => self.tx.defer(self.ids, self.tx.active()),
        };
        Ticket { connection: self.tx.serial, key }
    }

    /// Takes the NOTIFY away from its connection: the exchange is answered elsewhere, on another
    /// thread for instance (see [`Pad`](crate::driver::Pad)), and the ticket gives it its
    /// [`Ack`] again. `spare` is an exchange that is done with, whose memory is used again.
    #[must_use = "without the ticket only the deadline answers"]
    pub fn detach(self, notify: Notify<'_>, spare: Option<Exchange>) -> (Ticket, Exchange) {
        let exchange = Exchange::new(&notify, self.bounds(), spare);
        (self.defer(), exchange)
    }

    /// Sends the answer that an exchange holds.
    ///
    /// # Errors
    /// When the exchange is that of another NOTIFY, or does not fit; the fallback is sent then. And
    /// when one message of several failed, whose fallback the exchange holds; that is sent then.
    pub fn answer_with(mut self, exchange: &mut Exchange) -> Result<(), Failure> {
        let failure = if exchange.is_of(self.ids, self.tx.serial) {
            self.refused |= exchange.refused();
            match self.append(exchange.actions()) {
                Ok(()) => match exchange.take_failure() {
                    None => {
                        self.commit();
                        return Ok(());
                    }
                    Some(failure) => {
                        self.stands = true;
                        failure
                    }
                },
                Err(error) => Failure::Error(error.into()),
            }
        } else {
            Failure::WrongExchange
        };
        self.fail(&failure);
        Err(failure)
    }

    /// The argument that names requests in a log.
    pub(crate) fn request_id_argument(&self) -> Option<&Arc<str>> {
        self.tx.config.request_id_argument()
    }

    /// Sends the fallback answer for what a handler failed with.
    pub fn fail(mut self, failure: &Failure) {
        if self.stands && !self.tx.is_choked() {
            self.done = true;
            self.tx.commit(self.tx.active());
            self.tx.close_entry(self.key);
            self.tx.count_fallback(failure.cause());
            if self.refused || failure.cause() == Cause::TooBig {
                self.tx.stats.others().too_big += 1;
            }
        } else {
            self.send_fallback(failure.cause());
        }
    }

    /// For a handler for each message, which may take back no other's actions.
    pub(crate) const fn one_by_one(&mut self) -> OneByOne<'_, 'a> {
        OneByOne(self)
    }

    /// Adds actions that are encoded already.
    pub(crate) fn append(&mut self, actions: &[u8]) -> Result<(), SetError> {
        self.extend(actions.len(), |out| out.extend_from_slice(actions))
    }

    /// What this holds is to be sent although something failed.
    pub(crate) const fn stand(&mut self) {
        self.stands = true;
    }

    pub(crate) const fn stands(&self) -> bool {
        self.stands
    }

    /// What was added, and whether something was refused.
    pub(crate) fn held(&self) -> (&[u8], bool) {
        (self.tx.written().get(self.actions_at()..).unwrap_or_default(), self.refused)
    }

    /// Moves the actions to `out` and forgets the NOTIFY: this was never its connection.
    pub(crate) fn move_actions(mut self, out: &mut Vec<u8>, refused: &mut bool) {
        self.done = true;
        *refused = self.refused;
        let start = self.actions_at();
        out.clear();
        out.extend_from_slice(self.tx.buffer().get(start..).unwrap_or_default());
        self.tx.roll_back();
        self.tx.close_entry(None);
    }

    /// What an exchange needs to check names and sizes away from the connection.
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds {
            ack_limit: self.tx.ack_limit(),
            prefix: self.tx.config.prefix_len(),
            connection: self.tx.serial,
        }
    }

    /// Whose answer it is.
    pub(crate) const fn ids(&self) -> Ids {
        self.ids
    }

    /// The number of the connection that asked.
    pub(crate) const fn connection(&self) -> u64 {
        self.tx.serial
    }

    /// Where the actions begin in the output.
    const fn actions_at(&self) -> usize {
        self.tx.actions_at(self.ids)
    }

    #[inline(always)]
    fn put_set(&mut self, scope: Scope, name: &str, value: Value<'_>) -> Result<(), SetError> {
        // Large values are refused before they are copied.
        if let Some(data) = value.as_bytes()
            && data.len() > self.tx.ack_limit()
        {
            return Err(self.too_big());
        }
        let before = self.tx.buffer().len();
        encode_set_var(scope, name.as_bytes(), &value, self.tx.buffer());
        self.keep_if_it_fits(before)
    }

    #[inline]
    fn extend(&mut self, len: usize, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), SetError> {
        if len > self.tx.ack_limit() {
            return Err(self.too_big());
        }
        let before = self.tx.buffer().len();
        write(self.tx.buffer());
        self.keep_if_it_fits(before)
    }

    #[inline]
    fn keep_if_it_fits(&mut self, before: usize) -> Result<(), SetError> {
        if self.tx.frame_length() > self.tx.ack_limit() {
            self.tx.buffer().truncate(before);
            return Err(self.too_big());
        }
        Ok(())
    }

    #[cold]
    fn too_big(&mut self) -> SetError {
        self.refused = true;
        SetError::TooBig { limit: self.tx.ack_limit() }
    }

    #[inline]
    fn send(&mut self) {
        if self.tx.is_choked() {
            return self.send_fallback(Cause::Shed);
        }
        self.done = true;
        self.tx.commit(self.tx.active());
        self.tx.close_entry(self.key);
        self.tx.stats.usual.answered += 1;
        if self.refused {
            self.tx.stats.others().too_big += 1;
        }
    }

    fn send_fallback(&mut self, cause: Cause) {
        self.done = true;
        self.tx.roll_back();
        self.tx.close_entry(self.key);
        self.tx.fall_back(self.ids, cause, self.tx.active());
        if self.refused || cause == Cause::TooBig {
            self.tx.stats.others().too_big += 1;
        }
    }
}

impl Drop for Ack<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.done {
            return;
        }
        if std::thread::panicking() {
            self.send_fallback(Cause::Panic);
        } else {
            self.send();
        }
    }
}

/// An [`Ack`] that goes from handler to handler: what they [`clear`](Ack::clear) is what they set
/// themselves, until this is dropped. Kept where only who needs it pays for it.
pub(crate) struct OneByOne<'r, 'a>(&'r mut Ack<'a>);

impl<'a> OneByOne<'_, 'a> {
    /// For the next handler.
    #[inline]
    pub(crate) fn next(&mut self) -> &mut Ack<'a> {
        self.0.tx.spare_written();
        self.0
    }
}

impl Drop for OneByOne<'_, '_> {
    #[inline]
    fn drop(&mut self) {
        self.0.tx.spare_nothing();
    }
}

/// What holds for an answer away from its connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Largest length of an ACK's frame.
    pub(crate) ack_limit: usize,
    /// Length of the variables' prefix, where it is known.
    pub(crate) prefix: Option<usize>,
    /// The connection it is of.
    pub(crate) connection: u64,
}

impl Bounds {
    /// Room for actions behind the header of that ACK.
    pub(crate) const fn actions(&self, ids: Ids) -> usize {
        self.ack_limit.saturating_sub(FrameHeader::ack(ids.stream, ids.frame).encoded_len())
    }
}

/// A claim to answer a NOTIFY later, on the connection it came from. It cannot be copied; used up
/// by [`AgentConnection::answer`](crate::AgentConnection::answer).
#[derive(Debug, PartialEq, Eq)]
#[must_use = "without it only the deadline answers the NOTIFY"]
pub struct Ticket {
    pub(crate) connection: u64,
    pub(crate) key: Key,
}

/// A ticket that answers nothing: the deadline or the end of the connection came first, HAProxy
/// asked anew with the same ids, or the ticket is of another connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
#[error("the NOTIFY of this ticket is no longer waiting for an answer on this connection")]
pub struct StaleTicket;

/// Why an answer cannot be sent on another connection.
#[derive(Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AnswerOnError {
    /// Nothing waits for it any more. See [`StaleTicket`].
    #[error("{StaleTicket}")]
    Stale,
    /// HAProxy would not take it there.
    #[error(
        "both connections must be of one engine and have agreed on async: answer on the NOTIFY's own"
    )]
    NotShared {
        /// The ticket, as good as before.
        ticket: Ticket,
    },
}

/// An action that was not added to the answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SetError {
    /// HAProxy would drop the name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The answer must fit one frame: no HAProxy takes a fragmented ACK.
    #[error("the action does not fit: an ACK is one frame of at most {limit} bytes here")]
    TooBig {
        /// The largest length of an ACK on this connection.
        limit: usize,
    },
}
