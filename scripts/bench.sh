#!/usr/bin/env bash
# Runs the benchmarks on the built binaries and names the machine.
#   scripts/bench.sh [--write] [REGEXP]
#     REGEXP   only benchmarks whose name matches
#     --write  put the figures into docs/performance.md and its pictures
set -euo pipefail
cd "$(dirname "$0")/.."

write=
if [ "${1:-}" = --write ]; then
	write=1
	shift
fi
which=${1:-.}

runs() { grep -qE "$which" <<<"Benchmark$1"; }

scripts/install_deps.sh all
AGENTLAB_TEMPLATE=$(scripts/image.sh)
if runs Libvirt && ! scripts/install_deps.sh bench; then
	echo "bench: going on without libvirt; its comparison will be left out" >&2
fi
if runs CloudImage && [ -z "${AGENTLAB_CLOUD_TEMPLATE:-}" ]; then
	AGENTLAB_CLOUD_TEMPLATE=$(scripts/image.sh --kind cloud)
	export AGENTLAB_CLOUD_TEMPLATE
fi
AGENTLAB_BENCH_OUT=$(mktemp -d)
trap 'rm -rf "$AGENTLAB_BENCH_OUT"' EXIT
export AGENTLAB_TEMPLATE AGENTLAB_BENCH_OUT AGENTLAB_BIN="$PWD/bin"

kvm=no
if [ -e /dev/kvm ]; then kvm="there is /dev/kvm; agentlab doctor tells whether it is used"; fi
machine="date=$(date -u +%F)
processor=$(awk -F ': ' '/^model name/ { print $2; exit }' /proc/cpuinfo)
cores=$(nproc)
memory=$(awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo) MiB
kvm=$kvm
system=$(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release), Linux $(uname -r | cut -d. -f1-2)
qemu=$(qemu-system-x86_64 --version | head -n 1 | cut -d' ' -f4)
go=$(go version | cut -d' ' -f3)
load=$(cut -d' ' -f1-3 /proc/loadavg) before the run, with nothing of ours running"
printf 'machine:\n%s\n' "$machine"

run() { go test -run '^$' -timeout 60m "$@"; }

# What takes seconds counts its own repetitions.
long='^Benchmark(SandboxReady|Start|Spare|Burst|Idle|Libvirt|CloudImage)$'
run -bench "$which" -skip "$long" -benchtime 100x ./bench
run -bench "$which" -skip 'JobToRunning|Process|DaemonStart' -benchtime 1x ./bench
run -bench "$which" -benchtime 100x ./core/pluginhost
if [ -n "$write" ]; then
	go run ./bench/figures -run "$AGENTLAB_BENCH_OUT" -machine "$machine"
	echo "docs/performance.md has the figures of this run"
fi
