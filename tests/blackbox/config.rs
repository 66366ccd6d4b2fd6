//! The config file: what is refused and with which words, what is warned of, what
//! `check-config` shows, and that a secret is never among it. The contract is
//! DESIGN.md's, sections 8 and 10.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::broker::Broker;
use crate::cli::NOTHING;
use crate::etcd::{Certificates, Etcd};
use crate::world::{Ended, World};

/// Bad configs: the name of the file, its text, and all that is said of it, as
/// `LINE:COLUMN: key: problem`. Read them as somebody who was woken by them.
const BAD: &[(&str, &str, &[&str])] = &[
    (
        "c.json",
        "",
        &[
            "1:1: is empty: the least is {\"sources\": [{\"path\": \"/var/log/a.log\", \"topic\": \"a\"}]}",
        ],
    ),
    (
        "c.json",
        "{\n  \"sources\": [\n    {\"path\": \"/a\", \"topic\": \"a\"}\n  ]\n  \"queue\": {}\n}",
        &["4:4: a comma is missing here"],
    ),
    (
        "c.json",
        "{\"sources\": [],}",
        &["1:15: the comma before '}' or ']' must go"],
    ),
    (
        "c.json",
        "{\"sources\": [",
        &["1:13: the list that begins here has no ']'"],
    ),
    (
        "c.json",
        "{\"sources\": [] // all\n}",
        &["1:16: JSON has no comments: remove it, or use a .yaml file"],
    ),
    (
        "c.json",
        "{\"sources\": [] # all\n}",
        &["1:16: JSON has no comments: remove it, or use a .yaml file"],
    ),
    (
        "c.json",
        "{\"sources\": [],\n \"queue\": {\"bytes\": 8MiB}}",
        &["2:21: needs double quotes: \"8MiB\""],
    ),
    (
        "c.json",
        "# all\nsources:\n  - path: /a\n    topic: a\n",
        &["2:1: looks like YAML: name the file .yaml"],
    ),
    (
        "c.json",
        "{'sources': []}",
        &["1:2: strings need double quotes"],
    ),
    (
        "c.json",
        "{\"sources\": \"/var/log/a\n\"}",
        &[
            "1:23: the string goes over the end of its line, or holds a control character: is its closing quote missing?",
        ],
    ),
    (
        "c.json",
        "{\"sources\": []} {}",
        &["1:17: there is something after the end of the document: remove it"],
    ),
    (
        "c.json",
        "[]",
        &[
            "1:1: must be an object like {\"sources\": [{\"path\": \"/var/log/a.log\", \"topic\": \"a\"}]}; got a list",
        ],
    ),
    (
        "c.json",
        "{\"queue\": {}, \"queue\": {}, \"sources\": []}",
        &["1:15: the key 'queue' stands twice in this object, the other one in line 1: remove one"],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"C:\\logs\", \"topic\": \"a\"}]}",
        &["1:26: the string holds an escape that JSON does not have: a backslash is written \\\\"],
    ),
    (
        "c.json",
        "{\"sources\": [], \"stats_interval\": 010}",
        &["1:36: a number does not begin with 0"],
    ),
    (
        "c.yaml",
        "sources:\n\t- path: /a\n",
        &[
            "2:2: this is not YAML: tabs disallowed within this context (block indentation) (indent with spaces)",
        ],
    ),
    (
        "c.yaml",
        "sources:\n  - path: /a\n    topic: a\n   format: json\n",
        &[
            "4:4: this is not YAML: while parsing a block collection, did not find expected '-' indicator (is the line indented like its neighbours, and is every bracket and quote closed?)",
        ],
    ),
    (
        "c.yaml",
        "sources: []\n---\nsources: []\n",
        &["2:1: a second document begins here: a config is one"],
    ),
    (
        "c.yaml",
        "sources: []\nqueue: {bytes: 8MiB\n",
        &[
            "3:1: this is not YAML: while parsing a flow mapping, did not find expected ',' or '}' (is the line indented like its neighbours, and is every bracket and quote closed?)",
        ],
    ),
    (
        "c.yaml",
        "sources: &all [*all]\n",
        &["1:16: the alias stands inside of what it stands for"],
    ),
    (
        "c.yaml",
        "queue:\n  bytes: 8MiB\nqueue:\n  when_full: drop\nsources: []\n",
        &["3:1: the key 'queue' stands twice in this object, the other one in line 1: remove one"],
    ),
    (
        "c.yaml",
        "base: &base {topic: a}\nsources:\n  - <<: *base\n    path: /a\n",
        &["3:5: '<<' is not understood: write the keys out"],
    ),
    (
        "c.yaml",
        "sources:\n  - path: *.log\n    topic: a\n",
        &[
            "2:11: this is not YAML: while parsing node, found unknown anchor (a value that begins with * must be in quotes)",
        ],
    ),
    (
        "c.yaml",
        "sources:\n  path: /a\n  topic: a\n",
        &[
            "2:3: sources: must be a list of objects like [{\"path\": \"/var/log/*.log\", \"topic\": \"logs\"}]; got an object: put it in [ ], or in YAML behind a '- '",
        ],
    ),
    (
        "c.yaml",
        "kafka:\nsources: []\n",
        &["1:6: kafka: has nothing below it: indent its keys, or leave it away"],
    ),
    (
        "c.yaml",
        "kafka:\nbrokers: ['k:1']\nsources:\nqueue: ~\n",
        &[
            "1:6: kafka: has nothing below it: indent its keys, or leave it away",
            "2:1: brokers: unknown key here, did you mean 'kafka.brokers'?",
            "3:8: sources: has nothing below it: write its items below, each behind a '- ', or leave it away",
            "4:8: queue: must be an object like {\"bytes\": \"8MiB\"}; got null: give a value, or leave the key out",
        ],
    ),
    (
        "c.json",
        "{\"kafka\": {\"bootstrap.servers\": \"k:1\"},\n \"sources\": [{\"path\": \"/a\", \"topic\": \"a\",\n  \"include\": [\"b\"],\n  \"kafka\": {}}]}",
        &[
            "1:12: kafka.bootstrap.servers: unknown key, did you mean 'brokers'?",
            "3:3: sources[0].include: unknown key: remove it (known here: path, exclude, topic, format, key, partition, labels, headers, read_from, when_full, line_bytes_max, skip_empty)",
            "4:3: sources[0].kafka: belongs to the top level, not into a source",
        ],
    ),
    (
        "c.json",
        "{}",
        &[
            "1:1: sources: is missing, so that nothing is tailed: the least is {\"sources\": [{\"path\": \"/var/log/a.log\", \"topic\": \"a\"}]}",
        ],
    ),
    (
        "c.json",
        "{\"source\": [{\"path\": \"/a\", \"topic\": \"a\"}]}",
        &["1:2: source: unknown key, did you mean 'sources'?"],
    ),
    (
        "c.json",
        "{\"brokers\": [\"k:1\"], \"sources\": []}",
        &["1:2: brokers: unknown key here, did you mean 'kafka.brokers'?"],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\", \"colour\": \"red\"}]}",
        &[
            "1:47: sources[0].colour: unknown key: remove it (known here: path, exclude, topic, format, key, partition, labels, headers, read_from, when_full, line_bytes_max, skip_empty)",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [\n  {\"path\": \"/a\"},\n  {\"topic\": \"b\"},\n  {\"path\": \"/c\", \"topc\": \"c\"}]}",
        &[
            "2:3: sources[0].topic: is missing: give one, like \"nginx\"",
            "3:3: sources[1].path: is missing: give one, like \"/var/log/nginx/*.log\"",
            "4:18: sources[2].topc: unknown key, did you mean 'topic'?",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [\"/var/log/a.log\"]}",
        &[
            "1:14: sources[0]: must be an object like {\"path\": \"/var/log/a.log\", \"topic\": \"a\"}; got the string '/var/log/a.log'",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"\", \"topic\": \"\"}]}",
        &[
            "1:23: sources[0].path: is empty: give one, like \"/var/log/nginx/*.log\"",
            "1:36: sources[0].topic: is empty: give one, like \"nginx\"",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": [\"/a\", \"/b\"], \"topic\": \"a\"}]}",
        &[
            "1:23: sources[0].path: must be a path or a pattern like \"/var/log/nginx/*.log\"; got a list: use one source a path, or a pattern like \"/{a,b}\"",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/var/log/[a\", \"topic\": \"two words\"}]}",
        &[
            "1:23: sources[0].path: '/var/log/[a' is not a pattern: unclosed character class; missing ']' (write \\[ for a bracket that means itself)",
            "1:47: sources[0].topic: 'two words' cannot be a Kafka topic: ' ' is not one of a-z A-Z 0-9 . _ -",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/var/log/\", \"topic\": \"a\"}, {\"path\": \"-\", \"topic\": \"a\"}]}",
        &[
            "1:23: sources[0].path: '/var/log/' names a directory: name the files in it, like 'DIR/*.log'",
            "1:60: sources[1].path: '-' is standard input only for 'logship tail': name files",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\", \"exclude\": \"*.gz\"}]}",
        &[
            "1:58: sources[0].exclude: must be a list of strings like [\"*.gz\", \"*.[0-9]\"]; got the string '*.gz': put it in [ ]",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\", \"exclude\": [\"*.gz\", \"[\", 1]}]}",
        &[
            "1:67: sources[0].exclude[1]: '[' is not a pattern: unclosed character class; missing ']'",
            "1:72: sources[0].exclude[2]: must be a string; got the number 1: put it in quotes",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\", \"format\": \"JSON\"}]}",
        &["1:57: sources[0].format: must be \"raw\" or \"json\", got 'JSON'"],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\", \"labels\": {\"env\": \"prod\", \"tier\": 1}}]}",
        &["1:81: sources[0].labels.tier: must be a string; got the number 1: put it in quotes"],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\", \"labels\": [\"prod\"]}]}",
        &[
            "1:57: sources[0].labels: must be an object of strings like {\"env\": \"prod\"}; got a list",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\", \"read_from\": \"start\", \"when_full\": \"block\", \"partition\": \"random\"}]}",
        &[
            "1:60: sources[0].read_from: must be \"beginning\" or \"end\", got 'start'",
            "1:82: sources[0].when_full: must be \"wait\" or \"drop\", got 'block'",
            "1:104: sources[0].partition: must be \"file\" or \"spread\", got 'random'",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\", \"line_bytes_max\": 0}]}",
        &["1:65: sources[0].line_bytes_max: must be from 1 to 64MiB, got 0"],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\", \"line_bytes_max\": \"1GiB\"}]}",
        &["1:65: sources[0].line_bytes_max: must be from 1 to 64MiB, got 1GiB"],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\", \"skip_empty\": \"true\"}]}",
        &["1:61: sources[0].skip_empty: must be true or false without quotes, got 'true'"],
    ),
    (
        "c.yaml",
        "sources:\n  - path: /a\n    topic: 2024\n    skip_empty: yes\n",
        &[
            "3:12: sources[0].topic: must be a string like \"nginx\"; got the number 2024: put it in quotes",
            "4:17: sources[0].skip_empty: must be true or false, got 'yes': write true",
        ],
    ),
    (
        "c.yaml",
        "sources:\n  - path: /a\n    topic: a\n    skip_empty: 'Off'\n",
        &[
            "4:17: sources[0].skip_empty: must be true or false without quotes, got 'Off': write false",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"C:\\new\", \"topic\": \"a\"},\n {\"path\": \"C:\\temp\", \"topic\": \"a\"}],\n \"state_dir\": \"a\\nb\"}",
        &[
            "1:23: sources[0].path: 'C:\\new' holds a line break: a backslash is written \\\\",
            "2:11: sources[1].path: 'C:\\temp' holds a tab: a backslash is written \\\\",
            "3:15: state_dir: holds a line break: a backslash is written \\\\",
        ],
    ),
    (
        "c.yaml",
        "sources:\n  - path: |\n      /a\n    topic: a\n",
        &["3:7: sources[0].path: '/a\\n' ends with a line break: remove it"],
    ),
    (
        "c.yaml",
        "etcd:\n  endpoints: ['http://e:1']\n  keys: [/k]\n  username: me\n  password_file: ~/x\n",
        &["5:18: etcd.password_file: '~' is not expanded: write the full path"],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\", \"key\": \"${NO_SUCH_VARIABLE}\"}]}",
        &["1:54: sources[0].key: the environment variable NO_SUCH_VARIABLE is not set"],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\", \"key\": \"${HOME\", \"labels\": {\"a\": \"${HOME:-x}\"}}]}",
        &[
            "1:54: sources[0].key: '${' has no '}' (a dollar sign is written $$)",
            "1:80: sources[0].labels.a: '${HOME:-...}' is not understood: there are no defaults, set HOME instead",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\"}], \"kafka\": {}}",
        &["1:58: kafka.brokers: is missing: give one, like [\"kafka1:9092\", \"kafka2:9092\"]"],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\"}], \"kafka\": {\"brokers\": []}}",
        &["1:70: kafka.brokers: is empty: give at least one, like [\"kafka1:9092\"]"],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\"}], \"kafka\": {\"brokers\": \"k:1\"}}",
        &[
            "1:70: kafka.brokers: must be a list of strings like [\"kafka1:9092\", \"kafka2:9092\"]; got the string 'k:1': put it in [ ]",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\"}], \"kafka\": {\"brokers\": [\"kafka1\", \"http://k:1\", \"k:99999\", \"::1:9092\"]}}",
        &[
            "1:71: kafka.brokers[0]: 'kafka1' is not HOST:PORT: the port is missing",
            "1:81: kafka.brokers[1]: 'http://k:1' is not HOST:PORT: leave the scheme away",
            "1:95: kafka.brokers[2]: 'k:99999' is not HOST:PORT: the port must be a number from 1 to 65535",
            "1:106: kafka.brokers[3]: '::1:9092' is not HOST:PORT: an IPv6 address needs brackets, like [::1]:9092",
        ],
    ),
    (
        "c.yaml",
        "sources: []\nkafka:\n  brokers:\n  - k1:9092;k2:9092\n  - k1:9092 k2:9092\n  - k1:9092;k2\n  - k1: 9093\n  - host: k1\n  - {host: k1, port: 1}\n  - [k1]\n",
        &[
            "4:5: kafka.brokers[0]: separate brokers in the list: [\"k1:9092\", \"k2:9092\"]",
            "5:5: kafka.brokers[1]: separate brokers in the list: [\"k1:9092\", \"k2:9092\"]",
            "6:5: kafka.brokers[2]: 'k1:9092;k2' is not HOST:PORT: the port must be a number from 1 to 65535",
            "7:5: kafka.brokers[3]: must be a string; got an object: write it as \"k1:9093\"",
            "8:5: kafka.brokers[4]: must be a string; got an object: write it as \"k1:9092\"",
            "9:5: kafka.brokers[5]: must be a string; got an object: write it as \"k1:1\"",
            "10:5: kafka.brokers[6]: must be a string; got a list",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\"}],\n \"kafka\": {\"brokers\": [\"k:1\"],\n  \"producers\": 0}}",
        &["3:16: kafka.producers: must be from 1 to 64, got 0"],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\"}],\n \"kafka\": {\"brokers\": [\"k:1\"],\n  \"producers\": 1.5, \"linger\": 50}}",
        &[
            "3:16: kafka.producers: must be a whole number, got 1.5",
            "3:31: kafka.linger: a duration needs a unit: write \"50ms\" or \"50s\"",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\"}],\n \"kafka\": {\"brokers\": [\"k:1\"],\n  \"producers\": \"4\"}}",
        &[
            "3:16: kafka.producers: must be a whole number like 4; got the string '4': remove the quotes",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\"}],\n \"kafka\": {\"brokers\": [\"k:1\"],\n  \"linger\": \"50\", \"request_timeout\": \"soon\", \"connect_timeout\": \"1ms\"}}",
        &[
            "3:13: kafka.linger: '50': a duration needs a unit, like '50s' or '50ms'",
            "3:38: kafka.request_timeout: 'soon': not a duration like '250ms', '10s' or '1h 30m'",
            "3:65: kafka.connect_timeout: must be from 10ms to 10m, got 1ms",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\"}],\n \"kafka\": {\"brokers\": [\"k:1\"],\n  \"batch_bytes\": \"1M\"}}",
        &[
            "3:18: kafka.batch_bytes: '1M': 'M' could be 1000 or 1024: write '1MiB' (1024) or '1MB' (1000)",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\"}],\n \"kafka\": {\"brokers\": [\"k:1\"],\n  \"batch_bytes\": -1}}",
        &["3:18: kafka.batch_bytes: must not be negative, got -1"],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\"}],\n \"kafka\": {\"brokers\": [\"k:1\"],\n  \"batch_bytes\": \"1.5MiB\", \"compression\": \"lzma\"}}",
        &[
            "3:18: kafka.batch_bytes: '1.5MiB': a size is a whole number, like '1536KiB'",
            "3:43: kafka.compression: must be \"none\", \"gzip\", \"snappy\", \"lz4\" or \"zstd\", got 'lzma'",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\"}],\n \"kafka\": {\"brokers\": [\"k:1\"],\n  \"acks\": 1}}",
        &["3:11: kafka.acks: only \"all\" is supported: write \"all\", or leave the key away"],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\"}],\n \"kafka\": {\"brokers\": [\"k:1\"],\n  \"security_protocol\": \"SASL_PLAINTEXT\", \"tls\": {\"insecure_skip_verify\": true}}}",
        &[
            "2:11: kafka.sasl: is missing, and SASL_PLAINTEXT needs a login",
            "3:24: kafka.security_protocol: is SASL_PLAINTEXT, which has no TLS: use SASL_SSL, or leave TLS away",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\"}],\n \"kafka\": {\"brokers\": [\"k:1\"],\n  \"sasl\": {\"mechanism\": \"GSSAPI\", \"username\": \"me\", \"password\": 12345}}}",
        &[
            "3:25: kafka.sasl.mechanism: must be \"PLAIN\", \"SCRAM-SHA-256\", \"SCRAM-SHA-512\" or \"OAUTHBEARER\"",
            "3:65: kafka.sasl.password: must be a string, got a number: put it in quotes",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\"}],\n \"kafka\": {\"brokers\": [\"k:1\"],\n  \"sasl\": {\"mechanism\": \"PLAIN\", \"username\": \"me\", \"password_file\": \"/no/such/file\"}}}",
        &[
            "3:69: kafka.sasl.password_file: cannot read '/no/such/file': No such file or directory (os error 2)",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\"}],\n \"kafka\": {\"brokers\": [\"k:1\"],\n  \"sasl\": {\"mechanism\": \"OAUTHBEARER\", \"username\": \"me\"}}}",
        &[
            "3:11: kafka.sasl.token_file: is missing: the file that holds the token",
            "3:25: kafka.sasl.mechanism: is OAUTHBEARER, which has a token and neither user nor password",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\"}],\n \"kafka\": {\"brokers\": [\"k:1\"],\n  \"sasl\": {\"mechanism\": \"SCRAM-SHA-512\"}}}",
        &[
            "3:11: kafka.sasl.username: is missing",
            "3:11: kafka.sasl.password_file: is missing: the file that holds the password (or give password, like \"${KAFKA_PASSWORD}\")",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\"}],\n \"kafka\": {\"brokers\": [\"k:1\"],\n  \"tls\": {\"ca_file\": \"/dev/null\", \"insecure_skip_verify\": true}}}",
        &[
            "3:22: kafka.tls.ca_file: is not asked where any certificate is taken: leave one of both away",
        ],
    ),
    (
        "c.yaml",
        "sources: []\nkafka:\n  bootstrap.servers: k:1\n  security.protocol: SASL_SSL\n  sasl.mechanism: PLAIN\n  ssl.ca.location: /ca.pem\n",
        &[
            "3:3: kafka.bootstrap.servers: unknown key, did you mean 'brokers'?",
            "4:3: kafka.security.protocol: unknown key, did you mean 'security_protocol'?",
            "5:3: kafka.sasl.mechanism: unknown key, did you mean \"sasl\": {\"mechanism\": \"SCRAM-SHA-512\"}?",
            "6:3: kafka.ssl.ca.location: unknown key, did you mean \"tls\": {\"ca_file\": \"/etc/ssl/kafka-ca.pem\"}?",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\"}],\n \"kafka\": {\"brokers\": [\"k:1\"], \"compression\": \"gzip\",\n  \"compression_level\": 10,\n  \"in_flight_requests\": 6, \"retry_backoff\": \"3s\"}}",
        &[
            "3:24: kafka.compression_level: 10 is no level of gzip: use 1 to 9",
            "4:25: kafka.in_flight_requests: must be from 1 to 5, got 6",
            "4:45: kafka.retry_backoff: is more than retry_backoff_max, which is 2s",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\", \"headers\": true}],\n \"kafka\": {\"brokers\": [\"k:1\"], \"client\": \"legacy\",\n  \"compression\": \"zstd\", \"tls\": {\"insecure_skip_verify\": true},\n  \"sasl\": {\"mechanism\": \"PLAIN\", \"username\": \"me\", \"password\": \"secret\"}}}",
        &[
            "1:58: sources[0].headers: are not known to brokers before Kafka 0.11: leave them away, or kafka.client",
            "3:18: kafka.compression: is a codec that the legacy client does not have: use \"snappy\", \"gzip\" or \"none\"",
            "3:33: kafka.tls: is TLS, which the legacy client does not have: use a listener without it",
            "4:11: kafka.sasl: is a login, which the legacy client does not have: use a listener without it",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\"}],\n \"kafka\": {\"brokers\": [\"k:1\"],\n  \"compression_level\": 3}}",
        &["3:24: kafka.compression_level: lz4 has no levels: leave it away, or use gzip or zstd"],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\"}],\n \"kafka\": {\"brokers\": [\"k:1\"], \"client\": \"legacy\", \"compression\": \"lz4\",\n  \"security_protocol\": \"SSL\", \"tls\": {\"ca_file\": \"/no/such/file\"}}}",
        &[
            "2:67: kafka.compression: is a codec that the legacy client does not have: use \"snappy\", \"gzip\" or \"none\"",
            "3:38: kafka.tls: is TLS, which the legacy client does not have: use a listener without it",
            "3:50: kafka.tls.ca_file: cannot read '/no/such/file': No such file or directory (os error 2)",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\"}],\n \"kafka\": {\"brokers\": [\"k:1\"], \"client\": \"old\"}}",
        &["2:42: kafka.client: must be \"auto\", \"modern\" or \"legacy\", got 'old'"],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\"}],\n \"kafka\": {\"brokers\": [\"k:1\"],\n  \"client_id\": \"a\\nb\"}}",
        &[
            "3:16: kafka.client_id: 'a\\nb' is not a client id: use at most 249 letters, digits and signs of ASCII",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a\\u0000.log\", \"topic\": \"a\"}],\n \"state_dir\": \"a\\u0000b\"}",
        &[
            "1:23: sources[0].path: '/a\\0.log' holds a NUL character, which no file name can hold",
            "2:15: state_dir: holds a NUL character, which no file name can hold",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\"}],\n \"kafka\": {\"brokers\": [\"user:hun,ter2@h:1\"]}}",
        &[
            "2:24: kafka.brokers[0]: '...@h:1' is not HOST:PORT: user and password belong into kafka.sasl",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\"}], \"queue\": {\"bytes\": 0}}",
        &["1:68: queue.bytes: must be from 1MiB to 1GiB, got 0"],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\"}], \"queue\": {\"bytes\": \"8 parsecs\", \"when_full\": \"skip\"}}",
        &[
            "1:68: queue.bytes: '8 parsecs': 'parsecs' is no unit of size: use B, KiB, MiB, GiB, KB, MB or GB",
            "1:94: queue.when_full: must be \"wait\" or \"drop\", got 'skip'",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\"}], \"queue\": null}",
        &[
            "1:58: queue: must be an object like {\"bytes\": \"8MiB\"}; got null: give a value, or leave the key out",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\"}], \"stats_interval\": \"0s\", \"shutdown_timeout\": \"2h\"}",
        &[
            "1:67: stats_interval: must be from 100ms to 1day, got 0s",
            "1:93: shutdown_timeout: must be from 0s to 1h, got 2h",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\"}], \"poll_interval_min\": \"2s\", \"poll_interval_max\": \"1s\"}",
        &[
            "1:70: poll_interval_min: 2s is more than poll_interval_max (1s): lower it, or raise that",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\"}], \"open_generations_max\": 99999999999999999999}",
        &["1:73: open_generations_max: must be from 1 to 10000, got 99999999999999999999"],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\"}], \"idle_after\": true}",
        &["1:63: idle_after: must be a duration like \"5s\"; got true"],
    ),
    (
        "c.yaml",
        "sources: []\nidle_after: 5S\nadmin: {listen: '127.0.0.1'}\n",
        &[
            "2:13: idle_after: '5S': 'S' is no unit: ms, s, m, h",
            "3:17: admin.listen: must be IP:PORT, like \"127.0.0.1:9598\" (host names are not taken)",
        ],
    ),
    (
        "c.yaml",
        "sources:\n  - path: '/a{b'\n    topic: a\n",
        &[
            "2:11: sources[0].path: '/a{b' is not a pattern: unclosed alternate group; missing '}' (maybe escape '{' with '[{]'?)",
        ],
    ),
    (
        "c.json",
        "{\"etcd\": {}}",
        &[
            "1:10: etcd.endpoints: is missing: give one, like [\"http://127.0.0.1:2379\"]",
            "1:10: etcd.keys: is missing: give one, like [\"/logship/{host}/sources\"]",
        ],
    ),
    (
        "c.json",
        "{\"etcd\": {\"endpoints\": [\"localhost:2379\"], \"keys\": [\"/logship/{hostname}\"]}}",
        &[
            "1:25: etcd.endpoints[0]: 'localhost:2379' is not http://HOST:PORT: it must begin with http:// or https://",
            "1:53: etcd.keys[0]: '{hostname}' is not known: {host} and {ip} are",
        ],
    ),
    (
        "c.json",
        "{\"etcd\": {\"endpoints\": [], \"keys\": []}}",
        &[
            "1:24: etcd.endpoints: is empty: give at least one, like [\"http://127.0.0.1:2379\"]",
            "1:36: etcd.keys: is empty: give at least one, like [\"/logship/{host}/sources\"]",
        ],
    ),
    (
        "c.json",
        "{\"etcd\": {\"endpoints\": [\"http://e:1\"], \"keys\": [\"/k\"], \"allowed_paths\": [\"/var/log/**\"],\n  \"username\": \"me\"}}",
        &["2:15: etcd.username: needs password_file, or password, beside it"],
    ),
    (
        "c.json",
        "{\"etcd\": {\"endpoints\": [\"http://e:1\"], \"keys\": [\"/k\"], \"allowed_paths\": [\"/var/log/**\"],\n  \"password\": \"hunter2\"}}",
        &["2:15: etcd.password: needs username beside it"],
    ),
    (
        "c.json",
        "{\"etcd\": {\"endpoints\": [\"http://e:1\"], \"keys\": [\"/k\"], \"allowed_paths\": [\"/var/log/**\"],\n  \"username\": \"me\", \"password\": \"hunter2\", \"password_file\": \"/no/such/file\"}}",
        &[
            "2:61: etcd.password_file: cannot read '/no/such/file': No such file or directory (os error 2)",
            "2:61: etcd.password_file: stands beside password: keep one of them",
        ],
    ),
    (
        "c.json",
        "{\"etcd\": {\"endpoints\": [\"http://e:1\"], \"keys\": [\"/k\"], \"allowed_paths\": [\"/var/log/**\"],\n  \"tls\": {\"cert_file\": \"/no/such/file\"}}}",
        &[
            "2:10: etcd.tls: is for https, and all endpoints begin with http: change the endpoints, or remove it",
            "2:24: etcd.tls.cert_file: needs key_file beside it",
            "2:24: etcd.tls.cert_file: cannot read '/no/such/file': No such file or directory (os error 2)",
        ],
    ),
    (
        "c.json",
        "{\"etcd\": {\"endpoints\": [\"http://e:1\"], \"keys\": [\"/k\"], \"allowed_paths\": [\"/var/log/**\"],\n  \"denied_paths\": [\"/var/log/../lib\"], \"value_bytes_max\": \"1TB\"}}",
        &[
            "2:20: etcd.denied_paths[0]: '/var/log/../lib' leads upwards with '..': write the path without it",
            "2:59: etcd.value_bytes_max: '1TB': 'TB' is no unit of size: use B, KiB, MiB, GiB, KB, MB or GB",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\"}], \"admin\": {\"listen\": \"localhost:9598\"}, \"agent\": {\"ip\": \"me\"}}",
        &[
            "1:69: admin.listen: must be IP:PORT, like \"127.0.0.1:9598\" (host names are not taken)",
            "1:104: agent.ip: must be an IP address, got 'me'",
        ],
    ),
    (
        "c.json",
        "{\"sources\": [{\"path\": \"/a.log\", \"topic\": \"a\"}], \"admin\": {\"listen\": 9598}}",
        &["1:69: admin.listen: must be an address like \"127.0.0.1:9598\"; got the number 9598"],
    ),
];

fn write(world: &World, name: &str, text: impl AsRef<[u8]>) {
    fs::write(world.path(name), text).unwrap();
}

fn check(world: &World, name: &str, text: impl AsRef<[u8]>) -> Ended {
    write(world, name, text);
    world.logship(["check-config", name]).run()
}

fn stdout(ended: &Ended) -> String {
    let lines = ended.lines().into_iter();
    let lines: Vec<String> = lines.map(|line| String::from_utf8(line).unwrap()).collect();
    lines.join("\n")
}

#[test]
fn every_bad_config_is_told_in_full_and_refused() {
    let world = World::new();
    for (name, text, expected) in BAD {
        let ended = check(&world, name, text).exits(2).printed(NOTHING);
        let lines: Vec<&str> = ended.stderr.lines().collect();
        let count = match expected.len() {
            1 => "1 mistake".to_owned(),
            count => format!("{count} mistakes"),
        };
        let mut all: Vec<String> = expected
            .iter()
            .map(|line| format!("{name}:{line}"))
            .collect();
        all.push(format!("logship: {count} in {name}"));
        all.push("hint: 'man logship.conf' explains every key".to_owned());
        assert_eq!(lines, all, "{text}");
    }
}

/// One code path: whoever is refused by one is refused by the other, alike.
#[test]
fn run_refuses_with_the_same_words() {
    let world = World::new();
    for (name, text, _) in BAD.iter().step_by(9) {
        let checked = check(&world, name, text).exits(2);
        let ran = world.logship(["run", "--config", name]).run().exits(2);
        assert_eq!(ran.stderr, checked.stderr);
    }
    assert_eq!(fs::read_dir(world.home()).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_read_as_a_config_is_refused() {
    let world = World::new();
    world.dir("dir");
    write(
        &world,
        "latin1.json",
        b"{\"sources\": [{\"path\": \"/caf\xe9\", \"topic\": \"a\"}]}",
    );
    write(&world, "utf16.json", b"\xff\xfe{\0}\0");
    write(&world, "large.json", vec![b' '; 5 << 20]);
    for (name, problem) in [
        (
            "none.json",
            "none.json: cannot read the config file: No such file or directory",
        ),
        (
            "dir",
            "dir: cannot read the config file: is a directory (name a file in it)",
        ),
        (
            "latin1.json",
            "latin1.json:1:28: the byte 0xe9 is not UTF-8: save the file as UTF-8",
        ),
        ("utf16.json", "utf16.json:1:1: is UTF-16: save it as UTF-8"),
        ("large.json", "large.json:1:1: is larger than 4 MiB"),
        ("/dev/zero", "/dev/zero:1:1: is larger than 4 MiB"),
    ] {
        let ended = world.logship(["check-config", name]).run();
        ended.exits(2).printed(NOTHING).said(problem);
    }
}

/// An object of keys that nobody knows.
fn many_keys(count: usize) -> String {
    let keys: Vec<String> = (0..count).map(|n| format!("\"k{n}\":1")).collect();
    format!("{{{}}}", keys.join(","))
}

#[test]
fn a_document_that_means_harm_is_refused_soon() {
    let world = World::new();
    let mut bomb = "a0: &a0 [x, x]\n".to_owned();
    for n in 1..60 {
        bomb += &format!("a{n}: &a{n} [*a{}, *a{}]\n", n - 1, n - 1);
    }
    for (name, text) in [
        ("bomb.yaml", bomb),
        ("deep.json", "[".repeat(1 << 20)),
        ("deep.yaml", "[".repeat(1 << 20)),
        ("block.yaml", "- ".repeat(1 << 18)),
        ("keys.yaml", "? ".repeat(1 << 18)),
        ("flow.yaml", "{a: ".repeat(1 << 18)),
        ("nul.json", "\0".repeat(1 << 20)),
        ("line.json", format!("[{}1]", "1,".repeat(1 << 20))),
        ("keys.json", many_keys(100_000)),
    ] {
        check(&world, name, text).exits(2).printed(NOTHING);
    }
}

#[test]
fn a_good_config_shows_what_would_go_where() {
    let world = World::new();
    world.dir("logs");
    for n in 0..7 {
        world.log(format!("logs/{n}.log")).write(["line"]);
    }
    world.log("logs/old.log.gz").write(["x"]);
    let text = r#"
kafka: {brokers: ["k1:9092, k2:9092"], compression: zstd}
sources:
  - path: logs/*
    exclude: ["*.gz"]
    topic: web
    format: json
    labels: {env: prod}
    when_full: drop
state_dir: state
"#;
    let ended = check(&world, "c.yaml", text).exits(0);
    assert_eq!(ended.stderr, "");
    let dir = world.path("");
    let dir = dir.to_str().unwrap();
    let expected = format!(
        "c.yaml is good\n\n\
         records  to Kafka at k1:9092, k2:9092 (zstd, linger 50ms, 2 producers)\n\
         state    {dir}state\n\
         sources  1, with 7 files now\n\
         \x20 logs/* -> web\n\
         \x20   exclude *.gz, format json, label env=prod, when_full drop\n\
         \x20   7 files, 35 bytes (1 excluded)\n\
         \x20     {dir}logs/0.log  5 bytes\n\
         \x20     {dir}logs/1.log  5 bytes\n\
         \x20     {dir}logs/2.log  5 bytes\n\
         \x20     {dir}logs/3.log  5 bytes\n\
         \x20     {dir}logs/4.log  5 bytes\n\
         \x20     and 2 more"
    );
    assert_eq!(stdout(&ended), expected);
    assert!(!world.path("state").exists(), "a check makes nothing");
}

#[test]
fn both_ways_to_name_the_file_and_none_or_two() {
    let world = World::new();
    write(&world, "c.json", r#"{"sources": []}"#);
    world
        .logship(["check-config", "--config", "c.json"])
        .run()
        .exits(0);
    world.logship(["check-config"]).run().exits(2);
    world
        .logship(["check-config", "c.json", "--config", "c.json"])
        .run()
        .exits(2);
    world.logship(["run"]).run().exits(2).said("--config");
}

#[test]
fn a_variable_of_the_shell_in_a_path_is_a_warning() {
    let world = World::new();
    let text =
        r#"{"sources": [{"path": "$HOME/x.log", "topic": "a"}, {"path": "a$.log", "topic": "a"}]}"#;
    let ended = check(&world, "c.json", text).exits(0);
    let warning = "c.json:1:23: warning: sources[0].path: '$HOME' is not filled in: '${HOME}' is";
    assert_eq!(ended.stderr.lines().next(), Some(warning));
    assert!(
        !ended.stderr.contains("sources[1].path"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_path_that_a_shell_would_have_split_or_expanded_is_a_warning() {
    let world = World::new();
    let text = "sources:
  - {path: ~/a.log, topic: a}
  - {path: /no/a /no/b, topic: a}
  - {path: '/no/a,/no/b', topic: a}
  - {path: '/no/{a,/b}', topic: a}
state_dir: ~/state
";
    let ended = check(&world, "c.yaml", text).exits(0);
    let lines: Vec<&str> = ended.stderr.lines().take(5).collect();
    let two = "looks like two paths: use one source per path";
    let home = "'~' is not expanded: write the full path";
    assert_eq!(
        lines[..4],
        [
            format!("c.yaml:2:12: warning: sources[0].path: {home}"),
            format!("c.yaml:3:12: warning: sources[1].path: {two}"),
            format!("c.yaml:4:12: warning: sources[2].path: {two}"),
            format!("c.yaml:6:12: warning: state_dir: {home}"),
        ]
    );
}

#[test]
fn what_had_better_be_looked_at_is_a_warning() {
    let world = World::new();
    world.log("a.log").write(["x"]);
    world.log("b.log.gz").write(["x"]);
    world.dir("d");
    let secret = world.path("secret");
    fs::write(&secret, "hunter2\n").unwrap();
    world.log("secret").chmod(0o644);
    let text = r#"{
  "sources": [
    {"path": "*.log", "topic": "a", "labels": {"x": "y"}},
    {"path": "a.log", "topic": "b", "key": "{file}"},
    {"path": "*.gz", "topic": "a"},
    {"path": "none/*.log", "topic": "a", "headers": true},
    {"path": "later.log", "topic": "a"},
    {"path": "d", "topic": "a"},
    {"path": "*.log", "topic": "a", "format": "json"}
  ],
  "etcd": {"endpoints": ["http://e:1"], "keys": ["/k"], "username": "me", "password_file": "secret"},
  "admin": {"listen": "0.0.0.0:1"}
}"#;
    let ended = check(&world, "c.json", text).exits(0);
    let dir = world.path("");
    let said = ended.stderr.replace(dir.to_str().unwrap(), "DIR/");
    let expected = [
        "c.json:3:47: warning: sources[0].labels: are only in records of the format \"json\": add \"format\": \"json\", or remove them",
        "c.json:4:44: warning: sources[1].key: '{file}' is not filled in, only {path} and {host} are",
        "c.json:6:53: warning: sources[3].headers: are only in records that go to Kafka: standard output has no room for them",
        "c.json:9:5: warning: sources[6]: has the path and topic of sources[0], which is what holds: remove one",
        "c.json:11:11: warning: etcd.allowed_paths: is not set: whoever writes to etcd can have almost any file read that logship can read (set it, like [\"/var/log/**\"])",
        "c.json:11:92: warning: etcd.password_file: goes over the network in the clear to http://e:1: use https",
        "c.json:11:92: warning: etcd.password_file: everybody on this host can read 'DIR/secret': chmod 600 'DIR/secret'",
        "c.json:12:23: warning: admin.listen: 0.0.0.0:1 is not loopback: whoever reaches it can read paths, topics and figures, without a password",
        "c.json:5:5: warning: path: 1 of its files are compressed and would be shipped as they are, like DIR/b.log.gz: add \"exclude\": [\"*.gz\"]",
        "c.json:6:5: warning: path: 'none/*.log' matches no file yet: cannot look into 'DIR/none': No such file or directory (os error 2)",
        "c.json:7:5: warning: path: 'later.log' does not exist yet: it is waited for",
        "c.json:8:5: warning: path: cannot tail 'd': it is a directory; name the files in it, for example with '/*.log' added",
        "c.json:4:5: warning: path: DIR/a.log is shipped to two topics, 'a' and 'b' (the other source is at c.json:3:5)",
    ];
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines, expected);
}

/// They were taken in silence, and whoever had set them to save memory or time did not
/// have what they set.
#[test]
fn what_the_legacy_client_does_not_look_at_is_told_by_name() {
    let world = World::new();
    world.log("a.log").write(["x"]);
    let text = |client: &str| {
        format!(
            r#"{{
  "state_dir": "state",
  "sources": [{{"path": "a.log", "topic": "a"}}],
  "kafka": {{
    "brokers": ["127.0.0.1:1"], "client": "{client}",
    "handshake_timeout": "1s",
    "in_flight_requests": 1,
    "in_flight_bytes": "1MiB",
    "request_bytes": "1MiB",
    "connect_timeout": "1s", "request_timeout": "1s", "retry_backoff": "50ms", "retry_backoff_max": "1s",
    "metadata_age_max": "1m", "linger": "5ms", "batch_bytes": "64KiB", "producers": 1, "client_id": "x"
  }}
}}"#
        )
    };
    const ONE: &str =
        "has no effect with the legacy client, which sends one batch at a time: leave it away";
    let expected = [
        "6:26: warning: kafka.handshake_timeout: has no effect with the legacy client, which has no handshake: leave it away".to_owned(),
        format!("7:27: warning: kafka.in_flight_requests: {ONE}"),
        format!("8:24: warning: kafka.in_flight_bytes: {ONE}"),
        format!("9:22: warning: kafka.request_bytes: {ONE}"),
    ];
    let ended = check(&world, "c.json", text("legacy")).exits(0);
    let expected_lines: Vec<String> = expected
        .iter()
        .map(|line| format!("c.json:{line}"))
        .collect();
    assert_eq!(ended.stderr.lines().collect::<Vec<_>>(), expected_lines);
    assert_eq!(check(&world, "c.json", text("auto")).exits(0).stderr, "");

    fs::write(world.path("c.json"), text("legacy")).unwrap();
    let shipper = world.logship(["run", "--config", "c.json"]).start();
    shipper.says(&format!("kafka.request_bytes: {ONE}"));
    // A default that is written out changes nothing, and is no reason for a word.
    let text = r#"{"sources": [{"path": "a.log", "topic": "a"}],
 "kafka": {"brokers": ["127.0.0.1:1"], "client": "legacy", "in_flight_requests": 5, "handshake_timeout": "5s"}}"#;
    assert_eq!(check(&world, "c.json", text).exits(0).stderr, "");
}

#[test]
fn a_file_that_cannot_be_read_is_a_warning() {
    let world = World::new();
    world.log("a.log").chmod(0o000);
    write(
        &world,
        "c.json",
        r#"{"sources": [{"path": "*.log", "topic": "a"}]}"#,
    );
    let ended = world
        .logship(["check-config", "c.json"])
        .unprivileged()
        .run();
    ended
        .exits(0)
        .said("c.json:1:14: warning: path: 1 of its files cannot be read by this user, like ")
        .said("Permission denied");
}

#[test]
fn an_inline_password_is_warned_of_only_where_others_can_read_it() {
    let world = World::new();
    let text = |password: &str| {
        format!(
            r#"{{"etcd": {{"endpoints": ["https://e:1"], "keys": ["/k"], "allowed_paths": ["/a"], "username": "me", "password": "{password}"}}}}"#
        )
    };
    let open = "everybody on this host can read it here";
    check(&world, "open.json", text("hunter2"))
        .exits(0)
        .said(open)
        .never_said("hunter2");
    world.log("open.json").chmod(0o600);
    let ended = world.logship(["check-config", "open.json"]).run();
    ended.exits(0).never_said(open);
    write(&world, "env.json", text("${ETCD_PASSWORD}"));
    let ended = world
        .logship(["check-config", "env.json"])
        .env("ETCD_PASSWORD", "hunter2")
        .run();
    ended.exits(0).never_said(open);
}

/// A password in the wrong place, or in a shape that is none, was repeated with what was wrong about it.
#[test]
fn what_stands_where_a_login_belongs_is_never_shown() {
    let world = World::new();
    for (name, sasl) in [
        ("c.json", r#""PLAIN me hunter2""#),
        ("c.json", r#"["PLAIN", "me", "hunter2"]"#),
        ("c.json", "4711"),
        ("c.json", "4711s"),
        ("c.json", r#"{"mechanism": "PLAIN me hunter2"}"#),
        ("c.json", r#"{"mechanism": ["hunter2"]}"#),
        ("c.json", r#"{"mechanism": "PLAIN", "username": 4711}"#),
        (
            "c.json",
            r#"{"mechanism": "PLAIN", "username": ["hunter2"]}"#,
        ),
        (
            "c.json",
            r#"{"username": "me", "password": {"is": "hunter2"}}"#,
        ),
        ("c.json", r#"{"username": "me", "password": ["hunter2"]}"#),
        ("c.json", r#"{"username": "me", "password": 4711}"#),
        ("c.json", r#"{"username": "me", "password": "${hunter2 }"}"#),
        (
            "c.json",
            r#"{"username": "me", "password": "${1:-hunter2}"}"#,
        ),
        (
            "c.json",
            r#"{"username": "me", "password": "${A:-hunter2}"}"#,
        ),
        ("c.json", r#"{"username": "me", "password_file": 4711}"#),
        ("c.yaml", "!hunter2 x"),
        ("c.yaml", "PLAIN me hunter2"),
        ("c.yaml", "{username: me, password: !hunter2}"),
        ("c.yaml", "{username: me, password: !<hunter2> x}"),
        ("c.yaml", "{username: me, password: *hunter2}"),
        ("c.yaml", "{username: me, password: 4711}"),
    ] {
        let text = match name {
            "c.json" => {
                format!(r#"{{"sources": [], "kafka": {{"brokers": ["k:1"], "sasl": {sasl}}}}}"#)
            }
            _ => format!("sources: []\nkafka:\n  brokers: ['k:1']\n  sasl: {sasl}\n"),
        };
        let ended = check(&world, name, text).exits(2);
        ended.never_said("hunter2").never_said("4711");
    }
}

/// Variables and options took `ssl` and `plain`, and a config did not.
/// Without quotes what was meant as a value is a key, and unknown ones were shown.
#[test]
fn a_password_that_became_a_key_is_shown_nowhere() {
    let world = World::new();
    for slip in [
        "sasl: {PLAIN u hunter2}",
        "sasl: {hunter2: 1, hunter2: 2}",
        "sasl: {password: {hunter2: 1, hunter2: 2}}",
        "sasl: {mechanism: PLAIN, username: u, password=hunter2}",
        "sasl hunter2: 1",
        "sasl.hunter2: 1",
    ] {
        let text = format!("kafka: {{brokers: [\"k:1\"], {slip}}}\nsources: []\n");
        let ended = check(&world, "c.yaml", text).exits(2);
        ended.said("c.yaml:1:").never_said("hunter2");
    }
}

/// It was left away without a word.
#[test]
fn a_bad_certificate_among_good_ones_is_warned_of() {
    let world = World::new();
    let good = fs::read_to_string(Certificates::new().ca()).unwrap();
    let bad = "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n";
    let line = good.lines().count() + 1;
    let text = "kafka: {brokers: [\"k:1\"], tls: {ca_file: ca.pem}}\n\
                etcd: {endpoints: [\"https://e:1\"], keys: [/k], tls: {ca_file: ca.pem}}\n";
    write(&world, "ca.pem", format!("{good}{bad}"));
    let ended = check(&world, "c.yaml", text).exits(0);
    let path = world.path("ca.pem");
    let told = format!("certificate 2 in {} (line {line})", path.display());
    for key in ["kafka.tls.ca_file", "etcd.tls.ca_file"] {
        let told = format!("{key}: {told} cannot be used: ");
        assert!(ended.stderr.contains(&told), "{told}\n{}", ended.stderr);
    }

    write(&world, "ca.pem", bad);
    let ended = check(&world, "c.yaml", text).exits(2);
    let told = format!("no certificate in {} can be used", path.display());
    ended.said(&format!("1:42: kafka.tls.ca_file: {told}"));
}

#[test]
fn protocols_and_mechanisms_are_known_in_any_case_and_shown_in_the_plan() {
    let world = World::new();
    write(&world, "secret", "hunter2\n");
    world.log("secret").chmod(0o600);
    let ca = Certificates::new();
    let ca = ca.ca();
    let ca = ca.display();
    let scram = "sasl: {mechanism: scram-sha-512, username: ship, password_file: secret}";
    let token = "sasl: {mechanism: OAuthBearer, token_file: secret}";
    for (security, shown) in [
        (
            format!("security_protocol: ssl, tls: {{ca_file: {ca}}}"),
            " over SSL",
        ),
        (
            format!("security_protocol: Sasl_Ssl, tls: {{ca_file: {ca}}}, {scram}"),
            " over SASL_SSL as ship, SCRAM-SHA-512",
        ),
        (
            scram.to_owned(),
            " over SASL_PLAINTEXT as ship, SCRAM-SHA-512",
        ),
        (token.to_owned(), " over SASL_PLAINTEXT, OAUTHBEARER"),
        ("security_protocol: plaintext".to_owned(), ""),
    ] {
        let text = format!("sources: []\nkafka: {{brokers: ['k:1'], {security}}}\n");
        let plan = stdout(&check(&world, "c.yaml", text).exits(0));
        let expected = format!("records  to Kafka at k:1{shown} (lz4, linger 50ms, 2 producers)");
        assert!(plan.contains(&expected), "no '{expected}' in\n{plan}");
        assert!(!plan.contains("hunter2"), "{plan}");
    }
}

/// What editors and copying leave behind a password, and before it.
#[test]
fn a_password_file_with_more_than_a_password_is_told() {
    let world = World::new();
    let text = r#"{"sources": [], "kafka": {"brokers": ["localhost:1"],
 "sasl": {"mechanism": "PLAIN", "username": "me", "password_file": "secret"}}}"#;
    let said = "c.json:2:68: warning: kafka.sasl.password_file: the password in '";
    for (content, doubtful) in [
        ("hunter2", false),
        ("hunter2\n", false),
        ("hunter 2\r\n", false),
        ("hunter2 \n", true),
        ("hunter2\t\r\n", true),
    ] {
        write(&world, "secret", content);
        world.log("secret").chmod(0o600);
        let ended = check(&world, "c.json", text).exits(0).never_said("hunter");
        assert_eq!(
            ended.stderr.contains(said),
            doubtful,
            "{content:?}\n{}",
            ended.stderr
        );
    }
    for (content, said) in [
        ("\u{feff}hunter2\n", "begins with a byte order mark"),
        ("hunter2\n\n", "has more than one line"),
    ] {
        write(&world, "secret", content);
        let ended = check(&world, "c.json", text).exits(2).never_said("hunter");
        ended.said("kafka.sasl.password_file: '").said(said);
    }
}

/// Whatever is wrong around a secret, it is not repeated.
#[test]
fn a_secret_is_never_shown() {
    let world = World::new();
    write(&world, "secret", "hunter2\n");
    for etcd in [
        r#""username": "me", "password": "hunter2", "colour": 1"#,
        r#""username": "me", "password": ["hunter2"]"#,
        r#""username": "me", "password": {"hunter2": "hunter2"}"#,
        r#""password": "hunter2${NONE}""#,
        r#""password": "${SECRET}""#,
        r#""username": "me", "password_file": "secret", "poll_interval": 1"#,
        r#""username": "me", "password": "hunter2", "password_file": "secret""#,
    ] {
        let text = format!(
            r#"{{"etcd": {{"endpoints": ["http://me:hunter2@e:1"], "keys": ["/k"], {etcd}}}}}"#
        );
        write(&world, "c.json", text);
        let ended = world
            .logship(["check-config", "c.json"])
            .env("SECRET", "hunter2")
            .run()
            .exits(2);
        let said = ended.stderr.replace("password.hunter2", "");
        assert!(!said.contains("hunter2"), "{etcd}\n{said}");
    }
}

#[test]
fn variables_stand_for_strings_and_for_other_values() {
    let world = World::new();
    world.log("a.log").write(["x"]);
    let text = r#"{
  "kafka": {"brokers": ["${BROKERS}"], "producers": "${COUNT}", "linger": "${LINGER}"},
  "sources": [{"path": "${NAME}.log", "topic": "${NAME}", "skip_empty": "${FLAG}", "headers": "${FLAG}", "key": "a$$b$c"}]
}"#;
    write(&world, "c.json", text);
    let run = |count: &str| {
        let command = world.logship(["check-config", "c.json"]);
        let command = command.env("BROKERS", "k1:1,k2:2").env("LINGER", "7ms");
        command
            .env("NAME", "a")
            .env("FLAG", "true")
            .env("COUNT", count)
            .run()
    };
    let shown = stdout(&run("3").exits(0));
    assert!(
        shown.contains("to Kafka at k1:1, k2:2 (lz4, linger 7ms, 3 producers)"),
        "{shown}"
    );
    assert!(
        shown.contains(
            "a.log -> a\n    key a$b$c, headers, skip_empty, lines up to 1019KiB\n    1 file"
        ),
        "{shown}"
    );
    run("three")
        .exits(2)
        .said("c.json:2:53: kafka.producers: must be a whole number, got three");
}

#[test]
fn the_same_in_json_and_yaml_is_the_same() {
    let world = World::new();
    let json = r#"{"sources": [{"path": "a", "topic": "t", "labels": {"k": "v"}}], "queue": {"bytes": "8MiB"}}"#;
    let yaml = "queue:\n  bytes: 8MiB\nsources:\n- path: a\n  topic: t\n  labels:\n    k: v\n";
    let plan =
        |name: &str, text: &str| stdout(&check(&world, name, text).exits(0)).replace(name, "FILE");
    let expected = plan("c.json", json);
    assert_eq!(plan("c.yaml", yaml), expected);
    assert_eq!(plan("c.YML", yaml), expected);
    assert_eq!(plan("json-in.yaml", json), expected);
    assert_eq!(plan("bom.json", &format!("\u{feff}{json}")), expected);
}

/// Relative paths are those of the file, from wherever it is checked.
#[test]
fn relative_paths_are_taken_from_the_directory_of_the_file() {
    let world = World::new();
    world.dir("etc/logs");
    world.log("etc/logs/a.log").write(["x"]);
    symlink(world.path("etc"), world.path("link")).unwrap();
    write(
        &world,
        "etc/c.json",
        r#"{"sources": [{"path": "logs/*.log", "topic": "t"}]}"#,
    );
    for name in ["etc/c.json", "link/c.json", "./etc/../etc/c.json"] {
        let shown = stdout(&world.logship(["check-config", name]).run().exits(0));
        assert!(shown.contains("with 1 file now"), "{shown}");
    }
}

#[test]
fn without_connect_no_network_is_touched() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let text = format!(
        r#"{{"kafka": {{"brokers": ["127.0.0.1:{port}"]}}, "sources": [], "etcd": {{"endpoints": ["http://127.0.0.1:{port}"], "keys": ["/k"]}}}}"#
    );
    check(&world, "c.json", text).exits(0);
    assert!(listener.accept().is_err(), "somebody came");
}

fn connect(world: &World, brokers: &str, topic: &str) -> Ended {
    let text = format!(
        r#"{{"kafka": {{"brokers": ["{brokers}"]}}, "sources": [{{"path": "a", "topic": "{topic}"}}]}}"#
    );
    write(world, "c.json", text);
    world.logship(["check-config", "c.json", "--connect"]).run()
}

#[test]
fn connect_tries_every_broker_and_topic_step_by_step() {
    let world = World::new();
    let broker = Broker::builder().nodes(2).partitions(3).start();
    let addresses = broker.addresses();
    let (first, second) = addresses.split_once(',').unwrap();
    let shown = stdout(&connect(&world, first, "t").exits(0));
    let told = format!("{second}, advertised by {first}");
    for line in [
        format!("  {first}: DNS lookup: ok"),
        format!("  {first}: TCP connect: ok"),
        format!("  {first}: Kafka handshake: ok"),
        format!("  {first}: metadata: ok (2 brokers)"),
        format!("  {first}: producer id: ok"),
        format!("  {told}: Kafka handshake: ok"),
        "  topic t: ok (it does not exist yet, and is made on first use)".to_owned(),
    ] {
        assert!(shown.contains(&line), "no '{line}' in\n{shown}");
    }
}

#[test]
fn connect_makes_no_topic_and_says_whether_the_brokers_would() {
    let world = World::new();
    let broker = Broker::builder().auto_create(false).start();
    let shown = stdout(&connect(&world, &broker.addresses(), "t").exits(1));
    let told =
        "topic t: FAILED: it does not exist, and auto.create.topics.enable is off (create it)";
    assert!(shown.contains(told), "{shown}");
    broker.create_topic("t", 3);
    let shown = stdout(&connect(&world, &broker.addresses(), "t").exits(0));
    assert!(shown.contains("topic t: ok (3 partitions)"), "{shown}");
}

#[test]
fn connect_names_the_step_that_fails_and_exits_with_1() {
    let world = World::new();
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let shown = stdout(&connect(&world, &closed.to_string(), "t").exits(1));
    assert!(
        shown.contains(&format!("{closed}: TCP connect: FAILED: ")),
        "{shown}"
    );
    let shown = stdout(&connect(&world, "no-such-host.invalid:9092", "t").exits(1));
    assert!(
        shown.contains("no-such-host.invalid:9092: DNS lookup: FAILED: "),
        "{shown}"
    );
    assert!(
        shown.contains("(check the host name and the resolver)"),
        "{shown}"
    );
}

#[test]
fn the_examples_pass() {
    let world = World::new();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for name in ["logship.json", "logship.yaml"] {
        let file = examples.join(name);
        world
            .logship(["check-config".into(), file.into_os_string()])
            .run()
            .exits(0);
    }
}

#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn connect_reads_what_stands_in_etcd_and_checks_it_too() {
    let world = World::new();
    let etcd = Etcd::start();
    etcd.put("/good", r#"[{"path": "/var/log/a", "topic": "a"}]"#);
    etcd.put("/bad", r#"[{"path": "/etc/a", "topic": "a"}]"#);
    let check = |key: &str| {
        let endpoint = etcd.endpoint();
        let text = format!(
            r#"{{"etcd": {{"endpoints": ["{endpoint}"], "keys": ["{key}"], "allowed_paths": ["/var/log/**"]}}}}"#
        );
        write(&world, "c.json", text);
        world.logship(["check-config", "c.json", "--connect"]).run()
    };
    let shown = stdout(&check("/good").exits(0));
    assert!(shown.contains("value of /good: ok (1 source)"), "{shown}");
    let shown = stdout(&check("/bad").exits(1));
    let told =
        "value of /bad: FAILED: /bad:1:11: [0].path: '/etc/a' is outside of etcd.allowed_paths";
    assert!(shown.contains(told), "{shown}");
}

#[test]
fn a_directory_that_cannot_be_looked_into_is_a_warning() {
    let world = World::new();
    world.dir("logs/open");
    let closed = world.dir("logs/closed");
    world.log("logs/open/a.log").write(["one"]);
    fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    write(
        &world,
        "c.json",
        r#"{"sources": [{"path": "logs/**/*.log", "topic": "t"}]}"#,
    );
    let ended = world
        .logship(["check-config", "c.json"])
        .unprivileged()
        .run();
    fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let told = format!(
        "c.json:1:14: warning: path: cannot look into '{}': Permission denied (os error 13)",
        closed.display()
    );
    ended.exits(0).said(&told);
}
