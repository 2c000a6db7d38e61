#!/usr/bin/env bash
# A real S3 server (MinIO, built from its Go module) on loopback, for tests and measurements.
#
#   s3.sh install            build the server into the cache, once; takes some minutes
#   s3.sh start DIR [PORT]   start on a free port or on PORT, return when it answers and has the bucket; prints the URL
#   s3.sh stop DIR           end in order
#   s3.sh kill DIR           kill -9; the data stay, `start DIR PORT` goes on with them
#   s3.sh pid DIR            print the process, if it runs
#
# S3_ACCESS_KEY (tidegate), S3_SECRET_KEY (tidegate-test), S3_BUCKET (tidegate). Region us-east-1, path-style addresses.
# It knows conditional PUT (If-None-Match: *, If-Match), which the tables need. Needs curl; for install also go.
set -euo pipefail
. "$(dirname "$0")/common.sh"

# The last release that is published as a module with its licence unchanged.
version=v0.0.0-20260212201848-7aac2a2c5b7c
dist=$cache/minio-$version
access=${S3_ACCESS_KEY:-tidegate}
secret=${S3_SECRET_KEY:-tidegate-test}
bucket=${S3_BUCKET:-tidegate}

install() {
  [ -e "$dist/complete" ] && return 0
  local go new
  go=$("$here/go.sh")
  mkdir -p "$cache"
  new=$(mktemp -d "$cache/minio.XXXXXX")
  # shellcheck disable=SC2064
  trap "rm -rf '$new'" EXIT
  (cd "$new" && GOBIN=$new GOFLAGS= CGO_ENABLED=0 nice -n 5 "$go" install -trimpath -ldflags='-s -w' \
    "github.com/minio/minio@$version") >"$new/log" 2>&1 || { tail -20 "$new/log" >&2; die "could not build MinIO"; }
  rm "$new/log"
  touch "$new/complete"
  place "$new" "$dist"
  trap - EXIT
}

ready() { [ "$(curl -s -o /dev/null -m 2 -w '%{http_code}' "http://127.0.0.1:$1/minio/health/ready")" = 200 ]; }

make_bucket() { # directory port
  local code
  code=$(curl -s -o "$1/answer" -w '%{http_code}' -X PUT --user "$access:$secret" --aws-sigv4 aws:amz:us-east-1:s3 \
    -H "x-amz-content-sha256: $(printf '' | sha256sum | cut -d' ' -f1)" "http://127.0.0.1:$2/$bucket") || true
  [ "$code" = 200 ] || grep -q BucketAlreadyOwnedByYou "$1/answer" || die "making the bucket $bucket: $code $(cat "$1/answer")"
}

start() { # directory [port]
  install
  mkdir -p "$1/drive"
  local dir port=${2:-} pid
  dir=$(cd "$1" && pwd)
  ! pid=$(pid_of "$dir" "$dir/drive") || die "already runs for $dir (process $pid)"
  [ -n "$port" ] || port=$(free_ports 1)
  ! answers "$port" || die "127.0.0.1:$port is taken"
  MINIO_ROOT_USER=$access MINIO_ROOT_PASSWORD=$secret MINIO_BROWSER=off MINIO_UPDATE=off MINIO_REGION_NAME=us-east-1 \
    setsid nohup "$dist/minio" server --quiet --address "127.0.0.1:$port" "$dir/drive" >"$dir/out" 2>&1 </dev/null &
  pid=$!
  echo "$pid" >"$dir/pid"
  wait_until "$pid" 60 "$dir/out" ready "$port"
  make_bucket "$dir" "$port"
  echo "http://127.0.0.1:$port"
}

command=${1:-}
case $command in
  start | stop | kill | pid) [ -n "${2:-}" ] || usage ;;
esac
directory() { (cd "$1" 2>/dev/null && pwd) || die "no directory $1"; }
case $command in
  install) install ;;
  start) start "$2" "${3:-}" ;;
  stop) dir=$(directory "$2"); end "$dir" "$dir/drive" TERM ;;
  kill) dir=$(directory "$2"); end "$dir" "$dir/drive" KILL ;;
  pid) dir=$(directory "$2"); pid_of "$dir" "$dir/drive" ;;
  *) usage ;;
esac
