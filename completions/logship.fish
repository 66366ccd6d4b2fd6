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
complete -c logship -n "__fish_logship_using_subcommand tail" -s t -l topic -d 'Ship to this topic' -r
complete -c logship -n "__fish_logship_using_subcommand tail" -s b -l brokers -d 'Ask these brokers for the cluster [default: standard output]' -r
complete -c logship -n "__fish_logship_using_subcommand tail" -l timeout -d 'Give up after this long [default: never]' -r
complete -c logship -n "__fish_logship_using_subcommand tail" -l from -d 'Where to begin in a file without a saved position' -r -f -a "beginning\t'At the first byte'
end\t'Only what is written from now on'"
complete -c logship -n "__fish_logship_using_subcommand tail" -s f -l format -d 'Ship lines as they are, or as JSON objects' -r -f -a "raw\t'The line\'s bytes'
json\t'A JSON object with ECS names'"
complete -c logship -n "__fish_logship_using_subcommand tail" -s k -l key -d 'Give every record this key [default: none]' -r
complete -c logship -n "__fish_logship_using_subcommand tail" -l partition -d 'Keep a file in one partition, or spread batches' -r -f -a "file\t'All lines of a path to one partition'
spread\t'Batches to the partitions in turn'"
complete -c logship -n "__fish_logship_using_subcommand tail" -l compression -d 'Compress batches with this codec' -r -f -a "none\t'No compression, least CPU'
gzip\t'Understood by everything, slow'
snappy\t'Fast'
lz4\t'Fast, the default'
zstd\t'Smallest, more CPU; needs Kafka 2.1'"
complete -c logship -n "__fish_logship_using_subcommand tail" -l when-full -d 'What to do while the queue is full' -r -f -a "wait\t'Leave lines in the file until there is room'
drop\t'Give lines up and count them'"
complete -c logship -n "__fish_logship_using_subcommand tail" -l state-dir -d 'Keep positions below this directory' -r -F
complete -c logship -n "__fish_logship_using_subcommand tail" -l name -d 'Name the state directory of this tail' -r
complete -c logship -n "__fish_logship_using_subcommand tail" -l shutdown-timeout -d 'Wait this long for acknowledgements when stopped' -r
complete -c logship -n "__fish_logship_using_subcommand tail" -l stats-interval -d 'Tell the figures this often' -r
complete -c logship -n "__fish_logship_using_subcommand tail" -l log-file -d 'Log to this file instead of standard error' -r -F
complete -c logship -n "__fish_logship_using_subcommand tail" -l once -d 'Read to the end, wait for every ack, and exit'
complete -c logship -n "__fish_logship_using_subcommand tail" -l no-state -d 'Keep no positions and use none'
complete -c logship -n "__fish_logship_using_subcommand tail" -s q -l quiet -d 'Tell warnings and errors only'
complete -c logship -n "__fish_logship_using_subcommand tail" -s v -l verbose -d 'Tell more: -v about files, -vv about everything'
complete -c logship -n "__fish_logship_using_subcommand tail" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c logship -n "__fish_logship_using_subcommand tail" -s V -l version -d 'Print version'
