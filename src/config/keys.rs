//! Every key of a config, in one table.
//!
//! What is unknown, what a mistake says is due, and the manual page
//! logship.conf(5) come from here. What a key does is in `file`.

/// Beginning of a name that is compared with known ones.
const NAME_CHARS_MAX: usize = 64;

/// What is shown in place of what may be a secret.
const CONCEALED: &str = "***";

/// A key of a config.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Where it stands: `kafka.brokers`, `sources[].path`.
    pub path: &'static str,
    /// What its value is, in words that follow "must be".
    pub kind: &'static str,
    /// What holds without it, as it would be written; or in words, in brackets.
    pub default: &'static str,
    /// A value, as it would be written in JSON.
    pub example: &'static str,
    /// What it does, whole sentences.
    pub about: &'static str,
}

const fn key(
    path: &'static str,
    kind: &'static str,
    default: &'static str,
    example: &'static str,
    about: &'static str,
) -> Key {
    Key {
        path,
        kind,
        default,
        example,
        about,
    }
}

const OBJECT: &str = "an object";
const TEXT: &str = "a string";
const TEXTS: &str = "a list of strings";
const DURATION: &str = "a duration";
const SIZE: &str = "a size";
const NUMBER: &str = "a whole number";
const FLAG: &str = "true or false";
const PATH: &str = "a path";
const REQUIRED: &str = "(required)";
const NONE: &str = "(none)";

