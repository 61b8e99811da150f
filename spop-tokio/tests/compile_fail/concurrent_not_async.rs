use spop_tokio::Agent;

fn main() {
    let _ = Agent::concurrent(|x| Ok(x));
}
