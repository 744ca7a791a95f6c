//! The certificate of an endpoint that speaks TLS, read again when its files change.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

/// How often the files are looked at: a certificate is renewed long before it ends.
const EVERY: Duration = Duration::from_secs(30);
/// Longer files hold no certificate of anybody.
const MAX_FILE: u64 = 1024 * 1024;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum CertificateError {
    /// A file cannot be read.
    #[error("{file} cannot be read")]
    File {
        /// Which one.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file holds no such PEM.
    #[error("{0} holds no {1}")]
    Pem(PathBuf, &'static str),
    /// The two do not belong together.
    #[error("{0} and its key cannot be used")]
    Unfit(PathBuf, #[source] rustls::Error),
}

/// What clients are shown, as it was read last.
#[derive(Debug)]
pub(super) struct Certificate {
    files: (PathBuf, PathBuf),
    read: watch::Sender<(Vec<u8>, Arc<ServerConfig>)>,
}

impl Certificate {
    pub(super) fn read(certificate: PathBuf, key: PathBuf) -> Result<Self, CertificateError> {
        let files = (certificate, key);
        let (read, _) = watch::channel(load(&files)?);
        Ok(Self { files, read })
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.read.borrow().1))
    }

    /// Takes up what the files hold anew, as long as it is polled. What cannot be used is told once, and the last one
    /// stays.
    pub(super) async fn follow(&self) {
        let mut is_told = false;
        loop {
            sleep(EVERY).await;
            let files = self.files.clone();
            match spawn_blocking(move || load(&files)).await {
                Ok(Ok(fresh)) => {
                    is_told = false;
                    self.read.send_if_modified(|known| {
                        let is_new = known.0 != fresh.0;
                        if is_new {
                            *known = fresh;
                        }
                        is_new
                    });
                }
                Ok(Err(error)) if !std::mem::replace(&mut is_told, true) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "a certificate is not taken up");
                }
                Ok(Err(_)) | Err(_) => {}
            }
        }
    }
}

/// The text of both files, and what a server makes of them.
fn load((certificate, key): &(PathBuf, PathBuf)) -> Result<(Vec<u8>, Arc<ServerConfig>), CertificateError> {
    let (chain, secret) = (text(certificate)?, text(key)?);
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&chain).filter_map(Result::ok).collect();
    if certificates.is_empty() {
        return Err(CertificateError::Pem(certificate.clone(), "certificate"));
    }
    let private = PrivateKeyDer::from_pem_slice(&secret);
    let private = private.map_err(|_| CertificateError::Pem(key.clone(), "private key"))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has suites for every version that is compiled in")
        .with_no_client_auth()
        .with_single_cert(certificates, private)
        .map_err(|error| CertificateError::Unfit(certificate.clone(), error))?;
    Ok(([chain, secret].concat(), Arc::new(config)))
}

fn text(file: &Path) -> Result<Vec<u8>, CertificateError> {
    let unreadable = |source| CertificateError::File { file: file.to_owned(), source };
    let opened = std::fs::File::open(file).map_err(unreadable)?;
    let mut text = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(opened, MAX_FILE), &mut text).map_err(unreadable)?;
    Ok(text)
}
