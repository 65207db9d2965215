//! HTTPS: certificates, and a listener that shakes hands beside accepting.
//!
//! Upstream: `--ssl-*` in `sglang/srt/entrypoints/http_server.py`, where uvicorn does this.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::serve::Listener;
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    },
    server::TlsStream,
};

/// A client that has not shaken hands by then is let go.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Handshakes at once; further connections wait to be accepted.
const MAX_HANDSHAKES: usize = 256;

/// A key and its certificates, ready for use.
#[derive(Clone)]
pub struct TlsIdentity(TlsAcceptor);

impl std::fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsIdentity")
    }
}

/// Why there is no [`TlsIdentity`].
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file that cannot be read, or is not PEM, or lacks what it should have.
    #[error("{}", path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// A file of certificates without any.
    #[error("{} holds no certificate", path.display())]
    NoCertificate {
        /// Which.
        path: PathBuf,
    },
    /// Key and certificate do not go together.
    #[error("the key and the certificate cannot be used")]
    Identity(#[from] rustls::Error),
}

impl TlsIdentity {
    /// Reads a PEM key (not encrypted) and its certificate chain, the server's own first.
    ///
    /// # Errors
    /// Files that cannot be read or do not go together.
    pub fn from_files(key: &Path, certificates: &Path) -> Result<Self, TlsError> {
        let bad = |path: &Path| {
            let path = path.to_owned();
            move |source| TlsError::Pem { path, source }
        };
        let chain: Vec<_> = CertificateDer::pem_file_iter(certificates)
            .and_then(Iterator::collect)
            .map_err(bad(certificates))?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate { path: certificates.to_owned() });
        }
        let key = PrivateKeyDer::from_pem_file(key).map_err(bad(key))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }
}

/// Accepts TCP connections and hands on those that have shaken hands, in the order in which they
/// are done with it: a slow client delays nobody.
pub(crate) struct TlsListener {
    tcp: TcpListener,
    identity: TlsIdentity,
    handshakes: JoinSet<io::Result<(TlsStream<TcpStream>, SocketAddr)>>,
}

impl TlsListener {
    pub(crate) fn new(tcp: TcpListener, identity: TlsIdentity) -> Self {
        Self { tcp, identity, handshakes: JoinSet::new() }
    }

    fn shake_hands(&mut self, stream: TcpStream, peer: SocketAddr) {
        let acceptor = self.identity.0.clone();
        self.handshakes.spawn(async move {
            super::serve::set_nodelay(&stream);
            let handshake = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
            let stream = handshake.await.map_err(|_| io::ErrorKind::TimedOut)??;
            Ok((stream, peer))
        });
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let has_room = self.handshakes.len() < MAX_HANDSHAKES;
            tokio::select! {
                // Retries, with a pause, what the system refuses.
                (stream, peer) = Listener::accept(&mut self.tcp), if has_room => {
                    self.shake_hands(stream, peer);
                }
                Some(done) = self.handshakes.join_next() => match done {
                    Ok(Ok(connection)) => return connection,
                    Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                    Err(error) => tracing::error!(%error, "a TLS handshake panicked"),
                },
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}
