//! HTTPS over a real socket. Key and certificate are for these tests alone:
//! `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 36500 \
//! -subj /CN=localhost -addext subjectAltName=DNS:localhost \
//! -addext basicConstraints=critical,CA:FALSE -keyout key.pem -out cert.pem`

use std::{path::PathBuf, sync::Arc};

use server::{TlsIdentity, serve_tls};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use crate::support::{PATIENCE, Server};

fn file(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "testdata", "tls", name].iter().collect()
}

fn connector() -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("cert.pem")).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

#[tokio::test]
async fn a_request_is_answered_while_another_client_says_nothing() {
    let server = Server::answering("x");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (shutdown, asked) = oneshot::channel::<()>();
    let asked = async {
        let _ = asked.await;
    };
    let identity = TlsIdentity::from_files(&file("key.pem"), &file("cert.pem")).unwrap();
    let task = tokio::spawn(serve_tls(server.state.clone(), listener, identity, asked));

    let silent = TcpStream::connect(address).await.unwrap();
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET /ready HTTP/1.1\r\n\r\n").await.unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = connector().connect(name, stream).await.unwrap();
    let request = b"GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    // What is no TLS is told so, in TLS, and hung up on.
    let mut alert = Vec::new();
    timeout(PATIENCE, plain.read_to_end(&mut alert)).await.unwrap().unwrap();
    assert_eq!(alert.first(), Some(&21), "an alert");

    drop(silent);
    shutdown.send(()).unwrap();
    timeout(PATIENCE, task).await.unwrap().unwrap().unwrap();
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let error = |key, certificates| {
        TlsIdentity::from_files(&file(key), &file(certificates)).unwrap_err().to_string()
    };
    assert!(error("nowhere.pem", "cert.pem").ends_with("tls/nowhere.pem"));
    assert!(error("key.pem", "nowhere.pem").ends_with("tls/nowhere.pem"));
    assert!(error("cert.pem", "cert.pem").ends_with("tls/cert.pem"), "no key in it");
    assert!(error("key.pem", "key.pem").ends_with("tls/key.pem holds no certificate"));
}
