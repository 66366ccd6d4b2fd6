# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_logship_global_optspecs
    string join \n h/help V/version
end

function __fish_logship_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_logship_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_logship_using_subcommand
    set -l cmd (__fish_logship_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c logship -n "__fish_logship_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c logship -n "__fish_logship_needs_command" -s V -l version -d 'Print version'
complete -c logship -n "__fish_logship_needs_command" -f -a "tail" -d 'Follow files and ship their lines to a Kafka topic'
complete -c logship -n "__fish_logship_needs_command" -f -a "run" -d 'Ship what a config says, until stopped'
complete -c logship -n "__fish_logship_needs_command" -f -a "check-config" -d 'Say what is wrong with a config, or what it would do'
complete -c logship -n "__fish_logship_needs_command" -f -a "status" -d 'Show what the running logship does'
complete -c logship -n "__fish_logship_needs_command" -f -a "verify" -d 'Prove that every line of files arrived'
complete -c logship -n "__fish_logship_needs_command" -f -a "etcd" -d 'Read, check and write the config in etcd'
complete -c logship -n "__fish_logship_using_subcommand tail" -s t -l topic -d 'Ship to this topic' -r
complete -c logship -n "__fish_logship_using_subcommand tail" -s b -l brokers -d 'Ask these brokers for the cluster [default: standard output]' -r
complete -c logship -n "__fish_logship_using_subcommand tail" -l security-protocol -d 'Encrypt, log in, or both [default: by the options below]' -r -f -a "PLAINTEXT\t''
SSL\t''
SASL_PLAINTEXT\t''
SASL_SSL\t''"
complete -c logship -n "__fish_logship_using_subcommand tail" -l tls-ca-file -d 'Trust brokers with a certificate of this CA' -r -F
complete -c logship -n "__fish_logship_using_subcommand tail" -l tls-cert-file -d 'Show the brokers this certificate' -r -F
complete -c logship -n "__fish_logship_using_subcommand tail" -l tls-key-file -d 'The key of our certificate' -r -F
complete -c logship -n "__fish_logship_using_subcommand tail" -l sasl-mechanism -d 'Log in with this mechanism' -r -f -a "PLAIN\t''
SCRAM-SHA-256\t''
SCRAM-SHA-512\t''
OAUTHBEARER\t''"
complete -c logship -n "__fish_logship_using_subcommand tail" -l sasl-username -d 'Log in as this user' -r
complete -c logship -n "__fish_logship_using_subcommand tail" -l sasl-password-file -d 'Log in with the password in this file' -r -F
complete -c logship -n "__fish_logship_using_subcommand tail" -l sasl-token-file -d 'Log in with the token in this file' -r -F
complete -c logship -n "__fish_logship_using_subcommand tail" -l timeout -d 'Give up after this long [default: never]' -r
complete -c logship -n "__fish_logship_using_subcommand tail" -l from -d 'Where to begin in a file without a saved position' -r -f -a "beginning\t'At the first byte'
end\t'Only what is written from now on'"
complete -c logship -n "__fish_logship_using_subcommand tail" -s f -l format -d 'Ship lines as they are, or as JSON objects' -r -f -a "raw\t'The line\'s bytes'
json\t'A JSON object with ECS names'"
complete -c logship -n "__fish_logship_using_subcommand tail" -s k -l key -d 'Give every record this key [default: none]' -r
complete -c logship -n "__fish_logship_using_subcommand tail" -l partition -d 'Keep a file in one partition, or spread batches' -r -f -a "file\t'All lines of a path to one partition'
spread\t'Batches to the partitions in turn'"
complete -c logship -n "__fish_logship_using_subcommand tail" -l client -d 'Choose the client that writes to the brokers' -r -f -a "auto\t'What the brokers can do'
modern\t'For Kafka 0.11 and newer'
legacy\t'For brokers from 0.8.2 to 3.9'"
complete -c logship -n "__fish_logship_using_subcommand tail" -l compression -d 'Compress batches with this codec [default: lz4]' -r -f -a "none\t'No compression, least CPU'
gzip\t'Understood by everything, slow'
snappy\t'Fast'
lz4\t'Fast, the default'
zstd\t'Smallest, more CPU; needs Kafka 2.1'"
complete -c logship -n "__fish_logship_using_subcommand tail" -l compression-level -d 'How hard to compress [default: gzip 6, zstd 3]' -r
complete -c logship -n "__fish_logship_using_subcommand tail" -l when-full -d 'What to do while the queue is full' -r -f -a "wait\t'Leave lines in the file until there is room'
drop\t'Give lines up and count them'"
complete -c logship -n "__fish_logship_using_subcommand tail" -l state-dir -d 'Keep positions below this directory' -r -F
complete -c logship -n "__fish_logship_using_subcommand tail" -l name -d 'Name the state directory of this tail' -r
complete -c logship -n "__fish_logship_using_subcommand tail" -l shutdown-timeout -d 'Wait this long for acknowledgements when stopped' -r
complete -c logship -n "__fish_logship_using_subcommand tail" -l stats-interval -d 'Tell the figures this often' -r
complete -c logship -n "__fish_logship_using_subcommand tail" -l log-file -d 'Log to this file instead of standard error' -r -F
complete -c logship -n "__fish_logship_using_subcommand tail" -l tls-insecure-skip-verify -d 'Take any certificate (for tests only)'
complete -c logship -n "__fish_logship_using_subcommand tail" -l once -d 'Read to the end, wait for every ack, and exit'
complete -c logship -n "__fish_logship_using_subcommand tail" -l headers -d 'Say in headers where each line stands'
complete -c logship -n "__fish_logship_using_subcommand tail" -l no-state -d 'Keep no positions and use none'
complete -c logship -n "__fish_logship_using_subcommand tail" -s q -l quiet -d 'Tell warnings and errors only'
complete -c logship -n "__fish_logship_using_subcommand tail" -s v -l verbose -d 'Tell more: -v about files, -vv about everything'
complete -c logship -n "__fish_logship_using_subcommand tail" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c logship -n "__fish_logship_using_subcommand tail" -s V -l version -d 'Print version'
complete -c logship -n "__fish_logship_using_subcommand run" -s c -l config -d 'Do what this config says' -r -F
complete -c logship -n "__fish_logship_using_subcommand run" -l log-file -d 'Log to this file instead of standard error' -r -F
complete -c logship -n "__fish_logship_using_subcommand run" -s q -l quiet -d 'Tell warnings and errors only'
complete -c logship -n "__fish_logship_using_subcommand run" -s v -l verbose -d 'Tell more: -v about files, -vv about everything'
complete -c logship -n "__fish_logship_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c logship -n "__fish_logship_using_subcommand run" -s V -l version -d 'Print version'
complete -c logship -n "__fish_logship_using_subcommand check-config" -s c -l config -d 'Check this config, as \'run\' is told it' -r -F
complete -c logship -n "__fish_logship_using_subcommand check-config" -l connect -d 'Try etcd, the brokers and the topics too'
complete -c logship -n "__fish_logship_using_subcommand check-config" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c logship -n "__fish_logship_using_subcommand check-config" -s V -l version -d 'Print version'
complete -c logship -n "__fish_logship_using_subcommand status" -l state-dir -d 'Ask the logship with this state directory' -r -F
complete -c logship -n "__fish_logship_using_subcommand status" -l addr -d 'Ask over TCP, where admin.listen is' -r
complete -c logship -n "__fish_logship_using_subcommand status" -l watch -d 'Show it again and again [default: every 2s]' -r
complete -c logship -n "__fish_logship_using_subcommand status" -l json -d 'Print the raw document'
complete -c logship -n "__fish_logship_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c logship -n "__fish_logship_using_subcommand status" -s V -l version -d 'Print version'
complete -c logship -n "__fish_logship_using_subcommand verify" -s a -l arrived -d 'Read what arrived from here [default: standard input]' -r -F
complete -c logship -n "__fish_logship_using_subcommand verify" -s i -l input -d 'Say how it was captured [default: by the first line]' -r -f -a "raw\t'Each line is a line of a file'
json\t'Each line is an object of --format json'
kcat\t'Each line is an object of kcat -J'"
complete -c logship -n "__fish_logship_using_subcommand verify" -l from -d 'Where to begin in each file' -r -f -a "beginning\t'At the first byte'
first\t'At the first line that arrived'"
complete -c logship -n "__fish_logship_using_subcommand verify" -l line-bytes-max -d 'Expect longer lines to be cut here [default: all defaults]' -r
complete -c logship -n "__fish_logship_using_subcommand verify" -l host -d 'Look at records of this host [default: this one]' -r
complete -c logship -n "__fish_logship_using_subcommand verify" -l once -d 'Count the last line also without a line end'
complete -c logship -n "__fish_logship_using_subcommand verify" -l skip-empty -d 'Do not expect empty lines'
complete -c logship -n "__fish_logship_using_subcommand verify" -l allow-repeats -d 'Take repeated lines for all right'
complete -c logship -n "__fish_logship_using_subcommand verify" -l all -d 'Show everything, not ten of each kind'
complete -c logship -n "__fish_logship_using_subcommand verify" -l json -d 'Print JSON, one object a line'
complete -c logship -n "__fish_logship_using_subcommand verify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c logship -n "__fish_logship_using_subcommand verify" -s V -l version -d 'Print version'
complete -c logship -n "__fish_logship_using_subcommand etcd; and not __fish_seen_subcommand_from get put check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c logship -n "__fish_logship_using_subcommand etcd; and not __fish_seen_subcommand_from get put check" -s V -l version -d 'Print version'
complete -c logship -n "__fish_logship_using_subcommand etcd; and not __fish_seen_subcommand_from get put check" -f -a "get" -d 'Print the value of a key'
complete -c logship -n "__fish_logship_using_subcommand etcd; and not __fish_seen_subcommand_from get put check" -f -a "put" -d 'Check a value, and write it'
complete -c logship -n "__fish_logship_using_subcommand etcd; and not __fish_seen_subcommand_from get put check" -f -a "check" -d 'Say what is wrong with a value, or what it would do'
complete -c logship -n "__fish_logship_using_subcommand etcd; and __fish_seen_subcommand_from get" -s c -l config -d 'Reach etcd as this config says' -r -F
complete -c logship -n "__fish_logship_using_subcommand etcd; and __fish_seen_subcommand_from get" -l endpoints -d 'Reach etcd there [env: LOGSHIP_ETCD_ENDPOINTS]' -r
complete -c logship -n "__fish_logship_using_subcommand etcd; and __fish_seen_subcommand_from get" -l user -d 'Log in as this user' -r
complete -c logship -n "__fish_logship_using_subcommand etcd; and __fish_seen_subcommand_from get" -l password-file -d 'Read that user\'s password from this file' -r -F
complete -c logship -n "__fish_logship_using_subcommand etcd; and __fish_seen_subcommand_from get" -l cacert -d 'Trust the CA in this file (https)' -r -F
complete -c logship -n "__fish_logship_using_subcommand etcd; and __fish_seen_subcommand_from get" -l cert -d 'Show this certificate (https)' -r -F
complete -c logship -n "__fish_logship_using_subcommand etcd; and __fish_seen_subcommand_from get" -l key -d 'The key of that certificate' -r -F
complete -c logship -n "__fish_logship_using_subcommand etcd; and __fish_seen_subcommand_from get" -l json -d 'Print JSON: key, mod_revision, and value'
complete -c logship -n "__fish_logship_using_subcommand etcd; and __fish_seen_subcommand_from get" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c logship -n "__fish_logship_using_subcommand etcd; and __fish_seen_subcommand_from get" -s V -l version -d 'Print version'
complete -c logship -n "__fish_logship_using_subcommand etcd; and __fish_seen_subcommand_from put" -s c -l config -d 'Reach etcd as this config says' -r -F
complete -c logship -n "__fish_logship_using_subcommand etcd; and __fish_seen_subcommand_from put" -l endpoints -d 'Reach etcd there [env: LOGSHIP_ETCD_ENDPOINTS]' -r
complete -c logship -n "__fish_logship_using_subcommand etcd; and __fish_seen_subcommand_from put" -l user -d 'Log in as this user' -r
complete -c logship -n "__fish_logship_using_subcommand etcd; and __fish_seen_subcommand_from put" -l password-file -d 'Read that user\'s password from this file' -r -F
complete -c logship -n "__fish_logship_using_subcommand etcd; and __fish_seen_subcommand_from put" -l cacert -d 'Trust the CA in this file (https)' -r -F
complete -c logship -n "__fish_logship_using_subcommand etcd; and __fish_seen_subcommand_from put" -l cert -d 'Show this certificate (https)' -r -F
complete -c logship -n "__fish_logship_using_subcommand etcd; and __fish_seen_subcommand_from put" -l key -d 'The key of that certificate' -r -F
complete -c logship -n "__fish_logship_using_subcommand etcd; and __fish_seen_subcommand_from put" -l dry-run -d 'Show what would change, and write nothing'
complete -c logship -n "__fish_logship_using_subcommand etcd; and __fish_seen_subcommand_from put" -l force -d 'Write also over another\'s change, and the empty list'
complete -c logship -n "__fish_logship_using_subcommand etcd; and __fish_seen_subcommand_from put" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c logship -n "__fish_logship_using_subcommand etcd; and __fish_seen_subcommand_from put" -s V -l version -d 'Print version'
complete -c logship -n "__fish_logship_using_subcommand etcd; and __fish_seen_subcommand_from check" -s c -l config -d 'Reach etcd as this config says' -r -F
complete -c logship -n "__fish_logship_using_subcommand etcd; and __fish_seen_subcommand_from check" -l endpoints -d 'Reach etcd there [env: LOGSHIP_ETCD_ENDPOINTS]' -r
complete -c logship -n "__fish_logship_using_subcommand etcd; and __fish_seen_subcommand_from check" -l user -d 'Log in as this user' -r
complete -c logship -n "__fish_logship_using_subcommand etcd; and __fish_seen_subcommand_from check" -l password-file -d 'Read that user\'s password from this file' -r -F
complete -c logship -n "__fish_logship_using_subcommand etcd; and __fish_seen_subcommand_from check" -l cacert -d 'Trust the CA in this file (https)' -r -F
complete -c logship -n "__fish_logship_using_subcommand etcd; and __fish_seen_subcommand_from check" -l cert -d 'Show this certificate (https)' -r -F
complete -c logship -n "__fish_logship_using_subcommand etcd; and __fish_seen_subcommand_from check" -l key -d 'The key of that certificate' -r -F
complete -c logship -n "__fish_logship_using_subcommand etcd; and __fish_seen_subcommand_from check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c logship -n "__fish_logship_using_subcommand etcd; and __fish_seen_subcommand_from check" -s V -l version -d 'Print version'
