# What kafka.sh and s3.sh share: where things lie, ports, processes. Sourced, not run.
#
# A server belongs to its data directory: `pid` there names the process that was started for it, and nothing else is
# ever ended. All listen on 127.0.0.1 only.

cache=${XDG_CACHE_HOME:-$HOME/.cache}/tidegate/servers
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

die() {
  echo "$(basename "$0"): $*" >&2
  exit 1
}

usage() {
  sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "$0" >&2
  exit 2
}

# Ports that nothing listens on now, one after the other, as many as asked for.
free_ports() {
  python3 - "$1" <<'PY'
import random, socket, sys
wanted = int(sys.argv[1])
for attempt in range(1000):
    # Below the range from which the system gives ports to outgoing connections: those come and go.
    first, held = random.randrange(10000, 30000), []
    try:
        for port in range(first, first + wanted):
            held.append(socket.socket())
            held[-1].bind(("127.0.0.1", port))
        print(first)
        break
    except OSError:
        continue
    finally:
        [one.close() for one in held]
else:
    sys.exit("no free ports")
PY
}

# True while a process runs; one that has ended but was not yet waited for does not.
alive() {
  local state
  state=$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$1/status" 2>/dev/null) || return 1
  case $state in
    '') return 1 ;;
    # The main thread may be gone while others still write.
    Z | X) [ "$(find "/proc/$1/task" -mindepth 1 -maxdepth 1 2>/dev/null | wc -l)" -gt 1 ] ;;
  esac
}

# The process of a data directory, if it runs. $2 must stand in its command line, as numbers of processes are used again.
pid_of() {
  local pid
  pid=$(cat "$1/pid" 2>/dev/null) && [ -n "$pid" ] && alive "$pid" || return 1
  tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF -- "$2" || return 1
  echo "$pid"
}

answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Waits until a condition holds or the process or the time has ended: wait_until PID SECONDS LOG CONDITION...
wait_until() {
  local pid=$1 seconds=$2 log=$3 began=$SECONDS
  shift 3
  until "$@"; do
    alive "$pid" || { tail -20 "$log" >&2; die "the server ended while it started"; }
    [ $((SECONDS - began)) -lt "$seconds" ] || { kill -9 "$pid"; tail -20 "$log" >&2; die "not ready after $seconds s"; }
    sleep 0.05
  done
}

# Sends a signal and waits for the end: end DIR MARK SIGNAL
end() {
  local pid began=$SECONDS
  pid=$(pid_of "$1" "$2") || { rm -f "$1/pid"; return 0; }
  kill "-$3" "$pid"
  # A stopped process sees no other signal than this and SIGKILL.
  kill -CONT "$pid" 2>/dev/null
  while alive "$pid"; do
    [ $((SECONDS - began)) -lt 30 ] || kill -9 "$pid"
    sleep 0.05
  done
  rm -f "$1/pid"
}

# Puts a folder in its place at once, so that a broken-off installation is never taken for a whole one.
place() {
  mkdir -p "$(dirname "$2")"
  mv -T "$1" "$2" 2>/dev/null || { [ -e "$2/complete" ] && rm -rf "$1"; }
}
