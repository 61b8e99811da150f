//! TLS between HAProxy and the agent, with a certificate on either side (mTLS), through
//! `Agent::serve_connection`.
//!
//! ```haproxy
//! backend agents
//!     mode tcp
//!     option spop-check
//!     timeout server 3m
//!     # What HAProxy trusts, which name the agent has to have, and HAProxy's own certificate with its key.
//!     server agent1 192.0.2.1:12345 check ssl verify required ca-file ca.pem verifyhost agent.example crt haproxy.pem
//! ```
//!
//! ```text
//! cargo run -p spop-examples --example tls -- CERTIFICATE KEY CLIENT-CA [ADDRESS]
//! ```
//!
//! `verify required` alone accepts any certificate of that authority, whatever its name: `verifyhost` is what
//! makes it this agent's. Checks go through TLS as well. Requests share long-lived connections, so the handshake
//! is paid once for each of those.
//!
//! `Agent::bind` bounds how many connections there are, and drains them at the end; whoever accepts by himself
//! does that, as [`serve`] shows. A lame duck before the drain is `Agent::health` and a wait.

use std::env;
use std::error::Error;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use spop_tokio::{Agent, Peer, Scope};
use tokio::net::TcpListener;
use tokio::signal::ctrl_c;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// How long a peer may take for its handshake, and how many there may be at once.
const HANDSHAKE: Duration = Duration::from_secs(5);
const CONNECTIONS: usize = 1_024;

/// The agent's certificate and key, and the authority whose certificates clients have to show.
pub(crate) fn configuration(
    certificate: &Path,
    key: &Path,
    authority: &Path,
) -> Result<ServerConfig, Failure> {
    let mut clients = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority)? {
        clients.add(certificate?)?;
    }
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(key)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(clients), Arc::clone(&provider));
    Ok(ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::DEFAULT_VERSIONS)?
        .with_client_cert_verifier(verifier.build()?)
        .with_single_cert(chain, key)?)
}

/// Accepts until `stop`, then drains.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: ServerConfig,
    stop: impl Future<Output = ()>,
) {
    let agent = Arc::new(Agent::inline(|notify, ack| {
        let ip: std::net::IpAddr = notify.require("check-client-ip")?.get("ip")?;
        Ok(ack.set(Scope::Transaction, "ip_score", if ip.is_loopback() { 0 } else { 20 })?)
    }));
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let (leave, leaving) = watch::channel(false);
    let mut connections = JoinSet::new();
    let accept = async {
        // The semaphore is never closed, so this ends with `stop` only.
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            let Ok((stream, peer)) = listener.accept().await else {
                // No file descriptors, most likely: they come back with connections that end.
                sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (acceptor, agent, mut leaving) =
                (acceptor.clone(), Arc::clone(&agent), leaving.clone());
            connections.spawn(async move {
                let _place = place;
                // An ACK waits for nothing. Where this fails the first read says why.
                let _ = stream.set_nodelay(true);
                match timeout(HANDSHAKE, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let stop = async { _ = leaving.wait_for(|leave| *leave).await };
                        agent.serve_connection_until(stream, Peer::Tcp(peer), stop).await;
                    }
                    Ok(Err(error)) => eprintln!("{peer}: {error}"),
                    Err(_) => eprintln!("{peer}: no TLS handshake within {HANDSHAKE:?}"),
                }
            });
            while connections.try_join_next().is_some() {}
        }
    };
    tokio::select! { () = accept => {}, () = stop => {} }
    drop(listener);
    leave.send_replace(true);
    while connections.join_next().await.is_some() {}
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let words: Vec<_> = env::args().skip(1).collect();
    let [certificate, key, authority, address @ ..] = words.as_slice() else {
        return Err("usage: tls CERTIFICATE KEY CLIENT-CA [ADDRESS]".into());
    };
    let tls = configuration(certificate.as_ref(), key.as_ref(), authority.as_ref())?;
    let address = address.first().map_or("127.0.0.1:12345", String::as_str);
    let listener = TcpListener::bind(address).await?;
    eprintln!("listening on {}", listener.local_addr()?);
    serve(listener, tls, async { _ = ctrl_c().await }).await;
    Ok(())
}

#[cfg(test)]
pub(crate) mod certificates;
#[cfg(test)]
mod engine;

#[cfg(test)]
mod tests {
    use std::{fs, io};

    use rustls::ClientConfig;
    use rustls::pki_types::ServerName;
    use spop_proto::Dialect;
    use spop_proto::wire::NotifyPayload;
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;
    use tokio_rustls::TlsConnector;

    use super::certificates::{Authority, authority, issue};
    use super::*;

    /// HAProxy's side, with a certificate of its own or without.
    fn trusting(authority: &Authority, shows: Option<[String; 2]>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(rustls::DEFAULT_VERSIONS)
            .unwrap()
            .with_root_certificates(roots);
        let Some([certificate, key]) = shows else { return config.with_no_client_auth() };
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        config.with_client_auth_cert(chain, key).unwrap()
    }

    #[tokio::test]
    async fn only_with_a_certificate_of_the_right_authority() {
        let (ours, other) = (authority(), authority());
        let folder = env::temp_dir().join(format!("spop-tls-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let [certificate, key] = issue(&ours, "agent.example");
        let paths = ["agent.pem", "agent.key", "ca.pem"].map(|name| folder.join(name));
        for (path, text) in paths.iter().zip([certificate, key, ours.pem()]) {
            fs::write(path, text).unwrap();
        }
        let tls = configuration(&paths[0], &paths[1], &paths[2]).unwrap();
        fs::remove_dir_all(&folder).unwrap();

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(serve(listener, tls, async { _ = stopped.await }));
        let ask = async |shows: Option<[String; 2]>| -> io::Result<Vec<String>> {
            let name = ServerName::try_from("agent.example").unwrap();
            let connector = TlsConnector::from(Arc::new(trusting(&ours, shows)));
            let stream = connector.connect(name, TcpStream::connect(address).await?).await?;
            let ip = std::net::Ipv4Addr::new(192, 0, 2, 1);
            let question = NotifyPayload::new("check-client-ip").arg("ip", ip);
            engine::ask(stream, Dialect::New, &[question]).await
        };

        let answers = ask(Some(issue(&ours, "haproxy.example"))).await.unwrap();
        assert_eq!(answers, ["set-var txn.ip_score int32:20"]);
        let error = ask(None).await.unwrap_err().to_string();
        assert!(error.contains("CertificateRequired"), "{error}");
        let error = ask(Some(issue(&other, "haproxy.example"))).await.unwrap_err().to_string();
        assert!(error.contains("UnknownCA") || error.contains("DecryptError"), "{error}");

        stop.send(()).unwrap();
        serving.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err(), "it has stopped");
    }
}
