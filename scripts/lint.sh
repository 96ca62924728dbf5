#!/usr/bin/env bash
# Formats nothing, only says what is not as it should be.
set -euo pipefail
cd "$(dirname "$0")/.."

tool() { go tool -modfile=tools/go.mod "$@"; }
mapfile -t files < <(git ls-files -- '*.go' | grep -v '\.pb\.go$')
unformatted=$(tool gofumpt -l "${files[@]}")
if [ -n "$unformatted" ]; then
  printf 'not formatted, run gofumpt -w on:\n%s\n' "$unformatted" >&2
  exit 1
fi
go vet ./...
tool staticcheck ./...
