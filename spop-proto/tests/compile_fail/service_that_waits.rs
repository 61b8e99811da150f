//! A future where an answer is wanted.

use spop_proto::handler::ServiceFn;

fn main() {
    let _ = ServiceFn::new(|_, _| async { Ok(()) });
}
