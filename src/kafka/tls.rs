//! TLS: what is trusted, who we are, and what goes wrong in words.
//!
//! It makes the settings of connections from certificates that somebody else has
//! read, and touches no file and no socket.

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct,
    Error, RootCertStore, SignatureScheme,
};

use super::address::Address;

/// What TLS is made of. All in DER.
pub struct Identity {
    /// Certificates that may have signed the brokers'.
    pub trusted: Vec<CertificateDer<'static>>,
    /// Our certificate with what is between it and the CA, and its key.
    pub ours: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    /// Any certificate is taken, whoever signed it and whatever name it has.
    pub unverified: bool,
}

/// The settings of all connections. Two that are equal were made of the same.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    made_of: Arc<Identity>,
}

impl Tls {
    /// The settings.
    ///
    /// # Errors
    /// No certificate to trust that can be read; a key that is not our certificate's.
    pub fn new(identity: Identity) -> Result<Tls, Error> {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(identity.trusted.iter().cloned());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = if identity.unverified {
            let verifier = Arc::new(Unverified(provider));
            builder
                .dangerous()
                .with_custom_certificate_verifier(verifier)
        } else {
            if added == 0 {
                return Err(Error::General("no certificate that can be read".to_owned()));
            }
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| Error::General(error.to_string()))?;
            builder.with_webpki_verifier(verifier)
        };
        let config = match &identity.ours {
            Some((chain, key)) => builder.with_client_auth_cert(chain.clone(), key.clone_key())?,
            None => builder.with_no_client_auth(),
        };
        Ok(Tls {
            config: Arc::new(config),
            made_of: Arc::new(identity),
        })
    }

    /// True when any certificate is taken.
    pub fn is_unverified(&self) -> bool {
        self.made_of.unverified
    }

    /// True when we have a certificate to show.
    pub fn has_identity(&self) -> bool {
        self.made_of.ours.is_some()
    }

    /// A connection that has not begun yet.
    pub(super) fn session(&self, address: &Address) -> Result<ClientConnection, Error> {
        let name = ServerName::try_from(address.host().to_owned())
            .map_err(|_| Error::General("the host is no name that a certificate has".to_owned()))?;
        let mut session = ClientConnection::new(Arc::clone(&self.config), name)?;
        session.set_buffer_limit(None); // the writer takes away what it has put in
        Ok(session)
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Tls) -> bool {
        let (a, b) = (&self.made_of, &other.made_of);
        let key = |identity: &Identity| {
            let ours = identity.ours.as_ref();
            ours.map(|(chain, key)| (chain.clone(), key.secret_der().to_vec()))
        };
        a.trusted == b.trusted && a.unverified == b.unverified && key(a) == key(b)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("trusted", &self.made_of.trusted.len())
            .field("identity", &self.has_identity())
            .field("unverified", &self.made_of.unverified)
            .finish()
    }
}

/// What the reader of the message can change.
pub fn hint(error: &Error) -> &'static str {
    use CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
        NotValidYetContext, UnknownIssuer,
    };
    match error {
        Error::InvalidCertificate(UnknownIssuer) => {
            "give the CA that signed the broker's certificate: kafka.tls.ca_file, --tls-ca-file"
        }
        Error::InvalidCertificate(Expired | ExpiredContext { .. }) => {
            "renew the broker's certificate, or set the clock"
        }
        Error::InvalidCertificate(NotValidYet | NotValidYetContext { .. }) => {
            "set the clock, here or where the certificate was made"
        }
        Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
            "use a name of the broker that its certificate has, also in advertised.listeners"
        }
        Error::InvalidCertificate(_) => "the broker needs another certificate",
        Error::InvalidMessage(_) => "this listener may be one without TLS",
        Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::HandshakeFailure,
        ) => {
            "the broker may want a certificate of ours that it trusts: kafka.tls.cert_file, --tls-cert-file"
        }
        Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::UnsupportedCertificate,
        ) => {
            "the broker does not trust our certificate: see its truststore, and ours in kafka.tls.cert_file"
        }
        Error::AlertReceived(AlertDescription::ProtocolVersion) | Error::PeerIncompatible(_) => {
            "the broker must offer TLS 1.2 or 1.3: see its ssl.enabled.protocols"
        }
        _ => "see the broker's log",
    }
}

/// Takes any certificate; only that the broker has its key is checked.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
