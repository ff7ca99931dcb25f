//! A joining machine's side of the door.
use std::{net::SocketAddr, sync::Arc, time::Duration};

use branchline_protocol::{
    charter::{BeginRequest, DoorFile, FileSignature, Signed},
    ids::Hash,
    limits::FILE_SIGNATURE_TEXT_BYTES_MAX,
    refusal::Refusal,
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, body::Bytes};
use hyper_util::rt::TokioIo;
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use thiserror::Error;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use super::{ANSWER_BYTES_MAX, BeginAnswer, sha256};

/// Why nothing came through the door.
#[derive(Debug, Error)]
pub enum DoorError {
    /// Nobody answers there.
    #[error(
        "the station's public door at {door} does not answer ({reason}); is the station running, and the address reachable from here?"
    )]
    Unreachable {
        /// Where.
        door: SocketAddr,
        /// What the system said.
        reason: String,
    },
    /// Somebody else answers there.
    #[error(
        "whoever answers at {door} is not the station that the token names ({reason}); do not go on, ask for a new token"
    )]
    NotTheStation {
        /// Where.
        door: SocketAddr,
        /// What did not fit.
        reason: String,
    },
    /// The station refuses.
    #[error("the station refuses: {0}")]
    Refused(#[from] Refusal),
    /// A file that the owner did not sign, or another than the one that was signed.
    #[error(
        "the {kind} at {door} is not the owner's ({reason}); do not run it. If the station is being upgraded, try again"
    )]
    NotTheOwners {
        /// Where.
        door: SocketAddr,
        /// Which file.
        kind: DoorFile,
        /// What did not fit.
        reason: String,
    },
    /// An answer that cannot be read.
    #[error("the answer from {door} cannot be read: {reason}")]
    Unreadable {
        /// Where.
        door: SocketAddr,
        /// Why.
        reason: String,
    },
}

/// How long to wait for a connection and for an answer's head.
const PATIENCE: Duration = Duration::from_secs(15);

/// Speaks to one door and nobody else: the certificate's fingerprint is pinned.
#[derive(Clone, Debug)]
pub struct DoorClient {
    door: SocketAddr,
    fingerprint: Hash,
}

impl DoorClient {
    /// A client of the door at `door` whose certificate has this SHA-256.
    pub fn new(door: SocketAddr, fingerprint: Hash) -> Self {
        Self { door, fingerprint }
    }

    /// Asks to begin with a token.
    ///
    /// # Errors
    /// See [`DoorError`].
    pub async fn begin(&self, request: &Signed<BeginRequest>) -> Result<BeginAnswer, DoorError> {
        let body = serde_json::to_vec(request).map_err(|error| self.unreadable(error))?;
        let answer = self.exchange(Method::POST, "/begin", body, ANSWER_BYTES_MAX).await?;
        serde_json::from_slice(&answer).map_err(|error| self.unreadable(error))
    }

    /// Fetches what the door gives away, for example `/survey.sh`.
    ///
    /// # Errors
    /// See [`DoorError`].
    pub async fn get(&self, path: &str) -> Result<Bytes, DoorError> {
        self.exchange(Method::GET, path, Vec::new(), ANSWER_BYTES_MAX).await
    }

    /// Fetches a file that the owner has signed; `owner` is the hash of the owner's key, as a join token names it.
    ///
    /// # Errors
    /// See [`DoorError`]; nothing is given back that the owner has not signed.
    pub async fn get_signed(&self, kind: DoorFile, owner: Hash) -> Result<(Bytes, FileSignature), DoorError> {
        let path = kind.path();
        let not_the_owners = |reason: String| DoorError::NotTheOwners { door: self.door, kind, reason };
        let signature_path = format!("{path}.sig");
        let asked = self.exchange(Method::GET, &signature_path, Vec::new(), FILE_SIGNATURE_TEXT_BYTES_MAX);
        let text = timeout(2 * PATIENCE, asked)
            .await
            .map_err(|_| self.unreadable(format!("{signature_path} does not come to its end")))??;
        let signature: FileSignature =
            String::from_utf8_lossy(&text).parse().map_err(|error| self.unreadable(format!("{path}.sig: {error}")))?;
        if signature.signer().root_hash() != owner {
            return Err(not_the_owners(format!("it is signed by {}", signature.signer())));
        }
        let file = self.get(path).await?;
        signature.verify(kind, sha256(&file)).map_err(|error| not_the_owners(error.to_string()))?;
        Ok((file, signature))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        answer_bytes_max: usize,
    ) -> Result<Bytes, DoorError> {
        let unreachable = |reason: String| DoorError::Unreachable { door: self.door, reason };
        let tcp = timeout(PATIENCE, TcpStream::connect(self.door))
            .await
            .map_err(|_| unreachable("no answer in time".to_owned()))?
            .map_err(|error| unreachable(error.to_string()))?;
        let tls = self.handshake(tcp).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls))
            .await
            .map_err(|error| unreachable(error.to_string()))?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.door.to_string())
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.unreadable(error))?;
        let answer = timeout(PATIENCE, sender.send_request(request))
            .await
            .map_err(|_| unreachable("no answer in time".to_owned()))?
            .map_err(|error| unreachable(error.to_string()))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), answer_bytes_max).collect().await;
        let body = body.map_err(|error| self.unreadable(error))?.to_bytes();
        if status == StatusCode::OK {
            return Ok(body);
        }
        match serde_json::from_slice::<Refusal>(&body) {
            Ok(refusal) => Err(refusal.into()),
            Err(_) => Err(self.unreadable(format!("status {status}"))),
        }
    }

    /// A connection to the door's certificate and no other, before anything is said on it.
    pub(super) async fn handshake(
        &self,
        tcp: TcpStream,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, DoorError> {
        let other = |reason: String| DoorError::NotTheStation { door: self.door, reason };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let pinned = Arc::new(PinnedCertificate { fingerprint: self.fingerprint, provider: Arc::clone(&provider) });
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| other(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(pinned)
            .with_no_client_auth();
        let name = ServerName::IpAddress(self.door.ip().into());
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, tcp);
        match timeout(PATIENCE, connecting).await {
            Err(_) => Err(DoorError::Unreachable { door: self.door, reason: "no TLS answer in time".to_owned() }),
            // What TLS itself refuses is another door; a connection that was closed may be a door with no place free.
            Ok(Err(error)) if error.get_ref().is_some_and(|source| source.is::<rustls::Error>()) => {
                Err(other(error.to_string()))
            }
            Ok(Err(error)) => Err(DoorError::Unreachable { door: self.door, reason: error.to_string() }),
            Ok(Ok(stream)) => Ok(stream),
        }
    }

    fn unreadable(&self, reason: impl ToString) -> DoorError {
        DoorError::Unreadable { door: self.door, reason: reason.to_string() }
    }
}

/// Accepts exactly one certificate. Its names and dates carry no meaning, its fingerprint came with the token.
#[derive(Debug)]
struct PinnedCertificate {
    fingerprint: Hash,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedCertificate {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if sha256(certificate) == self.fingerprint {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::General("its certificate has another fingerprint than the token states".to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
