use spop_tokio::Agent;

fn main() {
    let _ = Agent::new(|_notify, _ack| Ok(()));
}
