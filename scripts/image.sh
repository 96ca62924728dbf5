#!/usr/bin/env bash
# Prints the folder of the guest template that fits bin/agent-runner, building
# it when it is not in the cache.
set -euo pipefail
cd "$(dirname "$0")/.."

sudo=()
if [ "$(id -u)" -ne 0 ]; then sudo=(sudo); fi
exec "${sudo[@]}" images/build.sh --runner "$PWD/bin/agent-runner" "$@"