/// All keys, in the order of the manual.
pub const KEYS: &[Key] = &[
    key(
        "state_dir",
        PATH,
        "(/var/lib/logship for root, else $XDG_STATE_HOME/logship; none without kafka)",
        r#""/var/lib/logship""#,
        "The directory of the positions, the lock, the dead letters and the last good config from etcd. One logship at a time holds it. \
         Without kafka no state is kept unless this is given.",
    ),
    key(
        "sources",
        "a list of objects",
        "(required without etcd)",
        r#"[{"path": "/var/log/*.log", "topic": "logs"}]"#,
        "What is tailed, and where to. A file that two sources match is shipped to both topics if they differ; with the same topic it is tailed once, \
         as the first one says.",
    ),
    key(
        "sources[].path",
        "a path or a pattern",
        REQUIRED,
        r#""/var/log/nginx/*.log""#,
        "The files. '*' and '?' stand for anything within a name, '**' for any directories, '[...]' and '{a,b}' for one of several; a backslash takes \
         the meaning away. Files that appear later are found. '*' and '**' do not \
         follow linked directories. Names that begin with a dot are matched only by a pattern whose last part begins with one. \
         A relative path is taken from the directory of the config file; in etcd it must be absolute.",
    ),
    key(
        "sources[].exclude",
        TEXTS,
        "[]",
        r#"["*.gz", "*.[0-9]"]"#,
        "Patterns for files that are left alone: without a slash for their names, with one for the whole path.",
    ),
    key(
        "sources[].topic",
        TEXT,
        REQUIRED,
        r#""nginx""#,
        "The Kafka topic. Lines wait in their files while it does not exist and the brokers do not make it.",
    ),
    key(
        "sources[].format",
        TEXT,
        r#""raw""#,
        r#""json""#,
        "The form of a record's value: \"raw\" is the line's bytes, \"json\" an object with the names of the Elastic Common Schema.",
    ),
    key(
        "sources[].key",
        TEXT,
        NONE,
        r#""{host}:{path}""#,
        "The key of every record; {path} and {host} in it are filled in. The partition does not depend on it.",
    ),
    key(
        "sources[].partition",
        TEXT,
        r#""file""#,
        r#""spread""#,
        "\"file\": all lines of a path go to one partition, so that they keep their order. \"spread\": batches go to the partitions in turn.",
    ),
    key(
        "sources[].labels",
        "an object of strings",
        "{}",
        r#"{"env": "prod"}"#,
        "Names and values that every record says under labels. They are only in the format \"json\". At most 64.",
    ),
    key(
        "sources[].headers",
        FLAG,
        "false",
        "true",
        "Every record carries headers that say where its line stands: path (bytes), host, device, inode, generation (one more with every truncation) and \
         offset (of the line's first byte), numbers in decimal. So logship verify tells exactly what is missing or repeated, also on a topic that \
         several hosts share: inodes are unique on one device of one host only. They take about 100 bytes a record before compression. \
         Longest line by default 5KiB below 1MiB.",
    ),
    key(
        "sources[].read_from",
        TEXT,
        r#""beginning""#,
        r#""end""#,
        "Where reading begins in a file that is there at the start and has no saved position: \"beginning\", or \"end\" for new lines only. \
         Files that appear later are read from their beginning.",
    ),
    key(
        "sources[].when_full",
        TEXT,
        "(queue.when_full)",
        r#""drop""#,
        "What is done while Kafka is slower than the file: \"wait\" leaves the lines in the file, \"drop\" gives them up, counts them, and stays at the live end.",
    ),
    key(
        "sources[].line_bytes_max",
        SIZE,
        "(1MiB; towards Kafka 512 bytes less, with headers 5KiB)",
        r#""256KiB""#,
        "Longest line that is shipped; a longer one is cut there and counted. From 1 to 64MiB. A broker takes 1,048,588 bytes by default \
         (message.max.bytes), so beyond the default the brokers must be told to take more.",
    ),
    key(
        "sources[].skip_empty",
        FLAG,
        "false",
        "true",
        "Empty lines are not shipped; they count as dropped.",
    ),
    key(
        "kafka",
        OBJECT,
        "(records go to standard output)",
        r#"{"brokers": ["kafka1:9092"]}"#,
        "The cluster that lines are shipped to. Without it the records go to standard output, one a line.",
    ),
    key(
        "kafka.brokers",
        TEXTS,
        REQUIRED,
        r#"["kafka1:9092", "kafka2:9092"]"#,
        "Where to ask for the cluster: HOST:PORT, at least one; the other brokers are found through them. A string may hold several, separated by commas.",
    ),
    key(
        "kafka.client",
        TEXT,
        r#""auto""#,
        r#""legacy""#,
        "Which client writes to the brokers. \"modern\" is logship's own, for Kafka 0.11 and newer: idempotent, so that no line comes twice. \"legacy\" is for brokers \
         from 0.8.2 to 3.9: lines are sent until they are acknowledged and keep their order, but after a lost connection some may come twice, and there are no headers, \
         no times of records, no lz4, no zstd, neither TLS nor SASL. \"auto\" is modern, and changes to legacy where a broker says that it is older than 0.11: lz4 and zstd then \
         become snappy, and headers are left away. A broker before 0.10 cannot say so but hangs up: set \"legacy\" for it. handshake_timeout, in_flight_requests, \
         in_flight_bytes and request_bytes have no effect with it.",
    ),
    key(
        "kafka.client_id",
        TEXT,
        r#""logship""#,
        r#""logship-web1""#,
        "The name that the brokers' logs, metrics and quotas know this client by.",
    ),
    key(
        "kafka.producers",
        NUMBER,
        "2",
        "4",
        "Threads that compress and send. The lines of a file always go through the same one. From 1 to 64.",
    ),
    key(
        "kafka.compression",
        TEXT,
        r#""lz4""#,
        r#""zstd""#,
        "The codec of batches: \"none\", \"gzip\", \"snappy\", \"lz4\" or \"zstd\". With the legacy client \"snappy\" by default, and neither lz4 nor zstd.",
    ),
    key(
        "kafka.compression_level",
        NUMBER,
        "(gzip 6, zstd 3)",
        "1",
        "How hard the codec tries: gzip from 1 to 9, zstd from 1 to 22. More is smaller and takes more CPU. The other codecs have no levels.",
    ),
    key(
        "kafka.acks",
        TEXT,
        r#""all""#,
        r#""all""#,
        "\"all\" is the only value: a position moves when all in-sync replicas have the line.",
    ),
    key(
        "kafka.linger",
        DURATION,
        r#""50ms""#,
        r#""5ms""#,
        "How long a line waits for others to share its batch. From 0ms to 1m.",
    ),
    key(
        "kafka.batch_bytes",
        SIZE,
        r#""900KiB""#,
        r#""256KiB""#,
        "Bytes of a batch before compression, at most. From 1KiB to 64MiB. A batch that a broker refuses as too large is made smaller.",
    ),
    key(
        "kafka.request_timeout",
        DURATION,
        r#""30s""#,
        r#""30s""#,
        "How long an answer may take before the connection is given up and made anew. From 100ms to 1h.",
    ),
    key(
        "kafka.connect_timeout",
        DURATION,
        r#""5s""#,
        r#""5s""#,
        "How long opening a connection to a broker may take. From 10ms to 10m.",
    ),
    key(
        "kafka.handshake_timeout",
        DURATION,
        r#""5s""#,
        r#""10s""#,
        "How long TLS, the first exchange with a broker and the login may take together. From 10ms to 10m.",
    ),
    key(
        "kafka.in_flight_requests",
        NUMBER,
        "5",
        "1",
        "Requests that a broker is sent before it answers (max.in.flight.requests.per.connection). From 1 to 5: with more, a batch could come twice. The order holds with any.",
    ),
    key(
        "kafka.in_flight_bytes",
        SIZE,
        r#""2500000""#,
        r#""8MiB""#,
        "Bytes of batches under way to a broker, beyond which no other request follows: with the queue it bounds the memory of each producer. As much for each broker may wait to be tried again; of partitions that take nothing, what is more goes back to the files. From 64KiB to 100MiB.",
    ),
    key(
        "kafka.request_bytes",
        SIZE,
        r#""1000000""#,
        r#""4MiB""#,
        "Bytes of batches in one request, of different partitions (max.request.size); one batch always fits. From 64KiB to 100MiB, which is what brokers take (socket.request.max.bytes).",
    ),
    key(
        "kafka.retry_backoff",
        DURATION,
        r#""100ms""#,
        r#""100ms""#,
        "The pause before something that failed is tried again; it doubles each time, with up to a tenth more or less. There is no limit to how often. From 10ms to 10m.",
    ),
    key(
        "kafka.retry_backoff_max",
        DURATION,
        r#""2s""#,
        r#""10s""#,
        "The longest such pause, which is never exceeded. From 10ms to 10m.",
    ),
    key(
        "kafka.refused_backoff",
        DURATION,
        r#""10s""#,
        r#""1m""#,
        "The pause after a broker refused the login, or a certificate was refused, by either side. Each producer tries again by itself: where a \
         directory locks out who fails too often, make it longer. SIGHUP tries at once with what has changed. From 100ms to 1h.",
    ),
    key(
        "kafka.metadata_age_max",
        DURATION,
        r#""5m""#,
        r#""1m""#,
        "How often brokers, topics and partitions are asked for again when nothing fails (metadata.max.age.ms): so long until added partitions are known. From 1s to 24h.",
    ),
    key(
        "kafka.security_protocol",
        TEXT,
        "(by kafka.tls and kafka.sasl)",
        r#""SASL_SSL""#,
        "What other clients call security.protocol: \"PLAINTEXT\", \"SSL\" (TLS), \"SASL_PLAINTEXT\" (a login in the clear) or \"SASL_SSL\". It need not be given; where it is, \
         what contradicts it is a mistake. \"SSL\" without kafka.tls trusts the certificates of the system.",
    ),
    key(
        "kafka.tls",
        OBJECT,
        NONE,
        r#"{"ca_file": "/etc/ssl/kafka-ca.pem"}"#,
        "TLS to the brokers, version 1.2 or 1.3. Their certificates must have the names that brokers and advertised.listeners have. Files are read at the start and \
         after SIGHUP: so renewed ones are taken up.",
    ),
    key(
        "kafka.tls.ca_file",
        PATH,
        "(the system's certificates)",
        r#""/etc/ssl/kafka-ca.pem""#,
        "Certificates, in PEM, that may have signed the brokers'.",
    ),
    key(
        "kafka.tls.cert_file",
        PATH,
        NONE,
        r#""/etc/ssl/logship.pem""#,
        "Our certificate, in PEM, with what is between it and the CA. Needs key_file.",
    ),
    key(
        "kafka.tls.key_file",
        PATH,
        NONE,
        r#""/etc/ssl/logship.key""#,
        "The key of our certificate, in PEM.",
    ),
    key(
        "kafka.tls.insecure_skip_verify",
        FLAG,
        "false",
        "false",
        "Takes any certificate, so that anybody between here and the brokers can read and change what is sent. For tests only; it is said at every start. Not beside ca_file.",
    ),
    key(
        "kafka.sasl",
        OBJECT,
        NONE,
        r#"{"mechanism": "PLAIN", "username": "logship", "password_file": "kafka.password"}"#,
        "Logging in to the brokers. Where they limit how long a login holds (connections.max.reauth.ms), logship logs in again in time.",
    ),
    key(
        "kafka.sasl.mechanism",
        TEXT,
        REQUIRED,
        r#""SCRAM-SHA-512""#,
        "\"PLAIN\", \"SCRAM-SHA-256\", \"SCRAM-SHA-512\" or \"OAUTHBEARER\". PLAIN sends the password, so use it with TLS; SCRAM proves it.",
    ),
    key(
        "kafka.sasl.username",
        TEXT,
        "(required, but for OAUTHBEARER)",
        r#""logship""#,
        "The user.",
    ),
    key(
        "kafka.sasl.password",
        TEXT,
        "(required, or password_file, but for OAUTHBEARER)",
        r#""${KAFKA_PASSWORD}""#,
        "The user's password.",
    ),
    key(
        "kafka.sasl.password_file",
        PATH,
        NONE,
        r#""/run/secrets/kafka""#,
        "A file that holds the password, which is one line; the line end after it is removed. It is read at the start and after SIGHUP.",
    ),
    key(
        "kafka.sasl.token_file",
        PATH,
        "(required for OAUTHBEARER)",
        r#""/run/secrets/kafka.token""#,
        "A file that holds a bearer token. It is read for each login, so whoever renews the token only has to replace it.",
    ),
    key(
        "queue",
        OBJECT,
        "{}",
        r#"{"bytes": "8MiB"}"#,
        "What stands between the files and Kafka.",
    ),
    key(
        "queue.bytes",
        SIZE,
        r#""4MiB""#,
        r#""8MiB""#,
        "Bytes of all lines that are read and not yet in a batch, at most. From 1MiB to 1GiB. More is rarely faster: what does not fit stays in its file.",
    ),
    key(
        "queue.when_full",
        TEXT,
        r#""wait""#,
        r#""drop""#,
        "What a full queue does to a source that does not say so itself: see sources[].when_full.",
    ),
    key(
        "etcd",
        OBJECT,
        NONE,
        r#"{"endpoints": ["http://127.0.0.1:2379"], "keys": ["/logship/{host}/sources"]}"#,
        "Sources from etcd, besides those of the file. A value is the JSON array that would stand under sources. It is watched: a change holds within seconds.",
    ),
    key(
        "etcd.endpoints",
        TEXTS,
        REQUIRED,
        r#"["http://127.0.0.1:2379"]"#,
        "The members: http://HOST:PORT or https://HOST:PORT, tried in this order.",
    ),
    key(
        "etcd.keys",
        TEXTS,
        REQUIRED,
        r#"["/logship/{host}/sources"]"#,
        "The keys whose values are sources, united. A key that ends with a slash means all keys below it. {host} is this host's name, {ip} its address.",
    ),
    key(
        "etcd.poll_interval",
        DURATION,
        r#""5s""#,
        r#""5s""#,
        "How often the keys are read where they cannot be watched. From 100ms to 1h.",
    ),
    key(
        "etcd.username",
        TEXT,
        NONE,
        r#""logship""#,
        "The user, where etcd has authentication on. Needs a password.",
    ),
    key(
        "etcd.password",
        TEXT,
        NONE,
        r#""${ETCD_PASSWORD}""#,
        "The user's password.",
    ),
    key(
        "etcd.password_file",
        PATH,
        NONE,
        r#""/run/secrets/etcd""#,
        "A file that holds the password, which is one line; the line end after it is removed.",
    ),
    key(
        "etcd.tls",
        OBJECT,
        "(the system's certificates)",
        r#"{"ca_file": "/etc/ssl/etcd-ca.pem"}"#,
        "Files for https. They are read anew for every connection.",
    ),
    key(
        "etcd.tls.ca_file",
        PATH,
        "(the system's certificates)",
        r#""/etc/ssl/etcd-ca.pem""#,
        "Certificates, in PEM, that may have signed the members'.",
    ),
    key(
        "etcd.tls.cert_file",
        PATH,
        NONE,
        r#""/etc/ssl/logship.pem""#,
        "Our certificate, in PEM, with what is between it and the CA. Needs key_file.",
    ),
    key(
        "etcd.tls.key_file",
        PATH,
        NONE,
        r#""/etc/ssl/logship.key""#,
        "The key of our certificate, in PEM.",
    ),
    key(
        "etcd.allowed_paths",
        TEXTS,
        "(everything)",
        r#"["/var/log/**"]"#,
        "Patterns for the files that sources from etcd may read; symbolic links are followed first; a hard link inside is a file inside (the kernel's fs.protected_hardlinks keeps others from making one to a file that they \
         may not read and write). A value that reaches outside is refused whole. \
         A path of a directory means all that is below it. Without it, or with \"/**\", whoever writes to etcd can read every file that logship can, except \
         a few that are always denied: the state directory, the password files, and unless named here /proc, /sys, /dev, /run/secrets, /etc/shadow and the like, \
         private keys and what is below .ssh.",
    ),
    key(
        "etcd.denied_paths",
        TEXTS,
        "[]",
        r#"["/var/log/auth.log"]"#,
        "Patterns for files that sources from etcd may not read, whatever allowed_paths says.",
    ),
    key(
        "etcd.value_bytes_max",
        SIZE,
        r#""1MiB""#,
        r#""1MiB""#,
        "Largest value that is taken; a larger one is refused, and its neighbours below a prefix are not. From 1KiB to 16MiB.",
    ),
    key(
        "admin",
        OBJECT,
        "{}",
        r#"{"listen": "127.0.0.1:9598"}"#,
        "Status and metrics. They are always served on a socket in state_dir.",
    ),
    key(
        "admin.listen",
        "an address like \"127.0.0.1:9598\"",
        NONE,
        r#""127.0.0.1:9598""#,
        "An IP address and a port where they are served over HTTP too, without any authentication: keep it on loopback, or behind a firewall.",
    ),
    key("agent", OBJECT, "{}", r#"{"ip": "10.0.0.7"}"#, "This host."),
    key(
        "agent.ip",
        "an IP address",
        "(that of the default route's interface)",
        r#""10.0.0.7""#,
        "What {ip} in etcd.keys stands for.",
    ),
    key(
        "shutdown_timeout",
        DURATION,
        r#""10s""#,
        r#""10s""#,
        "How long a stop waits for acknowledgements. What is not acknowledged is sent after the next start. From 0s to 1h.",
    ),
    key(
        "stats_interval",
        DURATION,
        r#""10s""#,
        r#""1m""#,
        "How often a line with the figures is logged. From 100ms to 1day.",
    ),
    key(
        "drain_timeout",
        DURATION,
        r#""2s""#,
        r#""2s""#,
        "How long a source that was deleted in etcd is read on while lines go on arriving. From 0s to 1h.",
    ),
    key(
        "dead_letters_bytes_max",
        SIZE,
        r#""1GiB""#,
        r#""100MiB""#,
        "Largest dead-letters.jsonl in state_dir. When it is full, records that no broker takes wait in their files, with those of their partition behind them, and a message \
         says so: move the file away. At least 1MiB. It changes with a restart.",
    ),
    key(
        "unhealthy_after",
        DURATION,
        r#""1m""#,
        r#""1m""#,
        "How long Kafka may be unreachable, or acknowledge nothing of a topic whose lines wait, before /healthz and `logship status` say so. From 100ms to 1day.",
    ),
    key(
        "discover_interval",
        DURATION,
        r#""1s""#,
        r#""1s""#,
        "How often directories are looked at for new files. From 10ms to 1h.",
    ),
    key(
        "poll_interval_min",
        DURATION,
        r#""50ms""#,
        r#""50ms""#,
        "Pause after the end of a file was reached; it doubles while the file is quiet. From 1ms to 1m.",
    ),
    key(
        "poll_interval_max",
        DURATION,
        r#""200ms""#,
        r#""1s""#,
        "Longest pause between two looks at a file. Two rotations in less time may hide a file. From 1ms to 1m.",
    ),
    key(
        "idle_after",
        DURATION,
        r#""5s""#,
        r#""5s""#,
        "How long a file must be quiet before its thread and its handle are given back. From 10ms to 1day.",
    ),
    key(
        "open_generations_max",
        NUMBER,
        "100",
        "100",
        "Files of one path, rotated while Kafka was away, that are held open at most. From 1 to 10000.",
    ),
    key(
        "open_files_max",
        NUMBER,
        r#"what the process may open ("ulimit -n"), less 64 for connections"#,
        "1000",
        "Log files that are open at once. When there is something to read in more, they take turns. From 1 to 10000000.",
    ),
    key(
        "held_deleted_bytes_max",
        SIZE,
        r#""10GiB""#,
        r#""10GiB""#,
        "What deleted files may keep of the disk, because they are held open until they are shipped. When it is more, the oldest is let go, and what was not shipped of it is lost and reported. From 1MiB to 1048576GiB.",
    ),
];

/// The key of a path.
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// True where a secret may stand: no message shows a value from there, but the names of files.
pub fn is_secret(path: &str) -> bool {
    path == "etcd.password" || path == "kafka.sasl" || path.starts_with("kafka.sasl.")
}

/// True where a password stands.
pub fn is_password(path: &str) -> bool {
    is_secret(path) && path.ends_with(".password")
}

/// The names that may stand in an object; the document itself is "".
pub fn names_in(object: &str) -> impl Iterator<Item = &'static str> {
    KEYS.iter().filter_map(move |key| {
        let name = within(object, key.path)?;
        (!name.contains(['.', '['])).then_some(name)
    })
}

