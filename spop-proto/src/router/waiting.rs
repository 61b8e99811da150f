//! A route that waits, and the memory of its futures.

use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::{Context, Poll};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use super::RoutePanicked;
use crate::handler::{Exchange, HandlerError};
use crate::tasks::panic_text;
use crate::wire::{Message, encode_varint};

/// Places for futures kept for reuse, for each route.
const SPARE: usize = 64;

type Answer = Result<Exchange, HandlerError>;

pub(super) struct Waiting {
    make: Box<dyn Fn() -> Box<dyn Place> + Send + Sync>,
    spare: Mutex<Vec<Box<dyn Place>>>,
}

/// Where a future of one handler lives while it runs; used again for the next.
trait Place: Send {
    fn begin(&mut self, exchange: Exchange);
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Answer>;
    fn clear(&mut self);
}

struct PlaceOf<F, Fut> {
    handler: Arc<F>,
    future: Pin<Box<Option<Fut>>>,
}

impl<F, Fut> Place for PlaceOf<F, Fut>
where
    F: Fn(Exchange) -> Fut + Send + Sync,
    Fut: Future<Output = Answer> + Send,
{
    fn begin(&mut self, exchange: Exchange) {
        let future = (self.handler)(exchange);
        self.future.set(Some(future));
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Answer> {
        match self.future.as_mut().as_pin_mut() {
            Some(future) => future.poll(context),
            None => Poll::Pending,
        }
    }

    fn clear(&mut self) {
        self.future.set(None);
    }
}

impl Waiting {
    pub(super) fn new<F, Fut>(handler: F) -> Self
    where
        F: Fn(Exchange) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Answer> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let make = Box::new(move || -> Box<dyn Place> {
            Box::new(PlaceOf { handler: Arc::clone(&handler), future: Box::pin(None) })
        });
        Self { make, spare: Mutex::new(Vec::new()) }
    }

    pub(super) async fn run(&self, exchange: Exchange) -> Answer {
        let mut lease = self.lease();
        lease.place.begin(exchange);
        poll_fn(|context| lease.place.poll(context)).await
    }

    /// The same; a panic is an error.
    pub(super) async fn run_guarded(&self, message: &str, exchange: Exchange) -> Answer {
        let mut lease = self.lease();
        let mut exchange = Some(exchange);
        poll_fn(|context| {
            let step = AssertUnwindSafe(|| {
                if let Some(exchange) = exchange.take() {
                    lease.place.begin(exchange);
                }
                lease.place.poll(context)
            });
            catch_unwind(step).unwrap_or_else(|panic| {
                let panic = RoutePanicked::new(message.as_bytes(), &panic_text(panic));
                Poll::Ready(Err(panic.into()))
            })
        })
        .await
    }

    fn lease(&self) -> Lease<'_> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Lease { waiting: self, place: spare.unwrap_or_else(|| (self.make)()) }
    }
}

/// A place in use.
struct Lease<'w> {
    waiting: &'w Waiting,
    place: Box<dyn Place>,
}

/// Of a future that was cut off too.
impl Drop for Lease<'_> {
    fn drop(&mut self) {
        // A future that panicked may do so again when dropped: its place is emptied, then kept.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.place.clear())) {
            let _ = panic_text(panic);
        }
        let place = core::mem::replace(&mut self.place, Box::new(Gone));
        let mut spare = self.waiting.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE {
            spare.push(place);
        }
    }
}

/// No place: what is left of a lease that has ended. It has no size, so its box is no allocation.
struct Gone;

impl Place for Gone {
    fn begin(&mut self, _: Exchange) {}

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<Answer> {
        Poll::Pending
    }

    fn clear(&mut self) {}
}

/// A message as the only one of a NOTIFY.
pub(super) fn alone(message: &Message<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let name = |name: &[u8], out: &mut Vec<u8>| {
        encode_varint(name.len() as u64, out);
        out.extend_from_slice(name);
    };
    name(message.name(), &mut out);
    // Their number was one byte on the wire.
    out.push(u8::try_from(message.args().len()).unwrap_or(u8::MAX));
    for arg in message.args() {
        name(arg.name, &mut out);
        arg.value.encode(&mut out);
    }
    out
}
