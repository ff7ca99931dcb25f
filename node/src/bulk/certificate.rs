//! TLS 1.3 with the certificate that libp2p derives from the node's key, so that one identity serves both planes.
//!
//! The certificate carries a critical extension (libp2p TLS specification), which rustls' own checks refuse; it is
//! therefore given by a resolver and judged by an own verifier. Resumption is off, because a resumed session would skip
//! that verifier.
use std::sync::Arc;

use branchline_protocol::ids::NodeId;
use ed25519_dalek::SigningKey;
use libp2p_tls::certificate;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    client::{
        ResolvesClientCert, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use thiserror::Error as ThisError;

/// The protocol's name in the TLS handshake.
const PROTOCOL: &[u8] = b"branchline-bulk";

/// Why no TLS identity could be made of a node key.
#[derive(Debug, ThisError)]
#[error("cannot make a certificate from the node's key: {0}")]
pub struct CertificateError(String);

/// Both TLS configurations of one node.
#[derive(Clone, Debug)]
pub struct TlsIdentity {
    /// For dialling.
    pub client: Arc<ClientConfig>,
    /// For listening.
    pub server: Arc<ServerConfig>,
}

#[derive(Debug)]
struct OneCertificate(Arc<CertifiedKey>);

impl ResolvesClientCert for OneCertificate {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for OneCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// Accepts exactly one self-signed certificate with a valid proof of an ed25519 node key. Who that is, is judged later.
#[derive(Debug)]
struct NodeVerifier;

impl NodeVerifier {
    fn check(end_entity: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Result<(), Error> {
        if !intermediates.is_empty() {
            return Err(Error::General("a node shows exactly one certificate".to_owned()));
        }
        node_of_certificate(end_entity).map(|_| ())
    }

    fn check_signature(
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let parsed = certificate::parse(certificate).map_err(|error| Error::General(error.to_string()))?;
        parsed
            .verify_signature(signed.scheme, message, signed.signature())
            .map_err(|error| Error::General(error.to_string()))?;
        Ok(HandshakeSignatureValid::assertion())
    }

    fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("only TLS 1.3 is spoken here".to_owned()))
    }
}

/// rustls asks the verifiers of servers and of clients the same questions about signatures, in two traits.
macro_rules! judge_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _certificate: &CertificateDer<'_>,
            _signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Self::no_tls12()
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Self::check_signature(message, certificate, signed)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            // libp2p's certificates are signed with P-256; others may be read, by the specification.
            vec![
                SignatureScheme::ECDSA_NISTP256_SHA256,
                SignatureScheme::ECDSA_NISTP384_SHA384,
                SignatureScheme::ED25519,
            ]
        }
    };
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Self::check(end_entity, intermediates)?;
        Ok(ServerCertVerified::assertion())
    }

    judge_signatures!();
}

impl ClientCertVerifier for NodeVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Self::check(end_entity, intermediates)?;
        Ok(ClientCertVerified::assertion())
    }

    judge_signatures!();
}

/// AES-128-GCM first: on processors with AES instructions it costs a third of what ChaCha20 costs.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![
        aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
        aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
        aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(provider)
}

impl TlsIdentity {
    /// Makes a certificate for this process from the node's key.
    ///
    /// # Errors
    /// The key cannot be used; it is then damaged.
    pub fn new(key: &SigningKey) -> Result<Self, CertificateError> {
        let fault = |error: &dyn std::fmt::Display| CertificateError(error.to_string());
        let keypair = libp2p::identity::Keypair::ed25519_from_bytes(key.to_bytes()).map_err(|error| fault(&error))?;
        let (certificate, private) = certificate::generate(&keypair).map_err(|error| fault(&error))?;
        let signer = aws_lc_rs::sign::any_ecdsa_type(&private).map_err(|error| fault(&error))?;
        let own = Arc::new(OneCertificate(Arc::new(CertifiedKey::new(vec![certificate], signer))));

        let versions = &[&rustls::version::TLS13];
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(versions).map_err(|error| fault(&error))?;
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(NodeVerifier));
        let mut client = builder.with_client_cert_resolver(Arc::clone(&own) as Arc<dyn ResolvesClientCert>);
        client.alpn_protocols = vec![PROTOCOL.to_vec()];
        client.resumption = Resumption::disabled();

        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(versions).map_err(|error| fault(&error))?;
        let mut server = builder.with_client_cert_verifier(Arc::new(NodeVerifier)).with_cert_resolver(own);
        server.alpn_protocols = vec![PROTOCOL.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self { client: Arc::new(client), server: Arc::new(server) })
    }
}

/// The node whose key the certificate proves.
fn node_of_certificate(certificate: &CertificateDer<'_>) -> Result<NodeId, Error> {
    let parsed = certificate::parse(certificate).map_err(|error| Error::General(error.to_string()))?;
    NodeId::from_peer_id_bytes(&parsed.peer_id().to_bytes())
        .ok_or_else(|| Error::General("the peer's identity is not an ed25519 key".to_owned()))
}

/// Who is at the other end of a finished handshake.
pub(super) fn peer_of(certificates: Option<&[CertificateDer<'_>]>) -> Option<NodeId> {
    node_of_certificate(certificates?.first()?).ok()
}
