//! From files in PEM to the TLS settings of the HTTP client.
//!
//! Everything that could be wrong with the files is found here: the client
//! itself would panic at a key that does not fit its certificate.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use super::endpoint::Endpoint;
use super::failure::{Failure, Kind, Step};
use super::options::Tls;
use crate::text::shown;

/// Largest file of certificates that is read; those of a whole system have 250 KB.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Where systems keep the certificates they trust: Debian, Red Hat, SUSE, Alpine.
const SYSTEM_CA_FILES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What is wrong with which file, and what to change.
#[derive(Debug)]
struct Wrong(String, &'static str);

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
    made.map_err(|Wrong(problem, hint)| {
        Failure::new(endpoint, Step::Tls, Kind::Refused, problem).with_hint(hint)
    })
}

fn build(files: &Tls) -> Result<TlsConfig, Wrong> {
    let provider = Arc::new(ring::default_provider());
    let trusted = Arc::new(trusted(files.ca_file.as_deref())?);
    let ours = match (&files.cert_file, &files.key_file) {
        (Some(cert), Some(key)) => Some(client_cert(cert, key, &provider)?),
        (None, None) => None,
        _ => {
            return Err(Wrong(
                "a certificate needs its key, and a key its certificate".to_owned(),
                "set both etcd.tls.cert_file and etcd.tls.key_file, or neither",
            ));
        }
    };
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::Specific(trusted))
        .client_cert(ours)
        .unversioned_rustls_crypto_provider(provider)
        .build())
}

fn trusted(ca_file: Option<&Path>) -> Result<Vec<Certificate<'static>>, Wrong> {
    let system = || SYSTEM_CA_FILES.iter().map(PathBuf::from);
    let path = ca_file
        .map(Path::to_owned)
        .or_else(|| system().find(|path| path.exists()));
    let path = path.ok_or_else(|| {
        Wrong(
            "this system has no file of trusted certificates where one is usual".to_owned(),
            "set etcd.tls.ca_file",
        )
    })?;
    certificates(
        &path,
        "etcd.tls.ca_file must name a PEM file with CERTIFICATE in it",
    )
}

fn client_cert(
    cert_file: &Path,
    key_file: &Path,
    provider: &Arc<CryptoProvider>,
) -> Result<ClientCert, Wrong> {
    const CERT_HINT: &str = "etcd.tls.cert_file must name a PEM file with CERTIFICATE in it";
    const KEY_HINT: &str = "etcd.tls.key_file must name a PEM file with an unencrypted PRIVATE KEY";
    let chain = certificates(cert_file, CERT_HINT)?;
    let pem = read(key_file, KEY_HINT)?;
    let no_key = || Wrong(format!("no private key in {}", shown(key_file)), KEY_HINT);
    let key = PrivateKey::from_pem(&pem).map_err(|_| no_key())?;

    let ders = chain
        .iter()
        .map(|cert| CertificateDer::from(cert.der().to_vec()));
    let der = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| no_key())?;
    ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_root_certificates(RootCertStore::empty()))
        .and_then(|builder| builder.with_client_auth_cert(ders.collect(), der))
        .map_err(|error| {
            let (cert, key) = (shown(cert_file), shown(key_file));
            Wrong(
                format!("{key} is not the key of {cert}: {error}"),
                "etcd.tls.key_file must belong to the first certificate in etcd.tls.cert_file",
            )
        })?;
    Ok(ClientCert::new_with_certs(&chain, key))
}

/// The certificates in a file, at least one.
fn certificates(path: &Path, hint: &'static str) -> Result<Vec<Certificate<'static>>, Wrong> {
    let found: Vec<_> = parse_pem(&read(path, hint)?)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        return Err(Wrong(format!("no certificate in {}", shown(path)), hint));
    }
    Ok(found)
}

fn read(path: &Path, hint: &'static str) -> Result<Vec<u8>, Wrong> {
    let size = fs::metadata(path).map(|meta| meta.len());
    let content = match size {
        Ok(size) if size > FILE_BYTES_MAX => {
            return Err(Wrong(format!("{} has {size} bytes", shown(path)), hint));
        }
        Ok(_) => fs::read(path),
        Err(error) => Err(error),
    };
    content.map_err(|error| Wrong(format!("cannot read {}: {error}", shown(path)), hint))
}
