//! Who we are: the mechanisms of SASL, from both sides' messages to proof.
//!
//! It computes messages and checks answers; carrying them is the connection's
//! business. What a broker sends is not believed before it has proved itself,
//! where the mechanism lets it (SCRAM).
//!
//! Sources: RFC 4616 (PLAIN), RFC 5802 and RFC 7677 (SCRAM), RFC 7628 with KIP-255
//! (OAUTHBEARER).

use std::fmt;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2, rand};

use super::error::{Cause, quoted};
use crate::small;

/// Fewest iterations of a SCRAM that is worth the name; RFC 7677 section 4.
const ITERATIONS_MIN: u32 = 4_096;
/// Most iterations that are computed for a broker; a second or so.
const ITERATIONS_MAX: u32 = 1_000_000;
/// Random bytes in a nonce.
const NONCE_BYTES: usize = 24;
/// Largest file that may hold a token.
const TOKEN_BYTES_MAX: u64 = 64 << 10;
/// The header of channel binding that says: none; in base64.
const NO_BINDING: &str = "biws";

/// Something that is never shown.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

/// How to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sasl {
    /// User and password, readable for whoever reads the connection.
    Plain(Login),
    /// The password is proved and never sent.
    Scram(ScramHash, Login),
    /// A token that somebody else keeps up to date in a file; it is read for each login.
    OauthBearer(PathBuf),
}

/// A user and the password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub username: String,
    /// The user's password.
    pub password: Secret,
}

/// The hash function of a SCRAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScramHash {
    /// SCRAM-SHA-256.
    Sha256,
    /// SCRAM-SHA-512.
    Sha512,
}

/// One login under way.
#[derive(Debug)]
pub enum Exchange {
    /// The first message says all. What of it a broker refuses that answers.
    Said(&'static str),
    /// The broker has our name and is to challenge us.
    Named(Box<Scram>),
    /// The broker is to prove that it knows the password as well.
    Proved(hmac::Key, Vec<u8>),
}

/// What a SCRAM needs to answer the challenge.
#[derive(Debug)]
pub struct Scram {
    hash: ScramHash,
    password: Secret,
    nonce: String,
    /// Our first message without its header.
    first: String,
}

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// What a broker says, as much as a person reads and without the secret, which it may
    /// repeat: it is taken out before anything is cut off.
    pub fn quoted_without(&self, said: &str) -> String {
        match self.0.as_str() {
            "" => quoted(said),
            secret => quoted(&said.replace(secret, "***")),
        }
    }

    /// The text, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Sasl {
    /// The mechanism's name, as brokers know it.
    pub fn mechanism(&self) -> &'static str {
        match self {
            Sasl::Plain(_) => "PLAIN",
            Sasl::Scram(ScramHash::Sha256, _) => "SCRAM-SHA-256",
            Sasl::Scram(ScramHash::Sha512, _) => "SCRAM-SHA-512",
            Sasl::OauthBearer(_) => "OAUTHBEARER",
        }
    }

    /// What whoever reads the connection can log in with as well, if anything.
    pub fn readable(&self) -> Option<&'static str> {
        match self {
            Sasl::Plain(_) => Some("password"),
            Sasl::Scram(..) => None,
            Sasl::OauthBearer(_) => Some("token"),
        }
    }

    /// What one login is proved by: password or token.
    ///
    /// # Errors
    /// A token that cannot be read.
    pub fn secret(&self) -> Result<Secret, Cause> {
        match self {
            Sasl::Plain(login) | Sasl::Scram(_, login) => Ok(login.password.clone()),
            Sasl::OauthBearer(path) => read_token(path).map(Secret::new),
        }
    }

    /// Begins a login with its [`secret`](Self::secret): the first message, and what waits
    /// for the answer.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn begin(&self, secret: &Secret) -> Result<(Exchange, Vec<u8>), Cause> {
        match self {
            Sasl::Plain(login) => {
                let message = format!("\0{}\0{}", login.username, secret.reveal());
                Ok((Exchange::Said("the login"), message.into_bytes()))
            }
            Sasl::OauthBearer(_) => {
                let message = format!("n,,\x01auth=Bearer {}\x01\x01", secret.reveal());
                Ok((Exchange::Said("the token"), message.into_bytes()))
            }
            Sasl::Scram(hash, login) => {
                let mut nonce = [0; NONCE_BYTES];
                rand::SecureRandom::fill(&rand::SystemRandom::new(), &mut nonce)
                    .map_err(|_| Cause::Login("the system gives no random numbers".to_owned()))?;
                Ok(begin_scram(*hash, login, STANDARD.encode(nonce)))
            }
        }
    }
}

