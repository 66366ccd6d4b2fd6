//! TLS: what is trusted, who we are, and what goes wrong in words.
//!
//! It makes the settings of connections from certificates that somebody else has
//! read, and touches no file and no socket.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
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

    /// When our certificate stopped being valid, if it has by `now` (RFC 5280 section
    /// 4.1.2.5): brokers refuse it, and few say why.
    pub fn expired_at(&self, now: SystemTime) -> Option<SystemTime> {
        let (chain, _) = self.made_of.ours.as_ref()?;
        let (ours, between) = chain.split_first()?;
        // Whoever has signed it: its time is looked at first.
        let mut roots = RootCertStore::empty();
        roots.add(chain.last()?.clone()).ok()?;
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).ok()?);
        match verifier
            .build()
            .ok()?
            .verify_client_cert(ours, between, now)
        {
            Err(Error::InvalidCertificate(CertificateError::ExpiredContext {
                not_after, ..
            })) => Some(UNIX_EPOCH + Duration::from_secs(not_after.as_secs())),
            _ => None,
        }
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

/// Names of a certificate that a message shows, and of each that many characters: whoever
/// has made it may have put in a thousand.
const NAMES_MAX: usize = 5;
const NAME_CHARS_MAX: usize = 300;

/// What went wrong, as the library says it, and as much of it as a person reads.
pub fn brief(error: &Error) -> String {
    use CertificateError::NotValidForNameContext;
    let Error::InvalidCertificate(NotValidForNameContext {
        expected,
        presented,
    }) = error
    else {
        return error.to_string();
    };
    let first = presented.iter().take(NAMES_MAX);
    let first = first.map(|name| name.chars().take(NAME_CHARS_MAX).collect());
    let brief = Error::InvalidCertificate(NotValidForNameContext {
        expected: expected.clone(),
        presented: first.collect(),
    });
    match presented.len().saturating_sub(NAMES_MAX) {
        0 => brief.to_string(),
        more => format!("{brief}, and {more} more"),
    }
}

/// What went wrong, in words also where the library has a name only.
pub fn told(error: &Error) -> String {
    let told = brief(error);
    match () {
        () if told.contains("CaUsedAsEndEntity") => "the broker's certificate is one of a CA",
        () if told.contains("UnsupportedCertVersion") => {
            "the broker's certificate is older than X.509 version 3"
        }
        () => return told,
    }
    .to_owned()
}

/// What the reader of the message can change.
pub fn hint(error: &Error) -> &'static str {
    use CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
        NotValidYetContext, Other, UnknownIssuer,
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
        Error::InvalidCertificate(Other(_)) => {
            "give the broker a certificate of version 3 without CA:TRUE, signed by a CA"
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
            "the broker does not trust our certificate, or it has expired: see its truststore, and ours in kafka.tls.cert_file"
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

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CertifiedIssuer, KeyPair, date_time_ymd};

    use super::*;

    /// Of a client, signed by an authority and good for the year 2020.
    fn of_2020(with_authority: bool) -> Tls {
        let key = || KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(CertificateParams::default(), key()).unwrap();
        let mut params = CertificateParams::default();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        let ours = key();
        let mut chain = vec![params.signed_by(&ours, &issuer).unwrap().der().clone()];
        if with_authority {
            chain.push(issuer.der().clone());
        }
        let key = PrivateKeyDer::try_from(ours.serialize_der()).unwrap();
        let identity = Identity {
            trusted: Vec::new(),
            ours: Some((chain, key)),
            unverified: true,
        };
        Tls::new(identity).unwrap()
    }

    /// A certificate with 1,500 names made a message of 71 KB, again at every attempt.
    #[test]
    fn of_a_certificate_with_many_names_a_message_shows_a_few() {
        let told = |names: &[String]| {
            brief(&Error::InvalidCertificate(
                CertificateError::NotValidForNameContext {
                    expected: ServerName::try_from("kafka1").unwrap(),
                    presented: names.to_vec(),
                },
            ))
        };
        let names: Vec<String> = (0..1_500).map(|n| format!("node{n}.example")).collect();
        let all = told(&names[..5]);
        assert!(all.ends_with("node3.example or node4.example"), "{all}");
        assert_eq!(told(&names), format!("{all}, and 1495 more"));
        let long = told(&["x".repeat(60_000)]);
        assert!(long.len() < 1_000, "{} bytes", long.len());
    }

    #[test]
    fn a_certificate_of_ours_is_known_to_have_expired() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let end = at(1_609_459_200); // 2021-01-01
        for with_authority in [false, true] {
            let tls = of_2020(with_authority);
            assert_eq!(tls.expired_at(at(1_600_000_000)), None);
            assert_eq!(tls.expired_at(SystemTime::now()), Some(end));
        }
    }
}