/// The rest of a path within an object.
fn within(object: &str, path: &'static str) -> Option<&'static str> {
    match object {
        "" => Some(path),
        object => path.strip_prefix(object)?.strip_prefix('.'),
    }
}

/// Names that look like a known one and mean something else.
const NO_SLIPS: [&str; 1] = ["include"];
/// What keys are called by other clients, with '_' for their dots, and by us.
const OTHER_NAMES: [(&str, &str); 12] = [
    ("bootstrap_servers", "kafka.brokers"),
    ("servers", "kafka.brokers"),
    ("hosts", "kafka.brokers"),
    ("sasl_mechanisms", "kafka.sasl.mechanism"),
    ("sasl_jaas_config", "kafka.sasl"),
    ("ssl_ca_location", "kafka.tls.ca_file"),
    ("ssl_truststore_location", "kafka.tls.ca_file"),
    ("ssl_certificate_location", "kafka.tls.cert_file"),
    ("ssl_keystore_location", "kafka.tls.cert_file"),
    ("ssl_key_location", "kafka.tls.key_file"),
    (
        "enable_ssl_certificate_verification",
        "kafka.tls.insecure_skip_verify",
    ),
    (
        "ssl_endpoint_identification_algorithm",
        "kafka.tls.insecure_skip_verify",
    ),
];

/// The key below an object whose path was written as one name, or that other clients
/// call so, and its path from there.
fn flat(object: &str, name: &str) -> Option<(&'static Key, &'static str)> {
    let name = spelled(name).replace('.', "_");
    let bare = name.strip_prefix("kafka_").unwrap_or(&name);
    let mut below = KEYS
        .iter()
        .filter_map(|key| Some((key, within(object, key.path)?)));
    below.find(|(key, path)| {
        path.replace('.', "_") == name || OTHER_NAMES.contains(&(bare, key.path))
    })
}

/// A path below an object as it would be written in it.
fn written(path: &str, key: &Key) -> String {
    if !path.contains('.') && key.kind != OBJECT {
        return format!("'{path}'");
    }
    let mut names = path.rsplit('.');
    let last = names.next().unwrap_or_default();
    let value = format!("\"{last}\": {}", key.example);
    names.fold(value, |inner, name| format!("\"{name}\": {{{inner}}}"))
}

/// The name that was probably meant by one that may not stand in an object.
pub fn nearest(object: &str, name: &str) -> Option<&'static str> {
    let lower = spelled(name);
    if NO_SLIPS.contains(&lower.as_str()) {
        return None;
    }
    if let Some((_, path)) = flat(object, name) {
        return path.split('.').next();
    }
    let distance = |known: &str| strsim::damerau_levenshtein(&lower, known);
    let near = names_in(object).map(|known| (distance(known), known)).min();
    let (distance, known) = near?;
    (known != name && distance <= 1 + known.len() / 4).then_some(known)
}

