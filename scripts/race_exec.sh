#!/usr/bin/env bash
# go test -race -exec scripts/race_exec.sh: a test binary whose package uses
# testing/synctest gets one processor. All timers of a bubble share one context of the
# race detector, and two processors in it at once end the process with
# "ThreadSanitizer: CHECK failed" (golang/go issue 78156). What races is seen by the
# order of events and not by what runs at once, so nothing is lost but some orders.
set -eu

program=$1
shift
if grep -qsF '"testing/synctest"' -- *_test.go; then
  set -- "$@" -test.cpu=1 -test.parallel=4
fi
exec "$program" "$@"
