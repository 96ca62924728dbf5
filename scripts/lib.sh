# shellcheck shell=bash
# Messages, stages and checks shared by the project's scripts; sourced, never run.
# Everything for people goes to stderr: stdout belongs to results.

# die MESSAGE [REMEDY]: end with an error and, where there is one, the way out.
die() {
	printf '%s: %s\n' "${PROGRAM:-script}" "$1" >&2
	if [ "${2:-}" ]; then printf '  try: %s\n' "$2" >&2; fi
	exit 1
}

note() { printf '%s\n' "$*" >&2; }

# now_ms: monotonic enough for progress, without starting a program.
now_ms() {
	local t=${EPOCHREALTIME/[.,]/}
	printf '%s' "$((t / 1000))"
}

# seconds_since MS: elapsed time as seconds with one digit.
seconds_since() {
	local ms=$(($(now_ms) - $1))
	printf '%d.%d' $((ms / 1000)) $((ms % 1000 / 100))
}

# stage LABEL COMMAND…: run a command as one named stage and show what it took.
stage() {
	local label=$1 started
	shift
	started=$(now_ms)
	if [ -t 2 ]; then printf '%-34s …' "$label" >&2; fi
	"$@"
	if [ -t 2 ]; then printf '\r\033[K' >&2; fi
	printf '%-34s %6ss\n' "$label" "$(seconds_since "$started")" >&2
}

# show_percent LABEL PERCENT STARTED_MS: one redrawn bar, for terminals only.
show_percent() {
	local filled=$(($2 * 24 / 100)) bar=########################
	printf '\r\033[K%-34s [%-24s] %3d%% %ss' "$1" "${bar:0:filled}" "$2" "$(seconds_since "$3")" >&2
}

# need_tools PACKAGE_GROUP TOOL…: all of them, or the command that installs them.
need_tools() {
	local group=$1 tool missing=""
	shift
	for tool in "$@"; do
		command -v "$tool" >/dev/null || missing="$missing $tool"
	done
	[ -z "$missing" ] || die "missing tools:$missing" "scripts/install_deps.sh $group"
}
