//! `async move` is missing.

use spop_proto::handler::HandlerFn;

fn main() {
    let _ = HandlerFn::new(|x| Ok(x));
}
