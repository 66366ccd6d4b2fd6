//! The TLS settings of the HTTP client.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

use super::super::pem::{self, PemFile, Wrong};
use super::endpoint::Endpoint;
use super::failure::{Failure, Kind, Step};
use super::options::Tls;

/// The settings for an endpoint; those of `http` need no files.
///
/// # Errors
/// The file that cannot be used, in step TLS.
pub fn config(endpoint: &Endpoint, tls: Option<&Tls>) -> Result<TlsConfig, Failure> {
    let empty = Tls::default();
    let files = tls.unwrap_or(&empty);
    let made = if endpoint.is_tls() {
        build(files)
    } else {
        Ok(TlsConfig::default())
    };
    made.map_err(|(problem, hint)| {
        Failure::new(endpoint, Step::Tls, Kind::Refused, problem).with_hint(hint)
    })
}

fn build(files: &Tls) -> Result<TlsConfig, (String, &'static str)> {
    let (trusted, _) = pem::trusted(files.ca_file.as_deref()).map_err(told)?;
    let ours = match (&files.cert_file, &files.key_file) {
        (Some(cert), Some(key)) => {
            let ((chain, _), _) = pem::identity(cert, key).map_err(told)?;
            let key = pem::read(key, PemFile::Key).and_then(|pem| {
                PrivateKey::from_pem(&pem).map_err(|_| PemFile::Key.holds_none(key))
            });
            let key = key.map_err(told)?;
            Some(ClientCert::new_with_certs(&certificates(&chain), key))
        }
        (None, None) => None,
        _ => {
            return Err((
                "a certificate needs its key, and a key its certificate".to_owned(),
                "set both etcd.tls.cert_file and etcd.tls.key_file, or neither",
            ));
        }
    };
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(certificates(&trusted))))
        .client_cert(ours)
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .build())
}

fn certificates(ders: &[CertificateDer]) -> Vec<Certificate<'static>> {
    let owned = |der: &CertificateDer| Certificate::from_der(der).to_owned();
    ders.iter().map(owned).collect()
}

/// What is wrong, and what to change.
fn told(wrong: Wrong) -> (String, &'static str) {
    let hint = match wrong.file {
        PemFile::Ca => "etcd.tls.ca_file must name a PEM file with CERTIFICATE in it",
        PemFile::Cert => "etcd.tls.cert_file must name a PEM file with CERTIFICATE in it",
        PemFile::Key => {
            "etcd.tls.key_file must name a PEM file with the unencrypted PRIVATE KEY of the first certificate in etcd.tls.cert_file"
        }
    };
    (wrong.problem, hint)
}