impl Exchange {
    /// The answer to what the broker said; `None` when the broker has said all.
    ///
    /// # Errors
    /// A broker that does not keep to the mechanism, or does not know the password.
    pub fn answer(&mut self, said: &[u8], secret: &Secret) -> Result<Option<Vec<u8>>, Cause> {
        match self {
            Exchange::Said(_) if said.is_empty() => Ok(None),
            // RFC 7628 section 3.2.2: an error is an object, and waits for one byte.
            Exchange::Said(what) => Err(Cause::Login(format!(
                "the broker refuses {what}: {}",
                secret.quoted_without(&String::from_utf8_lossy(said))
            ))),
            Exchange::Named(scram) => {
                let (next, answer) = scram.prove(text_of(said)?, secret)?;
                *self = next;
                Ok(Some(answer))
            }
            Exchange::Proved(key, signed) => {
                let said = text_of(said)?;
                if let Some(error) = attribute(said, 'e') {
                    let error = secret.quoted_without(error);
                    return Err(Cause::Login(format!("the broker refuses it: {error}")));
                }
                let proof = attribute(said, 'v').and_then(|proof| STANDARD.decode(proof).ok());
                let proved = proof.is_some_and(|proof| hmac::verify(key, signed, &proof).is_ok());
                if !proved {
                    let problem = "the broker does not prove that it knows the password";
                    return Err(Cause::Login(problem.to_owned()));
                }
                Ok(None)
            }
        }
    }
}

fn begin_scram(hash: ScramHash, login: &Login, nonce: String) -> (Exchange, Vec<u8>) {
    let name = login.username.replace('=', "=3D").replace(',', "=2C");
    let first = format!("n={name},r={nonce}");
    let message = format!("n,,{first}").into_bytes();
    let scram = Scram {
        hash,
        password: login.password.clone(),
        nonce,
        first,
    };
    (Exchange::Named(Box::new(scram)), message)
}

impl Scram {
    /// From the broker's challenge to our proof and what its own must be.
    fn prove(&self, challenge: &str, secret: &Secret) -> Result<(Exchange, Vec<u8>), Cause> {
        let garbled = |what: &str| Cause::Login(format!("the broker's challenge has {what}"));
        if let Some(error) = attribute(challenge, 'e') {
            let error = secret.quoted_without(error);
            return Err(Cause::Login(format!("the broker refuses it: {error}")));
        }
        if attribute(challenge, 'm').is_some() {
            return Err(garbled(
                "an extension that must be known (RFC 5802 section 5.1)",
            ));
        }
        let nonce = attribute(challenge, 'r').ok_or_else(|| garbled("no nonce"))?;
        if nonce.len() <= self.nonce.len() || !nonce.starts_with(&self.nonce) {
            return Err(garbled("another nonce than ours"));
        }
        let salt = attribute(challenge, 's').and_then(|salt| STANDARD.decode(salt).ok());
        let salt = salt.ok_or_else(|| garbled("no salt"))?;
        let iterations = attribute(challenge, 'i').and_then(|count| count.parse::<u32>().ok());
        let allowed = ITERATIONS_MIN..=ITERATIONS_MAX;
        let iterations = iterations
            .filter(|count| allowed.contains(count))
            .and_then(NonZeroU32::new)
            .ok_or_else(|| {
                garbled(&format!(
                    "no number of iterations from {ITERATIONS_MIN} to {ITERATIONS_MAX}"
                ))
            })?;

        let without_proof = format!("c={NO_BINDING},r={nonce}");
        let signed = format!("{},{challenge},{without_proof}", self.first).into_bytes();
        let (derive, sign, hash) = self.hash.algorithms();
        let mut salted = vec![0; hash.output_len()];
        let password = self.password.reveal().as_bytes();
        pbkdf2::derive(derive, iterations, &salt, password, &mut salted);
        let salted = hmac::Key::new(sign, &salted);
        let client = hmac::sign(&salted, b"Client Key");
        let stored = digest::digest(hash, client.as_ref());
        let signature = hmac::sign(&hmac::Key::new(sign, stored.as_ref()), &signed);
        let proof: Vec<u8> = client
            .as_ref()
            .iter()
            .zip(signature.as_ref())
            .map(|(key, signature)| key ^ signature)
            .collect();
        let server = hmac::sign(&salted, b"Server Key");
        let answer = format!("{without_proof},p={}", STANDARD.encode(proof));
        let expected = Exchange::Proved(hmac::Key::new(sign, server.as_ref()), signed);
        Ok((expected, answer.into_bytes()))
    }
}

impl ScramHash {
    fn algorithms(
        self,
    ) -> (
        pbkdf2::Algorithm,
        hmac::Algorithm,
        &'static digest::Algorithm,
    ) {
        match self {
            ScramHash::Sha256 => (
                pbkdf2::PBKDF2_HMAC_SHA256,
                hmac::HMAC_SHA256,
                &digest::SHA256,
            ),
            ScramHash::Sha512 => (
                pbkdf2::PBKDF2_HMAC_SHA512,
                hmac::HMAC_SHA512,
                &digest::SHA512,
            ),
        }
    }
}

fn text_of(said: &[u8]) -> Result<&str, Cause> {
    std::str::from_utf8(said)
        .map_err(|_| Cause::Login("the broker's message is no text".to_owned()))
}

/// The value of `name=` in a message of comma-separated attributes.
fn attribute(message: &str, name: char) -> Option<&str> {
    let mut all = message.split(',');
    all.find_map(|one| one.strip_prefix(name)?.strip_prefix('='))
}

