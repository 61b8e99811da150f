//! Futures of handlers, parked beside their connection.

use core::any::Any;
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Wake;
use std::time::Instant;

use crate::ack::{Ack, SetError, Ticket};
use crate::agent::AgentConnection;
use crate::handler::{Exchange, HandlerError, Turn};
use crate::inflight::Ids;
use crate::request::Notify;
use crate::request_id::{Failed, RequestId};
use crate::router::RoutePanicked;
use crate::stats::Tally;
use crate::tx::Cause;

/// Exchanges kept for reuse, and the memory that all of them may hold.
const SPARE_EXCHANGES: usize = 32;
const SPARE_BYTES: usize = 512 * 1024;

/// Why a handler gave no answer, for the log.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// It returned this error.
    Error(HandlerError),
    /// It panicked; the text of the panic where there is one.
    Panic(Box<str>),
    /// It returned the exchange of another NOTIFY.
    WrongExchange,
}

impl Failure {
    /// What the fallback answer is counted under.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::Error(_) if self.is_too_big() => Cause::TooBig,
            Self::Error(_) => Cause::Error,
            Self::Panic(_) => Cause::Panic,
            Self::WrongExchange => Cause::Unanswered,
        }
    }

    /// What a handler failed with. A router says by its own error that one of its handlers panicked.
    pub(crate) fn of(error: HandlerError) -> Self {
        match error.downcast::<RoutePanicked>() {
            Ok(panic) => Self::Panic(panic.0),
            Err(error) => Self::Error(error),
        }
    }

    /// Whether it is that an action did not fit.
    fn is_too_big(&self) -> bool {
        let Self::Error(error) = self else { return false };
        matches!(error.get_ref().downcast_ref(), Some(SetError::TooBig { .. }))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => error.fmt(f),
            Self::Panic(text) => write!(f, "panicked: {text}"),
            Self::WrongExchange => f.write_str("returned the exchange of another request"),
        }
    }
}

/// Runs a synchronous service on a NOTIFY and settles the answer: `Ok` commits it, an error and a
/// panic fall back and are returned for the log.
///
/// # Errors
/// What the service failed with.
#[inline]
pub fn answer_inline(
    notify: Notify<'_>,
    mut ack: Ack<'_>,
    service: impl FnOnce(Notify<'_>, &mut Ack<'_>) -> Result<(), HandlerError>,
) -> Result<(), Failure> {
    let result = catch_unwind(AssertUnwindSafe(|| service(notify, &mut ack)));
    let failure = match result {
        Ok(Ok(())) => {
            ack.commit();
            return Ok(());
        }
        Ok(Err(error)) => Failure::of(error),
        Err(panic) => Failure::Panic(panic_text(panic)),
    };
    ack.fail(&failure);
    Err(failure)
}

/// What a handler's future came to: whose answer it was, and how many bytes of actions that has.
type Outcome = Result<(Ids, usize), Failure>;

/// The futures of one connection's handlers.
///
/// A future goes into a slot that is used again, and is polled at once: one that is ready never
/// waits. The others are parked, and only those that were woken are polled. Dropping this cancels
/// them all.
pub(crate) struct Tasks<F> {
    /// Made for the first future: a service that answers inline never needs it.
    parking: Option<Box<Parking<F>>>,
}

struct Parking<F> {
    slots: Vec<Slot<F>>,
    free: Vec<usize>,
    shared: Arc<Shared>,
    spare: Vec<Exchange>,
    /// What they hold.
    spare_bytes: usize,
}

struct Slot<F> {
    /// Of the request it answers, where requests have ids. Its memory is used again.
    id: Vec<u8>,
    future: Pin<Box<Option<F>>>,
    /// What it answers; `None` while the slot is free.
    owed: Option<Ticket>,
    flag: Arc<Flag>,
    waker: Waker,
}

/// What all slots of a connection wake.
struct Shared {
    woken: AtomicBool,
    driver: Mutex<Option<Waker>>,
}

impl Shared {
    /// Whom to wake from now on.
    fn register(&self, context: &Context<'_>) {
        let mut driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *driver {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
    }
}

struct Flag {
    woken: AtomicBool,
    shared: Arc<Shared>,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        if !self.shared.woken.swap(true, Ordering::AcqRel) {
            let driver = self.shared.driver.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(driver) = driver {
                driver.wake();
            }
        }
    }
}

impl<F> Default for Tasks<F> {
    fn default() -> Self {
        Self { parking: None }
    }
}

impl<F> Default for Parking<F> {
    fn default() -> Self {
        let shared = Shared { woken: AtomicBool::new(false), driver: Mutex::new(None) };
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            shared: Arc::new(shared),
            spare: Vec::new(),
            spare_bytes: 0,
        }
    }
}