/// A name as the table would have it.
fn spelled(name: &str) -> String {
    let mut lower = String::new();
    let mut before = '_';
    for c in name.chars().take(NAME_CHARS_MAX) {
        if c.is_uppercase() && before.is_lowercase() {
            lower.push('_');
        }
        lower.extend(c.to_lowercase().map(|c| if c == '-' { '_' } else { c }));
        before = c;
    }
    lower
}

/// A name that may not stand in an object, as a message can show it. What was meant as a
/// value may have become a name, by a slip like `sasl: {PLAIN me secret}`: so below a secret
/// only what is near a name of the table is shown, and elsewhere only what could be one.
pub fn shown(object: &str, name: &str) -> String {
    let known = || names_in(object).any(|known| known == name) || nearest(object, name).is_some();
    let in_names = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if object.starts_with("sources") || (name.chars().all(in_names) && known()) {
        return name.escape_debug().to_string();
    }
    if is_secret(object) {
        return CONCEALED.to_owned();
    }
    let below_secret = name.strip_prefix("sasl.").map(|_| "sasl.".len());
    match below_secret.or_else(|| name.find(|c: char| c.is_whitespace() || "=:".contains(c))) {
        Some(end) => format!("{}{CONCEALED}", name[..end].escape_debug()),
        None => name.escape_debug().to_string(),
    }
}

