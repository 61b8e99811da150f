//! What the agent counts goes to the recorder of the `metrics` facade, while it runs and at the end.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

#[path = "../../spop-proto/tests/common/published.rs"]
mod published;
#[path = "../../spop-proto/tests/common/recorder.rs"]
mod recorder;

use async_std::channel::bounded;
use async_std::task;
use recorder::Recorded;
use spop_asyncstd::Agent;

#[test]
fn while_it_runs_and_at_the_end() {
    let recorded = Recorded::default();
    metrics::set_global_recorder(recorded.clone()).unwrap();
    let server = task::block_on(Agent::inline(|_, _| Ok(())).bind("127.0.0.1:0")).unwrap();
    let address = server.local_addr().socket_addr().unwrap();
    let (stop, stopped) = bounded::<()>(1);
    let running = task::spawn(server.run_until(async move { _ = stopped.recv().await }));
    published::while_it_runs_and_at_the_end(&recorded, address, || {
        drop(stop);
        task::block_on(running)
    });
}
