//! From what was said of TLS and SASL to what the Kafka client is to do.
//!
//! A config file and the command line say the same under different names, so what
//! is wrong is told of a [`Setting`], which has both.

use std::path::PathBuf;
use std::time::SystemTime;

use crate::kafka::{Address, Identity, Login, Options, Sasl, ScramHash, Secret, Tls};
use crate::text::shown;

use super::pem::{self, PemFile};

/// What was said; what was not said is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecurityRequest {
    /// The name that other clients have for both.
    pub protocol: Option<Protocol>,
    /// TLS.
    pub tls: Option<TlsRequest>,
    /// Logging in.
    pub sasl: Option<SaslRequest>,
}

/// Who says it, for what must be said in their own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// A config.
    InConfig,
    /// Options and variables.
    Typed,
}

/// `security.protocol` of other clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocol {
    /// With TLS.
    pub tls: bool,
    /// With a login.
    pub sasl: bool,
}

/// Files in PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsRequest {
    /// Who may have signed the brokers' certificates; else whom the system trusts.
    pub ca_file: Option<PathBuf>,
    /// Our certificate.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
    /// Take any certificate.
    pub insecure_skip_verify: bool,
}

/// How to log in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SaslRequest {
    /// Which mechanism.
    pub mechanism: Option<Mechanism>,
    /// The user.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
    /// Where a token is.
    pub token_file: Option<PathBuf>,
}

/// A mechanism of SASL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// PLAIN.
    Plain,
    /// SCRAM-SHA-256 or SCRAM-SHA-512.
    Scram(ScramHash),
    /// OAUTHBEARER.
    OauthBearer,
}

/// What can be said of security, for whoever tells what is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// `kafka.security_protocol`
    Protocol,
    /// `kafka.tls.ca_file`
    CaFile,
    /// `kafka.tls.cert_file`
    CertFile,
    /// `kafka.tls.key_file`
    KeyFile,
    /// `kafka.tls.insecure_skip_verify`
    Insecure,
    /// `kafka.sasl`
    Sasl,
    /// `kafka.sasl.mechanism`
    Mechanism,
    /// `kafka.sasl.username`
    Username,
    /// `kafka.sasl.password_file`
    PasswordFile,
    /// `kafka.sasl.token_file`
    TokenFile,
}

/// The names of `security.protocol`.
pub const PROTOCOLS: &[(&str, Protocol)] = &[
    ("PLAINTEXT", Protocol::of(false, false)),
    ("SSL", Protocol::of(true, false)),
    ("SASL_PLAINTEXT", Protocol::of(false, true)),
    ("SASL_SSL", Protocol::of(true, true)),
];

/// The names of mechanisms.
pub const MECHANISMS: &[(&str, Mechanism)] = &[
    ("PLAIN", Mechanism::Plain),
    ("SCRAM-SHA-256", Mechanism::Scram(ScramHash::Sha256)),
    ("SCRAM-SHA-512", Mechanism::Scram(ScramHash::Sha512)),
    ("OAUTHBEARER", Mechanism::OauthBearer),
];

/// What is wrong with a setting.
pub type Problem = (Setting, String);

impl Protocol {
    const fn of(tls: bool, sasl: bool) -> Protocol {
        Protocol { tls, sasl }
    }

    fn name(self) -> &'static str {
        let same = |known: &&(&'static str, Protocol)| known.1 == self;
        PROTOCOLS.iter().find(same).map_or("", |known| known.0)
    }
}

impl Said {
    fn no_password(self) -> &'static str {
        match self {
            Said::InConfig => {
                "is missing: the file that holds the password (or give password, like \"${KAFKA_PASSWORD}\")"
            }
            Said::Typed => {
                "is missing: the file that holds the password (or set the variable LOGSHIP_SASL_PASSWORD)"
            }
        }
    }
}

impl Setting {
    /// Its name in a config, below `kafka`: an object and a key in it, or one of both.
    pub fn key(self) -> (Option<&'static str>, &'static str) {
        match self {
            Setting::Protocol => (None, "security_protocol"),
            Setting::CaFile => (Some("tls"), "ca_file"),
            Setting::CertFile => (Some("tls"), "cert_file"),
            Setting::KeyFile => (Some("tls"), "key_file"),
            Setting::Insecure => (Some("tls"), "insecure_skip_verify"),
            Setting::Sasl => (None, "sasl"),
            Setting::Mechanism => (Some("sasl"), "mechanism"),
            Setting::Username => (Some("sasl"), "username"),
            Setting::PasswordFile => (Some("sasl"), "password_file"),
            Setting::TokenFile => (Some("sasl"), "token_file"),
        }
    }

