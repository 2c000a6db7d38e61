#!/usr/bin/env bash
# Prints the path of a Go that is new enough for what the tests build: the machine's own, or a newer one that its own
# fetches. Go's releases are also modules (golang.org/toolchain), checked like every other against the checksum database;
# Go 1.21 and newer fetch them by themselves, Debian's older one does when asked for the module.
set -euo pipefail
. "$(dirname "$0")/common.sh"

oldest=1.25
release=go1.25.5

command -v go >/dev/null || die "go is not installed"
own=$(go env GOVERSION)
own=${own#go}
if [ "$(printf '%s\n%s\n' "$oldest" "$own" | sort -V | head -1)" = "$oldest" ]; then
  command -v go
  exit 0
fi
if [ ! -e "$cache/$release/complete" ]; then
  mkdir -p "$cache"
  new=$(mktemp -d "$cache/go.XXXXXX")
  trap 'chmod -R u+w "$new" && rm -rf "$new"' EXIT
  (cd "$new" && GOTOOLCHAIN=local GOFLAGS=-modcacherw GOMODCACHE="$new/modules" \
    go mod download "golang.org/toolchain@v0.0.1-$release.$(go env GOOS)-$(go env GOARCH)") || die "could not fetch $release"
  # A module's files carry no mode.
  found=("$new"/modules/golang.org/toolchain@*)
  chmod +x "${found[0]}"/bin/* "${found[0]}"/pkg/tool/*/*
  touch "${found[0]}/complete"
  place "${found[0]}" "$cache/$release"
fi
echo "$cache/$release/bin/go"
