//! A closure is no service by itself: it has a constructor of its own.

use spop_proto::handler::Inline;
use spop_proto::{Ack, Notify};

fn main() {
    let _ = Inline::new(|_: Notify<'_>, _: &mut Ack<'_>| Ok(()));
}
