//! A service takes the NOTIFY and its answer.

use spop_proto::handler::ServiceFn;

fn main() {
    let _ = ServiceFn::new(|_notify| Ok(()));
}
