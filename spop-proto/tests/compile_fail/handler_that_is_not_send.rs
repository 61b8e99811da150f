//! What is held across an `await` has to be able to change threads.

use std::future::ready;
use std::rc::Rc;

use spop_proto::handler::HandlerFn;

fn main() {
    let _ = HandlerFn::new(|x| async move {
        let count = Rc::new(1);
        ready(()).await;
        drop(count);
        Ok(x)
    });
}
