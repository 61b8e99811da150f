use spop_tokio::Agent;

fn main() {
    let _ = Agent::concurrent(|_x| async move { Ok(()) });
}