impl<F> fmt::Debug for Tasks<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("parked", &self.parked()).finish()
    }
}

impl<F> Tasks<F> {
    /// How many futures are parked.
    #[must_use]
    pub(crate) fn parked(&self) -> usize {
        self.parking.as_deref().map_or(0, Parking::parked)
    }

    /// Gives back memory; to be called when the connection is idle.
    pub(crate) fn trim(&mut self) {
        if self.parked() == 0 {
            self.parking = None;
        }
    }

    /// Drops the futures whose answer nobody waits for any more: to be called after deadlines
    /// were handled.
    pub(crate) fn cancel_stale(
        &mut self,
        conn: &AgentConnection,
        mut each: impl FnMut(RequestId<'_>),
    ) {
        let Some(parking) = self.parking.as_deref_mut() else { return };
        for (at, slot) in parking.slots.iter_mut().enumerate() {
            if slot.owed.as_ref().is_some_and(|ticket| !conn.owes(ticket)) {
                each(RequestId::copied(&slot.id));
                slot.owed = None;
                slot.clear();
                parking.free.push(at);
            }
        }
    }
}

impl<F: Future<Output = Result<Exchange, HandlerError>>> Tasks<F> {
    /// Serves a NOTIFY: `serve` answers it at once, or gives a future, which is polled and, if it
    /// waits, parked. `context` is woken when it can go on.
    ///
    /// # Errors
    /// What the handler failed with; the fallback answer is on its way.
    #[inline]
    pub(crate) fn start(
        &mut self,
        notify: Notify<'_>,
        mut ack: Ack<'_>,
        context: &Context<'_>,
        serve: impl FnOnce(Notify<'_>, &mut Ack<'_>, &mut dyn FnMut() -> Exchange) -> Turn<F>,
    ) -> Result<(), Failed<Failure>> {
        let bounds = ack.bounds();
        let parking = &mut self.parking;
        let mut own = || {
            let spare = parking.as_deref_mut().and_then(Parking::spare);
            Exchange::new(&notify, bounds, spare)
        };
        let turn = catch_unwind(AssertUnwindSafe(|| serve(notify, &mut ack, &mut own)));
        let failure = match turn {
            Ok(Turn::Done(Ok(()))) => {
                ack.commit();
                return Ok(());
            }
            Ok(Turn::Later(future)) => {
                // The answer is the exchange's, whether or not the future waits.
                ack.clear();
                let parking = self.parking.get_or_insert_default();
                return parking.first_poll(notify, ack, context, future);
            }
            Ok(Turn::Done(Err(error))) => Failure::of(error),
            Err(panic) => Failure::Panic(panic_text(panic)),
        };
        let argument = ack.request_id_argument().cloned();
        ack.fail(&failure);
        Err(Failed { failure, argument })
    }

    /// Polls the futures that were woken and hands their answers to the connection. `context` is
    /// woken when there is more to do. What they came to goes to `log`.
    #[inline]
    pub(crate) fn poll(
        &mut self,
        conn: &mut AgentConnection,
        context: &Context<'_>,
        now: Instant,
        tally: &mut Tally,
        log: impl FnMut(Outcome, RequestId<'_>),
    ) {
        if let Some(parking) = self.parking.as_deref_mut()
            && parking.parked() > 0
        {
            parking.poll(conn, context, now, tally, log);
        }
    }
}

/// One by one, each guarded: a second panic while the first unwinds would end the process.
impl<F> Drop for Parking<F> {
    fn drop(&mut self) {
        self.slots.iter_mut().for_each(Slot::clear);
    }
}

impl<F> Parking<F> {
    const fn parked(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// An exchange that is used again.
    fn spare(&mut self) -> Option<Exchange> {
        let spare = self.spare.pop()?;
        self.spare_bytes -= spare.capacity();
        Some(spare)
    }
}

impl<F: Future<Output = Result<Exchange, HandlerError>>> Parking<F> {
    fn first_poll(
        &mut self,
        notify: Notify<'_>,
        ack: Ack<'_>,
        context: &Context<'_>,
        future: F,
    ) -> Result<(), Failed<Failure>> {
        let at = self.place(future);
        let Some(slot) = self.slots.get_mut(at) else { return Ok(()) };
        slot.flag.woken.store(false, Ordering::Release);
        match slot.poll() {
            Poll::Pending => {
                match ack.request_id_argument() {
                    Some(argument) => RequestId::of(notify, Some(argument)).copy_to(&mut slot.id),
                    None => slot.id.clear(),
                }
                slot.owed = Some(ack.defer());
                self.shared.register(context);
                // It may have been woken while there was nobody to wake in turn.
                if self.shared.woken.load(Ordering::Acquire) {
                    context.waker().wake_by_ref();
                }
                Ok(())
            }
            Poll::Ready(result) => {
                self.free.push(at);
                let argument = ack.request_id_argument().cloned();
                self.settle(result, ack).map_err(|failure| Failed { failure, argument })?;
                Ok(())
            }
        }
    }

