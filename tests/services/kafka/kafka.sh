# A real Apache Kafka from its Maven artifacts. Sourced by tests/run after lib.sh.
# shellcheck shell=bash disable=SC2154 # root, services, run_dir and started are set by tests/run and lib.sh.

kafka_dir=$root/tests/services/kafka
readonly KAFKA_START_SECONDS_MAX=90
readonly KAFKA_CLUSTER_ID=bG9nc2hpcC10ZXN0cy0tLQ # Any 16 bytes in base64; a fresh log makes it a new cluster all the same.

# find_java: the path of a Java that can run Kafka, in `java`; installs one where there is none.
find_java() {
  java=$(suitable_java) && return
  local package
  for package in default-jre-headless openjdk-17-jre-headless; do
    apt_install "$package" || continue
    java=$(suitable_java) && return
  done
  java=
  missing+=("there is no Java 17 or newer (Debian package openjdk-17-jre-headless)")
}

suitable_java() {
  local candidate
  for candidate in "${JAVA_HOME:+$JAVA_HOME/bin/java}" "$(command -v java)"; do
    if [[ -x $candidate ]] && (($(java_version "$candidate") >= 17)); then
      printf '%s' "$candidate"
      return
    fi
  done
  return 1
}

# java_version JAVA: its major number, 0 when it cannot be told.
java_version() {
  local line
  line=$("$1" -XshowSettings:properties -version 2>&1 | grep 'java.specification.version =') || true
  line=${line##*= }
  printf '%d' "${line%%.*}"
}

# kafka_libs VERSION: the directory of its jars.
kafka_libs() {
  printf '%s' "$services/kafka-$1"
}

# fetch_kafka VERSION: the jars of pom-VERSION.xml. They are kept for the next run.
fetch_kafka() {
  local pom=$kafka_dir/pom-$1.xml log=$services/maven.log libs fresh code=1 try begun
  libs=$(kafka_libs "$1")
  # The pom is copied beside the jars last: where it is there and the same, so are they.
  cmp -s "$pom" "$libs/pom.xml" && return
  [[ -n $java ]] || return 0
  need_commands mvn=maven
  have mvn || return 0
  say "fetching the jars of Kafka $1 with Maven"
  begun=$(now_us)
  fresh=$run_dir/fetched
  for try in 1 2; do
    code=0
    JAVA_HOME=${java%/bin/java} run_group timeout --foreground 900 \
      mvn --batch-mode --no-transfer-progress --update-snapshots -Dstyle.color=never --file "$pom" \
      org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
      -DincludeScope=runtime -DoutputDirectory="$fresh" >"$log" 2>&1 || code=$?
    ((code != 0)) || break
    say "Maven failed with exit code $code (try $try of 2)"
  done
  if ((code != 0)); then
    show_log "$log" 20
    missing+=("the jars of Kafka $1 could not be fetched: Maven's log is in target/services/maven.log")
    return
  fi
  cp "$pom" "$fresh/pom.xml"
  rm -rf "$libs"
  mv -T "$fresh" "$libs"
  say "fetched them in $(since "$begun")"
}

# start_kafka VERSION: a single node with an empty log, in `run_dir`; its address is in `kafka_address`. Fails with the
# server's log where it does not come up.
start_kafka() {
  local dir=$run_dir/kafka-$1 begun try
  begun=$(now_us)
  say "starting Kafka $1"
  for try in 1 2 3; do
    launch_kafka "$1" "$dir"
    if await_kafka; then
      say "Kafka $1 answers on $kafka_address after $(since "$begun")"
      return
    fi
    end_group "$kafka_pid"
    # Between the choice of a port and its use somebody else can have taken it.
    if ((try == 3)) || ! grep -q 'Address already in use' "$dir/server.log" 2>/dev/null; then
      break
    fi
    say "another program took its port, trying again"
  done
  show_log "$dir/output.log"
  show_log "$dir/server.log"
  fail "Kafka $1 did not come up within $(since "$begun")"
}

# launch_kafka VERSION DIR: formats an empty log and starts the server there, without waiting for it.
launch_kafka() {
  local dir=$2 port controller_port settings
  # A small heap, the smallest collector and only the quick compiler: it starts in half the time and leaves the cores
  # to the tests. Native libraries are unpacked into java.io.tmpdir; the performance data would be in /tmp.
  local jvm=("$java" -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData "-Djava.io.tmpdir=$dir"
    "-Dlog4j2.configurationFile=$kafka_dir/log4j2.properties" -cp "$(kafka_libs "$1")/*")
  rm -rf "$dir"
  mkdir -p "$dir"
  port=$(free_port)
  controller_port=$(free_port)
  while ((controller_port == port)); do
    controller_port=$(free_port)
  done
  settings=$(<"$kafka_dir/server.properties")
  settings=${settings//@BROKER_PORT@/$port}
  settings=${settings//@CONTROLLER_PORT@/$controller_port}
  printf '%s\n' "$settings" >"$dir/server.properties"
  kafka_address=127.0.0.1:$port

  run_group env -C "$dir" "${jvm[@]}" kafka.tools.StorageTool format --cluster-id "$KAFKA_CLUSTER_ID" \
    --config server.properties >"$dir/output.log" 2>&1 || true # Its failure shows in the server's.
  # The kernel kills the server when this script dies without having been able to end it.
  start_group setpriv --pdeathsig KILL env -C "$dir" "${jvm[@]}" kafka.Kafka server.properties \
    >>"$dir/output.log" 2>&1 </dev/null
  kafka_pid=$started
}

# await_kafka: true when the server answers a client, false when it ended or the deadline passed. It listens only after
# it has registered itself with its controller, so until then kcat, which takes a second to fail, is not asked.
await_kafka() {
  local deadline=$((SECONDS + KAFKA_START_SECONDS_MAX))
  while ((SECONDS < deadline)); do
    kill -0 "$kafka_pid" 2>/dev/null || return 1
    if listening "${kafka_address##*:}" && kcat -b "$kafka_address" -L -m 5 2>/dev/null | grep -q '^ 1 brokers'; then
      return
    fi
    sleep 0.05
  done
  return 1
}

# What the tests need to start a Kafka of their own: Java, and the jars of every version that was fetched.
kafka_programs() {
  printf '%s=%s\n' LOGSHIP_TEST_JAVA "$java" LOGSHIP_TEST_KAFKA_LIBS "$(kafka_libs 4.3)" \
    LOGSHIP_TEST_KAFKA_39_LIBS "$(kafka_libs 3.9)" LOGSHIP_TEST_KAFKA_28_LIBS "$(kafka_libs 2.8)" \
    LOGSHIP_TEST_KAFKA_010_LIBS "$(kafka_libs 0.10)"
}
