//! The options of TLS and SASL: how brokers are to be trusted, and who we are.
//!
//! They have the names of the keys below `kafka` in a config. What contradicts
//! what is said elsewhere.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::variables::variable;
use crate::config::{
    Mechanism, Mistake, Protocol, SaslRequest, SecurityRequest, TlsRequest, open_to_all,
    read_secret,
};
use crate::kafka::{ScramHash, Secret};

/// The variable that may hold the password.
const PASSWORD_VARIABLE: &str = "LOGSHIP_SASL_PASSWORD";

/// The options of TLS and SASL.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Security")]
pub struct SecurityArgs {
    /// Encrypt, log in, or both [default: by the options below]
    ///
    /// What other clients call security.protocol: PLAINTEXT, SSL (TLS), SASL_PLAINTEXT (a login in the
    /// clear) or SASL_SSL. It need not be given: TLS is used where one of its options is given,
    /// and a login where --sasl-mechanism is. SSL alone trusts the certificates of the system.
    #[arg(
        long,
        value_name = "PROTOCOL",
        value_enum,
        ignore_case = true,
        env = "LOGSHIP_SECURITY_PROTOCOL",
        hide_env_values = true
    )]
    pub security_protocol: Option<ProtocolArg>,

    /// Trust brokers with a certificate of this CA
    ///
    /// A file in PEM with the certificates that may have signed the brokers'. By default those that the
    /// system trusts. Giving it turns TLS on.
    #[arg(
        long,
        value_name = "FILE",
        env = "LOGSHIP_TLS_CA_FILE",
        hide_env_values = true
    )]
    pub tls_ca_file: Option<PathBuf>,

    /// Show the brokers this certificate
    ///
    /// Our certificate in PEM, with what is between it and the CA, for brokers with
    /// ssl.client.auth. Needs --tls-key-file.
    #[arg(
        long,
        value_name = "FILE",
        env = "LOGSHIP_TLS_CERT_FILE",
        hide_env_values = true
    )]
    pub tls_cert_file: Option<PathBuf>,

    /// The key of our certificate
    #[arg(
        long,
        value_name = "FILE",
        env = "LOGSHIP_TLS_KEY_FILE",
        hide_env_values = true
    )]
    pub tls_key_file: Option<PathBuf>,

    /// Take any certificate (for tests only)
    ///
    /// Takes any certificate of a broker: anybody between here and there can read and change what is
    /// sent. For tests only; it is said at every start. Not beside --tls-ca-file.
    #[arg(long)]
    pub tls_insecure_skip_verify: bool,

    /// Log in with this mechanism
    #[arg(
        long,
        value_name = "MECHANISM",
        value_enum,
        ignore_case = true,
        env = "LOGSHIP_SASL_MECHANISM",
        hide_env_values = true
    )]
    pub sasl_mechanism: Option<MechanismArg>,

    /// Log in as this user
    #[arg(
        long,
        value_name = "NAME",
        env = "LOGSHIP_SASL_USERNAME",
        hide_env_values = true
    )]
    pub sasl_username: Option<String>,

    /// Log in with the password in this file
    ///
    /// A file that holds the password, which is one line; the line end after it is removed. It is
    /// read at the start and after SIGHUP, like the files of TLS. Without this option the variable
    /// LOGSHIP_SASL_PASSWORD may hold it. There is no option for the password itself:
    /// everybody could read it in the list of processes.
    #[arg(long, value_name = "FILE")]
    pub sasl_password_file: Option<PathBuf>,

    /// Log in with the token in this file
    ///
    /// A file that holds a bearer token for OAUTHBEARER. It is read for each login, so that whoever
    /// renews the token only has to replace it.
    #[arg(
        long,
        value_name = "FILE",
        env = "LOGSHIP_SASL_TOKEN_FILE",
        hide_env_values = true
    )]
    pub sasl_token_file: Option<PathBuf>,
}

