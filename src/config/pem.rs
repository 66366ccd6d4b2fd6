//! Certificates and keys from files in PEM, for whoever speaks TLS.
//!
//! Everything that could be wrong with the files is found here: what uses them
//! later would say less, or panic. What was wrong is told; what to change about
//! it is known by whoever has named the file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
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

/// How a certificate begins (RFC 7468).
const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// What is said beside a key that cannot be used: what ring can sign with.
const USABLE: &str = "a key that can be used is RSA of 2048 to 4096 bits, ECDSA P-256 or P-384, or Ed25519, and not encrypted";
/// What shows in PEM that a key cannot be read.
const UNREADABLE: [(&str, &str); 4] = [
    ("-----BEGIN ENCRYPTED PRIVATE KEY-----", "an encrypted key"),
    ("Proc-Type: 4,ENCRYPTED", "an encrypted key"), // RFC 1421 section 4.6.1.1
    ("-----BEGIN DSA PRIVATE KEY-----", "a DSA key"),
    (
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        "a key in the format of OpenSSH",
    ),
];
/// Kinds of keys that cannot be used, by their object identifiers; RSA and EC as such come
/// last: of them, only other sizes and curves get here.
const UNUSABLE: [(&[u8], &str); 8] = [
    (b"\x06\x05\x2b\x81\x04\x00\x23", "an ECDSA P-521 key"),
    (b"\x06\x05\x2b\x81\x04\x00\x0a", "an ECDSA secp256k1 key"),
    (b"\x06\x05\x2b\x81\x04\x00\x21", "an ECDSA P-224 key"),
    (b"\x06\x07\x2a\x86\x48\xce\x38\x04\x01", "a DSA key"),
    (b"\x06\x03\x2b\x65\x71", "an Ed448 key"),
    (
        b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a",
        "an RSA-PSS key",
    ),
    (
        b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01",
        "an RSA key of another size",
    ),
    (
        b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01",
        "an ECDSA key of another curve",
    ),
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

/// The certificates that are trusted: those of a file, else of the system. Beside them
/// what is wrong with others, which are left away.
///
/// # Errors
/// A file without a certificate that can be used, or that cannot be read.
pub fn trusted(
    ca_file: Option<&Path>,
) -> Result<(Vec<CertificateDer<'static>>, Vec<String>), Wrong> {
    let system = || SYSTEM_CA_FILES.iter().map(PathBuf::from);
    let path = ca_file
        .map(Path::to_owned)
        .or_else(|| system().find(|path| path.exists()));
    let path = path.ok_or_else(|| {
        let problem = "this system has no file of trusted certificates where one is usual";
        PemFile::Ca.wrong(problem.to_owned())
    })?;
    let (bad, good): (Vec<_>, Vec<_>) = certificates(&path, PemFile::Ca)?
        .into_iter()
        .partition(|found| found.problem.is_some());
    let bad: Vec<String> = bad.into_iter().filter_map(|found| found.problem).collect();
    let good: Vec<_> = good.into_iter().filter_map(|found| found.der).collect();
    match bad.first() {
        Some(first) if good.is_empty() => {
            let path = shown(&path);
            let problem = format!("no certificate in {path} can be used: {first}");
            Err(PemFile::Ca.wrong(problem))
        }
        _ => Ok((good, bad)),
    }
}

/// Our certificate and its key. Beside them what is wrong with certificates between ours
/// and the CA: what whoever is shown them may know better.
///
/// # Errors
/// A file without what it should hold, or that cannot be read; a key of another
/// certificate.
pub fn identity(cert_file: &Path, key_file: &Path) -> Result<(Identity, Vec<String>), Wrong> {
    let (mut chain, mut bad) = (Vec::new(), Vec::new());
    for found in certificates(cert_file, PemFile::Cert)? {
        match (found.der, found.problem) {
            (None, problem) => return Err(PemFile::Cert.wrong(problem.unwrap_or_default())),
            (Some(der), problem) => {
                bad.extend(problem);
                chain.push(der);
            }
        }
    }
    let pem = read(key_file, PemFile::Key)?;
    let no_use = |kind| PemFile::Key.wrong(format!("{} holds {kind}: {USABLE}", shown(key_file)));
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| match unreadable_kind(&pem) {
        Some(kind) => no_use(kind),
        None => PemFile::Key.holds_none(key_file),
    })?;
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_root_certificates(RootCertStore::empty()))
        .and_then(|builder| builder.with_client_auth_cert(chain.clone(), key.clone_key()))
        .map_err(|error| {
            let (key_der, cert, key) = (&key, shown(cert_file), shown(key_file));
            match error {
                rustls::Error::InconsistentKeys(_) => {
                    PemFile::Key.wrong(format!("{key} is not the key of {cert}"))
                }
                rustls::Error::InvalidCertificate(problem) => {
                    PemFile::Cert.wrong(format!("{cert} cannot be used: {problem}"))
                }
                problem => match unusable_kind(key_der.secret_der()) {
                    Some(kind) => no_use(kind),
                    None => PemFile::Key.wrong(format!("{key} cannot be used: {problem}")),
                },
            }
        })?;
    Ok(((chain, key), bad))
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

