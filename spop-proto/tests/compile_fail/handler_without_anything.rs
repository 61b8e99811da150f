//! The future gives nothing at all.

use spop_proto::Scope;
use spop_proto::handler::HandlerFn;

fn main() {
    let _ = HandlerFn::new(|mut x| async move {
        let _ = x.set(Scope::Transaction, "score", 20);
    });
}
