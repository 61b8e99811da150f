//! An exchange in two halves: what was asked, and what is answered.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test: a panic is its way to fail"
)]
#![allow(clippy::disallowed_methods, reason = "the same first lines in every test of the crate")]

use std::future::poll_fn;
use std::mem;
use std::task::Poll;

use spop_proto::handler::Mixed;
use spop_proto::testing::{self, Outcome, Question};
use spop_proto::{Exchange, HandlerError, Reply, Router, Scope, SetError, Var};

const TXN: Scope = Scope::Transaction;

fn question() -> Question {
    testing::message("check").arg("path", "/login").max_frame_size(256)
}

/// A handler that does not wait.
fn route(
    answer: impl Fn(&mut Exchange) -> Result<(), HandlerError> + Send + Sync + 'static,
) -> Router<Mixed> {
    Router::new().concurrent("check", move |mut x| {
        let answered = answer(&mut x);
        async move { answered.map(|()| x) }
    })
}

async fn wait_once() {
    let mut polled = false;
    poll_fn(|context| {
        context.waker().wake_by_ref();
        if mem::replace(&mut polled, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// In one exchange of its own, and in the part of a NOTIFY with several messages.
#[test]
fn a_borrowed_argument_goes_into_the_answer() {
    let router = Router::new().concurrent("check", |mut x| async move {
        x.set(TXN, "before", 1)?;
        let (notify, mut reply) = x.split();
        assert_eq!(notify.messages().count(), 1, "the message alone");
        let path: &str = notify.require("check")?.get("path")?;
        reply.set(TXN, "path", path)?;
        wait_once().await;
        reply.set(TXN, "again", path)?;
        x.set(TXN, "after", 2)?;
        Ok(x)
    });
    let one = "txn.before = int32 1\ntxn.path = str /login\ntxn.again = str /login\n\
               txn.after = int32 2\n";
    assert_eq!(question().ask(&router).to_string(), one);
    let two = question().message("check").arg("path", "/login");
    assert_eq!(two.ask(&router).to_string(), one.repeat(2));
}

#[test]
fn a_reply_has_all_that_an_exchange_has() {
    let answer = question().ask(&route(|x| {
        x.set(TXN, "gone", 1)?;
        let (_, mut reply) = x.split();
        reply.clear();
        reply.set(Scope::Process, "set", 7)?;
        reply.set_var(Var::session("set_var"), true)?;
        reply.unset(Scope::Request, "unset")?;
        reply.unset_var(Var::response("unset_var"))?;
        Ok(())
    }));
    assert_eq!(
        answer.to_string(),
        "proc.set = int32 7\nsess.set_var = bool true\nreq.unset unset\nres.unset_var unset\n"
    );
}

/// Whatever is done to an exchange and to its reply has one outcome.
#[track_caller]
fn alike(
    x: &mut Exchange,
    on_exchange: impl FnOnce(&mut Exchange) -> Result<(), SetError>,
    on_reply: impl FnOnce(&mut Reply<'_>) -> Result<(), SetError>,
) -> Result<(), SetError> {
    let outcome = on_exchange(x);
    assert_eq!(on_reply(&mut x.split().1), outcome);
    outcome
}

#[test]
fn names_are_checked_as_ever() {
    let answer = question().prefix("iprep").ask(&route(|x| {
        // Scope, prefix, name and two dots are 63 bytes at most.
        for (name, good) in [("n".repeat(53), true), ("n".repeat(54), false), ("a-b".into(), false)]
        {
            x.clear();
            let set = alike(x, |x| x.set(TXN, &name, 1), |reply| reply.set(TXN, &name, 1));
            x.clear();
            let unset = alike(x, |x| x.unset(TXN, &name), |reply| reply.unset(TXN, &name));
            assert_eq!((set.is_ok(), unset.is_ok()), (good, good), "{name}");
            assert_eq!(matches!(set, Err(SetError::Name(_))), !good, "{name}");
        }
        // Good without the prefix, which nobody knew when it was checked.
        let name = "n".repeat(54);
        let var = Var::new(TXN, &name)?;
        x.clear();
        let set = alike(x, |x| x.set_var(var, 1), |reply| reply.set_var(var, 1));
        let unset = alike(x, |x| x.unset_var(var), |reply| reply.unset_var(var));
        assert!(matches!((set, unset), (Err(SetError::Name(_)), Err(SetError::Name(_)))));
        Ok(())
    }));
    assert_eq!((answer.outcome(), answer.to_string().as_str()), (&Outcome::Handled, ""));
}

#[test]
fn the_frame_is_one_for_both() {
    let answer = question().ask(&route(|x| {
        let mut largest = None;
        for length in 0..300 {
            let text = "x".repeat(length);
            x.clear();
            let direct = x.set(TXN, "a", text.as_str());
            x.clear();
            let split = x.split().1.set(TXN, "a", text.as_str());
            assert_eq!(direct, split, "{length} bytes");
            match split {
                Ok(()) => largest = Some(text),
                Err(error) => assert_eq!(error, SetError::TooBig { limit: 255 }),
            }
        }
        // What one of them fills leaves the other nothing, and stays.
        let text = largest.unwrap();
        assert!((200..255).contains(&text.len()), "{}", text.len());
        x.clear();
        x.split().1.set(TXN, "a", text.as_str())?;
        let full = alike(x, |x| x.unset(TXN, "b"), |reply| reply.unset(TXN, "b"));
        assert_eq!(full, Err(SetError::TooBig { limit: 255 }));
        Ok(())
    }));
    let answered: Vec<_> = answer.actions().collect();
    // The handler was content; that something was refused is counted all the same.
    assert_eq!((answer.outcome(), answered.len()), (&Outcome::TooBig, 1));
}

#[test]
fn what_does_not_fit_is_a_failure_of_its_own() {
    let answer = question().ask(&route(|x| {
        let (notify, mut reply) = x.split();
        let path: &str = notify.require("check")?.get("path")?;
        Ok(reply.set(TXN, "a", path.repeat(100).as_str())?)
    }));
    assert_eq!(*answer.outcome(), Outcome::TooBig);
}
