use spop_tokio::{Agent, Scope};

fn main() {
    let _ = Agent::inline(|_notify, ack| {
        ack.set(Scope::Transaction, "a", 1)?;
    });
}
