//! A type of one's own without the trait.

use spop_proto::handler::Inline;

struct MyAgent;

fn main() {
    let _ = Inline::new(MyAgent);
}
