//! `Ok(())` is missing at the end.

use spop_proto::Scope;
use spop_proto::handler::ServiceFn;

fn main() {
    let _ = ServiceFn::new(|_, ack| {
        let _ = ack.set(Scope::Transaction, "score", 20);
    });
}