/// What stands in PEM as a key and is none that can be read, by its label.
fn unreadable_kind(pem: &[u8]) -> Option<&'static str> {
    let has = |text: &str| pem.windows(text.len()).any(|part| part == text.as_bytes());
    UNREADABLE
        .iter()
        .find(|(label, _)| has(label))
        .map(|(_, kind)| *kind)
}

/// What kind of key it is, of those that cannot be used. What names the kind stands in
/// the key as it is (X.690 section 8.19), wherever its form has it.
fn unusable_kind(der: &[u8]) -> Option<&'static str> {
    let has = |oid: &[u8]| der.windows(oid.len()).any(|part| part == oid);
    let known = UNUSABLE.iter().find(|(oid, _)| has(oid));
    known.map(|(_, kind)| *kind)
}

/// A certificate in a file.
struct Found {
    /// `None` when it cannot be made out.
    der: Option<CertificateDer<'static>>,
    /// What is wrong with it: which one it is, in which line it begins, and why.
    problem: Option<String>,
}

/// The certificates in a file, good or bad, at least one.
fn certificates(path: &Path, file: PemFile) -> Result<Vec<Found>, Wrong> {
    let pem = read(path, file)?;
    let sections = sections(&pem).into_iter().enumerate();
    let found = sections.map(|(n, (line, section))| {
        let der = CertificateDer::from_pem_slice(section).map_err(|error| match error {
            pem::Error::NoItemsFound | pem::Error::MissingSectionEnd { .. } => {
                "its end is missing".to_owned()
            }
            error => error.to_string(),
        });
        let parsed = der.clone().and_then(|der| {
            let parsed = RootCertStore::empty().add(der);
            parsed.map_err(|error| match error {
                rustls::Error::InvalidCertificate(why) => why.to_string(), // it is no peer's
                error => error.to_string(),
            })
        });
        let (n, path) = (n + 1, shown(path));
        let told = |why| format!("certificate {n} in {path} (line {line}) cannot be used: {why}");
        Found {
            der: der.ok(),
            problem: parsed.err().map(told),
        }
    });
    let found: Vec<Found> = found.collect();
    if found.is_empty() {
        return Err(file.holds_none(path));
    }
    Ok(found)
}

