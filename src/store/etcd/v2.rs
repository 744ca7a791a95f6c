//! etcd's v2 API as far as it is read: one GET at a time, over a connection of its own, bounded in time and in bytes.
//!
//! It is another store than the v3 one, behind the same addresses: etcd 2, and etcd 3 where `--enable-v2` is given.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, HOST};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::connect::{read, system_roots};
use crate::store::StoreError;

/// How long a connection may take, with TLS.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the whole of an answer may take.
const ANSWER: Duration = Duration::from_secs(60);
/// The longest answer.
const LONGEST: usize = 64 << 20;

/// How etcd's v2 API is reached.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `http://host:port` or `https://host:port`, at least one.
    pub endpoints: Vec<String>,
    /// PEM of the authorities; the system's where none is given.
    pub ca: Option<PathBuf>,
    /// PEM of our certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// User, and the file with the password.
    pub user: Option<(String, PathBuf)>,
}

/// What is answered.
#[derive(Debug)]
pub enum Answer {
    /// A body, whatever it says: with status 200 a node, with others often a reason.
    Body(StatusCode, Bytes),
    /// One that is longer than is read.
    TooLong,
}

/// Reads from the first endpoint that answers, and stays with it.
#[derive(Debug)]
pub struct V2 {
    settings: Settings,
    current: usize,
}

impl V2 {
    /// One that connects when it is first asked.
    pub fn new(settings: Settings) -> Self {
        Self { settings, current: 0 }
    }

    /// Who is asked.
    pub fn place(&self) -> &str {
        self.settings.endpoints.get(self.current).map_or("nobody", String::as_str)
    }

    /// A key, and all below it or what is right in it.
    pub async fn get(&mut self, key: &str, recursive: bool) -> Result<Answer, StoreError> {
        let path = format!("/v2/keys{}?quorum=true&recursive={recursive}", escaped(key));
        let mut last = StoreError::Away { tried: "no endpoint is given".to_owned(), source: None };
        for _ in 0..self.settings.endpoints.len() {
            match self.ask(&path).await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error,
            }
            self.current = (self.current + 1) % self.settings.endpoints.len();
        }
        Err(last)
    }

    async fn ask(&self, path: &str) -> Result<Answer, StoreError> {
        let endpoint = self.place();
        let away = |source: Box<dyn std::error::Error + Send + Sync>| StoreError::Away {
            tried: format!("the v2 store at {endpoint}"),
            source: Some(source),
        };
        let uri: Uri = endpoint.parse().map_err(|error| away(Box::new(error)))?;
        let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(2379));
        let request = self.request(path, &format!("{host}:{port}")).await?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let connecting = timeout(CONNECT, TcpStream::connect((bare, port))).await;
        let stream =
            connecting.map_err(|_| away("no connection in time".into()))?.map_err(|error| away(error.into()))?;
        if uri.scheme_str() != Some("https") {
            return exchange(stream, request).await.map_err(|why| away(why.into()));
        }
        let connector = self.connector().await?;
        let name = ServerName::try_from(bare.to_owned()).map_err(|error| away(error.into()))?;
        let shaking = timeout(CONNECT, connector.connect(name, stream)).await;
        let stream = shaking.map_err(|_| away("no TLS in time".into()))?.map_err(|error| away(error.into()))?;
        exchange(stream, request).await.map_err(|why| away(why.into()))
    }

    async fn request(&self, path: &str, host: &str) -> Result<Request<Empty<Bytes>>, StoreError> {
        let mut request = Request::get(path).header(HOST, host).header(ACCEPT, "application/json");
        if let Some((user, file)) = &self.settings.user {
            let password = read(file).await?;
            let password = String::from_utf8_lossy(&password);
            let pair = format!("{user}:{}", password.trim_end_matches(['\n', '\r']));
            request = request.header(AUTHORIZATION, format!("Basic {}", STANDARD.encode(pair)));
        }
        let refused = |error: hyper::http::Error| StoreError::Refused {
            tried: format!("a request for {path}"),
            why: error.to_string(),
        };
        request.body(Empty::new()).map_err(refused)
    }

    async fn connector(&self) -> Result<TlsConnector, StoreError> {
        let unfit = |tried: String, source: rustls::Error| StoreError::Away { tried, source: Some(Box::new(source)) };
        let pem = match &self.settings.ca {
            Some(path) => read(path).await?,
            None => system_roots().await?,
        };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has suites for every version that is compiled in")
            .with_root_certificates(roots);
        let Some((certificate, key)) = &self.settings.identity else {
            return Ok(TlsConnector::from(Arc::new(config.with_no_client_auth())));
        };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&read(certificate).await?).filter_map(Result::ok).collect();
        let tried = || format!("to read {}", key.display());
        let secret = PrivateKeyDer::from_pem_slice(&read(key).await?)
            .map_err(|_| StoreError::Away { tried: tried(), source: Some("it is no private key".into()) })?;
        let config = config.with_client_auth_cert(chain, secret).map_err(|error| unfit(tried(), error))?;
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

async fn exchange<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let late = |_| format!("no whole answer within {}", humantime::format_duration(ANSWER));
    timeout(ANSWER, async {
        let broken = |error: hyper::Error| error.to_string();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let mut connections = JoinSet::new();
        connections.spawn(connection);
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        match Limited::new(response.into_body(), LONGEST).collect().await {
            Ok(body) => Ok(Answer::Body(status, body.to_bytes())),
            Err(error) if error.is::<LengthLimitError>() => Ok(Answer::TooLong),
            Err(error) => Err(format!("the answer broke off: {error}")),
        }
    })
    .await
    .map_err(late)?
}

/// A key as a path of a URL.
fn escaped(key: &str) -> String {
    let mut path = String::with_capacity(key.len());
    for byte in key.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => path.push(char::from(byte)),
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_path_whatever_it_holds() {
        assert_eq!(escaped("/skydns/local/*/größe?x#y%2F"), "/skydns/local/%2A/gr%C3%B6%C3%9Fe%3Fx%23y%252F");
    }
}
