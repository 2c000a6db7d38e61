#!/usr/bin/env bash
# A real Apache Kafka broker of one node (KRaft) on loopback, for tests and measurements.
#
#   kafka.sh install            fetch the broker from Maven Central into the cache, once
#   kafka.sh start DIR [PORT]   start on a free port or on PORT, return when it answers; prints the address
#   kafka.sh stop DIR           end in order
#   kafka.sh kill DIR           kill -9; the data stay, `start DIR PORT` goes on with them
#   kafka.sh pid DIR            print the process, if it runs
#   kafka.sh tool CLASS ARGS    run a class of the distribution, as in
#                               tool org.apache.kafka.tools.TopicCommand --bootstrap-server 127.0.0.1:1234 --list
#
# KAFKA_SETTINGS  lines to add to the broker's settings. Needs Java 17 or newer; for install also mvn.
set -euo pipefail
. "$(dirname "$0")/common.sh"

version=4.3.1
logging_version=2.25.4
dist=$cache/kafka-$version

need_java() {
  command -v java >/dev/null || die "java is not installed"
  local found
  found=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -1)
  [ "${found:-0}" -ge 17 ] || die "Java 17 or newer is needed, this is $found"
}

# Small buffers and few threads: several of these run beside the tests. A killed broker is missed soon, so that tests of
# its restart take seconds.
settings() { # directory port
  cat <<TEXT
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:$2,CONTROLLER://127.0.0.1:$(($2 + 1))
advertised.listeners=PLAINTEXT://127.0.0.1:$2
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:$(($2 + 1))
log.dirs=$1/log
auto.create.topics.enable=false
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.segment.bytes=67108864
log.retention.check.interval.ms=1000
log.initial.task.delay.ms=500
log.cleaner.dedupe.buffer.size=16777216
num.network.threads=2
num.io.threads=4
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=400
${KAFKA_SETTINGS:-}
TEXT
}

unique() { head -c 16 /dev/urandom | base64 | tr '+/' 'AB' | cut -c1-22; }

install() {
  [ -e "$dist/complete" ] && return 0
  need_java
  command -v mvn >/dev/null || die "mvn is not installed"
  mkdir -p "$cache"
  local new
  new=$(mktemp -d "$cache/kafka.XXXXXX")
  # shellcheck disable=SC2064
  trap "rm -rf '$new'" EXIT
  cat >"$new/pom.xml" <<TEXT
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tidegate</groupId><artifactId>test-broker</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$version</version>
      <exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>$logging_version</version></dependency>
  </dependencies>
</project>
TEXT
  mvn -q -B -f "$new/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$new/lib" \
    >"$new/log" 2>&1 || { tail -20 "$new/log" >&2; die "Maven did not fetch Apache Kafka $version"; }
  cat >"$new/logging.properties" <<'TEXT'
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %-5p %c{1} %m%n
rootLogger.level = ${sys:level:-info}
rootLogger.appenderRef.out.ref = out
TEXT
  # One formatted, empty log to copy for each broker spares a Java start; so does, for half of the rest, an archive of the
  # classes that a broker loads, which Java writes when one ends in order.
  settings "$new/model" 1 >"$new/model.properties"
  java -Xmx256m -cp "$new/lib/*" -Dlevel=warn -Dlog4j2.configurationFile="$new/logging.properties" \
    kafka.tools.StorageTool format -t "$(unique)" -c "$new/model.properties" >"$new/log" 2>&1 ||
    { tail -20 "$new/log" >&2; die "could not format a log"; }
  start_broker "$new" "$new/trial" "$(free_ports 2)" -XX:ArchiveClassesAtExit="$new/classes.jsa" >/dev/null
  end "$new/trial" "$new/trial/settings.properties" TERM
  rm -rf "$new/trial" "$new/pom.xml" "$new/log" "$new/model.properties"
  touch "$new/complete"
  place "$new" "$dist"
  trap - EXIT
  [ -e "$dist/complete" ] || die "could not move Apache Kafka to $dist"
}

ready() { # directory port
  grep -qF 'Kafka Server started' "$1/out" && answers "$2"
}

start_broker() { # distribution directory port flags...
  local from=$1 dir=$2 port=$3 pid
  shift 3
  mkdir -p "$dir"
  if [ ! -e "$dir/log/meta.properties" ]; then
    rm -rf "$dir/new"
    cp -r "$from/model/log" "$dir/new"
    sed -i "s|^cluster.id=.*|cluster.id=$(unique)|; s|^directory.id=.*|directory.id=$(unique)|" "$dir/new/meta.properties"
    mv -T "$dir/new" "$dir/log"
  fi
  settings "$dir" "$port" >"$dir/settings.properties"
  : >"$dir/out"
  setsid nohup java -Xms96m -Xmx"${KAFKA_HEAP:-384m}" -XX:+UseSerialGC -XX:+ExitOnOutOfMemoryError \
    -Xlog:cds=off -Xlog:cds+dynamic=off "$@" -Djava.awt.headless=true -Dlog4j2.configurationFile="$from/logging.properties" \
    -cp "$from/lib/*" kafka.Kafka "$dir/settings.properties" >>"$dir/out" 2>&1 </dev/null &
  pid=$!
  echo "$pid" >"$dir/pid"
  wait_until "$pid" 120 "$dir/out" ready "$dir" "$port"
  echo "127.0.0.1:$port"
}

start() { # directory [port]
  install
  mkdir -p "$1"
  local dir port=${2:-} pid
  dir=$(cd "$1" && pwd)
  ! pid=$(pid_of "$dir" "$dir/settings.properties") || die "already runs for $dir (process $pid)"
  [ -n "$port" ] || port=$(free_ports 2)
  ! answers "$port" || die "127.0.0.1:$port is taken"
  local archive=()
  [ ! -e "$dist/classes.jsa" ] || archive=(-XX:SharedArchiveFile="$dist/classes.jsa")
  need_java
  start_broker "$dist" "$dir" "$port" "${archive[@]}"
}

command=${1:-}
case $command in
  start | stop | kill | pid) [ -n "${2:-}" ] || usage ;;
esac
directory() { (cd "$1" 2>/dev/null && pwd) || die "no directory $1"; }
case $command in
  install) install ;;
  start) start "$2" "${3:-}" ;;
  stop) dir=$(directory "$2"); end "$dir" "$dir/settings.properties" TERM ;;
  kill) dir=$(directory "$2"); end "$dir" "$dir/settings.properties" KILL ;;
  pid) dir=$(directory "$2"); pid_of "$dir" "$dir/settings.properties" ;;
  tool)
    shift
    [ $# -gt 0 ] || usage
    install
    exec java -Xmx256m -Dlevel=warn -Dlog4j2.configurationFile="$dist/logging.properties" -cp "$dist/lib/*" "$@"
    ;;
  *) usage ;;
esac