/// Where certificates begin: the line, counted from 1, and all from there on to the next.
fn sections(pem: &[u8]) -> Vec<(usize, &[u8])> {
    let mut begins = Vec::new();
    let (mut at, mut line) = (0, 1);
    for text in pem.split_inclusive(|byte| *byte == b'\n') {
        if text.starts_with(BEGIN) {
            begins.push((at, line));
        }
        (at, line) = (at + text.len(), line + 1);
    }
    let ends = begins.iter().skip(1).map(|(at, _)| *at).chain([pem.len()]);
    let sections = begins.iter().zip(ends);
    sections
        .map(|(&(at, line), end)| (line, &pem[at..end]))
        .collect()
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

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    /// A certificate in PEM, and its key.
    fn issued() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// One that is no certificate, though it is PEM; and one that is not even that.
    const NO_DER: &str = "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n";
    const NO_PEM: &str = "-----BEGIN CERTIFICATE-----\nM?==\n-----END CERTIFICATE-----\n";
    const NO_END: &str = "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n";

    /// Of a CA file the bad certificates were left away without a word: that the CA is not
    /// trusted showed only in a handshake, and not why.
    #[test]
    fn a_bad_certificate_among_good_ones_is_told_with_its_number_and_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        let (good, _) = issued();
        let text = format!("# ours\n{good}{NO_DER}{NO_PEM}{NO_END}{good}");
        fs::write(&file, &text).unwrap();
        let (trusted, bad) = trusted(Some(&file)).unwrap();
        assert_eq!((trusted.len(), bad.len()), (2, 3), "{bad:?}");
        let first = 2 + good.lines().count();
        for (n, (told, why)) in bad
            .iter()
            .zip(["Encoding", "", "its end is missing"])
            .enumerate()
        {
            let at = format!(
                "certificate {} in {} (line {}) cannot be used: ",
                n + 2,
                file.display(),
                first + 3 * n
            );
            assert!(told.starts_with(&at) && told.contains(why), "{told}\n{at}");
        }
    }

    #[test]
    fn a_file_without_a_usable_certificate_is_named_with_the_first_reason() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        fs::write(&file, format!("{NO_DER}{NO_PEM}")).unwrap();
        let told = trusted(Some(&file)).unwrap_err().problem;
        let path = file.display();
        let due = format!(
            "no certificate in {path} can be used: certificate 1 in {path} (line 1) cannot be used: "
        );
        assert!(told.starts_with(&due), "{told}");
    }

    #[test]
    fn a_bad_certificate_in_our_chain_is_told_with_its_number_and_line() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        let (ours, private) = issued();
        fs::write(&key, private).unwrap();
        let at = ours.lines().count() + 1;
        let due = format!("certificate 2 in {} (line {at})", cert.display());

        fs::write(&cert, format!("{ours}{NO_DER}")).unwrap();
        let ((chain, _), bad) = identity(&cert, &key).unwrap();
        assert_eq!((chain.len(), bad.len()), (2, 1));
        assert!(bad[0].starts_with(&due), "{bad:?}");

        fs::write(&cert, format!("{ours}{NO_PEM}")).unwrap();
        let told = identity(&cert, &key).unwrap_err().problem;
        assert!(told.starts_with(&due), "{told}");

        fs::write(&cert, format!("{NO_DER}{ours}")).unwrap();
        let told = identity(&cert, &key).unwrap_err().problem;
        assert!(told.contains(&cert.display().to_string()), "{told}");
    }

    /// Made for this test, and used nowhere: SEC 1, PKCS#8, and both ways to encrypt one.
    const KEYS: [(&str, &str); 7] = [
        (
            "an ECDSA P-521 key",
            "-----BEGIN EC PRIVATE KEY-----\n\
             MIHcAgEBBEIB9ypaB2We1QTDKlZJpiIEcHmjdggl4gkyRZc3J1Y2G7Gvh/9yXAxu\n\
             U7u9HSUjgoT05nbSM66nhGbnrsSAuEsQznGgBwYFK4EEACOhgYkDgYYABAE5Cu4l\n\
             5dNUAY29dfqpibjnsvS5XhGfdcGpaNeGtCND7reLO6hdE0bZz+pMBNtVUg5IjIQy\n\
             0rh3c2kEyI4tY3SgcwF3T1s6qCHE2F1QT/7xJhmzc642yABNn4dNM9adI851D5lP\n\
             ISdz+srNzgEBQLMKhsOPRhY5DT6h/pfNzWw2TSKmzw==\n\
             -----END EC PRIVATE KEY-----\n",
        ),
        (
            "an ECDSA secp256k1 key",
            "-----BEGIN PRIVATE KEY-----\n\
             MIGEAgEAMBAGByqGSM49AgEGBSuBBAAKBG0wawIBAQQg0znf/c+QzoJmZssGEzNz\n\
             Hv79NlXcvXFk4B6cAFo5OxmhRANCAAT7w1Xbpce8bXa/bJL/O+IRQuF2XGeJ3IGF\n\
             rnybJCSMYrlBzgMqhMs6ad2kWA51flGV1kkN4raaoWkWpP3JC15V\n\
             -----END PRIVATE KEY-----\n",
        ),
        (
            "an Ed448 key",
            "-----BEGIN PRIVATE KEY-----\n\
             MEcCAQAwBQYDK2VxBDsEOYaHX0lEYFmNNYsH1UgZg2LZl3Xw0M/06XDrtDvWhE/f\n\
             2towuT3Hqv9x+yT8sWsCQ9nekZ0IthgQTA==\n\
             -----END PRIVATE KEY-----\n",
        ),
        (
            "a DSA key",
            "-----BEGIN PRIVATE KEY-----\n\
             MIIBWwIBADCCATQGByqGSM44BAEwggEnAoGBAOoIbz2r/K52jbRv3u2A/EqwWQPn\n\
             hRC5s3QRiLk7mwTSF6lUYSFSfU+DJ9chl67wYvDvMwSxYDxzJJqSJpgDex9Jxpfc\n\
             OO4TUzD/hejU2hcVpCW7FutfUQjb9k3xa0iIEI20RTj4BYiuqm60YFvaRrf4sztw\n\
             t5XJG3QjmT0RIdBPAh0A/IvUkLfdSSXt1WxUeXGoo2S2YupmdmgCq90xNwKBgQC2\n\
             L0Iqr+nIQhGfsKMYX3LqisHJaQY2UxCQkHs/7ERIFhrrQzWySrUPAem6t4gS518E\n\
             VGugZizRuoAnAEKpbw/bsnogfdneESFVkZlCd2vvUam8ACh5lrQWTG3DNzN0Nmmv\n\
             NS/hHLMUmT4vDugtL8mab3jyjau4/oURZo1QME0NHgQeAhxF6SkrvpZRAHUf4/VR\n\
             DqUQrAoyurKn1iGoIIM+\n\
             -----END PRIVATE KEY-----\n",
        ),
        (
            "an encrypted key",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\n\
             MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAjmYsgdQNPYjQICCAAw\n\
             DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEFh6IsEh+jDlsdGg0DeUnm0EgZAA\n\
             blYWCjTFwR+0fau/INZmUV7HkL+8f0cFKAEVZxooyysF4cKTpsLWTjo8HFEIcoqt\n\
             DWLw1SE9lB2h4QNvez1s7YJB1JvADJQxbXcYYVLlK2Gs0lXm7sXE9n5cgM/XchtV\n\
             Woz6JH2sstqpA4wqaDJoxSCBWowicnLusWukL2APAxr8BwhYKMBuHbYE2oJOOXY=\n\
             -----END ENCRYPTED PRIVATE KEY-----\n",
        ),
        (
            "an encrypted key",
            "-----BEGIN EC PRIVATE KEY-----\n\
             Proc-Type: 4,ENCRYPTED\n\
             DEK-Info: AES-128-CBC,284DCBD8F42B58CF204C951D05E0D7EE\n\
             \n\
             Em0nirAaTrP1D5z7E25Ck6E4UZqru1Tgxd7YWE+9l2Q7ozfFReep3Ek0j69VfSDz\n\
             tnn/ZtRFiuyvzpFzOy28bfk8ZriqG1dM/r/j6j6mShqxUrRrE4AvXiaJlE64EVLE\n\
             PKYAiFuQp1UIb9JFq9b0HnFvLC+0WE+mxc1pW/+7ZG8=\n\
             -----END EC PRIVATE KEY-----\n",
        ),
        (
            "an RSA key of another size",
            "-----BEGIN PRIVATE KEY-----\n\
             MIICdwIBADANBgkqhkiG9w0BAQEFAASCAmEwggJdAgEAAoGBANYvbALf5AaYsRqa\n\
             NvV7ct7SaM9nmE6cNbTS4HW2KcQmE6vRfKBY7DWRKXSEr5rZihrKxeNcDHoXWXOp\n\
             JOf6c12uY3L+tn7a90h/kkV/cqmx5r/1CaY7zPKGzcM8OxI8FPbfQnG83Fx6GFVE\n\
             uUxyqtzSEGgh+ylt/GtQzy+2RtP3AgMBAAECgYEAlZi9qixSicDwQhJgPIkirDrt\n\
             9Z73pEA6yrdXCyBWf6fQqXtBvoUdRjTDbZyXQmKasSfbm3dZR5UzZzNGkbg+BnLt\n\
             tGhSzChpOZV7Ahxj7R8tQ+EqC/5/AT3ozXNBb8yDdAu5dU6c11cH+QTxYNOlP3h9\n\
             VaP0tQsWxBABdrDGaQECQQD4jwTeerIipwpbBDPWS12CXcwy6bIk+oqlEdUXwMNt\n\
             T62470MQCbDdYp12hqlAzML1r8Fvwr1/mTnXrMfMg503AkEA3Jj2D9FhE4Lpnz6C\n\
             dSQoQIX+SuOUVtSOCoyhfRsXh5/jzbHWqChlPAE68vNlhiYpiHXTCf19y5/VgKox\n\
             UN/fQQJAfKQ7bNVaPsZFCx8wX2WrnpQqsd0+2AxLOjuXADJJzacHFpXkq0YwytOI\n\
             4sbkWPpVSZ65AbJGFJZhyyV5i7T0QQJAZlVHAHt+7xAx1D+pQTIuwg/msVL1g3pD\n\
             Ej2+xEyHE9FmWgt/qq5il/1yHTYwCJU3eyg9aEsByi4xWuiYzA2ugQJBANGTniHh\n\
             odCJvtundfn56YopIvVvq8d8Hx95LGncN4y7JsVWb9AsFpvfY7cK/YGcdm3qK+yx\n\
             XtiVoikB9RRLTbo=\n\
             -----END PRIVATE KEY-----\n",
        ),
    ];

    /// "no private key", or "failed to parse private key as RSA, ECDSA, or EdDSA".
    #[test]
    fn a_key_that_cannot_be_used_is_told_with_its_kind_and_those_that_can() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        fs::write(&cert, issued().0).unwrap();
        for (kind, pem) in KEYS {
            fs::write(&key, pem).unwrap();
            let told = identity(&cert, &key).unwrap_err().problem;
            assert_eq!(told, format!("{} holds {kind}: {USABLE}", key.display()));
        }
    }
}