    /// Puts a future into a free slot, or a new one.
    fn place(&mut self, future: F) -> usize {
        if let Some(at) = self.free.pop()
            && let Some(slot) = self.slots.get_mut(at)
        {
            slot.future.set(Some(future));
            return at;
        }
        let flag = Flag { woken: AtomicBool::new(false), shared: Arc::clone(&self.shared) };
        let flag = Arc::new(flag);
        let waker = Waker::from(Arc::clone(&flag));
        let future = Box::pin(Some(future));
        self.slots.push(Slot { id: Vec::new(), future, owed: None, flag, waker });
        self.slots.len() - 1
    }

    fn poll(
        &mut self,
        conn: &mut AgentConnection,
        context: &Context<'_>,
        now: Instant,
        tally: &mut Tally,
        mut log: impl FnMut(Outcome, RequestId<'_>),
    ) {
        self.shared.register(context);
        if !self.shared.woken.swap(false, Ordering::AcqRel) {
            return;
        }
        for at in 0..self.slots.len() {
            if let Some(outcome) = self.poll_slot(at, conn, now, tally) {
                let id = self.slots.get(at).map_or(&[][..], |slot| &slot.id);
                log(outcome, RequestId::copied(id));
            }
        }
    }

    fn poll_slot(
        &mut self,
        at: usize,
        conn: &mut AgentConnection,
        now: Instant,
        tally: &mut Tally,
    ) -> Option<Outcome> {
        let slot = self.slots.get_mut(at)?;
        if slot.owed.is_none() || !slot.flag.woken.swap(false, Ordering::AcqRel) {
            return None;
        }
        let Poll::Ready(result) = slot.poll() else { return None };
        let ticket = slot.owed.take()?;
        self.free.push(at);
        let owed_for = conn.owed_for(&ticket, now);
        match conn.answer(ticket, now) {
            Ok(ack) => {
                tally.answered(owed_for.unwrap_or_default());
                let ids = ack.ids();
                Some(self.settle(result, ack).map(|bytes| (ids, bytes)))
            }
            // Too late: the deadline has answered, or HAProxy has asked anew.
            Err(_) => {
                if let Ok(Ok(exchange)) = result {
                    self.keep(exchange);
                }
                None
            }
        }
    }

    /// Writes a finished future's answer; says how many bytes of actions it has.
    fn settle(
        &mut self,
        result: Result<Result<Exchange, HandlerError>, Failure>,
        ack: Ack<'_>,
    ) -> Result<usize, Failure> {
        let failure = match result {
            Ok(Ok(mut exchange)) => {
                let bytes = exchange.actions().len();
                let sent = ack.answer_with(&mut exchange);
                self.keep(exchange);
                return sent.map(|()| bytes);
            }
            Ok(Err(error)) => Failure::of(error),
            Err(failure) => failure,
        };
        ack.fail(&failure);
        Err(failure)
    }

    /// Keeps an exchange's memory for the next NOTIFY.
    fn keep(&mut self, exchange: Exchange) {
        let held = self.spare_bytes + exchange.capacity();
        if self.spare.len() < SPARE_EXCHANGES && held <= SPARE_BYTES {
            self.spare_bytes = held;
            self.spare.push(exchange);
        }
    }
}

impl<F: Future<Output = Result<Exchange, HandlerError>>> Slot<F> {
    /// Polls the future; once it is ready, or has panicked, it is gone.
    fn poll(&mut self) -> Poll<Result<F::Output, Failure>> {
        let Some(future) = self.future.as_mut().as_pin_mut() else {
            // A slot without a future owes nothing and is not polled.
            return Poll::Pending;
        };
        let mut context = Context::from_waker(&self.waker);
        let polled = catch_unwind(AssertUnwindSafe(|| future.poll(&mut context)));
        let result = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(result)) => Ok(result),
            Err(panic) => Err(Failure::Panic(panic_text(panic))),
        };
        self.clear();
        Poll::Ready(result)
    }
}

impl<F> Slot<F> {
    /// Drops the future. A panic in its destructor is its own affair, not the connection's.
    fn clear(&mut self) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.future.set(None))) {
            drop_quietly(panic);
        }
    }
}

/// The text of a panic, which is then done with.
pub(crate) fn panic_text(panic: Box<dyn Any + Send>) -> Box<str> {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let text = Box::from(text.unwrap_or("(no text)"));
    drop_quietly(panic);
    text
}

/// What a panic carries may itself panic when dropped; what that carries is leaked.
fn drop_quietly(panic: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        core::mem::forget(again);
    }
}
