# What every service of the tests needs: telling, installing, ports, and ending whatever was started. Sourced by
# tests/run, which defines `root` and `services` (target/services); it knows no service by name.
# shellcheck shell=bash disable=SC2154 # root and services are the caller's.

# --- telling ---------------------------------------------------------------------------------------------------------

say() {
  printf 'tests/run: %s\n' "$*" >&2
}

fail() {
  say "$*"
  exit 1
}

# The last lines of a log, indented, so that they are not taken for our own words.
show_log() {
  [[ -s $1 ]] || return 0
  say "the end of ${1##*/}:"
  tail -n "${2:-60}" "$1" | sed 's/^/    /' >&2
}

now_us() {
  printf '%s' "${EPOCHREALTIME//[!0-9]/}" # The decimal sign is the locale's.
}

# since MICROSECONDS: how long ago that was, as "4.2 s".
since() {
  local tenths=$((($(now_us) - $1) / 100000))
  printf '%d.%d s' $((tenths / 10)) $((tenths % 10))
}

# --- installing ------------------------------------------------------------------------------------------------------

# What the services need and this machine does not have, one sentence each. Empty: all is there.
missing=()

have() {
  command -v "$1" >/dev/null 2>&1
}

# apt_install PACKAGE...: true when they are installed. Never asks anything.
apt_install() {
  have apt-get && ((EUID == 0)) || return 1
  local log=$services/apt.log begun
  local install=(apt-get install --yes --quiet --no-install-recommends -o DPkg::Lock::Timeout=300 "$@")
  begun=$(now_us)
  say "installing the Debian packages $*"
  # A new machine may have no package lists yet, or old ones that name files no longer there.
  if DEBIAN_FRONTEND=noninteractive "${install[@]}" >"$log" 2>&1 </dev/null \
    || { apt-get update --quiet >>"$log" 2>&1 </dev/null \
      && DEBIAN_FRONTEND=noninteractive "${install[@]}" >>"$log" 2>&1 </dev/null; }; then
    say "installed them in $(since "$begun")"
  else
    say "could not install them"
    show_log "$log" 15
    return 1
  fi
}

# need_commands COMMAND[=PACKAGE]...: installs the Debian packages of the commands that are not there. The package is
# named where its name differs.
need_commands() {
  local need absent=()
  for need in "$@"; do
    have "${need%%=*}" || absent+=("$need")
  done
  ((${#absent[@]} == 0)) || apt_install "${absent[@]#*=}" || true
  for need in "${absent[@]}"; do
    have "${need%%=*}" || missing+=("the command ${need%%=*} is not there (Debian package ${need#*=})")
  done
}

# --- ports -----------------------------------------------------------------------------------------------------------

# A loopback port on which nobody listens, below the range from which the system takes ports for outgoing connections.
# Somebody may still take it before its user does, so whoever binds it must be ready to try another.
free_port() {
  local port
  while true; do
    port=$((20000 + RANDOM % 12000))
    listening "$port" || break
  done
  printf '%d' "$port"
}

listening() {
  (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# --- starting and ending ---------------------------------------------------------------------------------------------

# Each is the leader of a process group of its own, so that ^C on the terminal reaches this script alone, which then
# ends them in order, and so that what they started ends with them.
groups=()

# start_group COMMAND...: runs it in the background; its pid, which is also its group, is in `started`.
start_group() {
  set -m # Job control gives every background job a group of its own and the signals' default actions.
  "$@" &
  started=$!
  set +m
  groups+=("$started")
}

# run_group COMMAND...: runs it to its end and returns its exit code. Unlike a plain call it can be interrupted.
run_group() {
  local code=0 i
  start_group "$@" </dev/null
  wait "$started" || code=$?
  for ((i = 0; i < 10; i++)); do
    living "$started" >/dev/null || break
    sleep 0.05 # The last ones may be about to go.
  done
  if ((i == 10)); then
    say "processes were left behind and are ended now:"
    living "$started" | sed 's/^/    /' >&2
  fi
  end_group "$started"
  return "$code"
}

# end_group PID: asks the group to end, insists after ten seconds, and returns when it is gone.
end_group() {
  local i other left=()
  kill -TERM -- "-$1" 2>/dev/null || true
  for ((i = 0; i < 240; i++)); do
    living "$1" >/dev/null || break
    ((i != 200)) || kill -KILL -- "-$1" 2>/dev/null || true
    sleep 0.05
  done
  wait "$1" 2>/dev/null || true
  for other in "${groups[@]}"; do
    [[ $other == "$1" ]] || left+=("$other")
  done
  groups=("${left[@]}")
}

# living GROUP: the processes of the group, "PID COMMAND" each; false when there are none. A dead one that nobody has
# waited for yet does not count, though kill -0 finds it: in some containers nobody ever waits for an orphan.
living() {
  local stat line state group found=1
  for stat in /proc/[0-9]*/stat; do
    { read -r line <"$stat"; } 2>/dev/null || continue # It has just ended.
    read -r state _ group _ <<<"${line##*) }"
    if [[ $group == "$1" && $state != [ZX] ]]; then
      found=0
      printf '%s %s\n' "${line%% *}" "$({ tr '\0' ' ' <"${stat%stat}cmdline"; } 2>/dev/null)"
    fi
  done
  return "$found"
}

# Ends everything that was started, the latest first.
end_groups() {
  local running
  mapfile -t running < <(jobs -pr) # A signal may have come between a start and its entry in the list.
  groups+=("${running[@]}")
  while ((${#groups[@]} > 0)); do
    end_group "${groups[-1]}"
  done
}

# --- directories -----------------------------------------------------------------------------------------------------

# make_run_dir: a new directory for the data of this run, in `run_dir`. Removes those of runs that were killed before
# they could remove their own.
make_run_dir() {
  local dir owner
  for dir in "$services"/run.*; do
    owner=$(cat "$dir/owner" 2>/dev/null) || continue
    # tests/run works in `root`: this tells it from another program that has got its pid since.
    [[ /proc/$owner/cwd -ef $root ]] || rm -rf "$dir"
  done
  run_dir=$(mktemp -d "$services/run.XXXXXX")
  printf '%d\n' $$ >"$run_dir/owner"
}
