//! The handshake: TLS 1.3 with raw public keys on both sides (RFC 7250), each end pinning the other's.
//!
//! Who presents a key that is not pinned gets an alert and nothing else. One protocol version (ALPN), no tickets, no
//! resumption, no early data, no certificates, no names: what a handshake proves, it proves anew each time.
//! X25519MLKEM768 first, so that what is recorded today stays secret also from tomorrow's computers. Nothing here does I/O.

use super::key::{Fingerprint, Role, RoleKey, Secret};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group, sign::any_eddsa_type};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName,
    OtherError, PeerIncompatible, ProtocolVersion, ServerConfig, SignatureScheme,
};
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

/// What the control connection speaks: a client and a server of different versions part here.
pub(super) const ALPN: &[u8] = b"pdcp/1";

/// Why a handshake failed, as far as one end can tell.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HandshakeError {
    /// The peer has shown a key that is not accepted here.
    Stranger(Option<Fingerprint>),
    /// The peer has shown a key, and not proven that it is its own.
    Unproven,
    /// The peer does not accept our key.
    Refused,
    /// The peer speaks TLS, but not this protocol, or another version of it.
    Version,
    /// The peer does not speak TLS.
    NotTls,
    /// Anything else: bytes that were changed on the way, or a peer that is broken.
    Broken(String),
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stranger(Some(fingerprint)) => write!(f, "its key {fingerprint} is not known here"),
            Self::Stranger(None) => f.write_str("it has shown no key of the right kind"),
            Self::Unproven => f.write_str("it has not proven that the key it has shown is its own"),
            Self::Refused => f.write_str("it does not accept this user's key"),
            Self::Version => f.write_str("it speaks another version of the protocol, or another protocol over TLS"),
            Self::NotTls => f.write_str("it does not speak TLS; is it another program, or an older pdcp?"),
            Self::Broken(text) => write!(f, "the handshake failed: {text}"),
        }
    }
}

impl std::error::Error for HandshakeError {}

impl From<&rustls::Error> for HandshakeError {
    fn from(error: &rustls::Error) -> Self {
        use rustls::Error;
        match error {
            Error::InvalidCertificate(CertificateError::Other(OtherError(reason))) => {
                reason.downcast_ref::<Self>().cloned().unwrap_or_else(|| Self::Broken(error.to_string()))
            }
            Error::InvalidCertificate(CertificateError::BadSignature) => Self::Unproven,
            Error::NoCertificatesPresented => Self::Stranger(None),
            Error::NoApplicationProtocol | Error::PeerIncompatible(_) => Self::Version,
            Error::InvalidMessage(_) => Self::NotTls,
            Error::AlertReceived(alert) => Self::told(*alert),
            _ => Self::Broken(error.to_string()),
        }
    }
}

impl HandshakeError {
    /// Whether the peer has tried to be somebody and failed.
    pub(in crate::control) fn is_failed_proof(&self) -> bool {
        matches!(self, Self::Stranger(_) | Self::Unproven)
    }

    /// By the peer's alert.
    fn told(alert: AlertDescription) -> Self {
        match alert {
            AlertDescription::AccessDenied
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateRequired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA => Self::Refused,
            AlertDescription::HandshakeFailure
            | AlertDescription::NoApplicationProtocol
            | AlertDescription::ProtocolVersion
            | AlertDescription::UnsupportedCertificate => Self::Version,
            _ => Self::Broken(format!("the other end says {alert:?}")),
        }
    }
}

/// What a client is given for a server's name: nothing is sent of it and nothing checked, keys are.
pub fn server_name() -> ServerName<'static> {
    ServerName::try_from("pdcp").expect("it is a name")
}

/// What a client needs that has `own` and talks to whoever has one of `servers`.
pub(super) fn client_config(own: &Secret, servers: HashSet<RoleKey>) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has all that TLS 1.3 needs")
        .dangerous() // no certificates: we do it ourselves
        .with_custom_certificate_verifier(Arc::new(Pins::new(servers)))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified(own, Role::Client))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// What a server needs that has `own` and talks to whoever has one of `clients`.
pub(super) fn server_config(own: &Secret, clients: HashSet<RoleKey>) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has all that TLS 1.3 needs")
        .with_client_cert_verifier(Arc::new(Pins::new(clients)))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified(own, Role::Server))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Arc::new(config)
}

/// Who is at the other end of a handshake that is done. Also sees to what rustls leaves open: a peer may have named no
/// protocol at all.
///
/// # Errors
/// Where it is no handshake of ours.
pub(super) fn peer_key(tls: &CommonState) -> Result<RoleKey, HandshakeError> {
    let ours = tls.protocol_version() == Some(ProtocolVersion::TLSv1_3) && tls.alpn_protocol() == Some(ALPN);
    if tls.is_handshaking() || !ours {
        return Err(HandshakeError::Version);
    }
    match tls.peer_certificates() {
        Some([key]) => RoleKey::from_spki(key).ok_or(HandshakeError::Stranger(None)),
        _ => Err(HandshakeError::Stranger(None)),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![cipher_suite::TLS13_AES_256_GCM_SHA384, cipher_suite::TLS13_CHACHA20_POLY1305_SHA256],
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519],
        signature_verification_algorithms: ed25519_only(),
        ..default_provider()
    })
}

fn ed25519_only() -> WebPkiSupportedAlgorithms {
    let offered = default_provider().signature_verification_algorithms.mapping;
    let ed25519 = offered.iter().find(|(scheme, _)| *scheme == SignatureScheme::ED25519);
    let ed25519 = ed25519.expect("the provider has Ed25519");
    WebPkiSupportedAlgorithms { all: ed25519.1, mapping: std::slice::from_ref(ed25519) }
}

/// A role's key, as rustls presents it.
pub(super) fn certified(own: &Secret, role: Role) -> Arc<CertifiedKey> {
    let public = own.public();
    let key = match role {
        Role::Client => public.client,
        Role::Server => public.server,
    };
    let document = own.pkcs8(role);
    let signer = any_eddsa_type(&PrivatePkcs8KeyDer::from(&document[..])).expect("it is an Ed25519 key");
    Arc::new(CertifiedKey::new(vec![CertificateDer::from(key.spki().to_vec())], signer))
}

/// Accepts some keys and no other.
#[derive(Debug)]
struct Pins {
    accepted: HashSet<RoleKey>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Pins {
    fn new(accepted: HashSet<RoleKey>) -> Self {
        Self { accepted, algorithms: ed25519_only() }
    }

    fn look(&self, shown: &CertificateDer<'_>, more: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let key = RoleKey::from_spki(shown).filter(|_| more.is_empty());
        if key.is_some_and(|key| self.accepted.contains(&key)) {
            return Ok(());
        }
        let stranger = HandshakeError::Stranger(key.map(|key| key.fingerprint()));
        Err(CertificateError::Other(OtherError(Arc::new(stranger))).into())
    }

    fn signed(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
    }
}

/// TLS 1.2 is not even built; rustls asks all the same.
fn no_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
    Err(PeerIncompatible::Tls12NotOffered.into())
}

impl ServerCertVerifier for Pins {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.look(shown, more).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Pins {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.look(shown, more).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
