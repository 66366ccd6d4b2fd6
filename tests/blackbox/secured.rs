//! A real Kafka that asks who is there: listeners with TLS and SASL of every kind
//! that logship is to speak, the certificates and passwords for them, and those
//! that must not get in.
//!
//! ```text
//! Tls          TLS
//! MutualTls    TLS, and the client shows a certificate of the same authority
//! ExpiredTls   TLS with a certificate that is out of date
//! ElsewhereTls TLS with a certificate for another host
//! CaTls        TLS with a certificate that is one of an authority
//! SaslTls      SASL over TLS: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512
//! Sasl         the same without TLS
//! SaslReauth   the same, and who has logged in must do so again within 5 s
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, date_time_ymd,
};
use tempfile::TempDir;

use crate::etcd::free_port;
use crate::kafka::{Kafka, Properties};

/// May write everywhere but to [`FORBIDDEN`], with this password by every mechanism.
pub const USER: &str = "alice";
/// Of [`USER`].
pub const PASSWORD: &str = "alice-secret";
/// Another user, for SCRAM only, whose name holds what SCRAM escapes: an equals sign.
pub const ODD_USER: &str = "al=ice too";
/// Of [`ODD_USER`].
pub const ODD_PASSWORD: &str = "a=secret too";
/// A topic that [`USER`] may neither write to nor describe.
pub const FORBIDDEN: &str = "forbidden";
/// How long a login on [`Listener::SaslReauth`] is good.
pub const LOGIN: Duration = Duration::from_secs(5);
/// The mechanisms of all listeners with SASL.
pub const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

/// The ways in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    Tls,
    MutualTls,
    ExpiredTls,
    ElsewhereTls,
    CaTls,
    SaslTls,
    Sasl,
    SaslReauth,
}

impl Listener {
    pub const ALL: [Listener; 8] = [
        Listener::Tls,
        Listener::MutualTls,
        Listener::ExpiredTls,
        Listener::ElsewhereTls,
        Listener::CaTls,
        Listener::SaslTls,
        Listener::Sasl,
        Listener::SaslReauth,
    ];

    fn name(self) -> String {
        format!("{self:?}").to_uppercase()
    }

    /// As kcat and Kafka call it.
    pub fn protocol(self) -> &'static str {
        match self {
            Listener::SaslTls => "SASL_SSL",
            Listener::Sasl | Listener::SaslReauth => "SASL_PLAINTEXT",
            _ => "SSL",
        }
    }

    fn has_tls(self) -> bool {
        self.protocol().ends_with("SSL")
    }

    fn has_sasl(self) -> bool {
        self.protocol().starts_with("SASL")
    }

    /// The certificate that the broker shows.
    fn certificate(self) -> &'static str {
        match self {
            Listener::ExpiredTls => "expired",
            Listener::ElsewhereTls => "elsewhere",
            Listener::CaTls => "authority",
            _ => "broker",
        }
    }
}

/// The broker and everybody's papers.
pub struct Secured {
    kafka: Kafka,
    papers: TempDir,
}

impl Secured {
    /// One for all tests that run at the same time: a start takes seconds. It ends
    /// with the last of them.
    pub fn shared() -> Arc<Secured> {
        static SHARED: Mutex<Weak<Secured>> = Mutex::new(Weak::new());
        let mut shared = SHARED
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let secured = Arc::new(Secured::start());
            *shared = Arc::downgrade(&secured);
            secured
        })
    }

    /// One of a test's own, that it may kill.
    pub fn start() -> Secured {
        let papers = tempfile::Builder::new()
            .prefix("logship-papers-")
            .tempdir()
            .unwrap();
        issue_all(papers.path());
        let scram = |mechanism, name, password| {
            format!("{mechanism}=[name=\"{name}\",password=\"{password}\"]")
        };
        let format: Vec<String> = MECHANISMS[1..]
            .iter()
            .flat_map(|mechanism| {
                [
                    scram(mechanism, USER, PASSWORD),
                    scram(mechanism, ODD_USER, ODD_PASSWORD),
                ]
            })
            .flat_map(|user| ["--add-scram".to_owned(), user])
            .collect();
        let kafka = Kafka::with(&|properties| secure(properties, papers.path()), &format);
        kafka.deny(USER, FORBIDDEN);
        Secured { kafka, papers }
    }

    /// `localhost:PORT`.
    pub fn address(&self, listener: Listener) -> String {
        self.kafka.listener(&listener.name())
    }

    /// The broker itself, on its listener for those who need not say who they are.
    pub fn kafka(&self) -> &Kafka {
        &self.kafka
    }

    /// The certificate of the authority that the broker and its clients have theirs from.
    pub fn ca(&self) -> PathBuf {
        self.papers.path().join("ca.pem")
    }

    /// That of another one.
    pub fn other_ca(&self) -> PathBuf {
        self.papers.path().join("other-ca.pem")
    }

    /// Certificate and key of a client.
    pub fn client(&self) -> (PathBuf, PathBuf) {
        self.pair("client")
    }

    /// Certificate and key of a client whom the other authority knows.
    pub fn stranger(&self) -> (PathBuf, PathBuf) {
        self.pair("stranger")
    }

    /// Certificate and key of a client, out of date.
    pub fn late_client(&self) -> (PathBuf, PathBuf) {
        self.pair("late-client")
    }

    fn pair(&self, name: &str) -> (PathBuf, PathBuf) {
        let path = |end: &str| self.papers.path().join(format!("{name}{end}"));
        (path(".pem"), path("-key.pem"))
    }
}

