#!/usr/bin/env bash
# Ends the demo's daemon, its VMs and its network namespace, and removes its files.
set -euo pipefail
cd "$(dirname "$0")/.."

sudo=()
if [ "$(id -u)" -ne 0 ]; then sudo=(sudo); fi
if [ ! -x bin/agentlabd ]; then
  echo "bin/agentlabd is not there; run make build first" >&2
  exit 1
fi
if [ ! -e /var/lib/agentlab-dev/.agentlab-dev ]; then
  echo "nothing to stop"
  exit
fi
exec "${sudo[@]}" bin/agentlabd --dev --stop
