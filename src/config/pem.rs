//! Certificates and keys from files in PEM, for whoever speaks TLS.
//!
//! Everything that could be wrong with the files is found here: what uses them
//! later would say less, or panic. What was wrong is told; what to change about
//! it is known by whoever has named the file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::small;
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

/// A certificate with what is between it and the CA, and its key.
pub type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Which file is wrong, and what is wrong with it.
#[derive(Debug)]
pub struct Wrong {
    /// Which of them.
    pub file: PemFile,
    /// What is wrong, with its name.
    pub problem: String,
}

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PemFile {
    /// Certificates that may have signed others.
    Ca,
    /// Our certificate.
    Cert,
    /// The key of our certificate.
    Key,
}

/// The certificates that are trusted: those of a file, else of the system.
///
/// # Errors
/// A file without certificates, or that cannot be read.
pub fn trusted(ca_file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    let system = || SYSTEM_CA_FILES.iter().map(PathBuf::from);
    let path = ca_file
        .map(Path::to_owned)
        .or_else(|| system().find(|path| path.exists()));
    let path = path.ok_or_else(|| {
        let problem = "this system has no file of trusted certificates where one is usual";
        PemFile::Ca.wrong(problem.to_owned())
    })?;
    certificates(&path, PemFile::Ca)
}

/// Our certificate and its key.
///
/// # Errors
/// A file without what it should hold, or that cannot be read; a key of another
/// certificate.
pub fn identity(cert_file: &Path, key_file: &Path) -> Result<Identity, Wrong> {
    let chain = certificates(cert_file, PemFile::Cert)?;
    let key = PrivateKeyDer::from_pem_slice(&read(key_file, PemFile::Key)?)
        .map_err(|_| PemFile::Key.holds_none(key_file))?;
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_root_certificates(RootCertStore::empty()))
        .and_then(|builder| builder.with_client_auth_cert(chain.clone(), key.clone_key()))
        .map_err(|error| {
            let (cert, key) = (shown(cert_file), shown(key_file));
            match error {
                rustls::Error::InconsistentKeys(_) => {
                    PemFile::Key.wrong(format!("{key} is not the key of {cert}"))
                }
                rustls::Error::InvalidCertificate(problem) => {
                    PemFile::Cert.wrong(format!("{cert} cannot be used: {problem}"))
                }
                problem => PemFile::Key.wrong(format!("{key} cannot be used: {problem}")),
            }
        })?;
    Ok((chain, key))
}

impl PemFile {
    /// The file is there, but what it should hold is not in it.
    pub fn holds_none(self, path: &Path) -> Wrong {
        let what = match self {
            PemFile::Ca | PemFile::Cert => "certificate",
            PemFile::Key => "private key",
        };
        self.wrong(format!("no {what} in {}", shown(path)))
    }

    fn wrong(self, problem: String) -> Wrong {
        Wrong {
            file: self,
            problem,
        }
    }
}

/// The certificates in a file, at least one.
fn certificates(path: &Path, file: PemFile) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    let pem = read(path, file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|error| {
        file.wrong(format!(
            "a certificate in {} cannot be read: {error}",
            shown(path)
        ))
    })?;
    if found.is_empty() {
        return Err(file.holds_none(path));
    }
    Ok(found)
}

/// What is in a file.
///
/// # Errors
/// It cannot be read, or is too large for what it should hold.
pub fn read(path: &Path, file: PemFile) -> Result<Vec<u8>, Wrong> {
    let content = small::read(path, FILE_BYTES_MAX + 1)
        .map_err(|error| file.wrong(format!("cannot read {}: {error}", shown(path))))?;
    if content.len() as u64 > FILE_BYTES_MAX {
        let problem = format!("{} has more than {FILE_BYTES_MAX} bytes", shown(path));
        return Err(file.wrong(problem));
    }
    Ok(content)
}
