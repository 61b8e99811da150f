//! State that is replaced while requests are answered: an [`ArcSwap`], filled again on SIGHUP.
//!
//! ```text
//! cargo run -p spop-examples --example reload -- blocked.txt     # one address a line
//! kill -HUP $(pidof reload)
//! ```
//!
//! Each request loads a pointer and works with what it points to: it sees the old state or the new one, never a
//! mixture, and waits for nobody, not even while a reload takes its time. The old state is freed with the
//! last request that looks at it. A file with an error changes nothing.
//!
//! `RwLock<Arc<T>>` does the same with a lock that all threads write to, which is what
//! `spop_proto::handler::Swap` does for a whole handler; both are fast enough for most agents.

use std::collections::HashSet;
use std::error::Error;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, fs, io};

use arc_swap::ArcSwap;
use spop_tokio::{Agent, Router, Scope};
use tokio::signal::ctrl_c;
use tokio::signal::unix::{Signal, SignalKind, signal};

#[derive(Debug, Default)]
struct Blocked(HashSet<IpAddr>);

impl Blocked {
    fn load(path: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(path)?;
        let address = |(number, line): (usize, &str)| {
            line.trim().parse().map_err(|error| {
                io::Error::other(format!("{}:{}: {error}", path.display(), number + 1))
            })
        };
        text.lines().enumerate().map(address).collect::<io::Result<_>>().map(Self)
    }
}

fn router(blocked: Arc<ArcSwap<Blocked>>) -> Router {
    Router::new().on("check-client-ip", move |message, ack| {
        let ip: IpAddr = message.get("ip")?;
        // Once for each request: two loads may see two states.
        let blocked = blocked.load();
        Ok(ack.set(Scope::Transaction, "blocked", blocked.0.contains(&ip))?)
    })
}

/// Reads the file again at each signal, for ever.
async fn reload_at(mut hangup: Signal, path: PathBuf, blocked: Arc<ArcSwap<Blocked>>) {
    while hangup.recv().await.is_some() {
        // Reading and parsing wait; the threads that answer must not.
        let path = path.clone();
        match tokio::task::spawn_blocking(move || Blocked::load(&path)).await {
            Ok(Ok(new)) => {
                eprintln!("{} addresses", new.0.len());
                blocked.store(Arc::new(new));
            }
            Ok(Err(error)) => eprintln!("{error}; what was read before stays"),
            Err(error) => eprintln!("{error}; what was read before stays"),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Before anything that takes time: without a handler SIGHUP ends the process.
    let hangup = signal(SignalKind::hangup())?;
    let path = PathBuf::from(env::args_os().nth(1).ok_or("usage: reload FILE [ENDPOINT]")?);
    let endpoint = env::args().nth(2).unwrap_or_else(|| "127.0.0.1:12345".to_owned());

    let blocked = Arc::new(ArcSwap::from_pointee(Blocked::load(&path)?));
    tokio::spawn(reload_at(hangup, path, Arc::clone(&blocked)));
    let server = Agent::new(router(blocked)).bind(endpoint.as_str()).await?;
    eprintln!("listening on {}", server.local_addr());
    server.run_until(async { _ = ctrl_c().await }).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::process::Command;
    use std::time::Duration;

    use spop_tokio::testing;

    use super::*;

    fn ask(router: &Router, last: u8) -> String {
        let ip = Ipv4Addr::new(192, 0, 2, last);
        testing::message("check-client-ip").arg("ip", ip).ask(router).to_string()
    }

    const YES: &str = "txn.blocked = bool true\n";
    const NO: &str = "txn.blocked = bool false\n";

    #[tokio::test]
    async fn a_signal_replaces_the_list_and_a_bad_one_does_not() {
        let path = env::temp_dir().join(format!("spop-reload-{}", std::process::id()));
        fs::write(&path, "192.0.2.1\n").unwrap();
        let blocked = Arc::new(ArcSwap::from_pointee(Blocked::load(&path).unwrap()));
        let router = router(Arc::clone(&blocked));
        assert_eq!((ask(&router, 1).as_str(), ask(&router, 2).as_str()), (YES, NO));

        let hangup = signal(SignalKind::hangup()).unwrap();
        let reloading = tokio::spawn(reload_at(hangup, path.clone(), Arc::clone(&blocked)));
        let replaced = async |text: &str| {
            let before = blocked.load_full();
            fs::write(&path, text).unwrap();
            let pid = std::process::id().to_string();
            assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
            while Arc::ptr_eq(&before, &blocked.load()) {
                tokio::task::yield_now().await;
            }
        };
        let patience = Duration::from_secs(20);
        tokio::time::timeout(patience, replaced("192.0.2.2\n192.0.2.3\n")).await.unwrap();
        assert_eq!((ask(&router, 1).as_str(), ask(&router, 2).as_str()), (NO, YES));

        fs::write(&path, "192.0.2.9\nlocalhost\n").unwrap();
        let error = Blocked::load(&path).unwrap_err().to_string();
        assert!(error.contains(":2: invalid IP address"), "{error}");
        assert_eq!(ask(&router, 2), YES);
        reloading.abort();
        fs::remove_file(path).unwrap();
    }
}
