//! A closure is no handler by itself: it has a constructor of its own.

use spop_proto::Exchange;
use spop_proto::handler::Concurrent;

fn main() {
    let _ = Concurrent::new(|x: Exchange| async move { Ok(x) });
}
