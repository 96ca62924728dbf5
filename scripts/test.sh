#!/usr/bin/env bash
# Runs the tests in stages and prints each stage's time beside its budget.
#   scripts/test.sh fast   what needs neither root nor a VM (make check)
#   scripts/test.sh all    everything (make test)
# A stage over its budget is named at the end, a failing one fails the run; every skipped
# test is listed with its reason. "make test" also lets a stage run beside others.
set -euo pipefail
cd "$(dirname "$0")/.."

what=${1:-all}
logs=.build/test
rm -rf "$logs"
mkdir -p "$logs"
passed=0 failed=0 skipped=0
broken=() over=() table=()
declare -A beside=() # process groups in the background, by name

# run_stage NAME BUDGET_SECONDS COMMAND…: the command's output goes to a log,
# shown when it fails.
run_stage() {
  local name=$1 budget=$2
  shift 2
  printf '=== %-12s %s\n' "$name" "$*"
  measure "$name" "$@"
  judge "$name" "$budget"
}

# start_stage NAME COMMAND…: begins a stage that runs beside the next ones.
start_stage() {
  printf '=== %-12s %s (beside the next ones)\n' "$1" "${*:2}"
  start "$1" measure "$@"
}

# join_stage NAME BUDGET_SECONDS: waits for a started stage. Its time is its own,
# not what was waited here.
join_stage() {
  join "$1" || true
  judge "$1" "$2"
}

# start NAME COMMAND…: in the background. Monitor mode gives it a process group of
# its own, so that all of it can be ended.
start() {
  set -m
  "${@:2}" </dev/null &
  beside[$1]=$!
  set +m
}

# join NAME: waits for what was started and gives its exit code.
join() {
  local code=0
  wait "${beside[$1]}" || code=$?
  unset "beside[$1]"
  return "$code"
}

# end_beside: nothing outlives this script. Tests end their VMs on SIGINT, and
# go test waits for them.
end_beside() {
  local pid
  for pid in "${beside[@]}"; do kill -INT -- "-$pid" 2>/dev/null || true; done
  wait
}
trap end_beside EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# measure NAME COMMAND…: runs it and notes how long it took and whether it failed.
measure() {
  local name=$1 start state=ok
  shift
  start=$(date +%s%N)
  "$@" >"$logs/$name.log" 2>&1 || state=FAILED
  echo "$((($(date +%s%N) - start) / 1000000)) $state" >"$logs/$name.result"
}

# judge NAME BUDGET_SECONDS: counts and prints what measure noted.
judge() {
  local name=$1 budget=$2 took=0 state=FAILED
  read -r took state <"$logs/$name.result" || true
  if [ "$state" = FAILED ]; then broken+=("$name"); fi
  if [ "$budget" -gt 0 ] && [ "$took" -gt $((budget * 1000)) ]; then
    over+=("$name")
    [ "$state" = ok ] && state="over budget"
  fi
  count "$logs/$name.log"
  table+=("$(printf '%-12s %6d.%01d s  of %4d s  %s' "$name" $((took / 1000)) $((took % 1000 / 100)) "$budget" "$state")")
  echo "    ${table[-1]}"
  if [ "$state" = FAILED ]; then show_failure "$logs/$name.log"; fi
}

count() {
  passed=$((passed + $(grep -cE '^ *--- PASS' "$1" || true)))
  failed=$((failed + $(grep -cE '^ *--- FAIL' "$1" || true)))
  skipped=$((skipped + $(grep -cE '^ *--- SKIP' "$1" || true)))
}

# show_failure LOG: the failed tests first, each with what it and its parts said; then
# the end of the log without the passed ones, for what belongs to no test.
show_failure() {
  echo "---- failed (whole log: $1)"
  failed_tests "$1" | head -n 300
  echo "---- end of the log"
  grep -vE '^(=== (RUN|PAUSE|CONT|NAME)|ok  |\?   |PASS|--- PASS|--- SKIP| +--- PASS| +[a-z0-9_]+\.go:[0-9]+: )' "$1" | tail -n 60 || true # it may have said nothing
  echo "----"
}

# Tests of one package that run in parallel mix their lines: "=== NAME" says whose come next.
# Packages do not mix, but two may have a test of the same name: what is known ends with each.
failed_tests() {
  awk '
    function tell(  i, t) {
      for (i = 1; i <= n; i++) { t = order[i]; if (t in bad) printf "%s\n%s", bad[t], said[t] }
      split("", said); split("", bad); split("", seen); n = 0; test = ""
    }
    /^=== (RUN|NAME|CONT|PAUSE)/ { test = $3; if (!(test in seen)) { seen[test]; order[++n] = test }; next }
    /^ *--- FAIL/ { bad[$3] = $0; test = $3; next }
    /^ *--- / { test = ""; next }
    /^(ok  |FAIL|PASS$|\?   )/ { if (NF > 1) tell(); next }
    test != "" { said[test] = said[test] $0 "\n" }
    END { tell() }
  ' "$1"
}

# A skipped test says why while it runs; the line that counts it may come much later.
list_skips() {
  awk '
    /^ *=== (RUN|NAME|CONT)/ { test = $3; if ($2 == "RUN") delete why[test]; next }
    /^ +[a-z0-9_]+\.go:[0-9]+: / { why[test] = $0; sub(/^ +/, "", why[test]); next }
    /^ *--- SKIP/ { print "  " $3 ": " why[$3] }
  ' "$logs"/*.log
}