/// `--security-protocol`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "the names say it")]
pub enum ProtocolArg {
    #[value(name = "PLAINTEXT")]
    Plaintext,
    #[value(name = "SSL")]
    Ssl,
    #[value(name = "SASL_PLAINTEXT")]
    SaslPlaintext,
    #[value(name = "SASL_SSL")]
    SaslSsl,
}

/// `--sasl-mechanism`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "the names say it")]
pub enum MechanismArg {
    #[value(name = "PLAIN")]
    Plain,
    #[value(name = "SCRAM-SHA-256")]
    Scram256,
    #[value(name = "SCRAM-SHA-512")]
    Scram512,
    #[value(name = "OAUTHBEARER")]
    OauthBearer,
}

impl SecurityArgs {
    /// True when anything is said, so that a file may be read for it.
    pub fn is_given(&self) -> bool {
        *self != SecurityArgs::default()
    }

    /// What was said. Adds what had better be looked at.
    ///
    /// # Errors
    /// The password cannot be read: what is wrong with its file, or with the variable.
    pub fn request(&self, warnings: &mut Vec<Mistake>) -> Result<SecurityRequest, Mistake> {
        for (option, path) in [
            ("--tls-key-file", &self.tls_key_file),
            ("--sasl-password-file", &self.sasl_password_file),
            ("--sasl-token-file", &self.sasl_token_file),
        ] {
            let problem = path.as_deref().and_then(open_to_all);
            warnings.extend(problem.map(|problem| mistake(option, problem)));
        }
        let files = TlsRequest {
            ca_file: self.tls_ca_file.clone(),
            cert_file: self.tls_cert_file.clone(),
            key_file: self.tls_key_file.clone(),
            insecure_skip_verify: self.tls_insecure_skip_verify,
        };
        let tls = files != TlsRequest::default();
        let sasl = SaslRequest {
            mechanism: self.sasl_mechanism.map(Mechanism::from),
            username: self.sasl_username.clone(),
            password: self.password(warnings)?,
            token_file: self.sasl_token_file.clone(),
        };
        let login = sasl != SaslRequest::default();
        Ok(SecurityRequest {
            protocol: self.security_protocol.map(Protocol::from),
            tls: tls.then_some(files),
            sasl: login.then_some(sasl),
        })
    }

    /// The password of the file, else of the variable where one is needed.
    fn password(&self, warnings: &mut Vec<Mistake>) -> Result<Option<Secret>, Mistake> {
        if let Some(path) = &self.sasl_password_file {
            let told = |problem| mistake("--sasl-password-file", problem);
            let (password, doubt) = read_secret(path).map_err(told)?;
            warnings.extend(doubt.map(told));
            return Ok(Some(Secret::new(password)));
        }
        match self.sasl_mechanism {
            None | Some(MechanismArg::OauthBearer) => Ok(None),
            Some(_) => variable(PASSWORD_VARIABLE)
                .map(|password| password.map(Secret::new))
                .map_err(|problem| mistake(PASSWORD_VARIABLE, problem)),
        }
    }
}

/// What is wrong with an option, or with what stands for one.
fn mistake(key: &str, problem: String) -> Mistake {
    Mistake {
        place: None,
        key: key.to_owned(),
        problem,
    }
}

impl From<ProtocolArg> for Protocol {
    fn from(protocol: ProtocolArg) -> Protocol {
        let (tls, sasl) = match protocol {
            ProtocolArg::Plaintext => (false, false),
            ProtocolArg::Ssl => (true, false),
            ProtocolArg::SaslPlaintext => (false, true),
            ProtocolArg::SaslSsl => (true, true),
        };
        Protocol { tls, sasl }
    }
}

impl From<MechanismArg> for Mechanism {
    fn from(mechanism: MechanismArg) -> Mechanism {
        match mechanism {
            MechanismArg::Plain => Mechanism::Plain,
            MechanismArg::Scram256 => Mechanism::Scram(ScramHash::Sha256),
            MechanismArg::Scram512 => Mechanism::Scram(ScramHash::Sha512),
            MechanismArg::OauthBearer => Mechanism::OauthBearer,
        }
    }
}
