#!/usr/bin/env bash
# Runs one job in a VM on this checkout: installs what is missing, builds, makes
# the guest image, starts a throw-away daemon in a network namespace of its own,
# and leaves that daemon up for the commands it suggests.
set -euo pipefail
cd "$(dirname "$0")/.."

began=$(date +%s%N)
stage() { # NAME TEXT
  local ms=$((($(date +%s%N) - began) / 1000000))
  printf '%6d.%01ds  %-8s %s\n' $((ms / 1000)) $((ms % 1000 / 100)) "$1" "$2"
}

# compiled shows every ten seconds how far the build is, while this script lives.
compiled() {
  while sleep 10 >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
    stage build "$(grep -c '^go: downloading ' .build/build.log) modules fetched, $(grep -c '^[^ ]*$' .build/build.log) packages compiled so far"
  done
}

sudo=()
if [ "$(id -u)" -ne 0 ]; then
  sudo=(sudo)
  sudo -n true 2>/dev/null || { echo "The demo makes a network namespace and VMs, which needs root; sudo may ask for your password."; sudo -v; }
fi

mkdir -p .build
exec 9>.build/demo.lock
if ! flock -n 9; then
  echo "another make demo is running in this checkout; wait for it, or stop it with make demo-stop" >&2
  exit 1
fi
# Not below /run/lock, where anybody could put a link in the way of root.
lock=/run/agentlab-demo.lock
"${sudo[@]}" touch "$lock" && "${sudo[@]}" chmod 0644 "$lock"
exec 8<"$lock"
if ! flock -n 8; then
  echo "another make demo is running on this machine; wait for it, or stop it with make demo-stop" >&2
  exit 1
fi

stage deps "what is missing is installed"
scripts/install_deps.sh all
stage build "binaries into bin/ (a first build compiles everything, about two minutes)"
compiled 8>&- 9>&- &
progress=$!
disown "$progress" # bash would tell of its end
trap 'kill "$progress" 2>/dev/null || true' EXIT
GOFLAGS="$(go env GOFLAGS) -v" make --no-print-directory build >.build/build.log 2>&1 || { cat .build/build.log >&2; exit 1; }
kill "$progress" 2>/dev/null || true
trap - EXIT
# What an earlier demo left ends here; a daemon that somebody has used since does not.
if [ -e /var/lib/agentlab-dev/.agentlab-dev ]; then "${sudo[@]}" bin/agentlabd --dev --stop --unless-used; fi
stage image "guest image (a first build takes about two minutes; cached under /var/cache/agentlab)"
template=$(scripts/image.sh)

run=/run/agentlab-dev
sock=$run/agentlabd.sock
# Named only where agentlab would not find it by itself, as agentlab --help says;
# what the commands suggest then needs it no more than they do.
where=()
if [ -e /run/agentlab/agentlabd.sock ] || [ "${AGENTLAB_ENDPOINT:-}${AGENTLAB_SOCKET:-}" ] ||
  [ -e "${XDG_CONFIG_HOME:-${HOME:-}/.config}/agentlab/client.json" ]; then
  where=(--socket "$sock")
fi
agentlab() { bin/agentlab "${where[@]}" "$@"; }

stage daemon "starting in its own network namespace; the host's network is not touched"
# sudo stays as its parent, so the locks must not reach even that.
"${sudo[@]}" setsid "$PWD/bin/agentlabd" --dev --template "$template" </dev/null >>.build/daemon.log 2>&1 8>&- 9>&- &
for _ in $(seq 100); do
  if agentlab status >/dev/null 2>&1; then break; fi
  sleep 0.1
done
agentlab status >/dev/null || { echo "the daemon did not start; its last words:" >&2; tail -n 20 .build/daemon.log >&2; exit 1; }
plugins() { agentlab plugin list --json | python3 -c 'import json, sys; print(", ".join(p["name"] + " " + p["state"] for p in json.load(sys.stdin)["plugins"]))'; }
for _ in $(seq 100); do
  state=$(plugins)
  case "$state" in *starting*) sleep 0.1 ;; *) break ;; esac
done
stage plugins "$state"

dirty=()
if [ -n "$(git status --porcelain)" ]; then dirty=(--dirty); fi
stage job "agentlab job run --repo . --task 'measure this repository' --profile dev"
code=0
agentlab job run --repo . "${dirty[@]}" --task "measure this repository" --profile dev || code=$?
if [ "$code" -ge 125 ]; then exit "$code"; fi
job=$(agentlab job list --limit 1 --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["jobs"][0]["id"])')
stage report "of $job"
rm -rf ".build/demo/$job"
agentlab job artifacts download "$job" --output ".build/demo/$job" >/dev/null
# Through the program: what a guest has written may hold more than text.
agentlab job show "$job" --events-tail 0 | sed 's/^/           /'
stage files "artifacts are in $PWD/.build/demo/$job"
if [ "$code" -eq 0 ]; then
  agentlab job fetch "$job"
fi
stage memory "what sandboxes of this size start from in future, instead of booting"
agentlab template warm --profile dev >/dev/null
stage "done" "the daemon stays up until: make demo-stop"
again="agentlab${where[*]:+ ${where[*]}}"
cat <<TEXT

Try next:
  export PATH="$PWD/bin:\$PATH"   # for what says agentlab, here and above
  $again job show $job
  git log -1 --stat agentlab/$job
  $again sandbox new --profile dev --name play && $again ssh play
TEXT
exit "$code"
