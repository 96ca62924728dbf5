#!/usr/bin/env bash
# Runs the benchmarks on the built binaries and names the machine.
#   scripts/bench.sh [REGEXP]   only benchmarks whose name matches
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install_deps.sh all
AGENTLAB_TEMPLATE=$(scripts/image.sh)
export AGENTLAB_TEMPLATE AGENTLAB_BIN="$PWD/bin"
printf 'machine: %s cores, %s MiB, %s, %s, load %s\n' "$(nproc)" "$(awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo)" \
  "$(go version | cut -d' ' -f3)" "$(qemu-system-x86_64 --version | head -n 1 | cut -d' ' -f1-4)" "$(cut -d' ' -f1 /proc/loadavg)"
# A boot takes as long as a hundred of the others.
go test -run '^$' -bench "${1:-.}" -skip SandboxReady -benchtime 100x -timeout 20m ./bench
go test -run '^$' -bench "${1:-.}" -skip 'JobToRunning|Process|DaemonStart' -benchtime 5x -timeout 20m ./bench
go test -run '^$' -bench "${1:-.}" -benchtime 100x -timeout 5m ./core/pluginhost