/// What to say of a name that may not stand in an object.
pub fn unknown(object: &str, name: &str) -> String {
    if !object.is_empty() && names_in("").any(|known| known == name) {
        let place = match object {
            "sources[]" => "a source",
            object => object,
        };
        return format!("belongs to the top level, not into {place}");
    }
    if let Some((key, path)) = flat(object, name) {
        return format!("unknown key, did you mean {}?", written(path, key));
    }
    if let Some(known) = nearest(object, name) {
        return format!("unknown key, did you mean '{known}'?");
    }
    let lower = spelled(name);
    let elsewhere = KEYS.iter().find(|key| {
        let last = key.path.rsplit('.').next().unwrap_or_default();
        last == lower
    });
    if let Some(key) = elsewhere {
        return format!("unknown key here, did you mean '{}'?", key.path);
    }
    let names: Vec<&str> = names_in(object).collect();
    format!("unknown key: remove it (known here: {})", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slip in YAML made a key of the password, which was shown as one that is unknown.
    #[test]
    fn what_may_be_a_secret_is_not_shown_as_a_name() {
        for (object, name, due) in [
            ("kafka.sasl", "PLAIN me hunter2", "***"),
            ("kafka.sasl", "hunter2", "***"),
            ("kafka.sasl", "password=hunter2", "***"),
            ("kafka.sasl", "pasword", "pasword"),
            ("kafka.sasl", "username", "username"),
            ("kafka", "sasl.hunter2", "sasl.***"),
            ("kafka", "sasl.pasword", "sasl.***"),
            ("kafka", "sasl.password", "sasl.password"),
            ("kafka", "sasl hunter2", "sasl***"),
            ("kafka", "ssl.truststore.type", "ssl.truststore.type"),
            ("etcd", "paswort=hunter2", "paswort***"),
            ("", "etcd.password: hunter2", "etcd.password***"),
            ("sources[]", "my topic", "my topic"),
        ] {
            assert_eq!(shown(object, name), due, "{object} {name}");
        }
    }

    #[test]
    fn an_unknown_key_is_told_with_the_nearest_one() {
        for (object, name, said) in [
            ("sources[]", "topc", "unknown key, did you mean 'topic'?"),
            ("sources[]", "paths", "unknown key, did you mean 'path'?"),
            ("", "stateDir", "unknown key, did you mean 'state_dir'?"),
            ("kafka", "Brokers", "unknown key, did you mean 'brokers'?"),
            (
                "kafka",
                "batch-bytes",
                "unknown key, did you mean 'batch_bytes'?",
            ),
            (
                "",
                "brokers",
                "unknown key here, did you mean 'kafka.brokers'?",
            ),
            (
                "kafka",
                "bootstrap.servers",
                "unknown key, did you mean 'brokers'?",
            ),
            ("kafka", "hosts", "unknown key, did you mean 'brokers'?"),
            (
                "kafka",
                "security.protocol",
                "unknown key, did you mean 'security_protocol'?",
            ),
            (
                "kafka",
                "sasl.mechanism",
                r#"unknown key, did you mean "sasl": {"mechanism": "SCRAM-SHA-512"}?"#,
            ),
            (
                "kafka",
                "sasl.mechanisms",
                r#"unknown key, did you mean "sasl": {"mechanism": "SCRAM-SHA-512"}?"#,
            ),
            (
                "",
                "kafka.sasl.mechanism",
                r#"unknown key, did you mean "kafka": {"sasl": {"mechanism": "SCRAM-SHA-512"}}?"#,
            ),
            (
                "kafka",
                "sasl_username",
                r#"unknown key, did you mean "sasl": {"username": "logship"}?"#,
            ),
            (
                "kafka",
                "sasl.password",
                r#"unknown key, did you mean "sasl": {"password": "${KAFKA_PASSWORD}"}?"#,
            ),
            (
                "kafka",
                "sasl.jaas.config",
                r#"unknown key, did you mean "sasl": {"mechanism": "PLAIN", "username": "logship", "password_file": "kafka.password"}?"#,
            ),
            (
                "kafka",
                "ssl.ca.location",
                r#"unknown key, did you mean "tls": {"ca_file": "/etc/ssl/kafka-ca.pem"}?"#,
            ),
            (
                "kafka",
                "ssl.truststore.location",
                r#"unknown key, did you mean "tls": {"ca_file": "/etc/ssl/kafka-ca.pem"}?"#,
            ),
            (
                "kafka.tls",
                "ssl.key.location",
                "unknown key, did you mean 'key_file'?",
            ),
            (
                "kafka",
                "ssl.certificate.location",
                r#"unknown key, did you mean "tls": {"cert_file": "/etc/ssl/logship.pem"}?"#,
            ),
            (
                "kafka",
                "enable.ssl.certificate.verification",
                r#"unknown key, did you mean "tls": {"insecure_skip_verify": false}?"#,
            ),
            (
                "sources[]",
                "kafka",
                "belongs to the top level, not into a source",
            ),
            (
                "etcd",
                "poll_interval_min",
                "belongs to the top level, not into etcd",
            ),
            (
                "queue",
                "colour",
                "unknown key: remove it (known here: bytes, when_full)",
            ),
        ] {
            assert_eq!(unknown(object, name), said);
        }
    }

    #[test]
    fn every_key_stands_in_an_object_of_the_table_and_only_once() {
        for (n, key) in KEYS.iter().enumerate() {
            if let Some((object, _)) = key.path.rsplit_once('.') {
                assert!(
                    find(object.trim_end_matches("[]")).is_some(),
                    "{}",
                    key.path
                );
            }
            assert!(
                KEYS[..n].iter().all(|other| other.path != key.path),
                "{}",
                key.path
            );
            assert!(key.about.ends_with('.'), "{}", key.path);
        }
    }
}