unit_packages() { go list ./... | grep -vE '/(plugins/|examples/|internal/e2e|sdk/conformance|sdk/scaffold)'; }
# The command line starts hundreds of programs and has hardly a goroutine, and some
# others read source: -race makes these several times as slow and finds nothing.
cli_packages() { unit_packages | grep -E '/(cmd/agentlab|internal/archtest|images|bench.*)$'; }
# Where none of these words is, nothing runs at once, and -race has nothing to find. It
# takes longer to link than such tests take.
concurrent='\bgo (func|[a-z]\w*[.(])|\.Go\(|\bchan\b|"sync|synctest|\.Parallel\(|httptest'
race_packages() {
  local dir module
  module=$(go list -m)
  comm -23 <(unit_packages | sort) <(cli_packages | sort) | while read -r package; do
    dir=.${package#"$module"}
    if grep -qE "$concurrent" "$dir"/*.go; then echo "$package"; fi
  done
}
plain_packages() { comm -23 <(unit_packages | sort) <({ race_packages; cli_packages; } | sort); }

unit_tests() {
  local failed=0
  # shellcheck disable=SC2046
  nice -n 3 env GORACE=atexit_sleep_ms=0 GOGC=400 RAPID_CHECKS=20 go test -v -race -exec "$PWD/scripts/race_exec.sh" -p 3 $(race_packages) || failed=1
  # shellcheck disable=SC2046
  nice -n 3 go test -v $(plain_packages) || failed=1
  return "$failed"
}

plugin_packages() { go list ./plugins/... ./examples/... ./sdk/conformance ./sdk/scaffold | grep -v '/plugins/netfilter'; }
crash_packages() { go list ./internal/e2e/... | grep -vE '/e2e/(vm|cloud)$'; }

# Says what fails, since bash ignores set -e inside a command that is tested. An
# image from nothing keeps one processor busy, so both are made at once. Compiling
# for -race takes longer than the tests when no cache has it, and is no test; what
# does not compile fails where it is tested.
build_and_images() {
  local failed=0
  make --no-print-directory build || return 1
  [ "$(id -u)" -eq 0 ] || sudo -v || return 1 # nobody can answer in the background
  start cloud-image scripts/image.sh --kind cloud >"$logs/cloud-template"
  scripts/image.sh >"$logs/template" || failed=1
  # shellcheck disable=SC2046
  go list -race -export -test -deps $(race_packages) >/dev/null || true
  join cloud-image || failed=1
  cat "$logs/template" "$logs/cloud-template"
  return "$failed"
}

# build_elsewhere wants the same bytes from the same source at another path, and the Go
# code of the contracts as it is committed.
build_elsewhere() {
  local copy same=0
  copy=$(mktemp -d) &&
    tar --exclude=./.git --exclude=./bin --exclude=./.build -cf - . | tar -C "$copy" -xf - &&
    make --no-print-directory -C "$copy" build &&
    (cd "$copy/bin" && sha256sum -- *) | (cd bin && sha256sum -c -) &&
    (cd "$copy" && scripts/generate.sh contracts) &&
    diff -r sdk/internal/proto "$copy/sdk/internal/proto" || same=1
  rm -rf "$copy"
  return "$same"
}

go version
scripts/install_deps.sh all
export AGENTLAB_BIN="$PWD/bin"

if [ "$what" = fast ]; then
  total=120
  run_stage vet 60 go vet ./...
  # shellcheck disable=SC2046
  run_stage unit 110 go test -v -short $(unit_packages)
else
  total=720
  # What make build compiled serves the tests then, and what they build themselves;
  # only -race needs everything once more.
  export GOFLAGS="${GOFLAGS:+$GOFLAGS }-trimpath"
  run_stage build 240 build_and_images
  if [ ${#broken[@]} -gt 0 ]; then
    echo "nothing to test: the build failed" >&2
    exit 1
  fi
  AGENTLAB_TEMPLATE=$(cat "$logs/template")
  AGENTLAB_CLOUD_TEMPLATE=$(cat "$logs/cloud-template")
  export AGENTLAB_TEMPLATE AGENTLAB_CLOUD_TEMPLATE
  # Nearly all of this stage is one processor that emulates one guest; the others
  # leave enough of the second one idle. Its budget is that of a machine it shares.
  # What runs beside it is nicer, since systemd in that guest has deadlines.
  start_stage cloud go test -v -timeout 30m ./internal/e2e/cloud/...
  run_stage reproduce 60 build_elsewhere
  run_stage unit 180 unit_tests
  # shellcheck disable=SC2046
  run_stage cli 60 nice -n 3 go test -v $(cli_packages)
  # shellcheck disable=SC2046
  run_stage plugins 180 nice -n 3 go test -v $(plugin_packages)
  # Mostly one guest at a time; the crashes mostly wait.
  start_stage vms go test -v -timeout 15m ./internal/e2e/vm/...
  # shellcheck disable=SC2046
  run_stage crashes 240 nice -n 3 go test -v -timeout 10m $(crash_packages)
  run_stage network 120 go test -v ./plugins/netfilter/...
  join_stage vms 240
  join_stage cloud 600
fi

echo
echo "stage             time      budget"
printf '%s\n' "${table[@]}"
printf '%-12s %6d   s  of %4d s\n' total "$SECONDS" "$total"
if [ "$SECONDS" -gt "$total" ]; then over+=(total); fi
if [ "$skipped" -gt 0 ]; then
  echo
  echo "skipped:"
  list_skips
fi
echo
if [ ${#over[@]} -gt 0 ]; then echo "over budget: ${over[*]}"; fi
if [ ${#broken[@]} -gt 0 ]; then
  echo "failed stages: ${broken[*]}"
  # Once more and short: who reads only the end of a long output needs no more than this.
  for stage in "${broken[@]}"; do failed_tests "$logs/$stage.log" | grep -A 3 -E '^ *--- FAIL' | head -n 40 || true; done
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ ${#broken[@]} -eq 0 ]