    /// Its name on the command line.
    pub fn option(self) -> &'static str {
        match self {
            Setting::Protocol => "--security-protocol",
            Setting::CaFile => "--tls-ca-file",
            Setting::CertFile => "--tls-cert-file",
            Setting::KeyFile => "--tls-key-file",
            Setting::Insecure => "--tls-insecure-skip-verify",
            Setting::Sasl | Setting::Mechanism => "--sasl-mechanism",
            Setting::Username => "--sasl-username",
            Setting::PasswordFile => "--sasl-password-file",
            Setting::TokenFile => "--sasl-token-file",
        }
    }
}

/// Puts TLS and login into the options, and says what had better be looked at; or all
/// that is wrong.
///
/// # Errors
/// Settings that contradict each other, or that miss one; files that cannot be used.
pub fn lower(
    request: &SecurityRequest,
    said: Said,
    options: &mut Options,
) -> Result<Vec<Problem>, Vec<Problem>> {
    let mut doubtful = Vec::new();
    let mut problems = Vec::new();
    agree(request, &mut problems);
    let wants_tls = request.protocol.is_some_and(|protocol| protocol.tls);
    let files = request.tls.clone();
    if let Some(files) = files.or_else(|| wants_tls.then(TlsRequest::default)) {
        match lower_tls(&files) {
            Ok((tls, doubts)) => (options.tls, doubtful) = (Some(tls), doubts),
            Err(problem) => problems.push(problem),
        }
    }
    if let Some(sasl) = &request.sasl {
        options.sasl = lower_sasl(sasl, said, &mut problems);
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    doubtful.extend(warnings(options));
    Ok(doubtful)
}

/// What had better be looked at, of options that are good.
fn warnings(options: &Options) -> Vec<Problem> {
    let mut warnings = Vec::new();
    if options.tls.as_ref().is_some_and(Tls::is_unverified) {
        let problem = "any certificate is taken, so that anybody between here and the brokers can read and change what is sent: for tests only";
        warnings.push((Setting::Insecure, problem.to_owned()));
    }
    let now = SystemTime::now();
    if let Some(end) = options.tls.as_ref().and_then(|tls| tls.expired_at(now)) {
        let end = humantime::format_rfc3339_seconds(end);
        let problem = format!("has expired, at {end}: brokers refuse it until it is renewed");
        warnings.push((Setting::CertFile, problem));
    }
    let readable = options.sasl.as_ref().and_then(Sasl::readable);
    let far = options.bootstrap.iter().find(|broker| !is_local(broker));
    if let (Some(secret), None, Some(broker)) = (readable, &options.tls, far) {
        let problem = format!(
            "the {secret} goes over the network in the clear to {broker}: use TLS, or SCRAM"
        );
        warnings.push((Setting::Mechanism, problem));
    }
    warnings
}

/// How brokers are spoken to, in a few words and without a secret; `None` where that is
/// neither with TLS nor with a login.
pub fn describe(options: &Options) -> Option<String> {
    let protocol = Protocol::of(options.tls.is_some(), options.sasl.is_some()).name();
    match &options.sasl {
        None => options.tls.as_ref().map(|_| protocol.to_owned()),
        Some(sasl @ (Sasl::Plain(login) | Sasl::Scram(_, login))) => {
            let (user, mechanism) = (shown(&login.username), sasl.mechanism());
            Some(format!("{protocol} as {user}, {mechanism}"))
        }
        Some(sasl) => Some(format!("{protocol}, {}", sasl.mechanism())),
    }
}

fn is_local(broker: &Address) -> bool {
    let ip = broker.host().parse::<std::net::IpAddr>();
    broker.host() == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

/// The protocol, where it is named, and what else is said.
fn agree(request: &SecurityRequest, problems: &mut Vec<Problem>) {
    let Some(protocol) = request.protocol else {
        return;
    };
    let name = protocol.name();
    let mut wrong = |setting, problem: String| problems.push((setting, problem));
    if request.tls.is_some() && !protocol.tls {
        let better = Protocol::of(true, protocol.sasl).name();
        wrong(
            Setting::Protocol,
            format!("is {name}, which has no TLS: use {better}, or leave TLS away"),
        );
    }
    match (&request.sasl, protocol.sasl) {
        (Some(_), false) => {
            let better = Protocol::of(protocol.tls, true).name();
            wrong(
                Setting::Protocol,
                format!("is {name}, which has no login: use {better}, or leave SASL away"),
            );
        }
        (None, true) => wrong(
            Setting::Sasl,
            format!("is missing, and {name} needs a login"),
        ),
        _ => {}
    }
}

/// TLS, and what is wrong with certificates that it does not need.
fn lower_tls(files: &TlsRequest) -> Result<(Tls, Vec<Problem>), Problem> {
    let told = |wrong: pem::Wrong| {
        let (setting, due) = match wrong.file {
            PemFile::Ca => (Setting::CaFile, "a PEM file with CERTIFICATE in it"),
            PemFile::Cert => (Setting::CertFile, "a PEM file with CERTIFICATE in it"),
            PemFile::Key => (
                Setting::KeyFile,
                "a PEM file with the unencrypted PRIVATE KEY of our certificate",
            ),
        };
        (setting, format!("{} (give {due})", wrong.problem))
    };
    if files.insecure_skip_verify && files.ca_file.is_some() {
        let problem = "is not asked where any certificate is taken: leave one of both away";
        return Err((Setting::CaFile, problem.to_owned()));
    }
    let mut between = Vec::new();
    let ours = match (&files.cert_file, &files.key_file) {
        (Some(cert), Some(key)) => {
            let (ours, bad) = pem::identity(cert, key).map_err(told)?;
            between = bad;
            Some(ours)
        }
        (None, None) => None,
        (Some(_), None) => return Err((Setting::CertFile, "needs its key beside it".to_owned())),
        (None, Some(_)) => {
            return Err((
                Setting::KeyFile,
                "needs its certificate beside it".to_owned(),
            ));
        }
    };
    let (trusted, left_away) = match files.insecure_skip_verify {
        true => Default::default(),
        false => pem::trusted(files.ca_file.as_deref()).map_err(told)?,
    };
    let made = Tls::new(Identity {
        trusted,
        ours,
        unverified: files.insecure_skip_verify,
    });
    let tls = made.map_err(|error| (Setting::CaFile, error.to_string()))?;
    let left_away = left_away
        .into_iter()
        .map(|problem| (Setting::CaFile, format!("{problem} (it is left away)")));
    let shown = between
        .into_iter()
        .map(|problem| (Setting::CertFile, format!("{problem} (it is shown)")));
    Ok((tls, left_away.chain(shown).collect()))
}

fn lower_sasl(sasl: &SaslRequest, said: Said, problems: &mut Vec<Problem>) -> Option<Sasl> {
    let before = problems.len();
    let mut wrong = |setting, problem: &str| problems.push((setting, problem.to_owned()));
    let Some(mechanism) = sasl.mechanism else {
        let problem = "is missing: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER";
        wrong(Setting::Mechanism, problem);
        return None;
    };
    if let Mechanism::OauthBearer = mechanism {
        if sasl.username.is_some() || sasl.password.is_some() {
            let problem = "is OAUTHBEARER, which has a token and neither user nor password";
            wrong(Setting::Mechanism, problem);
        }
        if sasl.token_file.is_none() {
            wrong(
                Setting::TokenFile,
                "is missing: the file that holds the token",
            );
        }
        return sasl.token_file.clone().map(Sasl::OauthBearer);
    }
    if sasl.token_file.is_some() {
        wrong(Setting::TokenFile, "is for OAUTHBEARER only");
    }
    match &sasl.username {
        None => wrong(Setting::Username, "is missing"),
        Some(name) if name.is_empty() || name.contains('\0') => {
            wrong(Setting::Username, "is no name of a user");
        }
        Some(_) => {}
    }
    match &sasl.password {
        None => wrong(Setting::PasswordFile, said.no_password()),
        Some(password) if password.reveal().contains('\0') => {
            wrong(
                Setting::PasswordFile,
                "holds a NUL byte, which no password can",
            );
        }
        Some(_) => {}
    }
    let (username, password) = sasl.username.clone().zip(sasl.password.clone())?;
    let login = Login { username, password };
    let made = match mechanism {
        Mechanism::Scram(hash) => Sasl::Scram(hash, login),
        _ => Sasl::Plain(login),
    };
    (problems.len() == before).then_some(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_over_the_network_in_the_clear_is_told_by_its_name() {
        let login = crate::kafka::Login {
            username: "me".to_owned(),
            password: Secret::new("secret"),
        };
        for (sasl, goes) in [
            (Sasl::Plain(login.clone()), Some("the password goes")),
            (Sasl::OauthBearer("token".into()), Some("the token goes")),
            (Sasl::Scram(ScramHash::Sha512, login), None),
        ] {
            let mut options = Options::new(vec![Address::new("kafka.example", 9092)]);
            options.sasl = Some(sasl);
            let warnings = warnings(&options);
            let told = warnings.first().map(|(_, problem)| problem.as_str());
            assert_eq!(
                told.map(|told| told.starts_with(goes.unwrap())),
                goes.map(|_| true)
            );
        }
    }
}
