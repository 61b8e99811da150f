//! The exchange is not returned.

use spop_proto::Scope;
use spop_proto::handler::HandlerFn;

fn main() {
    let _ = HandlerFn::new(|mut x| async move {
        x.set(Scope::Transaction, "score", 20)?;
        Ok(())
    });
}