/// What the broker is told of its listeners.
fn secure(properties: &mut Properties, papers: &Path) {
    let plain = properties.get("listeners").to_owned();
    properties.set("advertised.listeners", plain.split(',').next().unwrap());
    for listener in Listener::ALL {
        let (name, port) = (listener.name(), free_port());
        properties
            .add("listeners", &format!("{name}://127.0.0.1:{port}"))
            .add(
                "advertised.listeners",
                &format!("{name}://localhost:{port}"),
            )
            .add(
                "listener.security.protocol.map",
                &format!("{name}:{}", listener.protocol()),
            );
        let start = format!("listener.name.{}", name.to_lowercase());
        if listener.has_tls() {
            with_tls(properties, &start, listener, papers);
        }
        if listener.has_sasl() {
            with_sasl(properties, &start);
        }
    }
    let start = "listener.name.mutualtls";
    properties.set(&format!("{start}.ssl.client.auth"), "required");
    let start = "listener.name.saslreauth";
    properties.set(
        &format!("{start}.connections.max.reauth.ms"),
        LOGIN.as_millis(),
    );
    properties
        .set(
            "authorizer.class.name",
            "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        )
        .set("allow.everyone.if.no.acl.found", "true")
        // The broker to itself, and the tests as administrators.
        .set("super.users", "User:ANONYMOUS");
}

fn with_tls(properties: &mut Properties, start: &str, listener: Listener, papers: &Path) {
    let own = papers.join(format!("{}-store.pem", listener.certificate()));
    properties
        .set(&format!("{start}.ssl.keystore.type"), "PEM")
        .set(&format!("{start}.ssl.keystore.location"), own.display())
        .set(&format!("{start}.ssl.truststore.type"), "PEM")
        .set(
            &format!("{start}.ssl.truststore.location"),
            papers.join("ca.pem").display(),
        );
}

fn with_sasl(properties: &mut Properties, start: &str) {
    let package = "org.apache.kafka.common.security";
    let plain = format!("{package}.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";");
    let scram = format!("{package}.scram.ScramLoginModule required;");
    properties.set(
        &format!("{start}.sasl.enabled.mechanisms"),
        MECHANISMS.join(","),
    );
    for mechanism in MECHANISMS {
        let module = if mechanism == "PLAIN" { &plain } else { &scram };
        let mechanism = mechanism.to_lowercase();
        properties.set(&format!("{start}.{mechanism}.sasl.jaas.config"), module);
    }
}

type Authority = CertifiedIssuer<'static, KeyPair>;

/// Everybody's certificates and keys, as PEM files.
fn issue_all(dir: &Path) {
    let ca = authority("the tests' CA", &dir.join("ca.pem"));
    let other = authority("another CA", &dir.join("other-ca.pem"));
    let here = ["localhost", "127.0.0.1"];
    issue(dir, "broker", certificate("broker", &here), &ca);
    issue(
        dir,
        "elsewhere",
        certificate("broker", &["kafka.example"]),
        &ca,
    );
    for (name, whose, hosts) in [
        ("expired", "broker", &here[..]),
        ("late-client", "client", &[]),
    ] {
        let mut expired = certificate(whose, hosts);
        expired.not_before = date_time_ymd(2020, 1, 1);
        expired.not_after = date_time_ymd(2021, 1, 1);
        issue(dir, name, expired, &ca);
    }
    let mut itself_one = certificate("broker", &here);
    itself_one.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    issue(dir, "authority", itself_one, &ca);
    issue(dir, "client", certificate("client", &[]), &ca);
    issue(dir, "stranger", certificate("client", &[]), &other);
}

fn authority(name: &str, path: &Path) -> Authority {
    let mut params = named(name, &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    fs::write(path, ca.pem()).unwrap();
    ca
}

fn certificate(name: &str, hosts: &[&str]) -> CertificateParams {
    let mut params = named(name, hosts);
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params
}

fn named(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// `NAME.pem`, `NAME-key.pem`, and both in one file as Kafka wants them.
fn issue(dir: &Path, name: &str, params: CertificateParams, ca: &Authority) {
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, ca).unwrap();
    let (key, certificate) = (key.serialize_pem(), certificate.pem());
    let write = |end: &str, text: &str| fs::write(dir.join(format!("{name}{end}")), text).unwrap();
    write("-store.pem", &format!("{key}{certificate}"));
    write("-key.pem", &key);
    write(".pem", &certificate);
}

/// That the broker is what it says, by the word of kcat.
mod tests {
    use std::io::Write;
    use std::net::TcpStream;
    use std::process::Stdio;

    use bytes::Bytes;
    use kafka_protocol::messages::{
        ApiVersionsRequest, SaslAuthenticateRequest, SaslHandshakeRequest,
    };
    use kafka_protocol::protocol::StrBytes;

    use super::*;
    use crate::kafka::exchange;

    /// kcat on its way to a listener.
    struct Visitor<'a> {
        secured: &'a Secured,
        listener: Listener,
        options: Vec<String>,
    }

    impl<'a> Visitor<'a> {
        fn to(secured: &'a Secured, listener: Listener) -> Visitor<'a> {
            let visitor = Visitor {
                secured,
                listener,
                options: Vec::new(),
            };
            visitor
                .with("security.protocol", listener.protocol())
                .with("message.timeout.ms", "6000")
        }

        fn with(mut self, key: &str, value: impl std::fmt::Display) -> Visitor<'a> {
            self.options.extend(["-X".into(), format!("{key}={value}")]);
            self
        }

        fn trusting(self, ca: &Path) -> Visitor<'a> {
            self.with("ssl.ca.location", ca.display())
        }

        fn showing(self, (certificate, key): (PathBuf, PathBuf)) -> Visitor<'a> {
            self.with("ssl.certificate.location", certificate.display())
                .with("ssl.key.location", key.display())
        }

        fn logging_in(self, mechanism: &str, user: &str, password: &str) -> Visitor<'a> {
            self.with("sasl.mechanisms", mechanism)
                .with("sasl.username", user)
                .with("sasl.password", password)
        }

        /// Whether it can write a line to a topic, and what it said if not.
        fn writes(&self, topic: &str) -> Result<(), String> {
            let address = self.secured.address(self.listener);
            let mut child = crate::kafka::kcat()
                .args(["-b", &address, "-P", "-t", topic])
                .args(&self.options)
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("kcat is installed: run tests/run");
            let mut stdin = child.stdin.take().expect("stdin is piped");
            // Who reads nothing has hung up.
            let _ = stdin.write_all(b"a line\n");
            drop(stdin);
            let out = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            if out.status.success() {
                Ok(())
            } else {
                Err(said)
            }
        }

        #[track_caller]
        fn gets_in(&self) {
            let result = self.writes("t");
            let logs = || self.secured.kafka.logs();
            assert!(
                result.is_ok(),
                "{:?}: {result:?}\n{}",
                self.listener,
                logs()
            );
        }

        #[track_caller]
        fn is_kept_out(&self, because: &str) {
            let said = self.writes("t").expect_err("it got in");
            assert!(said.contains(because), "{:?}: {said}", self.listener);
        }
    }

    #[test]
    #[ignore = "needs the jars of Kafka: run tests/run"]
    fn a_listener_with_tls_lets_in_who_trusts_its_authority() {
        let secured = Secured::shared();
        let to = |listener| Visitor::to(&secured, listener);
        to(Listener::Tls).trusting(&secured.ca()).gets_in();
        let misled = to(Listener::Tls).trusting(&secured.other_ca());
        misled.is_kept_out("certificate verify failed");
        // Only that it is out of date, or somebody else's, is wrong with them.
        for (listener, check) in [
            (Listener::ExpiredTls, "enable.ssl.certificate.verification"),
            (
                Listener::ElsewhereTls,
                "ssl.endpoint.identification.algorithm",
            ),
        ] {
            let visitor = || to(listener).trusting(&secured.ca());
            visitor().is_kept_out("certificate verify failed");
            let off = if check.starts_with("enable") {
                "false"
            } else {
                "none"
            };
            visitor().with(check, off).gets_in();
        }
    }

    #[test]
    #[ignore = "needs the jars of Kafka: run tests/run"]
    fn a_listener_for_clients_with_certificates_lets_in_no_others() {
        let secured = Secured::shared();
        let visitor = || Visitor::to(&secured, Listener::MutualTls).trusting(&secured.ca());
        visitor().showing(secured.client()).gets_in();
        visitor().is_kept_out("SSL");
        visitor().showing(secured.stranger()).is_kept_out("SSL");
    }

    #[test]
    #[ignore = "needs the jars of Kafka: run tests/run"]
    fn listeners_with_sasl_let_in_who_knows_the_password() {
        let secured = Secured::shared();
        for listener in [Listener::Sasl, Listener::SaslTls, Listener::SaslReauth] {
            let visitor = || Visitor::to(&secured, listener).trusting(&secured.ca());
            visitor().logging_in("PLAIN", USER, PASSWORD).gets_in();
            let guess = visitor().logging_in("PLAIN", USER, "a guess");
            guess.is_kept_out("SASL authentication error");
            let other = visitor().logging_in("PLAIN", "mallory", PASSWORD);
            other.is_kept_out("SASL authentication error");
        }
    }

    /// Not with kcat: librdkafka before 2.6.1 repeats its nonce in its last message,
    /// which Kafka has refused since CVE-2024-56128.
    #[test]
    #[ignore = "needs the jars of Kafka: run tests/run"]
    fn listeners_with_sasl_let_in_who_proves_by_scram_to_know_the_password() {
        let secured = Secured::shared();
        let users = [(USER, PASSWORD), (ODD_USER, ODD_PASSWORD)];
        for (listener, mechanism, user) in [
            (Listener::Sasl, "SCRAM-SHA-256", users[0]),
            (Listener::SaslTls, "SCRAM-SHA-512", users[0]),
            (Listener::SaslReauth, "SCRAM-SHA-512", users[1]),
        ] {
            let result = secured.admits(listener, mechanism, user);
            assert!(result.is_ok(), "{listener:?}: {result:?}");
        }
        let result = secured.admits(Listener::Sasl, "SCRAM-SHA-512", (USER, "a guess"));
        let said = result.expect_err("it got in");
        assert!(said.contains("invalid credentials"), "{said}");
    }

    impl Secured {
        /// Whether Kafka's own client gets in.
        fn admits(
            &self,
            listener: Listener,
            mechanism: &str,
            (user, password): (&str, &str),
        ) -> Result<(), String> {
            let (protocol, ca) = (listener.protocol(), self.ca());
            let module = "org.apache.kafka.common.security.scram.ScramLoginModule required";
            let client = format!(
                "security.protocol={protocol}\n\
                 ssl.truststore.type=PEM\n\
                 ssl.truststore.location={}\n\
                 sasl.mechanism={mechanism}\n\
                 sasl.jaas.config={module} username=\"{user}\" password=\"{password}\";\n",
                ca.display()
            );
            self.kafka.admits(&self.address(listener), &client)
        }
    }

    #[test]
    #[ignore = "needs the jars of Kafka: run tests/run"]
    fn a_topic_is_denied_to_a_user_and_the_others_are_not() {
        let secured = Secured::shared();
        secured.kafka.create_topic(FORBIDDEN, 1, &[]);
        let visitor = Visitor::to(&secured, Listener::Sasl).logging_in("PLAIN", USER, PASSWORD);
        visitor.gets_in();
        let said = visitor.writes(FORBIDDEN).unwrap_err();
        assert!(said.contains("Topic authorization failed"), "{said}");
    }

    #[test]
    #[ignore = "needs the jars of Kafka: run tests/run"]
    fn a_login_that_is_not_renewed_in_time_ends_the_connection() {
        let secured = Secured::shared();
        let address = secured.address(Listener::SaslReauth);
        let mut stream = TcpStream::connect(address).unwrap();
        let plain = StrBytes::from_static_str("PLAIN");
        let handshake = SaslHandshakeRequest::default().with_mechanism(plain);
        let answer = exchange(&mut stream, 1, &handshake).unwrap();
        assert_eq!(answer.error_code, 0);
        let secret = Bytes::from(format!("\0{USER}\0{PASSWORD}"));
        let login = SaslAuthenticateRequest::default().with_auth_bytes(secret);
        let answer = exchange(&mut stream, 1, &login).unwrap();
        let lifetime = i64::try_from(LOGIN.as_millis()).unwrap();
        assert_eq!(
            (answer.error_code, answer.session_lifetime_ms),
            (0, lifetime)
        );

        let question = ApiVersionsRequest::default();
        exchange(&mut stream, 0, &question).expect("the login is good");
        std::thread::sleep(LOGIN + Duration::from_millis(500));
        exchange(&mut stream, 0, &question).expect_err("it is not any more");
    }
}
