#!/bin/sh
# logship without a service manager: started from a shell, it goes on when the shell is
# gone. Its log is opened again when it is rotated, so logrotate needs no postrotate.
#
#   sh nohup.sh start|stop|reload|status [CONFIG]
set -eu

config=${2:-/etc/logship.json}
log=${LOGSHIP_LOG:-./logship.log}
pid_file=${LOGSHIP_PID_FILE:-./logship.pid}

running() {
  [ -s "$pid_file" ] && kill -0 "$(cat "$pid_file")" 2>/dev/null
}

case ${1:-} in
  start)
    logship check-config "$config" >/dev/null
    if running; then
      echo "it runs already, with pid $(cat "$pid_file")" >&2
      exit 1
    fi
    nohup logship run --config "$config" --log-file "$log" >/dev/null 2>&1 </dev/null &
    echo $! >"$pid_file"
    ;;
  stop)
    # It waits for acknowledgements for as long as shutdown_timeout says.
    running && kill -TERM "$(cat "$pid_file")"
    while running; do sleep 0.2; done
    rm -f "$pid_file"
    ;;
  reload)
    running && kill -HUP "$(cat "$pid_file")"
    ;;
  status)
    running && logship status --state-dir "${LOGSHIP_STATE_DIR:-/var/lib/logship}"
    ;;
  *)
    echo "usage: sh nohup.sh start|stop|reload|status [CONFIG]" >&2
    exit 2
    ;;
esac
