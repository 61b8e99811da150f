use spop_tokio::Agent;

fn main() {
    let _ = Agent::inline(|_notify, _ack| async move { Ok(()) });
}
