//! A handler that is replaced while connections are open.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    missing_docs,
    reason = "tests: they may panic, and need a first instant to count from"
)]

mod common;

use core::task::{Context, Waker};
use std::sync::Arc;

use common::{Rig, ack, hello, notify, set_txn};
use gate::Gate;
use spop_proto::driver::{Driver, Notice};
use spop_proto::handler::{Concurrent, Swap};
use spop_proto::{
    Ack, AgentConfig, AgentConnection, Dispatch, Event, Exchange, Handler, HandlerError, Notify,
    Peer, Scope, Service, answer_inline,
};

/// Answers with its number.
struct Numbered(i32);

impl Service for Numbered {
    fn notify(&self, _: Notify<'_>, ack: &mut Ack<'_>) -> Result<(), HandlerError> {
        Ok(ack.set(Scope::Transaction, "n", self.0)?)
    }
}

fn says(stream: u64, number: u8) -> Vec<u8> {
    ack(stream, &set_txn("n", &[2, number]))
}

#[test]
fn a_service_is_replaced_between_two_requests_of_a_connection() {
    let service = Swap::new(Numbered(1));
    let switch = service.clone();
    let mut rig = Rig::ready(AgentConfig::new());
    let mut ask = |stream| {
        let (now, bytes) = (rig.at(0), notify(stream));
        let Ok(Some(Event::Notify(notify, ack))) = rig.conn.receive(&mut &bytes[..], now) else {
            panic!("no NOTIFY")
        };
        answer_inline(notify, ack, |notify, ack| service.notify(notify, ack)).unwrap();
        rig.take()
    };
    assert_eq!(ask(1), says(1, 1));
    assert_eq!(switch.replace(Numbered(2)).0, 1);
    assert_eq!(ask(3), says(3, 2));
    assert_eq!(switch.current().0, 2);
}

mod gate {
    //! A place for futures to wait at.

    use core::future::poll_fn;
    use core::sync::atomic::{AtomicBool, Ordering};
    use core::task::{Poll, Waker};
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    pub(crate) struct Gate(Arc<(AtomicBool, Mutex<Option<Waker>>)>);

    impl Gate {
        pub(crate) fn open(&self) {
            self.0.0.store(true, Ordering::SeqCst);
            self.0.1.lock().unwrap().take().into_iter().for_each(Waker::wake);
        }

        pub(crate) async fn pass(&self) {
            poll_fn(|context| {
                *self.0.1.lock().unwrap() = Some(context.waker().clone());
                if self.0.0.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
    }
}

/// Waits, and answers with its number.
struct Slow(i32, Gate);

impl Handler for Slow {
    async fn notify(&self, mut exchange: Exchange) -> Result<Exchange, HandlerError> {
        self.1.pass().await;
        exchange.set(Scope::Transaction, "n", self.0)?;
        Ok(exchange)
    }
}

#[test]
fn what_was_asked_before_is_answered_by_the_handler_of_before() {
    let gate = Gate::default();
    let handler = Swap::new(Slow(1, gate.clone()));
    let switch = handler.clone();
    let dispatch = Concurrent::new(handler);
    let start = std::time::Instant::now();
    let conn = AgentConnection::new(AgentConfig::new(), Peer::Unknown, start);
    let mut driver = Driver::new(conn);
    let context = Context::from_waker(Waker::noop());
    let log = &mut |notice: Notice<'_>| {
        let expected = matches!(notice, Notice::Event(_) | Notice::Answered { .. });
        assert!(expected, "{notice:?}");
    };
    for bytes in [hello(), notify(1)] {
        driver.receive(&bytes, &context, start, |n, ack, own| dispatch.serve(n, ack, own), log);
        let written = driver.transmit().len();
        driver.transmitted(written);
    }
    let open = Gate::default();
    open.open();
    let before = switch.replace(Slow(2, open));
    assert_eq!(Arc::strong_count(&before), 2, "the future of before has one");
    driver.receive(&notify(3), &context, start, |n, ack, own| dispatch.serve(n, ack, own), log);
    gate.open();
    driver.poll_answers(&context, start, &mut driver.tally(), log);
    assert_eq!(driver.transmit(), [says(3, 2), says(1, 1)].concat());
    assert_eq!(Arc::strong_count(&before), 1, "dropped with its last answer");
}