fn read_token(path: &Path) -> Result<String, Cause> {
    let problem = |what: String| Cause::Login(format!("token file {}: {what}", path.display()));
    let token =
        small::read(path, TOKEN_BYTES_MAX + 1).map_err(|error| problem(error.to_string()))?;
    if token.len() as u64 > TOKEN_BYTES_MAX {
        return Err(problem(format!("it has more than {TOKEN_BYTES_MAX} bytes")));
    }
    let token = String::from_utf8(token).map_err(|_| problem("it is no text".to_owned()))?;
    let token = token.trim();
    // RFC 6750 section 2.1.
    let legal = |c: char| c.is_ascii_alphanumeric() || "-._~+/=".contains(c);
    if token.is_empty() || !token.chars().all(legal) {
        return Err(problem("it holds no bearer token".to_owned()));
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn login(username: &str, password: &str) -> Login {
        Login {
            username: username.to_owned(),
            password: Secret::new(password.to_owned()),
        }
    }

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    /// The example of RFC 7677, section 3.
    #[test]
    fn scram_answers_as_the_example_of_the_rfc() {
        let login = login("user", "pencil");
        let nonce = "rOprNGfwEbeRWgbNEkqO".to_owned();
        let (mut exchange, first) = begin_scram(ScramHash::Sha256, &login, nonce);
        assert_eq!(text(&first), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let challenge = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let answer = exchange
            .answer(challenge, &login.password)
            .unwrap()
            .unwrap();
        assert_eq!(
            text(&answer),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        let proof = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert!(exchange.answer(proof, &login.password).unwrap().is_none());
    }

    #[test]
    fn a_secret_that_a_broker_repeats_is_not_told() {
        let secret = Secret::new("pen\"cil");
        for before in ["bad login", &"x".repeat(196)] {
            let told = secret.quoted_without(&format!("{before} \0user\0pen\"cil, pen\"cil"));
            assert!(told.starts_with(before) && !told.contains("pen"), "{told}");
        }
    }

    /// Somebody who only knows our name, and is no broker.
    #[test]
    fn a_broker_that_does_not_know_the_password_is_refused() {
        let login = login("user", "pencil");
        for (challenge, end, problem) in [
            ("r=other,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "", "nonce"),
            ("r=nonce,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "", "nonce"),
            ("r=nonceX,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=1", "", "iterations"),
            (
                "r=nonceX,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=99999999",
                "",
                "iterations",
            ),
            ("r=nonceX,i=4096", "", "salt"),
            (
                "m=x,r=nonceX,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
                "",
                "extension",
            ),
            ("e=unknown-user", "", "unknown-user"),
            (
                "r=nonceX,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
                "v=AAAA",
                "prove",
            ),
            (
                "r=nonceX,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
                "e=invalid-proof",
                "invalid-proof",
            ),
            ("r=nonceX,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "", "prove"),
        ] {
            for hash in [ScramHash::Sha256, ScramHash::Sha512] {
                let (mut exchange, _) = begin_scram(hash, &login, "nonce".to_owned());
                let answered = exchange.answer(challenge.as_bytes(), &login.password);
                let error = match answered {
                    Ok(_) => exchange
                        .answer(end.as_bytes(), &login.password)
                        .unwrap_err(),
                    Err(error) => error,
                };
                assert!(
                    error.to_string().contains(problem),
                    "{challenge} {end}: {error}"
                );
            }
        }
    }

    #[test]
    fn signs_that_mean_something_in_a_name_are_written_otherwise() {
        let login = login("a=b,c", "p");
        let (_, first) = begin_scram(ScramHash::Sha512, &login, "n".to_owned());
        assert_eq!(text(&first), "n,,n=a=3Db=2Cc,r=n");
        let secret = login.password.clone();
        let (_, first) = Sasl::Plain(login).begin(&secret).unwrap();
        assert_eq!(text(&first), "\0a=b,c\0p");
    }

    #[test]
    fn nothing_shows_a_password() {
        let sasl = Sasl::Scram(ScramHash::Sha256, login("user", "hunter2"));
        let (exchange, _) = sasl.begin(&sasl.secret().unwrap()).unwrap();
        assert!(!format!("{sasl:?} {exchange:?}").contains("hunter2"));
    }

    #[test]
    fn a_token_is_read_for_each_login() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let sasl = Sasl::OauthBearer(path.clone());
        assert!(
            sasl.secret()
                .unwrap_err()
                .to_string()
                .contains("token file")
        );
        for (content, first) in [("abc.d\n", "abc.d"), ("other", "other")] {
            fs::write(&path, content).unwrap();
            let token = sasl.secret().unwrap();
            let (mut exchange, message) = sasl.begin(&token).unwrap();
            assert_eq!(
                text(&message),
                format!("n,,\x01auth=Bearer {first}\x01\x01")
            );
            assert!(exchange.answer(b"", &token).unwrap().is_none());
            assert!(
                exchange
                    .answer(b"{\"status\":\"invalid_token\"}", &token)
                    .is_err()
            );
        }
        fs::write(&path, "two words").unwrap();
        assert!(
            sasl.secret()
                .unwrap_err()
                .to_string()
                .contains("no bearer token")
        );
    }
}
